"""Rounding with the error given on, as GPTQ does (arXiv 2210.17323).

One input channel after the other is rounded, and its error is made good by the weights of those behind it, as far as
the inputs that calibration saw let them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .integers import Floats

__all__ = ["error_weights", "rounded"]

_DAMPING = 0.01
"""Of the inputs' products, relative to the mean of their diagonal."""
_TOGETHER = 32
"""Channels whose errors are given to all behind them at once."""


def error_weights(gram: Floats) -> Floats:
    """How a channel's error is shared: the upper Cholesky factor of the damped inverse of the inputs' products.

    Parameters
    ----------
    gram : float64 array, shape (reduction, reduction)
        The inputs' products, summed over tokens.

    Returns
    -------
    float64 array, shape (reduction, reduction)
    """
    reduction = len(gram)
    damped = gram + np.eye(reduction) * max(_DAMPING * float(np.trace(gram)) / reduction, 1e-12)
    return np.linalg.cholesky(np.linalg.inv(damped)).T


def rounded(weights: Floats, upper: Floats, kept: NDArray[np.bool_] | None = None) -> NDArray[np.int8]:
    """Weights in units of their columns' steps, in INT8.

    Parameters
    ----------
    weights : float64 array, shape (columns, reduction)
        Within -127 and 127.
    upper : float64 array, shape (reduction, reduction)
        `error_weights` of the inputs.
    kept : bool array, shape (columns, reduction), or None
        Of pruned weights: the others stay zero.

    Returns
    -------
    int8 array, shape (columns, reduction)
    """
    reduction = len(upper)
    w = np.ascontiguousarray(weights.T, np.float64)  # a channel's weights of all columns lie side by side
    found = np.zeros(w.shape, np.int8)
    for first in range(0, reduction, _TOGETHER):
        end = min(reduction, first + _TOGETHER)
        errors = np.empty((end - first, w.shape[1]))
        for i in range(first, end):
            given = np.clip(np.rint(w[i]), -127, 127)
            if kept is not None:  # what others' errors made of a pruned weight goes on to those behind it
                given *= kept[:, i]
            found[i] = given
            errors[i - first] = (w[i] - given) / upper[i, i]
            w[i + 1 : end] -= upper[i, i + 1 : end, None] * errors[i - first]
        w[end:] -= upper[first:end, end:].T @ errors
    return np.ascontiguousarray(found.T)
