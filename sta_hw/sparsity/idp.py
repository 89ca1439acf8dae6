"""A series of N:M networks, each made from the one before: inherited dynamic pruning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..spec.patterns import Pattern
from .finetune import FineTuned, Task, Tuning, fine_tune, new_optimizer

__all__ = ["Level", "idp", "levels_down", "steps_by_level"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Level:
    """One network of the series: what was fine-tuned, and how it went."""

    pattern: Pattern
    network: nn.Module
    tuned: FineTuned


def levels_down(m: int, last: int) -> list[Pattern]:
    """N walked down from M - 1 to `last`.

    Raises
    ------
    InputError
        If `last` is not among 1 to M - 1.
    """
    if not 1 <= last < m:
        raise InputError(f"the last N of a series at M = {m} is 1 to {m - 1}, not {last}; the nearest is 1.")
    return [Pattern(n, m) for n in range(m - 1, last - 1, -1)]


def steps_by_level(levels: Sequence[Pattern], steps: int) -> list[int]:
    """Fine-tuning steps of each level, `steps` on average: as 1 / N squared, and one at least.

    A level takes away 1 / N of what is there: from 15:16 to 14:16 hardly anything is lost, from 3:16 to 2:16 a third.
    """
    shares = [level.n**-2.0 for level in levels]
    whole = steps * len(levels)
    return [max(1, round(whole * share / sum(shares))) if steps else 0 for share in shares]


def idp(
    network: nn.Module, linears: Callable[[nn.Module], dict[Key, nn.Linear]], levels: Sequence[Pattern], task: Task,
    tuning: Tuning, *, states: Path | None = None,
    report: Callable[[Pattern, int, int, float], None] = lambda level, done, total, loss: None,
) -> Iterator[Level]:  # fmt: skip
    """Networks for every level, each fine-tuned from the last level's winner.

    IDP with sparsity inheritance (STA, arXiv 2208.06118, section III): at each level the weights of the level before
    are pruned to the next N, and fine-tuned while the masks follow the weights (SR-STE): a weight that was dropped
    begins at zero, and comes back when it grows larger than one that is kept; in the second half of a level's steps
    masks stay. What is larger is told as in Optimal Brain Damage (LeCun et al., NIPS 1990, section 2.2), by the weight
    times the root of its mean squared gradient, which the optimizer knows from the levels before; the first level has
    magnitudes alone.

    `tuning` is used with ``dynamic`` set, its steps being a level's on average (`steps_by_level`), its rate that of
    the longest level: shorter ones have as much less as the root of their share, for few large steps of AdamW take
    more from a network than a mild level did.

    Parameters
    ----------
    network : module
        Not changed; copies are.
    linears : function
        The layers to prune of such a module, by name.
    states : folder
        For resuming: a state for each level.
    """
    current = copy.deepcopy(network)
    # The optimizer's moments are inherited too: begun anew at each level, its first steps undo what was learned.
    optimizer = new_optimizer(current, tuning)
    counts = steps_by_level(levels, tuning.steps)
    for number, (pattern, steps) in enumerate(zip(levels, counts, strict=True)):
        layers = linears(current)
        patterns = dict.fromkeys(layers, pattern)
        state = states / f"level-{pattern.n}-{pattern.m}.safetensors" if states else None
        tuned = fine_tune(
            current,
            layers,
            patterns,
            task,
            replace(
                tuning,
                steps=steps,
                rate=tuning.rate * math.sqrt(max(1, steps) / max(1, *counts)),
                dynamic=True,
                settle=0.5,
                seed=tuning.seed + number,
            ),
            optimizer=optimizer,
            scales=_saliency_scales(optimizer, layers),
            state=state,
            report=partial(report, pattern),
        )
        yield Level(pattern, copy.deepcopy(current), tuned)


def _saliency_scales(optimizer: torch.optim.Optimizer, layers: Mapping[Key, nn.Linear]) -> dict[Key, Tensor]:
    """The root of each weight's mean squared gradient, where the optimizer has seen some."""
    seen = {key: optimizer.state[linear.weight] for key, linear in layers.items() if linear.weight in optimizer.state}
    return {key: state["exp_avg_sq"].sqrt() for key, state in seen.items()}
