"""Reference of the index decoders (rtl/engine/decoder.py): the dense matrix, walked in the order of the hardware."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spec.patterns import Pattern

__all__ = ["decoded_beats"]


def decoded_beats(
    weights: NDArray[np.int8], pattern: Pattern, groups: int, depth: int, taps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What the decoder gives for a matrix of shape (columns, reduction).

    Parameters
    ----------
    weights : int8
        With at most N entries in each sub-group of M that are not zero.
    groups, depth, taps : int
        Groups of the array, positions of a window that one tap has, and taps; column e is of tap ``e % taps``.

    Returns
    -------
    values, addresses : int64 arrays, shape (beats, groups)
    flags : int64 array, shape (beats, 9)
        First and last beat of a column, first and last pass, last beat of a pass, three that the command sets (0),
        and: a result is complete.
    """
    columns, reduction = weights.shape
    span = groups * depth
    passes = max(1, -(-reduction // span))
    padded = np.zeros((columns, passes * span), np.int64)
    padded[:, :reduction] = weights
    values, addresses, flags = [], [], []
    for step in range(passes):
        for column in range(columns):
            window = padded[column, step * span : (step + 1) * span].reshape(groups, depth)
            entries: list[list[tuple[int, int]]] = []
            for lane in window:
                kept: list[tuple[int, int]] = []
                for start in range(0, depth, pattern.m):
                    nonzero = [i for i in range(start, start + pattern.m) if lane[i]]
                    free = [i for i in range(start, start + pattern.m) if not lane[i]]
                    kept += [(i, int(lane[i])) for i in sorted(nonzero + free[: pattern.n - len(nonzero)])]
                entries.append(kept)
            steps = len(entries[0])
            for k in range(steps):
                last = k == steps - 1
                values.append([e[k][1] for e in entries])
                addresses.append([e[k][0] + column % taps * depth for e in entries])
                final = step == passes - 1
                flags.append([k == 0, last, step == 0, final, last and column == columns - 1, 0, 0, 0, last and final])
    return np.array(values), np.array(addresses), np.array(flags, np.int64)
