"""Runs cut into bursts, against the same in a loop: whatever room there is, and however long a burst waits."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator
from support import port_widths

from sta_hw.rtl.bus.bursts import Bursts
from sta_hw.rtl.bus.runs import run_layout
from sta_hw.spec.config import Config

DEPTH = 16


def cut(run: dict[str, int], burst: int, size: int) -> list[tuple[int, int, bool, int]]:
    """Address, beats, whether it is the last, and the instruction of each burst."""
    found, address, left = [], run["address"], run["beats"]
    while left:
        beats = min(left, burst - address // size % burst)
        left -= beats
        found.append((address, beats, left == 0, run["instruction"]))
        address = (address + beats * size) % (1 << 32)
    return found


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("burst", [1, 2, 16])
def test_bursts(burst: int, lanes: int) -> None:
    """A burst is wanted five cycles after its run was taken, or after the one before it was issued, if there is room
    in the cycle before; and until it is issued."""
    rng = random.Random(f"{burst} {lanes}")
    config = Config(rows=8, groups=2, lanes=lanes, drain_lanes=2, softmax_lanes=2, window=4, burst=burst)
    size = config.bus_bytes
    dut = Bursts(config, DEPTH, run_layout())
    lengths = (0, 1, 2, burst, burst + 1, 2 * burst, rng.randrange(1, 50))
    runs = [
        {"address": size * rng.choice((0, burst - 1, rng.randrange(1 << 20), (1 << 32) // size - 1)),
         "beats": rng.choice(lengths), "instruction": rng.randrange(1 << 16)}
        for _ in range(40)
    ]  # fmt: skip
    found: list[tuple[int, int, bool, int]] = []

    async def bench(ctx) -> None:
        waiting = list(runs)
        since: int | None = None  # cycles since a run was taken or a burst was issued; none: there is nothing to do
        left = 0  # beats of the run under way
        room = before = length = 0
        waits = cycle = 0
        while (waiting or since is not None or waits < 10) and cycle < 10_000:
            cycle += 1
            waits = 0 if waiting or since is not None else waits + 1
            valid = bool(waiting) and rng.random() < 0.7
            ctx.set(dut.run.valid, valid)
            ctx.set(dut.run.payload, waiting[0] if valid else rng.choice(runs))
            room = min(DEPTH, room + rng.choice((0, 0, 1, 3)))
            ctx.set(dut.available, room)
            asks = ctx.get(dut.request)
            assert ctx.get(dut.idle) == ctx.get(dut.run.ready) == (since is None)
            if since is not None and since >= 4:
                length = ctx.get(dut.length)
            assert asks == (since is not None and since >= 5 and before >= length)
            grants = bool(asks) and rng.random() < 0.4
            ctx.set(dut.grant, grants)
            before = room
            if since is not None:
                since += 1
            if grants:
                run_of = ctx.get(dut.run_of)
                found.append((ctx.get(dut.address), length, bool(ctx.get(dut.final)), run_of["instruction"]))
                room, left, since = room - length, left - length, 1
                since = since if left else None
            if valid and ctx.get(dut.run.ready):
                run = waiting.pop(0)
                left, since = run["beats"], 1 if run["beats"] else None
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [b for run in runs for b in cut(run, burst, size)]


def test_ports() -> None:
    widths = port_widths(Bursts(Config(rows=4, groups=2, lanes=4, drain_lanes=2, burst=4), 16, run_layout()))
    own = {"available": 5, "request": 1, "grant": 1, "address": 32, "length": 3, "final": 1, "run_of": 16, "idle": 1}
    assert widths == own | {"run.payload": 32 + 20 + 16, "run.valid": 1, "run.ready": 1}
