"""What an encoder's ONNX graph computes, in the terms of encoders: linear layers, LayerNorms, attention.

Every intermediate value is known for one sample input (onnxruntime gives them all), so that arithmetic on shapes and
masks needs no understanding; each operator that touches data must be understood, or is named in an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import inside

__all__ = ["Graph", "Value", "read_graph"]


@dataclass(frozen=True, eq=False)
class Value:
    """One meaning.

    Attributes
    ----------
    op : str
        ``known`` (does not depend on data: weights, shapes, masks), ``ids``, ``pixels``, ``embedding``, ``patches``,
        ``tokens`` (class tokens before patches), ``product``, ``linear``, ``norm``, ``sum``, ``gelu``, ``relu``,
        ``context`` (of query, key and value), ``first`` (token), or a step on the way to one of them.
    inputs : data it is made of
    arrays : its weights
    number : float
        A factor, the number of heads, or a LayerNorm's epsilon.
    origin : names of the graph's inputs that a ``known`` value was computed from
    """

    op: str
    inputs: tuple[Value, ...] = ()
    arrays: tuple[NDArray, ...] = ()
    number: float = 1.0
    origin: frozenset[str] = frozenset()

    @property
    def array(self) -> NDArray:
        """The only array."""
        return self.arrays[0]


@dataclass(frozen=True)
class Graph:
    """One output of a graph.

    Attributes
    ----------
    output : Value
    result : its value for the sample
    sample : the inputs' values
    left_out : names of the other outputs
    half : bool
        It has weights in float16, and so computes in it.
    """

    output: Value
    result: NDArray
    sample: dict[str, NDArray]
    left_out: list[str]
    half: bool


_HALF = 1e-3
"""How near a constant in float16 is to what it stands for, at least."""

Sample = Callable[[dict[str, tuple[int | None, ...]]], dict[str, NDArray]]
_Handler = Callable[["_Reader", Any, list[Value]], Value | None]


def read_graph(path: Path, sample: Sample, output: Callable[[list[str]], str]) -> Graph:
    """Read what leads to one output of a graph.

    Parameters
    ----------
    sample : function
        Gives a value to every input, from the inputs' names and shapes (None where free).
    output : function
        Chooses among the outputs' names.

    Raises
    ------
    InputError
        If onnx is not installed, the file cannot be read or run, or an operator is not understood: it is named, with
        its node.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise InputError("onnx is not installed; pip install 'sta-hw[onnx]' brings it and onnxruntime.") from None
    try:
        model = onnx.load(str(path), load_external_data=False)
        for place in _external_files(model):
            inside(path.parent, place, f"{path}")
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} is not an ONNX model: {(str(error).splitlines() or ['?'])[0]}") from error
    initial = {i.name for i in model.graph.initializer}
    shapes = {
        i.name: tuple(d.dim_value or None for d in i.type.tensor_type.shape.dim)
        for i in model.graph.input
        if i.name not in initial
    }
    kinds = {i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in model.graph.input}
    inputs = {name: value.astype(kinds[name]) for name, value in sample(shapes).items()}
    wanted = [o.name for o in model.graph.output]
    chosen = output(wanted)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = dict(zip(names, session.run(names, inputs), strict=True))
    except Exception as error:
        raise InputError(f"{path}: onnxruntime cannot run it: {str(error).splitlines()[0]}") from error
    reader = _Reader(values | inputs)
    for tensor in model.graph.initializer:
        reader.meaning[tensor.name] = Value("known", arrays=(onnx.numpy_helper.to_array(tensor),))
    for name, value in inputs.items():
        kind = {"input_ids": "ids", "pixel_values": "pixels"}.get(name, "known")
        reader.meaning[name] = Value(kind, arrays=(value,), origin=frozenset({name}))
    needed = {chosen}
    for node in reversed(model.graph.node):  # in topological order, which the checker saw to
        if needed.intersection(node.output):
            needed.update(node.input)
    for node in model.graph.node:
        if needed.intersection(node.output):
            reader.read(node, onnx.helper.get_attribute_value)
    half = any(i.data_type == onnx.TensorProto.FLOAT16 for i in model.graph.initializer)
    return Graph(reader.meaning[chosen], values[chosen], inputs, [n for n in wanted if n != chosen], half)


