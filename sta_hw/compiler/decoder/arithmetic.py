"""The arithmetic of a decoder's operations, vectorized over tokens; see docs/decoders.md for each step's widths.

All integers are exact: products of 8 bits are summed in float32, in parts whose sums stay below 2**24.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...reference.requantizer import requantize
from ...reference.softmax import SoftmaxRows
from ...reference.vector import inverse_root_table
from ..parameters import Ints, LinearParameters, NormParameters
from .integers import DIGIT, limit_of

__all__ = ["Weights", "attend", "cosines", "gate", "norm", "product", "requantize", "turn"]

_PART = (1 << 24) // (127 * 128)
"""Elements of a sum that float32 holds exactly, whatever they are."""
_NOTHING = -(1 << 20)
"""A score that is beyond all others: its probability is zero, and it raises no exponent."""


class Weights:
    """A product's weights, ready to be multiplied: shape (columns, reduction), in parts of the reduction."""

    def __init__(self, weights: NDArray[np.int8]) -> None:
        self.parts = [
            np.ascontiguousarray(weights[:, k : k + _PART], np.float32) for k in range(0, weights.shape[1], _PART)
        ]

    def sums(self, x: Ints, bits: int) -> Ints:
        """Exact sums of activations of 8 or 15 bits, shape (tokens, columns)."""
        if bits == 15:
            return DIGIT * self.sums(x // DIGIT, 8) + self.sums(x % DIGIT, 8)
        total: Ints | None = None
        for number, part in enumerate(self.parts):
            some = (x[:, number * _PART : (number + 1) * _PART].astype(np.float32) @ part.T).astype(np.int64)
            total = some if total is None else total + some
        assert total is not None
        return total


def product(x: Ints, weights: Weights, p: LinearParameters, bits: int, *, wide: bool) -> Ints:
    """Requantized results of a product, 16 bits if `wide`, else 8."""
    return requantize(weights.sums(x, bits), p.bias, p.multiplier, p.shift, wide=wide).astype(np.int64)


def norm(x: Ints, p: NormParameters, inverse: int, epsilon: int, bits: int, *, rms: bool) -> Ints:
    """LayerNorm or RMSNorm of 16-bit values over the last axis: results of 8 bits, or wide ones of 15."""
    columns = x.shape[-1]
    total = np.zeros(x.shape[:-1], np.int64) if rms else x.sum(-1)
    variance = columns * (x * x).sum(-1) - total * total + (epsilon << 14)
    mean = np.sign(total) * ((np.abs(total) * inverse + (1 << 31)) >> 32)  # in halves
    # The position of the highest bit; float64 holds the variance, of less than 2**62, rounded: so look again.
    exponent = np.maximum(np.frexp(variance.astype(np.float64))[1] - 1, 0).astype(np.int64)
    exponent -= (variance > 0) & (variance >> exponent == 0)
    fraction = np.where(exponent > 9, variance >> np.maximum(exponent - 9, 0), variance << np.maximum(9 - exponent, 0))
    found = np.where(variance > 0, inverse_root_table()[512 * (exponent & 1) + (fraction & 511)], 0)
    places = np.maximum(0, (exponent >> 1) + 5 - (columns.bit_length() - 1))[..., None]
    scaled = (2 * x - mean[..., None]) * found[..., None]
    limit = (1 << 17) - 1
    normal = np.clip((((scaled << 1) >> places) + 1) >> 1, -limit, limit)
    most = limit_of(15) if bits == 15 else 32767
    wide = np.clip(((normal * p.scale + (1 << 15)) >> 16) + p.shift, -most, most)
    return wide if bits == 15 else np.clip((wide * p.multiplier + (1 << 15)) >> 16, -127, 127)


def cosines(frequencies: NDArray[np.float32], first: int, count: int) -> tuple[Ints, Ints]:
    """Cosine and sine of each position's angles with 14 fraction bits, shapes (positions, pairs)."""
    angles = np.arange(first, first + count, dtype=np.float64)[:, None] * frequencies
    return np.round(np.cos(angles) * 2**14).astype(np.int64), np.round(np.sin(angles) * 2**14).astype(np.int64)


def turn(x: Ints, cosine: Ints, sine: Ints) -> Ints:
    """Pairs of 16-bit values turned, to 8 bits; `x` has shape (tokens, heads, width), pairs as in `fp32.rotate`."""
    low, high = np.split(x, 2, axis=-1)
    c, s = cosine[:, None], sine[:, None]
    both = np.concatenate([low * c - high * s, low * s + high * c], axis=-1)
    return np.clip((both + (1 << 19)) >> 20, -127, 127)


def gate(index: Ints, up: Ints, table: NDArray[np.int16], second: Ints, bits: int) -> Ints:
    """A gate's 16-bit results through the table, times what it lets through: 8 bits, or 15."""
    opened = (table.astype(np.int64)[np.clip(index, -127, 127) & 255] * second + (1 << 15)) >> 16
    return np.clip((opened * up + (1 << 15)) >> 16, -limit_of(bits), limit_of(bits))


def _blocks(keys: int, block: int, groups: int) -> Iterable[tuple[int, Ints]]:
    """Blocks of keys: the first key, and the others' places in the order that the softmax takes them."""
    number = np.arange(block)
    order = groups * (number % (block // groups)) + number // (block // groups)
    for first in range(0, keys, block):
        yield first, order


def attend(
    query: Ints, keys: NDArray[np.int8], values: NDArray[np.int8], scores: tuple[Ints, Ints, Ints, Ints], shared: int,
    block: int, groups: int, bits: int = 8,
) -> Ints:  # fmt: skip
    """Causal attention of the last tokens to all: contexts of 8 or 15 bits, shape (tokens, heads, width).

    Parameters
    ----------
    query : shape (tokens, heads, width)
    keys, values : int8, shape (all tokens, heads of keys, width)
    scores : multiplier, shift, coarse, gain of each head
    """
    multiplier, shift, coarse, gain = scores
    tokens, heads, width = query.shape
    count = len(keys)
    rows = heads * tokens
    q = query.transpose(1, 0, 2).reshape(heads // shared, shared * tokens, width).astype(np.float32)
    softmax = SoftmaxRows(rows, wide=False, coarse=np.repeat(coarse, tokens))
    sums = np.zeros((heads // shared, shared * tokens, width), np.int64)
    last = np.tile(np.arange(count - tokens, count), heads)[:, None]  # each row's own key
    exact: Any = np.float32 if block <= _PART // 2 else np.float64  # 255 x 127 for each key of a block
    for first, order in _blocks(count, block, groups):
        place = first + order
        there = place < count
        inside = np.minimum(place, count - 1)
        k, v = (a[inside].transpose(1, 0, 2).astype(exact) for a in (keys, values))
        products = (q @ k.transpose(0, 2, 1)).astype(np.int64).reshape(heads, tokens, block)
        logits = requantize(products, 0, multiplier[:, None, None], shift[:, None, None], wide=True).astype(np.int64)
        seen = (place <= last) & there
        # Rows without a key in the block take nothing from it.
        logits = np.where(seen, logits.reshape(rows, block), _NOTHING)
        probabilities = softmax.block(logits, np.ones(block, bool)).astype(exact)
        growth = np.minimum(softmax.growth, 31).reshape(heads // shared, -1, 1)
        sums = (sums >> growth) + (probabilities.reshape(heads // shared, -1, block) @ v).astype(np.int64)
    by_row = (a.reshape(heads // shared, -1, 1) for a in softmax.reciprocals(np.repeat(gain, tokens)))
    found = requantize(sums, 0, *by_row, wide=bits == 15).astype(np.int64).clip(-limit_of(bits), limit_of(bits))
    return found.reshape(heads, tokens, width).transpose(1, 0, 2)
