"""Options of the script that would be ignored, and a sample of mutants."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

from sim.mutation.log import is_equivalent
from sim.mutation.mutants import mutants
from sim.mutation.workplace import Workplace
from sta_hw.cli.app import end

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("mutate", ROOT / "scripts" / "mutate.py")
assert _SPEC and _SPEC.loader
mutate = importlib.util.module_from_spec(_SPEC)
sys.modules["mutate"] = mutate
_SPEC.loader.exec_module(mutate)

LOG = str(ROOT / "scripts" / "results" / "mutation.json")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--table"], "name it with --log"),
        (["--table", "--log", LOG, "--json"], "leave out --json"),
        (["--table", "--log", LOG, "--sample", "3", "--alone"], "leave out --sample, --alone"),
        (["--table", "--log", LOG, "--seed", "0", "sta_hw/rtl/core.py"], "leave out modules, --seed"),
        (["--table", "--log", "absent.json"], "absent.json cannot be read"),
        (["--later", "--alone"], "nothing for --alone"),
        (["scripts/mutate.py"], "scripts/mutate.py is no module below sta_hw"),
    ],
)
def test_what_would_be_ignored_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = mutate.options().parse_args(options)
    assert end(lambda: mutate.run(given)) == 2
    printed = capsys.readouterr()
    assert said in printed.err and not printed.out


@pytest.mark.parametrize("options", [["--sample", "0"], ["--sample", "few"], ["--seconds", "-1"], ["--seconds", "nan"]])
def test_numbers_that_are_none(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        mutate.options().parse_args(options)
    assert ended.value.code == 2 and f"argument {options[0]}: {options[1]} is no" in capsys.readouterr().err


def test_the_table_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/mutation.md has it."""
    assert end(lambda: mutate.run(mutate.options().parse_args(["--table", "--log", LOG]))) == 0
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "mutation.md").read_text(encoding="utf-8")


SAMPLED = {"sta_hw/rtl/control/controller.py": 5, "sta_hw/rtl/engine/requantizer.py": 5}
"""Blocks whose tests take seconds, and how many mutants of each are tried."""


@pytest.mark.parametrize("module", SAMPLED)
def test_a_sample_of_blocks_is_found(module: str, tmp_path: Path) -> None:
    """Drawn from all of a block but the log's equivalent ones; its own test fails with each, or it cannot be
    elaborated."""
    source = (ROOT / module).read_text(encoding="utf-8")
    log = json.loads(Path(LOG).read_text())[module]["mutants"]
    equal = {(m["start"], m["new"]) for m in log if is_equivalent(m)}
    every = [m for m in mutants(source) if (m.start, m.new) not in equal]
    chosen = random.Random(3).sample(every, SAMPLED[module])
    with Workplace(tmp_path) as place:
        lives = [m for m in chosen if place.outcome(module, source, m)[0] == "lives"]
    assert not lives
