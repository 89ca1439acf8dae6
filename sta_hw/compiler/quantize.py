"""Quantization of an encoder to the accelerator's integers: calibration, equalization, parameters.

Scales: 16-bit tensors (residual stream) from the largest value seen, with a margin; 8-bit tensors from
the scale that quantizes the calibration values with the least squared error, or from a percentile. The
inputs of products that follow a LayerNorm or the activation have a scale per channel, which the weights
absorb (SmoothQuant, arXiv 2211.10438, section 4: ``max|x|**a / max|w|**(1 - a)``). Queries and keys have
scales per channel whose product is the head's; values have one per channel, which the context keeps.

What changes no answer is taken away before it costs range: what all keys have in common, since softmax ignores
it, and what all channels of a residual sum have in common, since LayerNorm does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..formats.nm import keep_mask
from ..model.bert import LINEAR_NAMES, PROJECTION, BertModel
from ..model.finite import require_finite
from ..spec.patterns import DENSE, Pattern
from .calibration import Calibration, require_normalizable
from .check import require_faithful
from .parameters import Ints, LayerParameters, LinearParameters, NormParameters, QuantizedEncoder
from .scales import (
    LARGEST_BIAS,
    LARGEST_FACTOR,
    MARGIN,
    SCALES,
    channel_factors,
    factors,
    head_scales,
    linear_steps,
    score_factor,
    wide_scale,
)

__all__ = ["SCALES", "norm_factor", "quantize", "shape_encoder"]

_ALPHA_NORM = 0.6
_ALPHA_ACTIVATION = 0.8
_LARGEST_INTERMEDIATE = 32.0
"""From here on the activation is as good as linear: channels that reach further are scaled down to it."""
_LEAST_UNLIKE = 1e-5
"""Of what is left when what all have in common is taken away: what fp32 itself still resolves."""


def norm_factor(columns: int) -> float:
    """What a LayerNorm's scale is multiplied by: the hardware's normalized values lack it (docs/numerics.md)."""
    return columns / 2 ** int(math.log2(columns)) * 16


def _norm(gamma: NDArray, beta: NDArray, wide_scale: float, narrow_scale: NDArray) -> tuple[NormParameters, NDArray]:
    """Parameters of a LayerNorm; and the 8-bit scales they really mean."""
    columns = len(gamma)
    # The scale was chosen so that both fit (`wide_scale`).
    scale = np.round(gamma.astype(np.float64) / wide_scale * norm_factor(columns)).astype(np.int64)
    shift = np.round(beta.astype(np.float64) / wide_scale).astype(np.int64)
    multiplier = np.clip(np.round(wide_scale / narrow_scale * 65536), 1, 65535).astype(np.int64)
    return NormParameters(scale, shift, multiplier, wide_scale), wide_scale * 65536 / multiplier


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

    zeros, each = np.zeros(hidden, np.int64), np.zeros(heads, np.int64)
    norm = NormParameters(zeros, zeros, zeros)
    table = np.zeros(256, np.int16)
    found = tuple(
        LayerParameters({n: linear(i, n) for n in LINEAR_NAMES}, each, each, each, each, table, norm, norm)
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
        If there is no calibration text, a pattern names a layer that does not exist, or `scales` is unknown; if a
        number is not finite, overflows fp32, or is beyond what the integers hold: tensor, place, value, limit; if the
        integers' output for a calibration text is not fp32's (`require_faithful`).
    """
    if scales not in SCALES:
        raise InputError(f"scales {scales!r} are unknown; they are {', '.join(SCALES)}.")
    patterns = dict(patterns or {})
    unknown = [f"{k[0]}.{k[1]}" for k in patterns if k[1] not in LINEAR_NAMES or not 0 <= k[0] < model.layers]
    if unknown:
        raise InputError(f"no such linear layer: {', '.join(unknown)}.")
    require_finite(model.tensors, "the model")
    masks = {
        key: keep_mask(np.abs(model.linear(*key)[0]), pattern) for key, pattern in patterns.items() if pattern.m > 1
    }
    model = model.replaced({key: np.where(mask, model.linear(*key)[0], 0) for key, mask in masks.items()})
    report("calibrating")
    seen = Calibration(model, calibration)
    encoder = _Quantizer(model, seen, patterns, equalize, SCALES[scales]).encoder(report)
    report("comparing with fp32")
    require_faithful(model, seen, encoder)
    return encoder


