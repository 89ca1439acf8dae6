"""FuseSoC runs the generated cores' targets, as a user would: lint without a warning, benches that can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sim import verilator
from sta_hw.generate.generator import TOPS, generate
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

pytest.importorskip("fusesoc", reason="FuseSoC, which runs the generated cores, is not installed")

CI = PRESETS["ci"]
CASES = [
    *((top, top, CI, False) for top in TOPS),
    ("accelerator", "deep_one", replace(CI, multiplier="dsp-pair"), True),
    ("engine", "ice", Config(rows=2, groups=2, columns=16, nm=("2:4",), multiplier="mac16"), False),
]  # fmt: skip


def fusesoc(folder: Path, target: str, name: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the cores below a folder; home, build and libraries are in the folder too."""
    environment = verilator.environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    program = "from fusesoc.main import main; main()"
    arguments = [
        "--cores-root",
        "cores",
        "run",
        "--work-root",
        str(folder / f"work_{target}"),
        "--target",
        target,
        name,
    ]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("top", "name", "config", "hierarchy"), CASES, ids=[case[1] for case in CASES])
def test_targets(top: str, name: str, config: Config, hierarchy: bool, tmp_path: Path) -> None:
    generate(top, config, tmp_path / "cores", name=name, hierarchy=hierarchy)
    lint = fusesoc(tmp_path, "lint", name)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert "%Warning" not in lint.stdout + lint.stderr and "deprecated" not in (lint.stdout + lint.stderr).lower()
    options = next((tmp_path / "work_lint").glob("*.vc")).read_text()
    assert "--lint-only" in options and "-Wall" in options and "-Wno" not in options
    targets = ["sim"] + (["sim_icarus"] if shutil.which("iverilog") else [])
    for target in targets:
        run = fusesoc(tmp_path, target, name)
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        assert f"PASS: {name}, " in run.stdout + run.stderr
    if len(targets) == 1:
        pytest.skip("Icarus is not installed (Debian: iverilog); Verilator passed")


def test_a_bench_fails_for_another_module(tmp_path: Path) -> None:
    """A wrong constant in the Verilog, or a wrong beat, ends both simulations with an error."""
    generate("decoder", CI, tmp_path / "cores", name="one")
    bench = tmp_path / "cores" / "one_bench.v"
    text = bench.read_text()
    place = re.search(r"beats_beats\[5\] = \d+'h(\w)", text)
    assert place is not None
    bench.write_text(text[: place.start(1)] + f"{int(place[1], 16) ^ 1:x}" + text[place.end(1) :])
    for target in ["sim"] + (["sim_icarus"] if shutil.which("iverilog") else []):
        run = fusesoc(tmp_path, target, "one")
        assert run.returncode != 0 and "FAIL: beats, beat 5: expected" in run.stdout + run.stderr
        assert "PASS" not in run.stdout + run.stderr


def test_a_core_that_depends_on_two(tmp_path: Path) -> None:
    """A user's own core with two generated ones below it: waivers and models of cells come along."""
    for name, rows in (("left", 1), ("right", 2)):
        config = Config(rows=rows, groups=2, columns=16, nm=("2:4",), multiplier="dsp", drain_lanes=1)
        generate("engine", config, tmp_path / "cores" / name, name=name, hierarchy=name == "left")
    lines = ["CAPI=2:", "name: user:lib:both:1", "filesets:", "  rtl:", "    files: [both.v]",
             "    file_type: verilogSource", "    depend: [sta-hw:generated:left, sta-hw:generated:right]",
             "targets:", "  lint:", "    flow: lint", "    flow_options: {tool: verilator, verilator_options: [-Wall]}",
             "    filesets: [rtl]", "    toplevel: both", "    flags: {models: true}"]  # fmt: skip
    (tmp_path / "cores" / "both.core").write_text("\n".join(lines) + "\n")
    instances = "\n".join(
        f"    /* verilator lint_off PINMISSING */ {n} u_{n} (.clk(clk), .rst(rst));" for n in ("left", "right")
    )
    (tmp_path / "cores" / "both.v").write_text(f"module both (input clk, rst);\n{instances}\nendmodule\n")
    run = fusesoc(tmp_path, "lint", "both")
    assert run.returncode == 0, run.stdout + run.stderr
