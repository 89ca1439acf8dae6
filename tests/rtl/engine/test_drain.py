"""The drain: order, parameters per column and per row, waiting for its output, and for the ring."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from support import simulate

from sta_hw.reference.requantizer import requantize
from sta_hw.rtl.engine.drain import Drain
from sta_hw.spec.config import Config


@pytest.mark.parametrize(("rows", "lanes"), [(1, 1), (6, 2), (4, 4)])
def test_drain(rows: int, lanes: int) -> None:
    config = Config(rows=rows, lanes=lanes, columns=8, window=8)
    top = Module()
    top.submodules.dut = dut = Drain(config)
    rng = np.random.default_rng(rows)
    products = []
    for i in range(12):
        columns, taps, per_row, wide = int(rng.integers(1, 14)), int(rng.integers(1, 5)), i % 2, int(rng.integers(2))
        count = taps * rows if per_row else columns
        parameters = np.stack(
            [rng.integers(-9999, 9999, count), rng.integers(0, 65536, count), rng.integers(0, 3, count)]
        )
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

    async def command(ctx) -> None:  # type: ignore[no-untyped-def]
        for columns, taps, per_row, wide, *_ in products:
            fields = {"columns": columns, "taps": taps, "per_row": per_row, "wide_result": wide}
            for field, value in fields.items():
                ctx.set(dut.command.payload[field], value)
            ctx.set(dut.command.valid, 1)
            await ctx.tick().until(dut.command.ready)
            ctx.set(dut.command.valid, 0)

    async def parameters(ctx) -> None:  # type: ignore[no-untyped-def]
        for _, _, _, _, given, _, _ in products:
            for bias, multiplier, shift in given.T.tolist():
                while rng.random() < 0.2:
                    await ctx.tick()
                for field, value in (("bias", bias), ("multiplier", multiplier), ("shift", shift)):
                    ctx.set(dut.parameters.payload[field], value)
                ctx.set(dut.parameters.valid, 1)
                await ctx.tick().until(dut.parameters.ready)
                ctx.set(dut.parameters.valid, 0)

    async def fill(ctx) -> None:  # type: ignore[no-untyped-def]
        for number, sums in enumerate(all_sums):
            while number - state["taken"] >= config.columns or rng.random() < 0.2:
                ctx.set(dut.written, 0)
                await ctx.tick()
            ring[number % config.columns] = sums
            ctx.set(dut.written, 1)
            await ctx.tick()
        ctx.set(dut.written, 0)

    async def memory(ctx) -> None:  # type: ignore[no-untyped-def]
        """The ring's read port: data two cycles after the address."""
        stages = [ring[0].copy(), ring[0].copy()]
        while True:
            address, taken = ctx.get(dut.read_address), ctx.get(dut.taken)
            stages = [ring[address].copy(), stages[0]]
            await ctx.tick()
            state["taken"] += taken
            for r, value in enumerate(stages[1].tolist()):
                ctx.set(dut.read_data[r], value)

    async def take(ctx) -> None:  # type: ignore[no-untyped-def]
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
