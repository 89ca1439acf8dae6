"""Blocks of the families that are placed and routed without pins of their own, small ones; and netlists made for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards import BOARDS, board
from sta_hw.errors import InputError, ToolError
from sta_hw.fpga import routing
from sta_hw.fpga.flow import synthesize_top
from sta_hw.fpga.parts import PARTS, choose_multiplier, narrow_multipliers, require_cells
from sta_hw.fpga.routing import Pins, Tries, place_and_route
from sta_hw.fpga.synthesis import synthesize
from sta_hw.rtl.emit import emit_verilog
from sta_hw.rtl.primitives.multiplier import Multiplier
from sta_hw.spec.config import MULTIPLIERS, Config
from sta_hw.spec.presets import preset

FAMILIES = {"nexus": "lifcl-40", "gowin": "gw2ar-18"}


class Both(wiring.Component):
    """A narrow and a wide multiplier of a kind on the same operands."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__({"a": In(signed(18)), "b": In(signed(18)), "narrow": Out(signed(18)), "wide": Out(signed(36))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for width, product in ((9, self.narrow), (18, self.wide)):
            multiplier = m.submodules[f"multiplier_{width}"] = Multiplier(width, width, self.kind)
            m.d.comb += [multiplier.a.eq(self.a), multiplier.b.eq(self.b), product.eq(multiplier.p)]
        return m


@pytest.mark.parametrize(("family", "part"), FAMILIES.items())
def test_multipliers_are_placed_with_their_registers(family: str, part: str, tmp_path: Path) -> None:
    """One cell each, and no register or logic of the fabric beside them."""
    (tmp_path / "block.v").write_text(emit_verilog(Both(family), "block"))
    cells = synthesize(["block.v"], "block", family, tmp_path)
    assert cells["MULT9X9"] == cells["MULT18X18"] == 1 and cells["multipliers_9x9"] == 3
    assert cells["registers"] == cells["lut4_equivalents"] == cells["block_memories"] == 0
    if family == "nexus":
        routed = place_and_route("block", PARTS[part], tmp_path, frequency=50.0, minutes=5)
        assert routed is not None and routed.fmax > 200
        assert routed.used["MULT9_CORE"] == routed.used["REG18_CORE"] == 3
    else:  # nextpnr knows no times of Gowin's multipliers
        with pytest.raises(ToolError, match="timed nothing"):
            place_and_route("block", PARTS[part], tmp_path, frequency=50.0, minutes=5)
        used = json.loads((tmp_path / "report-1.json").read_text())["utilization"]
        assert used["MULT9X9"]["used"] == used["MULT18X18"]["used"] == 1


class Counting:
    """In place of nextpnr: says bit by bit what a design takes, and then looks for places without end."""

    LINES = (
        "Info: Device utilisation:\n",
        "Info: \t   LUT4:  9000/ 20736    43%\n",
        "Info: \t    DFF: {}/ 15552   100%\n",
    )
    returncode = 1

    def __init__(self, registers: int, stdout: Any) -> None:
        self.lines = iter([line.format(registers) for line in self.LINES] + ["\n"])
        self.log, self.killed, self.left = stdout, False, 6

    def poll(self) -> int | None:
        self.left -= 1
        self.log.write(next(self.lines, "Info: places\n"))
        self.log.flush()
        return None if self.left else 1

    def kill(self) -> None:
        self.killed = True