def _external_files(message: Any) -> Iterator[str]:
    """Names of the files in which tensors of a model lie, wherever in it a tensor stands."""
    for field, value in message.ListFields():
        if field.name == "external_data":
            yield from (entry.value for entry in value if entry.key == "location")
        elif field.message_type is not None:
            parts = value if hasattr(value, "__len__") else [value]  # repeated, or one
            for part in parts:
                yield from _external_files(part)


class _Reader:
    """Meanings so far, by the tensors' names."""

    def __init__(self, values: dict[str, NDArray]) -> None:
        self.values = values
        self.meaning: dict[str, Value] = {}
        self.attributes: dict[str, Any] = {}
        self.result: NDArray = np.zeros(0)

    def read(self, node: Any, attribute: Callable[[Any], Any]) -> None:
        """Give a node's outputs a meaning."""
        inputs = [self.meaning[name] if name else Value("known", arrays=(np.zeros(0),)) for name in node.input]
        self.attributes = {a.name: attribute(a) for a in node.attribute}
        self.result = self.values[node.output[0]]
        found: Value | None
        if node.op_type == "Shape" or all(v.op == "known" for v in inputs):
            found = self.known(node.op_type, inputs)
        else:
            handler = _HANDLERS.get(node.op_type)
            found = handler(self, node, inputs) if handler else None
        if found is None:
            given = ", ".join(v.op for v in inputs)
            raise InputError(
                f"operator {node.op_type} of node {node.name or node.output[0]!r} is not supported here (on {given}); "
                "an encoder of the BERT or ViT family is made of linear layers, LayerNorm, attention, GELU or ReLU."
            )
        for name in node.output:
            self.meaning[name] = found

    def known(self, op: str, inputs: list[Value]) -> Value:
        """What does not depend on data; rows of a table are an embedding."""
        origin = frozenset() if op == "Shape" else frozenset().union(*(v.origin for v in inputs))
        table = inputs[0].arrays[0] if op == "Gather" else np.zeros(0)
        if op == "Gather" and table.ndim == 2 and self.result.ndim == 3 and self.attributes.get("axis", 0) == 0:
            return Value("embedding", (Value("known", arrays=inputs[1].arrays, origin=origin),), (table,))
        return Value("known", arrays=(self.result,), origin=origin)

    def scalar(self, value: Value) -> float | None:
        """The number a value is, if it is one."""
        return float(value.array.reshape(-1)[0]) if value.op == "known" and value.array.size == 1 else None

    def vector(self, value: Value) -> bool:
        """Whether a value is one weight per channel."""
        return value.op == "known" and value.array.size == self.result.shape[-1] and value.array.ndim <= 3


