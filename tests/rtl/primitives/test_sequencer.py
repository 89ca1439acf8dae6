"""Gearboxes and streamed memories against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from sta_hw.rtl.primitives.sequencer import Gearbox, StreamedMemory


@pytest.mark.parametrize(("source", "target"), [(8, 32), (32, 8), (16, 128), (64, 16)])
def test_gearbox_keeps_order_under_stalls(source: int, target: int) -> None:
    rng = np.random.default_rng(source * target)
    total = 4096
    bits = rng.integers(0, 2, total)

    def words(width: int) -> list[int]:
        return [int("".join(map(str, w[::-1])), 2) for w in bits.reshape(-1, width).tolist()]

    box = Gearbox(source, target)
    found: list[int] = []

    async def send(ctx) -> None:
        for word in words(source):
            while rng.random() < 0.3:
                await ctx.tick()
            ctx.set(box.source.payload, word)
            ctx.set(box.source.valid, 1)
            await ctx.tick().until(box.source.ready)
            ctx.set(box.source.valid, 0)

    async def take(ctx) -> None:
        while len(found) < total // target:
            ctx.set(box.target.ready, 1)
            (payload,) = await ctx.tick().sample(box.target.payload).until(box.target.valid)
            found.append(payload)
            ctx.set(box.target.ready, 0)
            while rng.random() < 0.3:
                await ctx.tick()

    simulator = Simulator(box)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send, background=True)
    simulator.add_testbench(take)
    simulator.run()
    assert found == words(target)


def test_gearbox_refuses_odd_ratios() -> None:
    with pytest.raises(ValueError, match="24 bits are no power of two times 8"):
        Gearbox(8, 24)


def test_streamed_memory_follows_nested_counters() -> None:
    memory = StreamedMemory(16, 64, 3)
    orders = [
        (5, (1, 0), (1, 0), (1, 0)),
        (0, (4, 1), (3, 16), (2, 4)),
        (60, (8, 1), (1, 0), (1, 0)),
        (7, (2, 0), (3, 5), (1, 0)),
    ]
    expected = []
    for base, *levels in orders:
        counts, strides = [c for c, _ in levels], [s for _, s in levels]
        for index in itertools.product(*(range(c) for c in reversed(counts))):
            at = base + sum(i * s for i, s in zip(reversed(index), strides, strict=True))
            expected.append(at % 64 * 3)
    ends = np.cumsum([np.prod([c for c, _ in o[1:]]) for o in orders])
    found: list[tuple[int, int]] = []

    async def bench(ctx) -> None:
        for address in range(64):
            ctx.set(memory.write_enable, 1)
            ctx.set(memory.write_address, address)
            ctx.set(memory.write_data, address * 3)
            await ctx.tick()
        ctx.set(memory.write_enable, 0)
        for base, *levels in orders:
            fields = {"base": base} | {f"count{i}": c for i, (c, _) in enumerate(levels)}
            ctx.set(memory.order.payload, fields | {f"stride{i}": s for i, (_, s) in enumerate(levels)})
            ctx.set(memory.order.valid, 1)
            await ctx.tick().until(memory.order.ready)
        ctx.set(memory.order.valid, 0)

    async def take(ctx) -> None:
        rng = np.random.default_rng(0)
        while len(found) < len(expected):
            ctx.set(memory.words.ready, 1)
            (payload,) = await ctx.tick().sample(memory.words.payload).until(memory.words.valid)
            found.append((payload.word, payload.last))
            ctx.set(memory.words.ready, 0)
            for _ in range(int(rng.integers(0, 3)) if len(found) > 20 else 0):
                await ctx.tick()

    simulator = Simulator(memory)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(take)
    simulator.run()
    assert [w for w, _ in found] == expected
    assert [i + 1 for i, (_, last) in enumerate(found) if last] == ends.tolist()
