"""How a channel is shared among its clients: shares by hand."""

from __future__ import annotations

import pytest

from sta_hw.cycles.flows import shares


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
    assert shares(demands, free) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("demands", "bursts", "expected"),
    [
        ([1.0, 1.0], [4, 32], [1 / 9, 8 / 9]),  # a program's lines beside a LOAD
        ([0.3, 1.0], [4, 32], [1 / 9, 8 / 9]),
        ([0.1, 1.0], [4, 32], [0.1, 0.9]),
        ([1.0, 0.0, 1.0], [32, 8, 8], [0.8, 0.0, 0.2]),
        ([1.0, 1.0, 1.0], [4, 12, 12], [0.25, 0.75, 0.0]),
        ([0.5, 0.2], [4, 32], [0.5, 0.2]),
    ],
)
def test_clients_take_turns_by_bursts(demands: list[float], bursts: list[float], expected: list[float]) -> None:
    assert shares(demands, 1.0, bursts) == pytest.approx(expected)
