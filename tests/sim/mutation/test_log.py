"""What is kept of mutants, what is tried again, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.mutation.log import Log, table
from sim.mutation.mutants import Mutant, mutants
from sta_hw.errors import InputError

MODULE = "sta_hw/spec/sums.py"
TEST = "tests/spec/test_sums.py"
SOURCE = "def f(a):\n    return a + 1 if a > 5 else 0\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of a module and its test."""
    for name, text in ((MODULE, SOURCE), (TEST, "")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def kept(project: Path) -> tuple[Log, list[Mutant]]:
    """The file's log, begun, and all mutants of the module."""
    path, every = project / "log.json", mutants((project / MODULE).read_text())
    log = Log.read(path, project) if path.exists() else Log(path, project)
    log.begin(MODULE, len(every))
    return log, every


def test_what_is_there_is_not_tried_again(project: Path) -> None:
    log, every = kept(project)
    assert log.to_try(MODULE, every) == every and not log.tried()
    log.save()
    assert json.loads((project / "log.json").read_text()) == {}
    log.add(MODULE, every[0], "found", "assert 1 == 2")
    log.add(MODULE, every[1], "lives", "")
    log.save()
    log, every = kept(project)
    assert log.to_try(MODULE, every) == every[2:] and log.to_try(MODULE, every[:2]) == []
    assert [m["ended"] for m in log.tried()[MODULE]["mutants"]] == ["found", "lives"]


def test_a_module_that_changes_is_begun_anew(project: Path) -> None:
    log, every = kept(project)
    log.add(MODULE, every[0], "found", "")
    log.save()
    (project / MODULE).write_text(SOURCE + "\n")
    log, every = kept(project)
    assert log.to_try(MODULE, every) == every and not log.tried()


def test_what_lived_is_tried_again_when_tests_change(project: Path) -> None:
    """Outside the sample as well, and until then it is there with its reason; a reason stays with what lives again."""
    log, every = kept(project)
    for mutant, ended in zip(every, ("found", "lives", "lives", "lives"), strict=False):
        log.add(MODULE, mutant, ended, "")
    for m in log.rows[MODULE]["mutants"][1:]:
        m["why"] = f"Equivalent: {m['new']}."
    log.save()
    (project / TEST).write_text("# changed")
    log, every = kept(project)
    assert log.to_try(MODULE, every[:1]) == every[1:4]
    assert list(log.uncompared(MODULE, alone=True)) == []
    log.add(MODULE, every[1], "found", "assert 0")
    log.add(MODULE, every[2], "lives", "")
    log.save()
    log, every = kept(project)
    assert log.to_try(MODULE, every[:1]) == [every[3]]
    found = [(m["ended"], m.get("why")) for m in log.rows[MODULE]["mutants"]]
    assert found == [("found", None), ("found", None), *(("lives", f"Equivalent: {m.new}.") for m in every[2:4])]


def test_comparisons_of_whole_accelerators_count_for_blocks(project: Path) -> None:
    log, every = kept(project)
    for mutant in every[:3]:
        log.add(MODULE, mutant, "lives", "")
    log.compared(MODULE, every[0], alone=True, equivalent=False)
    log.compared(MODULE, every[1], alone=False, equivalent=False)
    log.compared(MODULE, every[2], alone=True, equivalent=True)
    assert list(log.uncompared(MODULE, alone=True)) == []
    assert list(log.uncompared(MODULE, alone=False)) == [every[0]]
    assert log.rows[MODULE]["mutants"][2]["ended"] == "equivalent"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": 1}', '{"a": {"mutants": []}}', '{"a": {"key": "", "tests_key": "", "all": 1}}',
     '{"a": {"key": "", "tests_key": "", "all": 1, "mutants": [{"line": 1}]}}'],
)  # fmt: skip
def test_what_is_no_log_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(InputError, match=r"log of mutants"):
        Log.read(tmp_path / "log.json")


def test_the_table_leaves_out_what_no_test_can_see() -> None:
    """An equivalent mutant counts neither as found nor as alive, be it proved or argued; each that lives is listed."""
    found = {"line": 1, "old": "a", "new": "b", "ended": "found"}
    lives = found | {"ended": "lives", "new": "c"}
    argued = lives | {"new": "d", "why": "Equivalent: it is never read."}
    equal = found | {"ended": "equivalent", "new": "e"}
    said = table({"sta_hw/rtl/x.py": {"all": 9, "mutants": [found, found, found, lives, argued, equal]}})
    assert "| rtl/x.py | 9 | 6 | 3 | 1 | 1 | 1 | 0 | 75.0 |" in said
    assert "`c`" in said and "`d`. Equivalent: it is never read." in said and "`e`" not in said
    assert "| rtl/y.py | 9 | 1 | 0 | 0 | 1 | 0 | 0 | none to find |" in table(
        {"sta_hw/rtl/y.py": {"all": 9, "mutants": [equal]}}
    )
