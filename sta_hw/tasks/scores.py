"""Scores of a classifier's classes, as transformers' pipelines give them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["scores"]


def scores(logits: NDArray[np.float64], scoring: str) -> NDArray[np.float64]:
    """Of one input's logits, shape (classes,): `scoring` is one of `model.settings.SCORINGS`."""
    if scoring == "none":
        return logits
    if scoring == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * logits))  # that of a large negative number does not overflow
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()
