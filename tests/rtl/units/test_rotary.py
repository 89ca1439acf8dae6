"""Rotary embedding in RTL against its reference, with stalls; and the reference against floating point."""

from __future__ import annotations

import numpy as np
import pytest

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.vector import rotated
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.rotary import Rotary
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=4, groups=2, lanes=4, drain_lanes=1),
    Config(rows=16, groups=4, lanes=8, drain_lanes=4),
    Config(rows=8, groups=4, lanes=8, drain_lanes=8, multiplier="lut"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["1 lane", "4 lanes", "all rows at once"])
def test_equal_to_the_reference(config: Config) -> None:
    rng = np.random.default_rng(config.rows)
    block = Rotary(config)
    model = NativeModel(build(emit_verilog(block, "rotary"), "rotary", streams_of(block)), streams_of(block))
    rows, lanes = config.rows, config.drain_lanes
    streams: dict[str, list[np.ndarray]] = {"source": [], "table": []}
    targets = []
    for number, pairs in enumerate((1, 3, 1, 8, 2, 16)):
        x = rng.integers(-32767, 32768, (2 * pairs, rows))
        factors = rng.integers(-32768, 32768, (2 * pairs, rows))
        if number % 3 == 1:  # angles, and results that fit
            x, angle = x >> 3, rng.uniform(0, 7, (pairs, rows))
            factors = np.stack([np.cos(angle), np.sin(angle)], 1).reshape(2 * pairs, rows) * 2**14
            factors = factors.round().astype(np.int64)
        if number % 3 == 2:  # the ends of all ranges
            x, factors = rng.choice([-32767, 32767, 0], x.shape), rng.choice([-32768, 32767], x.shape)
        turned = np.stack(rotated(x[::2], x[1::2], factors[::2], factors[1::2]), axis=1)
        last = np.arange(2 * pairs * rows // lanes) == 2 * pairs * rows // lanes - 1
        streams["source"].append(join([(x.reshape(-1, lanes), 16), (last, 1)]))
        streams["table"].append(join([(factors.reshape(-1, lanes), 16)]))
        targets.append(join([(turned.reshape(-1, lanes).astype(np.int64), 16), (last, 1)]))
    inputs = {n: np.concatenate(s) for n, s in streams.items()}
    wanted = np.concatenate(targets)
    for stall in (0.0, 0.3, 0.7):
        outcome = model.run(inputs, {"target": len(wanted)}, stall=stall, seed=4, linger=20)
        np.testing.assert_array_equal(outcome.outputs["target"], wanted)


def test_close_to_a_rotation_in_floating_point() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(-127 * 64, 127 * 64, (2, 5000)) / np.sqrt(2)
    x, y, angle = x.round(), y.round(), rng.uniform(0, 7, 5000)
    cosine, sine = (np.round(f(angle) * 2**14).astype(int) for f in (np.cos, np.sin))
    found = rotated(x.astype(int), y.astype(int), cosine, sine)
    exact = (x * np.cos(angle) - y * np.sin(angle)) / 64, (x * np.sin(angle) + y * np.cos(angle)) / 64
    assert np.abs(np.array(found) - np.array(exact)).max() < 0.51
