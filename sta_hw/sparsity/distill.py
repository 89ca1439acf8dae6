"""Distillation of pruned decoders: the dense model's own distribution of each next token, masks kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..model.graph import Graph
from ..model.operations import Linear
from ..spec.patterns import Pattern
from .finetune import FineTuned, Tuning, fine_tune
from .torch_graph import TorchGraph

__all__ = ["NextTokenDistillation", "distill_decoder"]


class _Half(nn.Module):
    """A network whose products multiply in bfloat16; its parameters stay what they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(given).float()


class NextTokenDistillation:
    """What `teacher` expects behind each token of texts: a task for `fine_tune`.

    The loss is the Kullback-Leibler divergence from its distribution, in natural units a token (Hinton et al., arXiv
    1503.02531, with a temperature of 1).

    Parameters
    ----------
    teacher : module
        The dense decoder, token ids to logits; it is asked as batches come, since those of all texts would be
        gigabytes.
    texts : token ids of texts

    Raises
    ------
    InputError
        If there is no text.
    """

    def __init__(self, teacher: nn.Module, texts: Sequence[Sequence[int]]) -> None:
        if not texts:
            raise InputError("there is no text to distil with; there must be at least one.")
        self.teacher, self.texts = teacher, texts

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Tensor], Tensor]:
        """Token ids of up to `size` texts, and what follows each token; behind a text's end nothing does."""
        chosen = [self.texts[i] for i in rng.choice(len(self.texts), min(size, len(self.texts)), replace=False)]
        ids = torch.zeros(len(chosen), max(map(len, chosen)), dtype=torch.long)
        inside = torch.zeros(ids.shape, dtype=torch.bool)
        for row, text in enumerate(chosen):
            ids[row, : len(text)] = torch.tensor(text)
            inside[row, : len(text)] = True
        with torch.no_grad():
            target = self.teacher(ids).softmax(-1)
            target *= inside[..., None]
        return (ids,), target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over tokens; those behind a text's end have a target of zeros and count for nothing."""
        return functional.kl_div(output.log_softmax(-1), target, reduction="sum") / target.sum()


def distill_decoder(
    dense: Graph, pruned: Graph, patterns: Mapping[str, Pattern], texts: Sequence[Sequence[int]], tuning: Tuning, *,
    bfloat16: bool = False, state: Path | None = None,
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> tuple[Graph, FineTuned]:  # fmt: skip
    """Train the products of a pruned decoder's layers to give the dense one's next tokens.

    Embeddings, head and norms stay; so do biases that are zero, as most checkpoints have no tensors for them.

    Parameters
    ----------
    dense, pruned : Graph
        The same network before and after pruning.
    patterns : N:M by name
        That `pruned` satisfies, and what comes of it: weights that are zero in a pruned product stay zero.
    texts : token ids of texts
        Each behind the token that texts begin with; a step takes ``tuning.batch`` of them.
    bfloat16 : bool
        Both networks' products multiply in bfloat16; weights, their sums of steps and the loss stay in fp32. Half of
        the time, or less, where the processor does so itself, and many times as much elsewhere.
    state : file
        As in `fine_tune`.

    Returns
    -------
    the trained network, and its losses

    Raises
    ------
    InputError
        If there is no text, or `state` is another run's.
    """
    teacher, network = TorchGraph(dense).eval(), TorchGraph(pruned)
    teacher.requires_grad_(False)
    network.requires_grad_(False)
    for linear in network.linears.values():
        linear.weight.requires_grad_(True)
        linear.bias.requires_grad_(bool(linear.bias.any()))
    asked, trained = (_Half(n) if bfloat16 else n for n in (teacher, network))
    found = fine_tune(
        trained, network.linears, patterns, NextTokenDistillation(asked, texts), tuning, state=state, report=report
    )
    changed: dict[str, Linear] = {}
    for name, linear in network.linears.items():
        weight, bias = (t.detach().numpy().copy() for t in (linear.weight, linear.bias))
        changed[name] = replace(pruned.linears[name], weight=weight, bias=bias)
    return pruned.replaced(changed), found
