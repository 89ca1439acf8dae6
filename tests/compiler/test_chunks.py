"""A layer's weights in chunks: which columns, what lies in memory, and the LOADs that bring it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sta_hw.compiler.lower.chunks import Cut, chunk_of, chunk_width, cut_layer, loads_of
from sta_hw.compiler.lower.parts import WindowPart
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.parameters import LinearParameters
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.model.random import random_ids, random_model
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Target
from sta_hw.spec.patterns import DENSE, Pattern, parse_nm
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]


def lowering(config: Config = CONFIG) -> Lowering:
    return Lowering(quantize(random_model(0), [random_ids(0, 9)]), config, Packing.aligned([4], config.rows))


def layer(columns: int, reduction: int, pattern: Pattern) -> LinearParameters:
    """Weights that count up, zeros behind the first N of each M, and parameters that tell columns apart."""
    weights = np.arange(columns * reduction).reshape(columns, reduction) % 127 + 1
    weights[:, np.arange(reduction) % pattern.m >= pattern.n] = 0
    number = np.arange(columns)
    return LinearParameters(
        weights.astype(np.int8), pattern, number - 5, number + 4096, number % 30, np.zeros(columns, np.int64)
    )


def test_a_cut_counts_words() -> None:
    """8:16 of 64 weights in 2 groups: windows of 16 keep 8, in 2 passes; a position has 4 bits of a word's 16."""
    cut = cut_layer(lowering(), "here", layer(6, 64, parse_nm("8:16")), parse_nm("8:16"), digits=False)
    (part,) = cut.parts
    assert (part.first, part.stop, cut.depth, cut.passes, cut.blocks) == (0, 64, 16, 2, None)
    assert cut.words(CONFIG) == 16
    bitmap = {"index": 4, "bitmap": 8, "dense": None}[part.encoding]
    assert cut.words_per_position(CONFIG) == bitmap
    assert cut.window_bytes(part, CONFIG) == 64 * CONFIG.rows
    assert dataclasses.replace(cut, digits=True).window_bytes(part, CONFIG) == 2 * 64 * CONFIG.rows
    dense = cut_layer(lowering(), "here", layer(6, 64, DENSE), DENSE, digits=False)
    assert dense.words(CONFIG) == 32 and dense.words_per_position(CONFIG) == float("inf")


