"""Bits per weight against what the encoder really writes, and against the limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sta_hw.formats.nm import encode, prune
from sta_hw.sparsity.compression import compression
from sta_hw.spec.patterns import Pattern

SHAPES = {"0.intermediate.dense": (256, 128), "0.output.dense": (128, 256)}


@pytest.mark.parametrize("pattern", [Pattern(1, 4), Pattern(2, 4), Pattern(4, 16), Pattern(12, 16)], ids=str)
def test_against_encoded_matrices(pattern: Pattern) -> None:
    rng = np.random.default_rng(0)
    rows = compression(SHAPES, dict.fromkeys(SHAPES, pattern))
    for row, (columns, reduction) in zip(rows, SHAPES.values(), strict=False):
        weights = prune(rng.integers(1, 128, (columns, reduction)).astype(np.int8), pattern)
        for name in ("index", "bitmap"):
            bits = encode(weights, pattern, groups=8, window=16, encoding=name).size_bits / weights.size
            assert getattr(row, name) == pytest.approx(bits, rel=1e-3)
        limit = 8 * pattern.density + math.log2(math.comb(pattern.m, pattern.n)) / pattern.m
        assert row.limit == pytest.approx(limit) and row.limit <= min(row.index, row.bitmap)
        assert row.bytes == round(weights.size * min(row.index, row.bitmap) / 8)
    assert rows[-1].layer == "all" and rows[-1].pattern == str(pattern)


def test_mixed_and_dense() -> None:
    first, second, whole = compression(SHAPES, {"0.output.dense": Pattern(2, 16)})
    assert (first.pattern, second.pattern, whole.pattern) == ("dense", "2:16", "mixed")
    assert first.index == first.limit == 8.0
    assert whole.bytes == first.bytes + second.bytes and whole.weights == 2 * 256 * 128
    assert whole.index == pytest.approx((first.index + second.index) / 2)
