"""Reference of the largest results of each row (rtl/units/best.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BestRows"]

_KEPT = 8
_NUMBERS = 1 << 18


class BestRows:
    """The 8 largest results of each row so far, the largest first; of equal ones those that came earlier.

    Parameters
    ----------
    rows : int

    Attributes
    ----------
    results : int64 array, shape (rows, 8)
        -32,768 where there is none.
    numbers : int64 array, shape (rows, 8)
        2**18 - 1 where there is none.
    """

    def __init__(self, rows: int) -> None:
        self.results = np.full((rows, _KEPT), -32768, np.int64)
        self.numbers = np.full((rows, _KEPT), _NUMBERS - 1, np.int64)

    def add(self, results: NDArray[np.int16], number: int) -> None:
        """Results of shape (columns, rows), whose first column has that number."""
        columns, rows = results.shape
        new = np.broadcast_to((number + np.arange(columns)) % _NUMBERS, (rows, columns))
        both = np.concatenate([self.results, results.T.astype(np.int64)], axis=1)
        numbers = np.concatenate([self.numbers, new], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :_KEPT]
        self.results = np.take_along_axis(both, order, 1)
        self.numbers = np.take_along_axis(numbers, order, 1)

    def stored(self) -> NDArray[np.uint8]:
        """As they are stored: row after row, of each place number and result, 32 bits both."""
        both = np.stack([self.numbers, self.results], axis=-1)
        return np.ascontiguousarray(both.astype("<i4")).view(np.uint8).reshape(-1)
