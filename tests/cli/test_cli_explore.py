"""`sta-hw explore`: a sweep, its resumption, its table and picture; whatever is wrong is a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support import hears_ctrl_c
from test_cli_sparsity import run

from sta_hw.explore.question import Question
from sta_hw.explore.store import Store

SHAPE = ("--shape", "hidden=64,heads=2,layers=1")
SWEEP = ("explore", *SHAPE, "--set", "rows=4,64", "--set", "groups=2,4", "--nm", "dense,2:4", "--workers", 1)


def test_sweep_then_more(tmp_path: Path) -> None:
    store, image = tmp_path / "new/e.sqlite", tmp_path / "new/e.svg"
    found = json.loads(run(*SWEEP, "--tokens", "8", "-o", store, "--json").stdout)
    assert (found["computed"], found["kept"], found["failed"]) == (6, 0, [])
    (refused,) = found["refused"]
    assert (refused["name"], refused["points"]) == ("rows=64 groups=2", 2) and "rows at most" in refused["problems"][0]
    points = {(p["hardware"], p["nm"]): p for p in found["points"]}
    assert set(points) == {
        (f"rows={r} groups={g}", nm) for r, g in [(4, 2), (4, 4), (64, 4)] for nm in ("dense", "2:4")
    }
    dense = points["rows=4 groups=4", "dense"]
    assert dense["config"]["rows"] == dense["config"]["lanes"] == 4 and 2 * dense["config"]["drain_lanes"] <= 4
    assert dense["milliseconds"] == pytest.approx(dense["cycles"] / 80_000) and dense["fits"] == "yes"
    assert ElementTree.parse(image).getroot().tag.endswith("svg")
    first = image.read_bytes()
    # The same, and more: only what is new is computed; the time follows the clock without computing.
    again = json.loads(run(*SWEEP, "--tokens", "8", "--megahertz", 40, "-o", store, "--json").stdout)
    assert (again["computed"], again["kept"]) == (0, 6)
    assert again["points"][0]["milliseconds"] == pytest.approx(2 * found["points"][0]["milliseconds"])
    more = run(*SWEEP, "--tokens", "8,12", "-o", store)
    assert "16 points: 8 valid" in more.stdout and "6 answers computed, 6 kept from before" in more.stdout
    lines = more.stdout.splitlines()
    table = lines[1 : next(n for n, line in enumerate(lines) if line.startswith("The front"))]
    assert max(map(len, table)) <= 80 and any("rows=4 groups=4" in line for line in table)
    assert "4 points, rows=64 groups=2: the accelerator needs rows at most groups x window = 32" in more.stdout
    run(*SWEEP, "--tokens", "8", "-o", store)
    assert image.read_bytes() == first  # the same figures are the same picture


def test_synthesis_is_told(tmp_path: Path) -> None:
    store = tmp_path / "e.sqlite"
    only = ("explore", *SHAPE, "--preset", "tiny", "--nm", "2:4", "--tokens", 4, "--workers", 1, "-o", store)
    (point,) = json.loads(run(*only, "--json").stdout)["points"]
    question = Question("synthesis", {"configuration": point["config"], "part": "lfe5u-85f"})
    with Store(store) as file:
        file.keep(question, {"logic": round(point["logic"] / 1.02), "multipliers": 9, "memories": 99})
    (confirmed,) = json.loads(run(*only, "--confirm", 2, "--json").stdout)["confirmed"]
    assert confirmed["difference"] == pytest.approx(0.02, abs=1e-3) and confirmed["fits"]
    assert "+2.0%" in run(*only, "--confirm", 2).stdout


def test_nothing_valid_is_bad_input(tmp_path: Path) -> None:
    store = tmp_path / "e.sqlite"
    found = run("explore", *SHAPE, "--set", "rows=64", "--set", "groups=2", "-o", store, "--json", status=2)
    assert found.stdout == "" and "at most groups x window = 32" in found.stderr and "no point is valid" in found.stderr
    sizes = ("--shape", "hidden=64,heads=3,layers=1", "--preset", "tiny", "--nm", "2:4", "--workers", 1)
    found = run("explore", *sizes, "-o", store, status=2)
    assert "heads = 3 does not divide hidden = 64" in found.stderr and not store.with_suffix(".svg").exists()


REFUSED = [
    ("--set rows=4,4", 2, "name different ones"), ("--set row=4", 2, "the nearest is rows"),
    ("--set rows=4,x", 2, "rows is a whole number"), ("--set rows=4,", 2, "rows is a whole number"),
    ("--set rows=4 --set rows=8", 2, "set twice"), ("--preset nope", 2, "preset 'nope' is unknown"),
    ("--nm dense,2:5", 2, "M = 5"), ("--tokens 8,x", 2, "not of the form 32,128"), ("--tokens 0", 2, "not of the form"),
    ("--tokens 8,8", 2, "name different ones"), ("--part ice40up5k", 2, "no estimate of a whole accelerator"),
    ("--part lfe5u-99f", 2, "is unknown"), ("--inputs 2", 2, "has no weights"), ("--pruner magnitude", 2, "not used"),
    ("--shared", 2, "not used without --bytes-per-cycle"), ("--workers 0", 2, "--workers"),
    ("--scheduler nowhere", 2, "not of the form"), ("--workers 2 --scheduler a:1", 2, "not used with --scheduler"),
    ("--shape hidden=64", 2, "lacks heads and layers"), ("-o text", 2, "no whole store"), ("-o .", 2, "it is a folder"),
    ("-o e.svg", 2, "written twice"), (f"{' '.join(SHAPE)}", 2, "two models are called"),
    ("--tokens 8 --nm dense --preset tiny --scheduler 127.0.0.1:1", 3, "cannot be reached"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "status", "words"), REFUSED, ids=[r[0] for r in REFUSED])
def test_refusals(
    options: str, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sta_hw.explore.pool.SECONDS", 1)
    (tmp_path / "text").write_text("no store\n")
    found = run("explore", *SHAPE, *options.split(), status=status)
    assert words in found.stderr and "Traceback" not in found.stderr and found.stdout == ""
    assert len(found.stderr.splitlines()) == 1, found.stderr
    assert (tmp_path / "text").read_text() == "no store\n" and not list(tmp_path.rglob("*.svg"))


def test_an_interrupted_sweep_keeps_what_it_has(tmp_path: Path) -> None:
    """The whole process group, as Ctrl-C does; the same command goes on."""
    store = tmp_path / "e.sqlite"
    command = [
        sys.executable, "-c", "from sta_hw.cli.main import main; main()", "explore", *SHAPE,
        "--nm", "dense,2:4,1:4,1:8", "--tokens", ",".join(map(str, range(1, 200))),
        "--preset", "tiny", "--workers", "1", "-o", str(store),
    ]  # fmt: skip
    with subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c
    ) as process:
        kept = 0
        while kept < 3 and process.poll() is None:
            time.sleep(0.3)
            if store.exists() and store.stat().st_size:
                with Store(store) as file:
                    kept = len(file)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    with Store(store) as file:
        assert 3 <= len(file) < 796
        kept = len(file)
    assert errors.splitlines() == [
        f"sta-hw: {store} keeps {kept} answers; the same command goes on from there.",
        "sta-hw: interrupted; files are as they were, or whole.",
    ]
