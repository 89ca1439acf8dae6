"""Scales of integer tensors from the values that calibration saw.

All arithmetic is in float64: squares of weights of 1e-30 or 1e30 are beyond fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..reference.requantizer import BASE_SHIFT, quantize_factor
from ..reference.softmax import COARSE_BITS, FRACTION_BITS

__all__ = [
    "LARGEST_BIAS",
    "LARGEST_FACTOR", "MARGIN", "SCALES", "HeadScales", "channel_factors", "factors", "head_scales",
    "least_squares_scale", "linear_steps", "score_factor", "score_limit", "wide_scale",
]  # fmt: skip

Scale = Callable[[NDArray], float]
Floats = NDArray[np.float64]

MARGIN = 1.5
"""16-bit scales cover this times the largest calibration value: texts beyond the calibration saturate later."""
LARGEST_FACTOR = 65535 / 2**BASE_SHIFT
"""Of a requantization: multiplier and shift hold nothing larger."""
LARGEST_BIAS = 2**30
"""Of an integer bias: half of what 32 bits hold, so that a fine-tuned one still fits."""
_ORDINARY = 8.0
"""Channels and heads whose ranges are within this ratio of the median share a scale."""
_NOTHING = 2.0**-100
"""Scale of a tensor that was zero wherever calibration looked: whatever else it may hold counts as saturated."""


def least_squares_scale(values: NDArray) -> float:
    """The scale whose 8-bit grid represents `values` with the least squared error."""
    values = values.reshape(-1).astype(np.float64)
    largest = float(np.abs(values).max(initial=0))
    if not largest:
        return _NOTHING
    if len(values) > 60_000:
        values = values[:: len(values) // 60_000 + 1]
    values = values / largest

    def error(scale: float) -> float:
        return float(((np.clip(np.round(values / scale), -127, 127) * scale - values) ** 2).sum())

    return min(np.linspace(0.3, 1.0, 36) / 127, key=error) * largest


def percentile_scale(values: NDArray) -> float:
    """The scale that covers all but one in ten thousand of the values' magnitudes."""
    magnitudes = np.abs(values.astype(np.float64))
    return float(np.quantile(magnitudes, 0.9999) or magnitudes.max(initial=0)) / 127 or _NOTHING


SCALES: dict[str, Scale] = {"squared-error": least_squares_scale, "percentile": percentile_scale}
"""How the scale of an 8-bit tensor follows from its calibration values."""


def wide_scale(values: NDArray, gamma: NDArray | None = None, beta: NDArray | None = None) -> float:
    """The scale of a 16-bit tensor; a LayerNorm's own scales must also fit 18 bits, and its shifts 16."""
    scale = MARGIN * float(np.abs(values).max(initial=0)) / 32767
    if gamma is not None:
        scale = max(scale, float(np.abs(gamma).max()) * 2 * 16 / 131071)
    if beta is not None:
        scale = max(scale, float(np.abs(beta).max()) / 32767)
    return scale or _NOTHING


def channel_factors(values: NDArray, weights: Sequence[NDArray], alpha: float) -> Floats:
    """What to divide each channel of `values` (tokens, channels) by before one scale serves all (SmoothQuant).

    The weights of the products that take it, each (columns, channels), are multiplied by as much. Channels that no
    weight looks at do not count.
    """
    largest = np.abs(values).max(0).astype(np.float64)
    rows = np.abs(np.concatenate(weights).astype(np.float64))
    # Each row has a scale of its own: a few loud rows must not decide for those that are not.
    loudest = rows.max(1)
    odd = (loudest > 0) & ~_ordinary(loudest, loudest > 0)
    if odd.any():
        rows[odd] *= (np.median(loudest[loudest > 0]) / loudest[odd])[:, None]
    by_weights = rows.max(0)
    used = by_weights > 0
    if not largest[used].any():
        return np.ones(values.shape[1])
    largest = np.where(used, largest, 0)
    largest = np.maximum(largest, 1e-3 * largest.max())
    by_weights = np.maximum(by_weights, 1e-5 * by_weights.max())
    factors = largest**alpha / by_weights ** (1 - alpha)
    # Channels without a reader must not be what the one scale is made for.
    factors[~used] = np.maximum(factors[~used], np.abs(values).max(0)[~used] / (largest / factors)[used].max())
    return factors / np.exp(np.log(factors[used]).mean())


def linear_steps(absorbed: Floats, bias: Floats, output_scale: Floats) -> Floats:
    """What one unit of each column's sums means, shape (columns,).

    The largest weight becomes 127; a bias that would not fit beside it makes the unit larger, and a column without
    weights, whose result is its bias, takes a fraction of the result's scale.
    """
    steps = np.abs(absorbed).max(1) / 127
    steps = np.where(steps == 0, output_scale / 256, steps)
    return np.maximum(steps, np.abs(bias) / LARGEST_BIAS)


