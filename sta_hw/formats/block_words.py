"""Weights of 4 bits as they lie in memory: headers of blocks, and codes, two a byte (docs/format.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..spec.block_groups import LEAST_GROUPS_OF_WIDE, block_groups, wide_block_groups
from ..spec.patterns import Pattern
from .blocks import ZERO_MINIMUM, BlockedWeights
from .nm import EncodedMatrix, encode

__all__ = ["EncodedBlocks", "block_words", "encode_blocks"]


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
            f"wide blocks of 4-bit weights take {LEAST_GROUPS_OF_WIDE * own} groups or more with windows of {window}, "
            f"and there are {groups}."
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
    minima = np.full(scales.shape, ZERO_MINIMUM, np.int64)
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
