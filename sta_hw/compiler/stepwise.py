"""A quantized encoder computed without a program: each step in the hardware's integers, or in real numbers.

So one can tell what integers make of a text, and which of their steps is to blame for it. Steps hand real numbers on:
what a step in integers gives lies on its grid, and the next one's rounding to that grid finds the same integers again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ..model.bert import LINEAR_NAMES, PROJECTION, BertModel
from ..reference.engine import matrix_sums
from ..reference.requantizer import BASE_SHIFT, SHIFT_STEP, requantize
from ..reference.softmax import SoftmaxRows
from ..reference.vector import activate, add_residual, layer_norm
from .embedded import quantize_embedded
from .parameters import LayerParameters, LinearParameters, NormParameters, QuantizedEncoder

__all__ = ["ATTENTION", "Integers", "result_scale"]

Floats = NDArray[np.float64]
ATTENTION = "attention"
"""The step from queries, keys and values to the context; other steps are called as their weights."""

_ANYTHING = 1e300


def result_scale(p: LinearParameters) -> Floats:
    """What one unit of a linear layer's results means, shape (columns,)."""
    factor = p.multiplier / 2.0 ** (BASE_SHIFT + SHIFT_STEP * p.shift)
    # Columns of a factor of zero give zero whatever they are given.
    return np.divide(p.steps, factor, out=np.full(len(factor), _ANYTHING), where=factor > 0)


def _rounded(values: Floats, scale: NDArray | float, limit: int) -> NDArray[np.int64]:
    return np.clip(np.round(values / scale), -limit, limit).astype(np.int64)


