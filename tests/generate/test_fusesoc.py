"""FuseSoC runs the generated cores' targets, as a user would: lint without a warning, benches that can fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest

from sim import verilator
from sta_hw import __version__
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


def fusesoc(folder: Path, target: str, name: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the cores below a folder; home, build and libraries are in the folder too."""
    environment = verilator.environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)} | more
    environment.setdefault("YOWASP_CACHE_DIR", platformdirs.user_cache_dir("YoWASP", appauthor=False))
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


@pytest.mark.parametrize(
    ("top", "name", "config", "hierarchy"),
    [pytest.param(*c, id=c[1], marks=() if c[1] == "engine" else pytest.mark.slow) for c in CASES],
)
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


@pytest.fixture(scope="module")
def yosys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with YoWASP's tools by the names that edalize looks for."""
    pytest.importorskip("tkinter", reason="Python's Tcl, which reads edalize's scripts for Yosys, is not installed")
    folder = tmp_path_factory.mktemp("tools")
    script = Path(verilator.__file__).parents[1] / "scripts" / "yowasp_tools.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    return f"{folder}{os.pathsep}{verilator.environment()['PATH']}"


@pytest.mark.parametrize("multiplier", ["auto", pytest.param("lut", marks=pytest.mark.slow)])
def test_synthesis(multiplier: str, yosys: str, tmp_path: Path) -> None:
    """edalize's own script for Yosys makes of the module, and of nothing else, cells of ECP5."""
    config = Config(rows=2, groups=2, columns=16, nm=("2:4",), multiplier=multiplier, drain_lanes=1)
    generate("engine", config, tmp_path / "cores", name="one")
    run = fusesoc(tmp_path, "synth", "one", PATH=yosys)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    netlist = json.loads(next((tmp_path / "work_synth").glob("sta-hw_generated_one_*.json")).read_text())
    top = netlist["modules"]["one"]
    ports = json.loads((tmp_path / "cores" / "one.json").read_text())["ports"]
    assert {p["name"]: p["width"] for p in ports} == {n: len(p["bits"]) for n, p in top["ports"].items()}
    kinds = {cell["type"] for cell in top["cells"].values()}
    assert {"LUT4", "TRELLIS_FF"} <= kinds <= {
        "LUT4", "TRELLIS_FF", "CCU2C", "PFUMX", "L6MUX21", "DP16KD", "MULT18X18D", "TRELLIS_DPR16X4", "$scopeinfo"
    }  # fmt: skip
    assert ("MULT18X18D" in kinds) == (multiplier == "auto")


def test_vendor_cells_have_no_synthesis_target(tmp_path: Path) -> None:
    for multiplier in ("dsp", "lut"):
        config = Config(rows=2, groups=2, columns=16, nm=("2:4",), multiplier=multiplier, drain_lanes=1)
        generate("engine", config, tmp_path / multiplier, name="one")
        assert ("  synth:" in (tmp_path / multiplier / "one.core").read_text()) == (multiplier == "lut")


def test_a_bitstream_by_a_core_of_ones_own(yosys: str, tmp_path: Path) -> None:
    """A core with pins and a generated one below it, through edalize's flow for ECP5 to a bitstream."""
    generate("decoder", CI, tmp_path / "cores", name="one")
    ports = json.loads((tmp_path / "cores" / "one.json").read_text())["ports"]
    given = [p for p in ports if p["direction"] == "input" and p["name"] not in ("clk", "rst")]
    taken = [p for p in ports if p["direction"] == "output"]
    wide = sum(p["width"] for p in given)
    places = [sum(p["width"] for p in given[:i]) for i in range(len(given))]
    pins = [f".{p['name']}(shifted[{place} +: {p['width']}])" for p, place in zip(given, places, strict=True)]
    pins += [f".{p['name']}({p['name']})" for p in taken]
    wires = "".join(f"    wire [{p['width'] - 1}:0] {p['name']};\n" for p in taken)
    (tmp_path / "cores" / "top.v").write_text(
        f"module top (input clk, rst, from, output reg to);\n    reg [{wide - 1}:0] shifted;\n{wires}"
        f"    one u_one (.clk(clk), .rst(rst), {', '.join(pins)});\n"
        "    always @(posedge clk) begin\n"
        f"        shifted <= {{shifted, from}}; to <= ^{{{', '.join(p['name'] for p in taken)}}};\n"
        "    end\nendmodule\n"
    )
    sites = {"clk": "G2", "rst": "D6", "from": "R1", "to": "T1"}
    (tmp_path / "cores" / "top.lpf").write_text("".join(
        f'LOCATE COMP "{pin}" SITE "{site}";\nIOBUF PORT "{pin}" IO_TYPE=LVCMOS33;\n' for pin, site in sites.items()
    ))  # fmt: skip
    (tmp_path / "cores" / "top.core").write_text("""\
CAPI=2:
name: user:lib:top:1
filesets:
  rtl: {files: [top.v], file_type: verilogSource, depend: [sta-hw:generated:one]}
  pins: {files: [top.lpf], file_type: LPF}
targets:
  board:
    flow: trellis
    flow_options: {nextpnr_options: [--25k, --package, CABGA381]}
    filesets: [rtl, pins]
    toplevel: top
""")
    run = fusesoc(tmp_path, "board", "user:lib:top", PATH=yosys)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert (tmp_path / "work_board" / "user_lib_top_1.bit").stat().st_size > 10_000


def test_a_local_library(tmp_path: Path) -> None:
    """`fusesoc library add` takes a folder of generated cores; they are found by vendor, library, name, version."""
    generate("decoder", CI, tmp_path / "ours" / "one", name="one")
    environment = verilator.environment() | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    said = ""
    for arguments in (["library", "add", "ours", str(tmp_path / "ours")], ["core", "list"],
                      ["core", "show", f"sta-hw:generated:one:{__version__}"],
                      ["run", "--target", "lint", f"sta-hw:generated:one:{__version__}"]):  # fmt: skip
        (tmp_path / "user").mkdir(exist_ok=True)
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", "from fusesoc.main import main; main()", *arguments],
            cwd=tmp_path / "user", env=environment, capture_output=True, text=True,
        )  # fmt: skip
        said = run.stdout + run.stderr
        assert run.returncode == 0, said
        assert arguments[0] == "library" or f"sta-hw:generated:one:{__version__}" in said, said
    assert "%Warning" not in said
