"""The cycle model's parts; `test_bench` compares the whole with RTL."""

from __future__ import annotations

import pytest

from sta_hw.perf.flows import _shares


@pytest.mark.parametrize(
    ("demands", "free", "expected"),
    [
        ([0.3, 0.2], 1.0, [0.3, 0.2]),  # enough for all
        ([1.0, 1.0], 1.0, [0.5, 0.5]),  # two that always ask take turns
        ([1.0, 0.1], 1.0, [0.9, 0.1]),
        ([0.1, 1.0, 1.0], 1.0, [0.1, 0.5, 0.4]),
        ([1.0, 0.0, 1.0], 0.8, [0.4, 0.0, 0.4]),
        ([1.0, 1.0, 1.0], 1.0, [0.5, 0.5, 0.0]),  # the first two answer each other's turn
        ([0.0, 0.0], 1.0, [0.0, 0.0]),
        ([1.0, 1.0], 0.0, [0.0, 0.0]),
    ],
)
def test_shares(demands: list[float], free: float, expected: list[float]) -> None:
    assert _shares(demands, free) == pytest.approx(expected)
