"""What long work says of itself where no progress bar can be shown."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import typer

from sta_hw.cli.app import end
from sta_hw.cli.terminal import Watch, watched


def test_a_line_a_minute_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def work(watch: Watch) -> int:
        nonlocal now
        watch.step("loading")
        now += 59
        watch.step("pruning")
        now += 1
        watch(3, 4000)
        watch(4, 4000)
        now += 60
        watch.describe("pruning\x1b[31m the head")
        now += 600
        watch.step("running")
        return 5

    assert watched("work", "cycles", work) == 5
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "sta-hw: pruning, 3 of 4,000; 1 min so far",
        "sta-hw: pruning\\x1b[31m the head, 4 of 4,000; 2 min so far",
        "sta-hw: running; 12 min so far",
    ]


def test_interrupted_before_it_has_begun() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from sta_hw.cli.entry import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = (130, "", "sta-hw: interrupted; files are as they were, or whole.\n")
    assert (done.returncode, done.stdout, done.stderr) == wanted


def test_interrupted_in_the_middle(capfd: pytest.CaptureFixture[str]) -> None:
    """Typer makes an exit status of it, and says nothing."""
    only = typer.Typer()

    @only.command()
    def work() -> None:
        raise KeyboardInterrupt

    assert end(lambda: only([], standalone_mode=False)) == 130
    assert capfd.readouterr() == ("", "sta-hw: interrupted; files are as they were, or whole.\n")


def test_nobody_who_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has gone does not end the work."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("typer.echo", gone)

    def work(watch: Watch) -> str:
        nonlocal now
        now += 100
        watch.step("running")
        return "done"

    assert watched("work", "", work) == "done"
