"""Quantization of an encoder to the accelerator's integers: calibration, equalization, parameters.

Scales: 16-bit tensors (residual stream) from the largest value seen, with a margin; 8-bit tensors from
the scale that quantizes the calibration values with the least squared error, or from a percentile. The
inputs of products that follow a LayerNorm or the activation have a scale per channel, which the weights
absorb (SmoothQuant, arXiv 2211.10438, section 4: ``max|x|**a / max|w|**(1 - a)``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..formats.nm import keep_mask
from ..model.bert import LINEAR_NAMES, BertModel
from ..patterns import DENSE, Pattern
from ..reference.requantizer import quantize_factor

__all__ = [
    "SCALES",
    "LayerParameters",
    "LinearParameters",
    "NormParameters",
    "QuantizedEncoder",
    "quantize",
    "shape_encoder",
]

_MARGIN = 1.5
"""16-bit scales cover this times the largest calibration value: texts beyond the calibration saturate later."""
_ALPHA_NORM = 0.6
_ALPHA_ACTIVATION = 0.8
POOL_FACTOR = 15.0
"""Pooled results are in units of the last 8-bit scale over this."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LinearParameters:
    """One linear layer: weights (columns, reduction), and per column what follows the sum.

    Attributes
    ----------
    input_scale, steps : float64 arrays, shapes (reduction,) and (columns,)
        ``weights = round(w * input_scale / steps)``, ``bias = round(b / steps)``.
    """

    weights: NDArray[np.int8]
    pattern: Pattern
    bias: Ints
    multiplier: Ints
    shift: Ints
    second: Ints
    input_scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    steps: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))


@dataclass(frozen=True)
class NormParameters:
    """One LayerNorm, as rtl/norm.py takes it; `wide_scale` is that of its 16-bit results."""

    scale: Ints
    shift: Ints
    multiplier: Ints
    wide_scale: float = 1.0


@dataclass(frozen=True)
class LayerParameters:
    """One encoder layer."""

    linear: Mapping[str, LinearParameters]
    score_multiplier: int
    score_shift: int
    gain: int
    table: NDArray[np.int16]
    norm1: NormParameters
    norm2: NormParameters


@dataclass(frozen=True)
class QuantizedEncoder:
    """A whole encoder in integers.

    Attributes
    ----------
    embedded_scale : float
        Of the 16-bit sum of embeddings that the host stores.
    output_scale : float
        Of the pooled output before division by `POOL_FACTOR`.
    embedding_norm : NormParameters
        Of the LayerNorm before the first products; a layer's `norm1` and `norm2` lie between its attention and
        feed-forward products, and behind its last sum.
    norm_first : bool
        The residual stream is the sums, as in ViT; else the LayerNorms' results, as in BERT.
    pooling : str
        ``mean`` or ``first``.
    """

    layers: tuple[LayerParameters, ...]
    embedding_norm: NormParameters
    embedded_scale: float
    output_scale: float
    hidden: int
    heads: int
    intermediate: int
    norm_first: bool = False
    pooling: str = "mean"


