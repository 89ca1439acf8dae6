"""Reference of the decoder: a product's dense weights from the words it reads, and the faults it reports."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.config import Config

__all__ = ["WeightsError", "check_weights", "command_problem", "dense_weights", "positions_problem", "stream_faults"]

_DENSE, _INDEX, _BITMAP = 0, 1, 2
_VALUES_SHORT, _VALUES_LONG, _POSITIONS_SHORT, _POSITIONS_LONG, _POSITIONS_WRONG, _COMMAND = 1, 2, 4, 8, 16, 32

Fields = Mapping[str, int]
"""Of a command: ``encoding``, ``n``, ``m_log2``, ``depth``, ``columns``, ``passes``, ``continues``, ``unfinished``,
each as docs/isa.md has it; ``taps`` where there are any."""


class WeightsError(CheckError):
    """A product that the matrix engine reports faults for.

    Parameters
    ----------
    faults : int
        The word of faults of docs/format.md.
    """

    def __init__(self, faults: int, problem: str) -> None:
        self.faults = faults
        super().__init__(problem)


def _sizes(command: Fields) -> tuple[int, int, int]:
    """M, entries of a column and pass, and value beats of the matrix."""
    size = 1 << command["m_log2"]
    kept = command["depth"] // size * command["n"]
    return size, kept, command["passes"] * command["columns"] * kept


def _words(command: Fields, config: Config) -> int:
    """Position words of the matrix."""
    _, _, beats = _sizes(command)
    if command["encoding"] == _DENSE:
        return 0
    if command["encoding"] == _BITMAP:
        return command["passes"] * command["columns"]
    return math.ceil(beats / (config.window // command["m_log2"]))


def command_problem(command: Fields, config: Config) -> str | None:
    """Why the engine refuses `command`, in a sentence; None if it runs it."""
    for name in ("columns", "passes", "depth", "n"):
        if command[name] == 0:
            return f"{name} = 0; it is at least 1"
    encoding, n, depth, columns = (command[name] for name in ("encoding", "n", "depth", "columns"))
    size = 1 << command["m_log2"]
    if n > size:
        return f"N = {n} is more than M = {size}"
    if encoding == _DENSE:
        if size != 1:
            return f"encoding 0 (dense) needs N and M to be 1, and they are {n}:{size}"
    else:
        known = {1: "index", 2: "bitmap"}.get(encoding)
        if known not in config.encodings:
            return f"encoding {encoding} is not built into this hardware"
        if size not in {pattern.m for pattern in config.patterns if pattern.m > 1}:
            return f"M = {size} is not built into this hardware"
    if depth % size or depth * command.get("taps", 1) > config.window or command.get("taps", 1) < 1:
        return f"depth {depth} does not fit M = {size} and window {config.window}"
    stored = command["passes"] > 1 or command["continues"] or command["unfinished"]
    if stored and columns > config.columns:
        return f"{columns} columns of unfinished sums; there are {config.columns}"
    return None


def positions_problem(command: Fields, positions: NDArray[np.uint32], config: Config) -> str | None:
    """What is wrong with position words, as many as there are; None if nothing is.

    Parameters
    ----------
    positions : uint32, shape (words, groups)
        At most as many words as the command asks for.

    Returns
    -------
    str or None
        Names the first column, pass, group and sub-group whose positions are not N different ones in
        ascending order.
    """
    if command["encoding"] == _DENSE:
        return None
    size, kept, _ = _sizes(command)
    n, columns = command["n"], command["columns"]
    bits = _bits(positions, config)
    if command["encoding"] == _INDEX:
        index = _indices(command, bits, config)
        entry = np.arange(len(index)) % kept
        wrong: NDArray[np.bool_] = np.zeros(index.shape, bool)
        wrong[1:] = (index[1:] <= index[:-1]) & (entry[1:] % n != 0)[:, None]
        if not wrong.any():
            return None
        at, group = map(int, np.argwhere(wrong)[0])
        number, what = at // kept, f"index {index[at, group]} after {index[at - 1, group]}; they ascend"
        subgroup = int(entry[at]) // n
    else:
        depth = command["depth"]
        counts = bits[:, :, :depth].reshape(len(bits), config.groups, depth // size, size).sum(-1)
        beyond = bits[:, :, depth:].sum(-1) > 0
        broken = (counts != n).any(-1) | beyond
        if not broken.any():
            return None
        number, group = map(int, np.argwhere(broken)[0])
        subgroup = int(np.argmax(counts[number, group] != n))
        what = (
            f"bits set from {depth} on" if beyond[number, group] else f"{counts[number, group, subgroup]} bits, not {n}"
        )
    return f"pass {number // columns}, column {number % columns}, group {group}, sub-group {subgroup}: {what}"


def stream_faults(command: Fields, values: int, positions: NDArray[np.uint32], config: Config) -> int:
    """The word of faults (docs/format.md) for so many value beats and these position words; 0 if all is well."""
    if command_problem(command, config):
        return _COMMAND
    _, _, beats = _sizes(command)
    words = _words(command, config)
    faults = _VALUES_SHORT * (values < beats) | _VALUES_LONG * (values > beats)
    if command["encoding"] != _DENSE:
        faults |= _POSITIONS_SHORT * (len(positions) < words) | _POSITIONS_LONG * (len(positions) > words)
        faults |= _POSITIONS_WRONG * (positions_problem(command, positions[:words], config) is not None)
    return faults


def check_weights(command: Fields, values: int, positions: NDArray[np.uint32], config: Config) -> None:
    """Refuse what the engine reports a fault for.

    Parameters
    ----------
    command : mapping of str to int
        A product's fields.
    values : int
        Beats of values, `groups` each.
    positions : uint32, shape (words, groups)

    Raises
    ------
    WeightsError
        With the word of faults, as `stream_faults` has it.
    """
    problem = command_problem(command, config)
    if problem:
        raise WeightsError(_COMMAND, problem)
    faults = stream_faults(command, values, positions, config)
    if faults:
        beats, words = _sizes(command)[2], _words(command, config)
        found = positions_problem(command, positions[:words], config)
        raise WeightsError(
            faults,
            found or f"{values} values and {len(positions)} position words; the product takes {beats} and {words}",
        )


def dense_weights(
    command: Fields, values: NDArray[np.int8], positions: NDArray[np.uint32], config: Config
) -> NDArray[np.int8]:
    """The weight matrix, dense: shape (columns, passes * groups * depth).

    Parameters
    ----------
    values : int8, shape (beats, groups)
    positions : uint32, shape (words, groups)

    Raises
    ------
    WeightsError
        If the engine reports a fault for it.
    """
    check_weights(command, len(values), positions, config)
    size, kept, _ = _sizes(command)
    depth, columns, passes = command["depth"], command["columns"], command["passes"]
    entries = values.reshape(passes, columns, kept, config.groups)
    subgroup = (np.arange(kept) // command["n"] * size)[None, None, :, None]
    if command["encoding"] == _DENSE:
        where = np.broadcast_to(subgroup, entries.shape)
    elif command["encoding"] == _INDEX:
        where = _indices(command, _bits(positions, config), config).reshape(entries.shape) + subgroup
    else:
        bits = _bits(positions, config)
        found_bits = np.nonzero(bits)[-1]  # of each word as many, which was looked at
        where = found_bits.reshape(passes, columns, config.groups, kept).transpose(0, 1, 3, 2)
    dense = np.zeros((passes, columns, config.groups, depth), np.int8)
    np.put_along_axis(dense, where.transpose(0, 1, 3, 2), entries.transpose(0, 1, 3, 2), axis=-1)
    return dense.transpose(1, 0, 2, 3).reshape(columns, -1)


def _bits(positions: NDArray[np.uint32], config: Config) -> NDArray[np.uint8]:
    """Position words as bits: shape (words, groups, window)."""
    return (positions[:, :, None] >> np.arange(config.window, dtype=np.uint32) & 1).astype(np.uint8)


def _indices(command: Fields, bits: NDArray[np.uint8], config: Config) -> NDArray[np.int64]:
    """Indices within their sub-groups, in the order of the values: shape (entries, groups)."""
    width = command["m_log2"]
    slots = config.window // width
    parts = bits[:, :, : slots * width].reshape(len(bits), config.groups, slots, width)
    index = (parts.astype(np.int64) << np.arange(width)).sum(-1)
    return index.transpose(0, 2, 1).reshape(-1, config.groups)[: _sizes(command)[2]]
