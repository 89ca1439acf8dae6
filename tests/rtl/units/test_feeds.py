"""The parameter feed alone, in the simulator; the window feed alone, with stalls, against numpy: windows of bytes, of
either digit, and probabilities, by turns; read, read and kept, or kept ones."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.vector import digits
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.feeds import ParameterFeed, WindowFeed
from sta_hw.spec.config import Config
from sta_hw.spec.parameters import COLUMN

CONFIGS = [
    Config(rows=16, groups=8, lanes=8, drain_lanes=4, features=("digits",)),
    Config(rows=4, groups=2, lanes=4, drain_lanes=2, features=("digits",)),
    Config(rows=16, groups=2, lanes=16, drain_lanes=4),
    Config(rows=16, groups=8, lanes=8, drain_lanes=4, features=("digits",), window_words=64),
    Config(rows=4, groups=2, lanes=4, drain_lanes=2, window_words=32),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [4, 16])
def test_parameters(rows: int, seed: int) -> None:
    """Products by columns, with second multipliers or without, and by rows, by turns; offers change before they are."""
    rng = random.Random(100 * rows + seed)
    dut = ParameterFeed(Config(rows=rows, groups=2, lanes=4, drain_lanes=2))
    sent: dict[str, list[Any]] = {"order": [], "words": [], "totals": []}
    wanted: dict[str, list[Any]] = {"parameters": [], "seconds": []}
    for _ in range(40):
        totals = int(rng.random() < 0.4)
        seconds = int(not totals and rng.random() < 0.6)
        sent["order"].append({"totals": totals, "seconds": seconds})
        count = rows if totals else rng.choice((1, 2, 7))
        for i in range(count):
            given = {
                "bias": rng.randrange(-(2**31), 2**31),
                "multiplier": rng.randrange(1 << 16),
                "shift": rng.randrange(8),
            }
            second = rng.randrange(1 << 16)
            if totals:
                sent["totals"].append({n: given[n] for n in ("multiplier", "shift")})
            else:
                word = COLUMN.pack(given | {"second": second})
                sent["words"].append({"word": word, "last": i == count - 1})
                wanted["seconds"] += [second] * seconds
            wanted["parameters"].append(tuple(given.values()) if not totals else (0, *list(given.values())[1:]))
    found: dict[str, list[Any]] = {n: [] for n in wanted}

    async def bench(ctx) -> None:
        left = {n: list(s) for n, s in sent.items()}
        offered = dict.fromkeys(sent, False)
        quiet = cycle = 0
        while quiet < 60 and cycle < 20_000:
            quiet, cycle = quiet + 1, cycle + 1
            # Seconds wait for long, so that all places for them are taken.
            pace = {n: (1.0, 0.6, 0.9, 0.3)[seed] for n in (*sent, *wanted)}
            pace["seconds"] = 0.0 if cycle % 400 < 300 and seed == 2 else pace["seconds"]
            for n in sent:
                port = getattr(dut, n)
                offered[n] = offered[n] or (bool(left[n]) and rng.random() < pace[n])
                ctx.set(port.valid, offered[n])
                ctx.set(port.payload, left[n][0] if offered[n] else rng.choice(sent[n]))
            for n in wanted:
                ctx.set(getattr(dut, n).ready, rng.random() < pace[n])
            for n in sent:
                if offered[n] and ctx.get(getattr(dut, n).ready):
                    left[n].pop(0)
                    offered[n], quiet = False, 0
            for n in wanted:
                port = getattr(dut, n)
                if ctx.get(port.valid) and ctx.get(port.ready):
                    word = ctx.get(port.payload)
                    fields = ("bias", "multiplier", "shift")
                    found[n].append(tuple(word[f] for f in fields) if n == "parameters" else word)
                    quiet = 0
            quiet = min(quiet, 50) if cycle % 400 < 320 and seed == 2 else quiet
            await ctx.tick()
        assert not any(left.values())

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == wanted


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"bus {c.lanes} {','.join(c.abilities)}")
def test_windows(config: Config) -> None:
    rng = np.random.default_rng(config.lanes)
    kinds, places = 4 if "digits" in config.features else 2, config.window_words
    ring, there = np.zeros((places, config.lanes), np.uint8), np.zeros(places, bool)
    orders: list[tuple[int, ...]] = []
    words, probabilities, wanted, taken = [], [], [], []
    paces: list[int] = []  # cycles from a word to the next one where nothing waits: kept ones are read ahead
    for number in range(60):
        kind = int(rng.integers(kinds))  # probabilities, bytes, high digits, low ones
        beats = 2 * int(rng.integers(1, 9)) if kind > 1 else int(rng.integers(1, 17))
        data = rng.integers(0, 256, (beats, config.lanes), dtype=np.uint8)
        address, flags = 8 * number, [0, 0]
        if kind and places:
            first = int(rng.integers(3 * places))
            at, address = (first + np.arange(beats)) % places, first * config.lanes
            how = int(rng.integers(3))
            flags = [int(how == 1), int(how == 2 and there[at].all())]
            if flags[0]:
                ring[at], there[at] = data, True
            data = ring[at] if flags[1] else data
        if not flags[1]:
            (words if kind else probabilities).append(data)
        if kind > 1:
            data = digits(data.reshape(-1).view("<i2"))[kind - 2].astype(np.int8).view(np.uint8)
            data = data.reshape(-1, config.lanes)
        wanted.append(data)
        cut = int(kind > 1)  # a word of digits is cut from two
        paces += [2 + cut + flags[1], *[1 + cut] * (len(data) - 1)]
        digit = [max(kind - 1, 0)] if kinds == 4 else []
        orders.append((int(kind == 0), address, beats, number, *digit, *(flags if places else ())))
        taken.append(kind > 0 and not flags[1])
    block = WindowFeed(config)
    model = NativeModel(build(emit_verilog(block, "feed"), "feed", streams_of(block)), streams_of(block))
    columns = np.array(orders).T
    widths = (1, 32, 20, 16, *([2] if kinds == 4 else []), 1, 1)
    inputs = {"order": join([(c[:, None], w) for c, w in zip(columns, widths, strict=False)])}
    inputs |= {n: join([(np.concatenate(d), 8)]) for n, d in (("words", words), ("probabilities", probabilities))}
    read = columns[:, taken]
    expected = {
        "activations": join([(np.concatenate(wanted), 8)]),
        "run": join([(c[:, None], w) for c, w in zip(read[1:4], widths[1:4], strict=True)]),
    }
    for stall in (0.0, 0.4, 0.8):
        outcome = model.run(inputs, {n: len(w) for n, w in expected.items()}, stall=stall, seed=2)
        for name, data in expected.items():
            np.testing.assert_array_equal(outcome.outputs[name], data)
        if not stall:
            assert np.diff(outcome.cycles["activations"]).tolist() == paces[1:]
