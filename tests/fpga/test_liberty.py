"""Area in standard cells: mapped to a small library of the test's own, by block, memories apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sta_hw.errors import InputError
from sta_hw.fpga.liberty import library_of, map_to_cells
from sta_hw.spec.presets import preset

HEADER = """\
library (small) {
  delay_model : table_lookup;
  time_unit : "1ns";
  voltage_unit : "1V";
  current_unit : "1uA";
  capacitive_load_unit (1, pf);
  lu_table_template (two) {
    variable_1 : total_output_net_capacitance;
    variable_2 : input_net_transition;
    index_1 ("0.1, 1.0");
    index_2 ("0.1, 1.0");
  }
"""
PIN = "    pin ({}) {{ direction : input; capacitance : 0.01; }}\n"
TABLE = '{} (two) {{ index_1 ("0.1, 1.0"); index_2 ("0.1, 1.0"); values ("0.1, 0.2", "0.2, 0.3"); }}'
TIMING = '      timing () {{ related_pin : "{}"; timing_sense : {}; {} }}\n'
FLIP_FLOP = """\
  cell (DFF) {
    area : 10;
    ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    pin (D) { direction : input; }
    pin (CK) { direction : input; clock : true; }
    pin (Q) { direction : output; function : "IQ"; }
  }
"""


def library(folder: Path, nand: float = 2.0) -> Path:
    """A library of a buffer, an inverter, NAND, NOR and a flip-flop; ABC takes no cells without delays."""
    gates = [("BUF", 1.5, "A", "A"), ("INV", 1.0, "A", "!A"), ("NAND2", nand, "AB", "!(A & B)"),
             ("NOR2", 3.0, "AB", "!(A | B)")]  # fmt: skip
    tables = " ".join(map(TABLE.format, ("cell_rise", "rise_transition", "cell_fall", "fall_transition")))
    text = HEADER
    for name, area, inputs, function in gates:
        sense = "positive_unate" if name == "BUF" else "negative_unate"
        text += f"  cell ({name}) {{\n    area : {area};\n" + "".join(map(PIN.format, inputs))
        text += f'    pin (Y) {{\n      direction : output; capacitance : 0; function : "{function}";\n'
        text += "".join(TIMING.format(i, sense, tables) for i in inputs) + "    }\n  }\n"
    path = folder / "small.lib"
    path.write_text(text + FLIP_FLOP + "}\n")
    return path


def test_area_and_memories_by_block(tmp_path: Path) -> None:
    config = dataclasses.replace(preset("tiny"), multiplier="auto", array_multipliers=0)
    found = map_to_cells("decoder", config, library(tmp_path), tmp_path / "out")
    assert found["nand2_area"] == 2.0 and found["unmapped"] == {}
    # The library's areas are whole, and every gate of the netlist is one of its cells.
    netlist = json.loads((tmp_path / "out" / "decoder.json").read_text())["modules"]
    areas = {"BUF": 1.5, "INV": 1, "NAND2": 2, "NOR2": 3, "DFF": 10}

    def area(module: str) -> float:
        types = [c["type"] for c in netlist[module]["cells"].values()]
        return sum(area(t) if t in netlist else areas.get(t, 0) for t in types)

    assert found["area"] == area("decoder") == sum(b["area"] for b in found["blocks"])
    assert found["nand2"] == found["area"] / 2
    flip_flops = sum(c["type"] == "DFF" for m in netlist.values() for c in m["cells"].values())
    assert flip_flops > 0
    assert found["memory_bits"] == sum(m["words"] * m["width"] * m["instances"] for m in found["memories"])


def test_what_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        library_of(f"liberty:{tmp_path / 'none.lib'}")
    (tmp_path / "text").write_text("nothing of the kind")
    with pytest.raises(InputError, match="not a library in Liberty format"):
        library_of(f"liberty:{tmp_path / 'text'}")
    (tmp_path / "bad.lib").write_text("library (x) { cell (y) {")
    with pytest.raises(InputError, match="cannot map a NAND gate"):
        map_to_cells("decoder", preset("tiny"), tmp_path / "bad.lib", tmp_path / "out")
    with pytest.raises(InputError, match="no area"):
        map_to_cells("decoder", preset("tiny"), library(tmp_path, nand=0.0), tmp_path / "out")
