"""Reference of the requantizer (rtl/engine/requantizer.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["quantize_factor", "requantize"]

BASE_SHIFT = 12
SHIFT_STEP = 4


def requantize(
    sums: ArrayLike, bias: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, *, wide: bool
) -> NDArray[np.int16]:
    """``floor(((sums + bias) * multiplier) / 2**(12 + 4 * shift) + 1/2)``, saturated symmetrically.

    Parameters
    ----------
    sums, bias : int32 arrays that broadcast
    multiplier : 0 to 65535
    shift : 0 to 7
    wide : bool
        Saturate to -32767..32767 instead of -127..127.

    Returns
    -------
    int16 array
    """
    total = np.asarray(sums, np.int64) + np.asarray(bias, np.int64)
    scaled = total * np.asarray(multiplier, np.int64)
    places = BASE_SHIFT + SHIFT_STEP * np.asarray(shift, np.int64)
    rounded = (scaled + (np.int64(1) << (places - 1))) >> places
    limit = 32767 if wide else 127
    return np.clip(rounded, -limit, limit).astype(np.int16)


def quantize_factor(factor: ArrayLike) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Real factors as (multiplier, shift) with ``factor ~ multiplier / 2**(12 + 4 * shift)``.

    The largest shift whose multiplier fits 16 bits is taken, so the multiplier has 12 to 16
    significant bits for factors from 2**-28 to 16.

    Raises
    ------
    ValueError
        If a factor is negative, not finite, or 16 or more.
    """
    factor = np.asarray(factor, np.float64)
    if not np.isfinite(factor).all() or (factor < 0).any() or (np.round(factor * 2**BASE_SHIFT) > 65535).any():
        raise ValueError(f"requantization factors lie in [0, 16), not {factor.min()} to {factor.max()}")
    shift = np.zeros(factor.shape, np.int64)
    for candidate in range(1, 8):
        fits = np.round(factor * 2.0 ** (BASE_SHIFT + SHIFT_STEP * candidate)) <= 65535
        shift = np.where(fits, candidate, shift)
    multiplier = np.round(factor * 2.0 ** (BASE_SHIFT + SHIFT_STEP * shift))
    return multiplier.astype(np.uint16), shift.astype(np.uint8)
