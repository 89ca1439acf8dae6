"""What a linear layer costs at every N: parameters, multiply-accumulates, or cycles of the accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..compiler.limits import sizes_of
from ..compiler.shape import estimate_encoder
from ..errors import InputError
from ..model.graph import Graph, layer_of
from ..spec.config import Config
from ..spec.patterns import Pattern

__all__ = ["BUDGETS", "cycles_of", "layer_costs"]

BUDGETS = ("parameters", "macs", "cycles")


def cycles_of(
    graph: Graph, patterns: Mapping[str, Pattern], config: Config, tokens: int, layers: int | None = None
) -> float:
    """Cycles of the cycle model for an encoder of `graph`'s shape, of the first `layers` layers."""
    sizes = sizes_of(graph)
    count = sizes["layers"] if layers is None else layers
    return estimate_encoder(
        sizes["hidden"], sizes["heads"], count, sizes["intermediate"], patterns, config, tokens
    ).cycles


def layer_costs(
    graph: Graph, budget: str, m: int, config: Config, tokens: int,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, list[float]]:  # fmt: skip
    """Costs of every linear operation for N = 0 to M.

    Cycles are those that a one-layer encoder loses or gains when one product's N changes, all others being at
    M / 2; N = 0 costs as much as N = 1.

    Raises
    ------
    InputError
        If the budget's kind is unknown.
    """
    if budget not in BUDGETS:
        raise InputError(f"budget {budget!r} is unknown; it is {', '.join(BUDGETS)}.")
    first = {name: o for name, o in graph.linears.items() if layer_of(name) == 0}
    costs: dict[str, list[float]] = {}
    for name, o in first.items():
        columns, reduction = o.weight.shape
        if budget != "cycles":
            size = columns * reduction * (tokens if budget == "macs" else 1)
            costs[name] = [size * n / m for n in range(m + 1)]
            continue
        others = dict.fromkeys(first, Pattern(m // 2, m))
        found = []
        for n in range(1, m + 1):
            report(f"cycles of {name} at {n}:{m}")
            found.append(cycles_of(graph, others | {name: Pattern(n, m)}, config, tokens, 1))
        costs[name] = [found[0], *found]
    return {name: costs["0." + name.partition(".")[2]] for name in graph.linears}
