"""A quantized graph computed without a program: each step in the hardware's integers, or in real numbers.

So one can tell what integers make of a text, and which of their steps is to blame for it. Steps hand real numbers on:
what a step in integers gives lies on its grid, and the next one's rounding to that grid finds the same integers again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ..model.fp32 import FUNCTIONS
from ..model.graph import Graph
from ..model.operations import Activate, Add, Norm, Operation
from ..model.part import addends
from ..reference.engine import matrix_sums
from ..reference.requantizer import BASE_SHIFT, SHIFT_STEP, requantize
from ..reference.softmax import SoftmaxRows
from ..reference.vector import activate, add_residual, layer_norm
from .embedded import quantize_embedded
from .integers import (
    IntegerActivate,
    IntegerAttention,
    IntegerInput,
    IntegerLinear,
    IntegerNorm,
    IntegerOutput,
    linear_of,
)
from .parameters import LinearParameters

__all__ = ["Integers", "result_scale"]

Floats = NDArray[np.float64]
_ANYTHING = 1e300


def result_scale(p: LinearParameters) -> Floats:
    """What one unit of a linear layer's results means, shape (columns,)."""
    factor = p.multiplier / 2.0 ** (BASE_SHIFT + SHIFT_STEP * p.shift)
    # Columns of a factor of zero give zero whatever they are given.
    return np.divide(p.steps, factor, out=np.full(len(factor), _ANYTHING), where=factor > 0)


def _rounded(values: Floats, scale: NDArray | float, limit: int) -> NDArray[np.int64]:
    return np.clip(np.round(values / scale), -limit, limit).astype(np.int64)


class Integers:
    """Some texts' way through a graph.

    Parameters
    ----------
    graph : Graph
        The accelerator's part in fp32, as it was quantized: its weights' N:M included.
    quantized : Graph
        The same in integers.
    texts : sums of embeddings, each (tokens, width)
    """

    def __init__(self, graph: Graph, quantized: Graph, texts: Sequence[NDArray]) -> None:
        self.graph, self.quantized = graph, quantized
        self.embedded = np.concatenate(texts).astype(np.float64)
        self.ends = np.cumsum([len(t) for t in texts])[:-1]

    @property
    def last(self) -> str:
        """The value that is the output, of every token."""
        return [o.name for o in self.graph.operations if isinstance(o, Norm)][-1]

    def run(self, chosen: Collection[str] | None = None) -> dict[str, Floats]:
        """What every operation gives, by its name; those `chosen`, or all, in integers.

        All of shape (tokens of all texts, channels), a LayerNorm's being what its 8 bits say. Values are float64 where
        they are not integers. A linear operation whose results an activation or a sum takes is part of that.
        """
        way = _Way(self)
        for o in self.quantized.operations:
            if (rule := _RULES.get(type(o))) is not None:
                rule(way, o, chosen is None or o.name in chosen)
        return {name: values for name, values in way.narrow.items() if name != self.quantized.operations[0].name}

    def exact_product(self, name: str, x: Floats) -> Floats:
        """A linear operation's results in float64."""
        o = self.graph.linear(name)
        return x @ o.weight.astype(np.float64).T + o.bias.astype(np.float64)

    def product(self, x: Floats, p: LinearParameters, *, wide: bool = False) -> NDArray[np.int64]:
        """A linear layer's integer results, shape (tokens, columns)."""
        sums = matrix_sums(_rounded(x, p.input_scale, 127), p.weights)
        found = requantize(sums, p.bias[:, None], p.multiplier[:, None], p.shift[:, None], wide=wide)
        return found.T.astype(np.int64)

    def attention(self, o: IntegerAttention, given: Sequence[Floats], integers: bool) -> Floats:
        """The context of every text and head, keys in their own order."""
        tensors = list(given)
        if integers:
            parameters = [linear_of(self.quantized, n).parameters for n in o.inputs]
            tensors = [
                _rounded(t - q.offset, result_scale(q), 127).astype(np.float64)
                for t, q in zip(tensors, parameters, strict=True)
            ]
        found = []
        for texts in zip(*(np.split(t, self.ends) for t in tensors), strict=True):
            q, k, v = (t.reshape(len(t), o.heads, -1).transpose(1, 0, 2) for t in texts)
            tokens = len(texts[0])
            products = q @ k.transpose(0, 2, 1)
            if integers:
                context = self.integer_context(products.astype(np.int64), v, o)
            else:
                scores = products / math.sqrt(q.shape[-1])
                exponential = np.exp(scores - scores.max(-1, keepdims=True))
                context = exponential / exponential.sum(-1, keepdims=True) @ v
            found.append(context.transpose(1, 0, 2).reshape(tokens, -1))
        return np.concatenate(found)

    def integer_context(self, products: NDArray[np.int64], values: Floats, p: IntegerAttention) -> Floats:
        """Softmax and P x V of one text: `products` (heads, tokens, tokens), `values` (heads, tokens, channels)."""
        heads, tokens, _ = products.shape
        multiplier, shift = (a.reshape(heads, 1, 1) for a in (p.score_multiplier, p.score_shift))
        logits = requantize(products, 0, multiplier, shift, wide=True).astype(np.int64)
        rows = SoftmaxRows(heads * tokens, wide=False, coarse=np.repeat(p.coarse, tokens))
        probabilities = rows.block(logits.reshape(heads * tokens, tokens), np.ones(tokens, bool))
        sums = (probabilities.reshape(heads, tokens, tokens).astype(np.float64) @ values).astype(np.int64)
        by_row = (a.reshape(heads, tokens, 1) for a in rows.reciprocals(np.repeat(p.gain, tokens)))
        return requantize(sums, 0, *by_row, wide=False).astype(np.float64)


