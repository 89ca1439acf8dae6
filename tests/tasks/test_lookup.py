"""Drafts are what followed the last tokens where they stood before."""

from __future__ import annotations

import numpy as np

from sta_hw.tasks.lookup import LONGEST, looked_up


def test_what_followed() -> None:
    assert looked_up([5, 6, 7, 8, 1, 5, 6], 3) == [7, 8, 1]
    assert looked_up([5, 6, 7, 5, 6, 8, 5, 6], 2) == [8, 5]  # the last place
    assert looked_up([1, 5, 6, 7, 2, 5, 6, 8, 1, 5, 6], 1) == [7]  # the longest ending
    assert looked_up([3, 3, 3, 3], 4) == [3]
    assert looked_up([1, 2, 3], 4) == looked_up([1], 4) == looked_up([], 4) == looked_up([1, 1], 0) == []


def test_against_every_place() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        ids = rng.integers(0, 4, rng.integers(2, 20)).tolist()
        found = looked_up(ids, 5)
        places = [
            (count, start) for count in range(1, LONGEST + 1) for start in range(len(ids) - count)
            if count < len(ids) and ids[start : start + count] == ids[len(ids) - count :]
        ]  # fmt: skip
        if not places:
            assert found == []
            continue
        count, start = max(places)
        assert found == ids[start + count :][:5] and found
