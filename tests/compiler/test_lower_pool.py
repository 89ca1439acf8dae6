"""Pooling's instructions, by hand: windows that choose tokens, what is loaded, and where each text's result goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sta_hw.compiler.lower.pool import pool
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.schedule import Load
from sta_hw.compiler.shapes import shape_graph
from sta_hw.errors import InputError
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Opcode, Result, Target
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
"""4 rows, 2 groups, windows of 16, a bus of 4 bytes: 4 tokens of a column are 2 words on chip."""
STACKED = replace(CONFIG, groups=8)
"""A beat of values as weights has 8 bytes, of two row tiles."""
SOURCE, TARGET = "norm1.8", "pooled0"


def pooled(packing: Packing, config: Config = CONFIG, *, mean: bool = True) -> Lowering:
    """Of 32 columns."""
    low = Lowering(shape_graph(32, 2, 1, 64), config, packing)
    pool(low, "here", SOURCE, TARGET, mean=mean, needs="there")
    return low


def pieces(low: Lowering, name: str) -> list[tuple[int, NDArray[np.uint8]]]:
    """Address and bytes of what the image has under a name."""
    image = low.image.finish()
    return [(at, image[at : at + size]) for what, at, size in low.image.places if what == f"pooling: {name}"]


def chosen(windows: NDArray[np.uint8], groups: int, depth: int, rows: int = 4) -> NDArray[np.uint8]:
    """What each token is multiplied by, shape (texts, tokens): a window has every `groups`-th token, group by group."""
    by_token = windows.reshape(-1, groups, depth, rows).transpose(0, 2, 1, 3)
    return by_token.reshape(-1, rows).T


def factor(low: Lowering) -> float:
    """By what sums are multiplied."""
    ((_, words),) = pieces(low, "parameters")
    bias, multiplier, shift = words[:4].view("<i4"), words[4:6].view("<u2"), words[6]
    assert bias == 0 and not words[7:].any() and len(words) == 16
    return int(multiplier[0]) / (1 << (12 + 4 * int(shift)))


def test_mean_of_one_text() -> None:
    low = pooled(Packing.aligned([9], 4))
    ((at, windows),) = pieces(low, "windows")
    rows = chosen(windows, 2, 6)
    assert rows.tolist() == [[1] * 9 + [0] * 3] * 4  # rows without a text do as the last one's
    assert low.mean_windows == (at, 6, 1)
    (step,) = low.steps
    assert step.opcode == Opcode.PRODUCT and step.label == "here" and step.group == 0
    assert step.fields == {
        "window_address": at, "window_beats": 12, "n": 1, "depth": 6, "columns": 32, "passes": 1, "wide": 1,
        "count0": 2, "stride0": 1, "count1": 3, "stride1": 64, "count2": 32, "stride2": 2, "count3": 1, "stride3": 192,
        "result": int(Result.STORE16), "result_address": low.buffers[TARGET],
    }  # fmt: skip
    ((values, parameters),) = low.groups
    assert values == Load(
        Target.VALUES, 192, low.buffers[SOURCE], 32, 3, 128, tuple(("there", t) for t in range(3)), "values1"
    )
    ((address, _),) = pieces(low, "parameters")
    assert parameters == Load(Target.PARAMETERS, 1, address, 4, base="parameters2")
    assert step.bases == {"values_base": ("values1", 0), "parameters_base": ("parameters2", 0)}
    assert factor(low) == pytest.approx(15 / 9, rel=1e-4)  # sums of INT8 by 15 fill 12 bits of 16
    assert low.layers == []


def test_means_of_texts_that_share_a_tile() -> None:
    """2 and 7 tokens: the shorter one's are taken three times, and the sums divided by the longer one's 7."""
    packing = Packing.dense([2, 7], 4)
    low = pooled(packing)
    ((_, windows),) = pieces(low, "windows")
    assert chosen(windows, 2, 6).tolist() == [[3] * 2 + [0] * 10] + [[0] * 2 + [1] * 7 + [0] * 3] * 3
    assert low.mean_windows is None
    assert factor(low) == pytest.approx(15 / 7, rel=1e-4)
    assert [packing.share(text) for text in packing.texts] == [6 / 7, 1]


def test_first_tokens() -> None:
    """Five texts are pooled by two products, for a tile has four rows; the second one loads its own text's tokens."""
    low = pooled(Packing.dense([5, 6, 7, 2, 3], 4), mean=False)
    (first, some), (second, last) = pieces(low, "windows")
    rows = chosen(some, 2, 10)
    assert [np.flatnonzero(row).tolist() for row in rows] == [[0], [5], [11], [18]] and rows.max() == 1
    assert chosen(last, 2, 2).tolist() == [[1, 0, 0, 0]] * 4  # token 20, the first of tile 5
    assert low.mean_windows is None
    assert [s.fields["window_address"] for s in low.steps] == [first, second]
    assert [s.fields["result_address"] - low.buffers[TARGET] for s in low.steps] == [0, 256]
    assert [(s.fields["depth"], s.fields["window_beats"], s.group) for s in low.steps] == [(10, 20, 0), (2, 4, 1)]
    assert [loads[0].rows for loads in low.groups] == [5, 1]
    assert [loads[0].needs for loads in low.groups] == [tuple(("there", t) for t in range(5)), (("there", 5),)]
    assert low.groups[1][0].address == low.buffers[SOURCE] + 5 * 128
    assert factor(low) == 15.0
    assert low.groups[0][1].address == low.groups[1][1].address