def _pass(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    return inputs[0]


def _gather(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    source, index = inputs
    axis = r.attributes.get("axis", 0)
    if source.op == "known" and index.op == "ids" and axis == 0:
        return Value("embedding", (index,), source.arrays)
    if source.op in ("norm", "sum") and axis == 1 and r.scalar(index) == 0:
        return Value("first", (source,))
    return None


def _slice(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    """Only the first token, kept as an axis."""
    source, *bounds = inputs
    whole = [v.array.reshape(-1).tolist() for v in bounds]
    if source.op in ("norm", "sum") and len(whole) > 2 and (whole[0], whole[1], whole[2]) == ([0], [1], [1]):
        return Value("first", (source,))
    # A slice that takes everything changes nothing.
    return source if source.op in ("norm", "sum") and r.result.shape == r.values[node.input[0]].shape else None


def _matmul(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, b = inputs
    if b.op == "known" and b.array.ndim == 2:
        return Value("product", (a,), (b.array.T,))
    if a.op == "heads" and b.op == "keys":
        return Value("scores", (a.inputs[0], b.inputs[0]), number=a.number * b.number)
    if a.op == "probabilities" and b.op == "heads" and b.number == 1.0:
        return Value("weighted", (*a.inputs, b.inputs[0]), number=a.number)
    return None


def _gemm(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    x, weight, *bias = inputs
    get = r.attributes.get
    if weight.op != "known" or get("alpha", 1.0) != 1.0 or get("beta", 1.0) != 1.0 or get("transA", 0):
        return None
    array = weight.array if get("transB", 0) else weight.array.T
    return Value("linear", (x,), (array, bias[0].array if bias else np.zeros(len(array), np.float32)))


def _add(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, b = inputs if inputs[1].op == "known" else inputs[::-1]
    if b.op != "known":
        return Value("sum", (a, b))
    if a.op == "product" and r.vector(b):
        return Value("linear", a.inputs, (a.array, b.array.reshape(-1)))
    if a.op == "scaled" and r.vector(b):
        return Value("norm", a.inputs, (a.array.reshape(-1), b.array.reshape(-1)), a.number)
    if a.op == "variance" and (epsilon := r.scalar(b)) is not None and 0 <= epsilon < 0.1:
        return Value("variance", a.inputs, number=epsilon)
    if a.op == "erf" and r.scalar(b) == 1.0:
        return Value("erf1", a.inputs)
    if a.op == "scores" and not np.any(b.array):  # the mask, when nothing is masked
        return a
    if a.op in ("tokens", "patches") and b.array.ndim == 3:
        return Value("embedded", (a,), (b.array[0],))
    if a.op in ("embedding", "sum") and b.array.ndim in (2, 3) and b.array.shape[-1] == r.result.shape[-1]:
        return Value("sum", (a, Value("embedding", (Value("known", arrays=b.arrays),), (b.array,), number=0.0)))
    return None


def _times(r: _Reader, a: Value, factor: float) -> Value | None:
    if a.op == "twice" and math.isclose(factor, 0.5, rel_tol=1e-4):
        return Value("gelu", a.inputs)
    if a.op in ("scores", "heads", "keys"):
        return Value(a.op, a.inputs, number=a.number * factor)
    return Value("times", (a,), number=factor) if a.op in ("linear", "times") else None


def _mul(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, b = inputs
    for x, y in ((a, b), (b, a)):
        if (factor := r.scalar(y)) is not None:
            return _times(r, x, factor)
        if x.op == "normalized" and r.vector(y):
            return Value("scaled", x.inputs, y.arrays, x.number)
        if y.op == "erf1" and x is y.inputs[0]:
            return Value("twice", (x,))
        if y.op == "erf1" and x.op == "times" and x.inputs[0] is y.inputs[0] and math.isclose(x.number, 0.5):
            return Value("gelu", x.inputs)
    return Value("squares", a.inputs) if a.op == "centred" and a is b else None


def _div(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, b = inputs
    if (factor := r.scalar(b)) is not None:
        return _times(r, a, 1 / factor)
    if a.op == "centred" and b.op == "deviation" and a.inputs[0] is b.inputs[0]:
        return Value("normalized", a.inputs, number=b.number)
    return None


def _sub(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, b = inputs
    return Value("centred", (a,)) if b.op == "mean" and b.inputs[0] is a else None


def _mean(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    axes = r.attributes.get("axes") or (inputs[1].array.tolist() if len(inputs) > 1 else None)
    if axes not in ([-1], [2]):
        return None
    return Value("variance", inputs[0].inputs, number=0.0) if inputs[0].op == "squares" else Value("mean", (inputs[0],))


def _pow(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    return Value("squares", inputs[0].inputs) if inputs[0].op == "centred" and r.scalar(inputs[1]) == 2.0 else None


def _sqrt(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    return Value("deviation", inputs[0].inputs, number=inputs[0].number) if inputs[0].op == "variance" else None


def _erf(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    x = inputs[0]
    return Value("erf", x.inputs) if x.op == "times" and math.isclose(x.number, 0.5**0.5, rel_tol=_HALF) else None


def _gelu(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    exact = r.attributes.get("approximate", b"none") in (b"none", "none")
    return Value("gelu", (inputs[0],)) if exact else None


def _norm(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    if r.attributes.get("axis", -1) not in (-1, 2) or any(v.op != "known" for v in inputs[1:]):
        return None
    scale, epsilon = inputs[1].array, float(r.attributes.get("epsilon", 1e-5))
    shift = inputs[2].array if len(inputs) > 2 else np.zeros_like(scale)
    return Value("norm", (inputs[0],), (scale, shift), epsilon)


def _reshape(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, shape = inputs[0], r.result.shape
    if shape == r.values[node.input[0]].shape:
        return a
    if a.op == "linear" and len(shape) == 4 and shape[0] == 1:
        return Value("split", (a,), number=shape[2])
    if a.op == "merged" and len(shape) == 3:
        return Value("context", a.inputs, number=a.number)
    return a if a.op in ("conv", "first") else None


def _transpose(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    a, perm = inputs[0], list(r.attributes.get("perm", []))
    moves = {
        ("split", (0, 2, 1, 3)): "heads", ("split", (0, 2, 3, 1)): "keys", ("heads", (0, 1, 3, 2)): "keys",
        ("weighted", (0, 2, 1, 3)): "merged", ("conv", (0, 2, 1)): "patches",
    }  # fmt: skip
    op = moves.get((a.op, tuple(perm)))
    if op is None:
        return None
    if op in ("heads", "keys"):
        return Value(op, (a if a.op == "split" else a.inputs[0],), number=a.number if a.op == "heads" else 1.0)
    return Value(op, a.inputs, a.arrays, a.number)


def _softmax(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    last = r.attributes.get("axis", -1) in (-1, 3)
    return (
        Value("probabilities", inputs[0].inputs, number=inputs[0].number) if inputs[0].op == "scores" and last else None
    )


def _where(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    """Newer exports put zeros where the softmax of a masked row is not a number."""
    if inputs[0].op == "isnan" and inputs[2].op == "probabilities" and r.scalar(inputs[1]) == 0.0:
        return inputs[2]
    return None


def _isnan(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    return Value("isnan") if inputs[0].op == "probabilities" else None


def _conv(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    x, weight, *bias = inputs
    size, get = list(weight.array.shape[2:]), r.attributes.get
    plain = get("strides") == size and not any(get("pads", [0])) and get("group", 1) == 1
    if x.op != "pixels" or not plain:
        return None
    return Value("conv", (x,), (weight.array, bias[0].array if bias else np.zeros(len(weight.array), np.float32)))


def _concat(r: _Reader, node: Any, inputs: list[Value]) -> Value | None:
    *tokens, patches = inputs
    if r.attributes.get("axis") != 1 or patches.op != "patches" or any(t.op != "known" for t in tokens):
        return None
    return Value("tokens", (patches,), tuple(t.array.reshape(1, -1) for t in tokens))


_HANDLERS: dict[str, _Handler] = {
    "Identity": _pass, "Cast": _pass, "Dropout": _pass, "Gather": _gather, "Slice": _slice, "MatMul": _matmul,
    "Gemm": _gemm, "Add": _add, "Mul": _mul, "Div": _div, "Sub": _sub, "ReduceMean": _mean, "Pow": _pow,
    "Sqrt": _sqrt, "Erf": _erf, "Gelu": _gelu, "LayerNormalization": _norm, "Reshape": _reshape, "Flatten": _reshape,
    "Squeeze": _reshape, "Transpose": _transpose, "Softmax": _softmax, "Where": _where, "IsNaN": _isnan,
    "Conv": _conv, "Concat": _concat,
    "Relu": lambda r, node, inputs: Value("relu", (inputs[0],)) if inputs[0].op == "linear" else None,
}  # fmt: skip
