"""Benchmarks: their one shape, their bars, and the figures of those that are quick."""

from __future__ import annotations

import json

import pytest

from sta_hw.bench import BENCHES, Figure, Report, explore
from sta_hw.spec.presets import PRESETS


def test_bars() -> None:
    assert Figure("f", 0.97, "1", ">= 0.97").ok and not Figure("f", 0.9699, "1", ">= 0.97").ok
    assert Figure("f", 60.0, "s", "<= 60").ok and not Figure("f", 60.1, "s", "<= 60").ok
    report = Report("x", PRESETS["ci"], [], [Figure("f", 1, "1", ">= 2"), Figure("g", 2, "1", ">= 2")])
    assert not report.ok


def test_exploration_with_a_worker_killed() -> None:
    """The bench itself, with few points."""
    rows, (one, other) = explore.undisturbed_and_killed(explore.points()[:500:125], 1)
    assert one == other and len(one) == 4 and [row["killed"] for row in rows] == [0, 1]
    assert len(explore.points()) == 500


# The others take minutes, or measure time: they belong to `make bench`; test_model.py has a sample of `model`.
@pytest.mark.parametrize("name", ["engine", pytest.param("softmax", marks=pytest.mark.slow)])
def test_every_figure_reaches_its_bar(name: str) -> None:
    report = BENCHES[name]()
    found = json.loads(json.dumps(report.as_dict()))
    assert list(found) == ["bench", "configuration", "tools", "rows", "figures"]
    assert found["tools"]["verilator"] and found["rows"]
    for figure in found["figures"]:
        assert list(figure) == ["name", "value", "unit", "bar", "ok"]
    assert report.ok, [f for f in report.figures if not f.ok]
