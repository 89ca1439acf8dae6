"""Runs a graph in float32 numpy and gives every value: what calibration looks at, and what is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
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
    Multiply,
    Norm,
    Normalize,
    Operation,
    Output,
    Prepend,
    RmsNorm,
    Rotary,
    Select,
)

__all__ = ["EPSILON", "FUNCTIONS", "Cache", "evaluate", "gelu", "layer_norm", "rms_norm", "rotate", "value_of"]

EPSILON = 1e-12
"""Of BERT's LayerNorms, added to the variance."""


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float = EPSILON) -> Array:
    """LayerNorm over the last axis, fp32."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(_mean_square(centred) + epsilon) * weight + bias


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    """RMSNorm over the last axis, fp32."""
    return x / np.sqrt(_mean_square(x) + np.float32(epsilon)) * weight


def _mean_square(x: Array) -> Array:
    """Over the last axis. One that overflows is no number: as infinity it would make the result 0, and look sound."""
    found = (x**2).mean(-1, keepdims=True)
    found[np.isinf(found)] = np.nan
    return found


def rotate(x: Array, frequencies: Array, first: int) -> Array:
    """Rotary positions: `x` has shape (tokens, heads, width of a head), the first token the position `first`."""
    angles = np.arange(first, first + len(x), dtype=np.float32)[:, None, None] * frequencies
    cosine, sine = np.cos(angles), np.sin(angles)
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


class Cache:
    """Keys and values of the tokens so far, of every causal attention; what a decoder remembers.

    Parameters
    ----------
    capacity : int
        Tokens that it has room for.

    Attributes
    ----------
    length : int
        Tokens in it. `evaluate` computes the tokens behind them, and counts them when it is done; what is behind
        `length` counts for nothing, so lowering it forgets the last tokens.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self._kept: dict[str, tuple[Array, Array]] = {}

    def extend(self, name: str, keys: Array, values: Array) -> tuple[Array, Array]:
        """All keys and all values of an attention, with those of the next tokens behind them.

        Raises
        ------
        InputError
            If there is no room.
        """
        end = self.length + len(keys)
        self.require(len(keys))
        if name not in self._kept:
            room = (self.capacity, keys.shape[1])
            self._kept[name] = np.zeros(room, np.float32), np.zeros(room, np.float32)
        for kept, new in zip(self._kept[name], (keys, values), strict=True):
            kept[self.length : end] = new
        every_key, every_value = self._kept[name]
        return every_key[:end], every_value[:end]

    def require(self, tokens: int) -> None:
        """Refuse more tokens than there is room for.

        Raises
        ------
        InputError
            If there is no room.
        """
        if self.length + tokens > self.capacity:
            raise InputError(
                f"the context holds {self.capacity} tokens and is full: {self.length} are in it, and {tokens} more are "
                "wanted."
            )

    def kept(self, name: str) -> tuple[Array, Array]:
        """Keys and values of an attention, shapes (capacity, width)."""
        return self._kept[name]

    def copy(self, capacity: int | None = None) -> Cache:
        """The same tokens, to go on from in another way; with room for others than as many as this one, if said."""
        other = Cache(self.capacity if capacity is None else capacity)
        other.length = self.length
        for name, both in self._kept.items():
            keys, values = (np.zeros((other.capacity, kept.shape[1]), np.float32) for kept in both)
            keys[: self.length], values[: self.length] = (kept[: self.length] for kept in both)
            other._kept[name] = keys, values
        return other


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


def _embed(o: Embed, ids: NDArray, cache: Cache) -> Array:
    count = len(ids)
    if o.rows == "first":
        rows = np.zeros(count, np.int64)
    elif o.rows == "token":
        rows = np.asarray(ids, np.int64)
    elif o.padding is None:
        rows = np.arange(o.offset, o.offset + count) + cache.length
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


def _rotary(o: Rotary, x: Array, cache: Cache) -> Array:
    return rotate(x.reshape(len(x), o.heads, -1), o.frequencies, cache.length).reshape(x.shape)


