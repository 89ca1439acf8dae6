"""Area in standard cells: a top level mapped by Yosys to any library in Liberty format, block by block.

Memories are not mapped: a chip has macros for them, so they are reported by their size and ports.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError, ToolError
from ..files import require_file, working_folder
from ..rtl.emit import emit_verilog, run_yosys
from ..rtl.tops import component
from ..spec.config import Config
from .parts import LIBERTY

__all__ = ["library_of", "map_to_cells"]

_GATE = "module nand2(input a, input b, output y);\nassign y = ~(a & b);\nendmodule\n"
_GATE_SCRIPT = """\
read_verilog nand2.v
synth -top nand2
abc -liberty cells.lib
opt_clean -purge
tee -o nand2.json stat -json -liberty cells.lib
"""
# Memories stay `$mem_v2` cells: `synth` would make registers of them. Registers lose the values that they have before
# the first reset, which standard cells cannot hold; all that control anything are reset. `dfflibmap` makes a
# synchronous reset or enable into gates where the library has no such flip-flop.
_SCRIPT = """\
read_verilog -sv {top}.v
hierarchy -check -top {top}
proc
opt_expr
opt_clean
memory -nomap
synth -top {top} -run coarse:fine
opt -fast -full
techmap
opt -fast
setattr -unset init w:*
opt_clean -purge
dfflibmap -liberty cells.lib
abc -liberty cells.lib
opt_clean -purge
tee -o stat.json stat -json -liberty cells.lib
write_json {top}.json
"""


def library_of(part: str) -> Path:
    """The file that ``liberty:FILE`` names.

    Raises
    ------
    InputError
        If it cannot be read, or is not a Liberty library.
    """
    path = Path(part.removeprefix(LIBERTY))
    try:
        require_file(path)
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{part}: {path} cannot be read ({reason}); name a library in Liberty format.") from None
    if "library" not in text or "cell" not in text:
        raise InputError(f"{part}: {path} is not a library in Liberty format, which begins with `library (NAME) {{`.")
    return path


def map_to_cells(
    top: str, config: Config, library: Path, folder: Path, step: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Map a top level to the cells of a library.

    Parameters
    ----------
    top : str
        As in `sta_hw.rtl.tops.TOPS`.
    config : Config
        With a portable multiplier: vendor cells are in no library.
    library : Path
        A Liberty file with areas; NAND2, flip-flops and what Yosys' ABC maps to.
    folder : Path
        Receives netlist, Verilog, Yosys' log and ``stat.json``.

    Returns
    -------
    dict
        JSON types. ``blocks``: name, instances, area of all of them (without the blocks inside), NAND2 equivalents;
        ``memories``: block, instances, words, bits of a word, read and write ports; ``area``, ``sequential_area``,
        ``nand2`` (equivalents), ``nand2_area``, ``memory_bits``, ``unmapped`` (cells left that the library lacks).

    Raises
    ------
    InputError
        If Yosys cannot map a NAND gate to the library.
    ToolError
        If Yosys fails on the design.
    """
    with working_folder(folder) as work:
        shutil.copyfile(library, work / "cells.lib")
        (work / "nand2.v").write_text(_GATE)
        step("reading the library")
        try:
            run_yosys(_GATE_SCRIPT, work)
            gate = json.loads((work / "nand2.json").read_text(encoding="utf-8"))["design"].get("area", 0.0)
        except (ToolError, KeyError, OSError) as error:
            raise InputError(f"{library}: Yosys cannot map a NAND gate to it: {error}") from None
        if not gate > 0:
            raise InputError(f"{library}: its NAND gate has no area; the estimate needs the cells' areas.")
        step("generating")
        (work / f"{top}.v").write_text(emit_verilog(component(top, config), top, hierarchy=True))
        step(f"Yosys: {top} to standard cells")
        run_yosys(_SCRIPT.format(top=top), work, log=work / "yosys.log")
        statistics = json.loads((work / "stat.json").read_text(encoding="utf-8"))
        netlist = json.loads((work / f"{top}.json").read_text(encoding="utf-8"))["modules"]
        for name in ("cells.lib", "nand2.v", "nand2.json", "script.ys"):
            (work / name).unlink(missing_ok=True)
    return {"top": top, "library": library.name, "configuration": config.as_dict()} | _counted(
        top, statistics, netlist, gate
    )


def _counted(top: str, statistics: dict[str, Any], netlist: dict[str, Any], gate: float) -> dict[str, Any]:
    """Area by block, and memories, from what Yosys wrote."""
    instances = dict.fromkeys(netlist, 0)

    def visit(module: str) -> None:
        instances[module] += 1
        for cell in netlist[module]["cells"].values():
            if cell["type"] in netlist:
                visit(cell["type"])

    visit(top)
    blocks: list[dict[str, Any]] = []
    memories: list[dict[str, Any]] = []
    unmapped: dict[str, int] = {}

    def whole(module: str) -> float:
        """Area with the blocks inside, as Yosys counts it."""
        return statistics["modules"][f"\\{module}"].get("area", 0.0)

    for name, count in instances.items():
        area = whole(name) - sum(whole(c["type"]) for c in netlist[name]["cells"].values() if c["type"] in netlist)
        short = name.removeprefix(f"{top}__")
        if count and area:
            blocks.append({"block": short, "instances": count, "area": count * area, "nand2": count * area / gate})
        for cell in netlist[name]["cells"].values():
            if cell["type"] == "$mem_v2":
                words, width, reads, writes = (
                    int(cell["parameters"][p], 2) for p in ("SIZE", "WIDTH", "RD_PORTS", "WR_PORTS")
                )
                memory = {"words": words, "width": width, "reads": reads, "writes": writes}
                memories.append({"block": short, "instances": count} | memory)
            elif cell["type"].startswith("$") and cell["type"] not in ("$scopeinfo",):
                unmapped[cell["type"]] = unmapped.get(cell["type"], 0) + count
    total = sum(b["area"] for b in blocks)
    return {
        "nand2_area": gate,
        "area": total,
        "nand2": total / gate,
        "blocks": sorted(blocks, key=lambda b: -b["area"]),
        "memories": sorted(memories, key=lambda m: -m["words"] * m["width"] * m["instances"]),
        "memory_bits": sum(m["words"] * m["width"] * m["instances"] for m in memories),
        "unmapped": unmapped,
    }
