"""Steps that several operators of ONNX share: tables, linear layers, attention, reductions, functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..operations import Add, Attention, Linear, Maximum, Mean, Norm
from .context import Context, Value, table_of
from .session import called
from .values import ARGUMENTS, Data, Known, NotUnderstoodError, Term, elements, factor, whole

__all__ = [
    "attend",
    "biased",
    "layer_norm",
    "linear",
    "masked",
    "pointwise",
    "probabilities",
    "reduced",
    "row_wise",
    "scores",
    "vector",
    "weighted",
]

_MASKED = -1e3
"""What is added to scores that do not count, at most."""


def vector(data: Data, known: Known) -> NDArray | None:
    """One number for each channel, where that is what a constant is."""
    width = data.term.width
    flat = data.index.reshape(-1, data.index.shape[-1]) if data.index.ndim else data.index.reshape(1, 1)
    if known.array.size != width or known.array.shape[-1:] != (width,) or known.origin:
        return None
    return known.array.reshape(-1) if np.array_equal(flat, np.arange(flat.size).reshape(-1, width)) else None


def row_wise(r: Context, data: Data, shift: NDArray, node: str) -> Data:
    """A sum with one number for each channel: a bias, or a row of embeddings that all tokens have."""
    term = data.term
    if term.kind is Linear and data.plain:
        return biased(data, shift)
    if term.kind in ("scaled", "normalized") and data.plain:
        weight = term.attributes.get("weight", np.ones(term.width, np.float32))
        about = {"weight": weight, "bias": shift, "epsilon": term.attributes["epsilon"]}
        return whole(Term(Norm, term.inputs, term.shape, node, about), data.index.shape)
    source = r.settle(data)
    row = table_of(shift[None], node, term.rows, rows="first")
    return whole(Term(Add, (source, row), source.shape, node), data.index.shape)


def biased(data: Data, shift: NDArray) -> Data:
    """A linear layer with a bias more."""
    about = {**data.term.attributes, "bias": data.term.attributes["bias"] + shift}
    return replace(data, term=replace(data.term, attributes=about))


def linear(r: Context, node: Any, x: Data, weight: NDArray, bias: NDArray | None = None) -> Data:
    """A linear layer; `weight` of shape (in, out)."""
    weight = weight.reshape(weight.shape[-2:]) if weight.ndim > 2 and weight.shape[:-2] == (1,) else weight
    if weight.ndim != 2:
        raise NotUnderstoodError("weights that are no matrix")
    term = r.settle(x)
    if term.width != len(weight):
        raise NotUnderstoodError(f"a product of {len(weight)} channels with a value of {term.width}")
    rows = np.zeros((1, weight.shape[1]), np.float32) if bias is None else np.atleast_2d(bias)
    if len(rows) != 1:
        raise NotUnderstoodError(f"a bias of {len(rows)} rows")
    shift = np.broadcast_to(rows, (1, weight.shape[1]))
    about = {"weight": np.ascontiguousarray(weight.T), "bias": shift.reshape(-1)}
    found = Term(Linear, (term,), (*term.shape[:-1], weight.shape[1]), called(node), about)
    return whole(found, r.shapes[node.output[0]])


def _heads(r: Context, data: Data, index: NDArray) -> tuple[Term, float]:
    """Query, key or value from its heads (heads, tokens, size), and the number it is multiplied by."""
    number = factor(data.function, r.half)
    if number is None:
        raise NotUnderstoodError("a function of query, key or value")
    flat = index.transpose(1, 0, 2).reshape(index.shape[1], -1)
    return r.settle(Data(data.term, flat)), number


def scores(r: Context, query: Data, key: Data, node: str) -> Data:
    """Products of queries (..., tokens, size) and keys (..., size, tokens)."""
    one, other = (v.index.reshape(-1, *v.index.shape[-2:]) for v in (query, key))
    if len(one) != len(other) or one.shape[1] != other.shape[2]:
        raise NotUnderstoodError("a product of data that is no attention")
    (q, a), (k, b) = _heads(r, query, one), _heads(r, key, other.transpose(0, 2, 1))
    about = {"heads": len(one), "size": one.shape[2], "causal": False}
    term = Term("scores", (q, k), (len(one), one.shape[1], one.shape[1]), node, about)
    return replace(whole(term, (*query.index.shape[:-1], one.shape[1])), function=ARGUMENTS * np.float32(a * b))


def masked(data: Data, mask: Known, added: NDArray) -> Data:
    """Scores with a mask: none where no token is padding, or that of causal attention."""
    heads, tokens, _ = data.term.shape
    try:
        every = np.broadcast_to(added, data.index.shape).reshape(heads, tokens, tokens)
    except ValueError:
        raise NotUnderstoodError("a mask of another shape than the scores'") from None
    if any(name not in ("shape", *mask.origin) for name in mask.origin):
        raise NotUnderstoodError("a mask that depends on data")
    later = np.triu(np.ones((tokens, tokens), bool), 1)
    if not every[:, ~later].any():
        if not every.any():
            return data
        if (every[:, later] <= _MASKED).all():
            return replace(data, term=replace(data.term, attributes={**data.term.attributes, "causal": True}))
    raise NotUnderstoodError("a mask of a text without padding that is neither empty nor causal")


def probabilities(r: Context, data: Data, node: str) -> Data:
    """Softmax of scores."""
    number = factor(data.function, r.half)
    if data.term.kind != "scores" or number is None:
        raise NotUnderstoodError("softmax of something else than attention's scores")
    return whole(replace(data.term, kind="probabilities", attributes={**data.term.attributes, "scale": number}),
                 data.index.shape)  # fmt: skip


def weighted(r: Context, data: Data, value: Data, node: str) -> Data:
    """Probabilities (..., tokens, tokens) times values (..., tokens, size)."""
    about = data.term.attributes
    index = value.index.reshape(-1, *value.index.shape[-2:])
    if index.shape[:2] != data.term.shape[:2] or not data.plain or data.index.size != np.prod(data.term.shape):
        raise NotUnderstoodError("attention's probabilities in another order, or times a number")
    term, number = _heads(r, value, index)
    heads, tokens, size = index.shape
    wanted = about["size"] ** -0.5
    if not np.isclose(about["scale"], wanted, rtol=2e-3 if r.half else 1e-4) or not np.isclose(number, 1, rtol=1e-5):
        raise NotUnderstoodError(
            f"attention's scores are multiplied by {about['scale']:.4g} and values by {number:.4g}, not by "
            f"{wanted:.4g} and 1"
        )
    inputs = (*data.term.inputs, term)
    if len({t.shape for t in inputs}) > 1:
        raise NotUnderstoodError("query, key and value of different widths")
    context = Term(Attention, inputs, term.shape, node, {"heads": heads, "causal": about["causal"]})
    order = np.arange(tokens * heads * size, dtype=np.int64).reshape(tokens, heads, size).transpose(1, 0, 2)
    return Data(context, order.reshape(*data.index.shape[:-1], size))


def attend(
    r: Context, split: Sequence[Data], mask: Value | None, scale: float | None, node: str, *, causal: bool = False
) -> Data:
    """Attention as one operator, from query, key, value (1, heads, tokens, size)."""
    query, key, value = split
    found = scores(r, query, key.moved(key.index.swapaxes(-1, -2)), node)
    size = query.index.shape[-1]
    found = replace(found, function=found.function * np.float32(scale if scale else size**-0.5))
    if causal:
        found = replace(found, term=replace(found.term, attributes={**found.term.attributes, "causal": True}))
    if isinstance(mask, Data):
        raise NotUnderstoodError("a mask that depends on data")
    if mask is not None:
        added = np.where(mask.array, 0.0, -np.inf) if mask.array.dtype == np.bool_ else mask.array
        found = masked(found, mask, added)
    return weighted(r, probabilities(r, found, node), value, node)


def reduced(r: Context, node: Any, given: Sequence[Value | None]) -> Data:
    """A mean, sum, maximum or length, over the tokens or the channels."""
    data, *rest = given
    about = r.session.attributes(node)
    axes = about.get("axes")
    if rest and isinstance(rest[0], Known):
        axes = rest[0].array.reshape(-1).tolist()
    if not isinstance(data, Data) or axes is None or len(axes) != 1:
        raise NotUnderstoodError("a reduction over several axes")
    ordered = np.moveaxis(data.index, axes[0], 0)
    table = ordered.reshape(len(ordered), -1)
    kind, name = node.op_type.removeprefix("Reduce"), called(node)
    shape = r.shapes[node.output[0]]
    found = elements(table, data.term)
    term = data.term
    channels = np.arange(term.width)
    if found is not None and np.array_equal(found[1], channels) and kind in ("Mean", "Sum", "Max"):
        source, first = r.settle(data, table), 0
        if source.kind == "rows":
            first, source = source.attributes["first"], source.inputs[0]
        if kind == "Max":
            if first:
                raise NotUnderstoodError("the largest of some tokens")
            return whole(Term(Maximum, (source,), source.shape[1:], name), shape)
        if kind == "Sum":
            number = source.rows - first
            return whole(Term("token sum", (source,), source.shape[1:], name, {"first": first, "of": number}), shape)
        return whole(Term(Mean, (source,), source.shape[1:], name, {"first": first}), shape)
    across = elements(table.T, term)
    if across is None or not np.array_equal(across[1], channels):
        raise NotUnderstoodError("a reduction over something else than all channels or tokens")
    squares = bool(np.allclose(data.function, ARGUMENTS**2, rtol=1e-4))
    if term.kind == "centred":
        if squares and kind in ("Mean", "Sum") and np.array_equal(across[0], np.arange(term.rows)):
            variance = whole(Term("variance", term.inputs, (term.rows, 1), name), shape)
            return variance if kind == "Mean" else replace(variance, function=ARGUMENTS * np.float32(term.width))
    elif (kind == "Sum" and squares) or (kind in ("L2", "SumSquare") and data.plain):
        source = r.settle(replace(data, function=ARGUMENTS), table.T)
        length = whole(Term("squared length", (source,), (source.rows, 1), name), shape)
        with np.errstate(invalid="ignore"):
            return replace(length, function=np.sqrt(ARGUMENTS)) if kind == "L2" else length
    elif kind == "Mean":
        source = r.settle(data, table.T)
        return whole(Term("row mean", (source,), (source.rows, 1), name), shape)
    raise NotUnderstoodError("a reduction that is no part of LayerNorm")


def pointwise(r: Context, node: Any, given: Sequence[Value | None]) -> Data:
    """A function of every element, by its values for `ARGUMENTS`."""
    parts = [v for v in given if isinstance(v, Data)]
    numbers = [v.number if isinstance(v, Known) else None for v in given]
    first = parts[0]
    shape = r.shapes[node.output[0]]
    if first.index.shape != shape:
        raise NotUnderstoodError("values that are spread over others")
    if not all(v.term is first.term and np.array_equal(v.index, first.index) for v in parts):
        raise NotUnderstoodError("values of different operations, element by element")
    if any(isinstance(v, Known) and n is None for v, n in zip(given, numbers, strict=True)):
        raise NotUnderstoodError("a constant that is neither one number nor a layer's weights")
    arrays = [
        v.function if isinstance(v, Data) else None if v is None else np.array(n, np.float32)
        for v, n in zip(given, numbers, strict=True)
    ]
    function = r.session.apply(node, arrays)[0]
    data = replace(first, function=function.astype(np.float32))
    if first.term.kind == "token sum":
        about = first.term.attributes
        if np.isclose(factor(data.function, r.half) or 0, 1 / about["of"], rtol=1e-3 if r.half else 1e-5):
            mean = Term(Mean, first.term.inputs, first.term.shape, called(node), {"first": about["first"]})
            return whole(mean, shape)
    return data


def layer_norm(x: Term, weight: Value | None, bias: Value | None, epsilon: float, node: str) -> Term:
    """LayerNorm; without weights it only normalizes."""
    scale = weight.constant if isinstance(weight, Known) else np.ones(x.width, np.float32)
    shift = bias.constant if isinstance(bias, Known) else np.zeros(x.width, np.float32)
    about = {"weight": scale.reshape(-1), "bias": shift.reshape(-1), "epsilon": float(f"{epsilon:.6g}")}
    return Term(Norm, (x,), x.shape, node, about)
