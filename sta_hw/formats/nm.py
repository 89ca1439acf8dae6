"""N:M sparse matrices: pruning, encoding to the bits the hardware reads, decoding, sizes, checks.

docs/format.md specifies the format. Shapes: weights are ``(columns, reduction)``, one row per output
column of the product; groups of M run along the reduction dimension.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arguments import require_kind, whole
from ..errors import InputError
from ..spec.config import ENCODINGS, SUPPORTED_WINDOWS
from ..spec.patterns import Pattern

__all__ = [
    "EncodedMatrix",
    "best_encoding",
    "bits_per_weight",
    "decode",
    "encode",
    "implies",
    "keep_mask",
    "prune",
    "satisfies",
    "stream_lengths",
]

_MAGIC = b"NMSP"
_VERSION = 1
_HEADER = struct.Struct("<4sBBBBHHIIII")
_CODES = {"dense": 0, "index": 1, "bitmap": 2}


def keep_mask(scores: NDArray, pattern: Pattern) -> NDArray[np.bool_]:
    """The N weights with the largest score in every group of M, ties to the lower position.

    Parameters
    ----------
    scores : array, shape (columns, reduction)
        Importance; for group magnitude, ``abs(weights)``. If M does not divide the reduction
        dimension, the last group is completed with positions that score below all others.
    pattern : Pattern

    Returns
    -------
    bool array of the same shape
    """
    columns, reduction = scores.shape
    padded = math.ceil(reduction / pattern.m) * pattern.m
    full = np.full((columns, padded), -np.inf)
    full[:, :reduction] = scores
    grouped = full.reshape(columns, -1, pattern.m)
    order = np.argsort(-grouped, axis=-1, kind="stable")[..., : pattern.n]
    mask = np.zeros(grouped.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask.reshape(columns, padded)[:, :reduction]


def prune(weights: NDArray, pattern: Pattern) -> NDArray:
    """`weights` with all but the N of largest magnitude in every group of M set to zero."""
    return np.where(keep_mask(np.abs(weights), pattern), weights, 0).astype(weights.dtype)


def satisfies(weights: NDArray, pattern: Pattern) -> bool:
    """Whether no group of M has more than N non-zeros."""
    columns, reduction = weights.shape
    padded = np.zeros((columns, math.ceil(reduction / pattern.m) * pattern.m), bool)
    padded[:, :reduction] = weights != 0
    counts = padded.reshape(columns, -1, pattern.m).sum(-1)
    return bool((counts <= pattern.n).all())


def implies(pattern: Pattern, other: Pattern) -> bool:
    """Whether all weights that satisfy `pattern` satisfy the `other` one: 2:4 implies 4:8, and 3:4, but not 1:2."""
    if pattern.m >= other.m:  # all that a group of M has may lie in one of the other's
        return other.dense or min(pattern.n, other.m) <= other.n
    return pattern.n * (other.m // pattern.m) <= other.n


def bits_per_weight(pattern: Pattern, encoding: str, window: int = 16) -> float:
    """Stored bits per weight of the dense matrix, values and positions, away from the matrix's ends.

    Parameters
    ----------
    encoding : str
        ``index``, ``bitmap``, ``dense``, or ``limit`` for the information limit log2 C(M, N).
    """
    value_bits = 8 * pattern.density
    if encoding == "dense" or pattern.m == 1:
        return 8.0
    if encoding == "bitmap":
        return value_bits + 1.0
    if encoding == "limit":
        return value_bits + math.log2(math.comb(pattern.m, pattern.n)) / pattern.m
    per_word = window // (pattern.m.bit_length() - 1)
    return value_bits + window / per_word * pattern.density


def best_encoding(pattern: Pattern, window: int = 16, encodings: Sequence[str] = ENCODINGS) -> str:
    """The one of `encodings` with the fewest bits, the first if equal; ``dense`` where no weight is left out."""
    if pattern.m == 1:
        return "dense"
    return min(encodings, key=lambda e: bits_per_weight(pattern, e, window))


@dataclass(frozen=True)
class EncodedMatrix:
    """A matrix as the hardware reads it.

    Attributes
    ----------
    pattern, encoding
        N:M, and ``dense``, ``index`` or ``bitmap``.
    groups, window, depth : int
        Windows side by side; bits of a position word; window positions in use (a multiple of M).
    columns, reduction : int
        Shape of the matrix before padding.
    values : int8 array, shape (beats, groups)
    positions : uint32 array, shape (words, groups)
        Of each word, the low `window` bits.
    """

    pattern: Pattern
    encoding: str
    groups: int
    window: int
    depth: int
    columns: int
    reduction: int
    values: NDArray[np.int8]
    positions: NDArray[np.uint32]

    @property
    def passes(self) -> int:
        """Windows streamed through one after the other."""
        return max(1, math.ceil(self.reduction / (self.groups * self.depth)))

    @property
    def steps(self) -> int:
        """Beats (cycles) per column and pass, ``depth * N / M``."""
        return self.depth // self.pattern.m * self.pattern.n

    @property
    def size_bits(self) -> int:
        """Bits of positions and values, each padded to a byte, without the header."""
        return 8 * (math.ceil(self.positions.size * self.window / 8) + self.values.size)

    def to_bytes(self) -> bytes:
        """Header, positions, values, as docs/format.md lays them out."""
        header = _HEADER.pack(
            _MAGIC, _VERSION, _CODES[self.encoding], self.pattern.n, self.pattern.m.bit_length() - 1,
            self.groups, self.window | self.depth << 8,
            self.columns, self.reduction, len(self.positions), len(self.values),
        )  # fmt: skip
        bits = (self.positions.reshape(-1, 1) >> np.arange(self.window, dtype=np.uint32)) & 1
        return header + np.packbits(bits.astype(np.uint8), bitorder="little").tobytes() + self.values.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> EncodedMatrix:
        """Read what `to_bytes` wrote.

        Raises
        ------
        InputError
            Naming the field and byte offset that is wrong: magic, version, a value out of range, or
            a length that the header does not give.
        """
        if len(data) < _HEADER.size:
            raise InputError(f"encoded matrix: {len(data)} bytes are too few for the header of {_HEADER.size}.")
        magic, version, code, n, m_log2, groups, geometry, columns, reduction, words, beats = _HEADER.unpack_from(data)
        window, depth = geometry & 255, geometry >> 8
        if magic != _MAGIC:
            raise InputError(f"encoded matrix: offset 0 holds {magic!r} instead of {_MAGIC!r}.")
        if version != _VERSION:
            raise InputError(f"encoded matrix: version {version} at offset 4; this program reads version {_VERSION}.")
        if code not in _CODES.values():
            raise InputError(f"encoded matrix: encoding {code} at offset 5 is not 0, 1 or 2.")
        m = 1 << m_log2
        if m_log2 > 5 or not 1 <= n <= m:
            raise InputError(f"encoded matrix: N = {n}, log2 M = {m_log2} at offset 6 is no supported pattern.")
        if window not in SUPPORTED_WINDOWS or not 1 <= depth <= window or depth % m or groups == 0:
            raise InputError(
                f"encoded matrix: window {window}, depth {depth}, groups {groups} at offset 8 do not fit M = {m}."
            )
        encoding = next(name for name, value in _CODES.items() if value == code)
        pattern = Pattern(n, m)
        if (encoding == "dense") != (m == 1):
            raise InputError(f"encoded matrix: {_mismatch(encoding, pattern)} (offsets 5 and 6)")
        expected = stream_lengths(pattern, encoding, groups, window, depth, columns, reduction)
        if (words, beats) != expected:
            raise InputError(
                f"encoded matrix: {words} position words and {beats} value beats at offset 20; "
                f"{columns} x {reduction} at {pattern} takes {expected[0]} and {expected[1]}."
            )
        position_bytes = math.ceil(words * groups * window / 8)
        total = _HEADER.size + position_bytes + beats * groups
        if len(data) != total:
            raise InputError(f"encoded matrix: {len(data)} bytes; the header asks for {total}.")
        raw = np.frombuffer(data, np.uint8, position_bytes, _HEADER.size)
        bits = np.unpackbits(raw, bitorder="little")[: words * groups * window].reshape(-1, window)
        positions = (bits.astype(np.uint32) << np.arange(window, dtype=np.uint32)).sum(-1, dtype=np.uint32)
        values = np.frombuffer(data, np.int8, beats * groups, _HEADER.size + position_bytes)
        return EncodedMatrix(
            pattern, encoding, groups, window, depth, columns, reduction,
            values.reshape(beats, groups).copy(), positions.reshape(words, groups),
        )  # fmt: skip


def _mismatch(encoding: str, pattern: Pattern) -> str:
    """What is wrong with the encoding of this pattern."""
    if encoding == "dense":
        return f"encoding 0 (dense) needs N and M to be 1, and the pattern is {pattern.n}:{pattern.m}."
    return f"encoding {_CODES[encoding]} ({encoding}) needs M of at least 2, and M is 1; dense is encoding 0."


def stream_lengths(
    pattern: Pattern, encoding: str, groups: int, window: int, depth: int, columns: int, reduction: int
) -> tuple[int, int]:
    """Position words and value beats of a matrix."""
    passes = max(1, math.ceil(reduction / (groups * depth)))
    beats = passes * columns * (depth // pattern.m) * pattern.n
    if encoding == "dense":
        return 0, beats
    if encoding == "bitmap":
        return passes * columns, beats
    return math.ceil(beats / (window // (pattern.m.bit_length() - 1))), beats


def encode(
    weights: NDArray[np.int8],
    pattern: Pattern,
    *,
    groups: int,
    window: int,
    encoding: str | None = None,
    depth: int | None = None,
) -> EncodedMatrix:
    """Encode a matrix that satisfies `pattern`.

    Parameters
    ----------
    weights : int8 array, shape (columns, reduction)
        Padded with zeros to whole passes of ``groups * depth``.
    groups, window : int
        Of the array that will run it.
    encoding : str, optional
        Default: the smaller one.
    depth : int, optional
        Window positions to use, a multiple of M; default `window`.

    Raises
    ------
    InputError
        If a group has more than N non-zeros (the first one is named), weights are no INT8, or sizes do not fit.
    """
    require_kind(pattern, "pattern", Pattern)
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.dtype.kind not in "iu" or (weights.astype(np.int8) != weights).any():
        raise InputError("weights are no matrix of whole numbers from -128 to 127.")
    columns, reduction = weights.shape
    groups, window = whole(groups, "groups"), whole(window, "window")
    depth = window if depth is None else whole(depth, "depth")
    if groups < 1:
        raise InputError(f"groups = {groups} is out of range; the least is 1.")
    if window not in SUPPORTED_WINDOWS or not 1 <= depth <= window or depth % pattern.m:
        raise InputError(f"depth {depth} does not fit M = {pattern.m} and window {window}: M divides depth <= window.")
    if encoding is None or pattern.m == 1:
        encoding = best_encoding(pattern, window)
    if not isinstance(encoding, str) or encoding not in _CODES:
        raise InputError(f"encoding {encoding!r} is unknown; it is index or bitmap.")
    if encoding == "dense" and pattern.m != 1:
        raise InputError(f"encoding dense stores no positions, and {pattern} needs them; it is index or bitmap.")
    passes = max(1, math.ceil(reduction / (groups * depth)))
    padded = np.zeros((columns, passes * groups * depth), np.int8)
    padded[:, :reduction] = weights
    # (pass, column, group, sub-group, M)
    tiled = padded.reshape(columns, passes, groups, depth // pattern.m, pattern.m).transpose(1, 0, 2, 3, 4)
    counts = (tiled != 0).sum(-1)
    if (counts > pattern.n).any():
        step, column, group, sub, *_ = np.argwhere(counts > pattern.n)[0]
        start = ((step * groups + group) * depth) + sub * pattern.m
        raise InputError(
            f"column {column}, weights {start} to {start + pattern.m - 1}: "
            f"{counts[step, column, group, sub]} non-zeros where {pattern} allows {pattern.n}."
        )
    # Non-zeros first, then as many zeros as it takes to store exactly N, in ascending order.
    chosen = np.sort(np.argsort(tiled == 0, axis=-1, kind="stable")[..., : pattern.n], axis=-1)
    kept = np.take_along_axis(tiled, chosen, axis=-1)
    values = kept.transpose(0, 1, 3, 4, 2).reshape(-1, groups)
    indices = chosen.transpose(0, 1, 3, 4, 2).reshape(-1, groups)
    if encoding == "dense":
        positions = np.zeros((0, groups), np.uint32)
    elif encoding == "index":
        width = pattern.m.bit_length() - 1
        per_word = window // width
        words = math.ceil(len(indices) / per_word)
        filled = np.zeros((words * per_word, groups), np.uint32)
        filled[: len(indices)] = indices
        shifts = (np.arange(per_word, dtype=np.uint32) * np.uint32(width)).reshape(1, -1, 1)
        positions = (filled.reshape(words, per_word, groups) << shifts).sum(1, dtype=np.uint32)
    else:
        bits = np.zeros(tiled.shape, np.uint32)
        np.put_along_axis(bits, chosen, np.uint32(1), axis=-1)
        flat = bits.reshape(passes * columns, groups, depth)
        positions = (flat << np.arange(depth, dtype=np.uint32)).sum(-1, dtype=np.uint32)
    return EncodedMatrix(
        pattern, encoding, groups, window, depth, columns, reduction, np.ascontiguousarray(values), positions
    )


def decode(encoded: EncodedMatrix) -> NDArray[np.int8]:
    """The dense matrix, int8, shape (columns, reduction).

    Raises
    ------
    InputError
        If the encoding is not one of the pattern, the beats are not as many as the shape asks for, or a
        sub-group's positions are not N different ones in ascending order; column, pass and group are named.
    """
    pattern, depth, groups = encoded.pattern, encoded.depth, encoded.groups
    if (encoded.encoding == "dense") != (pattern.m == 1):
        raise InputError(f"encoded matrix: {_mismatch(encoded.encoding, pattern)}")
    expected = stream_lengths(
        pattern, encoded.encoding, groups, encoded.window, depth, encoded.columns, encoded.reduction
    )
    if (len(encoded.positions), len(encoded.values)) != expected:
        raise InputError(
            f"encoded matrix: {len(encoded.positions)} position words and {len(encoded.values)} value beats; "
            f"{encoded.columns} x {encoded.reduction} at {pattern} takes {expected[0]} and {expected[1]}."
        )
    subs = depth // pattern.m
    shape = (encoded.passes, encoded.columns, subs, pattern.n, groups)
    values = encoded.values.reshape(shape)
    if encoded.encoding == "dense":
        indices = np.zeros(shape, np.int64)
    elif encoded.encoding == "index":
        width = pattern.m.bit_length() - 1
        per_word = encoded.window // width
        shifts = (np.arange(per_word, dtype=np.uint32) * np.uint32(width)).reshape(1, -1, 1)
        fields = (encoded.positions[:, None, :] >> shifts) & np.uint32(pattern.m - 1)
        indices = fields.reshape(-1, groups)[: len(encoded.values)].reshape(shape).astype(np.int64)
        unordered = (np.diff(indices, axis=3) <= 0).any((2, 3))
        if unordered.any():
            step, column, group = np.argwhere(unordered)[0]
            sub = int(np.argmax((np.diff(indices[step, column, :, :, group], axis=1) <= 0).any(1)))
            raise InputError(
                f"indices of column {column}, pass {step}, group {group}, sub-group {sub}: "
                f"{', '.join(map(str, indices[step, column, sub, :, group]))} are not {pattern.n} different positions "
                f"in ascending order as {pattern} asks."
            )
    else:
        words = encoded.positions.reshape(encoded.passes, encoded.columns, groups, 1)
        bits = ((words >> np.arange(depth, dtype=np.uint32)) & 1).astype(bool)
        grouped = bits.reshape(encoded.passes, encoded.columns, groups, subs, pattern.m)
        counts = grouped.sum(-1)
        beyond = (words[..., 0].astype(np.uint64) >> np.uint64(depth)) != 0
        if (counts != pattern.n).any() or beyond.any():
            where = np.argwhere((counts != pattern.n).any(-1) | beyond)[0]
            raise InputError(
                f"bitmap of column {where[1]}, pass {where[0]}, group {where[2]}: not {pattern.n} bits in each "
                f"{pattern.m} as {pattern} asks."
            )
        indices = np.argsort(~grouped, axis=-1, kind="stable")[..., : pattern.n].transpose(0, 1, 3, 4, 2)
    tiled = np.zeros((encoded.passes, encoded.columns, groups, subs, pattern.m), np.int8)
    np.put_along_axis(tiled, indices.transpose(0, 1, 4, 2, 3), values.transpose(0, 1, 4, 2, 3), axis=-1)
    dense = tiled.transpose(1, 0, 2, 3, 4).reshape(encoded.columns, -1)
    return dense[:, : encoded.reduction].copy()
