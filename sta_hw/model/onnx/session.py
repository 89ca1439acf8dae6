"""An ONNX file in onnxruntime: what its inputs are for, samples for them, and the values that need no understanding."""

from __future__ import annotations

import graphlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...files import inside, require_file
from .values import NotUnderstoodError

__all__ = ["Session", "called"]

TOKENS = 7, 11
"""Of the two samples, where the number of tokens is free."""
_VOCABULARY = 20
_LARGEST = 1 << 26
"""Values of an image or a spectrogram, at most: a larger sample would not fit in memory."""
_MOST_TOKENS = 4096
"""Of a text for which a graph was exported, at most: scores grow with their square."""
_FEW = 16
"""Rows of a table of token types, at most; a table of positions has more."""
_PASSING = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Expand")
_NAMES = {
    "ids": ("input_ids", "ids", "tokens"), "mask": ("attention_mask", "input_mask", "mask"),
    "types": ("token_type_ids", "segment_ids", "segments"), "positions": ("position_ids", "positions"),
}  # fmt: skip
_FUSED = {"EmbedLayerNormalization": {0: "ids", 1: "types", 7: "mask", 8: "positions"}, "Attention": {3: "mask"}}
"""Operators of onnxruntime's whose inputs say what they are for."""


def called(node: Any) -> str:
    """A node, for messages."""
    domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
    return f"operator {domain}{node.op_type} of node {node.name or next(iter(node.output), '?')!r}"


