"""Which part of a graph the accelerator runs: from the first LayerNorm to the last, and a pooling behind it.

What lies before (embeddings, convolutions, CLIP's first LayerNorm) and behind (poolers, classifiers, poolings other
than the mean and the first token) is the host's, in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .fp32 import evaluate
from .graph import Graph
from .operations import Activate, Add, Attention, Input, Linear, Mean, Norm, Operation, Output, Select

__all__ = ["Part", "accelerator_part", "addends"]


@dataclass(frozen=True)
class Part:
    """The accelerator's part of a graph.

    Attributes
    ----------
    graph : Graph
        The whole network.
    begins : str
        The value that the host computes and the accelerator takes: (tokens, width).
    ends : str
        The value that the host goes on with: pooled, of shape (width,), or every token's output.
    """

    graph: Graph
    begins: str
    ends: str

    @cached_property
    def inner(self) -> Graph:
        """The part as a graph of its own: an input, what the accelerator runs, an output called ``result``."""
        return Graph(
            self.graph.name,
            (
                Input(self.begins, (), self.graph.shapes[self.begins]),
                *_between(self.graph, self.begins, self.ends),
                Output("result", (self.ends,)),
            ),
            self.graph.sources,
        )

    @property
    def pooled(self) -> bool:
        """Whether the accelerator pools; else the host does, from every token's output."""
        return len(self.graph.shapes[self.ends]) == 1

    @property
    def tokens(self) -> int | None:
        """The number of tokens where it is fixed, as an image's is."""
        count = self.graph.shapes[self.begins][0]
        return count if isinstance(count, int) else None

    def embed(self, name: str, value: Any) -> NDArray[np.float32]:
        """What the accelerator takes, for an input of the graph.

        Raises
        ------
        InputError
            If the input's shape is not the graph's, or a token has no row in a table.
        """
        return evaluate(self.graph, {name: value}, until=self.begins)[self.begins]

    def run(self, embedded: NDArray[np.float32]) -> NDArray[np.float32]:
        """The value at `ends` in fp32, from that at `begins`."""
        return evaluate(self.inner, {self.begins: embedded})["result"]

    def result(self, value: NDArray) -> tuple[str, NDArray]:
        """The graph's output and its name, from the value at `ends`."""
        found = evaluate(self.graph, {self.ends: value})
        name = "logits" if "logits" in found else "embedding"
        return name, found[name]

    def with_inner(self, inner: Graph) -> Part:
        """The same with the arrays of an `inner` that was changed."""
        return self.with_graph(self.graph.replaced({o.name: o for o in inner.operations[1:]}))

    def with_graph(self, graph: Graph) -> Part:
        """The same part of a graph that differs in arrays alone."""
        return Part(graph, self.begins, self.ends)


def addends(graph: Graph, add: Operation) -> tuple[Linear, str]:
    """A residual sum's linear operation, whose results nothing else takes, and the value that it is added to."""
    for product, residual in (add.inputs, add.inputs[::-1]):
        operation = graph.by_name[product]
        if isinstance(operation, Linear) and len(graph.takers(product)) == 1:
            return operation, residual
    raise InputError(f"{graph.name}: add {add.name} is not the sum of a linear operation and a residual.")


def _between(graph: Graph, begins: str, ends: str) -> list[Operation]:
    """The operations that follow from one value and lead to another, in order."""
    reached, needed = {begins}, {ends}
    for o in graph.operations:
        if any(i in reached for i in o.inputs):
            reached.add(o.name)
    for o in reversed(graph.operations):
        if o.name in needed:
            needed.update(o.inputs)
    return [o for o in graph.operations if o.name in reached & needed and o.name != begins]


