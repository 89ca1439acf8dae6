"""Weights of 4 bits in blocks that share a scale and a minimum, on the INT8 grid of their column.

docs/format.md specifies arithmetic and layout. A weight is ``(code * scale + 8 * minimum) >> 7``, rounded down: the
scale has 7 fraction bits, the minimum 4 and a half for the rounding. Shapes: ``(columns, reduction)``, blocks along the
reduction dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..spec.patterns import Pattern
from .nm import EncodedMatrix, encode

__all__ = [
    "BLOCK_SIZES", "BlockedWeights", "EncodedBlocks", "block_groups", "block_words", "common_grid", "encode_blocks",
    "integer_grid", "on_column_grid", "wide_block_groups",
]  # fmt: skip

BLOCK_SIZES = (32, 64, 128)
LEVELS = 16
SCALE_FRACTION, MINIMUM_FRACTION = 7, 4
_LARGEST_SCALE = (1 << 12) - 1
_MINIMA = -(1 << 11), (1 << 11) - 1
_BLOCK = 32
"""Weights of a block in memory, where windows have no more."""
_WIDE = 4
"""How many times as many groups share the header of a wide block."""
_ZERO_MINIMUM = 1 << (MINIMUM_FRACTION - 1)
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
    minima = np.clip(np.round(low * 2**MINIMUM_FRACTION) + _ZERO_MINIMUM, *_MINIMA).astype(np.int64)
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


# -- in memory ----------------------------------------------------------------------------------------


def block_groups(window: int, groups: int) -> int:
    """Groups that a block in memory is spread over, of hardware with `groups` groups and windows of `window`."""
    return min(max(1, _BLOCK // window), groups)


def wide_block_groups(window: int, groups: int) -> int:
    """The same of a wide block; 0 if there are not twice as many groups."""
    wide = _WIDE * block_groups(window, groups)
    return wide if 2 * wide <= groups else 0


def _header_words(share: int, headers: Any, wide: bool) -> Any:
    """Words of so many headers, a number or an array of them."""
    if wide:
        return -(-headers // share)
    return {1: 3 * headers, 2: -(-headers // 2) + headers}.get(share, headers)


def block_words(share: int, run: int, runs: int, *, wide: bool = False) -> int:
    """Words of values of a product, `groups` bytes each, headers among them.

    Parameters
    ----------
    share : int
        Groups that share a header (`block_groups`), where blocks are not wide.
    run, runs : int
        Values of a group behind each header; how many of those: of each column and pass one.
    wide : bool
        Whether four times as many groups share a header, and `share` headers a word.
    """
    return _header_words(share, runs + 1, wide) + runs * -(-run // 2)


@dataclass(frozen=True)
class EncodedBlocks:
    """A matrix as the hardware reads it.

    Attributes
    ----------
    words : uint8 array, shape (words, groups)
        Headers of 24 bits, and codes, two a byte (docs/format.md).
    run : int
        Values of a group behind each header.
    matrix : EncodedMatrix
        Positions, and sizes; its values are the codes.
    """

    words: NDArray[np.uint8]
    run: int
    matrix: EncodedMatrix


def encode_blocks(
    blocked: BlockedWeights, pattern: Pattern, *, groups: int, window: int, depth: int, encoding: str | None = None,
    wide: bool = False,
) -> EncodedBlocks:  # fmt: skip
    """Encode a matrix in 4 bits.

    Parameters
    ----------
    blocked : BlockedWeights
        Its blocks are cut to those of `block_groups` (`wide_block_groups`) times `depth` weights that share a scale in
        memory.
    groups, window, depth : int
        Of the hardware; `depth` positions of each window are used.
    encoding : str or None
        Of positions, as `encode` takes it.
    wide : bool
        In wide blocks.

    Raises
    ------
    InputError
        If the sizes do not fit, there are too few groups for wide blocks, or a sub-group has more than N weights that
        are kept, or fewer, and none that is zero to store in their place.
    """
    own = block_groups(window, groups)
    share = wide_block_groups(window, groups) if wide else own
    if not share:
        raise InputError(
            f"wide blocks of 4-bit weights take {2 * _WIDE * own} groups or more with windows of {window}, and there "
            f"are {groups}."
        )
    size, reduction = share * depth, blocked.codes.shape[1]
    if blocked.size % size or groups % share or reduction % size:
        raise InputError(
            f"blocks of {blocked.size} weights, {reduction} in a column, are no multiple of {share} groups x depth "
            f"{depth}, which share a scale in memory."
        )
    blocked = blocked.of_size(size)
    run = depth // pattern.m * pattern.n
    if run < 2:
        raise InputError(f"{pattern} with depth {depth} stores one weight of each window; blocks of 4 bits need two.")
    codes = blocked.codes.astype(np.int16)
    stored = np.ones(codes.shape, bool) if pattern.dense else _stored(blocked, pattern)
    marked = np.where(stored, codes + 1, 0).astype(np.int8)  # exactly N of each sub-group are not zero
    matrix = encode(marked, pattern, groups=groups, window=window, depth=depth, encoding=encoding)
    values = np.maximum(matrix.values - 1, 0).astype(np.uint8).reshape(-1, run, groups)
    return EncodedBlocks(
        _words(_headers(blocked, matrix.passes, groups // share), values, own, wide), run,
        replace(matrix, values=values.reshape(-1, groups).view(np.int8)),
    )  # fmt: skip


def _headers(blocked: BlockedWeights, passes: int, side_by_side: int) -> NDArray[np.uint8]:
    """Scales and minima, pass after pass, column after column: shape (runs, blocks side by side, 3)."""
    columns, there = blocked.scales.shape
    # What fills up the last pass has a scale of zero and stands for zeros, whatever its codes.
    scales = np.zeros((columns, passes * side_by_side), np.int64)
    minima = np.full(scales.shape, _ZERO_MINIMUM, np.int64)
    scales[:, :there], minima[:, :there] = blocked.scales, blocked.minima
    bits = (scales | (minima & 0xFFF) << 12).reshape(columns, passes, side_by_side).transpose(1, 0, 2)
    return (bits[..., None] >> np.array([0, 8, 16]) & 255).astype(np.uint8).reshape(-1, side_by_side, 3)


def _words(headers: NDArray[np.uint8], values: NDArray[np.uint8], share: int, wide: bool) -> NDArray[np.uint8]:
    """The first header; then for each run the next one's header, and its own values.

    Of wide blocks a word has `share` headers, and precedes the run behind which the first of them is needed.
    """
    runs, run, groups = values.shape
    half = -(-run // 2)
    packed = np.zeros((runs, 2 * half, groups), np.uint8)
    packed[:, :run] = values
    # There is one more behind the last.
    headers = np.concatenate([headers, np.zeros((1, *headers.shape[1:]), np.uint8)])
    words = np.zeros((block_words(share, run, runs, wide=wide), groups), np.uint8)
    number = np.arange(runs + 1)
    start = _header_words(share, number, wide) + np.maximum(number - 1, 0) * half
    at = _header_words(share, number[1:] + 1, wide) + number[:-1] * half
    words[at[:, None] + np.arange(half)] = packed[:, ::2] | packed[:, 1::2] << 4
    if wide:
        slots = np.zeros((-(-(runs + 1) // share), share, groups // share), np.uint8)
        four = np.pad(headers, ((0, 0), (0, 0), (0, 1))).reshape(runs + 1, -1)
        slots.reshape(-1, groups // share)[: runs + 1] = four
        words[start[::share]] = slots.reshape(-1, groups)
        return words
    if share == 1:
        words[start[:, None] + np.arange(3)] = headers.transpose(0, 2, 1)
    else:
        place = np.zeros((runs + 1, groups // share, share), np.uint8)
        count = min(share, 3)
        place[:, :, :count] = headers[:, :, :count]
        words[start] = place.reshape(runs + 1, groups)
    if share == 2:
        even = start[::2] + 1
        words[even, ::2] = headers[::2, :, 2]
        words[even[: len(headers[1::2])], 1::2] = headers[1::2, :, 2]
    return words


def _stored(blocked: BlockedWeights, pattern: Pattern) -> NDArray[np.bool_]:
    """Which N weights of each sub-group are stored: those that are kept, and then such as are zero."""
    kept = blocked.weights != 0 if blocked.kept is None else blocked.kept
    zero = replace(blocked, kept=None).weights == 0
    columns, reduction = kept.shape
    rank = np.where(kept, 0, np.where(zero, 1, 2)).reshape(columns, -1, pattern.m)
    if ((rank == 0).sum(-1) > pattern.n).any():
        column, group = np.argwhere((rank == 0).sum(-1) > pattern.n)[0]
        raise InputError(
            f"column {column}, weights {group * pattern.m} to {(group + 1) * pattern.m - 1}: more are kept than "
            f"{pattern} allows."
        )
    chosen = np.argsort(rank, axis=-1, kind="stable")[..., : pattern.n]
    if (np.take_along_axis(rank, chosen, -1) == 2).any():
        column, group, _ = np.argwhere(np.take_along_axis(rank, chosen, -1) == 2)[0]
        raise InputError(
            f"column {column}, weights {group * pattern.m} to {(group + 1) * pattern.m - 1}: {pattern} stores "
            f"{pattern.n}, fewer are kept, and none of the block's levels is zero."
        )
    found = np.zeros(rank.shape, bool)
    np.put_along_axis(found, chosen, True, axis=-1)
    return found.reshape(columns, reduction)