class _Way:
    """The values so far, as numbers: of 16 bits where there are such, and of 8.

    Attributes
    ----------
    taken, unit : dict of float
        By value in 16 bits: what was taken from all its channels, and what one unit means; 0 if each token has its own.
    """

    def __init__(self, of: Integers) -> None:
        self.of = of
        self.wide: dict[str, Floats] = {}
        self.narrow: dict[str, Floats] = {}
        self.taken: dict[str, float] = {}
        self.unit: dict[str, float] = {}

    def scale(self, name: str) -> NDArray | float:
        """What one unit of a value's 8 bits means."""
        for o in self.of.quantized.takers(name):
            if isinstance(o, IntegerLinear):
                return o.parameters.input_scale
        result = self.of.quantized.operations[-1]
        assert isinstance(result, IntegerOutput)
        return result.scale


def _input(way: _Way, o: Operation, whole: bool) -> None:
    assert isinstance(o, IntegerInput)
    way.wide[o.name] = way.narrow[o.name] = way.of.embedded
    way.taken[o.name], way.unit[o.name] = 0.0, o.scale


def _norm(way: _Way, o: Operation, whole: bool) -> None:
    """A LayerNorm's 16-bit and 8-bit results."""
    assert isinstance(o, IntegerNorm)
    source, p = o.inputs[0], o.parameters
    values, unit = way.wide[source], way.unit[source]
    way.taken[o.name], way.unit[o.name] = 0.0, p.wide_scale
    if not whole:
        exact = way.of.graph.by_name[o.name]
        assert isinstance(exact, Norm)
        centred = values - values.mean(1, keepdims=True)
        gamma, beta = exact.weight.astype(np.float64), exact.bias.astype(np.float64)
        result = centred / np.sqrt((centred**2).mean(1, keepdims=True) + exact.epsilon) * gamma + beta
        way.wide[o.name] = way.narrow[o.name] = np.asarray(result, np.float64)
        return
    x = _rounded(values - way.taken[source], unit, 32767) if unit else quantize_embedded(values, 0.0)[0]
    wide, short = layer_norm(x, p.scale, p.shift, p.multiplier, round(2**33 / x.shape[1]))
    way.wide[o.name] = np.asarray(wide * p.wide_scale, np.float64)
    way.narrow[o.name] = np.asarray(short * way.scale(o.name), np.float64)


def _linear(way: _Way, o: Operation, whole: bool) -> None:
    """A product's results that attention takes, or of a projection those of 16 bits and of 8."""
    assert isinstance(o, IntegerLinear)
    takers = way.of.quantized.takers(o.name)
    if isinstance(takers[0], Activate | Add) and len(takers) == 1:
        return
    x = way.narrow[o.inputs[0]]
    for p, values in ((o.parameters, way.narrow), (o.wide, way.wide)):
        if p is None:
            continue
        values[o.name] = way.of.exact_product(o.name, x)
        if whole:
            values[o.name] = way.of.product(x, p, wide=p is o.wide) * result_scale(p) + p.offset
    if o.wide is not None:
        way.taken[o.name], way.unit[o.name] = 0.0, float(result_scale(o.wide).min())


def _attention(way: _Way, o: Operation, whole: bool) -> None:
    assert isinstance(o, IntegerAttention)
    context = way.of.attention(o, [way.narrow[i] for i in o.inputs], whole)
    way.narrow[o.name] = context * way.scale(o.name) if whole else context


def _activate(way: _Way, o: Operation, whole: bool) -> None:
    assert isinstance(o, IntegerActivate)
    first = linear_of(way.of.quantized, o.inputs[0])
    x = way.narrow[first.inputs[0]]
    if whole:
        short = activate(way.of.product(x, first.parameters), o.table, first.parameters.second)
        way.narrow[o.name] = short * way.scale(o.name)
        return
    exact = way.of.exact_product(first.name, x).astype(np.float32)
    way.narrow[o.name] = FUNCTIONS[o.function](exact).astype(np.float64)


def _add(way: _Way, o: Operation, whole: bool) -> None:
    """A residual sum, what is taken from all its channels, and its unit."""
    product, residual = addends(way.of.quantized, o)
    p, x = linear_of(way.of.quantized, product.name).parameters, way.narrow[product.inputs[0]]
    stream, taken, unit = way.wide[residual], way.taken[residual], way.unit[residual]
    common = taken + float(p.offset[0])
    # Where the residual counts its factor says what the sum's unit is; else the products' do.
    scale = unit * 65536 / int(p.second[0]) if p.second[0] else float(result_scale(p).min())
    if whole:
        total = add_residual(way.of.product(x, p, wide=True), _rounded(stream - taken, unit, 32767), p.second)
        values = total.astype(np.float64) * scale + common
    else:
        values = way.of.exact_product(product.name, x) + stream
    way.wide[o.name] = way.narrow[o.name] = values
    way.taken[o.name], way.unit[o.name] = common, scale


_RULES: dict[type[Operation], Callable[[_Way, Operation, bool], None]] = {
    IntegerInput: _input, IntegerNorm: _norm, IntegerLinear: _linear, IntegerAttention: _attention,
    IntegerActivate: _activate, Add: _add,
}  # fmt: skip
"""Of each operation: what it gives in integers, or in real numbers. Poolings are the caller's."""
