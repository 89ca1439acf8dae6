"""Reference of the matrix engine: sums of a product, and its requantized results."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["matrix_sums", "sums_per_entry"]


def matrix_sums(activations: ArrayLike, weights: ArrayLike) -> NDArray[np.int32]:
    """``weights @ activations.T``, wrapped to 32 bits as the accumulators do.

    Parameters
    ----------
    activations : int, shape (rows, reduction)
        INT8, unsigned 8-bit or unsigned 16-bit values.
    weights : int8, shape (columns, reduction)

    Returns
    -------
    int32 array, shape (columns, rows)
    """
    # float64 holds these sums exactly (below 2**53) and multiplies far faster than int64.
    a = np.asarray(activations).astype(np.float64)
    w = np.asarray(weights).astype(np.float64)
    return (w @ a.T).astype(np.int64).astype(np.int32)


def sums_per_entry(activations: ArrayLike, weights: ArrayLike, rows: int, taps: int) -> NDArray[np.int32]:
    """The sums of a product with taps: result column e uses the activations of tap ``e % taps``.

    Parameters
    ----------
    activations : int, shape (taps * rows, reduction)
    weights : int8, shape (columns, reduction)

    Returns
    -------
    int32 array, shape (columns, rows)
    """
    a = np.asarray(activations).reshape(taps, rows, -1)
    w = np.asarray(weights)
    sums = np.zeros((len(w), rows), np.int32)
    for tap in range(taps):
        sums[tap::taps] = matrix_sums(a[tap], w[tap::taps])
    return sums
