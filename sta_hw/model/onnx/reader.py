"""The walk from an ONNX graph's inputs to one output, in which every node gets a meaning or is named in an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..operations import Input
from .context import Context, Value, floats
from .fused import FUSED, FUSED_DOMAIN
from .operators import OPERATORS
from .pieces import pointwise, reduced
from .session import Session, called, taken
from .values import Data, Known, NotUnderstoodError, Term

__all__ = ["Reader"]

MOVING = frozenset({
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that move elements and change none."""

POINTWISE = frozenset({
    "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish",
    "Neg", "Pow", "QuickGelu", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh",
})  # fmt: skip
"""Operators that are a function of each element, beside a sum, difference, product and quotient."""

_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceSumSquare"})


class Reader(Context):
    """A graph's values so far."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.values: dict[str, Value | None] = {}

    def read(self, output: str) -> Data:
        """What one output is.

        Raises
        ------
        InputError
            If a node on the way to it is not understood: it is named with its operator.
        """
        needed = {output}
        for node in reversed(self.session.nodes):
            if needed.intersection(node.output):
                needed |= taken(node)
        nodes = [n for n in self.session.nodes if needed.intersection(n.output)]
        self._evaluate(nodes, needed)
        for name in self.session.initial:
            if name in needed:
                self.values[name] = Known(floats(self.session.array(name)))
        for name, role in self.session.roles.items():
            self.values[name] = self._input(name, role)
        waiting = Counter(name for node in nodes for name in taken(node))
        waiting[output] += 1
        for node in nodes:
            try:
                self._node(node)
            except NotUnderstoodError as problem:
                given = ", ".join(self._described(n) for n in node.input)
                raise InputError(
                    f"{self.session.path}: {called(node)} (on {given}) is not supported here: {problem}. An encoder is "
                    "made of embeddings or convolutions, linear layers, LayerNorm, attention, activation functions."
                ) from None
            for name in taken(node):  # What no later node takes is let go.
                waiting[name] -= 1
                if not waiting[name]:
                    self.values.pop(name, None)
        found = self.values[output]
        if not isinstance(found, Data):
            raise InputError(f"{self.session.path}: output {output!r} does not depend on what is given.")
        return found

    def _of_ids(self, value: Value | None) -> bool:
        return isinstance(value, Known) and self.ids in value.origin

    def _described(self, name: str) -> str:
        value = self.values.get(name)
        return value.term.called.lower() if isinstance(value, Data) else "known"

    def _evaluate(self, nodes: Sequence[Any], needed: set[str]) -> None:
        """Values of what does not depend on data, or on token ids alone as integers; of all others, the shapes."""
        data = {n for n, role in self.session.roles.items() if role in ("pixels", "features")}
        counted = {self.ids}
        for node in nodes:
            given = taken(node)
            rows = node.op_type == "Gather" and node.input[1] in counted and node.input[0] not in counted
            if node.op_type not in ("Shape", "Size") and (
                given & data or rows or (node.op_type == "EmbedLayerNormalization")
            ):
                data.update(node.output)
            elif given & counted and node.op_type not in ("Shape", "Size"):
                counted.update(node.output)
        names = [n for node in nodes for n in node.output if n and n in needed]
        wanted = [f"shape of {n}" if n in data else n for n in names]
        found = self.session.run(wanted, self.sample)
        self.shapes = {n: tuple(int(s) for s in f) for n, f in zip(names, found, strict=True) if n in data}
        self.arrays = {n: f for n, f in zip(names, found, strict=True) if n not in data}

    def _input(self, name: str, role: str) -> Value:
        array = self.sample[name]
        if role not in ("pixels", "features"):
            return Known(array, frozenset({name}))
        sizes = (*array.shape[2:], array.shape[1])
        term = Term(Input, (), sizes, name, {"given": sizes})
        return Data(term, np.moveaxis(np.arange(array.size, dtype=np.int64).reshape(sizes), -1, 0)[None])

    def _node(self, node: Any) -> None:
        given = [self.values[n] if n else None for n in node.input]
        outer = [self.values[n] for n in sorted(taken(node) - set(node.input)) if n in self.values]
        if node.op_type in ("Shape", "Size"):
            tainted = isinstance(given[0], Data) or (isinstance(given[0], Known) and bool(given[0].origin))
            origin = frozenset({"shape"}) if tainted else frozenset[str]()
            found: list[Value | None] = [Known(self.arrays[node.output[0]], origin)]
        elif node.op_type == "Gather" and (table := self._rows(node, given)):
            found = [table]
        elif node.output[0] in self.arrays:
            origins = [v.origin for v in (*given, *outer) if isinstance(v, Known)]
            taint = frozenset[str]().union(*origins)
            found = [Known(floats(self.arrays[n]), taint) if n in self.arrays else None for n in node.output]
        elif node.op_type != "EmbedLayerNormalization" and any(self._of_ids(v) for v in (*given, *outer)):
            # What a text of other tokens makes of it is not known: a padding token, or one that ends a text.
            raise NotUnderstoodError("what the graph finds in the token ids itself, such as a padding token's places")
        elif node.domain in FUSED_DOMAIN and node.op_type in FUSED:
            found = FUSED[node.op_type](self, node, given)
        elif node.domain in ("", "ai.onnx", *FUSED_DOMAIN):
            found = self._operator(node, given)
        else:
            raise NotUnderstoodError(f"it is of a set of operators, {node.domain}, for one machine or tool alone")
        self.values.update(zip(node.output, found + [None] * len(node.output), strict=False))

    def _rows(self, node: Any, given: Sequence[Value | None]) -> Data | None:
        """Rows of a table, chosen by token ids, positions or token types."""
        table, index = given
        if not isinstance(table, Known) or table.origin or not isinstance(index, Known):
            return None
        if table.array.ndim != 2 or table.array.dtype.kind != "f" or index.array.ndim not in (1, 2):
            return None
        if self.session.attributes(node).get("axis", 0) != 0:
            return None
        return self.embed(table.array, index, node.input[1], called(node))

    def _operator(self, node: Any, given: list[Value | None]) -> list[Value | None]:
        kind = node.op_type
        first = given[0] if given else None
        if kind in ("Identity", "Dropout", "Cast"):
            return [first]
        if kind in MOVING:
            return list(self._moved(node, given))
        if kind in _REDUCTIONS:
            return [reduced(self, node, given)]
        if kind in OPERATORS:
            return [OPERATORS[kind](self, node, given)]
        if kind in POINTWISE:
            return [pointwise(self, node, given)]
        raise NotUnderstoodError("it is not known")

    def _moved(self, node: Any, given: Sequence[Value | None]) -> list[Data]:
        data, *rest = given
        if not isinstance(data, Data) or any(isinstance(v, Data) for v in rest):
            raise NotUnderstoodError("places of elements that depend on data")
        arrays = [data.index, *(v.array if isinstance(v, Known) else None for v in rest)]
        return [data.moved(index) for index in self.session.apply(node, arrays)]
