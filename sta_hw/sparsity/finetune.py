"""Fine-tuning of pruned networks: a task, fixed masks or SR-STE, seeded, resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ..errors import InputError
from ..spec.patterns import Pattern
from .masks import divergence, nm_mask
from .state import load_state, save_state
from .torch_graph import pad

__all__ = [
    "Classification",
    "Distillation",
    "FineTuned",
    "SrSte",
    "Task",
    "Tuning",
    "fine_tune",
    "new_optimizer",
    "sparse_masks",
]

Key = TypeVar("Key", bound=Hashable)


class Task(Protocol):
    """What a network learns."""

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Any, ...], Tensor]:
        """Arguments of the network's forward, and what it should give."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """A scalar."""


class Distillation:
    """Embeddings of another encoder: of texts, and of their tokens behind every layer.

    The loss is 1 - cosine of both, added; the layers' outputs tell the lower ones more than the last alone would
    (TinyBERT, Jiao et al., arXiv 1909.10351, section 3.1).

    Parameters
    ----------
    embedded : embedding sums, each (tokens, hidden)
    targets : the other encoder's outputs, each (tokens, layers, hidden)
    pool : function
        Tokens' outputs and their mask to a text's, as the encoder does.
    """

    def __init__(
        self, embedded: Sequence[NDArray[np.float32]], targets: Sequence[NDArray[np.float32]],
        pool: Callable[[Tensor, Tensor], Tensor],
    ) -> None:  # fmt: skip
        self.embedded, self.targets, self.pool = embedded, targets, pool
        # Batches of texts of about one length waste no work on padding.
        self.by_length = np.argsort([len(e) for e in embedded], kind="stable")

    def choose(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Numbers of texts of about one length."""
        start = int(rng.integers(max(1, len(self.by_length) - size + 1)))
        return self.by_length[start : start + size]

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Any, ...], Tensor]:
        """Texts of about one length, padded with zeros to (texts, tokens, channels), and the teacher's outputs."""
        chosen = self.choose(rng, size)
        return (*pad([self.embedded[i] for i in chosen]), False), pad([self.targets[i] for i in chosen])[0]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """2 less two mean cosines: of the pooled vectors, and behind every layer of each token that is no padding."""
        mask = target[:, :, -1].abs().sum(-1) > 0  # padding is zeros, a token's output never
        found, wanted = (self.pool(t[:, :, -1], mask) for t in (output, target))
        whole = functional.cosine_similarity(found, wanted).mean()
        single = functional.cosine_similarity(output[mask], target[mask], dim=-1).mean()
        return 2 - whole - single


class Classification:
    """Labels: cross-entropy.

    Parameters
    ----------
    inputs : shape (samples, ...)
    labels : shape (samples,)
    """

    def __init__(self, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        self.inputs, self.labels = torch.from_numpy(inputs), torch.from_numpy(labels)

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Different samples, drawn: inputs, and labels of shape (samples,)."""
        chosen = rng.choice(len(self.labels), min(size, len(self.labels)), replace=False)
        return (self.inputs[chosen],), self.labels[chosen]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of logits, shape (samples, classes), and labels, shape (samples,)."""
        return functional.cross_entropy(output, target)


class _SparseRefined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return gradient + ctx.decay * torch.where(mask, 0.0, weight), None, None


class SrSte(nn.Module):
    """Dense weights of which the forward pass sees the N largest of each group; as a parametrization.

    SR-STE (Zhou et al., arXiv 2102.04010, section 3.3, equation 9): the gradient goes straight through the mask, and
    ``decay * (1 - mask) * weight`` is added, so that pruned weights shrink and masks settle. Once `settled` is set,
    the mask stays as it is, and pruned weights learn no more.

    Parameters
    ----------
    scale : of the weight's shape
        What magnitudes are multiplied by before they are compared; 1 if not given.
    """

    mask: Tensor

    def __init__(self, pattern: Pattern, decay: float = 2e-4, scale: Tensor | None = None) -> None:
        super().__init__()
        self.pattern, self.decay, self.scale, self.settled = pattern, decay, scale, False
        self.register_buffer("mask", torch.zeros(0, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        if self.settled:
            return weight * self.mask
        magnitude = weight.detach().abs()
        self.mask = nm_mask(magnitude if self.scale is None else magnitude * self.scale, self.pattern)
        return _SparseRefined.apply(weight, self.mask, self.decay)


@dataclass(frozen=True)
class Tuning:
    """How to fine-tune.

    Attributes
    ----------
    steps, batch : int
    rate : float
        AdamW's largest learning rate; it rises over a tenth of the steps and falls as a cosine to a hundredth.
    seed : int
        Of the batches.
    dynamic : bool
        SR-STE: masks follow the weights; else they stay.
    decay : float
        SR-STE's lambda.
    settle : float
        SR-STE: the share of the steps, at their end, in which masks stay.
    weight_decay : float
        AdamW's.
    """

    steps: int = 200
    batch: int = 32
    rate: float = 3e-4
    seed: int = 0
    dynamic: bool = False
    decay: float = 2e-4
    settle: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or not self.rate > 0:
            raise InputError(
                f"steps = {self.steps}, batch = {self.batch}, rate = {self.rate}: steps is at least 0, batch at least "
                "1, the rate above 0; 200, 32 and 0.0003 are usual."
            )
        if not 0 <= self.settle <= 1:
            raise InputError(f"settle = {self.settle}: it is a share of the steps, 0 to 1; 0.5 is usual.")


@dataclass
class FineTuned:
    """What came of it.

    Attributes
    ----------
    losses : list of float
        Of every step.
    divergences : list of float
        SR-STE's Sparse Architecture Divergence between masks `_EVERY` steps apart.
    masks : bool tensors by layer
    """

    losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)
    masks: dict[Any, Tensor] = field(default_factory=dict)


_EVERY = 10
"""Steps between looks at the masks, and between saved states."""


def sparse_masks(linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern]) -> dict[Key, Tensor]:
    """Masks of the largest weights that are there now."""
    return {
        key: nm_mask(linear.weight.detach().abs(), patterns[key])
        for key, linear in linears.items()
        if key in patterns and not patterns[key].dense
    }


def new_optimizer(network: nn.Module, tuning: Tuning) -> torch.optim.Optimizer:
    """AdamW over a network's parameters."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, tuning.rate, weight_decay=tuning.weight_decay)


def _rate(tuning: Tuning, step: int) -> float:
    rise = max(1, tuning.steps // 10)
    if step < rise:
        return tuning.rate * (step + 1) / rise
    along = (step - rise) / max(1, tuning.steps - rise)
    return tuning.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * along)) / 2)


def fine_tune(
    network: nn.Module, linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern], task: Task, tuning: Tuning,
    *, masks: Mapping[Key, Tensor] | None = None, scales: Mapping[Key, Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None, state: Path | None = None,
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> FineTuned:  # fmt: skip
    """Train `network` in place, its linear layers sparse before and after.

    Parameters
    ----------
    masks : fixed masks; of the largest weights if not given
    scales : what SR-STE multiplies magnitudes by before it compares them
    optimizer : of the network's parameters, with what it knows of them; a new AdamW if not given
    state : file
        Saved every few steps and at the end, and gone on from if it exists.
    report : told steps done, steps in all, and the loss

    Raises
    ------
    InputError
        If `state` was made with other settings, or cannot be read.
    """
    found = FineTuned()
    sparse = {key: linears[key] for key in sparse_masks(linears, patterns)}
    fixed = dict(masks or sparse_masks(sparse, patterns))
    refined: dict[Key, SrSte] = {}
    if tuning.dynamic:
        for key, linear in sparse.items():
            refined[key] = SrSte(patterns[key], tuning.decay, (scales or {}).get(key))
            parametrize.register_parametrization(linear, "weight", refined[key])
    rng = np.random.default_rng(tuning.seed)
    optimizer = optimizer or new_optimizer(network, tuning)
    first = 0
    described = f"{tuning} {sorted((str(k), str(p)) for k, p in patterns.items())}"
    if state is not None and state.exists():
        first, found = _resume(state, described, network, optimizer, rng, list(sparse))
    before = found.masks or _masks_now(sparse, patterns)

    def save(step: int) -> None:
        if state is not None:
            found.masks = before
            so_far = {"losses": found.losses, "divergences": found.divergences,
                      "masks": {str(key): mask for key, mask in before.items()}}  # fmt: skip
            save_state(state, {"step": step, "described": described, "network": network.state_dict(), "found": so_far,
                               "optimizer": optimizer.state_dict(), "rng": rng.bit_generator.state})  # fmt: skip

    def settle(step: int) -> None:
        for parametrization in refined.values():
            parametrization.settled = step >= tuning.steps * (1 - tuning.settle) and tuning.settle > 0

    network.train()
    for step in range(first, tuning.steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(tuning, step)
        settle(step)
        arguments, target = task.batch(rng, tuning.batch)
        loss = task.loss(network(*arguments), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not tuning.dynamic:
            for key, linear in sparse.items():
                linear.weight.data *= fixed[key]
        found.losses.append(loss.item())
        report(step + 1, tuning.steps, found.losses[-1])
        if (step + 1) % _EVERY == 0:
            if tuning.dynamic:
                now = _masks_now(sparse, patterns)
                found.divergences.append(divergence(before, now))
                before = now
            save(step + 1)
    save(tuning.steps)
    settle(tuning.steps)  # of a state that was finished already, too
    network.eval()
    for linear in sparse.values():
        if parametrize.is_parametrized(linear):
            parametrize.remove_parametrizations(linear, "weight")  # leaves what the forward pass sees
    found.masks = sparse_masks(sparse, patterns) if tuning.dynamic else fixed
    return found


def _masks_now(linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern]) -> dict[Key, Tensor]:
    """Masks of the weights that the forward pass sees."""
    return {key: nm_mask(linear.weight.detach().abs(), patterns[key]) for key, linear in linears.items()}


def _resume(
    state: Path, described: str, network: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator,
    keys: Sequence[Hashable],
) -> tuple[int, FineTuned]:  # fmt: skip
    saved = load_state(state)
    if saved.get("described") != described:
        raise InputError(f"{state} was saved by a run with other settings; delete it, or repeat them.")
    try:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        rng.bit_generator.state = saved["rng"]
        found = saved["found"]
        masks = {key: found["masks"][str(key)] for key in keys}
        return saved["step"], FineTuned(found["losses"], found["divergences"], masks)
    except Exception as error:
        raise InputError(f"{state} is not a saved state of this network ({error}); delete it to begin anew.") from error
