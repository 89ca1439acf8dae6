"""The AXI wrapper as tools take it: no warning in any width, parameters that cannot be refused by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sim import verilator
from sta_hw.errors import ToolError
from sta_hw.generate.generator import generate
from sta_hw.generate.wrapper import axi_wrapper
from sta_hw.rtl.bus.axi import lite_ports, master_ports
from sta_hw.rtl.emit import run_yosys
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
GOOD: list[dict[str, int | str]] = [
    {}, {"ADDRESS_WIDTH": 40, "ADDRESS_HIGH": 0xFF, "ID_WIDTH": 4, "ID": 9},
    {"ADDRESS_WIDTH": 64, "ADDRESS_HIGH": 0xFFFFFFFF, "ID_WIDTH": 32, "ID": 0xFFFFFFFF},
]  # fmt: skip
BAD: list[tuple[dict[str, int | str], str]] = [
    ({"ADDRESS_WIDTH": 31}, "ADDRESS_WIDTH_is_32_to_64"), ({"ADDRESS_WIDTH": 65}, "ADDRESS_WIDTH_is_32_to_64"),
    ({"ADDRESS_HIGH": 1}, "ADDRESS_HIGH_has_bits_beyond_ADDRESS_WIDTH"),
    ({"ADDRESS_WIDTH": 40, "ADDRESS_HIGH": 0x100}, "ADDRESS_HIGH_has_bits_beyond_ADDRESS_WIDTH"),
    ({"ADDRESS_WIDTH": 63, "ADDRESS_HIGH": 1 << 31}, "ADDRESS_HIGH_has_bits_beyond_ADDRESS_WIDTH"),
    ({"ID_WIDTH": 0}, "ID_WIDTH_is_1_to_32"), ({"ID_WIDTH": 33}, "ID_WIDTH_is_1_to_32"),
    ({"ID": 2}, "ID_has_bits_beyond_ID_WIDTH"), ({"ID_WIDTH": 4, "ID": 16}, "ID_has_bits_beyond_ID_WIDTH"),
    ({"ID_WIDTH": 4, "ID": "5'd16"}, "ID_has_bits_beyond_ID_WIDTH"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated core, and a module of the same ports that has nothing in it, for what is quick."""
    where = tmp_path_factory.mktemp("wrapper")
    generate("accelerator", CONFIG, where, name="core")
    ports = json.loads((where / "core.json").read_text())["ports"]
    declared = ",\n".join(f"{p['direction']} wire [{p['width'] - 1}:0] {p['name']}" for p in ports)
    (where / "empty.v").write_text(f"module core (\n{declared}\n);\nendmodule\n")
    return where


def lint(folder: Path, parameters: dict[str, int | str], *files: str) -> list[str]:
    """What Verilator says with every warning on."""
    given = [f"-G{name}={value}" for name, value in parameters.items()]
    run = subprocess.run(
        [str(verilator.root() / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", "core_axi", *given,
         *files], cwd=folder, env=verilator.environment(), capture_output=True, text=True,
    )  # fmt: skip
    return [line for line in run.stderr.splitlines() if line.startswith("%")]


@pytest.mark.parametrize("parameters", GOOD, ids=["32 bits", "40 bits", "64 bits"])
def test_no_warning(folder: Path, parameters: dict[str, int | str]) -> None:
    assert lint(folder, parameters, "core.vlt", "core.v", "core_axi.v") == []


@pytest.mark.parametrize(("parameters", "name"), BAD)
def test_what_cannot_be_is_refused_by_name(folder: Path, parameters: dict[str, int | str], name: str) -> None:
    found = lint(folder, parameters, "-Wno-fatal", "-Wno-lint", "empty.v", "core_axi.v")
    assert any(line.startswith("%Error") and name in line for line in found), found
    chosen = " ".join(f"-set {n} {v}" for n, v in parameters.items())
    read = f"read_verilog empty.v core_axi.v; chparam {chosen} core_axi; hierarchy -check -top core_axi"
    with pytest.raises(ToolError, match=name):
        run_yosys(read, folder)


@pytest.mark.parametrize("parameters", [*GOOD, *(p for p, _ in BAD)])
def test_icarus_agrees(folder: Path, parameters: dict[str, int | str], tmp_path: Path) -> None:
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus is not installed (Debian: iverilog)")
    given = [f"-Pcore_axi.{name}={value}" for name, value in parameters.items()]
    run = subprocess.run(
        ["iverilog", "-g2005", "-s", "core_axi", *given, "-o", str(tmp_path / "out"), "empty.v", "core_axi.v"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    expected = next((name for p, name in BAD if p is parameters), None)
    assert (run.returncode == 0) == (expected is None), run.stderr
    assert expected is None or expected in run.stderr, run.stderr


def test_every_port_has_its_interface() -> None:
    """An attribute for each port, and none that the accelerator's ports and AXI's optional ones do not have."""
    text = axi_wrapper("core", CONFIG)
    ports = re.findall(r"^    (?:input |output) wire (?:\[[^\]]+\] )?(\w+)", text, re.M)
    constants = {f"m_axi_{c}{s}" for c in ("aw", "ar") for s in ("lock", "cache", "prot", "qos")}
    assert set(ports) == {"aclk", "aresetn", "irq", *master_ports(CONFIG.bus_bytes), *lite_ports(), *constants}
    for port in ports[2:-1]:
        assert f'aximm:1.0 {port[:5]} {port[6:].upper()}" *)' in text
    assert '(* X_INTERFACE_PARAMETER = "SENSITIVITY LEVEL_HIGH" *)\n    output wire irq' in text
