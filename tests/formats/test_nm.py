"""N:M formats: round trips, exactness of pruning, sizes, and errors that say where."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sta_hw.errors import InputError
from sta_hw.formats import EncodedMatrix, best_encoding, bits_per_weight, decode, encode, keep_mask, prune, satisfies
from sta_hw.formats.nm import implies
from sta_hw.spec.patterns import DENSE, SUPPORTED_M, Pattern, parse_nm


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, Pattern, str, int, int, int]:
    m = draw(st.sampled_from(SUPPORTED_M))
    pattern = Pattern(draw(st.integers(1, m)), m)
    window = draw(st.sampled_from([w for w in (4, 8, 16, 32) if w % m == 0]))
    depth = m * draw(st.integers(1, window // m))
    groups = draw(st.integers(1, 9))
    shape = (draw(st.integers(1, 7)), draw(st.integers(1, 150)))
    seed = draw(st.integers(0, 2**32 - 1))
    weights = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    if draw(st.booleans()):
        weights[np.random.default_rng(seed + 1).random(shape) < 0.7] = 0
    return prune(weights, pattern), pattern, draw(st.sampled_from(["index", "bitmap"])), groups, window, depth


@given(matrices())
@settings(max_examples=150, deadline=None)
def test_round_trip(case: tuple) -> None:
    weights, pattern, encoding, groups, window, depth = case
    encoded = encode(weights, pattern, groups=groups, window=window, encoding=encoding, depth=depth)
    np.testing.assert_array_equal(decode(encoded), weights)
    read = EncodedMatrix.from_bytes(encoded.to_bytes())
    np.testing.assert_array_equal(decode(read), weights)
    assert len(encoded.to_bytes()) * 8 == 28 * 8 + encoded.size_bits
    assert read.steps * read.passes * read.columns == len(read.values)


@given(matrices())
@settings(max_examples=60, deadline=None)
def test_dense_round_trip(case: tuple) -> None:
    weights, _, _, groups, window, depth = case
    encoded = encode(weights, Pattern(1, 1), groups=groups, window=window, depth=depth)
    assert encoded.encoding == "dense" and not len(encoded.positions)
    np.testing.assert_array_equal(decode(EncodedMatrix.from_bytes(encoded.to_bytes())), weights)


def test_what_a_pattern_implies() -> None:
    """Against matrices: one pattern implies another if the worst that it allows satisfies that one."""
    every = [DENSE, *(Pattern(n, m) for m in SUPPORTED_M for n in range(1, m + 1))]
    for one in every:
        # Each group's weights at one end or the other: somewhere they lie as near together as they can.
        ends = np.zeros((2, 2, one.m), np.int8)
        ends[:, 0, one.m - one.n :] = ends[0, 1, : one.n] = ends[1, 1, one.m - one.n :] = 1
        worst = np.tile(ends.reshape(2, -1), 32)
        for other in every:
            assert implies(one, other) == satisfies(worst, other), (one, other)


@given(
    st.sampled_from(SUPPORTED_M).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m))),
    st.integers(0, 2**32 - 1),
    st.integers(1, 70),
)
@settings(max_examples=100, deadline=None)
def test_pruning_keeps_the_largest(nm: tuple[int, int], seed: int, reduction: int) -> None:
    pattern = Pattern(*nm)
    weights = np.random.default_rng(seed).normal(size=(3, reduction))
    mask = keep_mask(np.abs(weights), pattern)
    assert satisfies(prune(weights, pattern), pattern)
    for row, keep in zip(weights, mask, strict=True):
        for start in range(0, reduction, pattern.m):
            group, kept = np.abs(row[start : start + pattern.m]), keep[start : start + pattern.m]
            assert kept.sum() == min(pattern.n, len(group))
            if kept.any() and not kept.all():
                assert group[kept].min() >= group[~kept].max()


def test_a_written_out_example() -> None:
    """The example of docs/format.md."""
    weights = np.array([[0, 5, 0, -3, 7, 0, 0, 1]], np.int8)
    index = encode(weights, Pattern(2, 4), groups=1, window=8, encoding="index")
    assert index.values[:, 0].tolist() == [5, -3, 7, 1]
    assert index.positions[:, 0].tolist() == [0b11_00_11_01]
    bitmap = encode(weights, Pattern(2, 4), groups=1, window=8, encoding="bitmap")
    assert bitmap.positions[:, 0].tolist() == [0b1001_1010]
    header, sizes = b"NMSP\1".hex(), "0100080801000000080000000100000004000000"
    assert index.to_bytes().hex() == f"{header}010202{sizes}cd05fd0701"
    assert bitmap.to_bytes().hex() == f"{header}020202{sizes}9a05fd0701"
    with pytest.raises(dataclasses.FrozenInstanceError):
        index.groups = 2


def test_too_many_nonzeros_are_named() -> None:
    weights = np.zeros((3, 64), np.int8)
    weights[2, 52:55] = 1
    with pytest.raises(InputError, match=r"column 2, weights 52 to 55: 3 non-zeros where 2:4 allows 2\."):
        encode(weights, Pattern(2, 4), groups=2, window=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "csr"}, "encoding 'csr' is unknown"),
        ({"encoding": "dense"}, "encoding dense stores no positions"),
        ({"depth": 6}, "depth 6 does not fit M = 4 and window 16"),
        ({"depth": 20}, "depth 20 does not fit"),
        ({"window": 12}, "does not fit M = 4 and window 12"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(np.zeros((1, 16), np.int8), Pattern(2, 4), **({"groups": 1, "window": 16} | options))
    assert encode(np.ones((1, 16), np.int8), DENSE, groups=1, window=16, encoding="index").encoding == "dense"


def test_a_damaged_image_is_refused() -> None:
    weights = prune(np.arange(-30, 34).reshape(2, 32).astype(np.int8), Pattern(2, 4))
    data = encode(weights, Pattern(2, 4), groups=2, window=16).to_bytes()
    damage = [
        (0, b"X", "offset 0 holds"),
        (4, b"\x09", "version 9"),
        (5, b"\x07", "encoding 7"),
        (6, b"\x05", "N = 5"),
        (6, b"\x00", "N = 0"),
        (7, b"\x06", "log2 M = 6"),
        (8, b"\x00\x00", "groups 0"),
        (10, b"\x11", "window 17"),
        (11, b"\x00", "depth 0"),
        (11, b"\x06", "depth 6"),
        (11, b"\x14", "depth 20"),
        (20, b"\x01\x00\x00\x00", "position words"),
        (24, b"\x01\x00\x00\x00", "and 1 value beats"),
    ]
    for offset, change, message in damage:
        broken = data[:offset] + change + data[offset + len(change) :]
        with pytest.raises(InputError, match=message):
            EncodedMatrix.from_bytes(broken)
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(InputError, match="the header asks for"):
            EncodedMatrix.from_bytes(wrong)
    with pytest.raises(InputError, match="too few for the header"):
        EncodedMatrix.from_bytes(data[:10])


def test_a_bitmap_with_the_wrong_count_is_named() -> None:
    encoded = encode(np.ones((2, 4), np.int8) * [[1, 1, 0, 0]], Pattern(2, 4), groups=1, window=4, encoding="bitmap")
    encoded.positions[1, 0] = 0b0111
    with pytest.raises(InputError, match="bitmap of column 1, pass 0, group 0: not 2 bits in each 4 as 2:4 asks"):
        decode(encoded)
    weights = np.ones((2, 16), np.int8) * ([1, 1, 0, 0] * 4)
    for bit in (1, 4):  # of those that count, and behind them
        encoded = encode(weights, Pattern(2, 4), groups=2, window=8, depth=4, encoding="bitmap")
        encoded.positions[3, 1] ^= np.uint32(1 << bit)
        with pytest.raises(InputError, match="bitmap of column 1, pass 1, group 1: not 2 bits"):
            decode(encoded)


@pytest.mark.parametrize(
    ("word", "sub", "indices"),
    [(0b11_00_11_11, 0, "3, 3"), (0b11_00_01_11, 0, "3, 1"), (0b10_10_11_01, 1, "2, 2"), (0b00_01_11_01, 1, "1, 0")],
)
def test_indices_that_repeat_or_fall_are_named(word: int, sub: int, indices: str) -> None:
    """An index stream of two equal positions once meant the later value to `decode`, and the sum to the hardware."""
    weights = np.array([[0, 5, 0, -3, 7, 0, 0, 1] * 4] * 3, np.int8)
    encoded = encode(weights, Pattern(2, 4), groups=2, window=8, encoding="index")
    encoded.positions[4, 1] = word
    message = f"indices of column 1, pass 1, group 1, sub-group {sub}: {indices} are not 2 different positions in asc"
    with pytest.raises(InputError, match=message):
        decode(encoded)


def test_padding_ascends_too() -> None:
    """Sub-groups of fewer than N non-zeros: the entries that fill up have positions of their own."""
    weights = np.zeros((4, 32), np.int8)
    weights[1, 3] = weights[2, 16] = weights[3, 31] = 9
    for pattern in (Pattern(2, 4), Pattern(5, 16), Pattern(16, 16)):
        np.testing.assert_array_equal(decode(encode(weights, pattern, groups=2, window=16, encoding="index")), weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({6: 2, 7: 1}, r"encoding 0 \(dense\) needs N and M to be 1, and the pattern is 2:2"),
        ({6: 4, 7: 2}, "the pattern is 4:4"),
        ({6: 1, 7: 2}, "the pattern is 1:4"),
        ({5: 1}, r"encoding 1 \(index\) needs M of at least 2"),
        ({5: 2}, r"encoding 2 \(bitmap\) needs M of at least 2"),
    ],
)
def test_encoding_0_is_dense_and_dense_alone(changes: dict[int, int], message: str) -> None:
    """A dense header of another pattern was accepted, and decoded wrongly."""
    encoded = encode(np.ones((2, 32), np.int8), Pattern(1, 1), groups=2, window=16)
    data = bytearray(encoded.to_bytes())
    for offset, value in changes.items():
        data[offset] = value
    with pytest.raises(InputError, match=message):
        EncodedMatrix.from_bytes(bytes(data))
    wrong = dataclasses.replace(
        encoded, pattern=Pattern(data[6], 1 << data[7]), encoding=("dense", "index", "bitmap")[data[5]]
    )
    with pytest.raises(InputError, match=message):
        decode(wrong)


def test_sizes() -> None:
    """Counted bits agree with the formula, and the smaller encoding is chosen."""
    rng = np.random.default_rng(0)
    for text in ("2:4", "1:4", "4:8", "2:8", "1:16", "4:16", "8:16", "1:2"):
        pattern = parse_nm(text)
        weights = prune(rng.integers(-128, 128, (240, 480)).astype(np.int8), pattern)
        for encoding in ("index", "bitmap"):
            encoded = encode(weights, pattern, groups=5, window=16, encoding=encoding)
            assert encoded.size_bits / weights.size == pytest.approx(bits_per_weight(pattern, encoding), rel=1e-3)
        sizes = {e: bits_per_weight(pattern, e) for e in ("index", "bitmap")}
        assert sizes[best_encoding(pattern)] == min(sizes.values())
        assert bits_per_weight(pattern, "limit") <= min(sizes.values())
    assert best_encoding(parse_nm("8:16")) == "bitmap" and best_encoding(parse_nm("1:16")) == "index"
    assert best_encoding(parse_nm("4:16")) == "index"  # as many bits as a bitmap
    assert bits_per_weight(parse_nm("2:4"), "dense") == bits_per_weight(DENSE, "index") == 8
    assert bits_per_weight(parse_nm("2:4"), "limit") == 4 + math.log2(6) / 4
