"""Weights that do not match their command: hardware, reference and `decode` say the same of each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support import random_product

from sta_hw.errors import InputError
from sta_hw.formats import EncodedMatrix, decode, encode
from sta_hw.host import beats
from sta_hw.host.products import Product
from sta_hw.reference.weights import WeightsError, command_problem, dense_weights, stream_faults
from sta_hw.rtl.emit import emit_verilog
from sta_hw.rtl.engine.engine import Engine
from sta_hw.run.rtl import EngineModel
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern

CONFIGS = {
    "both": Config(rows=2, groups=2, window=16, columns=16),
    "index only": Config(rows=2, groups=2, encodings=("index",), columns=16),
    "bitmap only": Config(rows=2, groups=2, encodings=("bitmap",), columns=16),
    "5x3, window 32": Config(rows=5, groups=3, window=32, columns=64),
    "2:4 alone": Config(rows=2, groups=2, nm=("2:4",), columns=16),
    "without queues": Config(rows=2, groups=2, window=16, columns=16),
}
CHANGES = ("nothing", "random word", "random words", "flipped bit", "repeated word", "longer", "shorter", "both")


def command_of(encoded: EncodedMatrix, taps: int = 1) -> dict[str, int]:
    """The fields of a product's command."""
    return {
        "encoding": {"dense": 0, "index": 1, "bitmap": 2}[encoded.encoding],
        "n": encoded.pattern.n,
        "m_log2": encoded.pattern.m.bit_length() - 1,
        "depth": encoded.depth,
        "taps": taps,
        "columns": encoded.columns,
        "passes": encoded.passes,
        "continues": 0,
        "unfinished": 0,
    }


