"""Encoders from ONNX: BERT and ViT graphs as Optimum and PyTorch export them, checked against onnxruntime."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError, InputError
from .bert import LINEAR_NAMES, BertModel
from .finite import require_finite
from .onnx_graph import Value, read_graph
from .vision import VISION_TENSORS, VisionModel

__all__ = ["Imported", "import_onnx"]

TOLERANCE = 1e-4
"""Of the imported model's fp32 outputs against onnxruntime's, relative to the largest."""
_HALF_TOLERANCE = 1e-2
"""The same where onnxruntime computes in float16: some twenty roundings in a row, of 5e-4 each."""
_TOKENS = 7
_OUTPUTS = ("last_hidden_state", "token_embeddings", "logits")
"""Of a text encoder, every token's; of an image classifier, the classes'."""


@dataclass(frozen=True)
class Imported:
    """An imported model.

    Attributes
    ----------
    model : BertModel or VisionModel
    left_out : list of str
        Outputs of the graph that it does not give, such as a pooler's.
    difference : float
        Largest difference from onnxruntime on a sample, relative to the largest value.
    """

    model: BertModel | VisionModel
    left_out: list[str]
    difference: float


def _sample(shapes: dict[str, tuple[int | None, ...]]) -> dict[str, NDArray]:
    """A sentence without padding, or an image of noise."""
    rng = np.random.default_rng(0)
    found: dict[str, NDArray] = {}
    for name, shape in shapes.items():
        if name == "pixel_values" and len(shape) == 4 and all(shape[1:]):
            found[name] = rng.normal(size=(1, *(s or 1 for s in shape[1:]))).astype(np.float32)
        elif name in ("input_ids", "attention_mask", "token_type_ids"):
            tokens = shape[1] if len(shape) > 1 and shape[1] else _TOKENS
            fill = {"input_ids": rng.integers(1, 20, (1, tokens)), "attention_mask": np.ones((1, tokens)),
                    "token_type_ids": np.zeros((1, tokens))}[name]  # fmt: skip
            found[name] = fill.astype(np.int64)
        else:
            raise InputError(
                f"graph input {name!r} of shape {shape} is unknown; an encoder takes input_ids, attention_mask and "
                "token_type_ids, or pixel_values of a fixed image size."
            )
    return found


def import_onnx(path: Path) -> Imported:
    """Import an encoder's ONNX graph.

    Raises
    ------
    InputError
        If the file cannot be read, an operator is not supported (it is named with its node), or the graph is no
        encoder of the BERT or ViT family; the message says where it stops being one. Or if a tensor holds NaN or
        infinity.
    CheckError
        If the imported model's output differs from onnxruntime's by more than `TOLERANCE`.
    """
    graph = read_graph(path, _sample, lambda names: _chosen(path, names))
    vision = "pixel_values" in graph.sample
    if vision and len(set(graph.sample["pixel_values"].shape[2:])) > 1:
        raise InputError(f"{path} takes images that are not square; import the checkpoint's folder in its place.")
    model: BertModel | VisionModel
    try:
        model = _vision(graph.output) if vision else _text(graph.output)
    except _UnlikeError as error:
        raise InputError(f"{path} is not an encoder of the {'ViT' if vision else 'BERT'} family: {error}.") from None
    encoder = model.encoder if isinstance(model, VisionModel) else model
    others = {n: getattr(model, n) for n in VISION_TENSORS} if isinstance(model, VisionModel) else {}
    require_finite(encoder.tensors | others, str(path))
    wanted = graph.result[0]
    if isinstance(model, VisionModel):
        found = model.logits(model.encoder.forward(model.embed(graph.sample["pixel_values"])[0])[1])
    else:
        found = model.forward(graph.sample["input_ids"][0].tolist())[0][-1]["output"]
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not difference < (_HALF_TOLERANCE if graph.half else TOLERANCE):
        raise CheckError(
            f"{path}: the imported model differs from onnxruntime by {difference:.2e} of the largest value."
        )
    return Imported(model, graph.left_out, difference)


def _chosen(path: Path, names: list[str]) -> str:
    for name in _OUTPUTS:
        if name in names:
            return name
    raise InputError(f"{path} has outputs {', '.join(names)}; one of {', '.join(_OUTPUTS)} is wanted.")


class _UnlikeError(Exception):
    """The graph is not what was expected."""


def _expect(value: Value, op: str, where: str) -> Value:
    if value.op != op:
        raise _UnlikeError(f"{where} is {value.op!r} where {op!r} is expected")
    return value


class _Layers:
    """Tensors collected from the last layer to the first."""

    def __init__(self) -> None:
        self.found: list[dict[str, NDArray]] = []
        self.heads = 0
        self.activation = ""
        self.epsilon: float | None = None

    def put(self, tensors: dict[str, NDArray], name: str, value: Value) -> None:
        """A linear layer's or LayerNorm's two arrays."""
        if value.op == "norm":
            if self.epsilon is not None and not math.isclose(self.epsilon, value.number, rel_tol=1e-2):
                raise _UnlikeError(f"LayerNorms have different epsilons, {self.epsilon:.3g} and {value.number:.3g}")
            self.epsilon = value.number
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (np.asarray(a, np.float32) for a in value.arrays)

    def feed_forward(self, tensors: dict[str, NDArray], value: Value, where: str) -> Value:
        """Second linear layer to the first one's input."""
        second = _expect(value, "linear", f"{where}'s second feed-forward product")
        hidden = second.inputs[0]
        if hidden.op not in ("gelu", "relu") or self.activation not in ("", hidden.op):
            raise _UnlikeError(
                f"{where}'s activation is {hidden.op!r}; gelu and relu are supported, one for all layers"
            )
        self.activation = hidden.op
        first = _expect(hidden.inputs[0], "linear", f"{where}'s first feed-forward product")
        self.put(tensors, LINEAR_NAMES[5], second)
        self.put(tensors, LINEAR_NAMES[4], first)
        return first.inputs[0]

    def attention(self, tensors: dict[str, NDArray], value: Value, where: str) -> Value:
        """Output projection to the input of query, key and value."""
        projection = _expect(value, "linear", f"{where}'s attention output")
        context = _expect(projection.inputs[0], "context", f"{where}'s attention")
        self.put(tensors, LINEAR_NAMES[3], projection)
        source: Value | None = None
        for name, split in zip(LINEAR_NAMES[:3], context.inputs, strict=True):
            linear = _expect(_expect(split, "split", f"{where}'s {name}").inputs[0], "linear", f"{where}'s {name}")
            self.put(tensors, name, linear)
            heads = int(split.number)
            if self.heads not in (0, heads):
                raise _UnlikeError(f"{where} has {heads} heads, another layer {self.heads}")
            self.heads = heads
            if source is not None and linear.inputs[0] is not source:
                raise _UnlikeError(f"{where}'s query, key and value have different inputs")
            source = linear.inputs[0]
        size = len(tensors[f"{LINEAR_NAMES[0]}.bias"]) // self.heads
        if not math.isclose(context.number, size**-0.5, rel_tol=1e-3):
            raise _UnlikeError(f"{where}'s scores are scaled by {context.number:.4g}, not by 1 / sqrt({size})")
        assert source is not None
        return source

    def branch(self, value: Value, stream: Value | None, where: str) -> tuple[Value, Value]:
        """A residual sum's computed side and the side that goes on; which is which the linear layer tells."""
        a, b = _expect(value, "sum", where).inputs
        if (stream is not None and a is stream) or a.op != "linear":
            a, b = b, a
        return a, b

    def model(self, tensors: dict[str, NDArray], *, norm_first: bool, pooling: str) -> BertModel:
        """All together."""
        for number, layer in enumerate(reversed(self.found)):
            tensors |= {f"encoder.layer.{number}.{name}": array for name, array in layer.items()}
        if not self.found:
            raise _UnlikeError("there is no encoder layer")
        intermediate, hidden = self.found[0][f"{LINEAR_NAMES[4]}.weight"].shape
        return BertModel(
            tensors, hidden, self.heads, len(self.found), intermediate, self.activation, norm_first, pooling,
            self.epsilon or 0.0,
        )  # fmt: skip


