"""Multipliers of all kinds against Python's product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from support import Streamed, covering_products

from sim.library import primitive_models
from sim.native import NativeModel, build
from sta_hw.host.beats import fields, join
from sta_hw.rtl.emit import emit_verilog, run_yosys, streams_of
from sta_hw.rtl.primitives.multiplier import Multiplier
from sta_hw.run.rtl import EngineModel
from sta_hw.spec.config import Config


def products(kind: str, a_width: int, b_width: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Feed one pair a cycle; return the products, `latency` cycles later."""
    m = Module()
    m.submodules.dut = dut = Multiplier(a_width, b_width, kind)
    found: list[int] = []

    async def bench(ctx) -> None:
        for cycle in range(len(pairs) + Multiplier.latency):
            if cycle < len(pairs):
                ctx.set(dut.a, pairs[cycle][0])
                ctx.set(dut.b, pairs[cycle][1])
            if cycle >= Multiplier.latency:
                found.append(ctx.get(dut.p))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("kind", ["auto", "lut"])
@pytest.mark.parametrize(("a_width", "b_width"), [(9, 8), (17, 17), (2, 2), (18, 5)])
def test_products(kind: str, a_width: int, b_width: int) -> None:
    rng = np.random.default_rng(0)
    ends = [
        (a, b)
        for a in (-(1 << a_width - 1), (1 << a_width - 1) - 1, -1, 0, 1)
        for b in (-(1 << b_width - 1), (1 << b_width - 1) - 1, -1, 0, 1)
    ]
    random = [
        (
            int(rng.integers(-(1 << a_width - 1), 1 << a_width - 1)),
            int(rng.integers(-(1 << b_width - 1), 1 << b_width - 1)),
        )
        for _ in range(1500)
    ]
    pairs = ends + random
    assert products(kind, a_width, b_width, pairs) == [a * b for a, b in pairs]


def native(a_width: int, b_width: int, kind: str) -> NativeModel:
    """One multiplier, compiled."""
    block = Streamed(Multiplier(a_width, b_width, kind), {"a": a_width, "b": b_width}, {"p": a_width + b_width})
    streams = streams_of(block)
    verilog = emit_verilog(block, "multiplier")
    return NativeModel(build(verilog, "multiplier", streams, extra=primitive_models(kind)), streams)


@pytest.mark.parametrize("kind", ["auto", "dsp", "lut", "nexus", "gowin"])
def test_exhaustive(kind: str) -> None:
    """All 512 x 256 operands at the width of the array, which makes the primitives and the portable ones equal."""
    model = native(9, 8, kind)
    a, b = (x.ravel() for x in np.meshgrid(np.arange(-256, 256), np.arange(-128, 128), indexing="ij"))
    words = join([(a[:, None] & 511, 9), (b[:, None] & 255, 8)])
    found = model.run({"source": words}, {"target": len(b)}).outputs["target"][:, 0]
    np.testing.assert_array_equal(found, ((a * b) & 0x1FFFF).astype(np.uint32))


WIDTHS = [(17, 17), (18, 18), (10, 9), (9, 9)]
CELLS = [*((kind, *widths) for kind in ("nexus", "gowin") for widths in WIDTHS), ("dsp", 18, 18)]


@pytest.mark.parametrize(("kind", "a_width", "b_width"), CELLS)
def test_wide_and_narrow_cells(kind: str, a_width: int, b_width: int) -> None:
    """Ends and random operands at the widths on both sides of where one cell gives way to the other, and at the full
    width of ECP5's only one, where an operand that is taken without its sign shows."""
    rng = np.random.default_rng(1)
    ends = [[-(1 << w - 1), (1 << w - 1) - 1, -1, 0, 1] for w in (a_width, b_width)]
    a, b = (x.ravel() for x in np.meshgrid(*ends, indexing="ij"))
    a = np.append(a, rng.integers(-(1 << a_width - 1), 1 << a_width - 1, 4000))
    b = np.append(b, rng.integers(-(1 << b_width - 1), 1 << b_width - 1, 4000))
    words = join([(a[:, None] & ((1 << a_width) - 1), a_width), (b[:, None] & ((1 << b_width) - 1), b_width)])
    found = native(a_width, b_width, kind).run({"source": words}, {"target": len(b)}).outputs["target"]
    np.testing.assert_array_equal(fields(found, [(1, a_width + b_width, True)])[0][:, 0], a * b)
    narrow = kind != "dsp" and max(a_width, b_width) <= 9
    cell = "MULT18X18D" if kind == "dsp" else "MULT9X9" if narrow else "MULT18X18"
    assert f"{cell} #" in emit_verilog(Multiplier(a_width, b_width, kind), "multiplier")


def test_our_model_of_nexus_and_yosys_own(tmp_path: Path) -> None:
    """All operands of the array through the multiplier with Yosys' model of MULT9X9 flattened into it."""
    block = Streamed(Multiplier(9, 8, "nexus"), {"a": 9, "b": 8}, {"p": 17})
    streams = streams_of(block)
    (tmp_path / "multiplier.v").write_text(emit_verilog(block, "multiplier"))
    script = (
        "read_verilog multiplier.v +/lattice/cells_sim_nexus.v\nhierarchy -top multiplier\nproc\nflatten\n"
        "opt_clean -purge\nwrite_verilog -noattr flat.v\n"
    )
    run_yosys(script, tmp_path)
    flat = (tmp_path / "flat.v").read_text()
    assert "MULT9X9" not in flat.replace("\\", " ").split()
    a, b = (x.ravel() for x in np.meshgrid(np.arange(-256, 256), np.arange(-128, 128), indexing="ij"))
    words = join([(a[:, None] & 511, 9), (b[:, None] & 255, 8)])
    found = NativeModel(build(flat, "multiplier", streams), streams).run({"source": words}, {"target": len(b)})
    np.testing.assert_array_equal(fields(found.outputs["target"], [(1, 17, True)])[0][:, 0], a * b)


@pytest.mark.parametrize(("kind", "cell"), [("dsp", "MULT18X18D"), ("nexus", "MULT18X18"), ("gowin", "MULT18X18")])
def test_a_primitive_that_is_too_narrow(kind: str, cell: str) -> None:
    with pytest.raises(ValueError, match=f"{cell} operands have at most 18 bits, not 19"):
        Multiplier(19, 8, kind)


@pytest.mark.slow
def test_the_kinds_agree_in_the_engine() -> None:
    """The same products, 2 x 3, through the inferred, the adder and each vendor's multiplier."""
    runs = []
    for kind in ("auto", "dsp", "lut", "nexus", "gowin"):
        config = Config(rows=2, groups=3, multiplier=kind, columns=16)
        runs.append(EngineModel(config).run(covering_products(config, 11, limit=20)))
    assert len({r.cycles for r in runs}) == 1
    for other in runs[1:]:
        for a, b in zip(runs[0].results, other.results, strict=True):
            np.testing.assert_array_equal(a, b)
