"""Runs a graph in float32 numpy and gives every value: what calibration looks at, and what is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .graph import Graph
from .operations import (
    Activate,
    Add,
    Array,
    Attention,
    Convolution,
    Embed,
    Linear,
    Maximum,
    Mean,
    Norm,
    Normalize,
    Operation,
    Output,
    Prepend,
    Select,
)

__all__ = ["EPSILON", "FUNCTIONS", "evaluate", "gelu", "layer_norm", "value_of"]

EPSILON = 1e-12
"""Of BERT's LayerNorms, added to the variance."""


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float = EPSILON) -> Array:
    """LayerNorm over the last axis, fp32."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


_ERF_STEPS, _ERF_END = 1 << 16, 6.0


@cache
def _erf_table() -> NDArray[np.float64]:
    """The error function from 0 to `_ERF_END`, where it is 1 in double precision, and one entry beyond."""
    return np.array([math.erf(i * _ERF_END / _ERF_STEPS) for i in range(_ERF_STEPS + 2)])


def gelu(x: Array) -> Array:
    """GELU with the error function, as the checkpoint was trained with.

    numpy has no error function; this one is interpolated between exact values, off by 3e-9 at most, a twentieth of
    fp32's resolution.
    """
    exact = x.astype(np.float64)
    # `fmin` gives NaN a place, too; what comes of it is NaN.
    place = np.fmin(np.abs(exact) * (_ERF_STEPS / _ERF_END / math.sqrt(2)), _ERF_STEPS)
    index = place.astype(np.int64)
    low, high = _erf_table()[index], _erf_table()[index + 1]
    return (0.5 * exact * (1 + np.copysign(low + (place - index) * (high - low), exact))).astype(np.float32)


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # that of a large negative number does not overflow


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}
"""Activation functions: GELU with the error function, with tanh, as ``x * sigmoid(1.702 x)``; the others."""


def _embed(o: Embed, ids: NDArray) -> Array:
    count = len(ids)
    if o.rows == "first":
        rows = np.zeros(count, np.int64)
    elif o.rows == "token":
        rows = np.asarray(ids, np.int64)
    elif o.padding is None:
        rows = np.arange(o.offset, o.offset + count)
    else:
        counted = np.asarray(ids) != o.padding
        rows = np.cumsum(counted) * counted + o.padding
    outside = rows[(rows < 0) | (rows >= len(o.table))]
    if len(outside):
        raise InputError(f"{o.name} has rows 0 to {len(o.table) - 1}, and row {outside[0]} is wanted.")
    return o.table[rows]


def _convolution(o: Convolution, x: Array) -> Array:
    padded = np.pad(x, [(p, p) for p in o.padding] + [(0, 0)])
    kernel = o.weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=tuple(range(len(kernel))))
    taken = windows[tuple(slice(None, None, s) for s in o.stride)]  # positions..., channels in, kernel...
    positions = math.prod(taken.shape[: len(kernel)])
    return taken.reshape(positions, -1) @ o.weight.reshape(len(o.weight), -1).T + o.bias


def _attention(o: Attention, *given: Array) -> Array:
    tokens, width = given[0].shape
    query, key, value = (g.reshape(tokens, o.heads, -1).transpose(1, 0, 2) for g in given)
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(width // o.heads)
    if o.causal:
        scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf).astype(np.float32)
    exponential = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities = exponential / exponential.sum(-1, keepdims=True)
    return (probabilities @ value).transpose(1, 0, 2).reshape(tokens, width)


_RULES: dict[type[Operation], Callable[..., Array]] = {
    Embed: _embed,
    Convolution: _convolution,
    Prepend: lambda o, x: np.concatenate([o.rows, x]),
    Linear: lambda o, x: x @ o.weight.T + o.bias,
    Norm: lambda o, x: layer_norm(x, o.weight, o.bias, o.epsilon),
    Attention: _attention,
    Activate: lambda o, x: FUNCTIONS[o.function](x),
    Add: lambda o, a, b: a + b,
    Select: lambda o, x: x[o.token],
    Mean: lambda o, x: x[o.first :].mean(0),
    Maximum: lambda o, x: x.max(0),
    Normalize: lambda o, x: x / np.maximum(np.linalg.norm(x), np.float32(1e-12)),
    Output: lambda o, x: x,
}


def value_of(o: Operation, *given: Array) -> Array:
    """An operation's value, from those of its inputs."""
    return _RULES[type(o)](o, *given)


def evaluate(graph: Graph, given: Mapping[str, Any], until: str | None = None) -> dict[str, Array]:
    """All values that follow from the given ones.

    Parameters
    ----------
    given : dict
        Values by name: the inputs, or any others, which are then not computed (and those that only they need neither).
    until : str or None
        The last value to compute.

    Raises
    ------
    InputError
        If a given value's shape is not the graph's, or a token has no row in a table.
    """
    found: dict[str, Array] = {}
    for name, value in given.items():
        array, shape = np.asarray(value), graph.shapes[name]
        if array.ndim != len(shape) or any(s not in (a, "tokens") for a, s in zip(array.shape, shape, strict=True)):
            raise InputError(f"{name} has shape ({', '.join(map(str, shape))}), and what is given {array.shape}.")
        found[name] = array
    for o in graph.operations:
        if o.name not in found and o.inputs and all(i in found for i in o.inputs):
            found[o.name] = value_of(o, *(found[i] for i in o.inputs))
        if o.name == until:
            break
    return found