def _least_squares_scale(values: NDArray) -> float:
    """The scale whose 8-bit grid represents `values` with the least squared error."""
    values = values.reshape(-1)
    if len(values) > 60_000:
        values = values[:: len(values) // 60_000 + 1]
    largest = float(np.abs(values).max()) or 1.0
    best, best_error = largest / 127, math.inf
    for share in np.linspace(0.3, 1.0, 36):
        scale = largest * share / 127
        error = float(((np.clip(np.round(values / scale), -127, 127) * scale - values) ** 2).sum())
        if error < best_error:
            best, best_error = scale, error
    return best


def _percentile_scale(values: NDArray) -> float:
    """The scale that covers all but one in ten thousand of the values' magnitudes."""
    return float(np.quantile(np.abs(values), 0.9999)) / 127 or 1.0 / 127


SCALES: dict[str, Callable[[NDArray], float]] = {
    "squared-error": _least_squares_scale,
    "percentile": _percentile_scale,
}
"""How the scale of an 8-bit tensor follows from its calibration values."""


def norm_factor(columns: int) -> float:
    """What a LayerNorm's scale is multiplied by: the hardware's normalized values lack it (docs/numerics.md)."""
    return columns / 2 ** int(math.log2(columns)) * 16


def _norm(gamma: NDArray, beta: NDArray, wide_scale: float, narrow_scale: NDArray) -> tuple[NormParameters, NDArray]:
    """Parameters of a LayerNorm; and the 8-bit scales they really mean."""
    columns = len(gamma)
    scale = np.round(gamma / wide_scale * norm_factor(columns)).astype(np.int64)
    multiplier = np.clip(np.round(wide_scale / narrow_scale * 65536), 1, 65535).astype(np.int64)
    shift = np.clip(np.round(beta / wide_scale), -32767, 32767).astype(np.int64)
    return NormParameters(scale, shift, multiplier, wide_scale), wide_scale * 65536 / multiplier


def _wide_scale(values: NDArray, gamma: NDArray | None = None) -> float:
    """The scale of a 16-bit tensor; a LayerNorm's scales must also fit 18 bits."""
    scale = _MARGIN * float(np.abs(values).max()) / 32767
    if gamma is not None:
        scale = max(scale, float(np.abs(gamma).max()) * 2 * 16 / 131071)
    return scale


def shape_encoder(
    hidden: int, heads: int, layers: int, intermediate: int, patterns: Mapping[tuple[int, str], Pattern] | None = None
) -> QuantizedEncoder:
    """An encoder of a shape, with weights of zero: for estimates, which look at no value."""
    patterns = patterns or {}

    def linear(layer: int, name: str) -> LinearParameters:
        columns = intermediate if name == LINEAR_NAMES[4] else hidden
        reduction = intermediate if name == LINEAR_NAMES[5] else hidden
        zeros = np.zeros(columns, np.int64)
        weights = np.zeros((columns, reduction), np.int8)
        return LinearParameters(weights, patterns.get((layer, name), DENSE), zeros, zeros, zeros, zeros)

    zeros = np.zeros(hidden, np.int64)
    norm = NormParameters(zeros, zeros, zeros)
    found = tuple(
        LayerParameters({n: linear(i, n) for n in LINEAR_NAMES}, 0, 0, 0, np.zeros(256, np.int16), norm, norm)
        for i in range(layers)
    )
    return QuantizedEncoder(found, norm, 1.0, 1.0, hidden, heads, intermediate)


def quantize(
    model: BertModel,
    calibration: Sequence[list[int] | NDArray[np.float32]],
    patterns: Mapping[tuple[int, str], Pattern] | None = None,
    *,
    equalize: bool = True,
    scales: str = "squared-error",
    report: Callable[[str], None] = lambda _: None,
) -> QuantizedEncoder:
    """Quantize, and prune by group magnitude.

    Parameters
    ----------
    calibration : token ids of sentences, or sums of embeddings
    patterns : N:M of linear layers, by (layer, name); the others stay dense
    equalize : bool
        Per-channel scales for the inputs of products after LayerNorm and activation.
    scales : str
        One of `SCALES`.

    Raises
    ------
    InputError
        If a calibration list is empty, a pattern names a layer that does not exist, or `scales` is unknown.
    """
    if scales not in SCALES:
        raise InputError(f"scales {scales!r} are unknown; they are {', '.join(SCALES)}.")
    narrow_scale = SCALES[scales]
    if not calibration:
        raise InputError("there is no calibration sentence; give at least one.")
    patterns = dict(patterns or {})
    unknown = [f"{k[0]}.{k[1]}" for k in patterns if k[1] not in LINEAR_NAMES or not 0 <= k[0] < model.layers]
    if unknown:
        raise InputError(f"no such linear layer: {', '.join(unknown)}.")
    masks = {
        key: keep_mask(np.abs(model.linear(*key)[0]), pattern) for key, pattern in patterns.items() if pattern.m > 1
    }
    model = model.replaced({key: np.where(mask, model.linear(*key)[0], 0) for key, mask in masks.items()})
    report("calibrating")
    runs = [model.forward(ids)[0] for ids in calibration]

    def seen(layer: int, name: str) -> NDArray:
        return np.concatenate([run[layer][name] for run in runs])

    def channel_scales(values: NDArray, weights: Sequence[NDArray], alpha: float) -> NDArray:
        """8-bit scales per channel."""
        factors = np.ones(values.shape[1])
        if equalize:
            largest = np.maximum(np.abs(values).max(0), 1e-3 * np.abs(values).max())
            by_weights = np.maximum(np.max([np.abs(w).max(0) for w in weights], axis=0), 1e-5)
            factors = largest**alpha / by_weights ** (1 - alpha)
            factors = factors / np.exp(np.log(factors).mean())
        return factors * narrow_scale(values / factors)

    def linear(
        layer: int, name: str, input_scale: NDArray | float, output_scale: float, second: Ints | int | None = None
    ):
        weight, bias = (a.astype(np.float64) for a in model.linear(layer, name))
        absorbed = weight * input_scale
        steps = np.maximum(np.abs(absorbed).max(1), 1e-12) / 127
        multiplier, shift = quantize_factor(steps / output_scale)
        columns = len(weight)
        return LinearParameters(
            np.clip(np.round(absorbed / steps[:, None]), -127, 127).astype(np.int8),
            patterns.get((layer, name), DENSE),
            np.clip(np.round(bias / steps), -(2**31), 2**31 - 1).astype(np.int64),
            multiplier.astype(np.int64),
            shift.astype(np.int64),
            np.zeros(columns, np.int64) if second is None else np.broadcast_to(second, (columns,)).astype(np.int64),
            np.broadcast_to(np.asarray(input_scale, np.float64), (weight.shape[1],)),
            steps,
        )

    def after_norm(layer: int, tensor: str, norm: str, weights: Sequence[NDArray]):
        """Parameters of a LayerNorm, the scales of its 16-bit and 8-bit results."""
        gamma, beta = model.norm_parameters(norm)
        values = seen(layer, tensor)
        wide = _wide_scale(values, gamma)
        narrow = (
            channel_scales(values, weights, _ALPHA_NORM)
            if weights
            else np.full(model.hidden, float(np.abs(values).max()) / 127)
        )
        parameters, real = _norm(gamma, beta, wide, narrow)
        return parameters, wide, real

    def added(wide_in: float, values: NDArray) -> tuple[float, int]:
        """Scale of a residual sum, and the multiplier of its 16-bit addend."""
        scale = max(_wide_scale(values), wide_in * 65536 / 65535)
        multiplier = round(wide_in / scale * 65536)
        return wide_in * 65536 / multiplier, multiplier

    names = LINEAR_NAMES
    layers = []
    attention_inputs = [[model.linear(i, n)[0] for n in names[:3]] for i in range(model.layers)] + [[]]
    embedding_norm, wide, narrow = after_norm(0, "input", model.norm_before, attention_inputs[0])
    embedded_scale = _wide_scale(seen(0, "embedded"))
    if model.norm_first:
        wide = embedded_scale
    for layer in range(model.layers):
        report(f"layer {layer}")
        steps = {n: narrow_scale(seen(layer, n)) for n in ("query", "key", "value", "context", "intermediate")}
        found = {n: linear(layer, n, narrow, steps[n.split(".")[-1]]) for n in names[:3]}
        size = model.hidden // model.heads
        factor = steps["query"] * steps["key"] / math.sqrt(size) * math.log2(math.e) * 64
        score_multiplier, score_shift = quantize_factor(factor)
        gain = min(7, max(0, round(math.log2(steps["value"] / steps["context"]))))
        sum_scale, second = added(wide, seen(layer, "sum1"))
        found[names[3]] = linear(layer, names[3], steps["value"] / 2**gain, sum_scale, second)
        norm1, norm_scale, narrow = after_norm(
            layer, "normed", model.norm_between(layer), [model.linear(layer, names[4])[0]]
        )
        wide = sum_scale if model.norm_first else norm_scale
        inputs = np.concatenate([np.arange(128), np.arange(-128, 0)]) * steps["intermediate"]
        activated = model.activate(inputs.astype(np.float32)).astype(np.float64)
        table_scale = max(float(np.abs(activated).max()), 1e-6) / 32767
        wanted = channel_scales(seen(layer, "activated"), [model.linear(layer, names[5])[0]], _ALPHA_ACTIVATION)
        multipliers = np.clip(np.round(table_scale / wanted * 65536), 1, 65535).astype(np.int64)
        found[names[4]] = linear(layer, names[4], narrow, steps["intermediate"], multipliers)
        sum_scale, second = added(wide, seen(layer, "sum2"))
        found[names[5]] = linear(layer, names[5], table_scale * 65536 / multipliers, sum_scale, second)
        norm2, norm_scale, narrow = after_norm(layer, "output", model.norm_behind(layer), attention_inputs[layer + 1])
        wide = sum_scale if model.norm_first else norm_scale
        layers.append(
            LayerParameters(
                found, int(score_multiplier), int(score_shift), gain,
                np.round(activated / table_scale).astype(np.int16), norm1, norm2,
            )
        )  # fmt: skip
    return QuantizedEncoder(
        tuple(layers), embedding_norm, embedded_scale, float(narrow[0]),
        model.hidden, model.heads, model.intermediate, model.norm_first, model.pooling,
    )  # fmt: skip
