"""The counters against sums of their events: any pattern, cleared at any time, wrapping."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator
from support import port_widths

from sta_hw.rtl.control.counters import Counters

LATENCY = 2
"""Cycles from an event to the value that counts it."""


@pytest.mark.parametrize(("count", "width"), [(15, 32), (16, 6), (3, 4), (2, 32), (19, 32), (34, 5)])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_every_value_is_the_sum_of_events(count: int, width: int, share: float) -> None:
    rng = np.random.default_rng(count)
    cycles = 600
    events = rng.random((cycles, count)) < share
    clears = rng.random(cycles) < 0.01
    clears[[1, 2, 3, 200, 200 + count]] = True
    seen: list[tuple[int, int, int]] = []

    async def bench(ctx) -> None:
        select = 0
        for cycle in range(cycles):
            ctx.set(dut.events, int(events[cycle] @ (1 << np.arange(count))))
            ctx.set(dut.clear, int(clears[cycle]))
            ctx.set(dut.select, select)
            if ctx.get(dut.ready):
                seen.append((cycle, select, ctx.get(dut.value)))
                select = int(rng.integers(count))
            await ctx.tick()

    dut = Counters(count=count, width=width)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(seen) > cycles / (count + 1) - 1
    for cycle, index, value in seen:
        until = cycle - LATENCY + 1
        cleared = max((c for c in np.flatnonzero(clears) if c < until), default=-1)
        assert value == events[cleared + 1 : max(until, 0), index].sum() % (1 << width), (cycle, index)


@pytest.mark.parametrize(
    ("count", "rounds"),
    [(2, {0: 2}), (15, {14: 15}), (16, {3: 16}), (17, {14: 15, 15: 2}), (34, {0: 15, 14: 15, 15: 15, 30: 4})],
)
def test_a_selected_counter_comes_once_a_round(count: int, rounds: dict[int, int]) -> None:
    """A round of 15 cycles, of 16 where there are so many counters, or of fewer where a bank has fewer."""
    dut = Counters(count=count)
    found: dict[int, set[int]] = {}

    async def bench(ctx) -> None:
        await ctx.tick()  # counter 0 is there in both of the first two cycles
        for select in rounds:
            ctx.set(dut.select, select)
            ready = []
            for cycle in range(2 * count + 17):
                if ctx.get(dut.ready):
                    ready.append(cycle)
                await ctx.tick()
            assert ready[0] <= rounds[select]
            found[select] = set(np.diff(ready).tolist())

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == {select: {cycles} for select, cycles in rounds.items()}


def test_ports() -> None:
    assert port_widths(Counters(count=9)) == {"events": 9, "clear": 1, "select": 4, "ready": 1, "value": 32}
