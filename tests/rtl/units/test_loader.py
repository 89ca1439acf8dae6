"""The loader alone, with stalls: what it asks memory for, what it writes where, and when it says that it is done."""

from __future__ import annotations

import random
from collections import deque

import pytest
from amaranth.sim import Simulator
from support import port_widths, simulate

from sta_hw.rtl.units.loader import Loader
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Target, codes


def column(word: int) -> tuple[int, ...]:
    """A column's bias, multiplier, shift and second multiplier, from 16 bytes."""
    return word & 0xFFFFFFFF, word >> 32 & 0xFFFF, word >> 48 & 7, word >> 64 & 0xFFFF


def spread(word: int) -> tuple[int, ...]:
    """The same from 8 bytes, the bias with 32 bits."""
    bias = word & 0xFFFFFF | (0xFF000000 if word >> 23 & 1 else 0)
    return bias, word >> 24 & 0xFFFF, word >> 40 & 7, word >> 48


def extreme(rng: random.Random) -> int:
    """8 bytes of which each field of a short record is the least, the greatest, -1, or any."""
    bias = rng.choice((0, 0x7FFFFF, 0x800000, 0xFFFFFF, rng.getrandbits(24)))
    first, second = (rng.choice((0, 0xFFFF, rng.getrandbits(16))) for _ in range(2))
    return bias | first << 24 | rng.choice((0, 7, 0xF8, 0xFF, rng.getrandbits(8))) << 40 | second << 48


def some_loads(rng: random.Random, count: int, targets: list[int]) -> list[dict[str, int]]:
    """LOADs of every memory: of nothing, of parts of words, of many runs; one behind the other of another memory."""
    loads = []
    for number in range(count):
        rows, beats = rng.choice((0, 1, 1, 2, 3)), rng.choice((0, 1, 2, 3, 4, 9))
        loads.append(
            {
                "target": rng.choice(targets), "destination": rng.choice((0, 7, 65535, rng.randrange(1 << 16))),
                "address": rng.randrange(1 << 16) * 4, "beats": beats, "rows": rows,
                "stride": rng.choice((0, 4, 64, (1 << 32) - 8, rng.randrange(1 << 20))), "instruction": number,
            }
        )  # fmt: skip
    return loads


