"""What calibration sees: every value of a graph for some texts in fp32, and whether integers can hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model.finite import LARGEST, axes_of, require_finite
from ..model.fp32 import EPSILON, evaluate
from ..model.operations import Attention, Norm
from ..model.part import Part
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
    """All texts' values of the accelerator's part of a graph.

    Parameters
    ----------
    part : Part
    texts : token ids, or values that the part begins with (sums of embeddings)

    Raises
    ------
    InputError
        If there is no text, a sum of embeddings is not finite, or a value overflows fp32: value, place, number.
    """

    def __init__(self, part: Part, texts: Sequence[list[int] | NDArray[np.float32]]) -> None:
        if not len(texts):
            raise InputError("there is no calibration sentence; give at least one.")
        self.part = part
        self.runs: list[dict[str, NDArray]] = []
        graph = part.inner
        last = next(o for o in reversed(graph.operations) if isinstance(o, Norm))
        for number, text in enumerate(texts):
            where = f"calibration text {number}"
            if isinstance(text, np.ndarray):
                require_finite({"its sum of embeddings": text}, where, ("token", "channel"))
            with np.errstate(all="ignore"):
                embedded = text if isinstance(text, np.ndarray) else part.embed("ids", text)
                run = evaluate(graph, {part.begins: embedded})
            self._require_fp32(run, where)
            result = run["result"]
            if not (result if result.ndim == 1 else result[0]).any():
                raise InputError(
                    f"{where}: the model's output is zero, which has no direction; "
                    f"see {' and '.join(graph.arrays(last))}."
                )
            self.runs.append(run)

    def __str__(self) -> str:
        """One line for each value: tokens of all texts, channels, smallest, largest, deviation."""
        lines = [f"calibration {self.part.graph.name}, {len(self.runs)} texts"]
        for name, value in self.runs[0].items():
            if value.ndim == 2:
                values = self.seen(name)
                shape = ", ".join(map(str, values.shape))
                lines.append(f"  {name} ({shape}) from {values.min():.6g} to {values.max():.6g}, {values.std():.6g}")
        return "\n".join(lines) + "\n"

    def seen(self, name: str) -> NDArray:
        """A value of all texts: shape (tokens, channels)."""
        return np.concatenate([run[name] for run in self.runs])

    def largest_scores(self, attention: Attention, common: NDArray) -> NDArray[np.float64]:
        """The largest magnitude of each head's scores, natural units, with `common` taken from all keys."""
        heads, (query_name, key_name, _) = attention.heads, attention.inputs
        found = np.zeros(heads)
        for run in self.runs:
            query, key = run[query_name].astype(np.float64), run[key_name] - common
            q, k = (t.reshape(len(t), heads, -1).transpose(1, 0, 2) for t in (query, key))
            found = np.maximum(found, np.abs(q @ k.transpose(0, 2, 1)).max((1, 2)) / math.sqrt(q.shape[-1]))
        return found

    def blame(self, name: str, large: bool) -> str:
        """The tensor up to a value that is the largest, or that is nowhere large: tensor, place and value."""
        graph = self.part.graph
        place_of = {o.name: i for i, o in enumerate(graph.operations)}
        found = {
            n: np.abs(t) for o in graph.operations[: place_of[name] + 1] for n, t in graph.arrays(o).items() if t.any()
        }
        if not found:
            return ""
        peaks = {n: float(t.max()) for n, t in found.items()}
        tensor = max(peaks, key=lambda n: peaks[n]) if large else min(peaks, key=lambda n: peaks[n])
        place = [int(i) for i in np.unravel_index(int(found[tensor].argmax()), found[tensor].shape)]
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes_of(found[tensor]), place, strict=True))
        if large:
            return f"; the largest weight up to here is {tensor}, {where}: {peaks[tensor]:.3g}"
        return f"; of the tensors up to here {tensor} has the smallest values: {peaks[tensor]:.3g} at most, in {where}"

    def _require_fp32(self, run: dict[str, NDArray], where: str) -> None:
        """Raise where the first value overflows, in the order they are computed."""
        for name, values in run.items():
            if values.ndim != 2 or np.isfinite(values).all():
                continue
            token, channel = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise InputError(
                f"{where}: {name}, token {token}, channel {channel}, is {values[token, channel]}: "
                f"fp32 ends at {LARGEST:.3g}{self.blame(name, True)}."
            )