def _text(output: Value) -> BertModel:
    layers = _Layers()
    at = output
    while True:
        where = f"layer {len(layers.found)} from the end"
        _expect(at, "norm", where)
        total = _expect(at.inputs[0], "sum", f"the sum before the LayerNorm of {where}")
        if all(v.op != "linear" for v in total.inputs):
            break
        tensors: dict[str, NDArray] = {}
        layers.put(tensors, "output.LayerNorm", at)
        side, between = layers.branch(total, None, where)
        if layers.feed_forward(tensors, side, where) is not between:
            raise _UnlikeError(f"{where}'s feed-forward products and residual sum have different inputs")
        _expect(between, "norm", f"{where}'s middle")
        layers.put(tensors, "attention.output.LayerNorm", between)
        side, start = layers.branch(between.inputs[0], None, f"{where}'s attention sum")
        if layers.attention(tensors, side, where) is not start:
            raise _UnlikeError(f"{where}'s attention and residual sum have different inputs")
        layers.found.append(tensors)
        at = start
    tensors = {}
    layers.put(tensors, "embeddings.LayerNorm", at)
    tables = _tables(at.inputs[0])
    if missing := {"word", "position"} - set(tables):
        raise _UnlikeError(f"there is no table of {' and '.join(sorted(missing))} embeddings")
    for name, table in tables.items():
        tensors[f"embeddings.{name}_embeddings.weight"] = np.asarray(table, np.float32)
    if "token_type" not in tables:  # as in DistilBERT
        tensors["embeddings.token_type_embeddings.weight"] = np.zeros((1, len(at.arrays[0])), np.float32)
    return layers.model(tensors, norm_first=False, pooling="mean")