class Integers:
    """Some texts' way through an encoder.

    Parameters
    ----------
    model : BertModel
        In fp32, as it was quantized: its weights' N:M included.
    encoder : QuantizedEncoder
        The same in integers.
    texts : sums of embeddings, each (tokens, width)
    """

    def __init__(self, model: BertModel, encoder: QuantizedEncoder, texts: Sequence[NDArray]) -> None:
        self.model, self.encoder = model, encoder
        self.embedded = np.concatenate(texts).astype(np.float64)
        self.ends = np.cumsum([len(t) for t in texts])[:-1]

    def run(self, chosen: Collection[str] | None = None) -> dict[str, Floats]:
        """What every step gives, by its name; those `chosen`, or all, in integers.

        All of shape (tokens of all texts, channels), the last LayerNorm's being what its 8 bits say. Values are float64
        where they are not integers.
        """
        model, encoder = self.model, self.encoder
        found: dict[str, Floats] = {}
        names = LINEAR_NAMES

        def whole(step: str) -> bool:
            return chosen is None or step in chosen

        inputs = [p.linear[names[0]].input_scale for p in encoder.layers]
        outputs = [*inputs[1:], np.full(encoder.hidden, encoder.output_scale)]

        def keep(name: str, values: Floats) -> Floats:
            found[name] = values
            return values

        def norm(name: str, values: Floats, taken: float, scale: float, p: NormParameters, narrow: NDArray):
            """A LayerNorm's 16-bit and 8-bit results."""
            if not whole(f"{name}.LayerNorm"):
                exact = keep(f"{name}.LayerNorm", self.exact_norm(name, values))
                return exact, exact
            x = _rounded(values - taken, scale, 32767) if scale else quantize_embedded(values, 0.0)[0]
            wide, short = layer_norm(x, p.scale, p.shift, p.multiplier, round(2**33 / x.shape[1]))
            keep(f"{name}.LayerNorm", short * narrow)
            return wide * p.wide_scale, short * narrow

        def linear(layer: int, name: str, x: Floats, p: LinearParameters, *, wide: bool = False) -> Floats:
            """A product's results, but for the activation."""
            step = name if name == PROJECTION else f"encoder.layer.{layer}.{name}"
            if not whole(step):
                return keep(step, self.exact_product(layer, name, x))
            return keep(step, self.product(x, p, wide=wide) * result_scale(p) + p.offset)

        def added(layer: int, name: str, x: Floats, p: LinearParameters, stream: Floats, taken: float, unit: float):
            """A residual sum, what is taken from all its channels, and its unit."""
            step = f"encoder.layer.{layer}.{name}"
            common = taken + float(p.offset[0])
            # Where the residual counts its factor says what the sum's unit is; else the products' do.
            scale = unit * 65536 / int(p.second[0]) if p.second[0] else float(result_scale(p).min())
            if not whole(step):
                return keep(step, self.exact_product(layer, name, x) + stream), common, scale
            total = add_residual(self.product(x, p, wide=True), _rounded(stream - taken, unit, 32767), p.second)
            return keep(step, total.astype(np.float64) * scale + common), common, scale

        if encoder.projection:
            narrow_to, wide_to = encoder.projection
            _, x = norm(model.norm_before, self.embedded, 0.0, 0.0, encoder.embedding_norm, narrow_to.input_scale)
            stream, x = linear(0, PROJECTION, x, wide_to, wide=True), linear(0, PROJECTION, x, narrow_to)
            unit = float(result_scale(wide_to).min())
        else:
            stream, x = norm(
                model.norm_before, self.embedded, 0.0, encoder.embedded_scale, encoder.embedding_norm, inputs[0]
            )
            unit = encoder.embedding_norm.wide_scale
        if encoder.norm_first:
            stream, unit = self.embedded, encoder.embedded_scale
        taken = 0.0
        for layer, p in enumerate(encoder.layers):
            products = [p.linear[n] for n in names]
            query, key, value = (linear(layer, n, x, q) for n, q in zip(names[:3], products[:3], strict=True))
            step = f"encoder.layer.{layer}.{ATTENTION}"
            context = keep(step, self.attention(query, key, value, p, whole(step)))
            total, taken, unit = added(layer, names[3], context, products[3], stream, taken, unit)
            wide, x = norm(model.norm_between(layer), total, taken, unit, p.norm1, products[4].input_scale)
            if encoder.norm_first:
                stream = total
            else:
                stream, unit, taken = wide, p.norm1.wide_scale, 0.0
            step = f"encoder.layer.{layer}.{names[4]}"
            if whole(step):
                short = activate(self.product(x, products[4]), p.table, products[4].second)
                hidden = keep(step, short * products[5].input_scale)
            else:
                exact = self.exact_product(layer, names[4], x).astype(np.float32)
                hidden = keep(step, model.activate(exact).astype(np.float64))
            total, taken, unit = added(layer, names[5], hidden, products[5], stream, taken, unit)
            wide, x = norm(model.norm_behind(layer), total, taken, unit, p.norm2, outputs[layer])
            if encoder.norm_first:
                stream = total
            else:
                stream, unit, taken = wide, p.norm2.wide_scale, 0.0
        return found

    @property
    def last(self) -> str:
        """The step whose values are the output."""
        return f"{self.model.norm_behind(self.model.layers - 1)}.LayerNorm"

    def exact_norm(self, name: str, values: Floats) -> Floats:
        """LayerNorm in float64."""
        gamma, beta = (a.astype(np.float64) for a in self.model.norm_parameters(name))
        centred = values - values.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + self.model.epsilon) * gamma + beta

    def exact_product(self, layer: int, name: str, x: Floats) -> Floats:
        """A linear layer's results in float64."""
        weight, bias = (a.astype(np.float64) for a in self.model.linear(layer, name))
        return x @ weight.T + bias

    def product(self, x: Floats, p: LinearParameters, *, wide: bool = False) -> NDArray[np.int64]:
        """A linear layer's integer results, shape (tokens, columns)."""
        sums = matrix_sums(_rounded(x, p.input_scale, 127), p.weights)
        found = requantize(sums, p.bias[:, None], p.multiplier[:, None], p.shift[:, None], wide=wide)
        return found.T.astype(np.int64)

    def attention(self, query: Floats, key: Floats, value: Floats, p: LayerParameters, integers: bool) -> Floats:
        """The context of every text and head, keys in their own order."""
        heads = self.encoder.heads
        tensors = [query, key, value]
        if integers:
            parameters = [p.linear[n] for n in LINEAR_NAMES[:3]]
            tensors = [
                _rounded(t - q.offset, result_scale(q), 127).astype(np.float64)
                for t, q in zip(tensors, parameters, strict=True)
            ]
        found = []
        for texts in zip(*(np.split(t, self.ends) for t in tensors), strict=True):
            q, k, v = (t.reshape(len(t), heads, -1).transpose(1, 0, 2) for t in texts)
            tokens = len(texts[0])
            products = q @ k.transpose(0, 2, 1)
            if integers:
                context = self.integer_context(products.astype(np.int64), v, p)
            else:
                scores = products / math.sqrt(q.shape[-1])
                exponential = np.exp(scores - scores.max(-1, keepdims=True))
                context = exponential / exponential.sum(-1, keepdims=True) @ v
            found.append(context.transpose(1, 0, 2).reshape(tokens, -1))
        context = np.concatenate(found)
        return context * p.linear[LINEAR_NAMES[3]].input_scale if integers else context

    def integer_context(self, products: NDArray[np.int64], values: Floats, p: LayerParameters) -> Floats:
        """Softmax and P x V of one text: `products` (heads, tokens, tokens), `values` (heads, tokens, channels)."""
        heads, tokens, _ = products.shape
        multiplier, shift = (a.reshape(heads, 1, 1) for a in (p.score_multiplier, p.score_shift))
        logits = requantize(products, 0, multiplier, shift, wide=True).astype(np.int64)
        rows = SoftmaxRows(heads * tokens, wide=False, coarse=np.repeat(p.coarse, tokens))
        probabilities = rows.block(logits.reshape(heads * tokens, tokens), np.ones(tokens, bool))
        sums = (probabilities.reshape(heads, tokens, tokens).astype(np.float64) @ values).astype(np.int64)
        by_row = (a.reshape(heads, tokens, 1) for a in rows.reciprocals(np.repeat(p.gain, tokens)))
        return requantize(sums, 0, *by_row, wide=False).astype(np.float64)