@pytest.mark.parametrize(("registers", "fits"), [(15_552, True), (15_600, False)])
def test_what_is_too_large_is_refused_before_it_is_placed(
    registers: int, fits: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As soon as all of the table is there: nextpnr's placer for Gowin looks for places without end."""
    made: list[Counting] = []

    def start(_: list[str], stdout: Any, **__: Any) -> Counting:
        made.append(Counting(registers, stdout))
        return made[0]

    monkeypatch.setattr(routing.subprocess, "Popen", start)
    monkeypatch.setattr(routing.time, "sleep", lambda _: None)
    monkeypatch.setattr(routing, "_without_pins", lambda *_: "block.json")
    with pytest.raises(ToolError if fits else InputError) as caught:
        place_and_route("block", PARTS["gw2ar-18"], tmp_path)
    assert made[0].killed != fits and made[0].left == (0 if fits else 2)
    if not fits:
        said = "block does not fit gw2ar-18: it takes 15,600 DFF of 15,552; take a smaller preset."
        assert str(caught.value) == said


@pytest.mark.parametrize(
    ("family", "part"), [pytest.param(*f, marks=pytest.mark.slow if f[0] == "nexus" else ()) for f in FAMILIES.items()]
)
def test_the_decoder_is_routed(family: str, part: str, tmp_path: Path) -> None:
    """Logic, carry chains, registers: everything but memory and multipliers, in seconds."""
    config = Config(rows=1, groups=1, window=4, nm=("2:4",), encodings=("index",), columns=16)
    found = synthesize_top("decoder", config, PARTS[part], tmp_path / family, Tries([1], 50.0, 5.0))
    (row,) = found["seeds"]
    assert ("untimed" in found) == (family == "gowin")
    assert row["fmax"] > 50 and row["logic"] >= 0.9 * found["cells"]["lut4_equivalents"]
    assert found["capacity"]["multipliers_9x9"] == PARTS[part].multipliers
    use = routing._use(tmp_path / family / "nextpnr-1.log")
    report = json.loads((tmp_path / family / "report-1.json").read_text())["utilization"]
    assert {kind: there for kind, (_, there) in use.items()} == {k: cells["available"] for k, cells in report.items()}
    assert all(0 <= cells["used"] - use[kind][0] <= 20 for kind, cells in report.items())  # the router adds some LUTs
    netlist = json.loads((tmp_path / family / "decoder-block.json").read_text())["modules"]["decoder"]
    assert set(netlist["ports"]) == {"clk", "rst"}
    carries = [c["connections"] for c in netlist["cells"].values() if c["type"] == "CCU2"]
    chained = {bit for ports in carries for bit in ports["COUT"]}
    assert all(set(ports.get("CIN", ())) <= chained for ports in carries)


@pytest.mark.parametrize(("family", "part"), FAMILIES.items())
@pytest.mark.parametrize("top", ["engine", "accelerator"])
@pytest.mark.parametrize("name", ["ci", "small", "reference", "huge"])
def test_multipliers_that_are_chosen_fit(family: str, part: str, top: str, name: str) -> None:
    config = choose_multiplier(top, preset(name), PARTS[part])
    assert narrow_multipliers(top, config) <= PARTS[part].multipliers
    assert config.multiplier == ("lut" if name == "huge" and top == "accelerator" else family)
    if name == "ci" or (name, top) == ("small", "engine"):
        assert config.hard_multipliers == config.macs


def test_cells_of_another_family() -> None:
    cells = {"ecp5": {"dsp", "dsp-pair"}, "ice40": {"mac16"}, "nexus": {"nexus"}, "gowin": {"gowin"}, "xcup": set()}
    for part in PARTS.values():
        for kind in MULTIPLIERS:
            config = replace(Config(), multiplier=kind)
            if kind in ("auto", "pair", "lut") or kind in cells[part.family]:
                require_cells(config, part)
            else:
                with pytest.raises(InputError, match=f"multiplier {kind} is a cell of .*which .* has none of"):
                    require_cells(config, part)


@pytest.mark.parametrize(("family", "part"), FAMILIES.items())
def test_a_tool_that_is_not_installed(family: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"ports": {}, "cells": {}, "netnames": {"clk": {"bits": [2]}}}
    (tmp_path / "block.json").write_text(json.dumps({"modules": {"block": module}}))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\nclass Hidden:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('yowasp_nextpnr'):\n            raise ImportError('No module named ' + name)\n\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ToolError, match=rf"yowasp-nextpnr-\S*{family} is not installed; pip install"):
        place_and_route("block", PARTS[part], tmp_path, minutes=5)


def test_how_designs_with_pins_and_without_are_routed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What nextpnr is asked for: placer, router, pins; a board names its router."""
    asked: list[list[str]] = []

    class Stopped:
        returncode = 1

        def __init__(self, command: list[str], stdout: Any, **_: Any) -> None:
            asked.append(command)
            stdout.write("ERROR: stopped\n")
            stdout.flush()

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr(routing.subprocess, "Popen", Stopped)
    target = board("ecpix5-85f")
    for pins in (None, Pins("top.lpf", target.chip.options, target.router)):
        with pytest.raises(ToolError, match="stopped"):
            place_and_route("top", target.chip, tmp_path, pins=pins)
    alone, on_board = (" ".join(command) for command in asked)
    assert "--placer heap" in alone and "--out-of-context" in alone and "--router" not in alone
    assert "--placer static --router router2 --lpf top.lpf --textcfg top.config" in on_board
    assert "--out-of-context" not in on_board and "--um5g-85k" in on_board
    assert {b.router for b in BOARDS.values() if b.name != target.name} == {"router1"}