def accelerator_part(graph: Graph) -> Part:
    """Find the part.

    Raises
    ------
    InputError
        If there is something in it that the accelerator cannot do; every such operation is named.
    """
    by_name = graph.by_name
    if "next_token" in by_name:
        raise InputError(f"{graph.name}: it gives the next token (a decoder); sta-hw generate-text and chat run it.")
    attentions = [o for o in graph.operations if isinstance(o, Attention)]
    if not attentions:
        raise InputError(f"{graph.name}: there is no attention, which the accelerator's programs are built around.")
    first: Operation = attentions[0]
    for _ in range(3):  # A query's product, and perhaps the projection of embeddings, lie between.
        if isinstance(first, Attention | Linear):
            first = by_name[first.inputs[0]]
    if not isinstance(first, Norm):
        raise InputError(
            f"{graph.name}: {first.name}, which {attentions[0].name} follows from, is no LayerNorm's result, which the "
            "accelerator cannot do."
        )
    behind_it = graph.operations[graph.operations.index(attentions[0]) :]
    sums = [o for o in behind_it if isinstance(o, Add) and len(graph.shapes[o.name]) == 2]
    if not sums:
        raise InputError(f"{graph.name}: no residual sum follows {attentions[0].name}, as the accelerator needs.")
    last = sums[-1]
    behind = [o for o in graph.takers(last.name) if isinstance(o, Norm)]
    problems = []
    if len(behind) != 1:
        problems.append("the layers end without a LayerNorm, which the accelerator cannot do.")
    ends = behind[0].name if behind else last.name
    takers = graph.takers(ends)
    if len(takers) == 1 and _pools(takers[0]):
        ends = takers[0].name
    part = Part(graph, first.inputs[0], ends)
    region = _between(graph, part.begins, part.ends)
    inside = {o.name for o in region} | {part.begins}
    for o in region:
        if why := _RULES.get(type(o), lambda graph, o: "is nothing that it runs")(graph, o):
            problems.append(f"{type(o).__name__.lower()} {o.name} {why}, which the accelerator cannot do.")
        problems += [
            f"{type(o).__name__.lower()} {o.name} takes {i} of before the layers, which the accelerator cannot do."
            for i in o.inputs
            if i not in inside
        ]
    for name in inside - {part.ends}:
        problems += [
            f"{type(t).__name__.lower()} {t.name} takes {name} from between the layers, which the accelerator cannot "
            "do."
            for t in graph.takers(name)
            if t.name not in inside and name != part.begins
        ]
    if problems:
        raise InputError("\n".join(f"{graph.name}: {p}" for p in problems))
    return part


def _pools(o: Operation) -> bool:
    return (isinstance(o, Mean) and o.first == 0) or (isinstance(o, Select) and o.token == 0)


def _kinds(graph: Graph, o: Operation) -> list[type[Operation]]:
    return [type(graph.by_name[i]) for i in o.inputs]


def _alone(graph: Graph, name: str) -> bool:
    return len(graph.takers(name)) == 1


def _linear(graph: Graph, o: Operation) -> str:
    takers = graph.takers(o.name)
    if len(takers) == 1 and isinstance(takers[0], Attention | Activate | Add):
        return ""
    projects = isinstance(graph.by_name[o.inputs[0]], Norm) and all(isinstance(t, Linear | Add) for t in takers)
    return "" if projects else f"is taken by {', '.join(t.name for t in takers)}"


def _attention(graph: Graph, o: Operation) -> str:
    assert isinstance(o, Attention)
    if o.causal:
        return "attends to earlier tokens alone (a decoder's)"
    linear = all(kind is Linear for kind in _kinds(graph, o)) and all(_alone(graph, i) for i in o.inputs)
    sources = {graph.by_name[i].inputs for i in o.inputs}
    return "" if linear and len(sources) == 1 else "takes others than three linear operations of one value"


def _add(graph: Graph, o: Operation) -> str:
    linear = [i for i in o.inputs if isinstance(graph.by_name[i], Linear) and _alone(graph, i)]
    if len(linear) != 1:
        return "is not the sum of a linear operation and a residual"
    return "" if any(isinstance(t, Norm) for t in graph.takers(o.name)) else "is followed by no LayerNorm"


def _activate(graph: Graph, o: Operation) -> str:
    if _kinds(graph, o) != [Linear]:
        return "is not behind a linear operation"
    takers = graph.takers(o.name)
    return "" if len(takers) == 1 and isinstance(takers[0], Linear) else "is taken by others than one linear operation"


_RULES: dict[type[Operation], Callable[[Graph, Operation], str]] = {
    Linear: _linear, Attention: _attention, Add: _add, Activate: _activate,
    Norm: lambda graph, o: "", Mean: lambda graph, o: "", Select: lambda graph, o: "",
}  # fmt: skip
"""Of each operation of the part: why the accelerator cannot run it where it stands; empty if it can."""
