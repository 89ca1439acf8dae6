"""A block that a mutant leaves as it was, and one that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.mutation.comparison import Comparison
from sim.mutation.mutants import Mutant
from sim.mutation.workplace import Workplace

ROOT = Path(__file__).parents[3]
MODULE = "sta_hw/rtl/control/controller.py"
OLD = "self.start | self.reset"


@pytest.mark.parametrize(("new", "equivalent"), [("self.reset | self.start", True), ("self.start", False)])
def test_a_block_alone(new: str, equivalent: bool, tmp_path: Path) -> None:
    source = (ROOT / MODULE).read_text(encoding="utf-8")
    start = source.encode().index(OLD.encode())
    mutant = Mutant(1, start, start + len(OLD), OLD, new)
    with Workplace(tmp_path) as place:
        assert Comparison(place).is_equivalent(MODULE, source, mutant, alone=True) == equivalent
    assert (tmp_path / MODULE).read_text(encoding="utf-8") == source