def test_columns_that_have_no_room_together() -> None:
    """40 tokens are 20 words a column, in two blocks: 291 of 512 words are a load's, 14 columns."""
    low = pooled(Packing.aligned([40], 4), replace(CONFIG, weight_words=512))
    ((_, windows),) = pieces(low, "windows")
    assert chosen(windows, 2, 16).tolist() == [[1] * 40 + [0] * 24] * 4 and low.mean_windows is not None
    assert low.mean_windows[1:] == (16, 2)
    assert factor(low) == 15 / 40
    assert [s.fields["columns"] for s in low.steps] == [14, 14, 4]
    assert [s.fields["result_address"] - low.buffers[TARGET] for s in low.steps] == [0, 14 * 8, 28 * 8]
    assert [s.group for s in low.steps] == [0, 1, 2]
    for step, (values, _), columns, before in zip(low.steps, low.groups, (14, 14, 4), (0, 14, 28), strict=True):
        counters = [(step.fields[f"count{n}"], step.fields[f"stride{n}"]) for n in range(4)]
        assert counters == [(2, 1), (8, columns * 2), (columns, 2), (2, 8 * columns * 2)]
        assert (step.fields["passes"], step.fields["depth"], step.fields["window_beats"]) == (2, 16, 64)
        assert (values.words, values.beats) == (10 * columns * 2, columns)
        assert values.address == low.buffers[SOURCE] + 4 * before and (values.rows, values.stride) == (10, 128)


def test_blocks_take_no_more_columns_than_the_accumulators() -> None:
    """Sums of two blocks stay in accumulators, of 16 columns here; of one block they go on at once."""
    config = replace(CONFIG, columns=16)
    assert [s.fields["columns"] for s in pooled(Packing.aligned([33], 4), config).steps] == [16, 16]
    assert [s.fields["columns"] for s in pooled(Packing.aligned([32], 4), config).steps] == [32]


def test_tokens_that_do_not_fit_are_refused() -> None:
    """A column's words must find room in 0.57 of the chip's: 145 here. The next group's are loaded into the rest."""
    config = replace(CONFIG, weight_words=256)
    assert {s.fields["columns"] for s in pooled(Packing.aligned([288], 4), config).steps} == {1}  # 144
    with pytest.raises(InputError, match="pooling 289 tokens does not fit weight_words = 256; double it"):
        pooled(Packing.aligned([289], 4), config)


def test_tokens_side_by_side() -> None:
    """Where a beat has two row tiles, a product with one puts tokens side by side first: no work of the network."""
    low = pooled(Packing.aligned([20], 4), STACKED)
    name = "here: side by side"
    *copies, step = low.steps
    assert {s.label for s in copies} == {name} and [s.fields["result"] for s in copies] == [int(Result.STORE8)] * 5
    assert [s.needs for s in copies] == [(("there", t),) for t in range(5)]
    assert [s.gives for s in copies] == [((name, t),) for t in range(5)]
    assert [s.fields["result_address"] - low.buffers[name] for s in copies] == [0, 4, 256, 260, 512]
    assert {s.fields["apart"] for s in copies} == {1}
    assert low.places[name].width == 32 and low.places[name].size == 1
    assert [size for what, _, size in low.image.places if what == f"buffer {name}"] == [3 * 8 * 32]
    values, _ = low.groups[step.group]
    assert (values.address, values.words, values.beats, values.rows, values.stride) == (
        low.buffers[name],
        96,
        64,
        3,
        256,
    )
    assert values.needs == tuple((name, t) for t in range(5))
    assert [(step.fields[f"count{n}"], step.fields[f"stride{n}"]) for n in range(3)] == [(1, 1), (3, 32), (32, 1)]
    ones = next(load.address for load in low.groups[0] if load.target == Target.PARAMETERS)
    words = low.image.finish()[ones : ones + 16 * 32].reshape(32, 16)
    assert words.tolist() == [[0, 0, 0, 0, 0, 16, *[0] * 10]] * 32  # 2^12 without a shift is 1
    ((_, windows),) = pieces(low, "windows")
    assert chosen(windows, 8, 3).tolist() == [[1] * 20 + [0] * 4] * 4
    (told,) = low.layers
    assert (told.layer, told.work, told.columns, told.reduction) == (name, 0.0, 32, 32)
