"""From arrays to the beats of the hardware's streams and back: bit packing, and nothing else.

A beat is a row of 32-bit words, least significant first; the layouts are those of docs/architecture.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..formats import EncodedMatrix
from ..spec.config import Config

__all__ = [
    "activation_beats",
    "command_beat",
    "fields",
    "growth_beats",
    "join",
    "logit_beats",
    "no_beats",
    "no_parameters",
    "parameter_beats",
    "position_beats",
    "result_values",
    "value_beats",
]

Words = NDArray[np.uint32]

_COMMAND = (
    ("encoding", 2), ("n", 6), ("m_log2", 3), ("depth", 6), ("taps", 6), ("columns", 16), ("passes", 16),
    ("unsigned", 1), ("widen_at", 16), ("per_row", 1), ("wide_result", 1),
    ("continues", 1), ("unfinished", 1), ("rescale", 1),
)  # fmt: skip
_ENCODINGS = {"dense": 0, "index": 1, "bitmap": 2}


def join(parts: Sequence[tuple[ArrayLike, int]]) -> Words:
    """Beats from fields: ``(values, width in bits)`` each, least significant field first.

    Values are integers of shape (beats,) or (beats, elements); negative ones as two's complement.
    """
    columns: list[NDArray[np.uint8]] = []
    beats = 0
    for values, width in parts:
        array = np.asarray(values)
        array = array.reshape(len(array), -1).astype(np.int64)
        beats = len(array)
        bits = (array[:, :, None] >> np.arange(width)) & 1
        columns.append(bits.reshape(beats, -1).astype(np.uint8))
    bits = np.concatenate(columns, axis=1)
    words = math.ceil(bits.shape[1] / 32)
    padded = np.zeros((beats, words * 32), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint32)


def fields(beats: Words, layout: Sequence[tuple[int, int, bool]]) -> list[NDArray[np.int64]]:
    """The fields of beats: ``(count, width, signed)`` each; arrays of shape (beats, count)."""
    bits = np.unpackbits(np.ascontiguousarray(beats).view(np.uint8), axis=1, bitorder="little")
    found, at = [], 0
    for count, width, is_signed in layout:
        part = bits[:, at : at + count * width].reshape(len(beats), count, width).astype(np.int64)
        value = (part << np.arange(width)).sum(-1)
        if is_signed:
            value -= part[..., -1] << width
        found.append(value)
        at += count * width
    return found


def command_beat(encoded: EncodedMatrix, **more: int) -> Words:
    """The command of one product, shape (1, words); `more` sets fields beside the encoding's own."""
    values = {
        "encoding": _ENCODINGS[encoded.encoding],
        "n": encoded.pattern.n,
        "m_log2": encoded.pattern.m.bit_length() - 1,
        "depth": encoded.depth,
        "taps": 1,
        "columns": encoded.columns,
        "passes": encoded.passes,
        "unsigned": 0,
        "widen_at": 0,
        "per_row": 0,
        "wide_result": 0,
        "continues": 0,
        "unfinished": 0,
        "rescale": 0,
    }
    unknown = set(more) - set(values)
    if unknown:
        raise ValueError(f"no such command field: {', '.join(sorted(unknown))}")
    values |= more
    return join([([values[name]], width) for name, width in _COMMAND])


def value_beats(encoded: EncodedMatrix) -> Words:
    """Weight values, the last beat marked."""
    last = np.arange(len(encoded.values)) == len(encoded.values) - 1
    return join([(encoded.values, 8), (last, 1)])


def position_beats(encoded: EncodedMatrix) -> Words:
    """Position words, the last beat marked."""
    last = np.arange(len(encoded.positions)) == len(encoded.positions) - 1
    return join([(encoded.positions, encoded.window), (last, 1)])


def no_beats(config: Config) -> Words:
    """An empty positions stream, for dense products."""
    return np.zeros((0, math.ceil((config.groups * config.window + 1) / 32)), np.uint32)


def activation_beats(activations: ArrayLike, config: Config, depth: int, taps: int) -> Words:
    """Window loads of one product.

    Parameters
    ----------
    activations : int, shape (taps * rows, reduction)
        Row ``tap * rows + r`` is tap `tap` of array row r. Padded with zeros to whole passes.
    """
    activations = np.asarray(activations)
    reduction = activations.shape[1]
    span = config.groups * depth
    passes = max(1, math.ceil(reduction / span))
    padded = np.zeros((taps * config.rows, passes * span), np.int64)
    padded[: len(activations), :reduction] = activations
    # (tap, row, pass, position) -> (pass, tap, position, row)
    order = padded.reshape(taps, config.rows, passes, span).transpose(2, 0, 3, 1)
    return join([(order.reshape(-1, config.lanes), 8)])


def parameter_beats(bias: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> Words:
    """Requantization parameters, one beat per element of the three equally long arrays."""
    return join([(bias, 32), (multiplier, 16), (shift, 3)])


def no_parameters() -> Words:
    """No requantization: the product is unfinished."""
    return np.zeros((0, 2), np.uint32)


def growth_beats(growth: Sequence[ArrayLike], config: Config) -> Words:
    """Rescaling shifts, one beat of `rows` per element."""
    if not growth:
        return np.zeros((0, math.ceil(5 * config.rows / 32)), np.uint32)
    return join([(np.stack([np.asarray(g) for g in growth]), 5)])


def result_values(beats: Words, config: Config) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Results of one or more products: values of shape (columns, rows), and the last flags per beat."""
    values, last = fields(beats, [(config.drain_lanes, 16, True), (1, 1, False)])
    return values.reshape(-1, config.rows), last[:, 0]


def logit_beats(logits: ArrayLike, mask: ArrayLike | None, config: Config, *, wide: bool, gain: int = 0) -> Words:
    """One softmax row: logits of shape (length,), completed with masked elements to whole beats."""
    logits = np.asarray(logits, np.int64)
    lanes = config.softmax_lanes
    beats = max(1, math.ceil(len(logits) / lanes))
    values = np.zeros(beats * lanes, np.int64)
    keep = np.zeros(beats * lanes, np.int64)
    values[: len(logits)] = logits
    keep[: len(logits)] = 1 if mask is None else np.asarray(mask)
    last = np.arange(beats) == beats - 1
    same = np.ones(beats, np.int64)
    return join(
        [
            (values.reshape(beats, lanes), 16),
            (keep.reshape(beats, lanes), 1),
            (last, 1),
            (same * wide, 1),
            (same * gain, 3),
        ]
    )