def _tables(value: Value) -> dict[str, NDArray]:
    """The embedding tables that a sum is made of, by what chooses their rows."""
    if value.op == "sum":
        found: dict[str, NDArray] = {}
        for part in value.inputs:
            for name, table in _tables(part).items():
                if name in found:
                    raise _UnlikeError(f"there are two tables of {name} embeddings")
                found[name] = table
        return found
    _expect(value, "embedding", "a part of the sum of embeddings")
    index = value.inputs[0]
    if index.op == "ids":
        return {"word": value.array}
    return {"token_type" if "token_type_ids" in index.origin or len(value.array) <= 2 else "position": value.array}


def _vision(output: Value) -> VisionModel:
    classifier = _expect(output, "linear", "the output")
    final = _expect(_expect(classifier.inputs[0], "first", "the classifier's input").inputs[0], "norm", "its input")
    layers = _Layers()
    stream = final.inputs[0]
    while stream.op == "sum":
        where = f"layer {len(layers.found)} from the end"
        tensors: dict[str, NDArray] = {}
        side, middle = layers.branch(stream, None, where)
        norm = _expect(layers.feed_forward(tensors, side, where), "norm", f"{where}'s second LayerNorm")
        layers.put(tensors, "output.LayerNorm", norm)
        side, start = layers.branch(middle, None, f"{where}'s attention sum")
        before = _expect(layers.attention(tensors, side, where), "norm", f"{where}'s first LayerNorm")
        layers.put(tensors, "attention.output.LayerNorm", before)
        if norm.inputs[0] is not middle or before.inputs[0] is not start:
            raise _UnlikeError(f"{where}'s LayerNorms do not take the residual stream")
        layers.found.append(tensors)
        stream = start
    embedded = _expect(stream, "embedded", "the first layer's input")
    tokens = _expect(embedded.inputs[0], "tokens", "the sum with the position embeddings")
    patches = tokens.inputs[0]
    tensors = {}
    layers.put(tensors, "embeddings.LayerNorm", final)
    encoder = layers.model(tensors, norm_first=True, pooling="first")
    return VisionModel(
        encoder, patches.arrays[0], patches.arrays[1], np.concatenate(tokens.arrays), embedded.array,
        np.asarray(classifier.arrays[0], np.float32), np.asarray(classifier.arrays[1], np.float32),
    )  # fmt: skip
