"""The reference of the softmax: its tables to the last digit; rows against docs/numerics.md, element by element."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from sta_hw.reference.softmax import SoftmaxRows, fraction_table, reciprocal_table, softmax_row


def test_tables() -> None:
    """The nearest whole numbers, without floating point."""
    for f, value in enumerate(fraction_table().tolist()):
        assert (2 * value - 1) ** 64 < 2 ** (64 * 16 + f) < (2 * value + 1) ** 64
    assert len(fraction_table()) == 64
    assert reciprocal_table().tolist() == [floor(Fraction(2**27, 2049 + 2 * i) + Fraction(1, 2)) for i in range(1024)]


def step_by_step(
    logits: list[int], mask: list[bool], block: int, wide: bool, gain: int, coarse: int | None
) -> tuple[list[int], list[int], list[int], int, int, int]:
    """Probabilities, exponents, growths, and of the row sum, multiplier and s."""
    table = fraction_table().tolist()
    exponent = -512 if coarse is None else -4096
    carry, total = Fraction(1, 2), 0
    probabilities: list[int] = []
    exponents, growths = [], []
    for start in range(0, len(logits), block):
        part = [(v * (8 if coarse else 1), m) for v, m in zip(logits, mask, strict=True)][start : start + block]
        before = exponent
        exponent = max([exponent, *(v // 64 + 1 for v, m in part if m)])
        kept = 0
        for value, unmasked in part:
            fine = 0
            if unmasked:
                fine = table[value % 64] * 256 // 2 ** min(exponent - 1 - value // 64, 31)
            unit = 2**8 if wide else 2**16
            carry += Fraction(fine % unit, unit)
            probabilities.append(fine // unit + floor(carry))
            carry -= floor(carry)
            kept += probabilities[-1] * (1 if wide else 256)
        total = total // 2 ** (exponent - before) + kept
        exponents.append(exponent)
        growths.append(exponent - before if start else 0)
    if not total:
        return probabilities, exponents, growths, 0, 0, 0
    highest = total.bit_length() - 1
    mantissa = floor(Fraction(2**27, 2049 + 2 * (total * 1024 // 2**highest - 1024)) + Fraction(1, 2))
    places = highest + (16 if wide else 8) - gain
    s = min((places - 12) // 4, 7)
    return probabilities, exponents, growths, total, floor(
        Fraction(mantissa, 2 ** (places - 12 - 4 * s)) + Fraction(1, 2)
    ), s  # fmt: skip


@pytest.mark.parametrize("coarse", [None, 0, 1])
@pytest.mark.parametrize("wide", [False, True])
def test_rows_step_by_step(wide: bool, coarse: int | None) -> None:
    rng = np.random.default_rng(1)
    for number in range(60):
        length, block, gain = int(rng.integers(1, 80)), int(rng.integers(1, 40)), int(rng.integers(8))
        logits = rng.integers(-32768, 32768, length) >> rng.integers(0, 14)
        if number % 3 == 0:
            logits.sort()  # exponents grow
        mask = np.ones(length, bool) if number % 4 == 0 else rng.random(length) < rng.choice([0.0, 0.1, 0.5, 0.9])
        given = None if mask.all() else mask
        found = softmax_row(logits, given, block=block, wide=wide, gain=gain, coarse=coarse)
        wanted = step_by_step(logits.tolist(), mask.tolist(), block, wide, gain, coarse)
        probabilities, exponents, _, total, multiplier, s = wanted
        assert found.probabilities.tolist() == probabilities
        assert found.exponents.tolist() == np.repeat(exponents, block)[:length].tolist()
        assert (found.exponent, found.sum, found.multiplier, found.shift) == (exponents[-1], total, multiplier, s)


@pytest.mark.parametrize("wide", [False, True])
def test_rows_side_by_side(wide: bool) -> None:
    """Each with its own mask, its own kind of logits and its own gain; a block that is masked in some of them."""
    rng = np.random.default_rng(2)
    logits = np.sort(rng.integers(-3000, 3000, (4, 48)), axis=1)
    masks = rng.random((4, 48)) < 0.7
    masks[1, 16:32] = masks[2, :16] = masks[3] = False
    coarse, gains = [0, 1, 1, 0], [0, 3, 7, 2]
    rows = SoftmaxRows(4, wide=wide, coarse=coarse)
    wanted = [step_by_step(*map(list, (logits[r].tolist(), masks[r].tolist())), 16, wide, gains[r], coarse[r])
              for r in range(4)]  # fmt: skip
    # Exponents begin at -4,096 for all where some may be coarse.
    for number in range(3):
        part = slice(16 * number, 16 * number + 16)
        found = rows.block(logits[:, part], masks[:, part])
        for r, (probabilities, exponents, growths, *_) in enumerate(wanted):
            assert found[r].tolist() == probabilities[part]
            assert (rows.exponent[r], rows.growth[r]) == (exponents[number], growths[number])
    assert rows.total.tolist() == [w[3] for w in wanted]
    multipliers, shifts = rows.reciprocals(gains)
    assert multipliers.tolist() == [w[4] for w in wanted]
    assert shifts.tolist() == [w[5] for w in wanted]


def test_a_row_by_hand() -> None:
    """1, 1 and 1/2 of 2^0: their shares are 2/5, 2/5 and 1/5."""
    found = softmax_row([0, 0, -64], block=4, wide=True)
    assert found.probabilities.tolist() == [32768, 32768, 16384]
    assert (found.exponent, found.sum) == (1, 81920)
    # 81,920 is 1.25 * 2^16: entry 256 of the reciprocals, 52,408; 16 + 16 places are 12 + 20, and s is 5.
    assert (found.multiplier, found.shift) == (52408, 5)
    assert softmax_row([0, 64], block=1, wide=False).probabilities.tolist() == [128, 128]
    assert softmax_row([0, 64], block=1, wide=False).exponents.tolist() == [1, 2]
    assert softmax_row([0, 64], block=1, wide=False).sum == (128 // 2 + 128) * 256
    nothing = softmax_row([5, 6], [False, False], block=2, wide=False)
    assert (nothing.exponent, nothing.sum, nothing.multiplier, nothing.shift) == (-512, 0, 0, 0)
    assert not nothing.probabilities.any()


def test_the_largest_shift() -> None:
    """8,192 times a half are 2^28 with 16 fraction bits: s would be 8, and is 7, with four places left to shift."""
    found = softmax_row(np.zeros(8192, int), block=1024, wide=True)
    assert (found.sum, found.multiplier, found.shift) == (1 << 28, 65504 // 16, 7)
