"""A synthesized netlist as Verilog again, to simulate what goes into place and route."""

from __future__ import annotations

import json
from pathlib import Path

from amaranth.lib import wiring

from ..rtl.emit import emit_verilog, run_yosys
from .synthesis import synthesize

__all__ = ["netlist_verilog"]

# The cells' own models are flattened into the netlist, so that the simulator sees plain logic; multipliers and block
# RAM, which Yosys has no models of, stay instances.
_SCRIPT = """\
read_json alone.json
read_verilog -overwrite -lib +/lattice/cells_bb_ecp5.v
read_verilog -overwrite +/lattice/cells_sim_ecp5.v
blackbox =DP16KD =MULT18X18D
hierarchy -top {name}
proc
flatten -wb
opt_clean -purge
write_verilog -noattr {name}_netlist.v
"""


def netlist_verilog(component: wiring.Component, name: str, folder: Path) -> str:
    """The ECP5 netlist of `component`, ports and all, as one Verilog module called `name`.

    It wants models of MULT18X18D and DP16KD beside (``sim/primitives.v``, ``sim/dp16kd.v``).

    Parameters
    ----------
    folder : Path
        For the tools' files; kept.

    Raises
    ------
    ToolError
        If Yosys fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.v").write_text(emit_verilog(component, name))
    synthesize([f"{name}.v"], name, "ecp5", folder, pins=True)
    # Beside the top level there are the cells as ABC9 saw them, hollow.
    netlist = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    netlist["modules"] = {name: netlist["modules"][name]}
    (folder / "alone.json").write_text(json.dumps(netlist))
    run_yosys(_SCRIPT.format(name=name), folder)
    return (folder / f"{name}_netlist.v").read_text(encoding="utf-8")
