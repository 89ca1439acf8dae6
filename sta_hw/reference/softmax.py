"""Reference of the streaming softmax (rtl/units/softmax.py): base 2, integer, one pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "COARSE_BITS",
    "FRACTION_BITS",
    "NO_EXPONENT",
    "SoftmaxRow",
    "SoftmaxRows",
    "fraction_table",
    "reciprocal_table",
    "softmax_row",
]

FRACTION_BITS = 6
"""Logits are fixed point in base-2 units: a logit of 64 doubles the probability."""
COARSE_BITS = 3
"""Fraction bits that coarse logits lack: one of 8 doubles the probability."""
NO_EXPONENT = -512
"""Exponent of a row, or of its first blocks, without any unmasked element; times 8 where logits may be coarse."""


@cache
def fraction_table() -> NDArray[np.int64]:
    """``2**(f / 64)`` for f = 0..63, with 15 fraction bits."""
    return np.round(2.0 ** (np.arange(64) / 64) * 2**15).astype(np.int64)


@cache
def reciprocal_table() -> NDArray[np.int64]:
    """``2**16 / (1 + (i + 1/2) / 1024)`` for i = 0..1023."""
    return np.round(2.0**16 / (1 + (np.arange(1024) + 0.5) / 1024)).astype(np.int64)


@dataclass(frozen=True)
class SoftmaxRow:
    """One row of unnormalised probabilities.

    Attributes
    ----------
    probabilities : int64 array
        8 or 16 unsigned bits each, in units of ``2**(exponents - 8)`` or ``2**(exponents - 16)``.
    exponents : int64 array
        Of the block each element is in.
    exponent, sum : int
        Of the whole row; `sum` has 16 fraction bits in either width.
    multiplier, shift : int
        Requantization that divides a P x V sum by the row's sum and multiplies it by ``2**gain``.
    """

    probabilities: NDArray[np.int64]
    exponents: NDArray[np.int64]
    exponent: int
    sum: int
    multiplier: int
    shift: int


def softmax_row(
    logits: ArrayLike, mask: ArrayLike | None = None, *, block: int, wide: bool, gain: int = 0,
    coarse: int | None = None,
) -> SoftmaxRow:  # fmt: skip
    """The softmax of one row, as the hardware computes it.

    Parameters
    ----------
    logits : int16 values, 6 fraction bits, base-2 units
    mask : bool values
        False excludes an element: its probability is zero.
    block : int
        Elements that share an exponent: the running maximum at the block's end.
    wide : bool
        16-bit probabilities instead of 8.
    gain : int
        0 to 7; see `SoftmaxRow`.
    coarse : 0, 1 or None
        As `SoftmaxRows` takes it.
    """
    logits = np.asarray(logits, np.int64)
    keep = np.ones(len(logits), bool) if mask is None else np.asarray(mask, bool)
    rows = SoftmaxRows(1, wide=wide, coarse=coarse)
    probabilities = np.zeros(len(logits), np.int64)
    exponents = np.zeros(len(logits), np.int64)
    for start in range(0, len(logits), block):
        part = slice(start, start + block)
        probabilities[part] = rows.block(logits[None, part], keep[part])[0]
        exponents[part] = rows.exponent[0]
    multiplier, shift = rows.reciprocals(gain)
    return SoftmaxRow(
        probabilities, exponents, int(rows.exponent[0]), int(rows.total[0]), int(multiplier[0]), int(shift[0])
    )


class SoftmaxRows:
    """Several rows side by side, block after block.

    Parameters
    ----------
    rows : int
    wide : bool
        16-bit probabilities instead of 8.
    coarse : 0 or 1, an array of them, shape (rows,), or None
        1: the logits have 3 fraction bits instead of 6. None: they cannot have.

    Attributes
    ----------
    exponent, total : int64 arrays, shape (rows,)
        After the blocks so far; `total` has 16 fraction bits.
    growth : int64 array, shape (rows,)
        By how much the last block raised the exponents; 0 for the first.
    """

    def __init__(self, rows: int, *, wide: bool, coarse: ArrayLike | None = None) -> None:
        self.wide = wide
        flags = np.asarray(0 if coarse is None else coarse, np.int64)
        self._places = COARSE_BITS * np.broadcast_to(flags, (rows,))[:, None]
        self.exponent = np.full(rows, NO_EXPONENT << (0 if coarse is None else COARSE_BITS), np.int64)
        self.total = np.zeros(rows, np.int64)
        self.growth = np.zeros(rows, np.int64)
        self._carry = np.full(rows, 1 << 15, np.int64)
        self._fresh = True

    def block(self, logits: NDArray[np.int64], keep: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The next block's probabilities.

        Parameters
        ----------
        logits : int, shape (rows, elements)
        keep : bool, shape (elements,), or (rows, elements) where rows differ in it
        """
        logits = logits << self._places
        whole = logits // 64
        previous = self.exponent
        if keep.ndim == 2:
            self.exponent = np.maximum(previous, np.where(keep, whole + 1, previous[:, None]).max(1))
        elif keep.any():
            self.exponent = np.maximum(previous, whole[:, keep].max(1) + 1)
        # 24 fraction bits; a shift of 24 or more leaves nothing.
        places = np.clip(self.exponent[:, None] - 1 - whole, 0, 31)
        fine = np.where(keep, fraction_table()[logits % 64] << 8 >> places, 0)
        # Error diffusion: what rounding takes from one element, the next ones get.
        dropped = 8 if self.wide else 16
        running = self._carry[:, None] + np.cumsum((fine & ((1 << dropped) - 1)) << (16 - dropped), axis=1)
        probabilities = (fine >> dropped) + np.diff(running >> 16, prepend=0, axis=1)
        self._carry = running[:, -1] & 0xFFFF
        growth = self.exponent - previous
        self.total = (self.total >> np.minimum(growth, 63)) + probabilities.sum(1) * (1 if self.wide else 256)
        self.growth = np.zeros_like(growth) if self._fresh else growth
        self._fresh = False
        return probabilities

    def reciprocals(self, gain: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Multipliers and shifts that divide by the rows' totals, times ``2**gain``, of all rows or of each."""
        gains = np.broadcast_to(np.asarray(gain, np.int64), self.total.shape)
        found = np.array(
            [_reciprocal(int(t), self.wide, int(g)) for t, g in zip(self.total, gains, strict=True)], np.int64
        )
        return found[:, 0], found[:, 1]


def _reciprocal(total: int, wide: bool, gain: int) -> tuple[int, int]:
    """1 / total as a requantization: see docs/numerics.md."""
    if total == 0:
        return 0, 0
    power = total.bit_length() - 1
    index = (total << 10 >> power) - 1024
    mantissa = int(reciprocal_table()[index])
    places = power + (16 if wide else 8) - gain  # 1 / sum = mantissa / 2**places
    shift = min((places - 12) // 4, 7)
    extra = places - 12 - 4 * shift
    return ((mantissa << 1 >> extra) + 1) >> 1, shift
