"""Operations become steps and loads: a function for each kind of operation, in a module for each unit that runs them.

A linear operation is lowered with the operation that takes its results, since hardware applies that to them.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import InputError
from ...model.graph import layer_of
from ...model.operations import Add, Mean, Operation, Select
from ...model.part import addends
from ...spec.isa import Result
from ..integers import (
    IntegerActivate,
    IntegerAttention,
    IntegerInput,
    IntegerLinear,
    IntegerNorm,
    IntegerOutput,
    linear_of,
)
from .attention import attention
from .linear import LinearLayer, linear
from .norm import interleave_norms, norm
from .pool import pool
from .state import Lowering

__all__ = ["LOWERED", "lower"]


def _projection(low: Lowering, o: Operation) -> None:
    """What both products and sums take, twice; the second is in memory after the first."""
    assert isinstance(o, IntegerLinear)
    if o.wide is None:
        return
    needs = low.event(o.inputs[0])
    for label, p, result, target, gives in (
        (o.name, o.parameters, Result.STORE8, low.narrow[o.name], f"{o.name}.8"),
        (f"{o.name}.16", o.wide, Result.STORE16, low.wide[o.name], o.name),
    ):
        low.note(label, o, o.name, target)
        linear(low, LinearLayer(label, p, low.narrow[o.inputs[0]], result, target, needs=needs, gives=gives))


def _activate(low: Lowering, o: Operation) -> None:
    assert isinstance(o, IntegerActivate)
    first, target = linear_of(low.graph, o.inputs[0]), low.narrow[o.name]
    low.note(first.name, first, o.name, target)
    linear(low, LinearLayer(
        first.name, first.parameters, low.narrow[first.inputs[0]], Result.ACTIVATE, target,
        needs=low.event(first.inputs[0]), gives=o.name, table=o.table,
    ))  # fmt: skip


def _add(low: Lowering, o: Operation) -> None:
    found, residual = addends(low.graph, o)
    product, target = linear_of(low.graph, found.name), low.wide[o.name]
    low.note(product.name, product, o.name, target)
    linear(low, LinearLayer(
        product.name, product.parameters, low.narrow[product.inputs[0]], Result.RESIDUAL, target,
        needs=low.event(product.inputs[0]), gives=o.name, residual=low.wide[residual],
    ))  # fmt: skip


def _norm(low: Lowering, o: Operation) -> None:
    assert isinstance(o, IntegerNorm)
    source = o.inputs[0]
    low.note(o.name, o, o.name, low.wide[o.name], low.narrow[o.name])
    norm(low, o.name, o.parameters, low.wide[source], low.wide[o.name], low.narrow[o.name],
         needs=low.event(source), gives=o.name)  # fmt: skip
    if low.latest == source:  # a residual sum's product, right before
        interleave_norms(low, low.given)


def _pool(low: Lowering, o: Operation) -> None:
    target = low.wide[o.name]
    low.note(o.name, o, o.name, target)
    pool(low, o.name, low.narrow[o.inputs[0]], target, mean=isinstance(o, Mean), needs=low.event(o.inputs[0]))


def _output(low: Lowering, o: Operation) -> None:
    """Every program pools: where the graph does not, the first token, which nobody reads."""
    if len(low.graph.shapes[o.name]) == 2:
        _pool(low, o)


LOWERED: dict[type[Operation], Callable[[Lowering, Operation], None]] = {
    IntegerInput: lambda low, o: None, IntegerLinear: _projection, IntegerNorm: _norm, IntegerAttention: attention,
    IntegerActivate: _activate, Add: _add, Mean: _pool, Select: _pool, IntegerOutput: _output,
}  # fmt: skip
"""What each operation becomes."""


def lower(low: Lowering) -> None:
    """All of a graph's steps, loads and buffers, in order.

    Raises
    ------
    InputError
        If no accelerator has an operation; it is named.
    """
    unknown = [f"{type(o).__name__.lower()} {o.name}" for o in low.graph.operations if type(o) not in LOWERED]
    if unknown:
        raise InputError(f"{low.graph.name}: no accelerator runs {', '.join(unknown)}.")
    for o in low.graph.operations:
        layer = layer_of(o.name)
        low.weight = 1.0 if layer is None else low.layer_weights[layer]
        before = len(low.steps)
        LOWERED[type(o)](low, o)
        if len(low.steps) > before:
            low.latest, low.given = o.name, len(low.steps) - before
