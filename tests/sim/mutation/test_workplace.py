"""A few mutants that tests find or do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.mutation.mutants import mutants
from sim.mutation.workplace import Workplace
from sta_hw.errors import CheckError

MODULE = "sta_hw/spec/sums.py"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of a module and its test."""
    root = tmp_path / "from"
    (root / "sta_hw" / "spec").mkdir(parents=True)
    (root / "tests" / "spec").mkdir(parents=True)
    (root / MODULE).write_text("def f(a):\n    return a + 1 if a > 5 else 0\n")
    (root / "tests" / "spec" / "test_sums.py").write_text(
        "import pathlib, sys\nsys.path.insert(0, str(pathlib.Path('sta_hw/spec').resolve()))\n"
        "from sums import f\n\n\ndef test_f():\n    assert f(9) == 10\n"
    )
    return root


def test_what_lives_and_what_is_found(project: Path, tmp_path: Path) -> None:
    """Whatever becomes of a mutant, the copy is as it was."""
    source = (project / MODULE).read_text()
    with Workplace(tmp_path / "to", project) as place:
        ended = {(m.old, m.new): place.outcome(MODULE, source, m)[0] for m in mutants(source)}
    assert ended["a + 1", "(a - 1)"] == "found" and ended["1", "2"] == "found"
    assert ended["0", "1"] == "lives" and ended["a > 5", "(a >= 5)"] == "lives"
    assert (tmp_path / "to" / MODULE).read_text() == source


def test_tests_that_fail_without_a_mutant(project: Path, tmp_path: Path) -> None:
    source = "def f(a):\n    return a + 2\n"
    (project / MODULE).write_text(source)
    with Workplace(tmp_path / "to", project) as place, pytest.raises(CheckError, match=r"test_sums\.py fail without"):
        place.outcome(MODULE, source, mutants(source)[0])
