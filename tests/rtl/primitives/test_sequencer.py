"""Gearboxes and streamed memories against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support import port_widths, simulate

from sta_hw.rtl.primitives.sequencer import Gearbox, StreamedMemory


@pytest.mark.parametrize(("source", "target"), [(8, 32), (32, 8), (8, 16), (16, 8), (4, 64), (64, 4), (8, 8)])
def test_gearbox_in_every_cycle(source: int, target: int) -> None:
    """Every output in every cycle, with flushes: rests are dropped, and nothing moves meanwhile."""
    rng = np.random.default_rng(source + 7 * target)
    box, narrow = Gearbox(source, target), min(source, target)
    parts = max(source, target) // narrow
    mask = (1 << narrow) - 1

    async def bench(ctx) -> None:
        part, held, word = 0, [], 0
        offered = False
        flushes = 0
        for cycle in range(1500):
            share = (1.0, 0.7, 0.3)[cycle // 100 % 3]
            flush = int(parts > 1 and rng.random() < 0.05)
            ready = int(rng.random() < share)
            if not offered:
                offered, word = bool(rng.random() < share), int(rng.integers(0, 1 << source, dtype=np.uint64))
            ctx.set(box.source.valid, offered)
            ctx.set(box.source.payload, word)
            ctx.set(box.target.ready, ready)
            ctx.set(box.flush, flush)
            valid, taken = ctx.get(box.target.valid), ctx.get(box.source.ready)
            if source >= target:
                assert valid == (offered and not flush)
                assert taken == (int(part != 0) if flush else int(ready and part == parts - 1))
                if valid:
                    assert ctx.get(box.target.payload) == word >> narrow * part & mask
                part = 0 if flush else (part + (valid and ready)) % parts
            else:
                full = len(held) == parts
                assert valid == full and taken == int((not full or ready) and not flush)
                if full:
                    assert ctx.get(box.target.payload) == sum(w << narrow * i for i, w in enumerate(held))
                held = [] if flush or (full and ready) else held
                held = [*held, word] if offered and taken else held
            flushes += flush
            offered = offered and not taken
            await ctx.tick()
        assert parts == 1 or flushes > 20

    simulate(box, bench, limit=2000)


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

    simulate(box, take, limit=20_000, background=[send])
    assert found == words(target)


@pytest.mark.parametrize("wide", [12, 24])
def test_gearbox_refuses_odd_ratios(wide: int) -> None:
    with pytest.raises(ValueError, match=f"{wide} bits are no power of two times 8"):
        Gearbox(8, wide)


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

    simulate(memory, bench, take, limit=2000)
    assert [w for w, _ in found] == expected
    assert [i + 1 for i, (_, last) in enumerate(found) if last] == ends.tolist()


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("pace", [1.0, 0.8, 0.2])
def test_streamed_memory_in_every_cycle(levels: int, pace: float) -> None:
    """Random orders, bases and strides around the end among them. Seven cycles from an order to its first word, then a
    word a cycle, also from one order to the next; four orders are taken ahead; what waits stays as it is."""
    rng = np.random.default_rng(levels + 8)
    memory = StreamedMemory(16, 64, levels)
    content = rng.integers(0, 1 << 16, 64).tolist()
    orders, wanted = [], []
    for _ in range(40):
        levels_of = [(int(rng.choice([1, 2, 3])), int(rng.choice([0, 1, 5, 63, 65535]))) for _ in range(levels)]
        base = int(rng.choice([0, 60, 65535, int(rng.integers(64))]))
        fields = {"base": base} | {f"count{i}": c for i, (c, _) in enumerate(levels_of)}
        orders.append(fields | {f"stride{i}": s for i, (_, s) in enumerate(levels_of)})
        places = list(itertools.product(*(range(c) for c, _ in reversed(levels_of))))
        for number, index in enumerate(places):
            at = base + sum(i * s for i, (_, s) in zip(reversed(index), levels_of, strict=True))
            wanted.append((content[at % 64], int(number == len(places) - 1)))
    found: list[tuple[int, int]] = []
    when: list[int] = []

    async def bench(ctx) -> None:
        for address, word in enumerate(content):
            ctx.set(memory.write_enable, 1)
            ctx.set(memory.write_address, address)
            ctx.set(memory.write_data, word)
            await ctx.tick()
        ctx.set(memory.write_enable, 0)
        ctx.set(memory.write_data, 12345)  # what is not enabled is not written
        # Nothing is taken at first: orders ahead wait.
        taken = [0]
        for cycle in range(4000):
            if cycle == 60:  # eight words wait, an order in work, five orders; some end with the eighth and the ninth
                ends = [number + 1 for number, (_, last) in enumerate(wanted) if last]
                assert taken[0] == sum(end <= 8 for end in ends) + 6
            takes = cycle > 60 and rng.random() < pace
            ctx.set(memory.order.valid, taken[0] < len(orders))
            ctx.set(memory.order.payload, orders[min(taken[0], len(orders) - 1)])
            ctx.set(memory.words.ready, takes)
            if ctx.get(memory.words.valid):
                word = ctx.get(memory.words.payload)
                given = (word.word, word.last)
                assert given == wanted[len(found)]
                if not when:
                    when.append(cycle)
                if takes:
                    found.append(given)
                    when.append(cycle)
            if taken[0] < len(orders) and ctx.get(memory.order.ready):
                taken.append(cycle)
                taken[0] += 1
            await ctx.tick()
            if len(found) == len(wanted) and cycle > when[-1] + 30:
                break
        assert when[0] - taken[1] == 7
        assert taken[1:6] == [0, 1, 2, 3, 4]  # one in work, four ahead
        assert levels == 1 or taken[7] > when[1]  # and no more, where they are long

    simulate(memory, bench, limit=6000)
    assert found == wanted
    if pace == 1.0:
        # A word a cycle, and a cycle between orders, if nothing waits.
        steps = np.diff(when[1:])
        behind_last = [last for _, last in wanted[:-1]]
        assert all(1 <= step <= 1 + last for step, last in zip(steps.tolist(), behind_last, strict=True))
        assert sum(steps.tolist()[len(wanted) // 2 :]) > len(wanted) // 2


@pytest.mark.parametrize("counts", [(32770, 1), (1, 32770)])
def test_streamed_memory_of_16_bits(counts: tuple[int, int]) -> None:
    """Addresses, strides and counts that 15 bits do not hold: with them the long order would end with its second."""
    memory = StreamedMemory(16, 1 << 16, 2)
    orders = [
        {"base": 65535, "count0": 2, "stride0": 1, "count1": 2, "stride1": 32769},
        {"base": 40000, "count0": counts[0], "stride0": 25535, "count1": counts[1], "stride1": 25535},
    ]
    places = [65535, 0, 32768, 32769, 40000, 65535, 25534]
    found: list[tuple[int, int]] = []

    async def bench(ctx) -> None:
        ctx.set(memory.write_enable, 1)
        for at in places:
            ctx.set(memory.write_address, at)
            ctx.set(memory.write_data, at ^ 1234)
            await ctx.tick()
        ctx.set(memory.write_enable, 0)
        ctx.set(memory.words.ready, 1)
        for order in orders:
            ctx.set(memory.order.payload, order)
            ctx.set(memory.order.valid, 1)
            await ctx.tick()
        ctx.set(memory.order.valid, 0)
        while len(found) < len(places):
            (word,) = await ctx.tick().sample(memory.words.payload).until(memory.words.valid)
            found.append((word.word, word.last))

    simulate(memory, bench, limit=60)
    assert found == [(at ^ 1234, int(number == 3)) for number, at in enumerate(places)]


def test_ports() -> None:
    stream = {f"{s}.{p}": 1 for s in ("source", "target") for p in ("valid", "ready")}
    assert port_widths(Gearbox(32, 8)) == stream | {"source.payload": 32, "target.payload": 8, "flush": 1}
    widths = port_widths(StreamedMemory(9, 64, 2))
    stream = {f"{s}.{p}": 1 for s in ("order", "words") for p in ("valid", "ready")}
    own = {"write_enable": 1, "write_address": 6, "write_data": 9, "order.payload": 5 * 16, "words.payload": 10}
    assert widths == own | stream
