"""What a linear layer costs at every N: parameters, multiply-accumulates, or cycles of the accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..compiler.shape import estimate_encoder
from ..errors import InputError
from ..model.bert import LINEAR_NAMES, BertModel
from ..spec.config import Config
from ..spec.patterns import Pattern

__all__ = ["BUDGETS", "cycles_of", "layer_costs"]

BUDGETS = ("parameters", "macs", "cycles")


def cycles_of(
    model: BertModel,
    patterns: Mapping[tuple[int, str], Pattern],
    config: Config,
    tokens: int,
    layers: int | None = None,
) -> float:
    """Cycles of the cycle model for an encoder of `model`'s shape, of the first `layers` layers."""
    count = model.layers if layers is None else layers
    return estimate_encoder(model.hidden, model.heads, count, model.intermediate, patterns, config, tokens).cycles


def layer_costs(
    model: BertModel, budget: str, m: int, config: Config, tokens: int,
    report: Callable[[str], None] = lambda _: None,
) -> dict[tuple[int, str], list[float]]:  # fmt: skip
    """Costs of every linear layer for N = 0 to M.

    Cycles are those that a one-layer encoder loses or gains when one product's N changes, all others being at
    M / 2; N = 0 costs as much as N = 1.

    Raises
    ------
    InputError
        If the budget's kind is unknown.
    """
    if budget not in BUDGETS:
        raise InputError(f"budget {budget!r} is unknown; it is {', '.join(BUDGETS)}.")
    found: dict[tuple[int, str], list[float]] = {}
    by_name: dict[str, list[float]] = {}
    for name in LINEAR_NAMES:
        columns, reduction = model.linear(0, name)[0].shape
        if budget != "cycles":
            size = columns * reduction * (tokens if budget == "macs" else 1)
            by_name[name] = [size * n / m for n in range(m + 1)]
            continue
        others = {(0, other): Pattern(m // 2, m) for other in LINEAR_NAMES}
        costs = []
        for n in range(1, m + 1):
            report(f"cycles of {name} at {n}:{m}")
            costs.append(cycles_of(model, others | {(0, name): Pattern(n, m)}, config, tokens, 1))
        by_name[name] = [costs[0], *costs]
    for layer in range(model.layers):
        found |= {(layer, name): by_name[name] for name in LINEAR_NAMES}
    return found
