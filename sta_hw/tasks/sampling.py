"""Choosing the next token from logits: the largest, or drawn from those that top-k and top-p leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arguments import real, whole
from ..errors import InputError

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes
    ----------
    temperature : float
        Logits are divided by it; 0 takes the largest always (greedy).
    top_k : int
        Of so many of the largest; 0 of all.
    top_p : float
        Of the fewest of the largest whose probabilities sum to at least this; 1 of all.
    seed : int
        The same seed, prompt and model give the same text.

    Raises
    ------
    InputError
        If one is no number, or out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            object.__setattr__(self, name, real(getattr(self, name), name))
        for name in ("top_k", "seed"):
            object.__setattr__(self, name, whole(getattr(self, name), name))
        problems = []
        if not 0 <= self.temperature <= 1000:
            problems.append(f"temperature {self.temperature} is out of range; it is 0 (greedy) to 1000.")
        if self.top_k < 0:
            problems.append(f"top-k {self.top_k} is out of range; it is at least 1, or 0 for all tokens.")
        if not 0 < self.top_p <= 1:
            problems.append(f"top-p {self.top_p} is out of range; it is above 0, and 1 for all tokens.")
        if self.seed < 0:
            problems.append(f"seed {self.seed} is out of range; it is at least 0.")
        if problems:
            raise InputError("\n".join(problems))

    @property
    def needed(self) -> int:
        """How many of the largest logits the choice depends on; 0: on all."""
        return self.top_k if self.temperature else 1


class Sampler:
    """Draws tokens one after the other."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: NDArray) -> int:
        """The next token, from the logits of all; of equal ones, the first.

        Raises
        ------
        InputError
            If the largest is not finite, as where weights are beyond what float32 holds; others may be minus infinity.
        """
        of, largest = self.sampling, logits.max()
        if not np.isfinite(largest):
            raise InputError(f"the largest logit of the next token is {largest}; the model's weights overflow.")
        if not of.temperature:
            return int(np.argmax(logits))
        order = np.argsort(-logits, kind="stable")
        if of.top_k:
            order = order[: of.top_k]
        with np.errstate(over="ignore"):  # minus infinity, whose probability is 0
            scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / of.temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        count = 1 + int(np.searchsorted(np.cumsum(probabilities), of.top_p))
        kept = probabilities[:count]
        return int(order[self._random.choice(len(kept), p=kept / kept.sum())])
