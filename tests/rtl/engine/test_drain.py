"""The drain: order, parameters per column and per row, waiting for its output, and for the ring."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from support import port_widths, simulate

from sta_hw.reference.requantizer import requantize
from sta_hw.rtl.engine.drain import Drain
from sta_hw.spec.config import Config


@pytest.mark.parametrize(("rows", "lanes"), [(1, 1), (6, 2), (4, 4)])
def test_drain(rows: int, lanes: int) -> None:
    config = Config(rows=rows, lanes=lanes, columns=8, window=32 if rows == 1 else 8)
    top = Module()
    top.submodules.dut = dut = Drain(config)
    rng = np.random.default_rng(rows)
    products = []
    for i in range(12):
        columns, taps, per_row, wide = int(rng.integers(1, 14)), int(rng.integers(1, 5)), i % 2, int(rng.integers(2))
        if i == 5:  # rows have as many parameters as there is room for
            columns, taps = config.window + 2, config.window
        count = taps * rows if per_row else columns
        shifts = rng.integers(2, 5, count) if wide else rng.integers(4, 7, count)  # results are seldom saturated
        parameters = np.stack([rng.integers(-99999, 99999, count), rng.integers(0, 65536, count), shifts])
        sums = rng.integers(-(2**20), 2**20, (columns, rows))
        if per_row:
            own = parameters.reshape(3, taps, rows)[:, np.arange(columns) % taps]
            own[0] = 0
        else:
            own = np.repeat(parameters[:, :, None], rows, 2)
        products.append((columns, taps, per_row, wide, parameters, sums, requantize(sums, *own, wide=bool(wide))))
    all_sums = np.concatenate([p[5] for p in products])
    expected = np.concatenate([p[6] for p in products]).reshape(-1, lanes)
    ring = np.zeros((config.columns, rows), np.int64)
    state = {"taken": 0}

    async def command(ctx) -> None:
        for columns, taps, per_row, wide, *_ in products:
            fields = {"columns": columns, "taps": taps, "per_row": per_row, "wide_result": wide}
            for field, value in fields.items():
                ctx.set(dut.command.payload[field], value)
            ctx.set(dut.command.valid, 1)
            await ctx.tick().until(dut.command.ready)
            ctx.set(dut.command.valid, 0)

    async def parameters(ctx) -> None:
        for _, _, _, _, given, _, _ in products:
            for bias, multiplier, shift in given.T.tolist():
                while rng.random() < 0.2:
                    await ctx.tick()
                for field, value in (("bias", bias), ("multiplier", multiplier), ("shift", shift)):
                    ctx.set(dut.parameters.payload[field], value)
                ctx.set(dut.parameters.valid, 1)
                await ctx.tick().until(dut.parameters.ready)
                ctx.set(dut.parameters.valid, 0)

    async def fill(ctx) -> None:
        for number, sums in enumerate(all_sums):
            while number - state["taken"] >= config.columns or rng.random() < 0.2:
                ctx.set(dut.written, 0)
                await ctx.tick()
            ring[number % config.columns] = sums
            ctx.set(dut.written, 1)
            await ctx.tick()
        ctx.set(dut.written, 0)

    async def memory(ctx) -> None:
        """The ring's read port: data two cycles after the address."""
        stages = [ring[0].copy(), ring[0].copy()]
        while True:
            address, taken = ctx.get(dut.read_address), ctx.get(dut.taken)
            stages = [ring[address].copy(), stages[0]]
            await ctx.tick()
            state["taken"] += taken
            for r, value in enumerate(stages[1].tolist()):
                ctx.set(dut.read_data[r], value)

    async def take(ctx) -> None:
        ends = np.cumsum([p[0] for p in products]) * rows // lanes - 1
        for number, row in enumerate(expected):
            while rng.random() < (0.5 if number % 40 < 20 else 0.0):
                await ctx.tick()
            ctx.set(dut.results.ready, 1)
            (payload,) = await ctx.tick().sample(dut.results.payload).until(dut.results.valid)
            ctx.set(dut.results.ready, 0)
            assert [payload.values[i] for i in range(lanes)] == row.tolist(), number
            assert payload.last == (number in ends)

    simulate(top, command, parameters, fill, take, limit=8000, background=[memory])


@pytest.mark.parametrize("early", [0, 30])
def test_latency_room_and_rate(early: int) -> None:
    """The first result comes `latency` cycles after its column is in the ring. What nobody takes fills the output's 16
    places, also when it was ready for results that had not come; from then on there is one a cycle. The product does
    not end meanwhile: it has more columns than 15 bits count."""
    dut = Drain(Config(rows=1, lanes=1, columns=128))
    begin, taken_at, written = 40, 120, 60
    seen, beats, taken = [], [], 0

    async def bench(ctx) -> None:
        nonlocal taken
        fields = {"columns": 32769, "taps": 1, "per_row": 0, "wide_result": 0}
        ctx.set(dut.command.payload, fields)
        ctx.set(dut.parameters.valid, 1)
        ctx.set(dut.parameters.payload, {"bias": 0, "multiplier": 1 << 15, "shift": 0})
        for cycle in range(taken_at + written + 10):
            ctx.set(dut.command.valid, cycle == 0)
            ctx.set(dut.written, begin <= cycle < begin + written)
            ctx.set(dut.results.ready, cycle < early or cycle >= taken_at)
            if ctx.get(dut.results.valid):
                seen.append(cycle)
                if cycle >= taken_at:
                    beats.append(cycle)
            assert cycle != taken_at or taken == 16
            assert ctx.get(dut.command.ready) == (cycle == 0)
            taken += ctx.get(dut.taken)
            await ctx.tick()

    simulate(dut, bench, limit=300)
    assert seen[0] == begin + 1 + Drain.latency
    assert beats == list(range(taken_at, taken_at + written)) and taken == written


def test_ports() -> None:
    widths = port_widths(Drain(Config(rows=4, lanes=2, drain_lanes=2, columns=32)))
    own = {"written": 1, "taken": 1, "read_address": 5, "read_data": 4 * 32, "results.payload": 2 * 16 + 1}
    streams = {f"{s}.{p}": 1 for s in ("command", "parameters", "results") for p in ("valid", "ready")}
    assert {n: w for n, w in widths.items() if n not in ("command.payload", "parameters.payload")} == own | streams
