"""The attention's softmax in RTL against the row softmax of the reference."""

from __future__ import annotations

import numpy as np
import pytest

from sim.native import NativeModel, build
from sta_hw.host.beats import fields, growth_beats, join
from sta_hw.reference.softmax import softmax_row
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.attention import AttentionSoftmax
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=4, groups=2, window=8, lanes=4, drain_lanes=2),
    Config(rows=8, groups=4, window=16, lanes=8, drain_lanes=1),
    Config(rows=16, groups=4, window=4, lanes=8, drain_lanes=4),
    Config(rows=16, groups=4, window=8, lanes=8, drain_lanes=4, features=("causal",)),
    Config(rows=4, groups=2, window=16, lanes=4, drain_lanes=1, features=("causal",)),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=["one word a key", "1 drain lane", "two words a key", "causal", "causal, 1 drain lane"]
)
def test_equal_to_the_row_softmax(config: Config) -> None:
    rng = np.random.default_rng(config.rows)
    block = AttentionSoftmax(config)
    model = NativeModel(build(emit_verilog(block, "attention"), "attention", streams_of(block)), streams_of(block))
    groups, rows = config.groups, config.rows
    blocks, scores, probabilities, growths, totals = [], [], [], [], []
    for number, count in enumerate((1, 1, 3, 2, 1, 5, 3, 2, 1, 4, 2)):
        coarse = int(rng.integers(2)) if number > 5 else number % 2
        depth = int(rng.integers(1, config.window + 1))
        gain = int(rng.integers(0, 8))
        keys = groups * depth
        logits = rng.integers(-32768, 32768, (count * keys, rows))
        if number % 3 == 1:
            logits = rng.integers(-300, 300, logits.shape) + 800 * np.arange(count * keys)[:, None] // keys
        if number % 3 == 2:
            logits[:] = rng.choice([-32768, 32767, 0])
        # Keys before number 0 and from `valid` on are none of the text's, in the first block and in the last.
        start = [-int(rng.integers(keys)) * (number > 8 and b == 0) for b in range(count)]
        valid = [keys] * (count - 1) + [int(rng.integers(1, keys + 1))]
        order = np.arange(keys)
        key = groups * (order % depth) + order // depth
        causal = bool(config.features) and number % 4 != 2
        if causal:  # any number of the last block's keys, none at all, all but the last row's
            valid[-1] = [int(rng.integers(1, keys + 1)), 0, max(0, keys - rows + 1), keys][number % 4]
        more = causal * np.arange(rows)  # keys that a row has beyond the first one's
        mask = np.concatenate(
            [(key + s >= 0)[:, None] & ((key + s)[:, None] < v + more) for s, v in zip(start, valid, strict=True)]
        )
        for b in range(count):
            fields_of = [(depth, 6), (start[b] & 0xFFFF, 16), (valid[b], 16), (b == 0, 1), (b == count - 1, 1)]
            fields_of += [(gain, 3), (coarse, 1)] + [(causal, 1)] * bool(config.features)
            blocks.append(join([([int(v)], w) for v, w in fields_of]))
        scores.append(join([(logits.reshape(-1, config.drain_lanes), 16)]))
        found = [
            softmax_row(logits[:, r], mask[:, r], block=keys, wide=False, gain=gain, coarse=coarse) for r in range(rows)
        ]
        table = np.stack([f.probabilities for f in found], axis=1)
        probabilities.append(join([(table.reshape(-1, config.lanes), 8)]))
        exponents = np.stack([f.exponents[::keys] for f in found])
        growths += [np.clip(exponents[:, b] - exponents[:, b - 1], 0, 31) for b in range(1, count)]
        totals += [(f.multiplier, f.shift) for f in found]
    inputs = {"block": np.concatenate(blocks), "scores": np.concatenate(scores)}
    wanted = np.concatenate(probabilities)
    counts = {"probabilities": len(wanted), "growth": len(growths), "totals": len(totals)}
    for stall in (0.0, 0.3, 0.7):
        outcome = model.run(inputs, counts, stall=stall, seed=3, linger=20, patience=30_000)
        np.testing.assert_array_equal(outcome.outputs["probabilities"], wanted)
        if not stall:  # the first block waits for no other
            cycles = outcome.cycles
            assert cycles["probabilities"][0] - cycles["scores"][len(scores[0]) - 1] == rows // config.lanes + 12
        np.testing.assert_array_equal(outcome.outputs["growth"], growth_beats(growths, config))
        multiplier, shift = fields(outcome.outputs["totals"], [(1, 16, False), (1, 3, False)])
        np.testing.assert_array_equal(np.stack([multiplier[:, 0], shift[:, 0]], 1), np.array(totals))