@dataclass(frozen=True)
class HeadScales:
    """Scales of attention's 8-bit tensors.

    Attributes
    ----------
    query, key, value : float64 arrays, shape (hidden,)
        The products of a channel's `query` and `key` are the same for all of a head.
    gain : int64 array, shape (heads,)
        The context's scale is the value's over ``2**gain``.
    products : float64 array, shape (heads,)
        What one unit of a head's scores means before its square root.
    """

    query: Floats
    key: Floats
    value: Floats
    gain: NDArray[np.int64]
    products: Floats


def head_scales(
    query: NDArray, key: NDArray, value: NDArray, context: NDArray, least: Sequence[Floats], heads: int, scale: Scale
) -> HeadScales:
    """Scales of queries, keys, values and contexts, all (tokens, hidden), keys without what they have in common.

    `least` are the smallest scales of queries, keys and values that their products can have, each of shape (hidden,).
    """
    size = query.shape[1] // heads

    def by_head(values: Floats) -> Floats:
        return values.reshape(heads, size).max(1)

    largest = [np.maximum(np.abs(v).max(0), 127 * f) for v, f in zip((query, key), least, strict=False)]
    # A channel that is zero on either side adds nothing to any score, and must not widen the other side's range.
    both = (largest[0] > 0) & (largest[1] > 0)
    ratio = np.sqrt(np.divide(largest[0], largest[1], out=np.ones(len(both)), where=both))
    middle = float(np.median(ratio[both])) if both.any() else 1.0
    ratio = np.where(_ordinary(ratio, both), middle, ratio) / middle
    sides = []
    for values, floor in ((query / ratio, least[0] / ratio), (key * ratio, least[1] * ratio)):
        values = np.where(both, values, 0)
        each = by_head(np.abs(values).max(0))
        shared = _ordinary(each, each > 0)
        own = np.array([scale(values[:, h * size : (h + 1) * size]) for h in range(heads)])
        own[shared] = scale(values[:, np.repeat(shared, size)]) if shared.any() else _NOTHING
        sides.append(np.maximum(own, by_head(floor)))
    each_value = np.maximum([scale(v) for v in value.T], least[2])
    each_context = np.array([scale(c) for c in context.T])
    shared = _ordinary(each_value, each_value > _NOTHING)
    gain = 0
    if shared.any():
        value_scale = scale(value[:, shared])
        gain = _least_gain(context[:, shared], value_scale)
        each_value[shared] = np.maximum(value_scale, least[2][shared])
    own_value = np.maximum(each_value, each_context * 2.0**gain)
    return HeadScales(
        np.repeat(sides[0], size) * ratio, np.repeat(sides[1], size) / ratio,
        np.where(shared, each_value, own_value), np.full(heads, gain, np.int64), sides[0] * sides[1],
    )  # fmt: skip


def _least_gain(context: NDArray, value_scale: float) -> int:
    """The gain that stores `context` with the least squared error; of equal ones the smallest.

    Scales of contexts are powers of two apart: the nearest one to the best may cut off a third of the range.
    """
    values = context.reshape(-1).astype(np.float64) / value_scale
    errors = [
        float(((np.clip(np.round(values * 2**gain), -127, 127) / 2**gain - values) ** 2).sum()) for gain in range(8)
    ]
    return int(np.argmin(errors))


def _ordinary(values: NDArray, counted: NDArray) -> NDArray[np.bool_]:
    """Which of the counted values lie so near to their median that one scale serves them all."""
    if not counted.any():
        return counted
    middle = np.median(values[counted])
    return counted & (values <= _ORDINARY * middle) & (values >= middle / _ORDINARY)


def score_limit(coarse: int) -> float:
    """The largest score that 16 bits hold, in natural units."""
    return 32767 / 2 ** (FRACTION_BITS - COARSE_BITS * coarse) * math.log(2)


def score_factor(product: float, size: int, largest: float) -> tuple[float, int]:
    """From a unit of a head's products to one of its scores, and whether they are coarse.

    Parameters
    ----------
    product : float
        What one unit of the products means.
    size : int
        Channels of the head.
    largest : float
        The largest score that calibration saw, in natural units.
    """
    fine = product / math.sqrt(size) * math.log2(math.e) * 2**FRACTION_BITS
    if MARGIN * largest <= score_limit(0) and fine <= LARGEST_FACTOR:
        return fine, 0
    coarse = fine / 2**COARSE_BITS
    # Beyond the coarse range scores shrink to fit: keys closer than a thousandth of it, less than what eight bits
    # resolve of queries and keys, share what the nearest would take alone. A factor that does not fit shrinks too.
    flatter = MARGIN * largest / score_limit(1)
    if flatter > 1:
        coarse /= flatter
        if LARGEST_FACTOR < coarse <= 8 * LARGEST_FACTOR:
            coarse = LARGEST_FACTOR
    return coarse, 1


def factors(real: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Multipliers and shifts of requantizations; `real` must not exceed `LARGEST_FACTOR`."""
    multiplier, shift = quantize_factor(np.minimum(real, LARGEST_FACTOR))
    return multiplier.astype(np.int64), shift.astype(np.int64)