class Session:
    """A graph that can be run.

    Attributes
    ----------
    nodes : list
        In an order in which each comes after those whose values it takes.
    roles : dict
        What each input is for: ``ids``, ``mask``, ``types``, ``positions``, ``pixels``, ``features``.
    outputs : names, in the file's order
    half : bool
        Some of its weights are in float16, and so it computes in it.

    Raises
    ------
    InputError
        If onnx is not installed, the file cannot be read or run, or an input is not one of an encoder.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnx
            import onnx.inliner
            import onnxruntime
        except ImportError:
            raise InputError("onnx is not installed; pip install 'sta-hw[onnx]' brings it and onnxruntime.") from None
        self.onnx, self.runtime, self.path = onnx, onnxruntime, path
        if not path.exists():
            raise InputError(f"there is no file {path}.")
        try:
            require_file(path)
            model = onnx.load(str(path), load_external_data=False)
            for place in _external_files(model):
                inside(path.parent, place, f"{path}")
            onnx.load_external_data_for_model(model, str(path.parent))
            self.model = onnx.inliner.inline_local_functions(model) if model.functions else model
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path} is not an ONNX model: {(str(error).splitlines() or ['?'])[0]}") from error
        graph = self.model.graph
        if not graph.node or not graph.output:
            raise InputError(f"{path} is not an ONNX model: it has no nodes or no outputs.")
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise InputError(f"{path}: {name!r} is a sparse tensor, which is not read; store it as a dense one.")
        self.initial = {i.name: i for i in graph.initializer}
        self.half = any(i.data_type == onnx.TensorProto.FLOAT16 for i in graph.initializer)
        self.outputs = [o.name for o in graph.output]
        self.nodes = _sorted(list(graph.node), path)
        self._giver = {name: node for node in self.nodes for name in node.output}
        given = [i for i in graph.input if i.name not in self.initial]
        self._shapes = {i.name: [d.dim_value or None for d in i.type.tensor_type.shape.dim] for i in given}
        if odd := [i for i in given if i.type.tensor_type.elem_type not in onnx.TensorProto.DataType.values()[1:]]:
            raise InputError(f"{path}: input {odd[0].name!r} is no tensor of a type that ONNX knows.")
        self._kinds = {i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in given}
        self._ran: tuple[tuple[str, ...], Any] | None = None
        self.roles = self._roles()
        if wrong := next((n for n, s in self._shapes.items() if s and (s[0] or 1) != 1), None):
            raise InputError(
                f"{path}: input {wrong!r} is a batch of {self._shapes[wrong][0]}; export it for one, or any number."
            )
        for given_name, shape in self._shapes.items():
            most = _MOST_TOKENS if self.roles[given_name] in _NAMES else _LARGEST
            if any((size or 1) < 1 for size in shape) or math.prod(size or 1 for size in shape) > most:
                sizes = ", ".join("free" if size is None else str(size) for size in shape)
                raise InputError(
                    f"{path}: input {given_name!r} has sizes ({sizes}); they are positive, and {most:,} values in all "
                    "at most."
                )
        self.sizes = self._sizes()
        lengths = [s[1] for n, s in self._shapes.items() if self.roles[n] in _NAMES and len(s) > 1 and s[1]]
        self._tokens = lengths[0] if lengths else None

    def _table_rows(self, name: str) -> int:
        """Rows of the largest table whose rows an input chooses; 0 if none."""
        reached, found = {name}, 0
        for node in self.nodes:
            if node.op_type in _PASSING and node.input[0] in reached:
                reached.update(node.output)
            elif node.op_type == "Gather" and node.input[1] in reached:
                shape = self._shape_of(node.input[0])
                found = max(found, shape[0] if len(shape) == 2 else 0)
        return found

    def _shape_of(self, name: str) -> tuple[int, ...]:
        """A constant's shape, behind casts too; empty if it is none."""
        while name not in self.initial and name in self._giver:
            node = self._giver[name]
            if node.op_type == "Constant":
                value = next((a.t for a in node.attribute if a.name == "value"), None)
                return tuple(value.dims) if value is not None else ()
            if node.op_type not in ("Cast", "Identity"):
                return ()
            name = node.input[0]
        return tuple(self.initial[name].dims) if name in self.initial else ()

    def _roles(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, shape in self._shapes.items():
            whole = np.issubdtype(self._kinds[name], np.integer) or self._kinds[name] == np.bool_
            fused = [
                role for node in self.nodes for place, role in _FUSED.get(node.op_type, {}).items()
                if len(node.input) > place and node.input[place] == name
            ]  # fmt: skip
            known = [role for role, names in _NAMES.items() if name.partition(":")[0].lower() in names]
            rows = self._table_rows(name)
            if len(shape) > 2 and not whole:
                found[name] = {3: "features", 4: "pixels"}.get(len(shape), "?")
            elif len(shape) > 2 or not shape:
                found[name] = "?"
            elif known or fused:
                found[name] = (known or fused)[0]
            elif rows > _FEW:
                # The largest table is that of words.
                others = [self._table_rows(n) for n in self._shapes if n != name]
                found[name] = "ids" if rows >= max(others, default=0) else "positions"
            else:
                found[name] = "types" if rows else "mask"
        unknown = [n for n, role in found.items() if role == "?"]
        kinds = [role for role in found.values() if role in ("ids", "pixels", "features")]
        if unknown or len(kinds) != 1:
            listed = ", ".join(f"{n!r} of shape {tuple(s)}" for n, s in self._shapes.items())
            raise InputError(
                f"{self.path} has graph input {listed}; an encoder takes token ids with masks and token types, or an "
                "image (1, channels, height, width), or a spectrogram (1, bins, frames)."
            )
        return found

    def _sizes(self) -> tuple[int, ...]:
        """The image's or spectrogram's shape; sizes that the file leaves free follow from the table of positions.

        Raises
        ------
        InputError
            If they do not.
        """
        name = next((n for n, role in self.roles.items() if role in ("pixels", "features")), None)
        if name is None:
            return ()
        shape = self._shapes[name][1:]
        if all(shape):
            return tuple(s for s in shape if s)
        stride, wide, channels = 1, 0, 0
        for node in self.nodes:
            if node.op_type == "Conv" and len(kernel := self._shape_of(node.input[1])) == len(shape) + 1:
                stride *= next((a.ints[0] for a in node.attribute if a.name == "strides"), 1)
                wide, channels = kernel[0], channels or kernel[1]
        constants = [a.t for n in self.nodes if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
        tables = [t.dims for t in [*self.initial.values(), *constants] if len(t.dims) in (2, 3) and t.dims[-1] == wide]
        for count in (t[-2] for t in tables):
            for special in (1, 2, 0) if len(shape) == 3 else (0,):
                side = math.isqrt(max(count - special, 0)) if len(shape) == 3 else count
                if not side or (len(shape) == 3 and side * side != count - special):
                    continue
                sizes = (channels, *(s or side * stride for s in shape[1:]))
                try:
                    self.run(self.outputs[:1], {name: np.zeros((1, *sizes), self._kinds[name])})
                except InputError:
                    continue
                return sizes
        raise InputError(
            f"{self.path}: the size of input {name!r} is free, and no table of positions tells it; export it for the "
            "size that it is trained for."
        )

    def samples(self, padding: int | None = None, longest: int = 0) -> Iterator[dict[str, NDArray]]:
        """Inputs without padding: a text of different tokens, then longer ones of any (where they may be); or noise.

        Parameters
        ----------
        padding : int or None
            A token that the texts behind the first one hold.
        longest : int
            Tokens of the last text.
        """
        rng = np.random.default_rng(0)
        name = next((n for n, role in self.roles.items() if role == "ids"), None)
        if name is None:
            while True:
                name = next(iter(self._shapes))
                yield {name: rng.normal(size=(1, *self.sizes)).astype(self._kinds[name])}
        words = self._table_rows(name) or _VOCABULARY
        for turn, free in enumerate((*TOKENS, longest) if longest > max(TOKENS) and not self._tokens else TOKENS):
            tokens = self._tokens or free
            ids = rng.choice(words, tokens, replace=turn > 0 or tokens > words)
            if turn and padding is not None:
                ids[tokens // 2] = padding
            yield self._given(ids)

    def _given(self, ids: NDArray) -> dict[str, NDArray]:
        """All inputs for a text."""
        tokens = len(ids)
        fill = {"ids": ids, "mask": np.ones(tokens), "types": np.zeros(tokens), "positions": np.arange(tokens)}
        return {
            n: fill[role].reshape((1, tokens) if len(self._shapes[n]) == 2 else tokens).astype(self._kinds[n])
            for n, role in self.roles.items()
        }

    def every_token(self, words: int, longest: int) -> Iterator[dict[str, NDArray]]:
        """Inputs that hold every token of a vocabulary once, in texts of at most `longest` tokens."""
        tokens = self._tokens or longest
        for first in range(0, words, tokens):
            yield self._given(np.arange(first, first + tokens) % words)

    def run(self, names: Sequence[str], inputs: Mapping[str, NDArray]) -> list[NDArray]:
        """Values of some tensors, or their shapes (where a name begins with ``shape of``).

        Raises
        ------
        InputError
            If onnxruntime cannot run the graph.
        """
        key = tuple(names)
        try:
            if self._ran is None or self._ran[0] != key:
                self._ran = None  # Its weights are let go before others are made.
                self._ran = key, self._session(self._with_outputs(key))
            found: list[NDArray] = self._ran[1].run(list(key), dict(inputs))
            for name, value in zip(names, found, strict=True):
                if not isinstance(value, np.ndarray):
                    raise ValueError(f"{name!r} is no dense tensor, and nothing else is read")
            return found
        except Exception as error:
            raise InputError(f"{self.path}: onnxruntime cannot run it: {str(error).splitlines()[0]}") from error

    def run_alone(self, names: Sequence[str], inputs: Mapping[str, NDArray]) -> list[NDArray]:
        """The same of values that few nodes give, and of those nodes alone.

        Raises
        ------
        InputError
            If onnxruntime cannot run them.
        """
        key = "alone", *names
        try:
            if self._ran is None or self._ran[0] != key:
                self._ran = key, self._session(self._of(names))
            kept = {i.name for i in self._ran[1].get_inputs()}
            found: list[NDArray] = self._ran[1].run(list(names), {n: a for n, a in inputs.items() if n in kept})
            return found
        except Exception as error:
            raise InputError(f"{self.path}: onnxruntime cannot run it: {str(error).splitlines()[0]}") from error

    def _of(self, names: Sequence[str]) -> bytes:
        """What gives these values alone."""
        needed, helper, graph = set(names), self.onnx.helper, self.model.graph
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed |= taken(node)
        made = helper.make_graph(
            [n for n in self.nodes if needed.intersection(n.output)], graph.name,
            [i for i in graph.input if i.name in needed and i.name not in self.initial],
            [helper.make_empty_tensor_value_info(n) for n in names],
            [i for n, i in self.initial.items() if n in needed],
        )  # fmt: skip
        model = helper.make_model(made, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        written: bytes = model.SerializeToString()
        return written

    def _with_outputs(self, names: Sequence[str]) -> bytes:
        """The file with other outputs; a model may be large, and so it is changed and not copied."""
        graph, helper = self.model.graph, self.onnx.helper
        count = len(graph.node)
        del graph.output[:]
        for name in names:
            graph.output.append(helper.make_empty_tensor_value_info(name))
            if name.startswith("shape of "):
                graph.node.append(helper.make_node("Shape", [name[9:]], [name]))
        written: bytes = self.model.SerializeToString()
        del graph.node[count:]
        return written

    def _session(self, model: bytes) -> Any:
        options = self.runtime.SessionOptions()
        options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        return self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)

    def apply(self, node: Any, arrays: Sequence[NDArray | None]) -> list[NDArray]:
        """What a node alone makes of arrays: integers, or float32.

        Raises
        ------
        NotUnderstoodError
            If onnxruntime cannot run it.
        """
        helper = self.onnx.helper
        names = [f"i{i}" if a is not None else "" for i, a in enumerate(arrays)]
        given = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
        outputs = [f"o{i}" for i in range(len(node.output))]
        alone = helper.make_node(node.op_type, names, outputs, domain=node.domain)
        alone.attribute.extend(node.attribute)
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in given.items()
        ]
        graph = helper.make_graph([alone], "node", infos, [helper.make_empty_tensor_value_info(o) for o in outputs])
        model = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        try:
            found: list[NDArray] = self._session(model.SerializeToString()).run(outputs, given)
        except Exception as error:
            raise NotUnderstoodError(f"onnxruntime cannot run it: {str(error).splitlines()[0]}") from error
        return found

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's."""
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def array(self, name: str) -> NDArray:
        """An initializer's."""
        found: NDArray = self.onnx.numpy_helper.to_array(self.initial[name])
        return found


def _external_files(message: Any) -> Iterator[str]:
    """Names of the files in which tensors of a model lie, wherever in it a tensor stands."""
    for field, value in message.ListFields():
        if field.name == "external_data":
            yield from (entry.value for entry in value if entry.key == "location")
        elif field.message_type is not None:
            parts = value if hasattr(value, "__len__") else [value]  # repeated, or one
            for part in parts:
                yield from _external_files(part)


def taken(node: Any) -> set[str]:
    """Names of what a node takes, those that graphs within it take too."""
    names = {n for n in node.input if n}
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
            names |= {n for inner in graph.node for n in taken(inner)}
    return names


def _sorted(nodes: list[Any], path: Path) -> list[Any]:
    giver = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    order: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter(
        {i: {giver[n] for n in taken(node) if n in giver} for i, node in enumerate(nodes)}
    )
    try:
        return [nodes[i] for i in order.static_order()]
    except graphlib.CycleError as error:
        raise InputError(f"{path} is not an ONNX model: its nodes wait for each other.") from error
