"""Runs: the places of a sequence where it repeats itself, all of them, whatever the period."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["runs"]


def _ranks(tokens: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Numbers of the substrings of 1, 2, 4, ... tokens that begin at each place: equal where they are."""
    found = [np.unique(tokens, return_inverse=True)[1].astype(np.int64)]
    size = 1
    while 2 * size <= len(tokens):
        before = found[-1]
        pairs = before[:-size] * (int(before.max()) + 1) + before[size:]
        found.append(np.unique(pairs, return_inverse=True)[1].astype(np.int64))
        size *= 2
    return found


def runs(tokens: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Maximal repetitions: (first, end, period), at least twice the period long, the period as short as it can be.

    A repetition of period p has two places k p and (k + 1) p; what is equal before and behind the two is its extent
    (Main and Lorentz, "An O(n log n) algorithm for finding all repetitions in a string", 1984), found here for all
    pairs at once by prefix doubling.
    """
    n = len(tokens)
    if n < 2:
        return []
    ranks = _ranks(tokens)
    counts = (n - 1) // np.arange(1, n // 2 + 1)
    periods = np.repeat(np.arange(1, n // 2 + 1), counts)
    at = (np.arange(len(periods)) - np.repeat(np.cumsum(counts) - counts, counts)) * periods
    same = ranks[0][at] == ranks[0][at + periods]
    at, periods = at[same], periods[same]
    ahead, behind = at.copy(), at.copy()  # the first place that differs, and the first of those that are equal
    for level in range(len(ranks) - 1, -1, -1):
        rank, size = ranks[level], 1 << level
        # Forwards: places `ahead` on, as long as the substrings of `size` tokens are equal.
        inside = np.flatnonzero(ahead + periods + size <= n)
        equal = inside[rank[ahead[inside]] == rank[ahead[inside] + periods[inside]]]
        ahead[equal] += size
        inside = np.flatnonzero(behind >= size)
        equal = inside[rank[behind[inside] - size] == rank[behind[inside] - size + periods[inside]]]
        behind[equal] -= size
    long = ahead - behind >= periods
    found: dict[tuple[int, int], list[int]] = {}
    triples = np.stack([behind[long], ahead[long] + periods[long], periods[long]], axis=1)
    for first, end, period in np.unique(triples, axis=0).tolist():
        shorter = found.setdefault((first, end), [])
        if all(period % p for p in shorter):
            shorter.append(period)
    return [(first, end, period) for (first, end), each in found.items() for period in each]
