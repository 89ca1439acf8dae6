"""What calibration sees: every tensor of an encoder for some texts in fp32, and whether integers can hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model.bert import BertModel
from ..model.finite import LARGEST, axes_of, require_finite
from ..model.minilm import EPSILON
from .scales import MARGIN

__all__ = ["Calibration", "require_normalizable"]

_SEEN_STEPS = 32767 / MARGIN
"""16-bit steps up to the largest value that calibration saw."""
_LEAST_STEPS = 2.0
"""Deviation of a token's residual stream in 16-bit steps, below which rounding would be most of what is normalized."""
_LEAST_VARIANCE = 100 * EPSILON
"""Of a token before LayerNorm: from here on the epsilon that the hardware has not changes half a percent at most."""
_LEAST_SHARE = 20
"""The least variance over an epsilon that a model was trained with, some 1e-5: it changes 2.5 percent at most."""


def require_normalizable(
    values: NDArray, what: str, step: float = 0.0, blame: Callable[[bool], str] = lambda large: "",
    epsilon: float = EPSILON,
) -> None:  # fmt: skip
    """Check that LayerNorm of integers gives what LayerNorm of real numbers does.

    Parameters
    ----------
    values : shape (tokens, channels)
        What is normalized.
    what : str
        Begins the message.
    step : float
        The scale of the integers; 0 if each token has its own.
    blame : function
        Ends the message: which weights may be why, by whether values are too large or too small.
    epsilon : float
        The model's, which the hardware has not.

    Raises
    ------
    InputError
        Token, value and limit: if a token's variance is beyond fp32, so small that the epsilon counts, or below what
        the steps resolve. Tokens of zeros are fine.
    """
    values = values.astype(np.float64)
    least = max(_LEAST_VARIANCE, _LEAST_SHARE * epsilon)
    variance = values.var(1)
    largest = np.abs(values).max(1)
    # All channels alike, but for fp32's rounding: zeros, and where each token has a scale of its own, anything.
    constant = (largest == 0) | ((step == 0) & (np.sqrt(variance) < 1e-6 * largest))
    for token in np.flatnonzero(~constant):
        deviation = math.sqrt(variance[token])
        if largest[token] ** 2 * values.shape[1] > LARGEST:
            raise InputError(
                f"{what}, token {token}, reaches {largest[token]:.3g}; its variance is beyond fp32, which ends at "
                f"{LARGEST:.3g}: values of {math.sqrt(LARGEST / values.shape[1]):.2g} are the limit{blame(True)}."
            )
        if variance[token] < least:
            raise InputError(
                f"{what}, token {token}, has the variance {variance[token]:.3g}; the hardware's LayerNorm has no "
                f"epsilon, and with the model's {epsilon:g} the limit is {least:g}{blame(False)}."
            )
        if deviation < _LEAST_STEPS * step:
            raise InputError(
                f"{what}, token {token}, deviates by {deviation:.3g} from its mean, where other tokens reach "
                f"{_SEEN_STEPS * step:.3g}; 16 bits hold both up to a ratio of "
                f"{_SEEN_STEPS / _LEAST_STEPS:,.0f}{blame(True)}."
            )


class Calibration:
    """All texts' tensors.

    Parameters
    ----------
    model : BertModel
    texts : token ids, or sums of embeddings

    Raises
    ------
    InputError
        If there is no text, a sum of embeddings is not finite, or a tensor overflows fp32: tensor, place, value.
    """

    def __init__(self, model: BertModel, texts: Sequence[list[int] | NDArray[np.float32]]) -> None:
        if not len(texts):
            raise InputError("there is no calibration sentence; give at least one.")
        self.model = model
        self.runs: list[list[dict[str, NDArray]]] = []
        for number, text in enumerate(texts):
            where = f"calibration text {number}"
            if isinstance(text, np.ndarray):
                require_finite({"its sum of embeddings": text}, where, ("token", "channel"))
            with np.errstate(all="ignore"):
                run, pooled = model.forward(text)
            self._require_fp32(run, where)
            if not pooled.any():
                raise InputError(
                    f"{where}: the model's output is zero, which has no direction; "
                    f"see {model.norm_behind(model.layers - 1)}.LayerNorm.weight and its bias."
                )
            self.runs.append(run)

    def seen(self, layer: int, name: str) -> NDArray:
        """A tensor of all texts: shape (tokens, channels)."""
        return np.concatenate([run[layer][name] for run in self.runs])

    def largest_scores(self, layer: int, common: NDArray) -> NDArray[np.float64]:
        """The largest magnitude of each head's scores, natural units, with `common` taken from all keys."""
        heads = self.model.heads
        found = np.zeros(heads)
        for run in self.runs:
            query, key = run[layer]["query"].astype(np.float64), run[layer]["key"] - common
            q, k = (t.reshape(len(t), heads, -1).transpose(1, 0, 2) for t in (query, key))
            found = np.maximum(found, np.abs(q @ k.transpose(0, 2, 1)).max((1, 2)) / math.sqrt(q.shape[-1]))
        return found

    def blame(self, layer: int, large: bool) -> str:
        """The tensor up to a layer whose values are the largest, or are nowhere large: tensor, place and value."""
        later = tuple(f"encoder.layer.{i}." for i in range(layer + 1, self.model.layers))
        found = {
            n: np.abs(t) for n, t in self.model.tensors.items()
            if t.size and t.any() and not n.startswith(later) and np.issubdtype(t.dtype, np.floating)
        }  # fmt: skip
        peaks = {n: float(t.max()) for n, t in found.items()}
        name = max(peaks, key=lambda n: peaks[n]) if large else min(peaks, key=lambda n: peaks[n])
        place = [int(i) for i in np.unravel_index(int(found[name].argmax()), found[name].shape)]
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes_of(found[name]), place, strict=True))
        if large:
            return f"; the largest weight up to here is {name}, {where}: {peaks[name]:.3g}"
        return f"; of the tensors up to here {name} has the smallest values: {peaks[name]:.3g} at most, in {where}"

    def _require_fp32(self, run: list[dict[str, NDArray]], where: str) -> None:
        """Raise where the first tensor overflows, in the order they are computed."""
        for layer, tensors in enumerate(run):
            for name, values in tensors.items():
                if np.isfinite(values).all():
                    continue
                token, channel = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
                raise InputError(
                    f"{where}: layer {layer}, {name}, token {token}, channel {channel}, is {values[token, channel]}: "
                    f"fp32 ends at {LARGEST:.3g}{self.blame(layer, True)}."
                )
