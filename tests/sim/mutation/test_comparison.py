"""A block that a mutant leaves as it was, and one that it does not."""

from __future__ import annotations

from pathlib import Path

from sim.mutation.comparison import Comparison
from sim.mutation.mutants import Mutant
from sim.mutation.workplace import Workplace

ROOT = Path(__file__).parents[3]
MODULE = "sta_hw/rtl/control/controller.py"
OLD = "self.start | self.reset"


def test_a_block_alone(tmp_path: Path) -> None:
    """Of what is beside the block it says nothing where the block stays as it is: other blocks may use it."""
    source = (ROOT / MODULE).read_text(encoding="utf-8")
    changes = [
        (OLD, "self.reset | self.start", True), (OLD, "self.start", False),
        ("Members", "Ports", True), ("__all__", "every", False),
    ]  # fmt: skip
    with Workplace(tmp_path) as place:
        comparison = Comparison(place)
        for old, new, equivalent in changes:
            start = source.encode().index(old.encode())
            mutant = Mutant(source[:start].count("\n") + 1, start, start + len(old), old, new)
            assert comparison.is_equivalent(MODULE, source, mutant, alone=True) == equivalent, new
    assert (tmp_path / MODULE).read_text(encoding="utf-8") == source
