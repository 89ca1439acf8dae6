"""Models damaged at random, in several ways at once: the answer is right, or refused with tensor, place, value, limit.

`PYTHONPATH=tests python tests/compiler/test_damages.py 0 1000` tries seeds 0 to 999 and lists what is neither; a
tenth of a second each.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter

import numpy as np
import pytest
from extreme_models import IDS, make, right_or_refused

from sta_hw.model.graph import Graph

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
Tensors = dict[str, np.ndarray]


class Damages:
    """One model's, drawn from a seed; each method does one kind."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = make(
            seed, norm_first=bool(self.rng.integers(2)), activation=str(self.rng.choice(["gelu", "relu"])),
            pooling=str(self.rng.choice(["mean", "first"])),
        )  # fmt: skip
        self.tensors: Tensors = {k: v.copy() for k, v in self.model.tensors.items()}

    def pick(self, *ends: str, dimensions: int = 0) -> np.ndarray:
        """A tensor of the layers, or a LayerNorm's."""
        names = [
            n for n, t in self.tensors.items()
            if n.endswith(ends) and (n.startswith("encoder") or "LayerNorm" in n) and dimensions in (0, t.ndim)
        ]  # fmt: skip
        return self.tensors[str(self.rng.choice(names))]

    def some(self, count: int) -> np.ndarray:
        return self.rng.integers(0, count, self.rng.integers(1, count))

    def factor(self, low: float, high: float) -> np.float32:
        return np.float32(10.0 ** self.rng.uniform(low, high))

    def rows_of_zero(self) -> None:
        t = self.pick("weight", dimensions=2)
        t[self.some(len(t) // 2)] = 0

    def columns_of_zero(self) -> None:
        t = self.pick("weight", dimensions=2)
        t[:, self.some(t.shape[1] // 2)] = 0

    def row_scaled(self) -> None:
        t = self.pick("weight", "bias")
        t[self.rng.integers(len(t))] *= self.factor(-30, 30)

    def column_scaled(self) -> None:
        t = self.pick("weight", dimensions=2)
        t[:, self.rng.integers(t.shape[1])] *= self.factor(-30, 6)

    def tensor_scaled(self) -> None:
        self.pick("weight", "bias")[:] *= self.factor(-30, 30)

    def dead_head(self) -> None:
        name = self.rng.choice(["query", "key", "value"])
        prefix = f"encoder.layer.{self.rng.integers(2)}.attention.self.{name}"
        first = 16 * self.rng.integers(2)
        for kind in ("weight", "bias"):
            self.tensors[f"{prefix}.{kind}"][first : first + 16] = 0

    def constant_channels(self) -> None:
        self.pick("LayerNorm.weight")[self.some(32)] = 0

    def negative_channels(self) -> None:
        self.pick("LayerNorm.weight")[self.some(32)] *= -1

    def channel_scaled(self) -> None:
        self.pick("LayerNorm.weight", "LayerNorm.bias")[self.rng.integers(32)] *= self.factor(-10, 8)

    def huge_biases(self) -> None:
        t = self.pick("bias")
        t[self.some(len(t))] = self.factor(0, 8) * self.rng.choice([-1, 1])

    def one_huge_bias(self) -> None:
        self.pick("bias")[:] = self.factor(0, 8)

    def huge_word(self) -> None:
        self.tensors["embeddings.word_embeddings.weight"][self.rng.choice(IDS)] *= self.factor(0, 38.4)

    def huge_weight(self) -> None:
        t = self.pick("weight", dimensions=2)
        t[self.rng.integers(len(t)), self.rng.integers(t.shape[1])] = self.factor(-3, 20)

    def rows_alike(self) -> None:
        t = self.pick("weight", dimensions=2)
        t[:] = t[self.rng.integers(len(t))]

    def damaged(self) -> Graph:
        kinds = [getattr(self, n) for n in vars(Damages) if n not in ("__init__", "pick", "some", "factor", "damaged")
                 and n[0] != "_"]  # fmt: skip
        with np.errstate(all="ignore"):
            for _ in range(self.rng.integers(1, 5)):
                kinds[self.rng.integers(len(kinds))]()
        return self.model.with_tensors(self.tensors)


@pytest.mark.parametrize("seed", range(40))
def test_right_or_refused(seed: int) -> None:
    right_or_refused(Damages(seed).damaged())


def main() -> int:
    warnings.simplefilter("error", RuntimeWarning)
    count: Counter[str] = Counter()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            count["refused" if right_or_refused(Damages(seed).damaged()) else "right"] += 1
        except Exception as error:
            count["neither"] += 1
            print(seed, type(error).__name__, error, flush=True)
    print(dict(count))
    return 1 if count["neither"] else 0


if __name__ == "__main__":
    sys.exit(main())
