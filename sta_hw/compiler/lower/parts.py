"""How a product's reduction dimension is cut into windows: with one N:M, or what is left over with another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.block_words import block_words
from ...formats.blocks import BlockedWeights
from ...formats.nm import best_encoding, bits_per_weight, satisfies
from ...formats.tiling import best_depth
from ...spec.config import Config
from ...spec.patterns import DENSE, Pattern

__all__ = ["WindowPart", "block_parts", "window_parts"]

_MOST_HEADERS = 8
"""Of blocks in one word; where there are fewer, their number divides this."""
_LEAST_SAVED = 0.02
"""Of a product's bytes, for which its rest becomes a product of its own: that takes a few cycles for each chunk."""


@dataclass(frozen=True)
class WindowPart:
    """Some passes of a product.

    Attributes
    ----------
    first, stop : int
        Of the reduction dimension.
    pattern, encoding, depth : Pattern, str, int
        Of its windows.
    passes : int
    blocks, wide : bool
        Values have 4 bits, in blocks; in wide ones.
    """

    first: int
    stop: int
    pattern: Pattern
    encoding: str
    depth: int
    passes: int
    blocks: bool = False
    wide: bool = False

    @property
    def run(self) -> int:
        """Values of a column and pass, in each group."""
        return self.depth // self.pattern.m * self.pattern.n

    def values_per_position(self, window: int) -> float:
        """Words of values that one word of positions goes with."""
        if self.encoding == "dense":
            return math.inf
        return self.run if self.encoding == "bitmap" else window // max(1, self.pattern.m.bit_length() - 1)

    def words(self, config: Config) -> float:
        """Words of values that a column takes, headers of its blocks among them."""
        if self.blocks:
            # Of many columns one's share: without the header ahead of all and the one behind.
            two, many = (1, self.passes + 1), _MOST_HEADERS
            words = [block_words(config.block_groups, self.run, many * runs, wide=self.wide) for runs in two]
            return (words[1] - words[0]) / many
        return self.passes * self.run

    def bits(self, config: Config) -> float:
        """Bits of a column, of what fills up the last pass too."""
        positions = self.passes * config.groups * self.depth
        if self.encoding == "bitmap":  # a word for each pass, however deep
            return self.passes * config.groups * (8 * self.run + config.window)
        return positions * bits_per_weight(self.pattern, self.encoding, config.window)


def _part(config: Config, first: int, stop: int, pattern: Pattern, depth: int) -> WindowPart:
    encoding = best_encoding(pattern, config.window, config.encodings)
    return WindowPart(first, stop, pattern, encoding, depth, math.ceil((stop - first) / (config.groups * depth)))


def window_parts(config: Config, weights: NDArray[np.int8], pattern: Pattern, *, rest_apart: bool) -> list[WindowPart]:
    """One part; or two, if what is left behind whole passes may go apart (`rest_apart`) and that spares bytes.

    Groups of M weights are not divided among the array's groups of windows. So a column whose weights are not whole
    passes of ``groups`` times a multiple of M leaves some of those idle in the last pass, and memory is read for zeros:
    8:16 with 576 weights in 16 groups takes 3 passes of 256. Where the last 64 are a product of their own, with a
    smaller M that they have (dense, if none) and of less depth, they take a pass of 64.

    Parameters
    ----------
    weights : int8 array, shape (columns, reduction)
        That satisfy `pattern`.
    """
    reduction = weights.shape[1]
    whole = _part(config, 0, reduction, pattern, best_depth(config, reduction, pattern))
    found, least = [whole], whole.bits(config) * (1 - _LEAST_SAVED)
    if pattern.dense or not rest_apart:
        return found
    for depth in range(pattern.m, config.window + 1, pattern.m):
        each = config.groups * depth
        start = reduction // each * each
        if start in (0, reduction):
            continue
        head, rest = _part(config, 0, start, pattern, depth), weights[:, start:]
        smaller = [DENSE, *(p for p in config.patterns if 1 < p.m < pattern.m and not p.dense and satisfies(rest, p))]
        for other in smaller:
            tail = _part(config, start, reduction, other, best_depth(config, reduction - start, other))
            if (bits := head.bits(config) + tail.bits(config)) < least:
                found, least = [head, tail], bits
    return found


def _block_part(
    config: Config, blocks: BlockedWeights, first: int, stop: int, pattern: Pattern, depths: Iterable[int] = ()
) -> WindowPart | None:
    """Passes with weights of 4 bits: the depth that divides the blocks and takes the fewest words, if any."""
    size, length = blocks.size_between(first, stop), stop - first
    encoding = best_encoding(pattern, config.window, config.encodings)
    shares = {False: config.block_groups} | ({True: config.wide_block_groups} if config.wide_block_groups else {})
    possible = [
        WindowPart(first, stop, pattern, encoding, d, math.ceil(length / (config.groups * d)), blocks=True, wide=wide)
        for d in depths or range(pattern.m, config.window + 1, pattern.m)
        for wide, share in shares.items()
        if size % (share * d) == 0 and length % (share * d) == 0 and d // pattern.m * pattern.n > 1
    ]
    return min(possible, key=lambda p: (p.words(config), -p.depth), default=None)


def block_parts(
    config: Config, label: str, blocks: BlockedWeights, pattern: Pattern, *, rest_apart: bool
) -> list[WindowPart]:
    """The same of weights of 4 bits in blocks: what is left over may go apart here, too.

    576 weights in 16 groups fill 2 passes of 256. The last 64, of depth 4, are in blocks of 8 weights, in wide ones of
    32, or of INT8, whichever takes the fewest words.

    Raises
    ------
    InputError
        If no depth divides the blocks.
    """
    reduction = blocks.codes.shape[1]
    whole = _block_part(config, blocks, 0, reduction, pattern)
    found = [whole] if whole else []
    least = whole.words(config) * (1 - _LEAST_SAVED) if whole else math.inf
    for depth in range(1, config.window + 1) if rest_apart and pattern.dense else ():
        each = config.groups * depth
        start = reduction // each * each
        if start in (0, reduction) or not (head := _block_part(config, blocks, 0, start, DENSE, [depth])):
            continue
        plain = _part(config, start, reduction, DENSE, best_depth(config, reduction - start, DENSE))
        for tail in (_block_part(config, blocks, start, reduction, DENSE), plain):
            if tail and (words := head.words(config) + tail.words(config)) < least:
                found, least = [head, tail], words
    if not found:
        raise InputError(
            f"{label}: blocks of {blocks.size} weights, {reduction} in a column, have no depth for {pattern} on "
            f"hardware with {config.groups} groups and window {config.window}."
        )
    return found
