"""Multipliers of all kinds against Python's product."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from support import Streamed, covering_products

from sim.native import PRIMITIVES, NativeModel, build
from sta_hw.host.beats import join
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.primitives.multiplier import Multiplier
from sta_hw.run.rtl import EngineModel
from sta_hw.spec.config import Config


def products(kind: str, a_width: int, b_width: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Feed one pair a cycle; return the products, `latency` cycles later."""
    m = Module()
    m.submodules.dut = dut = Multiplier(a_width, b_width, kind)
    found: list[int] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
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


@pytest.mark.parametrize("kind", ["auto", "dsp", "lut"])
def test_exhaustive(kind: str) -> None:
    """All 512 x 256 operands at the width of the array, which makes ECP5's primitive and the portable ones equal."""
    block = Streamed(Multiplier(9, 8, kind), {"a": 9, "b": 8}, {"p": 17})
    streams = streams_of(block)
    model = NativeModel(build(emit_verilog(block, "multiplier"), "multiplier", streams, extra=[PRIMITIVES]), streams)
    a, b = (x.ravel() for x in np.meshgrid(np.arange(-256, 256), np.arange(-128, 128), indexing="ij"))
    words = join([(a[:, None] & 511, 9), (b[:, None] & 255, 8)])
    found = model.run({"source": words}, {"target": len(b)}).outputs["target"][:, 0]
    np.testing.assert_array_equal(found, ((a * b) & 0x1FFFF).astype(np.uint32))


def test_a_primitive_that_is_too_narrow() -> None:
    with pytest.raises(ValueError, match="MULT18X18D operands have at most 18 bits, not 19"):
        Multiplier(19, 8, "dsp")


def test_the_kinds_agree_in_the_engine() -> None:
    """The same products, 2 x 3, through the inferred, the ECP5 and the adder multiplier."""
    runs = []
    for kind in ("auto", "dsp", "lut"):
        config = Config(rows=2, groups=3, multiplier=kind, columns=16)
        runs.append(EngineModel(config).run(covering_products(config, 11, limit=20)))
    assert len({r.cycles for r in runs}) == 1
    for other in runs[1:]:
        for a, b in zip(runs[0].results, other.results, strict=True):
            np.testing.assert_array_equal(a, b)
