"""The window feed alone, with stalls, against numpy: windows of bytes, of either digit, and probabilities, by turns."""

from __future__ import annotations

import numpy as np
import pytest

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.vector import digits
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.feeds import WindowFeed
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=16, groups=8, lanes=8, drain_lanes=4, features=("digits",)),
    Config(rows=4, groups=2, lanes=4, drain_lanes=2, features=("digits",)),
    Config(rows=16, groups=2, lanes=16, drain_lanes=4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"bus {c.lanes} {','.join(c.features)}")
def test_windows(config: Config) -> None:
    rng = np.random.default_rng(config.lanes)
    kinds = 4 if "digits" in config.features else 2
    orders: list[tuple[int, ...]] = []
    words, probabilities, wanted = [], [], []
    for number in range(60):
        kind = int(rng.integers(kinds))  # probabilities, bytes, high digits, low ones
        beats = 2 * int(rng.integers(1, 9)) if kind > 1 else int(rng.integers(1, 17))
        data = rng.integers(0, 256, (beats, config.lanes), dtype=np.uint8)
        (words if kind else probabilities).append(data)
        if kind > 1:
            data = digits(data.reshape(-1).view("<i2"))[kind - 2].astype(np.int8).view(np.uint8)
            data = data.reshape(-1, config.lanes)
        wanted.append(data)
        orders.append((int(kind == 0), 8 * number, beats, number, *((max(kind - 1, 0),) if kinds == 4 else ())))
    block = WindowFeed(config)
    model = NativeModel(build(emit_verilog(block, "feed"), "feed", streams_of(block)), streams_of(block))
    columns = np.array(orders).T
    widths = (1, 32, 20, 16, 2)
    inputs = {"order": join([(c[:, None], w) for c, w in zip(columns, widths, strict=False)])}
    inputs |= {n: join([(np.concatenate(d), 8)]) for n, d in (("words", words), ("probabilities", probabilities))}
    read = columns[:, columns[0] == 0]
    expected = {
        "activations": join([(np.concatenate(wanted), 8)]),
        "run": join([(c[:, None], w) for c, w in zip(read[1:4], widths[1:4], strict=True)]),
    }
    for stall in (0.0, 0.4, 0.8):
        outcome = model.run(inputs, {n: len(w) for n, w in expected.items()}, stall=stall, seed=2)
        for name, data in expected.items():
            np.testing.assert_array_equal(outcome.outputs[name], data)
