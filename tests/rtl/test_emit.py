"""The emitted Verilog: accepted by Verilator, Icarus and Yosys; no latch, no loop; always the same bytes."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from sim import verilator
from sim.library import PRIMITIVES
from sta_hw.errors import ToolError
from sta_hw.generate.generator import TOPS, component
from sta_hw.rtl.emit import emit_verilog, ports_of, run_yosys
from sta_hw.rtl.waivers import WAIVERS
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

CONFIGS = {
    "ci": PRESETS["ci"],
    "1x1, lut": Config(rows=1, groups=1, window=4, columns=16, multiplier="lut", softmax_lanes=1),
    "3x3, some": Config(rows=3, groups=3, window=8, columns=16, nm=("2:4", "1:8"), softmax_lanes=3),
    "2x2, dense, dsp": Config(rows=2, groups=2, nm=("dense",), columns=16, multiplier="dsp", softmax_block=64),
}


def tops(name: str) -> list[str]:
    """Top levels that a configuration has; only one has a whole accelerator."""
    return [t for t in TOPS if t != "accelerator" or name == "ci"]


@pytest.fixture(scope="module", params=CONFIGS)
def emitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verilog")
    for top in tops(request.param):
        (folder / f"{top}.v").write_text(emit_verilog(component(top, CONFIGS[request.param]), top))
    return folder


def test_verilator_lint(emitted: Path) -> None:
    for top in sorted(p.stem for p in emitted.glob("*.v")):
        run = subprocess.run(
            [str(verilator.root() / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", top,
             *(f"-Wno-{w}" for w in WAIVERS), f"{top}.v", "-v", str(PRIMITIVES)],
            cwd=emitted, env=verilator.environment(), capture_output=True, text=True,
        )  # fmt: skip
        ours = [line for line in run.stderr.splitlines() if line.startswith("%Warning") and "primitives" not in line]
        assert not ours, "\n".join(ours[:10])


def test_every_waiver_is_needed(tmp_path: Path) -> None:
    found: set[str] = set()
    for config in CONFIGS.values():
        (tmp_path / "engine.v").write_text(emit_verilog(component("engine", config), "engine"))
        program = str(verilator.root() / "bin" / "verilator_bin")
        run = subprocess.run(
            [program, "--lint-only", "-Wall", "engine.v", "-v", str(PRIMITIVES)],
            cwd=tmp_path, env=verilator.environment(), capture_output=True, text=True,
        )  # fmt: skip
        lines = [line for line in run.stderr.splitlines() if "primitives" not in line]
        found |= set(re.findall(r"%Warning-(\w+): engine\.v", "\n".join(lines)))
    assert found == set(WAIVERS)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_icarus(emitted: Path) -> None:
    for top in sorted(p.stem for p in emitted.glob("*.v")):
        run = subprocess.run(
            ["iverilog", "-g2005", "-s", top, "-o", "out.vvp", f"{top}.v", str(PRIMITIVES)],
            cwd=emitted, capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0 and not run.stderr, run.stderr[:2000]


def test_yosys_finds_no_latch_and_no_loop(emitted: Path) -> None:
    for top in sorted(p.stem for p in emitted.glob("*.v")):
        run_yosys(
            "read_verilog -lib +/lattice/cells_bb_ecp5.v\n"
            f"read_verilog {top}.v\nhierarchy -check -top {top}\nproc\n"
            "select -assert-none t:$dlatch t:$adlatch t:$dlatchsr t:$sr\nselect -clear\n"
            "opt_clean\nflatten\nmemory_collect\nsimplemap\ncheck -assert\n",
            emitted,
        )


def test_yosys_would_find_them(tmp_path: Path) -> None:
    (tmp_path / "bad.v").write_text(
        "module bad(input a, b, output reg q, output c); wire d = ~c & a; assign c = ~d & b;\n"
        "always @* if (a) q = b; endmodule\n"
    )
    with pytest.raises(ToolError):
        run_yosys("read_verilog bad.v\nproc\nselect -assert-none t:$dlatch\n", tmp_path)
    with pytest.raises(ToolError):
        run_yosys("read_verilog bad.v\nproc\nsimplemap\ncheck -assert\n", tmp_path)


def test_the_same_bytes_in_another_process() -> None:
    code = (
        "from sta_hw.spec.config import Config; from sta_hw.generate.generator import component\n"
        "from sta_hw.rtl.emit import emit_verilog\n"
        "print(emit_verilog(component('engine', Config(rows=2, groups=2, columns=16)), 'engine'), end='')"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(texts) == 1


def test_ports_are_those_of_the_text() -> None:
    for top in tops("ci"):
        hardware = component(top, CONFIGS["ci"])
        text = emit_verilog(hardware, top)
        for port in ports_of(hardware):
            width = rf"\[{port.width - 1}:0\] " if port.width > 1 else ""
            assert re.search(rf"^  {port.direction} {width}{port.name};", text, re.M), port
        assert len(re.findall(r"^  (?:input|output) (?!wire|reg)", text, re.M)) == len(ports_of(hardware))


def test_fewer_patterns_give_less_hardware(tmp_path: Path) -> None:
    cells = []
    for nm in (("any",), ("2:4", "1:4"), ("dense",)):
        config = Config(rows=1, groups=4, nm=nm, encodings=("index",) if nm != ("any",) else ("index", "bitmap"))
        (tmp_path / "decoder.v").write_text(emit_verilog(component("decoder", config), "decoder"))
        script = "read_verilog decoder.v\nsynth -top decoder -flatten -noabc\ntee -o stat.txt stat\n"
        run_yosys(script, tmp_path)
        cells.append(int(re.findall(r"^\s+(\d+) cells", (tmp_path / "stat.txt").read_text(), re.M)[-1]))
    assert cells[0] > 1.5 * cells[1] > 1.5 * cells[2], cells


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_behind_it_as_before(collects: bool) -> None:
    """Also where elaboration fails."""

    class Broken(wiring.Component):
        def __init__(self) -> None:
            super().__init__({})

        def elaborate(self, platform: object) -> Module:
            assert not gc.isenabled()
            raise ZeroDivisionError

    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError):
            emit_verilog(Broken(), "broken")
        assert gc.isenabled() == collects
    finally:
        gc.enable()
