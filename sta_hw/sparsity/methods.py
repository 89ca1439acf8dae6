"""Everything `sta-hw prune` can do to a text encoder, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ..errors import InputError
from ..spec.config import Config
from ..spec.patterns import Pattern
from .costs import cycles_of, layer_costs
from .domino import domino_search, sensitivities
from .finetune import Tuning, fine_tune
from .idp import idp, levels_down
from .names import METHODS, ONE_SHOT
from .pruners import PRUNERS
from .torch_graph import TorchGraph
from .workbench import Workbench

__all__ = ["METHODS", "Pruned", "domino_patterns", "prune"]

assert tuple(PRUNERS) == ONE_SHOT
_TOKENS = 128
"""Of the texts whose cycles DominoSearch's budget counts."""

Patterns = dict[str, Pattern]
Progress = Callable[[str, int, int, float], None]
"""Told what is being done, steps done, steps in all, and the loss."""


@dataclass(frozen=True)
class Pruned:
    """One network that came out.

    Attributes
    ----------
    method, seed
    name : str
        The N:M, or for DominoSearch the uniform one whose budget it keeps.
    patterns : N:M by name
    encoder : TorchGraph
    steps : int
        Of fine-tuning, all levels of a series together.
    """

    method: str
    name: str
    seed: int
    patterns: Patterns
    encoder: TorchGraph
    steps: int


def domino_patterns(
    bench: Workbench, pattern: Pattern, config: Config, budget: str = "cycles"
) -> tuple[Patterns, float, float]:
    """DominoSearch's N of every layer, at most as costly as `pattern` everywhere; both costs.

    Costs in cycles are verified with the cycle model for the whole encoder, and the budget lowered until it holds.
    """
    graph, m = bench.graph, pattern.m
    encoder = TorchGraph(graph)
    bench.report("sensitivities")
    errors = sensitivities(encoder, encoder.linears, bench.calibration, bench.loss, m)
    costs = layer_costs(graph, budget, m, config, _TOKENS, bench.report)
    uniform = dict.fromkeys(encoder.linears, pattern)
    limit = sum(costs[key][pattern.n] for key in uniform)
    allowed = limit
    if budget != "cycles":
        found = domino_search(errors, costs, allowed, m)
        return found, sum(costs[k][p.n] for k, p in found.items()), limit
    wanted = cycles_of(graph, uniform, config, _TOKENS)
    while True:
        found = domino_search(errors, costs, allowed, m)
        cycles = cycles_of(graph, found, config, _TOKENS)
        if cycles <= wanted:
            return found, cycles, wanted
        allowed -= max(cycles - wanted, 1e-3 * wanted)


def prune(
    bench: Workbench, method: str, pattern: Pattern, tuning: Tuning, config: Config, *,
    patterns: Mapping[str, Pattern] | None = None, budget: str = "cycles", pruner: str = "sparsegpt",
    states: Path | None = None, progress: Progress = lambda what, done, total, loss: None,
) -> Iterator[Pruned]:  # fmt: skip
    """Prune, and fine-tune by distillation for `tuning.steps` steps (of each level, in a series).

    Parameters
    ----------
    method : str
        One of `METHODS`: a one-shot pruner, SR-STE, a series down to `pattern` (IDP), or N chosen for each layer
        (DominoSearch).
    patterns : N:M of single layers, instead of `pattern` everywhere
    budget : str
        DominoSearch's: parameters, macs or cycles.
    pruner : str
        What prunes to the N:M that DominoSearch chose.
    states : folder
        Saved states, for resuming.

    Raises
    ------
    InputError
        If the method is unknown or does not go with what was given.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; it is {', '.join(METHODS)}.")
    if pattern.dense and not patterns:
        raise InputError("there is nothing to prune at N = M; 8:16 is a mild choice.")
    encoder = TorchGraph(bench.graph)
    chosen = dict(patterns or dict.fromkeys(encoder.linears, pattern))
    if method == "idp":
        if patterns:
            raise InputError("a series (idp) has one N:M for all layers; leave the table out.")
        total = 0

        def linears(network: nn.Module) -> dict[str, nn.Linear]:
            assert isinstance(network, TorchGraph)
            return network.linears

        for level in idp(
            encoder, linears, levels_down(pattern.m, pattern.n), bench.task, tuning, states=states,
            report=lambda at, done, steps, loss: progress(f"idp {at}", done, steps, loss),
        ):  # fmt: skip
            total += len(level.tuned.losses)
            assert isinstance(level.network, TorchGraph)
            level_patterns = dict.fromkeys(encoder.linears, level.pattern)
            yield Pruned(method, str(level.pattern), tuning.seed, level_patterns, level.network, total)
        return
    if method == "domino":
        chosen, _, _ = domino_patterns(bench, pattern, config, budget)
        method = f"domino-{budget}"
    masks = None
    if method != "sr-ste":
        how = PRUNERS[pruner if method.startswith("domino") else method]()
        batches = [] if method == "magnitude" else bench.calibration
        masks = how.prune(encoder, encoder.linears, chosen, batches, bench.report)
    if tuning.steps:
        state = states / "tuning.safetensors" if states else None
        settings = replace(tuning, dynamic=method == "sr-ste")
        fine_tune(
            encoder, encoder.linears, chosen, bench.task, settings, masks=masks, state=state,
            report=lambda done, steps, loss: progress(f"{method} {pattern}", done, steps, loss),
        )  # fmt: skip
    yield Pruned(method, str(pattern), tuning.seed, chosen, encoder, tuning.steps)
