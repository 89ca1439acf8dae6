"""Operators that onnxruntime's optimizers put in the place of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..operations import Add, Linear
from .context import Context, Value
from .operators import constant_sum, gemm
from .pieces import (
    attend,
    biased,
    layer_norm,
    linear,
    masked,
    pointwise,
    probabilities,
    row_wise,
    scores,
    vector,
    weighted,
)
from .session import called
from .values import Data, Known, NotUnderstoodError, Term, whole

__all__ = ["FUSED", "FUSED_DOMAIN"]

FUSED_DOMAIN = ("com.microsoft",)

Given = Sequence[Value | None]


def _data(value: Value | None) -> Data:
    if not isinstance(value, Data):
        raise NotUnderstoodError("a constant where data is expected")
    return value


def _absent(given: Given, places: Sequence[int], what: str) -> None:
    for place in places:
        if len(given) > place and given[place] is not None:
            raise NotUnderstoodError(what)


def _activated(r: Context, node: Any, given: Given) -> list[Value | None]:
    """BiasGelu, FastGelu: a bias, then the function."""
    x, *bias = given
    data = _data(x)
    if bias and bias[0] is not None:
        shift = vector(data, bias[0]) if isinstance(bias[0], Known) else None
        if shift is None or data.term.kind is not Linear or not data.plain:
            raise NotUnderstoodError("a bias of something else than a linear layer")
        data = biased(data, shift)
    return [pointwise(r, _alone(r, node), [data])]


def _alone(r: Context, node: Any) -> Any:
    """The function without its bias."""
    helper = r.session.onnx.helper
    kind = {"BiasGelu": "Gelu"}.get(node.op_type, node.op_type)
    alone = helper.make_node(kind, node.input[:1], node.output, name=node.name, domain=node.domain)
    alone.attribute.extend(node.attribute)
    return alone


def _norm(node: Any, x: Term, weight: Value | None, bias: Value | None, epsilon: float) -> Data:
    return whole(layer_norm(x, weight, bias, epsilon, called(node)), (1, *x.shape))


def _skip_norm(r: Context, node: Any, given: Given) -> list[Value | None]:
    """A sum and its LayerNorm; the sum goes on as the fourth result."""
    x, skip, weight, bias, shift = (*given, *[None] * 5)[:5]
    about = r.session.attributes(node)
    data, other = _data(x), skip
    if isinstance(shift, Known):
        array = vector(data, shift)
        side = data if array is not None and data.term.kind is Linear else _data(other)
        array = vector(side, shift)
        if array is None or side.term.kind is not Linear:
            raise NotUnderstoodError("a bias of something else than a linear layer")
        moved = biased(side, array)
        data, other = (moved, other) if side is data else (data, moved)
    one = r.settle(data)
    if isinstance(other, Known):
        total = r.settle(constant_sum(r, node, data, other))
    else:
        total = Term(Add, (one, r.settle(other)), one.shape, called(node))
        if total.inputs[0].shape != total.inputs[1].shape:
            raise NotUnderstoodError("a sum of values of different shapes")
    normed = _norm(node, total, weight, bias, about.get("epsilon", 1e-12))
    return [normed, None, None, whole(total, (1, *total.shape))]


def _embedding(r: Context, node: Any, given: Given) -> list[Value | None]:
    """EmbedLayerNormalization: the sum of all embeddings and its LayerNorm."""
    ids, types, words, places, segments, weight, bias, _, chosen = (*given, *[None] * 9)[:9]
    if not isinstance(ids, Known) or not isinstance(words, Known) or not isinstance(places, Known):
        raise NotUnderstoodError("embeddings of something else than token ids")
    name = called(node)
    tokens = ids.array.size
    index = [*node.input, *[""] * 9]
    total = r.settle(r.embed(words.constant, ids, index[0], name))
    position = chosen if isinstance(chosen, Known) else Known(np.arange(tokens))
    parts = [r.embed(places.constant, position, index[8], name)]
    if isinstance(segments, Known):
        rows = types if isinstance(types, Known) else Known(np.zeros(tokens, np.int64))
        parts.append(r.embed(segments.constant, rows, index[1], name))
    for part in parts:
        total = Term(Add, (total, r.settle(part)), total.shape, name)
    epsilon = r.session.attributes(node).get("epsilon", 1e-12)
    about = r.session.attributes(node)
    counted = Known(np.array([tokens]), frozenset({"shape"}))  # the number of tokens that are no padding
    second: Value = whole(total, (1, *total.shape)) if about.get("mask_index_type", 1) == 0 else counted
    return [_norm(node, total, weight, bias, epsilon), second, whole(total, (1, *total.shape))]


def _no_padding(r: Context, mask: Value | None, tokens: int) -> None:
    """Check that a mask of a text without padding masks nothing."""
    if mask is None:
        return
    if not isinstance(mask, Known):
        raise NotUnderstoodError("a mask that depends on data")
    array = mask.array.reshape(-1)
    lengths = mask.array.ndim == 1 and set(array.tolist()) <= {0, tokens} and array.max() == tokens
    if not lengths and not (mask.array.ndim > 1 and (array == 1).all()):
        raise NotUnderstoodError("a mask of a text without padding that is not empty")


def _split(data: Data, heads: int) -> Data:
    """(1, tokens, width) as (1, heads, tokens, size)."""
    return data.moved(data.index.reshape(1, data.index.shape[-2], heads, -1).swapaxes(1, 2))


def _packed(r: Context, node: Any, given: Given) -> list[Value | None]:
    """Attention: one product for query, key and value, then attention."""
    x, weight, bias, mask, _, added = (*given, *[None] * 6)[:6]
    about = r.session.attributes(node)
    _absent(given, [4, 6], "attention with earlier keys")
    if not isinstance(weight, Known) or about.get("do_rotary", 0):
        raise NotUnderstoodError("weights that depend on data, or a rotation")
    data = _data(x)
    sizes = about.get("qkv_hidden_sizes") or [weight.array.shape[1] // 3] * 3
    shift = bias.constant if isinstance(bias, Known) else np.zeros(weight.array.shape[1], np.float32)
    ends = np.cumsum(sizes)
    term, split = r.settle(data), []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        array = np.ascontiguousarray(weight.constant[:, begin:end].T)
        part = Term(
            Linear, (term,), (term.rows, int(end - begin)), called(node), {"weight": array, "bias": shift[begin:end]}
        )
        split.append(_split(whole(part, (1, *part.shape)), about["num_heads"]))
    _no_padding(r, mask, term.rows)
    found = attend(
        r, split, added, about.get("scale") or None, called(node), causal=bool(about.get("unidirectional", 0))
    )
    return [whole(found.term, r.shapes[node.output[0]])]


def _multi_head(r: Context, node: Any, given: Given) -> list[Value | None]:
    """MultiHeadAttention: from query, key and value; their biases at once."""
    query, key, value, bias, mask, added = (*given, *[None] * 6)[:6]
    about = r.session.attributes(node)
    _absent(given, range(6, 10), "attention with earlier keys")
    parts = [_data(query), _data(key), _data(value)]
    if any(p.index.ndim not in (3, 4) for p in parts):
        raise NotUnderstoodError("packed query, key and value")
    if isinstance(bias, Known):
        cut = np.split(bias.constant.reshape(-1), np.cumsum([p.term.width for p in parts])[:-1])
        parts = [row_wise(r, p, c, called(node)) for p, c in zip(parts, cut, strict=True)]
    split = [_split(p, about["num_heads"]) if p.index.ndim == 3 else p for p in parts]
    _no_padding(r, mask, split[0].index.shape[2])
    found = attend(
        r, split, added, about.get("scale") or None, called(node), causal=bool(about.get("unidirectional", 0))
    )
    return [whole(found.term, r.shapes[node.output[0]])]


def _product(r: Context, node: Any, given: Given) -> list[Value | None]:
    """FusedMatMul: a product of transposed values, times a number."""
    about = r.session.attributes(node)
    a, b = given
    if about.get("transBatchA", 0) or about.get("transBatchB", 0):
        raise NotUnderstoodError("a product over transposed batches")
    number = np.float32(about.get("alpha", 1.0))
    one = _data(a)
    one = one.moved(one.index.swapaxes(-1, -2)) if about.get("transA", 0) else one
    if isinstance(b, Known):
        array = b.constant.swapaxes(-1, -2) if about.get("transB", 0) else b.constant
        return [linear(r, node, one, array * number)]
    other = _data(b)
    other = other.moved(other.index.swapaxes(-1, -2)) if about.get("transB", 0) else other
    if one.term.kind == "probabilities":
        if number != 1:
            raise NotUnderstoodError("attention's probabilities times a number")
        return [weighted(r, one, other, called(node))]
    found = scores(r, one, other, called(node))
    return [Data(found.term, found.index, found.function * number)]


def _bias_softmax(r: Context, node: Any, given: Given) -> list[Value | None]:
    x, mask = given
    if not isinstance(mask, Known):
        raise NotUnderstoodError("a mask that depends on data")
    return [probabilities(r, masked(_data(x), mask, mask.array), called(node))]


def _gemm(r: Context, node: Any, given: Given) -> list[Value | None]:
    """FusedGemm: a linear layer and its activation function."""
    found = gemm(r, node, given)
    about = r.session.attributes(node)
    kind = about.get("activation", b"")
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if not kind:
        return [found]
    alone = r.session.onnx.helper.make_node(kind, ["x"], node.output, name=node.name)
    return [pointwise(r, alone, [found])]


FUSED: Mapping[str, Callable[[Context, Any, Given], list[Value | None]]] = {
    "BiasGelu": _activated, "FastGelu": _activated, "SkipLayerNormalization": _skip_norm,
    "EmbedLayerNormalization": _embedding, "Attention": _packed, "MultiHeadAttention": _multi_head,
    "FusedMatMul": _product, "BiasSoftmax": _bias_softmax, "FusedGemm": _gemm,
}  # fmt: skip
"""What each gives, by operator."""
