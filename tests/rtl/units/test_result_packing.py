"""Results packed to bus words, alone: in 8 and 16 bits, transposed and apart, by turns, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from packed_results import Packed
from support import simulate

from sta_hw.rtl.units.result_packing import pack
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=4, groups=2, lanes=4, drain_lanes=2),
    Config(rows=16, groups=4, lanes=8, drain_lanes=4),
    Config(rows=4, groups=2, lanes=4, drain_lanes=1),
    Config(rows=8, groups=16, lanes=4, drain_lanes=2),
    Config(rows=4, groups=16, lanes=4, drain_lanes=2),
    Config(rows=4, groups=8, lanes=4, drain_lanes=1),
]
NARROW, WIDE, TRANSPOSED, APART = range(4)


def stored(config: Config, kind: int, results: np.ndarray) -> list[bytes | None]:
    """Bus words as docs/isa.md has the results of one product (columns, rows); none is a word of other rows."""
    bus = config.bus_bytes
    low = results.astype(np.int8)
    if kind == TRANSPOSED:
        low = low.reshape(-1, config.groups, config.rows).transpose(0, 2, 1)
    raw = results.astype("<i2").tobytes() if kind == WIDE else low.tobytes()
    words: list[bytes | None] = [raw[at : at + bus] for at in range(0, len(raw), bus)]
    if kind == APART:
        own, others = config.rows // bus, (config.groups - config.rows) // bus
        words = [w for at in range(0, len(words), own) for w in [*words[at : at + own], *[None] * others]]
    return words


@pytest.mark.parametrize("stalls", [False, True], ids=["at once", "stalls"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.rows}x{c.groups} lanes {c.drain_lanes}")
def test_kinds_by_turns(config: Config, stalls: bool) -> None:
    rng = np.random.default_rng(config.groups + config.drain_lanes)
    kinds = [NARROW, WIDE, TRANSPOSED, *([APART] if "apart" in config.abilities else [])]
    turns = [(a, b) for a in kinds for b in kinds]  # each behind each
    order = [k for pair in turns for k in pair] + rng.choice(kinds, 6).tolist()
    lanes = config.drain_lanes
    entries: list[int] = []
    wanted: list[bytes | None] = []
    for kind in order:
        results = rng.integers(-32768, 32768, (int(rng.integers(1, 3)) * config.groups, config.rows))
        flags = (kind == WIDE) | (kind == TRANSPOSED) << 1 | (kind == APART) << 2
        for part in results.reshape(-1, lanes) & 0xFFFF:
            entries.append(sum(int(v) << 16 * i for i, v in enumerate(part)) | flags << 16 * lanes)
        wanted += stored(config, kind, results)
    dut = Packed(pack, config)
    found: list[bytes] = []
    cycles = 0

    async def bench(ctx) -> None:
        nonlocal cycles
        at, quiet, offered = 0, 0, False
        waits: int | None = None
        while quiet < 40 and cycles < 20_000:
            cycles += 1
            quiet += 1
            offered = offered or (at < len(entries) and (not stalls or rng.random() < 0.7))
            ctx.set(dut.results.valid, offered)
            ctx.set(dut.results.payload, entries[at] if offered else int(rng.choice(len(entries))))
            ctx.set(dut.store.ready, not stalls or rng.random() < (0.9 if cycles // 50 % 2 else 0.3))
            if offered and ctx.get(dut.results.ready):
                at, offered, quiet = at + 1, False, 0
            if ctx.get(dut.store.valid):
                word = ctx.get(dut.store.payload)
                assert waits in (None, word)
                waits = word
                if ctx.get(dut.store.ready):
                    found.append(word.to_bytes(config.bus_bytes, "little"))
                    waits, quiet = None, 0
            else:
                assert waits is None
            await ctx.tick()
        assert at == len(entries)

    simulate(dut, bench, limit=25_000)
    assert len(found) == len(wanted)
    assert all(w is None or f == w for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("wide", [False, True])
def test_a_result_a_cycle(wide: bool) -> None:
    """Of one kind, results are taken one a cycle for as long as words are."""
    config = CONFIGS[0]
    dut = Packed(pack, config)
    taken: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.results.payload, int(wide) << 16 * config.drain_lanes)
        ctx.set(dut.results.valid, 1)
        ctx.set(dut.store.ready, 1)
        for _ in range(64):
            taken.append(ctx.get(dut.results.ready))
            await ctx.tick()

    simulate(dut, bench, limit=25_000)
    assert sum(taken) >= 63 and all(taken[1:])
