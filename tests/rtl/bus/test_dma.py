"""The DMA's masters: whose burst goes next, and what reaches memory, under stalls on every side."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from sta_hw.rtl.bus.dma import ReadMaster, WriteMaster
from sta_hw.rtl.bus.runs import APART
from sta_hw.spec.config import Config

CONFIG = Config(rows=4, groups=2, lanes=4, drain_lanes=2, burst=4, outstanding=3)
NAMES = ("first", "second", "third")
REGION = 0x1000
ROWS = CONFIG.rows


def strobes(config: Config, address: int, kind: int, before: int, after: int, part: int) -> int:
    """Which bytes of a bus word are written: those of the rows from `before` on, but the last `after`; of columns
    apart those of one part of each place."""
    found = 0
    for i in range(config.bus_bytes):
        row = (address + i) // (1, 2, config.groups, 1)[kind] % ROWS
        own = kind != APART or (address + i) % config.groups // ROWS == part
        found |= (own and before <= row < ROWS - after) << i
    return found


def simulate(dut, bench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("slow", [1, 16])
def test_no_client_reads_twice_while_another_waits(slow: int) -> None:
    """Three clients ask for one long run each; a burst is accepted every `slow` cycles."""
    dut = ReadMaster(CONFIG, dict.fromkeys(NAMES, 64))
    bursts = 12
    order: list[int] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.limit, len(NAMES) * REGION)
        for i, name in enumerate(NAMES):
            run = getattr(dut, f"{name}_run")
            ctx.set(run.payload, {"address": i * REGION, "beats": bursts * CONFIG.burst, "instruction": i})
            ctx.set(run.valid, 1)
            ctx.set(getattr(dut, f"{name}_data").ready, 1)
        answers: list[int] = []  # beats left of each burst under way
        for cycle in range(3 * bursts * max(slow, CONFIG.burst + 2) + 200):
            ctx.set(dut.arready, int(cycle % slow == slow - 1))
            ctx.set(dut.rvalid, int(bool(answers)))
            ctx.set(dut.rlast, int(bool(answers) and answers[0] == 1))
            taken = [bool(ctx.get(getattr(dut, f"{name}_run").ready)) for name in NAMES]
            if answers:
                answers[0] -= 1
                if not answers[0]:
                    answers.pop(0)
            if ctx.get(dut.arvalid) and ctx.get(dut.arready):
                order.append(ctx.get(dut.araddr) // REGION)
                answers.append(ctx.get(dut.arlen) + 1)
            await ctx.tick()
            for name, was in zip(NAMES, taken, strict=True):
                if was:
                    ctx.set(getattr(dut, f"{name}_run").valid, 0)

    simulate(dut, bench)
    assert sorted(order) == sorted(list(range(len(NAMES))) * bursts)
    if slow > 1:  # otherwise a client may still be preparing its next burst
        for i in range(1, len(order)):
            assert order[i] != order[i - 1] or set(order[i:]) == {order[i]}, order


@pytest.mark.parametrize("outstanding", [1, 2, 3, 4, 5, 8, 9, 13, 16])
def test_so_many_reads_are_let_out(outstanding: int) -> None:
    """No answer comes: exactly `outstanding` bursts are let out, and the master is not idle until all are answered."""
    dut = ReadMaster(dataclasses.replace(CONFIG, outstanding=outstanding), {"first": 256})
    bursts = outstanding + 20
    found: list[int] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.limit, 0x10000)
        run = dut.first_run
        ctx.set(run.payload, {"address": 0, "beats": bursts * CONFIG.burst, "instruction": 1})
        ctx.set(run.valid, 1)
        ctx.set(dut.first_data.ready, 1)
        ctx.set(dut.arready, 1)
        assert ctx.get(dut.idle)
        await ctx.tick()
        ctx.set(run.valid, 0)

        async def count(cycles: int) -> int:
            out = 0
            for _ in range(cycles):
                out += ctx.get(dut.arvalid)
                assert not (out or found) or not ctx.get(dut.idle)
                await ctx.tick()
            return out

        async def answer(ends: int) -> None:
            for beat in range(ends * CONFIG.burst):
                ctx.set(dut.rvalid, 1)
                ctx.set(dut.rlast, beat % CONFIG.burst == CONFIG.burst - 1)
                await ctx.tick()
            ctx.set(dut.rvalid, 0)

        found.append(await count(20 * outstanding + 100))
        await answer(1)
        found.append(await count(100))
        # Stopped, it lets none out, and is idle when the last is answered.
        ctx.set(dut.stop, 1)
        await answer(outstanding - 1)
        assert await count(50) == 0
        await answer(1)
        await ctx.tick()
        assert ctx.get(dut.idle)

    simulate(dut, bench)
    assert found == [outstanding, 1]


@pytest.mark.parametrize("depth", [8, 128])  # distributed and block RAM
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", [2, 16])
def test_what_is_written(depth: int, seed: int, groups: int) -> None:
    """Runs of random lengths, kinds and rows from three clients, words that come when they like, a bus that stalls."""
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(CONFIG, groups=groups)
    kinds, parts = (4, groups // ROWS) if groups > ROWS else (3, 1)
    dut = WriteMaster(config, dict.fromkeys(NAMES, depth))
    size = config.bus_bytes
    runs: dict[str, list[dict[str, int]]] = {n: [] for n in NAMES}
    expected: dict[int, tuple[int, int]] = {}
    words: dict[str, list[int]] = {n: [] for n in NAMES}
    for i, name in enumerate(NAMES):
        address = i * REGION + size * int(rng.integers(0, 9))
        for _ in range(4):
            beats = int(rng.integers(1, 20))
            kind, before, after, part = (int(rng.integers(n)) for n in (kinds, ROWS, ROWS, parts))
            fields = {"address": address, "beats": beats, "instruction": 1, "kind": kind}
            fields |= {"rows_before": before, "rows_after": after} | ({"part": part} if parts > 1 else {})
            runs[name].append(fields)
            for k in range(beats):
                word = int(rng.integers(0, 1 << 32))
                words[name].append(word)
                expected[address + size * k] = (word, strobes(config, address + size * k, kind, before, after, part))
            address += size * beats
    pace, accept = ((1.0, 1.0), (0.3, 1.0), (1.0, 0.4), (0.6, 0.6))[seed]
    memory: dict[int, tuple[int, int]] = {}
    done = dict.fromkeys(NAMES, 0)

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.limit, len(NAMES) * REGION)
        addresses: list[tuple[int, int]] = []
        beats: list[tuple[tuple[int, int], int]] = []
        beat = answers = 0
        for _ in range(3000):
            for name in NAMES:
                run, data = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
                ctx.set(run.valid, int(bool(runs[name])))
                if runs[name]:
                    fields = runs[name][0]
                    ctx.set(run.payload, fields | {"kind": 0})
                    ctx.set(Value.cast(run.payload.kind), fields["kind"])  # APART is no member of its enumeration
                ctx.set(data.valid, int(bool(words[name]) and rng.random() < pace))
                if words[name]:
                    ctx.set(data.payload, words[name][0])
                done[name] += ctx.get(getattr(dut, f"{name}_done"))
            ctx.set(dut.awready, int(rng.random() < accept))
            ctx.set(dut.wready, int(rng.random() < accept))
            ctx.set(dut.bvalid, int(answers > 0))
            answers -= answers > 0
            for name in NAMES:
                run, data = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
                if ctx.get(run.valid) and ctx.get(run.ready):
                    runs[name].pop(0)
                if ctx.get(data.valid) and ctx.get(data.ready):
                    words[name].pop(0)
            if ctx.get(dut.awvalid) and ctx.get(dut.awready):
                addresses.append((ctx.get(dut.awaddr), ctx.get(dut.awlen) + 1))
            if ctx.get(dut.wvalid) and ctx.get(dut.wready):
                beats.append(((ctx.get(dut.wdata), ctx.get(dut.wstrb)), ctx.get(dut.wlast)))
            # Data may be accepted before their address.
            while addresses and beats:
                start, length = addresses[0]
                word, last = beats.pop(0)
                assert start + size * beat not in memory, "written twice"
                memory[start + size * beat] = word
                beat += 1
                assert last == (beat == length)
                if last:
                    addresses.pop(0)
                    beat, answers = 0, answers + 1
            await ctx.tick()

    simulate(dut, bench)
    assert memory == expected
    assert done == dict.fromkeys(NAMES, 4)
