"""The command line: exit statuses, messages, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "from sta_hw.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd)


def test_all_problems_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(
        "generate", "--rows", "0", "--window", "12", "--nm", "2:24,5:4", "--preset", "nope", "--top", "cpu",
        "-o", str(tmp_path / "file"),
    )  # fmt: skip
    assert result.returncode == 2 and not result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 7 and all(line.startswith("sta-hw: ") for line in lines)
    for part in (
        "preset 'nope' is unknown", "rows = 0", "window = 12", "M = 24", "N = 5", "top 'cpu'", "cannot be written",
    ):  # fmt: skip
        assert sum(part in line for line in lines) == 1, part


def test_a_narrower_window_than_the_preset_is_told(tmp_path: Path) -> None:
    result = run("generate", "--nm", "2:32", "-o", str(tmp_path))
    assert result.returncode == 2 and "choose window 32" in result.stderr


def test_generate_json(tmp_path: Path) -> None:
    result = run(
        "generate", "--preset", "ci", "--rows", "3", "--nm", "2:4,dense", "--softmax-lanes", "3", "--top", "softmax",
        "-o", str(tmp_path / "o"), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert all(Path(f).exists() for f in found["files"])
    assert found["configuration"]["rows"] == 3 and found["configuration"]["nm"] == ["2:4", "dense"]
    assert found["configuration"]["softmax_block"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "nothing"), "benchmark 'nothing' is unknown; it is engine, softmax."),
        (("demo", "--nm", "3:5"), "M = 5 (in 3:5) is not supported"),
        (("demo", "--text", "word " * 400), "this command runs up to 128"),
        (("demo", "--text", ""), "the text is empty"),
        (("generate", "--rows", "many"), "Invalid value for '--rows'"),
    ],
)
def test_bad_input_is_status_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_doctor() -> None:
    result = run("doctor", "--json")
    found = json.loads(result.stdout)
    versions = {t["name"]: t["version"] for t in found["tools"]}
    assert versions["amaranth"] == "0.5.10" and versions["g++"]
    assert result.returncode == (1 if found["missing"] else 0)
    assert all(t["remedy"] for t in found["tools"])


@pytest.mark.parametrize("command", ["generate", "demo", "bench", "doctor"])
def test_help_has_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0 and f"Example: sta-hw {command}" in " ".join(result.stdout.split())
