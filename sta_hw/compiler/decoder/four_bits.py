"""Weights of 4 bits: as a file has them, or quantized here, block by block with the error given on.

A file's weights stay what they are: their levels are put on the INT8 grid of their column, each within half a step.
Other weights are quantized as GPTQ does (`feedback`). The grid that they are rounded to is the integers'.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.blocks import BLOCK_SIZES, BlockedWeights, common_grid, integer_grid, on_column_grid
from ...model.operations import Linear
from ..parameters import LinearParameters
from ..scales import factors
from .feedback import error_weights
from .integers import Floats

__all__ = ["block_factors", "by_error_feedback", "in_blocks", "with_blocks"]

_LEVELS = 16
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""By how much a block's levels may lie nearer together than its extremes ask for."""


def in_blocks(weights: NDArray) -> bool:
    """Whether weights were quantized to 4 bits in blocks, by their values."""
    return common_grid(weights[:8], BLOCK_SIZES[0]) is not None and common_grid(weights, BLOCK_SIZES[0]) is not None


def block_factors(factors_of_channels: Floats, values: NDArray) -> Floats:
    """One factor for all channels of a block: that of its channel that reaches furthest behind it."""
    size = BLOCK_SIZES[0]
    largest = np.abs(values).max(0).astype(np.float64)
    shape = len(factors_of_channels) // size, size
    reach = np.maximum((largest / factors_of_channels).reshape(shape), 1e-30)
    chosen = np.argmax(reach * factors_of_channels.reshape(shape), axis=1)
    return np.repeat(factors_of_channels.reshape(shape)[np.arange(shape[0]), chosen], size)


def with_blocks(
    p: LinearParameters, o: Linear, inputs: NDArray, size: int, most: Floats, output_scale: Floats | float
) -> LinearParameters:
    """A product's parameters with weights of 4 bits.

    Parameters
    ----------
    p : LinearParameters
        With INT8 weights.
    inputs : array, shape (tokens, reduction)
        What calibration saw, in units of the input's scale.
    size : int
        Of blocks that are made here, of which a column's last one may be smaller; those of a file are what they are.
    most : float64 array, shape (columns,)
        Steps that are not to be exceeded.

    Raises
    ------
    InputError
        If the smallest blocks do not divide the reduction dimension.
    """
    absorbed = o.weight.astype(np.float64) * p.input_scale
    kept = None if p.pattern.dense else o.weight != 0  # what is pruned stays zero, whatever the file's levels were
    for of_file in reversed(BLOCK_SIZES):
        if kept is None and (found := on_column_grid(absorbed, p.steps, of_file, most)) is not None:
            blocks, steps = found
            break
    else:
        if kept is None and in_blocks(o.weight):
            raise InputError(
                f"{o.name}: its weights have 4 bits in blocks in the file, and the scales of its inputs differ within "
                "a block, or its results' scale is too fine; leave it in INT8."
            )
        if absorbed.shape[1] % BLOCK_SIZES[0]:
            raise InputError(
                f"{o.name}: weights of 4 bits are quantized in blocks of {BLOCK_SIZES[0]} or a multiple, which do not "
                f"divide its {absorbed.shape[1]} inputs; leave it in INT8."
            )
        steps = p.steps
        x = inputs.astype(np.float64)
        blocks = by_error_feedback(absorbed / steps[:, None], x.T @ x, size, kept)
    results = np.broadcast_to(np.asarray(output_scale, np.float64), (len(steps),))
    multiplier, shift = factors(steps / results)
    bias = np.round(o.bias / steps).astype(np.int64)
    return replace(p, weights=blocks.weights, blocks=blocks, steps=steps, multiplier=multiplier, shift=shift, bias=bias)


def by_error_feedback(
    weights: Floats, gram: Floats, size: int, kept: NDArray[np.bool_] | None = None
) -> BlockedWeights:
    """Weights in units of their columns' INT8 grids in 4 bits.

    Parameters
    ----------
    weights : float64 array, shape (columns, reduction)
        Within -127 and 127.
    gram : float64 array, shape (reduction, reduction)
        The inputs' products, summed over tokens.
    size : int
        Of a block; what is left of a column is a smaller one.
    kept : bool array, shape (columns, reduction)
        Of pruned weights: the others stay zero, and so does one of each block's levels.
    """
    columns, reduction = weights.shape
    least = math.gcd(reduction, size)  # whole blocks, and what is left, are multiples of it
    blocks = reduction // least
    upper = error_weights(gram)
    w = weights if kept is None else np.where(kept, weights, 0)
    w = w.astype(np.float64).copy()
    codes = np.zeros(w.shape, np.uint8)
    scales, minima = (np.zeros((columns, blocks), np.int64) for _ in range(2))
    every = np.arange(columns)
    for first in range(0, reduction, size):
        end = min(first + size, reduction)
        s, m = _levels(w[:, first:end], zero=kept is not None)
        of_block = slice(first // least, end // least)
        scales[:, of_block], minima[:, of_block] = s[:, None], m[:, None]
        levels = ((np.arange(_LEVELS) * s[:, None] + 8 * m[:, None]) >> 7).astype(np.float64)
        nothing = np.abs(levels).argmin(1)  # where some are pruned, a level that is zero
        errors = np.zeros((columns, end - first))
        for i in range(first, end):
            chosen = np.abs(levels - w[:, i, None]).argmin(1)
            if kept is not None:  # what others' errors made of a pruned weight goes on to those behind it
                chosen = np.where(kept[:, i], chosen, nothing)
            codes[:, i] = chosen
            given = levels[every, chosen]
            error = (w[:, i] - given) / upper[i, i]
            errors[:, i - first] = error
            w[:, i + 1 : end] -= error[:, None] * upper[i, i + 1 : end]
        w[:, end:] -= errors @ upper[first:end, end:]
    return BlockedWeights(least, codes, scales, minima, kept)


def _levels(w: Floats, *, zero: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Scale and minimum of each column's block: those with the least squared error of a few that cover it."""
    columns = len(w)
    low, high = np.clip(w.min(1), -127, 127), np.clip(w.max(1), -127, 127)
    if zero:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    best, found = np.full(columns, np.inf), np.zeros((2, columns), np.int64)
    for shrink in _SHRINKS:
        distance = np.maximum((high - low) * shrink, 1e-9) / (_LEVELS - 1)
        lowest = (high + low) / 2 - distance * (_LEVELS - 1) / 2
        if zero:  # one of the levels is 0
            lowest = -np.clip(np.round(-lowest / distance), 0, _LEVELS - 1) * distance
        every = np.tile(np.arange(_LEVELS, dtype=np.uint8), (columns, 1))
        s, m, _ = integer_grid(every, distance[:, None], lowest[:, None], _LEVELS)
        levels = (np.arange(_LEVELS) * s + 8 * m) >> 7
        error = np.full(w.shape, np.inf)
        for level in levels.T:
            np.minimum(error, np.abs(w - level[:, None]), out=error)
        total = (error**2).sum(1)
        if zero:
            total = np.where((levels == 0).any(1), total, np.inf)
        total = np.where((levels < -128).any(1) | (levels > 127).any(1), np.inf, total)
        better = total < best
        best = np.where(better, total, best)
        found[0, better], found[1, better] = s[better, 0], m[better, 0]
    return found[0], found[1]
