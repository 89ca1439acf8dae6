"""Weights of 4 bits in blocks that share a scale and a minimum, on the INT8 grid of their column.

docs/format.md specifies arithmetic and layout. A weight is ``(code * scale + 8 * minimum) >> 7``, rounded down: the
scale has 7 fraction bits, the minimum 4 and a half for the rounding. Shapes: ``(columns, reduction)``, blocks along the
reduction dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_SIZES", "ZERO_MINIMUM", "BlockedWeights", "common_grid", "integer_grid", "on_column_grid"]

BLOCK_SIZES = (32, 64, 128)
LEVELS = 16
SCALE_FRACTION, MINIMUM_FRACTION = 7, 4
_LARGEST_SCALE = (1 << 12) - 1
_MINIMA = -(1 << 11), (1 << 11) - 1
ZERO_MINIMUM = 1 << (MINIMUM_FRACTION - 1)
"""With a scale of 0 this gives 0."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlockedWeights:
    """A matrix in 4 bits.

    Attributes
    ----------
    size : int
        Weights of a block.
    codes : uint8 array, shape (columns, reduction)
        0 to 15.
    scales, minima : int64 arrays, shape (columns, blocks)
        0 to 4,095 with 7 fraction bits; -2,048 to 2,047 with 4, half a step for the rounding among them.
    kept : bool array, shape (columns, reduction), or None
        Of a pruned matrix: those that are not pruned. None: all.
    """

    size: int
    codes: NDArray[np.uint8]
    scales: Ints
    minima: Ints
    kept: NDArray[np.bool_] | None = None

    @property
    def weights(self) -> NDArray[np.int8]:
        """What the hardware multiplies, pruned ones zero."""
        found = _expanded(self.codes, np.repeat(self.scales, self.size, 1), np.repeat(self.minima, self.size, 1))
        return found if self.kept is None else np.where(self.kept, found, 0).astype(np.int8)

    def columns(self, order: NDArray | slice) -> BlockedWeights:
        """Some of the columns, in an order."""
        kept = None if self.kept is None else self.kept[order]
        return BlockedWeights(self.size, self.codes[order], self.scales[order], self.minima[order], kept)

    def between(self, first: int, stop: int) -> BlockedWeights:
        """Weights `first` to `stop` - 1 of each column; in blocks of `size_between`."""
        found = self.of_size(math.gcd(self.size, first, stop))
        blocks = slice(first // found.size, stop // found.size)
        return replace(
            found, codes=found.codes[:, first:stop], scales=found.scales[:, blocks], minima=found.minima[:, blocks],
            kept=None if found.kept is None else found.kept[:, first:stop],
        ).of_size(self.size_between(first, stop))  # fmt: skip

    def size_between(self, first: int, stop: int) -> int:
        """Weights of a block between two places: fewer, where blocks are divided there, and more where all that follow
        one another have the same scale and minimum in every column.
        """
        size = math.gcd(self.size, first, stop)
        if size < self.size:
            return size
        blocks = slice(first // size, stop // size)
        headers = np.stack([self.scales[:, blocks], self.minima[:, blocks]])
        while headers.shape[-1] > 1 and headers.shape[-1] % 2 == 0 and (headers[..., ::2] == headers[..., 1::2]).all():
            size, headers = 2 * size, headers[..., ::2]
        return size

    @property
    def headers(self) -> int:
        """Blocks of a column; those that follow one another and have all the same scale and minimum are one."""
        changes = [(of[:, 1:] != of[:, :-1]).any(0) for of in (self.scales, self.minima)]
        return 1 + int((changes[0] | changes[1]).sum())

    def of_size(self, size: int) -> BlockedWeights:
        """The same weights in smaller blocks, each with the scale and minimum of the one that it is a part of; or in
        larger ones, where the blocks that become one have the same (`size_between`).
        """
        if size > self.size:
            first = slice(None, None, size // self.size)
            return replace(self, size=size, scales=self.scales[:, first], minima=self.minima[:, first])
        parts = self.size // size
        return replace(
            self, size=size, scales=np.repeat(self.scales, parts, 1), minima=np.repeat(self.minima, parts, 1)
        )


def _expanded(codes: NDArray, scales: NDArray, minima: NDArray) -> NDArray[np.int8]:
    return (
        (codes.astype(np.int64) * scales + (minima << (SCALE_FRACTION - MINIMUM_FRACTION))) >> SCALE_FRACTION
    ).astype(np.int8)


def common_grid(weights: NDArray, size: int) -> tuple[NDArray[np.uint8], Floats, Floats] | None:
    """The grid that each block's weights lie on, as files of 4 bits leave them when they are de-quantized.

    Whatever the file's format, so many weights with the same scale and minimum have at most 16 values, equally far
    apart; weights that were not quantized so have not.

    Returns
    -------
    codes, distances, lowest : arrays, or None
        Shapes (columns, reduction), (columns, blocks) and (columns, blocks): a weight is ``code * distance + lowest``.
        None if a block's weights lie on no such grid, or the blocks do not divide the reduction dimension.
    """
    columns, reduction = weights.shape
    if reduction % size:
        return None
    x = weights.astype(np.float64).reshape(-1, size)
    lowest = x.min(1)
    span = x.max(1) - lowest
    gaps = np.diff(np.sort(x, 1), axis=1)
    # Levels are no nearer to each other than a fifteenth of what they span; what is far less is rounding.
    gaps[gaps < span[:, None] / 100] = np.inf
    nearest = np.where(span > 0, gaps.min(1, initial=np.inf), 1.0)
    distance, codes = np.zeros(len(x)), np.zeros(x.shape, np.uint8)
    left = np.flatnonzero(span > 0)
    for parts in range(1, LEVELS):  # neighbours may be missing: the least gap is so many distances
        if not len(left):
            break
        levels = np.round(span[left] * parts / nearest[left])
        possible = (levels >= 1) & (levels < LEVELS)
        d = span[left] / np.maximum(levels, 1)
        place = (x[left] - lowest[left, None]) / d[:, None]
        fits = possible & (np.abs(place - np.round(place)) < 0.02).all(1)
        distance[left[fits]], codes[left[fits]] = d[fits], np.round(place[fits])
        left = left[~fits]
    if len(left):
        return None
    return codes.reshape(columns, reduction), distance.reshape(columns, -1), lowest.reshape(columns, -1)


def integer_grid(
    codes: NDArray[np.uint8], distances: Floats, lowest: Floats, size: int
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Scale and minimum of each block, for weights ``code * distance + lowest`` in units of the INT8 grid.

    Returns
    -------
    scales, minima : int64 arrays, shape (columns, blocks)
    exact : bool array of that shape
        Whether every weight of the block is the nearest integer. Where no scale does that, the nearest scale is taken.
    """
    v = codes.reshape(-1, size).astype(np.int64)
    d, low = distances.reshape(-1), lowest.reshape(-1)
    wanted = np.floor(v * d[:, None] + low[:, None] + 0.5).astype(np.int64)
    scales = np.clip(np.round(d * 2**SCALE_FRACTION), 0, _LARGEST_SCALE).astype(np.int64)
    minima = np.clip(np.round(low * 2**MINIMUM_FRACTION) + ZERO_MINIMUM, *_MINIMA).astype(np.int64)
    exact, left = np.zeros(len(d), bool), np.arange(len(d))
    for off in (0, 1, -1, 2, -2, 3, -3, 4, -4):
        s = np.clip(scales[left] + off, 0, _LARGEST_SCALE) if off else scales[left]
        product = v[left] * s[:, None]
        shift = SCALE_FRACTION - MINIMUM_FRACTION
        # Of all minima that round every weight as it should be, the one nearest to the block's own.
        least = -((product - (wanted[left] << SCALE_FRACTION)).min(1) >> shift)
        most = (((wanted[left] + 1) << SCALE_FRACTION) - 1 - product).min(1) >> shift
        fits = (least <= most) & (least <= _MINIMA[1]) & (most >= _MINIMA[0])
        chosen = np.clip(np.clip(minima[left], least, most), *_MINIMA)
        fits &= (chosen >= least) & (chosen <= most)
        at = left[fits]
        scales[at], minima[at], exact[at] = s[fits], chosen[fits], True
        left = left[~fits]
        if not len(left):
            break
    shape = distances.shape
    return scales.reshape(shape), minima.reshape(shape), exact.reshape(shape)


def on_column_grid(
    weights: NDArray, steps: Floats, size: int, most: Floats | None = None, tries: int = 128
) -> tuple[BlockedWeights, Floats] | None:
    """A file's 4-bit weights as they are, on an INT8 grid for each column.

    Parameters
    ----------
    weights : array, shape (columns, reduction)
        De-quantized, times whatever scale is the same for all of a block.
    steps : float64 array, shape (columns,)
        The finest grid of each column: at least a 127th of its largest weight.
    most : float64 array, shape (columns,)
        The coarsest; an eighth more than the finest if None.

    Returns
    -------
    blocked, steps, or None
        Every weight is the file's within half a step: where integers do not give that for a block, the column's step
        becomes larger by a thousandth, and so on. None if the weights lie on no such grid, or a column finds no step.
    """
    found = common_grid(weights, size)
    if found is None:
        return None
    codes, distances, lowest = found
    steps = steps.astype(np.float64).copy()
    scales, minima = (np.zeros(distances.shape, np.int64) for _ in range(2))
    left = np.arange(len(weights))
    for number in range(tries):
        grid = steps[left] * (1 + number / 1024)
        s, m, exact = integer_grid(codes[left], distances[left] / grid[:, None], lowest[left] / grid[:, None], size)
        done = exact.all(1)
        at = left[done]
        scales[at], minima[at], steps[at] = s[done], m[done], grid[done]
        left = left[~done]
        if not len(left):
            break
    if len(left) or (most is not None and (steps > most).any()):
        return None
    return BlockedWeights(size, codes, scales, minima), steps
