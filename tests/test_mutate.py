"""Mutants of the sources: what is changed, and a few that tests find or do not."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("mutate", ROOT / "scripts" / "mutate.py")
assert _SPEC and _SPEC.loader
mutate = importlib.util.module_from_spec(_SPEC)
sys.modules["mutate"] = mutate
_SPEC.loader.exec_module(mutate)


def test_each_kind_of_change() -> None:
    source = (
        "def f(a: int = 3) -> int:\n    m.d.sync += a.eq(1)\n    with m.If(a & b):\n        pass\n"
        "    if not a < 2:\n        raise ValueError('7' + str(8))\n    return Mux(a, b, c) if ~a else True\n"
    )
    found = {(m.old, m.new) for m in mutate.mutants(source)}
    assert {
        ("3", "4"), ("3", "2"), ("m.d.sync += a.eq(1)", "pass"), ("m.If(a & b)", "(m.If(~(a & b).bool()))"),
        ("a < 2", "(a <= 2)"), ("not a < 2", "(a < 2)"), ("Mux(a, b, c)", "(Mux(a, c, b))"), ("~a", "(a)"),
        ("True", "False"), ("a & b", "(a | b)"),
    } <= found  # fmt: skip
    assert not any("8" in old for old, _ in found), "what errors say is left alone"


def test_every_mutant_is_python() -> None:
    for module in ("sta_hw/rtl/primitives/queue.py", "sta_hw/spec/records.py", "sta_hw/rtl/units/results.py"):
        source = (ROOT / module).read_text(encoding="utf-8")
        for mutant in mutate.mutants(source):
            ast.parse(mutate.mutated(source, mutant))


def test_modules_have_tests() -> None:
    modules = mutate.all_modules()
    assert len(modules) > 50
    for module in modules:
        assert all((ROOT / test).exists() for test in mutate.tests_of(module)), module


def test_what_lives_and_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a module of its own, in a copy of a project of two files."""
    (tmp_path / "from" / "sta_hw" / "spec").mkdir(parents=True)
    (tmp_path / "from" / "tests" / "spec").mkdir(parents=True)
    (tmp_path / "from" / "sta_hw" / "spec" / "sums.py").write_text("def f(a):\n    return a + 1 if a > 5 else 0\n")
    (tmp_path / "from" / "tests" / "spec" / "test_sums.py").write_text(
        "import pathlib, sys\nsys.path.insert(0, str(pathlib.Path('sta_hw/spec').resolve()))\n"
        "from sums import f\n\n\ndef test_f():\n    assert f(9) == 10\n"
    )
    monkeypatch.setattr(mutate, "ROOT", tmp_path / "from")
    module = "sta_hw/spec/sums.py"
    source = (tmp_path / "from" / module).read_text()
    with mutate.Workplace(tmp_path / "to") as place:
        ended = {(m.old, m.new): place.outcome(module, source, m)[0] for m in mutate.mutants(source)}
    assert ended["a + 1", "(a - 1)"] == "found" and ended["1", "2"] == "found"
    assert ended["0", "1"] == "lives" and ended["a > 5", "(a >= 5)"] == "lives"
    assert (tmp_path / "to" / module).read_text() == source


def test_the_table_leaves_out_what_no_test_can_see() -> None:
    """An equivalent mutant counts neither as found nor as alive, be it proved or argued; each that lives is listed."""
    found = {"line": 1, "old": "a", "new": "b", "ended": "found"}
    lives = found | {"ended": "lives", "new": "c"}
    argued = lives | {"new": "d", "why": "Equivalent: it is never read."}
    equal = found | {"ended": "equivalent", "new": "e"}
    said = mutate.table({"sta_hw/rtl/x.py": {"all": 9, "mutants": [found, found, found, lives, argued, equal]}})
    assert "| rtl/x.py | 9 | 6 | 3 | 1 | 1 | 1 | 0 | 75.0 |" in said
    assert "`c`" in said and "`d`. Equivalent: it is never read." in said and "`e`" not in said


SAMPLED = {"sta_hw/rtl/control/controller.py": 5, "sta_hw/rtl/engine/requantizer.py": 5}
"""Blocks whose tests take seconds, and how many mutants of each are tried."""


@pytest.mark.parametrize("module", SAMPLED)
def test_a_sample_of_blocks_is_found(module: str, tmp_path: Path) -> None:
    """Drawn from all of a block but the log's equivalent ones; its own test fails with each, or it cannot be
    elaborated."""
    source = (ROOT / module).read_text(encoding="utf-8")
    log = json.loads((ROOT / "scripts" / "results" / "mutation.json").read_text())[module]["mutants"]
    equal = {(m["start"], m["new"]) for m in log if m["ended"] == "equivalent" or mutate.is_argued(m)}
    every = [m for m in mutate.mutants(source) if (m.start, m.new) not in equal]
    chosen = random.Random(3).sample(every, SAMPLED[module])
    with mutate.Workplace(tmp_path) as place:
        lives = [m for m in chosen if place.outcome(module, source, m)[0] == "lives"]
    assert not lives
