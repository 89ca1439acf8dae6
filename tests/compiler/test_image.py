"""Laying out an image, by hand: where pieces begin, and how parameters and positions are packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sta_hw.compiler.image import Image, norm_words, parameter_words, position_words
from sta_hw.compiler.parameters import NormParameters
from sta_hw.formats.nm import encode
from sta_hw.spec.parameters import SHORT_COLUMN
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
"""A burst is 16 words of 4 bytes: 64 bytes."""


@pytest.mark.parametrize(("burst", "align"), [(16, 64), (8, 64), (32, 128)])
def test_pieces_begin_where_bursts_do(burst: int, align: int) -> None:
    """64 bytes at least, whatever a burst has."""
    image = Image(replace(CONFIG, burst=burst))
    assert [image.reserve(count) for count in (1, align, align + 1, 0, 5)] == [
        0,
        align,
        2 * align,
        4 * align,
        4 * align,
    ]
    assert image.size == 5 * align


def test_what_lies_where() -> None:
    image = Image(CONFIG)
    assert image.add(np.array([1, 2, 3], np.uint8), name="three") == 0
    assert image.reserve(65, "zeros") == 64
    assert image.add(np.array([[-2, 258]], np.int16), count=70, name="wide") == 192
    assert image.add(np.array([7], np.int32), count=1) == image.add(np.zeros(0), name="none") - 64 == 320
    assert image.places == [("three", 0, 3), ("zeros", 64, 65), ("wide", 192, 70), ("", 320, 4), ("none", 384, 0)]
    expected = np.zeros(384, np.uint8)
    expected[:3], expected[192:196], expected[320] = (1, 2, 3), (254, 255, 2, 1), 7
    np.testing.assert_array_equal(image.finish(), expected)


def test_parameters_of_columns() -> None:
    """16 bytes a column: bias, multiplier, shift, second multiplier; 8 in a short record."""
    columns = [np.array(v) for v in ([-2, 1 << 22], [65535, 3], [7, 1], [258, 0])]
    words = parameter_words(*columns)
    assert words.shape == (2, 16) and words.dtype == np.uint8
    assert words[0].tolist() == [254, 255, 255, 255, 255, 255, 7, 0, 2, 1, 0, 0, 0, 0, 0, 0]
    assert words[1].tolist() == [0, 0, 64, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    short = parameter_words(*columns, SHORT_COLUMN)
    assert short.tolist() == [[254, 255, 255, 255, 255, 7, 2, 1], [0, 0, 64, 3, 0, 1, 0, 0]]


def test_parameters_of_norms() -> None:
    norm = NormParameters(np.array([-1, 5]), np.array([-32768, 2]), np.array([65535, 1]))
    words = norm_words(norm)
    assert words.dtype == np.uint64
    assert [int(w) for w in words] == [0x3FFFF | 0x8000 << 18 | 0xFFFF << 34, 5 | 2 << 18 | 1 << 34]


def test_positions() -> None:
    """A bit for each place of a window, group by group, the lowest place and the first group lowest."""
    some = encode(np.eye(1, 32, dtype=np.int8), Pattern(8, 16), groups=2, window=16, depth=16, encoding="bitmap")
    words = position_words(replace(some, positions=np.array([[0x8009, 0x0001], [0, 0x1234]], some.positions.dtype)))
    assert words.tolist() == [[0x09, 0x80, 0x01, 0x00], [0x00, 0x00, 0x34, 0x12]]
