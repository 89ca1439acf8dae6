"""Matrix products as the engine runs them: tiling onto rows, taps and columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..formats import EncodedMatrix, encode
from ..formats.tiling import best_depth
from ..spec.config import Config
from ..spec.patterns import DENSE, Pattern
from . import beats

__all__ = ["Product", "Requantization", "tile_batch", "tile_linear"]


@dataclass(frozen=True)
class Requantization:
    """Parameters of `sta_hw.reference.requantizer.requantize`: equally long arrays.

    One element per result column, or, `per_row`, per activation row (whose bias is not used).
    """

    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    per_row: bool = False
    wide: bool = False

    def take(self, index: NDArray[np.int64]) -> Requantization:
        """The parameters of the columns (or rows) `index`."""
        return Requantization(self.bias[index], self.multiplier[index], self.shift[index], self.per_row, self.wide)


@dataclass(frozen=True)
class Product:
    """One command of the engine with its data.

    Attributes
    ----------
    activations : int, shape (taps * rows, reduction)
    weights : EncodedMatrix
        Result column e belongs to tap ``e % taps``.
    taps : int
    requantization : Requantization
        Per column: one element per result column; per row: ``taps * rows``.
    unsigned : bool
        Activations are unsigned.
    widen_at : int
        Pass at which the low bytes of 16-bit activations begin; 0 for 8-bit ones.
    continues, unfinished : bool
        The product adds to the sums of the one before; leaves its sums for the one after.
    growth : int array (rows,), or None
        Places by which the sums it continues shift right first.
    """

    activations: NDArray[np.int64]
    weights: EncodedMatrix
    taps: int
    requantization: Requantization
    unsigned: bool = False
    widen_at: int = 0
    continues: bool = False
    unfinished: bool = False
    growth: NDArray[np.int64] | None = None

    def streams(self, config: Config) -> dict[str, NDArray[np.uint32]]:
        """The beats of every input stream."""
        encoded, requantization = self.weights, self.requantization
        return {
            "command": beats.command_beat(
                encoded,
                taps=self.taps,
                unsigned=int(self.unsigned),
                widen_at=self.widen_at,
                per_row=int(requantization.per_row),
                wide_result=int(requantization.wide),
                continues=int(self.continues),
                unfinished=int(self.unfinished),
                rescale=int(self.growth is not None),
            ),
            "activations": beats.activation_beats(self.activations, config, encoded.depth, self.taps),
            "values": beats.value_beats(encoded),
            "positions": beats.position_beats(encoded) if len(encoded.positions) else beats.no_beats(config),
            "growth": beats.growth_beats([] if self.growth is None else [self.growth], config),
            "parameters": beats.no_parameters()
            if self.unfinished
            else beats.parameter_beats(requantization.bias, requantization.multiplier, requantization.shift),
        }


def _planes(
    activations: NDArray[np.int64], weights: NDArray[np.int8], span: int
) -> tuple[NDArray[np.int64], NDArray[np.int8], int]:
    """The reduction over the high bytes, then the low bytes, of whole passes of `span`; the pass where these begin."""
    padded = math.ceil(weights.shape[1] / span) * span
    full = np.zeros((len(weights), 2 * padded), np.int8)
    full[:, : weights.shape[1]] = weights
    full[:, padded : padded + weights.shape[1]] = weights
    split = np.zeros((len(activations), 2 * padded), np.int64)
    split[:, : activations.shape[1]] = activations >> 8
    split[:, padded : padded + activations.shape[1]] = activations & 255
    return split, full, padded // span


def tile_linear(
    config: Config,
    activations: NDArray,
    weights: NDArray[np.int8],
    requantization: Requantization,
    *,
    pattern: Pattern = DENSE,
    encoding: str | None = None,
) -> Iterator[tuple[Product, slice, slice]]:
    """Tile ``activations @ weights.T``.

    Parameters
    ----------
    activations : int8, shape (tokens, reduction)
    weights : int8, shape (columns, reduction)
    requantization : Requantization
        Per column.

    Yields
    ------
    product, rows, columns
        The slices of the result matrix (tokens, columns) that the product computes.

    Raises
    ------
    ConfigError
        If the hardware does not run `pattern`.
    InputError
        If shapes do not agree.
    """
    config.require(pattern)
    tokens, reduction = activations.shape
    columns = len(weights)
    if weights.shape[1] != reduction:
        raise InputError(f"activations have a reduction dimension of {reduction}, weights of {weights.shape[1]}.")
    depth = best_depth(config, reduction, pattern)
    passes = math.ceil(reduction / (config.groups * depth))
    tiles = math.ceil(columns / config.columns) if passes > 1 else 1
    width = math.ceil(columns / tiles)
    for top in range(0, tokens, config.rows):
        block = np.zeros((config.rows, reduction), np.int64)
        rows = slice(top, min(top + config.rows, tokens))
        block[: rows.stop - rows.start] = activations[rows]
        for left in range(0, columns, width):
            part = slice(left, min(left + width, columns))
            chosen = requantization.take(np.arange(part.start, part.stop))
            encoded = encode(
                weights[part], pattern, groups=config.groups, window=config.window, depth=depth, encoding=encoding
            )
            yield Product(block, encoded, 1, chosen), rows, part


def tile_batch(
    config: Config,
    activations: NDArray,
    weights: NDArray[np.int8],
    requantization: list[Requantization],
    *,
    unsigned: bool = False,
    planes: int = 1,
) -> Iterator[tuple[Product, NDArray[np.int64]]]:
    """Tile a batch of dense products of one shape, several per window (taps) where they are short.

    Parameters
    ----------
    activations : int, shape (batch, rows, reduction), rows = config.rows
    weights : int8, shape (batch, columns, reduction)
    requantization : list of Requantization
        One per product of the batch; all per column, or all per row.
    planes : int
        2 when the activations have 16 unsigned bits.

    Yields
    ------
    product, members
        Which products of the batch it computes; its result column e belongs to
        ``members[e % len(members)]``.
    """
    batch, columns, reduction = weights.shape
    depth = best_depth(config, reduction, DENSE)
    short = math.ceil(reduction / config.groups)
    if short <= config.window:
        depth = short
    at_most = config.window // depth
    if math.ceil(reduction / (config.groups * depth)) * planes > 1:
        at_most = max(1, min(at_most, config.columns // columns))
        if columns > config.columns:
            raise InputError(f"{columns} columns over several passes exceed the accumulators' {config.columns}.")
    for first in range(0, batch, at_most):
        members = np.arange(first, min(first + at_most, batch))
        taps = len(members)
        interleaved = weights[members].transpose(1, 0, 2).reshape(columns * taps, reduction)
        chosen = [requantization[i] for i in members]
        stacked = [np.stack([getattr(r, name) for r in chosen]) for name in ("bias", "multiplier", "shift")]
        if not chosen[0].per_row:  # column fastest across taps
            stacked = [s.T for s in stacked]
        bias, multiplier, shift = (s.reshape(-1) for s in stacked)
        merged = Requantization(bias, multiplier, shift, chosen[0].per_row, chosen[0].wide)
        rows = activations[members].reshape(taps * config.rows, reduction)
        widen_at = 0
        if planes == 2:
            rows, interleaved, widen_at = _planes(rows, interleaved, config.groups * depth)
        encoded = encode(interleaved, DENSE, groups=config.groups, window=config.window, depth=depth)
        yield Product(rows, encoded, taps, merged, unsigned, widen_at), members
