"""A graph in a folder: its operations in ``config.json``, their arrays in ``model.safetensors``.

What no family's checkpoint can say, such as a graph that was imported from ONNX, is kept this way: every command takes
such a folder as it takes a checkpoint's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import operations
from .fp32 import FUNCTIONS
from .graph import Graph
from .operations import Activate, Norm, Operation, Output
from .settings import SCORINGS, Settings
from .tensors import Tensors

__all__ = ["MODEL_TYPE", "graph_files", "stored_graph"]

MODEL_TYPE = "sta_hw_graph"
"""The ``model_type`` of such a folder."""

_VERSION = 1
_KINDS: dict[str, type[Operation]] = {
    name: kind
    for name, kind in vars(operations).items()
    if isinstance(kind, type) and issubclass(kind, Operation) and kind is not Operation and not name.startswith("_")
}
_NUMBERS = {
    "int": (int,), "int | None": (int, type(None)), "bool": (bool,), "str": (str,), "float": (float, int),
    "tuple[int, ...]": (list,), "Shape": (list,),
}  # fmt: skip
"""What JSON holds for an attribute, by its type."""


def _attributes(kind: type[Operation]) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(kind) if f.name not in ("name", "inputs")}


def graph_files(graph: Graph, labels: Sequence[str] = (), scoring: str = "softmax") -> dict[str, bytes | str]:
    """The two files of a graph's folder.

    Parameters
    ----------
    labels : sequence of str
        Names of the classes, where it has a classifier.
    scoring : str
        What makes scores of its logits, of `settings.SCORINGS`.
    """
    from safetensors.numpy import save

    tensors: dict[str, NDArray] = {}
    listed = []
    for o in graph.operations:
        entry: dict[str, Any] = {"operation": type(o).__name__, "name": o.name, "inputs": list(o.inputs)}
        for name, value in o.attributes().items():
            if isinstance(value, np.ndarray):
                tensors[f"{o.name}.{name}"] = np.ascontiguousarray(value, np.float32)
            elif value != _attributes(type(o))[name].default:
                entry[name] = list(value) if isinstance(value, tuple) else value
        listed.append(entry)
    about = {"model_type": MODEL_TYPE, "version": _VERSION, "name": graph.name, "labels": list(labels)}
    about |= {"scoring": scoring} if scoring != "softmax" else {}
    rows = ",\n    ".join(json.dumps(entry) for entry in listed)
    head = json.dumps(about, indent=2)[:-2]
    config = f'{head},\n  "operations": [\n    {rows}\n  ]\n}}\n'
    return {"config.json": config, "model.safetensors": save(tensors)}


def stored_graph(settings: Settings, tensors: Tensors) -> tuple[Graph, list[str], str]:
    """The graph, the names of its classes, and what makes scores of their logits.

    Raises
    ------
    InputError
        If the description is of another version or not understood, or its operations do not fit each other.
    """
    found, path = settings.found, settings.path
    if found.get("version") != _VERSION:
        raise InputError(f"{path}: the graph is of version {found.get('version')!r}; this program reads {_VERSION}.")
    labels, listed = found.get("labels"), found.get("operations")
    if not isinstance(labels, list) or not _words(labels) or not isinstance(listed, list):
        raise InputError(f"{path}: labels is a list of names, operations a list of objects.")
    settings.pass_over("version name labels operations")
    scoring = settings.choice("scoring", "softmax", list(SCORINGS))
    parts = []
    for number, entry in enumerate(listed):
        try:
            parts.append(_operation(entry, tensors))
        except _WrongError as problem:
            raise InputError(f"{path}: operation {number} {problem}.") from None
    graph = Graph(str(found.get("name")), tuple(parts))
    for o in parts:
        if isinstance(o, Norm) and not 0 <= o.epsilon <= 1:
            raise InputError(f"{path}: {o.name} has epsilon = {o.epsilon}; it is a number from 0 to 1.")
        if isinstance(o, Activate) and o.function not in FUNCTIONS:
            raise InputError(f"{path}: {o.name} has function {o.function!r}; it is one of {', '.join(FUNCTIONS)}.")
    try:
        graph.verify()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: operations and the tensors beside it do not fit each other.") from error
    outputs = [o.name for o in parts if isinstance(o, Output)]
    if outputs not in (["embedding"], ["logits"]):
        have = ", ".join(outputs) or "none"
        raise InputError(f"{path}: its outputs are {have}; a graph has one, embedding or logits.")
    classes = int(graph.shapes[outputs[0]][-1]) if outputs == ["logits"] else 0
    if labels and len(labels) != classes:
        raise InputError(f"{path}: there are {len(labels)} labels, and the graph has {classes} classes.")
    return graph, labels, "sigmoid" if classes == 1 and scoring == "softmax" else scoring


class _WrongError(Exception):
    """What is wrong with an entry, as a clause."""


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _operation(entry: Any, tensors: Tensors) -> Operation:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not _words(entry.get("inputs")):
        raise _WrongError("is no object with a name and inputs")
    kind = _KINDS.get(str(entry.get("operation")))
    if kind is None:
        raise _WrongError(f"is {entry.get('operation')!r}, which is none of {', '.join(_KINDS)}")
    fields = _attributes(kind)
    if unknown := set(entry) - {"operation", "name", "inputs"} - set(fields):
        raise _WrongError(f"({entry['name']}) has {', '.join(sorted(unknown))}, which {kind.__name__} has not")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        where = f"{entry['name']}.{name}"
        if field.type == "Array":
            if where not in tensors:
                raise _WrongError(f"({entry['name']}) has no tensor {where}")
            values[name] = tensors.take(where, *tensors.found[where].shape)
        elif name in entry:
            value, kinds = entry[name], _NUMBERS[str(field.type)]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise _WrongError(f"({entry['name']}) has {name} = {value!r}")
            if isinstance(value, list) and not all(isinstance(v, int | str) for v in value):
                raise _WrongError(f"({entry['name']}) has {name} = {value!r}")
            values[name] = tuple(value) if isinstance(value, list) else value
        elif field.default is dataclasses.MISSING:
            raise _WrongError(f"({entry['name']}) has no {name}")
    return kind(entry["name"], tuple(entry["inputs"]), **values)
