"""The decoder alone in Amaranth's simulator, against docs/format.md: sound and damaged streams and commands."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import reduce
from itertools import product as product_of
from operator import or_
from typing import Any

import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.sim import Simulator

from sta_hw.rtl.engine.decoder import Decoder, refused
from sta_hw.rtl.primitives.layouts import command_layout
from sta_hw.spec.config import Config

SMALL = {"rows": 4, "lanes": 4, "columns": 8, "weight_words": 8, "parameter_words": 8, "norm_columns": 8}
SMALLS = {
    "both": Config(groups=2, window=8, **SMALL),
    "index": Config(groups=1, window=8, nm=("1:2", "4:8"), encodings=("index",), **SMALL),
    "bitmap": Config(groups=1, window=16, nm=("2:4", "4:16"), encodings=("bitmap",), **SMALL),
    "dense": Config(groups=2, window=4, nm=("dense",), **SMALL),
    "digits": Config(groups=2, window=4, features=("digits",), **SMALL),
}
VALUES_SHORT, VALUES_LONG, POSITIONS_SHORT, POSITIONS_LONG, POSITIONS_WRONG, COMMAND = (1 << i for i in range(6))
FLAGS = ("first", "last", "first_pass", "final_pass", "pass_end", "widen", "unsigned", "rescale", "gives")
Command = dict[str, int]


def is_refused(config: Config, command: Command) -> bool:
    """Whether a command is out of range, as `Decoder` and docs/format.md have it."""
    c, sizes = command, [2, 4, 8, 16, 32]
    known = {p.m for p in config.patterns if p.m > 1}
    if not all(c[f] for f in ("n", "depth", "taps", "columns", "passes")):
        return True
    size = 1 << c["m_log2"]
    if c["encoding"] == 0:
        sound = size == 1
    else:
        names = ("", "index", "bitmap")
        sound = c["encoding"] < 3 and names[c["encoding"]] in config.encodings and size in sizes and size in known
    kept = c["passes"] > 1 or c["continues"] or c["unfinished"]
    return (
        not sound or c["n"] > size or c["depth"] % size != 0 or c["taps"] * c["depth"] > config.window
        or bool(kept and c["columns"] > config.columns)
    )  # fmt: skip


@dataclass
class Product:
    """A command with its streams up to the beats that are marked last, and what must come of it.

    `beats` are (values, addresses or None where they are not said, flags); `values` (groups' values), `words`.
    """

    command: Command
    values: list[list[int]]
    words: list[list[int]]
    beats: list[tuple[list[int], list[int | None], list[int]]]
    faults: int


def product(config: Config, rng: random.Random, command: Command, damage: str) -> Product:
    """A product of random values; `damage` says what is wrong with its streams, if anything."""
    if is_refused(config, command):
        return Product(command, [], [], [], COMMAND)
    groups, window = config.groups, config.window
    n, m, depth, taps = command["n"], 1 << command["m_log2"], command["depth"], command["taps"]
    passes, columns, encoding = command["passes"], command["columns"], command["encoding"]
    steps = depth // m * n
    total = passes * columns * steps
    sets = [[[sorted(rng.sample(range(m), n)) for _ in range(depth // m)] for _ in range(groups)]
            for _ in range(passes * columns)]  # fmt: skip
    words: list[list[int]] = []
    if encoding == 1:
        width = command["m_log2"]
        stored = [[p for c in sets for s in c[g] for p in s] for g in range(groups)]
        per_word = window // width
        for at in range(0, total, per_word):
            part = [s[at : at + per_word] for s in stored]
            # What fills a word up is not read.
            words.append(
                [sum(p << i * width for i, p in enumerate(s)) | _rest(rng, len(s) * width, window) for s in part]
            )
    elif encoding == 2:
        words = [[sum(1 << s * m + p for s, ps in enumerate(c[g]) for p in ps) for g in range(groups)] for c in sets]
    if damage == "wrong" and words:
        for _ in range(rng.randrange(1, 3)):
            words[rng.choice((0, -1, rng.randrange(len(words))))][rng.randrange(groups)] ^= 1 << rng.randrange(window)
    values = [[rng.randrange(-128, 128) for _ in range(groups)] for _ in range(total)]
    needed, faults = len(words), 0
    if damage == "values short":
        values = values[: rng.randrange(total)] or values[:1]
    if damage == "values long":
        values += [[rng.randrange(-128, 128)] * groups for _ in range(rng.randrange(1, 4))]
    if damage == "positions short":
        words = words[: rng.randrange(1, max(needed, 2))]
    if damage == "positions long" and words:
        words += [[rng.getrandbits(window)] * groups for _ in range(rng.randrange(1, 4))]
    faults |= VALUES_SHORT * (len(values) < total) | VALUES_LONG * (len(values) > total)
    faults |= POSITIONS_SHORT * (len(words) < needed) | POSITIONS_LONG * (len(words) > needed)
    found, before = [], [0] * groups
    for i in range(total):
        at, k = divmod(i, steps)
        step, column = divmod(at, columns)
        sub, entry = divmod(k, n)
        base, tap = sub * m, column % taps * depth
        addresses: list[int | None] = []
        for g in range(groups):
            if encoding == 0:
                addresses.append(tap + base)
            elif encoding == 1:
                if i // per_word >= len(words):
                    addresses.append(None)
                    continue
                here = base + (words[i // per_word][g] >> i % per_word * width) % m
                faults |= POSITIONS_WRONG * (k > 0 and here <= before[g])
                before[g] = here
                addresses.append(tap + here)
            else:
                if at >= len(words):
                    addresses.append(None)
                    continue
                bits = [b for b in range(window) if words[at][g] >> b & 1]
                sound = [b // m for b in bits] == [s for s in range(depth // m) for _ in range(n)]
                faults |= POSITIONS_WRONG * (not sound)
                addresses.append(tap + bits[sub * n + entry] if sound else None)
        first_pass, final_pass = (
            step == 0 and not command["continues"],
            step == passes - 1 and not command["unfinished"],
        )
        last = k == steps - 1
        lifts = step == 0 and command["continues"] and command.get("lift", 0)
        widen = lifts or (command["widen_at"] > 0 and step == command["widen_at"])
        rescale = i == 0 and command["continues"] and command["rescale"]
        flags = (k == 0, last, first_pass, final_pass, last and column == columns - 1, widen, command["unsigned"],
                 rescale, last and final_pass)  # fmt: skip
        given = values[i] if i < len(values) else [0] * groups
        found.append((given, addresses, [int(bool(f)) for f in flags]))
    return Product(command, values, words, found, faults)


def put(ctx: Any, view: Any, fields: dict[str, Any]) -> None:
    """Set a payload; encoding 3 is no member of its enumeration."""
    ctx.set(view, fields | ({"encoding": 0} if "encoding" in fields else {}))
    if "encoding" in fields:
        ctx.set(Value.cast(view.encoding), fields["encoding"])


def _rest(rng: random.Random, begin: int, end: int) -> int:
    return rng.getrandbits(end) >> begin << begin


def some_command(config: Config, rng: random.Random) -> Command:
    """One that is in range."""
    pattern = rng.choice(config.patterns) if rng.random() < 0.8 else config.patterns[0]
    n, m = pattern.n, pattern.m
    depth = rng.choice([m * k for k in range(1, config.window // m + 1)])
    command = {
        "encoding": 0 if m == 1 else 1 + ("index", "bitmap").index(rng.choice(config.encodings)),
        "n": n, "m_log2": m.bit_length() - 1, "depth": depth, "taps": rng.randrange(1, config.window // depth + 1),
        "columns": rng.choice((1, 1, 2, 3, 8, 9)), "passes": rng.choice((1, 1, 2, 3)), "unsigned": rng.randrange(2),
        "widen_at": rng.randrange(3), "per_row": rng.randrange(2), "wide_result": rng.randrange(2),
        "continues": rng.randrange(2), "unfinished": rng.randrange(2), "rescale": rng.randrange(2),
    }  # fmt: skip
    if "digits" in config.features:
        command["lift"] = rng.randrange(2)
    if command["columns"] == 9:
        command |= {"passes": 1, "continues": 0, "unfinished": 0}
    return command


def out_of_range(config: Config, rng: random.Random, command: Command) -> Command:
    """A command with one thing about it that is just out of range."""
    m = 1 << command["m_log2"]
    changes: list[Command] = [{f: 0} for f in ("n", "depth", "taps", "columns", "passes")]
    changes += [{"n": m + 1}, {"taps": config.window // command["depth"] + 1}, {"encoding": 3}]
    changes += [{"columns": 9, f: v} for f, v in (("passes", 2), ("continues", 1), ("unfinished", 1))]
    changes += [{"m_log2": config.address_width + 1}, {"depth": command["depth"] + 1}, {"depth": config.window + 1}]
    return command | rng.choice(changes)


@pytest.mark.parametrize("stalls", [False, True], ids=["at once", "stalls"])
@pytest.mark.parametrize("name", SMALLS)
def test_as_the_format_says(name: str, stalls: bool) -> None:
    """Products one after the other, some of them damaged; every stream stalls by itself, and offers change under it."""
    config, rng = SMALLS[name], random.Random(f"{name} {stalls}")
    damages = ("", "", "wrong", "values short", "values long", "positions short", "positions long", "refused")
    products: list[Product] = []
    kinds = (
        COMMAND
        | VALUES_SHORT
        | VALUES_LONG
        | (0 if name == "dense" else POSITIONS_SHORT | POSITIONS_LONG | POSITIONS_WRONG)
    )
    while sum(len(p.beats) + 4 for p in products) < 900 or reduce(or_, (p.faults for p in products)) != kinds:
        command, damage = some_command(config, rng), rng.choice(damages)
        command = out_of_range(config, rng, command) if damage == "refused" else command
        products.append(product(config, rng, command, damage))
    dut = Decoder(config)
    sent: dict[str, list[Any]] = {"command": [p.command for p in products], "values": [], "positions": []}
    for p in products:
        sent["values"] += [{"values": v, "last": i == len(p.values) - 1} for i, v in enumerate(p.values)]
        sent["positions"] += [{"words": w, "last": i == len(p.words) - 1} for i, w in enumerate(p.words)]
    found: list[tuple[list[int], list[int], list[int]]] = []
    faults: list[int] = []
    taken: dict[str, list[int]] = {s: [] for s in (*sent, "beats", "faults")}

    async def bench(ctx) -> None:
        at = dict.fromkeys(sent, 0)
        offered = dict.fromkeys(sent, False)
        pace = dict.fromkeys((*sent, "beats", "faults"), 1.0)
        quiet = cycle = 0
        while quiet < 30 and cycle < 20_000:
            if stalls and cycle % 50 == 0:
                pace = {s: rng.choice((0.2, 0.7, 1.0)) for s in pace}
            for s, waiting in sent.items():
                port = getattr(dut, s)
                if not offered[s] and at[s] < len(waiting) and rng.random() < pace[s]:
                    offered[s] = True
                    put(ctx, port.payload, waiting[at[s]])
                elif not offered[s] and waiting:
                    put(ctx, port.payload, rng.choice(waiting))  # what is not offered does not count
                ctx.set(port.valid, offered[s])
            for s in ("beats", "faults"):
                ctx.set(getattr(dut, s).ready, rng.random() < pace[s])
            quiet += 1
            for s in sent:
                if offered[s] and ctx.get(getattr(dut, s).ready):
                    at[s], offered[s], quiet = at[s] + 1, False, 0
                    taken[s].append(cycle)
            if ctx.get(dut.beats.valid) and ctx.get(dut.beats.ready):
                beat = ctx.get(dut.beats.payload)
                found.append((list(beat["values"]), list(beat["addresses"]), [beat[f] for f in FLAGS]))
                taken["beats"].append(cycle)
                quiet = 0
            if ctx.get(dut.faults.valid) and ctx.get(dut.faults.ready):
                faults.append(ctx.get(dut.faults.payload))
                taken["faults"].append(cycle)
                quiet = 0
            await ctx.tick()
            cycle += 1
        assert all(at[s] == len(sent[s]) for s in sent), "something was not taken"

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert faults == [p.faults for p in products]
    expected = [b for p in products for b in p.beats]
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        addresses = [a if w is not None else None for a, w in zip(got[1], wanted[1], strict=True)]
        assert (got[0], addresses, got[2]) == wanted
    if not stalls:
        end_beats = end_values = 0
        for i, p in enumerate(products):
            begin_beats, end_beats = end_beats, end_beats + len(p.beats)
            begin_values, end_values = end_values, end_values + len(p.values)
            if p.faults:
                continue
            # A beat per cycle, each `latency` behind its value; a cycle on either side, two where there are positions.
            at = [taken["values"][begin_values] + k for k in range(len(p.beats))]
            assert taken["values"][begin_values:end_values] == at
            assert taken["beats"][begin_beats:end_beats] == [t + Decoder.latency for t in at]
            side = 1 if p.command["encoding"] == 0 else 2
            assert (taken["command"][i], taken["faults"][i]) == (at[0] - side, at[-1] + side)
            assert i == 0 or taken["command"][i] == taken["faults"][i - 1] + 1


@pytest.mark.parametrize("name", SMALLS)
def test_which_commands_are_refused(name: str) -> None:
    """All encodings, sizes and depths; with those that are in range, all else at its limits and just beyond."""
    config = SMALLS[name]
    m = Module()
    command, found = Signal(command_layout(config)), Signal()
    m.d.comb += found.eq(refused(config, command))
    once = {"taps": 1, "columns": 1, "passes": 1, "continues": 0, "unfinished": 0}
    cases = []
    for encoding, size, n, depth in product_of(
        range(4), range(8), (0, 1, 2, 3, 4, 5, 8, 9, 63), (*range(config.window + 2), 32, 63)
    ):
        case = once | {"encoding": encoding, "m_log2": size, "n": n, "depth": depth}
        cases.append(case)
        if not is_refused(config, case):
            taps = config.window // depth
            more: list[Command] = [{"taps": t % 64} for t in (0, taps, taps + 1, 63)]
            stored = (("passes", 2), ("passes", 65535), ("continues", 1), ("unfinished", 1), ("taps", 1))
            more += [{"columns": c, f: v} for c in (0, 8, 9, 65535) for f, v in stored]
            cases += [case | change for change in (*more, {"passes": 0})]

    async def bench(ctx) -> None:
        for case in cases:
            given = dict.fromkeys(command.shape().members, 0) | case
            put(ctx, command, given)
            assert ctx.get(found) == is_refused(config, given), given

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert {is_refused(config, case) for case in cases} == {False, True}
