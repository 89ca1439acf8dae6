"""Where a graph's values lie in memory while it runs: buffers that are taken, and given back when nothing reads them.

A value that several operations take lives from the operation that gives it to the last that takes it. Linear
operations whose results an activation or a residual sum takes give no value of their own: hardware applies both to the
results of the product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.graph import Graph
from ..model.operations import Activate, Add, Attention, Input, Linear, Mean, Norm, Operation, Output, Select
from ..model.part import addends

__all__ = ["Buffer", "Plan", "plan_buffers"]


@dataclass(frozen=True)
class Buffer:
    """Row tiles of (width) columns of values of so many bytes, 1 or 2.

    Attributes
    ----------
    values : names of the values that lie here one after the other
    """

    name: str
    width: int
    size: int
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All buffers in the order they lie in memory, and the names of those that hold each value.

    Attributes
    ----------
    wide, narrow : dict of str
        By value: the buffer of its 16 bits, and of its 8 bits.
    """

    buffers: tuple[Buffer, ...]
    wide: dict[str, str]
    narrow: dict[str, str]


@dataclass
class _Slot:
    """A buffer, or a pair of 16 and 8 bits, of a kind."""

    kind: str
    width: int
    number: int
    holds: list[str]

    def buffers(self) -> list[Buffer]:
        """16 bits ahead of 8."""
        name = f"{self.kind}{self.number}"
        if self.kind == "norm":
            return [Buffer(f"{name}.{8 * size}", self.width, size, tuple(self.holds)) for size in (2, 1)]
        return [Buffer(name, self.width, 2 if self.kind in _WIDE else 1, tuple(self.holds))]


_KINDS = ("stream", "norm", "linear", "context", "activated", "pooled")
"""In the order they lie in memory: residual sums; results of LayerNorms, of 16 and of 8 bits; queries, keys and values;
contexts; activations; what is pooled."""
_WIDE = ("stream", "pooled")


def _kind(graph: Graph, o: Operation) -> str:
    """A value's kind of buffer; none for what is no value in memory."""
    if isinstance(o, Input | Add):
        return "stream"
    if isinstance(o, Norm):
        return "norm"
    if isinstance(o, Linear):
        takers = graph.takers(o.name)
        if len(takers) == 1 and isinstance(takers[0], Activate | Add):
            return ""
        return "linear" if all(isinstance(t, Attention) for t in takers) else "norm"
    if isinstance(o, Output):
        return "pooled" if len(graph.shapes[o.name]) == 2 else ""  # Every program pools.
    kinds = {Attention: "context", Activate: "activated", Mean: "pooled", Select: "pooled"}
    return next(kind for of, kind in kinds.items() if isinstance(o, of))


def plan_buffers(graph: Graph) -> Plan:
    """A buffer for each value of a graph that the accelerator runs."""
    place = {o.name: i for i, o in enumerate(graph.operations)}
    # A linear operation that gives no value reads when what takes its results runs.
    runs = {n: max((place[t.name] for t in graph.takers(n)), default=i) if not _kind(graph, graph.by_name[n]) else i
            for n, i in place.items()}  # fmt: skip
    ends = {n: max((runs[t.name] for t in graph.takers(n)), default=len(place)) for n in place}
    slots: list[_Slot] = []
    of: dict[str, _Slot] = {}
    latest: _Slot | None = None
    for o in graph.operations:
        kind = _kind(graph, o)
        if not kind:
            continue
        now, width = place[o.name], int(graph.shapes[o.name][-1])
        chosen = None
        if isinstance(o, Add):
            _, residual = addends(graph, o)
            if of[residual].kind == kind and ends[residual] == now:
                chosen = of[residual]  # in its place, which the LayerNorm that took it has read
        if chosen is None:
            free = (s for s in slots if s.kind == kind and s.width == width and ends[s.holds[-1]] < now)
            # LayerNorms' results alternate, so that one is written while the one before is read.
            chosen = next((s for s in free if kind != "norm" or s is not latest), None)
        if chosen is None:
            chosen = _Slot(kind, width, sum(s.kind == kind for s in slots), [])
            slots.append(chosen)
        chosen.holds.append(o.name)
        of[o.name] = chosen
        latest = chosen if kind == "norm" else latest
    ordered = sorted(slots, key=lambda s: _KINDS.index(s.kind))
    buffers = tuple(b for s in ordered for b in s.buffers())
    return Plan(buffers, _by_value(b for b in buffers if b.size == 2), _by_value(b for b in buffers if b.size == 1))


def _by_value(buffers: Iterable[Buffer]) -> dict[str, str]:
    return {value: b.name for b in buffers for value in b.values}
