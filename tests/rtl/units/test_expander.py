"""The expander in RTL against the reference: products in blocks and in INT8 in any order, with stalls; its rate."""

from __future__ import annotations

import numpy as np
import pytest

from sim.native import NativeModel, build
from sta_hw.formats.block_words import block_words
from sta_hw.host.beats import join
from sta_hw.reference.blocks import block_values
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.expander import Expander
from sta_hw.spec.config import Config

CONFIGS = [Config(groups=8, window=16), Config(groups=2, window=32), Config(groups=4, window=8),
           Config(rows=8, groups=1, window=8), Config(groups=8, window=4), Config(groups=8, window=32),
           Config(groups=16, window=16), Config(groups=32, window=8)]  # fmt: skip
IDS = ["16", "32", "8", "one group", "4", "32, wide", "16, wide", "8, wide"]


def model_of(config: Config) -> NativeModel:
    block = Expander(config)
    return NativeModel(build(emit_verilog(block, "expander"), "expander", streams_of(block)), streams_of(block))


def product(
    config: Config, run: int, runs: int, rng: np.random.Generator, wide: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Words of any bits, and the values that they stand for."""
    words = rng.integers(0, 256, (block_words(config.block_groups, run, runs, wide=wide), config.groups), np.uint8)
    command = {"run": run, "columns": runs, "passes": 1, "depth": run, "m_log2": 0, "n": 1, "value_format": 1 + wide}
    return words, block_values(command, words, config)


def marked(beats: np.ndarray) -> np.ndarray:
    """Words or values, each with whether it is the last."""
    last = np.arange(len(beats)) == len(beats) - 1
    return join([(beats.astype(np.int64), 8), (last, 1)])


def beats_of(config: Config, run: int, runs: int, wide: bool, words: int) -> int:
    """How many the first words of a product give: one too many if they end within a header."""
    half, beats = -(-run // 2), 0
    for number in range(1, runs + 1):  # a run's codes end where a product of so many runs does
        codes = block_words(config.block_groups, run, number, wide=wide) - half
        if words <= codes:
            return beats + 1
        if words < codes + half:
            return beats + 2 * (words - codes)
        beats += run
        if words == codes + half:
            return beats
    raise AssertionError("more words than the product has")


def ordered(config: Config, orders: list[list[int]]) -> np.ndarray:
    """Orders of which each is whether blocks, values of a run, and whether wide blocks."""
    parts = np.array(orders)
    fields = [(parts[:, :1], 1), (parts[:, 1:2], 6)]
    return join([*fields, (parts[:, 2:], 1)] if config.wide_block_groups else fields)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_equal_to_the_reference(config: Config) -> None:
    model, rng = model_of(config), np.random.default_rng(config.window)
    orders, given, wanted = [], [], []

    for number in range(60):
        if number % 4 == 3:
            words = rng.integers(0, 256, (int(rng.integers(1, 20)), config.groups), np.uint8)
            orders.append([0, int(rng.integers(0, 64)), int(rng.integers(2))])
            values = words.view(np.int8)
        else:
            run = int(rng.choice([2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 31, 32, 63]))
            wide = bool(config.wide_block_groups and rng.integers(2))
            words, values = product(config, run, int(rng.choice([1, 2, 3, 8, 11])), rng, wide)
            orders.append([1, run, wide])
        given.append(marked(words))
        wanted.append(marked(values))
    inputs = {"order": ordered(config, orders), "words": np.concatenate(given)}
    expected = np.concatenate(wanted)
    for stall in (0.0, 0.3, 0.7):
        outcome = model.run(inputs, {"values": len(expected)}, stall=stall, seed=4, linger=20)
        np.testing.assert_array_equal(outcome.outputs["values"], expected)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_latency(config: Config) -> None:
    """From a product's first word to its first values: INT8, blocks, and wide blocks where there are any."""
    model, rng = model_of(config), np.random.default_rng(1)
    plain = rng.integers(0, 256, (5, config.groups), np.uint8)
    products = [(0, False, plain, 5)]
    for wide in (False, True)[: 1 + (config.wide_block_groups > 0)]:
        words, values = product(config, 16, 4, rng, wide)
        products.append((1, wide, words, len(values)))
    for blocks, wide, words, beats in products:
        model.reset()
        last = np.arange(len(words)) == len(words) - 1
        inputs = {
            "order": ordered(config, [[blocks, 16, wide]]),
            "words": join([(words.astype(np.int64), 8), (last, 1)]),
        }
        cycles = model.run(inputs, {"values": beats}).cycles
        expected = Expander.first(config, wide=wide) if blocks else Expander.latency(config)
        assert cycles["values"][0] - cycles["words"][0] == expected


RATES = [(32, 1.0), (16, 1.0), (8, 1.0), (4, 0.5), (2, 0.25)]


@pytest.mark.parametrize(
    ("index", "wide", "run", "rate"),
    [*((0, False, *r) for r in RATES), *((6, True, *r) for r in RATES), (1, False, 32, 1.0), (1, False, 10, 1.0),
     (2, False, 8, 1.0), (5, False, 16, 1.0), (5, True, 32, 1.0), (5, True, 8, 1.0), (7, True, 8, 1.0)],
)  # fmt: skip
def test_rate(index: int, wide: bool, run: int, rate: float) -> None:
    """A beat a cycle from 8 values of a block on, or as the class says; below, a block in 8 cycles."""
    config = CONFIGS[index]
    words, values = product(config, run, 300, np.random.default_rng(1), wide)
    last = np.arange(len(words)) == len(words) - 1
    inputs = {"order": ordered(config, [[1, run, wide]]), "words": join([(words.astype(np.int64), 8), (last, 1)])}
    outcome = model_of(config).run(inputs, {"values": len(values)})
    cycles = outcome.cycles["values"]
    taken = cycles[-1] - cycles[0] + 1
    assert taken == len(values) if rate == 1 else abs(taken - len(values) / rate) < 8


@pytest.mark.parametrize("wide", [False, True])
def test_words_that_end_early_or_late_give_a_last_beat(wide: bool) -> None:
    """Never after as many beats as the product has, so that the decoder reports a fault, and waits for nothing."""
    config, run, runs = CONFIGS[6 if wide else 0], 4, 3
    model = model_of(config)
    words, _ = product(config, run, runs + 2, np.random.default_rng(2), wide)
    whole = block_words(config.block_groups, run, runs, wide=wide)
    kinds = "HH" + "".join(("H" if n % 2 == 0 else "HH") + "VV" for n in range(runs + 2))
    if wide:  # a word has two
        kinds = "H" + "".join(("" if n % 2 == 0 else "H") + "VV" for n in range(runs + 2))
    assert len(kinds) == len(words)
    for there in range(1, len(words) + 1):
        beats = 2 * kinds[:there].count("V") + (kinds[there - 1] == "H")
        last = np.arange(there) == there - 1
        inputs = {"order": ordered(config, [[1, run, wide]]),
                  "words": join([(words[:there].astype(np.int64), 8), (last, 1)])}  # fmt: skip
        model.reset()
        found = model.run(inputs, {"values": beats}, linger=60).outputs["values"]
        marks = found[:, -1] & 1
        assert marks.tolist() == [0] * (beats - 1) + [1]
        assert (beats == run * runs) == (there == whole)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_what_surrounds_words_that_end_anywhere(config: Config) -> None:
    """The product before and the one behind have their values, wherever the words of the one between them end."""
    model, rng = model_of(config), np.random.default_rng(5)
    for wide in (False, True)[: 1 + (config.wide_block_groups > 0)]:
        for run in (2, 5):
            (before, first), (cut, _), (behind, then) = (product(config, run, n, rng, wide) for n in (3, 4, 5))
            for there in range(1, len(cut) + 1):
                inputs = {
                    "order": ordered(config, [[1, run, wide]] * 3),
                    "words": np.concatenate([marked(before), marked(cut[:there]), marked(behind)]),
                }
                beats = len(first) + beats_of(config, run, 4, wide, there) + len(then)
                model.reset()
                outcome = model.run(inputs, {"values": beats}, linger=40, patience=500)
                values = outcome.outputs["values"]
                np.testing.assert_array_equal(values[: len(first)], marked(first))
                np.testing.assert_array_equal(values[-len(then) :], marked(then))
