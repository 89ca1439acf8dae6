"""Queues and register slices: order, capacity, latency, under any pattern of stalls."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from support import port_widths, simulate

from sta_hw.rtl.primitives.queue import Queue, RegisterSlice, credits


def run(dut, words: list[int], offers: np.ndarray, takes: np.ndarray) -> tuple[list[int], int, list[int]]:
    """What comes out; the most words held at a time; the cycle of each word that came out."""
    got: list[int] = []
    cycles: list[int] = []
    most = 0

    async def bench(ctx) -> None:
        nonlocal most
        sent = 0
        for cycle, (offer, take) in enumerate(zip(offers.tolist(), takes.tolist(), strict=True)):
            ctx.set(dut.w_en, int(offer and sent < len(words)))
            ctx.set(dut.w_data, words[min(sent, len(words) - 1)])
            ctx.set(dut.r_en, int(take))
            given, taken = ctx.get(dut.w_en) and ctx.get(dut.w_rdy), ctx.get(dut.r_rdy) and take
            if taken:
                got.append(ctx.get(dut.r_data))
                cycles.append(cycle)
            sent += bool(given)
            most = max(most, sent - len(got))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return got, most, cycles


@pytest.mark.parametrize("kind", ["slice", 2, 3, 5, 8, 63, 64, 65, 100])
@pytest.mark.parametrize("seed", range(3))
def test_order_and_stalls(kind: str | int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 1 << 9, 300).tolist()
    share = ((1.0, 1.0), (0.9, 0.3), (0.3, 0.9))[seed]
    dut = RegisterSlice(9) if isinstance(kind, str) else Queue(width=9, depth=kind)
    offers, takes = (rng.random(1200) < s for s in share)
    got, _, _ = run(dut, words, offers, takes)
    assert got == words[: len(got)] and len(got) >= 290


@pytest.mark.parametrize(("depth", "capacity"), [(2, 5), (3, 5), (4, 5), (63, 65), (64, 66), (100, 130)])
def test_holds_what_it_says(depth: int, capacity: int) -> None:
    """Nothing is taken out at first: at least `depth` words go in; afterwards one comes out each cycle."""
    cycles = 8 * depth + 40
    takes = np.arange(cycles) >= 2 * depth + 10
    dut = Queue(width=16, depth=depth)
    got, most, when = run(dut, list(range(3 * depth)), np.ones(cycles, bool), takes)
    assert dut.capacity == capacity and most == min(capacity, 3 * depth)
    assert got == list(range(3 * depth))
    assert np.all(np.diff(when) == 1)


@pytest.mark.parametrize(("depth", "latency"), [(2, 2), (63, 2), (64, 3)])
def test_latency(depth: int, latency: int) -> None:
    _, _, when = run(Queue(width=8, depth=depth), [7], np.ones(10, bool), np.ones(10, bool))
    assert when == [latency]


@pytest.mark.parametrize("count", [1, 4, 16])
def test_credits(count: int) -> None:
    """In every cycle, also where one is taken and one given; what is not there is not taken."""
    m = Module()
    take, give = Signal(), Signal()
    some = credits(m, "room", count, take, give)
    rng = np.random.default_rng(count)

    async def bench(ctx) -> None:
        left, ends = count, set()
        for cycle in range(300):
            share = (0.9, 0.1, 0.5)[cycle // 20 % 3]
            assert ctx.get(some) == (left > 0)
            taken, given = int(left > 0 and rng.random() < share), int(left < count and rng.random() < 1 - share)
            ctx.set(take, taken)
            ctx.set(give, given)
            left += given - taken
            ends |= {left} & {0, count}
            await ctx.tick()
        assert ends == {0, count}

    simulate(m, bench, limit=400)


@pytest.mark.parametrize("block", [Queue(width=3, depth=4), Queue(width=3, depth=64), RegisterSlice(3)])
def test_ports(block: Queue | RegisterSlice) -> None:
    widths = {"w_data": 3, "w_en": 1, "w_rdy": 1, "r_data": 3, "r_rdy": 1, "r_en": 1}
    assert port_widths(block) == widths
