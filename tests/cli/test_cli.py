"""The command line: exit statuses, messages, JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sta_hw.cli import doctor
from sta_hw.cli.app import app
from sta_hw.cli.main import HERE, MODULES, add_commands


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "from sta_hw.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd)


def test_each_command_is_in_the_module_that_is_imported_for_it() -> None:
    """And not those of other commands: together they are most of the package."""
    add_commands()
    found: dict[str, list[str]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        found.setdefault(command.callback.__module__.rpartition(".")[2], []).append(name)
    assert found == {"main": list(HERE)} | {module: list(names) for module, names in MODULES.items()}
    code = "import sys; from sta_hw.cli.main import add_commands; add_commands('fit'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "sta_hw.cli.fpga" in imported and not {"sta_hw.cli.run", "sta_hw.run.backends", "amaranth"} & {*imported}


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
        "generate", "--preset", "ci", "--softmax-lanes", "3", "--top", "softmax",
        "-o", str(tmp_path / "o"), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert all(Path(f).exists() for f in found["files"])
    assert found["configuration"]["rows"] == 4 and found["configuration"]["softmax_lanes"] == 3
    assert found["configuration"]["softmax_block"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "nothing"), "benchmark 'nothing' is unknown; it is engine, softmax, encoder, batch, accuracy,"),
        (("demo", "--nm", "3:5"), "M = 5 (in 3:5) is not supported"),
        (("demo", "--text", "word " * 600), "the model takes 512"),
        (("demo", "--text", ""), "the text is empty"),
        (("demo", "--preset", "nope"), "preset 'nope' is unknown"),
        (("generate", "--top", "accelerator", "--rows", "12"), "needs rows a power of two, and rows = 12"),
        (("run", "missing.npz"), "there is no file missing.npz; sta-hw compile makes"),
        (("run", "--backend", "gpu"), "backend 'gpu' is unknown; it is reference, rtl"),
        (("estimate", "--hidden", "100", "--heads", "7"), "heads = 7 does not divide hidden = 100; the nearest is 5"),
        (("estimate", "--heads", "7"), "heads = 7 does not divide hidden = 384; the nearest is 6"),
        (("compile", "--tokens", "0"), "tokens = 0 is out of range; it is from 1 to"),
        (("compile", "--model", "nowhere"), "model folder nowhere"),
        (("compile", "--nm-table", "none.json"), "N:M table none.json"),
        (("report", "-o", "/dev/null/x.html"), "cannot be written"),
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


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("exec sleep 60", "it does not end"),
        ("sleep 60 & echo 1.2.3", "it does not end"),  # what it started has its output
        ("head -c 3000 /dev/urandom | tr -d 0-9", "it says no version"),
        ("echo broken; exit 7", "broken"),
        ("kill -SEGV $$", "signal 11 ended it"),
        ("echo 1.2.3; echo more", None),
    ],
)
def test_doctor_tries_programs_out(
    program: str, why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they do, and in time; nothing that they started stays."""
    monkeypatch.setattr(doctor, "_SECONDS", 0.5)
    (tmp_path / "make").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool = doctor._program("make", "benches", True, "get it")
    assert tool.version == (None if why else "1.2.3")
    assert tool.remedy == (f"get it. ({tmp_path}/make is there: {why})" if why else "get it")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_ask_to_end(number: signal.Signals, tmp_path: Path) -> None:
    """As `timeout` and a closed terminal send them: the tool that runs is ended, and the working folder goes."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom sta_hw.cli.app import end\n"
        "from sta_hw.files import working_folder\nfrom sta_hw.process import run_tool\n"
        "def work():\n    with working_folder(Path('made')):\n        run_tool(['sleep', '45'])\n"
        "sys.exit(end(work))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # fmt: skip # under nohup, too
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (tools := children.read_text().split()):
        assert process.poll() is None
    time.sleep(0.3)  # Python has begun to wait for it
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert said == f"sta-hw: ended by {number.name}; files are as they were, or whole.\n"
    assert not [*(tmp_path / "made").iterdir()]
    state = Path(f"/proc/{tools[0]}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_compiler_that_makes_nothing(tmp_path: Path) -> None:
    assert doctor._compiles("true", "") == "it makes no library"
    assert doctor._compiles("false", "") and doctor._compiles(str(tmp_path), "") == "Permission denied"


def test_compile_then_run_on_both_backends(tmp_path: Path) -> None:
    """A real sentence on the reference hardware, from the command line; equal to the reference."""
    text = "Short."
    made = run(
        "compile",
        "--preset",
        "reference",
        "--nm",
        "1:4",
        "--pruner",
        "magnitude",
        "--text",
        text,
        "-o",
        "m.npz",
        "--listing",
        "--json",
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["tokens"] == 4
    assert (tmp_path / "m.txt").read_text().startswith("load ")
    found = []
    for name in ("reference", "rtl"):
        result = run("run", "m.npz", "--text", text, "--backend", name, "--json", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout))
    assert found[0]["embedding"] == found[1]["embedding"]
    assert found[1]["cycles"] > found[1]["ideal_cycles"] and found[1]["equal_to_reference"]
    wrong = run("run", "m.npz", "--text", "A longer text than that.", cwd=tmp_path)
    assert wrong.returncode == 2 and "was compiled for up to 4 tokens" in wrong.stderr
    page = run("report", "m.npz", "--text", text, "-o", "r.html", "--json", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert json.loads(page.stdout)["speedup_over_dense"] > 2 and "fit" not in page.stderr
    html = (tmp_path / "r.html").read_text()
    assert html.count("<svg") == 2 and "http" not in html.split("</style>")[1].split("<svg")[0]
    events = json.loads((tmp_path / "r.json").read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X", "C"}


def test_estimate_scales_with_layers() -> None:
    found = []
    for layers in ("1", "2", "12"):
        result = run("estimate", "--layers", layers, "--tokens", "32", "--json")
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout)["cycles"])
    # A layer begins while the one before ends, so the first one's share is a little other than the next ones'.
    assert found[2] == pytest.approx(found[1] + 10 * (found[1] - found[0]), rel=0.005)