class _Quantizer:
    """One quantization: what all its steps need."""

    def __init__(
        self, model: BertModel, calibration: Calibration, patterns: Mapping[tuple[int, str], Pattern], equalize: bool,
        narrow_scale: Callable[[NDArray], float],
    ) -> None:  # fmt: skip
        self.model, self.seen, self.calibration = model, calibration.seen, calibration
        self.patterns, self.equalize, self.narrow_scale = patterns, equalize, narrow_scale

    def channel_scales(self, values: NDArray, weights: Sequence[NDArray], alpha: float) -> NDArray[np.float64]:
        """8-bit scales per channel."""
        found = channel_factors(values, weights, alpha) if self.equalize else np.ones(values.shape[1])
        return found * self.narrow_scale(values / found)

    def floors(
        self, layer: int, name: str, input_scale: NDArray | float, inputs: NDArray, offset: NDArray | float = 0.0
    ) -> NDArray[np.float64]:
        """The least scales of a linear layer's results: a step of its sums is no more than 16 of them.

        They count where products cancel: then the sums' rounding is far larger anyway. `inputs` are what calibration
        saw; those that were always zero take no part, whatever their weights.
        """
        weight, bias = (a.astype(np.float64) for a in self.model.linear(layer, name))
        absorbed = np.where(np.abs(inputs).max(0) > 0, weight * input_scale, 0)
        return np.maximum(np.abs(absorbed).max(1) / 127, np.abs(bias - offset) / LARGEST_BIAS) / LARGEST_FACTOR

    def linear(
        self, layer: int, name: str, input_scale: NDArray | float, output_scale: NDArray | float, *,
        second: Ints | int = 0, offset: NDArray | float = 0.0,
    ) -> LinearParameters:  # fmt: skip
        """Parameters of a linear layer."""
        weight, bias = (a.astype(np.float64) for a in self.model.linear(layer, name))
        columns = len(weight)
        shifted = bias - offset
        absorbed = weight * input_scale
        results = np.broadcast_to(np.asarray(output_scale, np.float64), (columns,))
        steps = linear_steps(absorbed, shifted, results)
        # Only weights of inputs that are always zero are clipped here: see `floors`.
        steps = np.minimum(steps, LARGEST_FACTOR * results)
        multiplier, shift = factors(steps / results)
        return LinearParameters(
            np.clip(np.round(absorbed / steps[:, None]), -127, 127).astype(np.int8),
            self.patterns.get((layer, name), DENSE),
            np.round(shifted / steps).astype(np.int64),
            multiplier, shift,
            np.broadcast_to(np.asarray(second, np.int64), (columns,)),
            np.broadcast_to(np.asarray(input_scale, np.float64), (weight.shape[1],)),
            steps,
            np.broadcast_to(np.asarray(offset, np.float64), (columns,)),
        )  # fmt: skip

    def after_norm(self, layer: int, tensor: str, norm: str, weights: Sequence[NDArray]):
        """Parameters of a LayerNorm, the scales of its 16-bit and 8-bit results."""
        gamma, beta = self.model.norm_parameters(norm)
        values = self.seen(layer, tensor)
        wide = wide_scale(values, gamma, beta)
        if weights:
            narrow = self.channel_scales(values, weights, _ALPHA_NORM)
        else:
            narrow = np.full(self.model.hidden, float(np.abs(values).max()) / 127)
        parameters, real = _norm(gamma, beta, wide, narrow)
        return parameters, wide, real

    def added(
        self, layer: int, tensor: str, wide_in: float, before: float, name: str, input_scale: NDArray, inputs: str
    ) -> tuple[float, LinearParameters, float]:
        """A residual sum's scale, the parameters of the product in it, and what is taken from all its channels.

        LayerNorm sees nothing of what all channels have in common, so it need not be in range. `before` was taken
        from the addend already.
        """
        values = self.seen(layer, tensor)
        common = float(values.mean(dtype=np.float64))
        values = values - common
        # The product alone must be in range, too, where the residual cancels it.
        weight, bias = (a.astype(np.float64) for a in self.model.linear(layer, name))
        product = self.seen(layer, inputs) @ weight.T + bias - (common - before)
        least = self.floors(layer, name, input_scale, self.seen(layer, inputs), common - before)
        wide = max(wide_scale(values), wide_scale(product) / MARGIN)
        scale = max(wide, wide_in * 65536 / 65535, float(least.max()))
        # Rounded down: the scale only grows, so that the sums stay in range.
        multiplier = math.floor(wide_in / scale * 65536)
        if multiplier:
            scale = wide_in * 65536 / multiplier
        what = f"calibration: layer {layer}, {name} and its residual"
        require_normalizable(values, what, scale, functools.partial(self.calibration.blame, layer), self.model.epsilon)
        unlike = np.sqrt(values.var(1)) / max(abs(common), 1e-30)
        if unlike.min() < _LEAST_UNLIKE:
            token = int(unlike.argmin())
            raise InputError(
                f"{what}, token {token}: all channels have {common:.3g} in common, of which it deviates by "
                f"{unlike[token]:.2g}; fp32, whose steps are 6e-8, tells {_LEAST_UNLIKE:g} apart"
                f"{self.calibration.blame(layer, True)}."
            )
        parameters = self.linear(layer, name, input_scale, scale, second=multiplier, offset=common - before)
        return scale, parameters, common

    def attention(
        self, layer: int, narrow: NDArray
    ) -> tuple[dict[str, LinearParameters], tuple[Ints, Ints, Ints, Ints], NDArray]:
        """Queries, keys and values; the heads' multipliers, shifts, coarseness and gains; the context's scales."""
        model, names = self.model, LINEAR_NAMES
        query, key, value, context = (self.seen(layer, n) for n in ("query", "key", "value", "context"))
        # Softmax sees nothing of what all keys have in common.
        common = key.mean(0, dtype=np.float64)
        inputs = self.seen(layer, "input")
        least = [self.floors(layer, n, narrow, inputs, o) for n, o in zip(names[:3], (0.0, common, 0.0), strict=True)]
        scales = head_scales(query, key - common, value, context, least, model.heads, self.narrow_scale)
        found = {
            name: self.linear(layer, name, narrow, scale, offset=offset)
            for name, scale, offset in (
                (names[0], scales.query, 0.0), (names[1], scales.key, common), (names[2], scales.value, 0.0)
            )
        }  # fmt: skip
        size = model.hidden // model.heads
        largest = self.calibration.largest_scores(layer, common)
        alike = self.calibration.largest_scores(layer, np.zeros(model.hidden))
        for head in np.flatnonzero((alike > 1e6) & (largest < _LEAST_UNLIKE * alike)):
            raise InputError(
                f"layer {layer}, head {head}: scores reach {alike[head]:.3g}, but differ between keys by "
                f"{largest[head]:.3g} only, which fp32 does not resolve beyond {_LEAST_UNLIKE:g} of them"
                f"{self.calibration.blame(layer, True)}."
            )
        chosen = [score_factor(float(p), size, float(s)) for p, s in zip(scales.products, largest, strict=True)]
        real = np.array([factor for factor, _ in chosen])
        for head in np.flatnonzero(real > LARGEST_FACTOR):
            raise InputError(
                f"layer {layer}, head {head}: queries and keys cancel, so that scores reach {largest[head]:.3g} only; "
                f"a step of their products is {real[head]:.3g} of the softmax's, and {LARGEST_FACTOR:.3g} is the limit."
            )
        multiplier, shift = factors(real)
        coarse = np.array([c for _, c in chosen], np.int64)
        return found, (multiplier, shift, coarse, scales.gain), scales.value / 2.0 ** np.repeat(scales.gain, size)

    def encoder(self, report: Callable[[str], None]) -> QuantizedEncoder:
        """All layers."""
        model, names = self.model, LINEAR_NAMES
        layers = []
        attention_inputs = [[model.linear(i, n)[0] for n in names[:3]] for i in range(model.layers)] + [[]]
        projection = None
        if model.projected:
            embedding_norm, wide, narrow, projection = self.projection(attention_inputs[0])
        else:
            embedding_norm, wide, narrow = self.after_norm(0, "input", model.norm_before, attention_inputs[0])
        embedded, embedded_scale, taken = self.seen(0, "embedded"), 0.0, 0.0
        if model.norm_first:
            wide = embedded_scale = wide_scale(embedded)
        blame = functools.partial(self.calibration.blame, -1)
        require_normalizable(embedded, "calibration: the sum of embeddings", embedded_scale, blame, model.epsilon)
        for layer in range(model.layers):
            report(f"layer {layer}")
            found, heads, context_scale = self.attention(layer, narrow)
            sum_scale, found[names[3]], common = self.added(
                layer, "sum1", wide, taken, names[3], context_scale, "context"
            )
            taken = common if model.norm_first else 0.0
            norm1, norm_scale, narrow = self.after_norm(
                layer, "normed", model.norm_between(layer), [model.linear(layer, names[4])[0]]
            )
            wide = sum_scale if model.norm_first else norm_scale
            found[names[4]], table, activated_scale = self.activation(layer, narrow)
            sum_scale, found[names[5]], common = self.added(
                layer, "sum2", wide, taken, names[5], activated_scale, "activated"
            )
            taken = common if model.norm_first else 0.0
            norm2, norm_scale, narrow = self.after_norm(
                layer, "output", model.norm_behind(layer), attention_inputs[layer + 1]
            )
            wide = sum_scale if model.norm_first else norm_scale
            layers.append(LayerParameters(found, *heads, table=table, norm1=norm1, norm2=norm2))
        return QuantizedEncoder(
            tuple(layers), embedding_norm, embedded_scale, float(narrow[0]),
            model.hidden, model.heads, model.intermediate, model.norm_first, model.pooling, projection,
        )  # fmt: skip

    def projection(self, weights: Sequence[NDArray]):
        """The embeddings' LayerNorm and the linear layer behind it; the scales of its 16-bit and 8-bit results."""
        norm, _, inputs = self.after_norm(
            0, "normalized", self.model.norm_before, [self.model.linear(0, PROJECTION)[0]]
        )
        values = self.seen(0, "input")
        least = self.floors(0, PROJECTION, inputs, self.seen(0, "normalized"))
        wide = max(wide_scale(values), float(least.max()))
        narrow = np.maximum(self.channel_scales(values, weights, _ALPHA_NORM), least)
        return norm, wide, narrow, tuple(self.linear(0, PROJECTION, inputs, scale) for scale in (narrow, wide))

    def activation(self, layer: int, narrow: NDArray) -> tuple[LinearParameters, NDArray[np.int16], NDArray]:
        """The first feed-forward product, the activation's table, and the scales of its 8-bit results."""
        model, (first, second) = self.model, LINEAR_NAMES[4:]
        weights = model.linear(layer, second)[0]
        values, activated = (self.seen(layer, n).astype(np.float64) for n in ("intermediate", "activated"))
        # Channels that nothing reads must not be what the table is made for.
        read = np.abs(weights).max(0) > 0
        shrink = np.maximum(1.0, np.abs(values).max(0) / _LARGEST_INTERMEDIATE)
        step = self.narrow_scale(np.where(read, values / shrink, 0))
        # A whole channel whose products cancel has a coarser grid, too.
        shrink = np.maximum(shrink, self.floors(layer, first, narrow, self.seen(layer, "normed")) / step)
        inputs = np.concatenate([np.arange(128), np.arange(-128, 0)]) * step
        results = model.activate(inputs.astype(np.float32)).astype(np.float64)
        table_scale = (float(np.abs(results).max()) or 1.0) / 32767
        wanted = self.channel_scales(np.where(read, activated / shrink, 0), [weights * shrink], _ALPHA_ACTIVATION)
        multipliers = np.clip(np.round(table_scale / wanted * 65536), 1, 65535).astype(np.int64)
        found = self.linear(layer, first, narrow, step * shrink, second=multipliers)
        table = np.round(results / table_scale).astype(np.int16)
        return found, table, table_scale * 65536 / multipliers * shrink
