"""Where a compilation's values lie, by hand: tiles, stacks, blocks of keys, windows on chip; encoded weights, kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sta_hw.compiler.info import ValueInfo
from sta_hw.compiler.lower.parts import WindowPart
from sta_hw.compiler.lower.state import EncodedWeights, Lowering, tightest
from sta_hw.compiler.packing import Packing, Place
from sta_hw.compiler.shapes import shape_graph
from sta_hw.errors import InputError
from sta_hw.formats.blocks import BlockedWeights
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
"""4 rows, 2 groups, windows of 16, a bus of 4 bytes."""
STACKED = replace(CONFIG, groups=8)
"""A beat of values as weights has 8 bytes: of two row tiles."""


def lowering(config: Config = CONFIG, *tokens: int, packing: Packing | None = None) -> Lowering:
    return Lowering(shape_graph(32, 2, 2, 64), config, packing or Packing.aligned(tokens or (9,), config.rows))


def test_buffers_have_whole_stacks_and_what_a_pass_may_read_beyond() -> None:
    """9 tokens are 12 rows, or 16 in stacks of 8; beyond their 32 columns a pass of groups x 16 x 4 bytes is read."""
    low = lowering()
    assert low.buffers["norm0.16"] - low.buffers["stream0"] == 12 * 32 * 2 + 128
    assert low.buffers["norm1.16"] - low.buffers["norm0.8"] == 12 * 32 + 128
    stacked = lowering(STACKED)
    assert stacked.buffers["norm0.16"] - stacked.buffers["stream0"] == 16 * 32 * 2 + 512
    assert stacked.buffers["norm1.16"] - stacked.buffers["norm0.8"] == 16 * 32 + 512
    assert (low.tiles, low.tokens, low.layer_weights, low.weight, low.chunk_weight) == (3, 9, [1.0, 1.0], 1.0, 1.0)
    assert (low.mean_windows, low.latest, low.given, low.words_before) == (None, "", 0, 0)
    assert not low.rest_apart


def test_addresses() -> None:
    low = lowering(STACKED, 20)
    wide, narrow = low.buffers["stream0"], low.buffers["norm0.8"]
    assert low.tile_address("stream0", 0) == wide and low.tile_address("norm0.8", 0, 3) == narrow + 12
    assert low.tile_address("stream0", 2, 3) == wide + (2 * 32 + 3) * 8
    assert low.tile_address("norm0.8", 2, 3) == narrow + (2 * 32 + 3) * 4
    # Tile 3 is the second half of stack 1, in which a column has 8 bytes.
    assert low.value_address("norm0.8", 0) == narrow and low.value_address("norm0.8", 1) == narrow + 4
    assert low.value_address("norm0.8", 3, 5) == narrow + (32 + 5) * 8 + 4
    assert low.value_address("norm0.8", 4, 1) == narrow + (64 + 1) * 8
    assert [low.beats(n) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_stacks() -> None:
    low = lowering(STACKED, 20)  # 5 tiles: the third stack has one
    assert [low.stacked(a, b) for a, b in ((0, 1), (1, 3), (2, 3), (0, 3))] == [
        range(0, 2), range(2, 5), range(4, 5), range(0, 5)
    ]  # fmt: skip
    assert lowering(CONFIG, 20).stacked(1, 3) == range(1, 3)


def test_blocks_of_keys() -> None:
    """Windows of up to 16 keys in each of 2 groups; in stacks, of an even depth."""
    low = lowering()
    assert [low.blocks_of(n) for n in (1, 2, 3, 32, 33, 64, 65)] == [
        (2, 1), (2, 1), (2, 1), (16, 1), (16, 2), (16, 2), (16, 3)
    ]  # fmt: skip
    stacked = lowering(STACKED)
    assert [stacked.blocks_of(n) for n in (1, 8, 9, 128, 129)] == [(1, 1), (1, 1), (2, 1), (16, 1), (16, 2)]
    assert low.key_blocks(Place(4, 33)) == (16, 2) and low.key_blocks(Place(6, 31)) == (16, 2)
    assert low.key_blocks(Place(4, 32)) == (16, 1) and stacked.key_blocks(Place(4, 5)) == (2, 1)
    # 40 tokens from row 4 on: stacks 1 to 10 of 4 rows; a block has 32 keys, 8 stacks.
    assert [low.block_stacks(Place(4, 40), block) for block in (0, 1)] == [range(1, 9), range(9, 11)]
    assert low.block_stacks(Place(0, 3), 0) == range(0, 1)
    assert [stacked.block_stacks(Place(8, 150), block) for block in (0, 1)] == [range(1, 17), range(17, 20)]


def test_names_events_and_notes() -> None:
    low = lowering()
    assert [low.name("a"), low.name("b"), low.name("a")] == ["a1", "b2", "a3"]
    assert low.event("embedded") == "" and low.event("0.sum1") == "0.sum1"
    low.note("here", low.graph.by_name["1.sum1"], "1.sum1", "stream0", "norm0.8")
    assert low.values == {"here": ValueInfo("add", 1, "1.sum1", ("stream0", "norm0.8"))}
    assert low.repeat(3, 7) == [(0, 1.0), (1, 1.0), (2, 1.0)] and low.within(2, 5) == [2, 3, 4]
    with pytest.raises(InputError, match="too long"):
        low.refuse("too long")


def test_windows_that_stay() -> None:
    """64 words on chip: of a value, of another one, and what goes on from the one before."""
    low = lowering(replace(CONFIG, window_words=64))
    assert low.keep_windows("a", [[(0, 32)], [(128, 32)]]) == ("keep", "kept")
    assert low.keep_windows("a", [[(0, 32)], [(128, 32)]]) == ("kept", "kept")
    assert low.keep_windows("a", [[(128, 32)]]) == ("kept", "kept")
    # Windows of a value that are not there are kept, too; those of another are, whatever they are.
    assert low.keep_windows("a", [[(256, 32)]]) == ("keep", "kept")
    assert low.keep_windows("b", [[(256, 32)]]) == ("keep", "kept")
    assert low.keep_windows("c", [[(0, 32)], [(132, 32)]]) == ("", "")  # a span of 65 words
    assert low.keep_windows("c", [[(0, 32)], [(128, 33)]]) == ("", "")
    assert low.keep_windows("b", [[(256, 32)]]) == ("kept", "kept")
    low.forget_windows()
    assert low.keep_windows("b", [[(256, 32)]]) == ("keep", "kept")
    # They go on from the ones before as long as there is room; then the first ones have to go.
    assert low.keep_windows("d", [[(384, 32)], [(512, 32)]]) == ("keep", "")
    assert lowering().keep_windows("a", [[(0, 1)]]) == ("", "")


def test_windows_that_are_taken_twice() -> None:
    """Of a tile all are to be there; where the first have to go, none is kept, and what was there is there still."""
    low = lowering(replace(CONFIG, window_words=64))
    assert low.keep_windows("a", [[(0, 40)]]) == ("keep", "kept")
    assert low.keep_windows("b", [[(160, 20), (240, 10)]], twice=True) == ("", "")
    assert low.keep_windows("a", [[(0, 40)]], twice=True) == ("kept", "kept")
    assert low.keep_windows("b", [[(160, 20), (240, 4)]], twice=True) == ("keep", "kept")  # 64 words in all
    assert low.keep_windows("c", [[(256, 20)], [(336, 20), (416, 24)]], twice=True) == ("keep", "kept")
    assert low.keep_windows("a", [[(0, 40)]]) == ("keep", "kept")
    assert low.keep_windows("b", [[(160, 20), (240, 10)]]) == ("keep", "")


def test_windows_that_stay_tile_by_tile() -> None:
    low = lowering(replace(CONFIG, window_words=64))
    assert low.keep_windows("a", [[(0, 64)]]) == ("keep", "kept")
    assert not low.keep_each([[(0, 64)], [(256, 65)]])
    assert not low.keep_each([[(0, 32), (256, 32)]])  # what lies apart does not stay together
    assert low.keep_windows("a", [[(0, 64)]]) == ("kept", "kept")  # nothing has changed
    assert low.keep_each([[(0, 64)], [(256, 64)]])
    assert low.windows_of == "" and low.windows_on_chip.there(256, 64)
    assert low.keep_each([[(0, 32), (128, 32)], [(1024, 32), (1152, 32)]])
    assert low.keep_windows("a", [[(1024, 64)]]) == ("keep", "kept")


def test_encoded_weights_are_kept_by_content() -> None:
    """2:4 in 2 groups of windows of 4, by hand: a word of values of each group's; 8 bits of 2-bit positions."""
    encoded = EncodedWeights(replace(CONFIG, window=8))
    weights = np.array([[0, 5, 0, -3, 7, 0, 0, 1]], np.int8)
    values, positions = encoded.words(weights, Pattern(2, 4), 4, "index")
    np.testing.assert_array_equal(values.view(np.int8), [[5, 7], [-3, 1]])
    np.testing.assert_array_equal(positions, [[0b1101, 0b1100]])
    again, _ = encoded.words(weights.copy(), Pattern(2, 4), 4, "index")
    assert again is values
    other, _ = encoded.words(-weights, Pattern(2, 4), 4, "index")
    np.testing.assert_array_equal(other.view(np.int8), [[-5, -7], [3, -1]])
    _, bitmaps = encoded.words(weights, Pattern(2, 4), 4, "bitmap")
    np.testing.assert_array_equal(bitmaps, [[0b1010, 0b1001]])
    _, none = encoded.words(weights, DENSE, 4, "dense")
    assert none.shape == (0, 1)


