"""What a network is: operations in program order, verified, with a text form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from .operations import Embed, Operation, Output, Shape, ShapeError

__all__ = ["Graph"]


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
    """

    name: str
    operations: tuple[Operation, ...]

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

    def takers(self, name: str) -> list[Operation]:
        """The operations that take a value."""
        return [o for o in self.operations if name in o.inputs]

    def replaced(self, changed: Mapping[str, Operation]) -> Graph:
        """The same graph with some operations in others' place, by name."""
        return Graph(self.name, tuple(changed.get(o.name, o) for o in self.operations))

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