def changed(product: Product, change: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values and positions of `product` with something wrong in them, or nothing."""
    values, positions = product.weights.values, product.weights.positions.copy()
    if not len(positions):
        return values, positions
    window = product.weights.window
    at, group = int(rng.integers(len(positions))), int(rng.integers(positions.shape[1]))
    if change == "random word":
        positions[at, group] = rng.integers(1 << window)
    elif change == "random words":
        positions[:] = rng.integers(1 << window, size=positions.shape)
    elif change == "flipped bit":
        positions[at, group] ^= np.uint32(1 << int(rng.integers(window)))
    elif change == "repeated word":
        positions[at] = positions[at - 1]
    if change in ("longer", "both"):
        values = np.concatenate([values, values[: rng.integers(3)]])
        positions = np.concatenate([positions, positions[: rng.integers(3)]])
    if change in ("shorter", "both"):
        values = values[: max(1, len(values) - int(rng.integers(3)))]
        positions = positions[: max(1, len(positions) - int(rng.integers(3)))]
    return values, positions


def stream(array: np.ndarray, width: int) -> np.ndarray:
    """The beats of a stream of values or positions."""
    return beats.join([(array, width), (np.arange(len(array)) == len(array) - 1, 1)])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_reports_the_faults_of_the_reference(name: str) -> None:
    config = CONFIGS[name]
    plain = name == "without queues"
    model = EngineModel(config, emit_verilog(Engine(config, plain=True, ahead=False), "engine") if plain else None)
    rng = np.random.default_rng(len(name))
    choices = [(p, e) for p in config.patterns for e in ((None,) if p.m == 1 else config.encodings)]
    inputs: list[dict[str, np.ndarray]] = []
    faults, results = [], 0
    for number in range(120):
        product = random_product(config, rng, *choices[rng.integers(len(choices))])
        if plain and product.taps > 1:
            continue
        values, positions = changed(product, CHANGES[number % len(CHANGES)], rng)
        command = command_of(product.weights, product.taps)
        faults.append(stream_faults(command, len(values), positions, config))
        results += product.weights.columns * config.rows // config.lanes
        words = stream(positions, config.window) if len(positions) else beats.no_beats(config)
        inputs.append(product.streams(config) | {"values": stream(values, 8), "positions": words})
        found = dataclasses.replace(product.weights, values=values, positions=positions)
        if faults[-1] == 0:  # what was changed may be right, and something else
            weights = dense_weights(command, values, positions, config)
            np.testing.assert_array_equal(weights[:, : found.reduction], decode(found))
            continue
        with pytest.raises(WeightsError) as error:
            dense_weights(command, values, positions, config)
        assert error.value.faults == faults[-1]
        with pytest.raises(InputError):
            decode(found)
    assert len(set(faults)) > 5 and sum(f == 16 for f in faults) > 5 and sum(f == 0 for f in faults) > 5
    merged = {key: np.concatenate([i[key] for i in inputs]) for key in inputs[0]}
    for stall, seed in ((0.0, 1), (0.3, 2), (0.7, 3)):
        run = model._model.run(merged, {"results": results, "status": len(faults)}, stall=stall, seed=seed, linger=30)
        assert run.outputs["status"][:, 0].tolist() == faults


@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_refuses_the_commands_that_the_reference_refuses(name: str) -> None:
    """Every field at values around its limits; a refused command ends without a beat of any stream."""
    config = CONFIGS[name]
    rng = np.random.default_rng(3)
    model = EngineModel(config)
    extremes = {"encoding": (0, 1, 2, 3), "n": (0, 1, 2, 4, 63), "m_log2": (0, 1, 2, 4, 5, 7),
                "depth": (0, 1, 2, 4, 32), "columns": (0, 16, 17, 64, 65), "passes": (0, 1, 2),
                "taps": (0, 1, 2, 63)}  # fmt: skip
    choices = [(p, e) for p in config.patterns for e in ((None,) if p.m == 1 else config.encodings)]
    sent, refused = [], 0
    for field in (*extremes, *rng.choice(list(extremes), 150)):
        encoded = random_product(config, rng, *choices[rng.integers(len(choices))]).weights
        for value in extremes[field]:
            command = command_of(encoded) | {field: value}
            if command_problem(command, config) is None:
                continue
            sent.append(beats.command_beat(encoded, **command))
            refused += 1
    run = model._model.run({"command": np.concatenate(sent)}, {"status": refused, "results": 0}, stall=0.3, linger=30)
    assert run.outputs["status"][:, 0].tolist() == [32] * refused
    assert refused > 100


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"encoding": 0, "n": 2, "m_log2": 1, "depth": 16}, r"encoding 0 \(dense\) needs N and M to be 1.*2:2"),
        ({"encoding": 0, "n": 1, "m_log2": 2, "depth": 16}, "1:4"),
        ({"encoding": 0, "n": 2, "m_log2": 0, "depth": 16}, "N = 2 is more than M = 1"),
        ({"encoding": 1, "n": 1, "m_log2": 0, "depth": 16}, "M = 1 is not built in"),
        ({"encoding": 2, "n": 1, "m_log2": 0, "depth": 16}, "M = 1 is not built in"),
        ({"encoding": 1, "n": 1, "m_log2": 2, "depth": 6}, "depth 6 does not fit M = 4"),
        *(({"encoding": 1, "n": 1, "m_log2": 2, "depth": 8, name: 0}, f"{name} = 0") for name in
          ("columns", "passes", "depth", "n")),
        ({"encoding": 3, "n": 1, "m_log2": 2, "depth": 8}, "encoding 3 is not built"),
        ({"encoding": 2, "n": 1, "m_log2": 5, "depth": 32}, "M = 32 is not built"),
        ({"encoding": 1, "n": 1, "m_log2": 2, "depth": 20}, "depth 20 does not fit M = 4 and window 16"),
        ({"encoding": 1, "n": 1, "m_log2": 2, "depth": 12, "taps": 2}, "depth 12 does not fit"),
        ({"encoding": 1, "n": 1, "m_log2": 2, "depth": 8, "taps": 0}, "depth 8 does not fit"),
        *(({"encoding": 1, "n": 1, "m_log2": 2, "depth": 8, "columns": 17} | more, "17 columns of unfinished sums")
          for more in ({"passes": 2}, {"continues": 1}, {"unfinished": 1})),
    ],
)  # fmt: skip
def test_what_is_refused_is_said(fields: dict[str, int], sentence: str) -> None:
    config = CONFIGS["both"]
    command = {"columns": 4, "passes": 1, "continues": 0, "unfinished": 0} | fields
    nothing = np.zeros((0, 2))
    with pytest.raises(WeightsError, match=sentence):
        dense_weights(command, nothing.astype(np.int8), nothing.astype(np.uint32), config)
    assert stream_faults(command, 0, nothing.astype(np.uint32), config) == 32
    most = {"encoding": 1, "n": 1, "m_log2": 2, "depth": 8, "taps": 2, "passes": 1, "continues": 0, "unfinished": 0}
    assert command_problem(most | {"columns": 17}, config) is None
    assert command_problem(most | {"columns": 16, "passes": 2, "continues": 1, "unfinished": 1}, config) is None


def test_where_positions_are_wrong_is_said() -> None:
    """In the second pass, column and group, and a sub-group that is not the first."""
    config = CONFIGS["both"]
    weights = np.tile(np.array([[0, 5, 0, -3, 7, 0, 0, 1]], np.int8), (3, 8))

    def said(encoding: str, depth: int, row: int, change: int, sentence: str) -> None:
        encoded = encode(weights, Pattern(2, 4), groups=2, window=16, depth=depth, encoding=encoding)
        encoded.positions[row, 1] ^= np.uint32(change)
        with pytest.raises(WeightsError, match=sentence) as error:
            dense_weights(command_of(encoded), encoded.values, encoded.positions, config)
        assert error.value.faults == stream_faults(command_of(encoded), len(encoded.values), encoded.positions, config)

    # A pass of depth 16 has 8 entries of a column, a word; its entries are 1, 3, 0, 3, and the same again.
    said("index", 16, 4, 0b11 << 14, "pass 1, column 1, group 1, sub-group 3: index 0 after 0; they ascend")
    said("index", 16, 4, 0b10 << 10, "pass 1, column 1, group 1, sub-group 2: index 1 after 1; they ascend")
    said("bitmap", 16, 4, 0b0001 << 4, "pass 1, column 1, group 1, sub-group 1: 1 bits, not 2")
    said("bitmap", 8, 7, 1 << 8, "pass 2, column 1, group 1, sub-group 0: bits set from 8 on")
    encoded = encode(weights, Pattern(2, 4), groups=2, window=16, encoding="index")
    with pytest.raises(WeightsError, match="47 values and 5 position words; the product takes 48 and 6"):
        dense_weights(command_of(encoded), encoded.values[:-1], encoded.positions[:-1], config)
