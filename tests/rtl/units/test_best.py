"""The largest results of each row in RTL against their reference: ties, few columns, many, with stalls."""

from __future__ import annotations

import numpy as np
import pytest

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.best import BestRows
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.best import Best
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=4, groups=2, lanes=4, drain_lanes=1),
    Config(rows=16, groups=4, lanes=8, drain_lanes=4),
    Config(rows=16, groups=4, lanes=16, drain_lanes=8),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["1 lane", "4 lanes", "8 lanes"])
def test_equal_to_the_reference(config: Config) -> None:
    rng = np.random.default_rng(config.rows)
    block = Best(config)
    model = NativeModel(build(emit_verilog(block, "best"), "best", streams_of(block)), streams_of(block))
    rows, lanes = config.rows, config.drain_lanes
    orders, sources, targets = [], [], []
    # Columns of each product of each list.
    for number, products in enumerate(((3,), (40, 1, 60), (8,), (9, 200), (1, 1, 1), (30, 30))):
        lists = BestRows(rows)
        at = int(rng.choice([0, (1 << 18) - 20, rng.integers(1 << 18)]))
        for product, columns in enumerate(products):
            results = rng.integers(-32767, 32768, (columns, rows))
            if number % 3 == 1:  # many that are equal, and both ends
                results = rng.choice([-32767, 32767, 5, 6, 7, 8, 9, 10, 11], results.shape)
            if number % 3 == 2:  # each one larger than all before, in some rows
                results = np.sort(results, axis=0)[:: -1 if product else 1]
            lists.add(results.astype(np.int16), at)
            ends = product == len(products) - 1
            orders.append(join([([int(v)], w) for v, w in ((product == 0, 1), (ends, 1), (at, 18))]))
            beats = results.reshape(-1, lanes)
            sources.append(join([(beats, 16), (np.arange(len(beats)) == len(beats) - 1, 1)]))
            at = (at + columns) % (1 << 18)
        words = lists.stored().view("<i2").astype(np.int64).reshape(-1, lanes)
        targets.append(join([(words, 16), (np.arange(len(words)) == len(words) - 1, 1)]))
    inputs = {"order": np.concatenate(orders), "source": np.concatenate(sources)}
    wanted = np.concatenate(targets)
    for stall in (0.0, 0.3, 0.7):
        outcome = model.run(inputs, {"target": len(wanted)}, stall=stall, seed=4, linger=20)
        np.testing.assert_array_equal(outcome.outputs["target"], wanted)


def test_the_reference_by_hand() -> None:
    lists = BestRows(2)
    lists.add(np.array([[5, -3], [5, 9], [1, 9]], np.int16), 100)
    lists.add(np.array([[7, 9]], np.int16), 7)
    assert lists.numbers[:, :4].tolist() == [[7, 100, 101, 102], [101, 102, 7, 100]]
    assert lists.results[:, :5].tolist() == [[7, 5, 5, 1, -32768], [9, 9, 9, -3, -32768]]
    entries = lists.stored().view("<i4").reshape(2, 8, 2)
    assert entries[0, 0].tolist() == [7, 7] and entries[1, 4].tolist() == [(1 << 18) - 1, -32768]
