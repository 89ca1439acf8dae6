"""A program whose bus fails, or which is reset, at random places; `python -m sim.soak.faults` tries all of them."""

from __future__ import annotations

import numpy as np
import pytest

from sim.soak.__main__ import HARDWARE
from sim.soak.faults import FaultBench
from sim.soak.trial import DifferenceError


@pytest.fixture(scope="module")
def bench() -> FaultBench:
    return FaultBench(HARDWARE["ci, decoder"], 1500, tried=8)


def test_a_sample_of_all_faults(bench: FaultBench) -> None:
    result = bench.all_faults(25, 3)
    assert not result["wrong"], result["wrong"][:2]
    assert 300 < result["cycles"] < 10_000
    counts = result["faults"]
    assert sum(counts["resets by register"].values()) == sum(counts["resets by wire"].values()) == 25
    assert counts["resets by register"]["was under way"] > 15
    assert counts["bus errors"].get("READ", 0) > 3 and counts["late answers"]["right"] == 9


def test_wrong_bytes_are_found(bench: FaultBench) -> None:
    """The checks look at the result."""
    bench.expected = bench.expected.copy()
    try:
        bench.expected[np.flatnonzero(bench.expected != bench.subject.image)[0]] ^= 1
        for fault in (lambda: bench.late(5), lambda: bench.reset(3, by_wire=True), lambda: bench.fail(0)):
            with pytest.raises(DifferenceError):
                fault()
    finally:
        bench.expected = FaultBench(HARDWARE["ci, decoder"], 1500, tried=8).expected
