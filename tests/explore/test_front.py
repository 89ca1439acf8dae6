"""The front: against a search by definition; which points are best."""

from __future__ import annotations

import dataclasses

import numpy as np

from sta_hw.explore.front import Found, best, with_front
from sta_hw.spec.presets import PRESETS

CONFIGS = [dataclasses.replace(PRESETS["small"], outstanding=n) for n in range(1, 9)]
ROW = Found(
    "h", CONFIGS[0], "m", "2:4", 8, logic=100, multipliers=1, memories=1, fits="yes", first="logic", share=0.1,
    cycles=10, milliseconds=1.0, fraction_of_ideal=0.9, bytes=1, cosine=None, smallest_cosine=None, problems=(),
)  # fmt: skip


def random_rows(rng: np.random.Generator, accuracy: bool) -> list[Found]:
    """Few values, so that many are equal in something; a tenth is not valid."""
    return [
        dataclasses.replace(
            ROW, config=CONFIGS[rng.integers(8)], model="ab"[rng.integers(2)], nm=["2:4", "1:4"][rng.integers(2)],
            tokens=int(rng.integers(1, 3)), logic=int(rng.integers(1, 6)), milliseconds=float(rng.integers(1, 6)),
            cosine=float(rng.integers(1, 4)) / 4 if accuracy else None,
            problems=("no.",) if rng.random() < 0.1 else (),
        )
        for _ in range(60)
    ]  # fmt: skip


def as_good(a: Found, b: Found) -> bool:
    return a.logic <= b.logic and a.milliseconds <= b.milliseconds and (a.cosine or 0) >= (b.cosine or 0)


def test_the_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(1)
    for accuracy in (True, False) * 5:
        rows = random_rows(rng, accuracy)
        marked = with_front(rows)
        assert [dataclasses.replace(r, front=False) for r in marked] == rows
        for row in marked:
            rivals = [
                r for r in rows
                if not r.problems and (r.model, r.tokens) == (row.model, row.tokens)
                and (accuracy or r.nm == row.nm)
            ]  # fmt: skip
            beaten = any(as_good(r, row) and not as_good(row, r) for r in rivals)
            assert row.front == (not row.problems and not beaten)
        assert 1 < sum(r.front for r in marked) < 50


def test_equal_points_are_both_on_the_front() -> None:
    twins = [ROW, dataclasses.replace(ROW, hardware="twin")]
    assert all(row.front for row in with_front(twins))


def test_the_best_have_the_smallest_product_and_different_configurations() -> None:
    rows = with_front(
        [
            dataclasses.replace(ROW, config=config, logic=logic, milliseconds=ms, nm=nm)
            for config, logic, ms, nm in (
                (CONFIGS[0], 10, 10.0, "2:4"), (CONFIGS[1], 20, 2.0, "2:4"), (CONFIGS[2], 40, 1.5, "2:4"),
                (CONFIGS[3], 40, 9.0, "2:4"), (CONFIGS[1], 20, 200.0, "1:4"), (CONFIGS[4], 10, 600.0, "1:4"),
            )
        ]
    )  # fmt: skip
    # Of 2:4: 100, 40 and 60 (the fourth is beaten); of 1:4, whose times are others: 4,000 and 6,000.
    assert [CONFIGS.index(r.config) for r in best(rows, 9)] == [1, 4, 2, 0]
    assert [CONFIGS.index(r.config) for r in best(rows, 2)] == [1, 4]
    assert best(rows, 0) == []
