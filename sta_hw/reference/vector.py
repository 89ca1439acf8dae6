"""Reference of activation and residual addition (rtl/units/result_arithmetic.py), and of norms (rtl/units/norm.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["activate", "add_residual", "digits", "gated", "inverse_root_table", "layer_norm", "rotated"]


def _scaled(value: NDArray[np.int64], multiplier: ArrayLike) -> NDArray[np.int64]:
    """``value * multiplier / 2**16``, rounded half up."""
    return (value * np.asarray(multiplier, np.int64) + (1 << 15)) >> 16


def activate(
    results: ArrayLike, table: ArrayLike, multiplier: ArrayLike, *, wide: bool = False
) -> NDArray[np.int16] | NDArray[np.int8]:
    """Table, then requantization to 8 bits, or to 16 if `wide`.

    Parameters
    ----------
    results : int8 values
    table : int16, shape (256,), entry i for the result whose low 8 bits are i
    multiplier : 0 to 65535; broadcasts
    """
    found = np.asarray(table, np.int64)[np.asarray(results, np.int64) & 255]
    scaled = _scaled(found, multiplier)
    return np.clip(scaled, -32767, 32767).astype(np.int16) if wide else np.clip(scaled, -127, 127).astype(np.int8)


def digits(values: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """High and low digit of 15-bit activations, which lie in memory in 16 bits.

    Parameters
    ----------
    values : int16
        Modulo 2**15: the highest bit is not looked at.

    Returns
    -------
    h and l, the value being ``128 h + l``: -128 to 127, and 0 to 127
    """
    value = ((np.asarray(values, np.int64) & 0x7FFF) ^ 0x4000) - 0x4000
    return value >> 7, value & 127


def add_residual(results: ArrayLike, residual: ArrayLike, multiplier: ArrayLike) -> NDArray[np.int16]:
    """``results + residual * multiplier / 2**16``, saturated to 16 bits.

    Parameters
    ----------
    results, residual : int16 values
    multiplier : 0 to 65535; broadcasts
    """
    total = np.asarray(results, np.int64) + _scaled(np.asarray(residual, np.int64), multiplier)
    return np.clip(total, -32767, 32767).astype(np.int16)


def gated(
    gate: ArrayLike, up: ArrayLike, table: ArrayLike, multiplier: ArrayLike, *, wide: bool
) -> NDArray[np.int16] | NDArray[np.int8]:
    """The table's value for one result times another result.

    Parameters
    ----------
    gate, up : int16 values
    table : int16, shape (256,), entry i for the gate whose low 8 bits are i
        Gates beyond 8 bits count as -127 or 127.
    multiplier : 0 to 65535; broadcasts
        Of the table's value.
    wide : bool
        16 bits instead of 8.
    """
    found = np.asarray(table, np.int64)[np.clip(np.asarray(gate, np.int64), -127, 127) & 255]
    product = _scaled(np.asarray(up, np.int64), _scaled(found, multiplier))
    return np.clip(product, -32767, 32767).astype(np.int16) if wide else np.clip(product, -127, 127).astype(np.int8)


def rotated(
    x: ArrayLike, y: ArrayLike, cosine: ArrayLike, sine: ArrayLike
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Two results turned by an angle, and 6 fraction bits less.

    Parameters
    ----------
    x, y : int16 values
    cosine, sine : int16 values
        14 fraction bits.
    """
    x, y, cosine, sine = (np.asarray(v, np.int64) for v in (x, y, cosine, sine))
    turned = (x * cosine - y * sine, x * sine + y * cosine)
    first, second = (np.clip((v + (1 << 19)) >> 20, -127, 127).astype(np.int8) for v in turned)
    return first, second


def inverse_root_table() -> NDArray[np.int64]:
    """``2**16 / sqrt(v)`` in the middle of 512 steps of v in [1, 2) and as many in [2, 4)."""
    middle = 1 + (np.arange(512) + 0.5) / 512
    return np.round(2.0**16 / np.sqrt(np.concatenate([middle, 2 * middle]))).astype(np.int64)


def layer_norm(
    x: ArrayLike,
    scale: ArrayLike,
    shift: ArrayLike,
    multiplier: ArrayLike,
    inverse: int,
    *,
    rms: bool = False,
    epsilon: int = 0,
    short: bool = False,
) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """LayerNorm, or RMSNorm, over the last axis.

    Parameters
    ----------
    x : int16, shape (rows, columns)
    scale : 18 bits signed, shape (columns,); 2**(floor(log2 columns) - 16) * columns is folded into it
    shift : int16, shape (columns,)
    multiplier : 0 to 65535, shape (columns,)
        Of the 8-bit results.
    inverse : int
        ``round(2**33 / columns)``; of no use to RMSNorm.
    rms : bool
        RMSNorm: the mean counts as zero.
    epsilon : int
        28 bits unsigned; 2**14 times it is added to the variance in units of columns squared.
    short : bool
        The 16-bit results saturate to 15 bits, and the 8-bit ones are made of them.

    Returns
    -------
    int16 and int8 arrays of x's shape
    """
    x = np.asarray(x, np.int64)
    columns = x.shape[1]
    total = np.zeros(len(x), np.int64) if rms else x.sum(1)
    variance = columns * (x * x).sum(1) - total * total + epsilon * 16384  # (columns * deviation)**2
    mean = np.sign(total) * ((np.abs(total) * inverse + (1 << 31)) >> 32)  # in halves
    found = np.zeros(len(x), np.int64)
    places = np.zeros(len(x), np.int64)
    table = inverse_root_table()
    for row, value in enumerate(variance.tolist()):
        exponent = max(value.bit_length() - 1, 0)
        places[row] = max(0, (exponent >> 1) + 5 - (columns.bit_length() - 1))
        if value:
            fraction = (value << 9 >> exponent) - 512
            found[row] = table[512 * (exponent & 1) + fraction]
    product = (2 * x - mean[:, None]) * found[:, None]
    limit = (1 << 17) - 1
    normal = np.clip((((product << 1) >> places[:, None]) + 1) >> 1, -limit, limit)
    most = 16383 if short else 32767
    wide = np.clip(_scaled(normal, scale) + np.asarray(shift, np.int64), -most, most)
    narrow = np.clip(_scaled(wide, multiplier), -127, 127)
    return wide.astype(np.int16), narrow.astype(np.int8)
