"""Yosys: from Verilog to cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError, ToolError
from ..rtl.emit import run_yosys
from .output_registers import absorb_output_registers

__all__ = ["CELLS", "cell_counts", "synthesize"]

_COMMANDS = {
    "ecp5": "synth_ecp5",
    "ice40": "synth_ice40 -dsp",
    "nexus": "synth_nexus -noiopad",
    "gowin": "synth_gowin -family gw2a -noiopads -setundef",
    "xcup": "synth_xilinx -family xcup -noiopad -noclkbuf -flatten",
}
_LIBRARIES = {
    "ecp5": "+/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v",
    "nexus": "+/lattice/cells_sim_nexus.v +/lattice/cells_bb_nexus.v",
    "gowin": "+/gowin/cells_sim.v +/gowin/cells_xtra_gw2a.v",
}
"""Cells that the Verilog may instantiate."""
# With them the Verilog goes through RTLIL once, because Yosys 0.70 otherwise parses a module that instantiates vendor
# primitives again at the end of synthesis, and throws the result away.
_READ_WITH_LIBRARY = """\
read_verilog -lib {library}
{read}
write_rtlil synthesis.il
design -reset
read_rtlil synthesis.il"""
# ABC9 stops on many designs (Yosys issues 4349 and 4451) unless ports are split in the middle of the flow.
_SYNTHESIZE = """\
{command} -top {top} -run begin:map_luts
splitnets{ports}
opt_clean -purge
{command} -top {top} -run map_luts:
tee -o stat.json stat -json
write_json {top}.json
"""
_COUNT = """\
{command} -top {top}
tee -o stat.json stat -json
"""
"""Of a family without place and route."""
CELLS = {
    "ecp5": ("LUT4", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF", "MULT18X18D", "DP16KD"),
    "ice40": ("SB_LUT4", "SB_CARRY", "SB_MAC16", "SB_RAM40_4K"),
    "nexus": ("LUT4", "CCU2", "WIDEFN9", "DPR16X4", "MULT9X9", "MULT18X18"),
    "gowin": ("ALU", "RAM16SDP4", "MULT9X9", "MULT18X18"),
    "xcup": ("CARRY4", "DSP48E2", "RAMB18E2", "RAMB36E2"),
}
"""Cells that are counted by name; registers (and LUTs of Gowin and UltraScale+, block RAMs of Nexus and Gowin) are
summed over their kinds. Yosys gives UltraScale+ the carry cells of the 7 series, of which two make a CARRY8."""
_BLOCK_MEMORIES = {"nexus": ("PDP", "DP16K"), "gowin": ("SDP", "SP", "DP", "pROM")}
"""How the names of the modes of a block RAM begin."""
_LUTS_OF_MEMORY = {
    "RAM32X1S": 1, "RAM32X1D": 2, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8, "RAM64X1D": 2,
    "RAM128X1D": 4, "RAM256X1D": 8, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM64X8SW": 8,
    "RAM32X16DR8": 8, "SRL16E": 1, "SRLC32E": 1,
}  # fmt: skip
"""LUTs that a memory cell or shift register of UltraScale+ takes (Xilinx UG574, chapter 2)."""


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
    if family not in _COMMANDS:
        raise InputError(f"family {family!r} is unknown; it is {', '.join(_COMMANDS)}.")
    read = "\n".join(f"read_rtlil {name}" if name.endswith(".il") else f"read_verilog -sv {name}" for name in sources)
    step(f"Yosys: {top} for {family}")
    (folder / "stat.json").unlink(missing_ok=True)
    if family in _LIBRARIES:
        read = _READ_WITH_LIBRARY.format(library=_LIBRARIES[family], read=read)
    script = (_COUNT if family == "xcup" else _SYNTHESIZE).format(
        command=_COMMANDS[family], top=top, ports="" if pins else " -ports"
    )
    run_yosys(f"{read}\n{script}", folder, log=folder / "yosys.log")
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

    For UltraScale+, LUT is logic alone, and LUT_memory what RAM and shift registers take besides. For Nexus and Gowin
    logic is reckoned in LUT4 as nextpnr packs it, and multipliers in those of 9 x 9 bits, of which one of 18 x 18 takes
    two.
    """
    found = json.loads((folder / "stat.json").read_text(encoding="utf-8"))["design"]["num_cells_by_type"]
    cells = {name: found.get(name, 0) for name in CELLS[family]}
    if family == "ecp5":
        cells["lut4_equivalents"] = cells["LUT4"] + 2 * cells["CCU2C"] + 4 * cells["TRELLIS_DPR16X4"]
    elif family == "ice40":
        cells["registers"] = sum(n for name, n in found.items() if name.startswith("SB_DFF"))
    elif family in _BLOCK_MEMORIES:
        if family == "nexus":
            two = cells["CCU2"] + cells["WIDEFN9"]
            cells["lut4_equivalents"] = cells["LUT4"] + found.get("INV", 0) + 2 * two + 4 * cells["DPR16X4"]
        else:
            cells["LUT"] = sum(n for name, n in found.items() if name.startswith("LUT"))
            cells["lut4_equivalents"] = cells["LUT"] + cells["ALU"] + 8 * cells["RAM16SDP4"]
        cells["multipliers_9x9"] = cells["MULT9X9"] + 2 * cells["MULT18X18"]
        cells["block_memories"] = sum(n for name, n in found.items() if name.startswith(_BLOCK_MEMORIES[family]))
        cells["registers"] = sum(n for name, n in found.items() if name.startswith(("FD1P3", "DFF")))
    else:
        cells["LUT"] = sum(n for name, n in found.items() if name.startswith("LUT"))
        cells["LUT_memory"] = sum(n * _LUTS_OF_MEMORY.get(name, 0) for name, n in found.items())
        cells["registers"] = sum(n for name, n in found.items() if name.startswith("FD"))
    return cells
