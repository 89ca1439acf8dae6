"""What each of ONNX's own operators gives that is more than a function of each element, or a move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..operations import Add, Convolution, Input, Normalize, Prepend
from .context import Context, Value, table_of
from .pieces import (
    attend,
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
from .values import ARGUMENTS, Data, Known, NotUnderstoodError, Term, whole

__all__ = ["OPERATORS", "constant_sum", "gemm"]


def _data(value: Value | None, what: str) -> Data:
    """What depends on the graph's input; anything else in its place is refused by name."""
    if not isinstance(value, Data):
        raise NotUnderstoodError(f"{what} that does not depend on the input")
    return value


def _add(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    first, b = given if isinstance(given[0], Data) else given[::-1]
    a = _data(first, "a sum")
    if isinstance(b, Known):
        if a.term.kind == "scores":
            return masked(a, b, b.array)
        if (shift := vector(a, b)) is not None:
            return row_wise(r, a, shift, called(node))
        if b.number is not None and b.array.size == 1:
            return pointwise(r, node, given)
        return constant_sum(r, node, a, b)
    b = _data(b, "a part of a sum")
    if a.term is b.term and np.array_equal(a.index, b.index):
        return pointwise(r, node, given)
    one, other = r.settle(a), r.settle(b)
    if "table" in (one.kind, other.kind) and one.kind != other.kind:
        one, other = (one, other) if other.kind == "table" else (other, one)
    if one.shape != other.shape:
        raise NotUnderstoodError(f"a sum of values of shapes {one.shape} and {other.shape}")
    return whole(Term(Add, (one, other), one.shape, called(node)), r.shapes[node.output[0]])


def constant_sum(r: Context, node: Any, a: Data, b: Known) -> Value:
    """Constants added to all tokens' values: positions, or the same row for all."""
    term = r.settle(a)
    array = np.broadcast_to(b.array, r.shapes[node.output[0]]).reshape(-1, term.width)
    if len(array) != term.rows:
        raise NotUnderstoodError("a sum with a constant of another shape")
    if (array == array[0]).all():
        rows = table_of(array[:1], called(node), term.rows, rows="first")
    elif b.origin:
        raise NotUnderstoodError(f"a sum with numbers that depend on {' and '.join(sorted(b.origin))}")
    else:
        rows = table_of(array, called(node), term.rows, rows="position")
    return whole(Term(Add, (term, rows), term.shape, called(node)), r.shapes[node.output[0]])


def _multiply(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    a, b = given
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Data) and isinstance(y, Known):
            if x.term.kind == "normalized" and (scale := vector(x, y)) is not None:
                about = {**x.term.attributes, "weight": scale}
                return whole(Term("scaled", x.term.inputs, x.term.shape, x.term.node, about), x.index.shape)
            return pointwise(r, node, given)
        if isinstance(x, Data) and isinstance(y, Data) and (found := _quotient(r, node, x, y, inverse=True)):
            return found
    return pointwise(r, node, given)


def _divide(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    a, b = given
    if isinstance(a, Data) and isinstance(b, Data) and (found := _quotient(r, node, a, b, inverse=False)):
        return found
    return pointwise(r, node, given)


def _quotient(r: Context, node: Any, a: Data, b: Data, *, inverse: bool) -> Value | None:
    """LayerNorm's division by the deviation, and the division by a length; inverse: the product with one over it."""
    if b.term.kind not in ("variance", "squared length"):
        return None
    with np.errstate(all="ignore"):
        squared = (1 / b.function if inverse else b.function).astype(np.float64) ** 2
    large = ARGUMENTS > 0.5
    begin = float(squared[len(ARGUMENTS) // 2])
    if not np.allclose(squared[large], ARGUMENTS[large] + begin, rtol=2e-3 if r.half else 1e-5):
        raise NotUnderstoodError(f"a division by a function of the {b.term.kind} that is not its root")
    if not _row_by_row(a, b) or not a.plain:
        raise NotUnderstoodError("rows divided by what belongs to others")
    if b.term.kind == "squared length" and r.settle(a) is b.term.inputs[0]:
        if b.term.inputs[0].rows > 1:
            raise NotUnderstoodError("every token's output scaled to length 1")
        return whole(Term(Normalize, b.term.inputs, b.term.inputs[0].shape, called(node)), a.index.shape)
    if b.term.kind == "variance" and a.term.kind == "centred" and a.term.inputs[0] is b.term.inputs[0]:
        about = {"epsilon": float(f"{begin:.6g}")}
        return whole(Term("normalized", b.term.inputs, a.term.shape, called(node), about), a.index.shape)
    return None


def _row_by_row(a: Data, b: Data) -> bool:
    """Whether every row of `a` meets its own of the numbers in `b`."""
    places = np.arange(a.index.size).reshape(a.index.shape) // a.index.shape[-1]
    return np.array_equal(np.broadcast_to(b.index, a.index.shape), places)


def _subtract(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    a, b = given
    if isinstance(a, Data) and isinstance(b, Data) and b.term.kind == "row mean" and b.plain:
        term = r.settle(a)
        if b.term.inputs[0] is term and _row_by_row(a, b):
            return whole(Term("centred", (term,), term.shape, called(node)), a.index.shape)
    return pointwise(r, node, given)


def _matmul(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    a, b = given
    if isinstance(a, Data) and isinstance(b, Known):
        return linear(r, node, a, b.constant)
    if isinstance(a, Data) and isinstance(b, Data):
        if a.term.kind == "probabilities":
            return weighted(r, a, b, called(node))
        return scores(r, a, b, called(node))
    raise NotUnderstoodError("a product of a constant with data")


def _bias(given: Sequence[Value | None]) -> NDArray | None:
    """What is added to a product's results, if anything is."""
    if not given or given[0] is None:
        return None
    if not isinstance(given[0], Known):
        raise NotUnderstoodError("a bias that depends on data")
    return given[0].constant


def gemm(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    """Gemm: `alpha` x W + `beta` b, either transposed; W, b are known."""
    about = r.session.attributes(node)
    x, weight, *bias = given
    if not isinstance(x, Data) or not isinstance(weight, Known):
        raise NotUnderstoodError("a product of data")
    shift = _bias(bias)
    x = x.moved(x.index.T) if about.get("transA", 0) else x
    array = weight.constant.T if about.get("transB", 0) else weight.constant
    alpha, beta = (np.float32(about.get(n, 1.0)) for n in ("alpha", "beta"))
    return linear(r, node, x, array * alpha, None if shift is None else shift * beta)


def _norm(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    about = r.session.attributes(node)
    first, *arrays = given
    x = _data(first, "LayerNorm of a value")
    if about.get("axis", -1) not in (-1, x.index.ndim - 1):
        raise NotUnderstoodError("LayerNorm over several axes")
    epsilon = about.get("epsilon", 1e-5)
    term = layer_norm(r.settle(x), arrays[0], arrays[1] if len(arrays) > 1 else None, epsilon, called(node))
    return whole(term, r.shapes[node.output[0]])


def _softmax(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    x = _data(given[0], "softmax of a value")
    axis = r.session.attributes(node).get("axis", -1 if r.session.opset >= 13 else 1)
    if axis not in (-1, x.index.ndim - 1):
        raise NotUnderstoodError("softmax over another axis than that of the keys")
    return probabilities(r, x, called(node))


def _where(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    condition, yes, no = given
    if isinstance(condition, Data):
        if condition.term.kind == "is nan" and isinstance(no, Data) and no.term is condition.term.inputs[0]:
            return no  # There is none, where nothing is masked.
        raise NotUnderstoodError("a condition that depends on data")
    if not isinstance(condition, Known):
        raise NotUnderstoodError("a choice without a condition")
    for data, other, taken in ((yes, no, condition.array), (no, yes, ~condition.array)):
        if not isinstance(data, Data) or not isinstance(other, Known):
            continue
        if data.term.kind == "scores":
            return masked(data, condition, np.where(taken, 0.0, other.array))
        if taken.all():
            return data.moved(np.broadcast_to(data.index, r.shapes[node.output[0]]))
    raise NotUnderstoodError("a choice between values")


def _isnan(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    x = _data(given[0], "a test of a value")
    return Data(Term("is nan", (x.term,), x.term.shape, called(node)), x.index)


def _conv(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    x, weight, *bias = given
    if not isinstance(x, Data) or not isinstance(weight, Known):
        raise NotUnderstoodError("a kernel that depends on data")
    shift = _bias(bias)
    about = r.session.attributes(node)
    kernel = weight.constant
    sizes = kernel.ndim - 2
    pads = list(about.get("pads", [0] * 2 * sizes))
    plain = set(about.get("dilations", [1])) == {1} and about.get("group", 1) == 1
    if not plain or about.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET") or pads[:sizes] != pads[sizes:]:
        raise NotUnderstoodError("a convolution with groups, dilation, or padding that differs from side to side")
    if len(x.index) != 1 or x.index.ndim != kernel.ndim:
        raise NotUnderstoodError("a convolution of several images")
    moved = np.moveaxis(x.index[0], 0, -1)
    source = x.term
    if source.kind is not Input or not np.array_equal(moved.reshape(-1), np.arange(moved.size)) or not x.plain:
        source = r.settle(x, moved.reshape(-1, moved.shape[-1]))
    if shift is None:
        shift = np.zeros(len(kernel), np.float32)
    result = r.shapes[node.output[0]]
    shape = (int(np.prod(result[2:])), result[1])
    strides = tuple(about.get("strides", [1] * sizes))
    term = Term(
        Convolution, (source,), shape, called(node),
        {"weight": kernel, "bias": shift, "stride": strides, "padding": tuple(pads[:sizes])},
    )  # fmt: skip
    ordered = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(*result[2:], result[1])
    return Data(term, np.moveaxis(ordered, -1, 0)[None])


def _concat(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    """Class tokens ahead of patches."""
    axis = r.session.attributes(node).get("axis")
    *ahead, last = given
    if axis in (1, -2) and isinstance(last, Data) and ahead and all(isinstance(v, Known) for v in ahead):
        term = r.settle(last)
        if len(last.index) == 1 and last.index.shape[-1] == term.width:
            rows = np.concatenate([v.array.reshape(-1, term.width) for v in ahead if isinstance(v, Known)])
            found = Term(Prepend, (term,), (len(rows) + term.rows, term.width), called(node), {"rows": rows})
            return whole(found, r.shapes[node.output[0]])
    parts = [v for v in given if isinstance(v, Data)]
    same = all(v.term is parts[0].term and np.array_equal(v.function, parts[0].function) for v in parts)
    if len(parts) < len(given) or not same:
        raise NotUnderstoodError("values side by side")
    return parts[0].moved(r.session.apply(node, [v.index for v in parts])[0])


def _normalize(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    about = r.session.attributes(node)
    x = _data(given[0], "a length of a value")
    term = r.settle(x)
    if about.get("p", 2) != 2 or about.get("axis", -1) not in (-1, x.index.ndim - 1) or term.rows > 1:
        raise NotUnderstoodError("a length other than the Euclidean one of a pooled value")
    return whole(Term(Normalize, (term,), term.shape, called(node)), x.index.shape)


def _attention(r: Context, node: Any, given: Sequence[Value | None]) -> Value:
    """ONNX's own, of version 23."""
    about = r.session.attributes(node)
    if about.get("softcap", 0.0) or any(v is not None for v in given[4:]):
        raise NotUnderstoodError("attention with earlier keys, or limited scores")
    split = []
    for value, heads in zip(given[:3], ("q_num_heads", "kv_num_heads", "kv_num_heads"), strict=True):
        if not isinstance(value, Data):
            raise NotUnderstoodError("a constant where data is expected")
        index = value.index
        if index.ndim == 3:
            index = index.reshape(*index.shape[:2], about[heads], -1).swapaxes(1, 2)
        split.append(value.moved(index))
    mask = given[3] if len(given) > 3 else None
    found = attend(r, split, mask, about.get("scale"), called(node), causal=bool(about.get("is_causal", 0)))
    return found if len(r.shapes[node.output[0]]) == 4 else whole(found.term, r.shapes[node.output[0]])


OPERATORS: Mapping[str, Callable[[Context, Any, Sequence[Value | None]], Value]] = {
    "Add": _add, "Mul": _multiply, "Div": _divide, "Sub": _subtract, "MatMul": _matmul, "Gemm": gemm,
    "LayerNormalization": _norm, "Softmax": _softmax, "Where": _where, "IsNaN": _isnan, "Conv": _conv,
    "Concat": _concat, "LpNormalization": _normalize, "Attention": _attention,
}  # fmt: skip