@pytest.mark.parametrize(
    ("lanes", "features"), [(4, ()), (16, ()), *((n, ("blocks4",)) for n in (4, 8, 16))],
    ids=["4", "16", *(f"{n}, short records" for n in (4, 8, 16))],
)  # fmt: skip
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("stalls", [False, True], ids=["at once", "stalls"])
def test_loads(lanes: int, features: tuple[str, ...], ahead: int, stalls: bool) -> None:
    """A memory that answers run after run, as fast as it likes; every word is another."""
    config = Config(
        rows=16, groups=2, lanes=lanes, drain_lanes=2, softmax_lanes=2, window=8, loads_ahead=ahead, features=features
    )
    rng = random.Random(f"{lanes} {features} {ahead} {stalls}")
    dut, bus = Loader(config), 8 * config.bus_bytes
    assert bus == 8 * lanes
    loads = some_loads(rng, 40, codes("target", features))
    runs = [
        {"address": (o["address"] + r * o["stride"]) % (1 << 32), "beats": o["beats"], "instruction": o["instruction"]}
        for o in loads for r in range(o["rows"]) if o["beats"]
    ]  # fmt: skip
    words = {}
    for o in loads:
        count = o["rows"] * o["beats"]
        whole = sum(extreme(rng) << 64 * i for i in range(-(-count * bus // 64)))
        words[o["instruction"]] = [whole >> bus * i & (1 << bus) - 1 for i in range(count)]
    writes: list[list[tuple[int, int, int | tuple[int, ...]]]] = []
    for o in loads:
        width, target = dut.widths[Target(o["target"])], Target(o["target"])
        whole = sum(w << bus * i for i, w in enumerate(words[o["instruction"]]))
        count = len(words[o["instruction"]]) * bus // width  # what fills no word is dropped
        memory = Target.PARAMETERS if target == Target.SHORT_PARAMETERS else target
        taken = {Target.PARAMETERS: column, Target.SHORT_PARAMETERS: spread}.get(target, int)
        writes.append(
            [
                (memory, (o["destination"] + i) % (1 << 16), taken(whole >> i * width & ((1 << width) - 1)))
                for i in range(count)
            ]
        )
    found: list[list[tuple[int, int, int | tuple[int, ...]]]] = [[]]
    asked: list[dict[str, int]] = []
    busy: list[bool] = []

    async def bench(ctx) -> None:
        waiting, answers = deque(loads), deque[int]()
        ports = {
            Target.VALUES: dut.values, Target.POSITIONS: dut.positions, Target.PARAMETERS: dut.parameters,
            Target.TABLE: dut.entry,
        }  # fmt: skip
        left = {n: deque(w) for n, w in words.items()}
        offered = answered = False
        waits_for_run = None
        quiet = cycle = last_done = 0
        while quiet < 60 and cycle < 10_000:
            slow = stalls and cycle // 60 % 2
            if not offered and waiting and (not stalls or rng.random() < 0.5):
                ctx.set(dut.order.payload, waiting[0])
                offered = True
            elif not offered:
                ctx.set(dut.order.payload, rng.choice(loads))  # what is not offered does not count
            ctx.set(dut.order.valid, offered)
            if not answered and answers and (not slow or rng.random() < 0.4):
                ctx.set(dut.words.payload, answers[0])
                answered = True
            elif not answered:
                ctx.set(dut.words.payload, rng.getrandbits(bus))
            ctx.set(dut.words.valid, answered)
            ctx.set(dut.run.ready, not stalls or rng.random() < 0.5)
            quiet += 1
            if ctx.get(dut.run.valid):
                run = ctx.get(dut.run.payload)
                offer = {f: run[f] for f in ("address", "beats", "instruction")}
                assert waits_for_run in (None, offer), "an offer was withdrawn"
                waits_for_run = None if ctx.get(dut.run.ready) else offer
                if ctx.get(dut.run.ready):
                    asked.append(offer)
                    mine = left[offer["instruction"]]
                    answers += [mine.popleft() for _ in range(offer["beats"])]
            else:
                assert waits_for_run is None, "an offer was withdrawn"
            if answered and ctx.get(dut.words.ready):
                answers.popleft()
                answered = False
                quiet = 0
            enable = ctx.get(dut.enable)
            for target, port in ports.items():
                if enable >> target & 1:
                    word = ctx.get(port)
                    found[-1].append(
                        (target, ctx.get(dut.address), column(word) if target == Target.PARAMETERS else word)
                    )
                    quiet = 0
            if offered and ctx.get(dut.order.ready):
                waiting.popleft()
                offered = False
                quiet = 0
            busy.append(bool(ctx.get(dut.busy)))
            if ctx.get(dut.done):
                assert busy[-1]
                found.append([])
                last_done = cycle
                quiet = 0
            await ctx.tick()
            cycle += 1
        assert not waiting and not answers and not busy[-1] and busy[last_done] and not any(busy[last_done + 1 :])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert asked == runs
    assert found == [*writes, []]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(("rows", "beats"), [(32769, 1), (2, (1 << 19) + 1)])
def test_long_loads_do_not_end_early(rows: int, beats: int, ahead: int) -> None:
    """Of as many runs, or beats, as all bits count; less one bit, it would be a single one."""
    dut = Loader(Config(rows=4, groups=2, window=16, lanes=4, drain_lanes=2, loads_ahead=ahead))

    async def bench(ctx) -> None:
        order = {"target": 0, "destination": 0, "address": 64, "beats": beats, "rows": rows, "stride": 64}
        ctx.set(dut.order.payload, order | {"instruction": 1})
        ctx.set(dut.run.ready, 1)
        asked, taken = [], 0
        for cycle in range(20):
            ctx.set(dut.order.valid, cycle == 0)
            if ctx.get(dut.run.valid):
                asked.append(ctx.get(dut.run.payload).address)
            ctx.set(dut.words.valid, bool(asked))
            taken += ctx.get(dut.words.valid) and ctx.get(dut.words.ready)
            assert not ctx.get(dut.done)
            await ctx.tick()
        assert ctx.get(dut.busy) and taken > 4
        assert asked == [64 + 64 * i for i in range(len(asked))] and len(asked) >= 2

    simulate(dut, bench, limit=40)


def test_ports() -> None:
    widths = port_widths(Loader(Config(rows=4, groups=2, window=16, lanes=4, drain_lanes=2)))
    streams = {"order.payload": 2 + 16 + 32 + 20 + 16 + 32 + 16, "run.payload": 32 + 20 + 16, "words.payload": 32}
    streams |= {f"{s}.{p}": 1 for s in ("order", "run", "words") for p in ("valid", "ready")}
    words = {"values": 16, "positions": 32, "parameters": 128, "entry": 16}
    others = {"enable": 4, "address": 16, "done": 1, "busy": 1}
    assert widths == streams | words | others
    with_short = Config(rows=4, groups=2, window=16, lanes=4, drain_lanes=2, features=("blocks4",))
    assert port_widths(Loader(with_short)) == streams | words | others | {"order.payload": streams["order.payload"] + 1}
