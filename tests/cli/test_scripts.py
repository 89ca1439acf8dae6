"""Scripts end as commands do: each error is a sentence and an exit status; what they would ignore is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
import typer

from sta_hw.cli.app import Unused, end, script
from sta_hw.errors import CheckError, InputError, ToolError

SCRIPTS = Path(__file__).parents[2] / "scripts"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(InputError("bad."), 2, "sta-hw: bad.\n"), (CheckError("unequal."), 1, "sta-hw: check failed: unequal.\n"),
     (ToolError("full."), 3, "sta-hw: full.\n"), (typer.Exit(1), 1, ""), (None, 0, "")],
)  # fmt: skip
def test_how_a_script_ends(
    error: Exception | None, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        if error:
            raise error

    monkeypatch.setattr("sys.argv", ["script.py"])
    with pytest.raises(SystemExit) as ended:
        script(main)
    assert ended.value.code == status and capsys.readouterr().err == said


@pytest.mark.parametrize(("words", "status"), [(["--a", "1"], 0), (["--a", "1", "--b"], 2), (["--c"], 2)])
def test_options_of_a_script(words: list[str], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(a: Annotated[int, typer.Option()] = 0, b: Annotated[bool, typer.Option("--b")] = False) -> None:
        pass

    monkeypatch.setattr("sys.argv", ["script.py", *words])
    with pytest.raises(SystemExit) as ended:
        script(main, [Unused(("a",), lambda o: o["b"], "with --b")])
    assert ended.value.code == status


@pytest.mark.parametrize(
    ("words", "said"),
    [(["run", "--counters", "x"], "run does not look at --counters"),
     (["table", "--seconds", "3", "--go-on"], "table does not look at --seconds, --go-on"),
     (["add-up", "x"], "add-up does not look at files"), (["gaps", "x", "--json"], "gaps does not look at --json")],
)  # fmt: skip
def test_what_a_task_of_coverage_ignores(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    cover = loaded("cover")
    given = cover.options().parse_args(words)
    assert end(lambda: cover.main(given)) == 2
    assert capsys.readouterr().err == f"sta-hw: {said}; leave that out.\n"
