"""Two products in one multiplier: every pair of operands times every weight, in RTL."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sim.native import PRIMITIVES, NativeModel, build
from sta_hw.config import Config
from sta_hw.rtl.array import ProcessingArray
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.mac16 import Mac16Pair
from sta_hw.rtl.multiplier_pair import MultiplierPair
from sta_hw.runtime.beats import join
from sta_hw.runtime.rtl import EngineModel

OPERANDS = np.arange(-128, 256)
WEIGHTS = np.arange(-128, 128)


class Streamed(wiring.Component):
    """A pair between streams, for the native harness; it is always ready."""

    def __init__(self, pair: MultiplierPair | Mac16Pair) -> None:
        self.pair = pair
        given = data.StructLayout({"a0": signed(9), "a1": signed(9), "b": signed(8)})
        products = data.StructLayout({"p0": signed(16), "p1": signed(16)})
        super().__init__({"source": In(stream.Signature(given)), "target": Out(stream.Signature(products))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pair = pair = self.pair
        valid = Signal(pair.latency)
        m.d.sync += valid.eq(Cat(self.source.valid, valid))
        given, products = self.source.payload, self.target.payload
        m.d.comb += [
            self.source.ready.eq(1),
            *(getattr(pair, n).eq(given[n]) for n in ("a0", "a1", "b")),
            *(products[n].eq(getattr(pair, n)) for n in ("p0", "p1")),
            self.target.valid.eq(valid[-1]),
        ]
        return m


@pytest.mark.parametrize("kind", ["auto", "dsp", "mac16"])
def test_exhaustive(kind: str) -> None:
    """All 384 x 384 operands times all 256 weights: the inferred pair. Primitives: all of one row, ends of the other.

    The pairs differ in the multiplier inside only, which test_multiplier.py and this file compare.
    """
    block = Streamed(Mac16Pair() if kind == "mac16" else MultiplierPair(kind))
    model = NativeModel(
        build(emit_verilog(block, "pair"), "pair", streams_of(block), extra=[PRIMITIVES]), streams_of(block)
    )
    others = OPERANDS if kind == "auto" else np.array([-128, -127, -1, 0, 1, 127, 128, 255])
    for some in np.array_split(others, max(1, len(others) // 16)):
        a0, a1, b = (x.ravel() for x in np.meshgrid(OPERANDS, some, WEIGHTS, indexing="ij"))
        for low, high in ((a0, a1), (a1, a0)) if kind != "auto" else ((a0, a1),):
            words = join([(low[:, None] & 511, 9), (high[:, None] & 511, 9), (b[:, None] & 255, 8)])
            found = model.run({"source": words}, {"target": len(b)}).outputs["target"][:, 0]
            np.testing.assert_array_equal(found, ((low * b) & 0xFFFF | ((high * b) & 0xFFFF) << 16).astype(np.uint32))


@pytest.mark.parametrize(("kind", "limit"), [("pair", 0), ("dsp-pair", 1), ("mac16", 4)])
def test_the_kinds_agree_in_the_engine(kind: str, limit: int) -> None:
    """An odd number of rows, and fewer hard multipliers than would be used."""
    from support import covering_products

    runs = []
    for config in (
        Config(rows=3, groups=2, columns=16),
        Config(rows=3, groups=2, columns=16, multiplier=kind, array_multipliers=limit),
    ):
        runs.append(EngineModel(config).run(covering_products(config, 12, limit=20)))
    for one, other in zip(runs[0].results, runs[1].results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("limit", "expected"), [(0, 8), (3, 3), (9, 8)])
def test_hard_multipliers(limit: int, expected: int) -> None:
    config = Config(rows=4, groups=4, multiplier="dsp-pair", array_multipliers=limit)
    assert config.hard_multipliers == expected
    text = emit_verilog(ProcessingArray(config), "array")
    assert text.count("MULT18X18D") == expected
