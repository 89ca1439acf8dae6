"""The reference of the requantizer, by hand and against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from sta_hw.reference.requantizer import quantize_factor, requantize


@pytest.mark.parametrize(
    ("total", "bias", "multiplier", "shift", "wide", "result"),
    [
        (1, 0, 2048, 0, False, 1),  # a half goes up
        (-1, 0, 2048, 0, False, 0),
        (1, 0, 2047, 0, False, 0),
        (-1, 0, 2049, 0, False, -1),
        (3, 4, 4096, 0, False, 7),
        (3, -4, 4096, 0, False, -1),
        (16, 0, 4096, 1, False, 1),
        (7, 0, 4096, 1, False, 0),
        (127, 0, 4096, 0, False, 127),
        (128, 0, 4096, 0, False, 127),
        (-128, 0, 4096, 0, False, -127),
        (128, 0, 4096, 0, True, 128),
        (32767, 1, 4096, 0, True, 32767),
        (-32767, -1, 4096, 0, True, -32767),
        (2**31 - 1, 2**31 - 1, 65535, 7, True, 256),
    ],
)
def test_by_hand(total: int, bias: int, multiplier: int, shift: int, wide: bool, result: int) -> None:
    assert requantize(total, bias, multiplier, shift, wide=wide) == result


def test_against_fractions() -> None:
    """Columns of one shift and multiplier each."""
    rng = np.random.default_rng(0)
    shift, multiplier = np.repeat(np.arange(8), 8), rng.integers(0, 65536, 64)
    bias, sums = rng.integers(-(2**31), 2**31, 64), rng.integers(-(2**31), 2**31, (64, 64)) >> rng.integers(0, 28, 64)
    for wide, most in ((False, 127), (True, 32767)):
        found = requantize(sums, bias, multiplier, shift, wide=wide)
        assert found.dtype == np.int16
        for row, totals in zip(found, sums, strict=True):
            exact = [
                floor(Fraction((int(t) + int(b)) * int(m), 2 ** (12 + 4 * int(s))) + Fraction(1, 2))
                for t, b, m, s in zip(totals, bias, multiplier, shift, strict=True)
            ]
            assert row.tolist() == [max(-most, min(most, e)) for e in exact]


@pytest.mark.parametrize(
    ("factor", "multiplier", "shift"),
    [
        (1.0, 4096, 0),
        (0.5, 32768, 1),
        (65535 / 65536, 65535, 1),
        (65535.5 / 65536, 4096, 0),  # 65,536 would be the nearest, and is no number of 16 bits
        (65535.4 / 4096, 65535, 0),
        (2.0**-4, 4096, 1),
        (2.0**-28, 4096, 7),
        (65535 / 2**40, 65535, 7),
        (2.0**-41, 0, 7),
        (0.0, 0, 7),
    ],
)
def test_factors_by_hand(factor: float, multiplier: int, shift: int) -> None:
    """The largest shift whose multiplier has 16 bits."""
    found = quantize_factor([factor])
    assert (found[0].tolist(), found[1].tolist()) == ([multiplier], [shift])
    assert found[0].dtype == np.uint16 and found[1].dtype == np.uint8


@pytest.mark.parametrize("factor", [-1e-9, 65535.5 / 4096, 16.0, np.nan, np.inf, -np.inf])
def test_factors_that_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"requantization factors lie in \[0, 16\)"):
        quantize_factor([0.5, factor])
