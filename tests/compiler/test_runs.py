"""Runs: compared with all repetitions found one by one."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.compiler.runs import runs


def one_by_one(tokens: list[int]) -> set[tuple[int, int, int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for period in range(1, len(tokens) // 2 + 1):
        at = 0
        while at + period < len(tokens):
            end = at
            while end + period < len(tokens) and tokens[end] == tokens[end + period]:
                end += 1
            if end - at >= period:
                shorter = found.setdefault((at, end + period), [])
                if all(period % p for p in shorter):
                    shorter.append(period)
            at = max(end, at + 1)
    return {(a, b, p) for (a, b), each in found.items() for p in each}


@pytest.mark.parametrize("seed", range(20))
def test_all_repetitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        tokens = rng.integers(0, rng.integers(1, 4), rng.integers(0, 40))
        assert one_by_one(tokens.tolist()) == set(runs(tokens)), tokens


def test_long_ones() -> None:
    piece = np.arange(250)
    tokens = np.concatenate([np.tile(piece, 9), piece[:100], [-1], np.zeros(500, np.int64)])
    found = set(runs(tokens.astype(np.int64)))
    assert {(0, 2350, 250), (2351, 2851, 1)} <= found
