"""The transposer alone, with stalls, against numpy: blocks narrower, as wide, and wider than the bus."""

from __future__ import annotations

import numpy as np
import pytest

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.transposer import Transposer
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=16, groups=8, lanes=8, drain_lanes=4),
    Config(rows=4, groups=2, lanes=4, drain_lanes=2),
    Config(rows=16, groups=2, lanes=16, drain_lanes=4),
    Config(rows=16, groups=16, lanes=4, drain_lanes=2),
    Config(rows=16, groups=16, lanes=16, drain_lanes=4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.rows}x{c.groups} bus {c.lanes}")
def test_blocks(config: Config) -> None:
    rng = np.random.default_rng(config.groups)
    block = Transposer(config)
    model = NativeModel(build(emit_verilog(block, "transposer"), "transposer", streams_of(block)), streams_of(block))
    columns = rng.integers(0, 256, (5, config.groups, config.rows)).astype(np.uint8)
    rows = np.ascontiguousarray(columns.transpose(0, 2, 1))
    words = {n: join([(a.reshape(-1, config.bus_bytes), 8)]) for n, a in (("source", columns), ("target", rows))}
    for stall in (0.0, 0.4, 0.8):
        outcome = model.run({"source": words["source"]}, {"target": len(words["target"])}, stall=stall, seed=1)
        np.testing.assert_array_equal(outcome.outputs["target"], words["target"])