def test_encoded_blocks() -> None:
    """256 weights of 4 bits, of each four the first two: 16 bits for a group's 8 positions 0, 1, 0, 1, ...."""
    config = PRESETS["decoder"]
    kept = np.arange(256)[None, :] % 4 < 2
    one = np.ones((1, 8), np.int64)
    blocks = BlockedWeights(32, np.full((1, 256), 9, np.uint8), 128 * one, 0 * one, kept)
    encoded = EncodedWeights(config)
    part = WindowPart(0, 256, Pattern(2, 4), "index", 16, 1, blocks=True)
    words, positions = encoded.blocks(blocks, part)
    np.testing.assert_array_equal(positions, np.full((1, 32), 0b01000100))
    # Header 0 has 2 words, the one behind all 1, and there are two codes of each group in a word (docs/format.md).
    assert len(words) == 2 + 1 + 4 and (words[3:] == 0x99).all()
    assert encoded.blocks(blocks, part)[0] is words
    dense = BlockedWeights(32, np.full((1, 256), 9, np.uint8), 128 * one, 0 * one)
    _, none = encoded.blocks(dense, WindowPart(0, 256, DENSE, "dense", 16, 1, blocks=True))
    assert none.shape == (0, 1)


def test_the_tightest_pattern() -> None:
    config = replace(CONFIG, nm=("1:4", "2:4", "3:4", "2:8", "dense"))
    ones = np.zeros((2, 16), np.int8)
    ones[:, ::4] = 1
    assert tightest(ones, config) == Pattern(1, 4)
    ones[1, 14] = 1
    assert tightest(ones, config) == Pattern(2, 4)
    ones[1, 12:15] = 1
    assert tightest(ones, config) == Pattern(3, 4)
    ones[1, 12:16] = 1
    assert tightest(ones, config) == DENSE
    # Of two of a density the one with the smaller M; none at all is the least there is; a rest counts as a group.
    assert tightest(np.zeros((2, 16), np.int8), config) == Pattern(1, 4)
    both = np.zeros((1, 16), np.int8)
    both[0, [0, 1, 8, 9]] = 1
    assert tightest(both, config) == Pattern(2, 8)
    assert tightest(both, replace(CONFIG, nm=("1:2", "2:4", "4:8"))) == Pattern(2, 4)
    every_other = np.arange(16)[None, :] % 2 * np.ones((3, 1), np.int8)
    assert tightest(every_other.astype(np.int8), replace(CONFIG, nm=("1:2", "2:4", "4:8"))) == Pattern(1, 2)
    rest = np.zeros((1, 18), np.int8)
    rest[0, 16:] = 1
    assert tightest(rest, config) == Pattern(2, 8)
    assert EncodedWeights(config).tightest(rest) == Pattern(2, 8)
