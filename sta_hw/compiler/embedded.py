"""The accelerator's input: sums of embeddings in 16 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .calibration import require_normalizable

__all__ = ["quantize_embedded"]


def quantize_embedded(embedded: NDArray, scale: float) -> tuple[NDArray[np.int64], int]:
    """The 16-bit sum of embeddings that the host stores, and how many of its values saturated.

    Parameters
    ----------
    embedded : float, shape (tokens, hidden)
    scale : float
        `IntegerInput.scale`. 0: only a LayerNorm reads them, which sees neither a token's mean nor
        its scale, so each is centred and fills the 16 bits whatever it holds.

    Raises
    ------
    InputError
        If they are no numbers, a value is not finite, or a token's variance is beyond what LayerNorm without an
        epsilon takes.
    """
    if np.asarray(embedded).dtype.kind not in "fiu":
        raise InputError(f"the input's sum of embeddings is of {np.asarray(embedded).dtype}; it is of numbers.")
    exact = np.asarray(embedded, np.float64)
    wrong = np.argwhere(~np.isfinite(exact))
    if len(wrong):
        token, channel = (int(i) for i in wrong[0])
        raise InputError(
            f"the input's sum of embeddings, token {token}, channel {channel}, is {exact[token, channel]}; "
            "values must be finite."
        )
    if scale == 0:
        require_normalizable(exact, "the input's sum of embeddings")
        centred = exact - exact.mean(1, keepdims=True)
        largest = np.abs(centred).max(1, keepdims=True)
        # What is left of a token whose channels are all alike is fp32's rounding.
        alike = largest < 1e-6 * np.abs(exact).max(1, keepdims=True)
        scales = np.where(alike | (largest == 0), np.inf, largest / 32767)
        return np.round(centred / scales).astype(np.int64), 0
    found = np.round(exact / scale)
    return np.clip(found, -32767, 32767).astype(np.int64), int((np.abs(found) > 32767).sum())
