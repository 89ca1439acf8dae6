"""The decoder alone on cocotb: every N at M = 4 and 16, both encodings, both kinds of stall."""

from __future__ import annotations

import numpy as np
import pytest

from sim.cocotb_runner import Case, run_cocotb
from sta_hw.formats import encode, prune
from sta_hw.host import beats
from sta_hw.reference.decoder import decoded_beats
from sta_hw.rtl.engine.decoder import Decoder
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern

CONFIG = Config(rows=1, groups=3, window=16)


@pytest.mark.parametrize("encoding", ["index", pytest.param("bitmap", marks=pytest.mark.slow)])
def test_every_n(encoding: str) -> None:
    rng = np.random.default_rng(4)
    inputs: dict[str, list[np.ndarray]] = {"command": [], "values": [], "positions": []}
    expected: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
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
        expected.append(decoded_beats(weights, pattern, CONFIG.groups, depth, taps))
    merged = {name: np.concatenate(parts) for name, parts in inputs.items()}
    wanted = [np.concatenate(parts) for parts in zip(*expected, strict=True)]
    count = {"beats": len(wanted[0]), "faults": len(patterns)}
    cases = [Case(merged, count, stall, limit=100_000) for stall in (0.0, 0.4)]
    for outputs in run_cocotb(Decoder(CONFIG), "decoder", cases):
        values, addresses, flags = beats.fields(outputs["beats"], [(3, 8, True), (3, 4, False), (9, 1, False)])
        for got, reference in zip((values, addresses, flags), wanted, strict=True):
            np.testing.assert_array_equal(got, reference)
        assert not outputs["faults"].any()
