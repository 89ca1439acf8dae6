"""The decoder alone on cocotb: every N at M = 4 and 16, both encodings, both kinds of stall."""

from __future__ import annotations

import numpy as np
import pytest

from sim.cocotb_runner import Case, run_cocotb
from sta_hw.formats import encode, prune
from sta_hw.host import beats
from sta_hw.rtl.engine.decoder import Decoder
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern

CONFIG = Config(rows=1, groups=3, window=16)


def expected_beats(weights: np.ndarray, pattern: Pattern, depth: int, taps: int) -> list[tuple]:
    """Values, addresses and flags by walking the dense matrix."""
    columns, reduction = weights.shape
    span = CONFIG.groups * depth
    passes = max(1, -(-reduction // span))
    padded = np.zeros((columns, passes * span), np.int64)
    padded[:, :reduction] = weights
    found = []
    for step in range(passes):
        for column in range(columns):
            window = padded[column, step * span : (step + 1) * span].reshape(CONFIG.groups, depth)
            entries: list[list[tuple[int, int]]] = []
            for lane in window:
                kept: list[tuple[int, int]] = []
                for start in range(0, depth, pattern.m):
                    nonzero = [i for i in range(start, start + pattern.m) if lane[i]]
                    free = [i for i in range(start, start + pattern.m) if not lane[i]]
                    kept += [(i, int(lane[i])) for i in sorted(nonzero + free[: pattern.n - len(nonzero)])]
                entries.append(kept)
            steps = len(entries[0])
            for k in range(steps):
                last = k == steps - 1
                gives = last and step == passes - 1
                found.append(
                    (
                        [e[k][1] for e in entries],
                        [e[k][0] + column % taps * depth for e in entries],
                        [k == 0, last, step == 0, step == passes - 1, last and column == columns - 1, 0, 0, 0, gives],
                    )
                )
    return found


@pytest.mark.parametrize("encoding", ["index", "bitmap"])
def test_every_n(encoding: str) -> None:
    rng = np.random.default_rng(4)
    inputs: dict[str, list[np.ndarray]] = {"command": [], "values": [], "positions": []}
    expected = []
    patterns = [Pattern(n, m) for m in (4, 16) for n in range(1, m + 1)] + [Pattern(1, 1)]
    for pattern in patterns:
        depth = max(pattern.m, int(rng.choice([4, 8, 16])))
        taps = int(rng.integers(1, 16 // depth + 1))
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, 100)))
        weights = prune(rng.integers(-128, 128, shape).astype(np.int8), pattern)
        chosen = "dense" if pattern.m == 1 else encoding
        encoded = encode(weights, pattern, groups=3, window=16, encoding=chosen, depth=depth)
        inputs["command"].append(beats.command_beat(encoded, taps=taps))
        inputs["values"].append(beats.value_beats(encoded))
        if len(encoded.positions):
            inputs["positions"].append(beats.position_beats(encoded))
        expected += expected_beats(weights, pattern, depth, taps)
    merged = {name: np.concatenate(parts) for name, parts in inputs.items()}
    count = {"beats": len(expected), "faults": len(patterns)}
    cases = [Case(merged, count, stall, limit=100_000) for stall in (0.0, 0.4)]
    for outputs in run_cocotb(Decoder(CONFIG), "decoder", cases):
        values, addresses, flags = beats.fields(outputs["beats"], [(3, 8, True), (3, 4, False), (9, 1, False)])
        assert values.tolist() == [e[0] for e in expected]
        assert addresses.tolist() == [e[1] for e in expected]
        assert flags.tolist() == [[int(f) for f in e[2]] for e in expected]
        assert not outputs["faults"].any()