@pytest.mark.parametrize(
    ("columns", "words", "width"),
    [
        (64, 8, 64),  # all of them: 512 words of 2,048
        (200, 8, 100),  # two as equal ones: 128 are half of the columns whose parameters have room
        (258, 8, 86),  # three
        (64, 128, 8),  # 8 columns are half of the ring
    ],
)
def test_chunks_are_as_equal_as_possible(columns: int, words: int, width: int) -> None:
    """Columns on chip at once: one pass, `words` values of depth `words` (at most a window) or of more passes."""
    depth = min(words, CONFIG.window)
    cut = Cut((WindowPart(0, 2 * words, DENSE, "dense", depth, words // depth),), digits=False, blocks=None)
    low = lowering(dataclasses.replace(CONFIG, parameter_words=256))
    assert chunk_width(low, "here", columns, cut) == width
    assert low.words_before == width * words


def test_parameters_have_half_of_their_memory() -> None:
    """Of 128 words 64: 200 columns, whose weights would be two chunks, are four equal ones."""
    cut = Cut((WindowPart(0, 16, DENSE, "dense", 8, 1),), digits=False, blocks=None)
    assert chunk_width(lowering(dataclasses.replace(CONFIG, parameter_words=128)), "here", 200, cut) == 50


@pytest.mark.parametrize(("digits", "width"), [(False, 100), (True, 50)])
def test_sums_of_digits_wait_on_chip(digits: bool, width: int) -> None:
    """There is room for those of 64 columns; of a single pass and digit none wait."""
    cut = Cut((WindowPart(0, 16, DENSE, "dense", 8, 1),), digits=digits, blocks=None)
    assert CONFIG.columns == 64 and chunk_width(lowering(), "here", 100, cut) == width


@pytest.mark.parametrize(("digits", "width"), [(False, 14), (True, 18)])
def test_chunks_grow_where_windows_take_longer_than_products(digits: bool, width: int) -> None:
    """Columns of 64 words in 4 passes: half of the ring holds 16 of them, and 54 are four chunks.

    A pass of 16 takes 256 cycles, and its windows, of 2 groups of 16 for 8 rows by 2 a cycle, 128, of two digits 256.
    Windows that take more than four fifths of that are worth a wait: three chunks of 18, 0.57 of the ring at the most.
    """
    cut = Cut((WindowPart(0, 128, DENSE, "dense", 16, 4),), digits=digits, blocks=None)
    low = lowering(dataclasses.replace(CONFIG, lanes=2, rows=8))
    assert chunk_width(low, "here", 54, cut) == width


def test_a_column_that_does_not_fit_is_refused() -> None:
    cut = Cut((WindowPart(0, 4096, DENSE, "dense", 16, 128),), digits=False, blocks=None)
    with pytest.raises(InputError, match=r"here: 2 columns of weights take 4096 words, .* weight_words = 2048; 8192"):
        chunk_width(lowering(), "here", 6, cut)


@pytest.mark.parametrize("nm", ["dense", "2:4"])
def test_loads_bring_what_was_laid_out(nm: str) -> None:
    """Columns 2 to 5: each weight once, group beside group, a word after the other; parameters come first."""
    low, pattern = lowering(), parse_nm(nm)
    p = layer(6, 32, pattern)
    cut = cut_layer(low, "here", p, pattern, digits=False)
    chunk = chunk_of(low, p, cut, slice(2, 6))
    loads = loads_of(low, "here", p, chunk)
    image = low.image.finish()

    def loaded(target: Target, width: int) -> np.ndarray:
        mine = [load for load in loads if load.target == target]
        assert [load.base is None for load in mine] == [False] + [True] * (len(mine) - 1)
        assert all(load.beats * CONFIG.bus_bytes >= load.words * width for load in mine)
        return np.concatenate([image[load.address :][: load.words * width].reshape(-1, width) for load in mine])

    assert loads[0].target == Target.PARAMETERS and loads[0].base == chunk.parameters
    assert [int.from_bytes(row[:4], "little", signed=True) for row in loaded(Target.PARAMETERS, 16)[:4]] == [
        -3,
        -2,
        -1,
        0,
    ]
    # A pass has a window of 16 in each of the 2 groups; so word i holds weight i of both halves.
    kept = p.weights[2:6].reshape(4, 2, 16)
    kept = kept[:, :, np.arange(16) % pattern.m < pattern.n]
    expected = kept.transpose(0, 2, 1).reshape(-1, 2)
    assert (loaded(Target.VALUES, CONFIG.groups).view(np.int8)[: len(expected)] == expected).all()
    positions = [load for load in loads if load.target == Target.POSITIONS]
    assert bool(positions) == (nm != "dense")
    assert chunk.stored == expected.size + sum(words.size for _, words in chunk.encoded)
    if positions:  # ahead of the values that go with them
        assert [load.target for load in loads[1:3]] == [Target.POSITIONS, Target.VALUES]
        assert positions[0].base == chunk.positions


def test_chunks_of_few_positions() -> None:
    """2:16 in bitmaps: a column of 2 words has a word of 512 of positions, so 256 columns are half of those."""
    config = dataclasses.replace(CONFIG, encodings=("bitmap",))
    part = WindowPart(0, 32, Pattern(2, 16), "bitmap", 16, 1)
    for columns, width in ((256, 256), (258, 130)):
        assert chunk_width(lowering(config), "here", columns, Cut((part,), digits=False, blocks=None)) == width


def test_loads_of_two_parts() -> None:
    """8:16 of 40 weights: 16 words of a pass of 32, of which 8 are there, then the 4 words of the last 8, dense."""
    low, pattern = lowering(dataclasses.replace(CONFIG, encodings=("bitmap",))), parse_nm("8:16")
    low.rest_apart = True
    p = layer(2, 40, pattern)
    chunk = chunk_of(low, p, cut_layer(low, "here", p, pattern, digits=False), slice(0, 2))
    loads = loads_of(low, "here", p, chunk)
    image = low.image.finish()
    words = [image[load.address :][: load.words * 2] for load in loads if load.target == Target.VALUES]
    found = np.concatenate(words).view(np.int8).reshape(-1, 2)
    head, rest = p.weights[:, :32].reshape(2, 2, 16)[:, :, :8], p.weights[:, 32:].reshape(2, 2, 4)
    np.testing.assert_array_equal(found[:16], head.transpose(0, 2, 1).reshape(-1, 2))
    np.testing.assert_array_equal(found[16:24], rest.transpose(0, 2, 1).reshape(-1, 2))
    assert chunk.stored == 2 * (16 + 8) + 2 * 4


def test_all_columns_at_once_beside_the_chunk_before() -> None:
    """70 columns of 8 words take more than half of 1,024, and less than loading windows twice: if there is room."""
    low = lowering(dataclasses.replace(CONFIG, rows=64, weight_words=1024))
    cut = Cut((WindowPart(0, 16, DENSE, "dense", 8, 1),), digits=False, blocks=None)
    for before, columns, width in ((464, 70, 70), (465, 70, 36), (0, 72, 72), (0, 74, 38)):
        low.words_before = before
        assert chunk_width(low, "here", columns, cut) == width
        assert low.words_before == 8 * width


def test_more_than_half_where_windows_take_as_long() -> None:
    """Of 512 words 36 columns of 7 are half: 252 cycles a pass, less than 1.25 times the 224 that windows take.

    So there are as many as 0.57 of them hold, 41, of which 40 are whole groups.
    """
    cut = Cut((WindowPart(0, 14, DENSE, "dense", 7, 1),), digits=False, blocks=None)
    tall = dataclasses.replace(CONFIG, rows=64, weight_words=512)
    assert chunk_width(lowering(tall), "here", 1000, cut) == 40
    assert chunk_width(lowering(dataclasses.replace(tall, rows=32)), "here", 1000, cut) == 36