def _attention(o: Attention, query: Array, key: Array, value: Array, cache: Cache) -> Array:
    tokens, width = query.shape
    if o.causal:
        key, value = cache.extend(o.name, key, value)
    narrow = o.heads // o.shared
    # The heads of the query that share keys are more rows of one product.
    q = query.reshape(tokens, narrow, o.shared, -1).transpose(1, 2, 0, 3).reshape(narrow, o.shared * tokens, -1)
    k, v = (x.reshape(len(x), narrow, -1).transpose(1, 0, 2) for x in (key, value))
    scores = (q @ k.transpose(0, 2, 1) / math.sqrt(width // o.heads)).reshape(narrow, o.shared, tokens, -1)
    if o.causal:
        seen = np.tri(tokens, len(key), len(key) - tokens, dtype=bool)
        scores = np.where(seen, scores, -np.inf).astype(np.float32)
    exponential = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities = exponential / exponential.sum(-1, keepdims=True)
    context = probabilities.reshape(narrow, o.shared * tokens, -1) @ v
    return context.reshape(narrow, o.shared, tokens, -1).transpose(2, 0, 1, 3).reshape(tokens, width)


_RULES: dict[type[Operation], Callable[..., Array]] = {
    Convolution: _convolution,
    Prepend: lambda o, x: np.concatenate([o.rows, x]),
    Linear: lambda o, x: x @ o.weight.T + o.bias,
    Norm: lambda o, x: layer_norm(x, o.weight, o.bias, o.epsilon),
    RmsNorm: lambda o, x: rms_norm(x.reshape(*x.shape[:-1], o.heads, -1), o.weight, o.epsilon).reshape(x.shape),
    Activate: lambda o, x: FUNCTIONS[o.function](x),
    Add: lambda o, a, b: a + b,
    Multiply: lambda o, a, b: a * b,
    Select: lambda o, x: x[o.token],
    Mean: lambda o, x: x[o.first :].mean(0),
    Maximum: lambda o, x: x.max(0),
    Normalize: lambda o, x: x / np.maximum(np.linalg.norm(x), np.float32(1e-12)),
    Output: lambda o, x: x,
}

_POSITIONAL: dict[type[Operation], Callable[..., Array]] = {Embed: _embed, Rotary: _rotary, Attention: _attention}
"""Those that depend on the tokens before."""


def value_of(o: Operation, *given: Array, cache: Cache | None = None) -> Array:
    """An operation's value, from those of its inputs and the tokens before, which are none if not given."""
    if type(o) in _POSITIONAL:
        return _POSITIONAL[type(o)](o, *given, cache or Cache(len(given[0])))
    return _RULES[type(o)](o, *given)


def evaluate(
    graph: Graph, given: Mapping[str, Any], until: str | None = None, *, cache: Cache | None = None,
    keep: Collection[str] | None = None,
) -> dict[str, Array]:  # fmt: skip
    """All values that follow from the given ones.

    Parameters
    ----------
    given : dict
        Values by name: the inputs, or any others, which are then not computed (and those that only they need neither).
    until : str or None
        The last value to compute.
    cache : Cache or None
        The tokens before those that are given, which come behind them in it.
    keep : names of values, or None
        Those that are returned, where not all are: the others are dropped when the last operation has taken them.

    Raises
    ------
    InputError
        If a given value's shape is not the graph's, a token has no row in a table, or the cache has no room.
    """
    found: dict[str, Array] = {}
    for name, value in given.items():
        array, shape = np.asarray(value), graph.shapes[name]
        if array.ndim != len(shape) or any(s not in (a, "tokens") for a, s in zip(array.shape, shape, strict=True)):
            raise InputError(f"{name} has shape ({', '.join(map(str, shape))}), and what is given {array.shape}.")
        found[name] = array
    tokens = max((len(a) for a in found.values()), default=0)
    for o in graph.operations:
        if o.name not in found and o.inputs and all(i in found for i in o.inputs):
            found[o.name] = value_of(o, *(found[i] for i in o.inputs), cache=cache)
        if o.name == until:
            break
        if keep is not None:
            for name in o.inputs:
                if name not in keep and graph.takers(name)[-1] is o:
                    found.pop(name, None)
    if cache is not None:
        cache.length += tokens
    return found if keep is None else {name: value for name, value in found.items() if name in keep}
