"""Quantization of a graph to the accelerator's integers: calibration, equalization, parameters.

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
from ..model.finite import require_finite
from ..model.fp32 import FUNCTIONS
from ..model.graph import Graph
from ..model.operations import Activate, Add, Attention, Input, Linear, Mean, Norm, Operation, Output, Select
from ..model.part import Part, accelerator_part, addends
from ..spec.patterns import DENSE, Pattern
from .calibration import Calibration, require_normalizable
from .check import require_faithful
from .integers import IntegerActivate, IntegerAttention, IntegerInput, IntegerLinear, IntegerNorm, IntegerOutput
from .parameters import Ints, LinearParameters, NormParameters
from .passes import After, nothing
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
)  # fmt: skip

__all__ = ["SCALES", "norm_factor", "quantize", "quantize_part"]

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


def quantize(
    graph: Graph,
    calibration: Sequence[list[int] | NDArray[np.float32]],
    patterns: Mapping[str, Pattern] | None = None,
    *,
    equalize: bool = True,
    scales: str = "squared-error",
    report: Callable[[str], None] = lambda _: None,
    after: After = nothing,
) -> Graph:
    """The accelerator's part of a graph in integers, with weights that break their pattern pruned by magnitude.

    Parameters
    ----------
    graph : Graph
        A whole network.
    calibration : token ids of sentences, or sums of embeddings
    patterns : N:M of linear operations, by name; the others stay dense
    equalize : bool
        Per-channel scales for the inputs of products after LayerNorm and activation.
    scales : str
        One of `SCALES`.
    after : function
        Called behind each pass: ``prune``, ``calibrate``, ``quantize``.

    Raises
    ------
    InputError
        If there is no calibration text, a pattern names a linear operation that does not exist, or `scales` is
        unknown; if a number is not finite, overflows fp32, or is beyond what the integers hold: tensor, place, value,
        limit; if the integers' output for a calibration text is not fp32's (`require_faithful`); and what
        `accelerator_part` raises.
    """
    if scales not in SCALES:
        raise InputError(f"scales {scales!r} are unknown; they are {', '.join(SCALES)}.")
    patterns = dict(patterns or {})
    if unknown := [name for name in patterns if name not in graph.linears]:
        raise InputError(f"no such linear layer: {', '.join(unknown)}.")
    require_finite(graph.tensors, "the model")
    masks = {
        name: keep_mask(np.abs(graph.linears[name].weight), pattern)
        for name, pattern in patterns.items()
        if pattern.m > 1
    }
    graph = graph.with_weights({name: np.where(mask, graph.linears[name].weight, 0) for name, mask in masks.items()})
    part = accelerator_part(graph)
    after("prune", part.inner)
    report("calibrating")
    found = Calibration(part, calibration)
    after("calibrate", found)
    quantized = quantize_part(part, found, patterns, equalize=equalize, scales=scales, report=report)
    after("quantize", quantized)
    report("comparing with fp32")
    require_faithful(found, quantized)
    return quantized


def quantize_part(
    part: Part, calibration: Calibration, patterns: Mapping[str, Pattern], *, equalize: bool = True,
    scales: str = "squared-error", report: Callable[[str], None] = lambda _: None,
) -> Graph:  # fmt: skip
    """`part` in integers, by what calibration saw; see `quantize`."""
    return _Quantizer(part.inner, calibration, patterns, equalize, SCALES[scales]).quantized(report)


class _Quantizer:
    """One quantization: what all its steps need."""

    def __init__(
        self, graph: Graph, calibration: Calibration, patterns: Mapping[str, Pattern], equalize: bool,
        narrow_scale: Callable[[NDArray], float],
    ) -> None:  # fmt: skip
        self.graph, self.seen, self.calibration = graph, calibration.seen, calibration
        self.patterns, self.equalize, self.narrow_scale = patterns, equalize, narrow_scale
        self.done: dict[str, Operation] = {}
        # Scales of values in 16 bits and in 8, and what was taken from all their channels.
        self.wide: dict[str, float] = {}
        self.narrow: dict[str, NDArray[np.float64]] = {}
        self.taken: dict[str, float] = {}

    def quantized(self, report: Callable[[str], None]) -> Graph:
        """All operations, in order. A linear one is quantized with the operation that takes its results."""
        rules: dict[type[Operation], Callable[..., None]] = {
            Input: self.input, Norm: self.norm, Linear: self.projection, Attention: self.attention,
            Activate: self.activation, Add: self.added, Output: self.output,
        }  # fmt: skip
        for o in self.graph.operations:
            report(o.name)
            if rule := rules.get(type(o)):
                rule(o)
            else:
                self.done[o.name] = o
                self.narrow[o.name] = self.narrow[o.inputs[0]]
        return self.graph.replaced(self.done)

    def reading(self, name: str) -> list[NDArray]:
        """Weights of the linear operations that take a value."""
        return [o.weight for o in self.graph.takers(name) if isinstance(o, Linear)]

    def channel_scales(self, values: NDArray, weights: Sequence[NDArray], alpha: float) -> NDArray[np.float64]:
        """8-bit scales per channel."""
        found = channel_factors(values, weights, alpha) if self.equalize else np.ones(values.shape[1])
        return found * self.narrow_scale(values / found)

    def floors(self, o: Linear, input_scale: NDArray | float, offset: NDArray | float = 0.0) -> NDArray[np.float64]:
        """The least scales of a linear layer's results: a step of its sums is no more than 16 of them.

        They count where products cancel: then the sums' rounding is far larger anyway. Inputs that were always zero
        when calibration looked take no part, whatever their weights.
        """
        weight, bias = o.weight.astype(np.float64), o.bias.astype(np.float64)
        inputs = self.seen(o.inputs[0])
        absorbed = np.where(np.abs(inputs).max(0) > 0, weight * input_scale, 0)
        return np.maximum(np.abs(absorbed).max(1) / 127, np.abs(bias - offset) / LARGEST_BIAS) / LARGEST_FACTOR

    def linear(
        self, o: Linear, input_scale: NDArray | float, output_scale: NDArray | float, *,
        second: Ints | int = 0, offset: NDArray | float = 0.0,
    ) -> LinearParameters:  # fmt: skip
        """Parameters of a linear operation."""
        weight, bias = o.weight.astype(np.float64), o.bias.astype(np.float64)
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
            self.patterns.get(o.name, DENSE),
            np.round(shifted / steps).astype(np.int64),
            multiplier, shift,
            np.broadcast_to(np.asarray(second, np.int64), (columns,)),
            np.broadcast_to(np.asarray(input_scale, np.float64), (weight.shape[1],)),
            steps,
            np.broadcast_to(np.asarray(offset, np.float64), (columns,)),
        )  # fmt: skip

    # -- a rule for each operation -----------------------------------------------------------------

    def input(self, o: Input) -> None:
        """The sum of embeddings: 16 bits if it is the residual stream, else every token has a scale of its own."""
        values = self.seen(o.name)
        scale = wide_scale(values) if any(isinstance(t, Add) for t in self.graph.takers(o.name)) else 0.0
        blame = functools.partial(self.calibration.blame, o.name)
        require_normalizable(values, "calibration: the sum of embeddings", scale, blame, self.epsilon(o))
        self.wide[o.name], self.taken[o.name] = scale, 0.0
        self.done[o.name] = IntegerInput(o.name, o.inputs, o.given, scale=scale)

    def epsilon(self, o: Operation) -> float:
        """The largest of the LayerNorms that take a value."""
        return max(t.epsilon for t in self.graph.takers(o.name) if isinstance(t, Norm))

    def norm(self, o: Norm) -> None:
        """A LayerNorm's 16 bits for sums, its 8 bits for products, or for the pooling."""
        values, weights = self.seen(o.name), self.reading(o.name)
        wide = wide_scale(values, o.weight, o.bias)
        if weights:
            narrow = self.channel_scales(values, weights, _ALPHA_NORM)
        else:
            narrow = np.full(values.shape[1], float(np.abs(values).max()) / 127)
        parameters, self.narrow[o.name] = _norm(o.weight, o.bias, wide, narrow)
        self.wide[o.name], self.taken[o.name] = wide, 0.0
        self.done[o.name] = IntegerNorm.of(o, parameters)

    def projection(self, o: Linear) -> None:
        """What both products and sums take: 8 bits and 16. Others are quantized with what takes their results."""
        weights = self.reading(o.name)
        if not weights:
            return
        values, inputs = self.seen(o.name), self.narrow[o.inputs[0]]
        least = self.floors(o, inputs)
        wide = max(wide_scale(values), float(least.max()))
        narrow = np.maximum(self.channel_scales(values, weights, _ALPHA_NORM), least)
        self.wide[o.name], self.narrow[o.name], self.taken[o.name] = wide, narrow, 0.0
        self.done[o.name] = IntegerLinear.of(o, *(self.linear(o, inputs, scale) for scale in (narrow, wide)))

    def added(self, o: Add) -> None:
        """A residual sum: its 16-bit scale, the product in it, and what is taken from all its channels.

        LayerNorm sees nothing of what all channels have in common, so it need not be in range.
        """
        product, residual = addends(self.graph, o)
        wide_in, before, input_scale = self.wide[residual], self.taken[residual], self.narrow[product.inputs[0]]
        values = self.seen(o.name)
        common = float(values.mean(dtype=np.float64))
        values = values - common
        # The product alone must be in range, too, where the residual cancels it.
        weight, bias = product.weight.astype(np.float64), product.bias.astype(np.float64)
        alone = self.seen(product.inputs[0]) @ weight.T + bias - (common - before)
        least = self.floors(product, input_scale, common - before)
        wide = max(wide_scale(values), wide_scale(alone) / MARGIN)
        scale = max(wide, wide_in * 65536 / 65535, float(least.max()))
        # Rounded down: the scale only grows, so that the sums stay in range.
        multiplier = math.floor(wide_in / scale * 65536)
        if multiplier:
            scale = wide_in * 65536 / multiplier
        what = f"calibration: {o.name}, of {product.name} and its residual"
        blame = functools.partial(self.calibration.blame, o.name)
        require_normalizable(values, what, scale, blame, self.epsilon(o))
        unlike = np.sqrt(values.var(1)) / max(abs(common), 1e-30)
        if unlike.min() < _LEAST_UNLIKE:
            token = int(unlike.argmin())
            raise InputError(
                f"{what}, token {token}: all channels have {common:.3g} in common, of which it deviates by "
                f"{unlike[token]:.2g}; fp32, whose steps are 6e-8, tells {_LEAST_UNLIKE:g} apart{blame(True)}."
            )
        parameters = self.linear(product, input_scale, scale, second=multiplier, offset=common - before)
        self.wide[o.name], self.taken[o.name] = scale, common
        self.done[product.name] = IntegerLinear.of(product, parameters)

    def attention(self, o: Attention) -> None:
        """Queries, keys and values; the heads' multipliers, shifts, coarseness and gains; the context's scales."""
        linears = [self.graph.linear(i) for i in o.inputs]
        query, key, value, context = (self.seen(n) for n in (*o.inputs, o.name))
        narrow, hidden = self.narrow[linears[0].inputs[0]], query.shape[1]
        # Softmax sees nothing of what all keys have in common.
        common = key.mean(0, dtype=np.float64)
        offsets: tuple[NDArray | float, ...] = (0.0, common, 0.0)
        least = [self.floors(linear, narrow, offset) for linear, offset in zip(linears, offsets, strict=True)]
        scales = head_scales(query, key - common, value, context, least, o.heads, self.narrow_scale)
        for linear, scale, offset in zip(linears, (scales.query, scales.key, scales.value), offsets, strict=True):
            self.done[linear.name] = IntegerLinear.of(linear, self.linear(linear, narrow, scale, offset=offset))
        size = hidden // o.heads
        largest = self.calibration.largest_scores(o, common)
        alike = self.calibration.largest_scores(o, np.zeros(hidden))
        for head in np.flatnonzero((alike > 1e6) & (largest < _LEAST_UNLIKE * alike)):
            raise InputError(
                f"{o.name}, head {head}: scores reach {alike[head]:.3g}, but differ between keys by "
                f"{largest[head]:.3g} only, which fp32 does not resolve beyond {_LEAST_UNLIKE:g} of them"
                f"{self.calibration.blame(o.name, True)}."
            )
        chosen = [score_factor(float(p), size, float(s)) for p, s in zip(scales.products, largest, strict=True)]
        real = np.array([factor for factor, _ in chosen])
        for head in np.flatnonzero(real > LARGEST_FACTOR):
            raise InputError(
                f"{o.name}, head {head}: queries and keys cancel, so that scores reach {largest[head]:.3g} only; "
                f"a step of their products is {real[head]:.3g} of the softmax's, and {LARGEST_FACTOR:.3g} is the limit."
            )
        multiplier, shift = factors(real)
        coarse = np.array([c for _, c in chosen], np.int64)
        self.narrow[o.name] = scales.value / 2.0 ** np.repeat(scales.gain, size)
        self.done[o.name] = IntegerAttention(
            o.name, o.inputs, o.heads, o.causal, score_multiplier=multiplier, score_shift=shift, coarse=coarse,
            gain=scales.gain,
        )  # fmt: skip

    def activation(self, o: Activate) -> None:
        """The product before it, the activation's table, and the scales of its 8-bit results."""
        first = self.graph.linear(o.inputs[0])
        (weights,) = self.reading(o.name)
        inputs_scale = self.narrow[first.inputs[0]]
        values, activated = (self.seen(n).astype(np.float64) for n in (first.name, o.name))
        # Channels that nothing reads must not be what the table is made for.
        read = np.abs(weights).max(0) > 0
        shrink = np.maximum(1.0, np.abs(values).max(0) / _LARGEST_INTERMEDIATE)
        step = self.narrow_scale(np.where(read, values / shrink, 0))
        # A whole channel whose products cancel has a coarser grid, too.
        shrink = np.maximum(shrink, self.floors(first, inputs_scale) / step)
        inputs = np.concatenate([np.arange(128), np.arange(-128, 0)]) * step
        results = FUNCTIONS[o.function](inputs.astype(np.float32)).astype(np.float64)
        table_scale = (float(np.abs(results).max()) or 1.0) / 32767
        wanted = self.channel_scales(np.where(read, activated / shrink, 0), [weights * shrink], _ALPHA_ACTIVATION)
        multipliers = np.clip(np.round(table_scale / wanted * 65536), 1, 65535).astype(np.int64)
        parameters = self.linear(first, inputs_scale, step * shrink, second=multipliers)
        table = np.round(results / table_scale).astype(np.int16)
        self.narrow[o.name] = table_scale * 65536 / multipliers * shrink
        self.done[first.name] = IntegerLinear.of(first, parameters)
        self.done[o.name] = IntegerActivate(o.name, o.inputs, o.function, table=table)

    def output(self, o: Output) -> None:
        """The result: its scale, and that of every token's output."""
        last = self.graph.by_name[o.inputs[0]]
        if isinstance(last, Mean | Select):
            last = self.graph.by_name[last.inputs[0]]
        self.done[o.name] = IntegerOutput(
            o.name, o.inputs, scale=float(self.narrow[last.name][0]), wide_scale=self.wide[last.name]
        )
