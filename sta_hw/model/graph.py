"""What a network is: operations in program order, verified, with a text form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError
from .operations import Array, Embed, Linear, Operation, Output, Shape, ShapeError

__all__ = ["Graph", "layer_of"]


def layer_of(name: str) -> int | None:
    """The layer that a value belongs to, which its name begins with (``3.context``); None outside the layers."""
    first, _, rest = name.partition(".")
    return int(first) if rest and first.isascii() and first.isdecimal() else None


def _text(value: object) -> str:
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:8]
        return f"{'x'.join(map(str, value.shape))}#{digest}"
    return str(value)


@dataclass(frozen=True)
class Graph:
    """A network.

    Attributes
    ----------
    name : str
    operations : tuple of Operation, in program order
    sources : dict
        What the checkpoint calls an array, by operation and field (``0.context.weight``); where it is not in here,
        it has that name itself.
    """

    name: str
    operations: tuple[Operation, ...]
    sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Operation]:
        """Operations by the value they give."""
        return {o.name: o for o in self.operations}

    @cached_property
    def _analysed(self) -> tuple[dict[str, Shape], list[str]]:
        shapes: dict[str, Shape] = {}
        problems, broken = [], set()
        used = {name for o in self.operations for name in o.inputs}
        for o in self.operations:
            kind = type(o).__name__
            if o.name in shapes or o.name in broken:
                problems.append(f"Value {o.name} is given twice.")
                continue
            missing = [i for i in o.inputs if i not in shapes and i not in broken]
            problems += [f"{kind} {o.name} takes {i}, which no operation before it gives." for i in missing]
            if len(o.inputs) != o.arity:
                problems.append(f"{kind} {o.name} has {len(o.inputs)} inputs; it takes {o.arity}.")
            if o.name not in used and not isinstance(o, Output):
                problems.append(f"Nothing takes {o.name}, and it is no output.")
            if missing or len(o.inputs) != o.arity or any(i in broken for i in o.inputs):
                broken.add(o.name)  # Its shape is not known, which is one problem and not one for each value after it.
                continue
            try:
                shapes[o.name] = o.shape(*(shapes[i] for i in o.inputs))
            except ShapeError as problem:
                problems.append(f"{kind} {o.name} {problem}.")
                broken.add(o.name)
        if not any(isinstance(o, Output) for o in self.operations):
            problems.append("There is no output.")
        return shapes, problems

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every value's shape."""
        return self._analysed[0]

    def verify(self) -> Graph:
        """The graph itself.

        Raises
        ------
        InputError
            With everything that is wrong: values that are not defined or defined twice, shapes that do not fit,
            values that nothing takes.
        """
        if problems := self._analysed[1]:
            raise InputError("\n".join(f"{self.name}: {p}" for p in problems))
        return self

    @cached_property
    def _takers(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = {}
        for o in self.operations:
            for name in dict.fromkeys(o.inputs):
                found.setdefault(name, []).append(o)
        return found

    def takers(self, name: str) -> list[Operation]:
        """The operations that take a value."""
        return self._takers.get(name, [])

    def replaced(self, changed: Mapping[str, Operation]) -> Graph:
        """The same graph with some operations in others' place, by name."""
        return replace(self, operations=tuple(changed.get(o.name, o) for o in self.operations))

    @cached_property
    def layers(self) -> int:
        """The number of layers."""
        return 1 + max((n for o in self.operations if (n := layer_of(o.name)) is not None), default=-1)

    @cached_property
    def linears(self) -> dict[str, Linear]:
        """The layers' linear operations, which N:M tables name."""
        return {o.name: o for o in self.operations if isinstance(o, Linear) and layer_of(o.name) is not None}

    def linear(self, name: str) -> Linear:
        """The linear operation of a name."""
        found = self.by_name[name]
        assert isinstance(found, Linear)
        return found

    def arrays(self, operation: Operation) -> dict[str, Array]:
        """An operation's arrays, by the checkpoint's names."""
        found = {f"{operation.name}.{k}": v for k, v in operation.attributes().items() if isinstance(v, np.ndarray)}
        return {self.sources.get(name, name): array for name, array in found.items()}

    @cached_property
    def tensors(self) -> dict[str, Array]:
        """All arrays, by the checkpoint's names."""
        return {name: array for o in self.operations for name, array in self.arrays(o).items()}

    def with_tensors(self, tensors: Mapping[str, Array]) -> Graph:
        """The same operations with other arrays, named as `tensors` has them; what is not given stays."""
        changed: dict[str, Operation] = {}
        for o in self.operations:
            fields: dict[str, Any] = {
                k: tensors[name] for k, v in o.attributes().items()
                if isinstance(v, np.ndarray)
                and tensors.get(name := self.sources.get(f"{o.name}.{k}", f"{o.name}.{k}"), v) is not v
            }  # fmt: skip
            if fields:
                changed[o.name] = replace(o, **fields)
        return self.replaced(changed)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> Graph:
        """The same with other weights of linear operations, by name."""
        return self.replaced({n: replace(self.linear(n), weight=np.asarray(w, np.float32)) for n, w in weights.items()})

    @property
    def most_tokens(self) -> int | None:
        """Tokens that the tables of positions hold rows for; None if there is no such table."""
        rows = [
            len(o.table) - (o.offset if o.padding is None else o.padding + 1)
            for o in self.operations
            if isinstance(o, Embed) and o.rows == "position"
        ]
        return min(rows, default=None)

    def __str__(self) -> str:
        """One line for each operation: value, shape, operation, inputs, attributes (arrays by shape and digest)."""
        lines = [f"graph {self.name}"]
        for o in self.operations:
            shape = ", ".join(map(str, self.shapes.get(o.name, ("?",))))
            attributes = [f"{k}={_text(v)}" for k, v in o.attributes().items()]
            lines.append(" ".join([f"  {o.name} ({shape}) =", type(o).__name__.lower(), *o.inputs, *attributes]))
        return "\n".join(lines) + "\n"
