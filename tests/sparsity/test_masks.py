"""PyTorch's masks against the format's own, and how they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sta_hw.formats.nm import keep_mask
from sta_hw.sparsity.masks import divergence, nm_mask
from sta_hw.spec.patterns import Pattern


@pytest.mark.parametrize("m", [2, 4, 8, 16])
@pytest.mark.parametrize("reduction", [1, 16, 37, 64])
def test_mask_is_the_formats(m: int, reduction: int) -> None:
    rng = np.random.default_rng(m + reduction)
    for n in range(1, m + 1):
        scores = rng.integers(0, 5, (7, reduction)).astype(np.float32)  # many ties
        found = nm_mask(torch.from_numpy(scores), Pattern(n, m)).numpy()
        np.testing.assert_array_equal(found, keep_mask(scores, Pattern(n, m)))


def test_dense_keeps_all() -> None:
    assert nm_mask(torch.zeros(3, 5), Pattern(1, 1)).all()


def test_divergence_counts_changes() -> None:
    before = {"a": torch.tensor([True, False, True, False]), "b": torch.tensor([True, True])}
    after = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True, True])}
    assert divergence(before, before) == 0
    assert divergence(before, after) == 2 / 6
