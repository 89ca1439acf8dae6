"""Two products in one multiplier: every pair of operands times every weight, in RTL."""

from __future__ import annotations

import numpy as np
import pytest
from support import Streamed, covering_products

from sim.library import PRIMITIVES
from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.engine.array import ProcessingArray
from sta_hw.rtl.primitives.mac16 import Mac16Pair
from sta_hw.rtl.primitives.multiplier_pair import MultiplierPair
from sta_hw.run.rtl import EngineModel
from sta_hw.spec.config import Config

OPERANDS = np.arange(-128, 256)
WEIGHTS = np.arange(-128, 128)


@pytest.mark.parametrize("kind", ["auto", "dsp", "mac16"])
def test_exhaustive(kind: str) -> None:
    """All 384 x 384 operands times all 256 weights."""
    pair = Mac16Pair() if kind == "mac16" else MultiplierPair(kind)
    block = Streamed(pair, {"a0": 9, "a1": 9, "b": 8}, {"p0": 16, "p1": 16})
    model = NativeModel(
        build(emit_verilog(block, "pair"), "pair", streams_of(block), extra=[PRIMITIVES]), streams_of(block)
    )
    for some in np.array_split(OPERANDS, 24):
        a0, a1, b = (x.ravel() for x in np.meshgrid(OPERANDS, some, WEIGHTS, indexing="ij"))
        words = join([(a0[:, None] & 511, 9), (a1[:, None] & 511, 9), (b[:, None] & 255, 8)])
        found = model.run({"source": words}, {"target": len(b)}).outputs["target"][:, 0]
        np.testing.assert_array_equal(found, ((a0 * b) & 0xFFFF | ((a1 * b) & 0xFFFF) << 16).astype(np.uint32))


@pytest.mark.parametrize(("kind", "limit"), [("pair", 0), ("dsp-pair", 1), ("mac16", 4)])
def test_the_kinds_agree_in_the_engine(kind: str, limit: int) -> None:
    """An odd number of rows, and fewer hard multipliers than would be used."""
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
