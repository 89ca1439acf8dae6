"""Points of coverage: what a design has, that counting changes nothing, and that what is not met is seen."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sim.coverage.points import Point, emit_with_points
from sim.coverage.programs import crosses_of, universe
from sta_hw.rtl.emit import emit_verilog
from sta_hw.rtl.primitives.queue import Queue
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Mask, Opcode, Positions, Result
from sta_hw.spec.presets import PRESETS

ROOT = Path(__file__).parents[2]
QUEUE = "sta_hw/rtl/primitives/queue.py"
_RUN = """
import sys
from sim.coverage.plugin import install
install()
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from sim.native import NativeModel, build
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.primitives.queue import Queue

class Streamed(wiring.Component):
    source: In(stream.Signature(8))
    target: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(width=8, depth=4)
        m.d.comb += [
            queue.w_data.eq(self.source.payload), queue.w_en.eq(self.source.valid & queue.w_rdy),
            self.source.ready.eq(queue.w_rdy), self.target.payload.eq(queue.r_data),
            self.target.valid.eq(queue.r_rdy), queue.r_en.eq(self.target.ready),
        ]
        return m

block = Streamed()
model = NativeModel(build(emit_verilog(block, "streamed"), "streamed", streams_of(block)), streams_of(block))
words = np.arange(int(sys.argv[1]), dtype=np.uint32)[:, None] & 255
found = model.run({"source": words}, {"target": len(words)}, stall=0.3, linger=4)
assert (found.outputs["target"] == words).all()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def counted(words: int, folder: Path, cache: Path) -> dict[Point, int]:
    """The points of a queue that so many words went through."""
    folder.mkdir()
    environment = os.environ | {"STA_HW_COVERAGE": str(folder), "STA_HW_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", _RUN, str(words)], cwd=folder, env=environment, check=True)
    sys.path.insert(0, str(ROOT / "scripts"))
    from cover import read

    return {p: n for p, n in read(folder).items() if p.file == QUEUE}


def test_what_is_met_and_what_is_not(tmp_path: Path, cache: Path) -> None:
    """Statements and arms of the queue with 300 words and with none; each bit of a counter, in both directions."""
    none, many = counted(0, tmp_path / "none", cache), counted(300, tmp_path / "many", cache)
    assert none.keys() == many.keys()
    source = (ROOT / QUEUE).read_text().splitlines()
    step = next(n for n, line in enumerate(source, 1) if line.strip() == "with m.If(step):")
    taken = Point(QUEUE, step, "branch", "0")
    assert none[taken] == 0 and many[taken] == 600, "in and out are the same line, and both are counted"
    assert none[Point(QUEUE, step + 1, "line")] == 0 and many[Point(QUEUE, step + 1, "line")] == 600
    assert none[Point(QUEUE, step, "branch", "else")] > 0
    toggles = {p.arm for p in many if p.kind == "signal"}
    assert {f"head_0[{bit}]:{way}" for bit in range(3) for way in ("0->1", "1->0")} <= toggles
    assert all(not n for p, n in none.items() if p.arm.startswith("head_0"))
    assert all(n for p, n in many.items() if p.arm.startswith("head_0"))


class _Chosen(wiring.Component):
    """Two arms, and a Mux."""

    def __init__(self) -> None:
        super().__init__({"source": In(stream.Signature(8)), "other": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal(8)
        with m.If(self.source.valid):
            m.d.sync += kept.eq(Mux(self.source.payload[0], self.source.payload, kept))
        m.d.comb += self.other.eq(kept[3])
        return m


def test_points_of_other_sources_are_none() -> None:
    """What is not below sta_hw/rtl has no points: tests' own blocks, and Amaranth's library."""
    text = emit_with_points(_Chosen(), "chosen")
    assert "cover (" not in text and f"cover@{QUEUE}" not in text
    with_points = emit_with_points(Queue(width=4, depth=4), "queue")
    assert with_points.count("cover (") == with_points.count("@line@") + with_points.count("@branch@") > 10


def test_without_coverage_nothing_changes() -> None:
    emit_with_points(Queue(width=4, depth=4), "queue")
    assert "cover" not in emit_verilog(Queue(width=4, depth=4), "queue")


def test_a_point_is_read_as_it_was_written() -> None:
    point = Point(QUEUE, 74, "branch", "else")
    assert Point.read(str(point)) == point and Point.read("sta_hw/rtl/core.py:7") is None


def test_what_an_instruction_counts_for() -> None:
    config = PRESETS["ci"]
    product = Instruction(
        Opcode.PRODUCT,
        {"result": Result.ACTIVATE, "n": 2, "m_log2": 2, "encoding": Positions.INDEX, "columns": 5, "depth": 16,
         "rows_after": 3, "passes": 1},
    )  # fmt: skip
    assert set(crosses_of(product, config, stalls=True)) == {
        ("instruction", "PRODUCT", "with stalls"), ("weights", "2:4", "INDEX", "INT8"),
        ("result", "ACTIVATE", "INDEX", "INT8", "with stalls"), ("edge", "ACTIVATE", "last rows left out"),
        ("edge", "ACTIVATE", "columns in no whole blocks"),
    }  # fmt: skip
    scores = Instruction(Opcode.SCORES, {"mask": Mask.KEYS, "keys": 3, "columns": 4, "depth": 16})
    assert ("mask", "KEYS", "some", "without") in set(crosses_of(scores, config, stalls=False))


@pytest.mark.parametrize("features", [(), ("decoder",)], ids=["", "decoder"])
def test_what_counts_is_possible(features: tuple[str, ...]) -> None:
    """No table has a row that hardware without its feature could meet, nor one of a product outside it."""
    config: Config = dataclasses.replace(PRESETS["ci"], features=features)
    possible = universe(config)
    product = Instruction(Opcode.PRODUCT, {"n": 1, "m_log2": 3, "encoding": Positions.BITMAP, "depth": 16, "passes": 1})
    met = {c for c in crosses_of(product, config, stalls=False) if c[0] in ("instruction", "weights", "result")}
    assert met <= possible
    assert (("mask", "CAUSAL", "none", "without") in possible) == bool(features)
