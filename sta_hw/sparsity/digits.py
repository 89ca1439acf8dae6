"""A task with labels: a small vision transformer on scikit-learn's handwritten digits, trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..model.families import vit
from ..model.graph import Graph
from ..model.random import Draw, Drawn, drawn
from ..model.settings import Settings
from .finetune import Classification, Tuning, fine_tune
from .torch_graph import TorchGraph

__all__ = [
    "Digits",
    "Shifted",
    "Taught",
    "accuracy",
    "digits",
    "new_vision_graph",
    "train_digits",
]

HELD_OUT = 450
"""Of the 1,797 images; the model sees none of them before it is evaluated."""


@dataclass(frozen=True)
class Digits:
    """8 x 8 grey images of digits, values -1 to 1, and their labels: shapes (samples, 8, 8, 1) and (samples,).

    From the UCI test set "Optical Recognition of Handwritten Digits" (CC BY 4.0), as scikit-learn carries it.
    """

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def digits(seed: int = 0) -> Digits:
    """Training and held-out images, split at random."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32)
    labels = labels.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(images[train], labels[train], images[test], labels[test])


class Shifted(Classification):
    """Images moved by up to a pixel each way."""

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Moved images, shape (samples, channels, 8, 8), and their labels."""
        (images,), labels = super().batch(rng, size)
        moves = rng.integers(-1, 2, (len(images), 2))
        edges = nn.functional.pad(images, (0, 0, 1, 1, 1, 1), value=-1.0)
        moved = [edges[i, 1 + y : 9 + y, 1 + x : 9 + x] for i, (y, x) in enumerate(moves.tolist())]
        return (torch.stack(moved),), labels


class Taught(Shifted):
    """The same images, and what another network says of them, softened: knowledge distillation.

    The loss is the Kullback-Leibler divergence at a temperature of 2, times its square (Hinton et al., arXiv
    1503.02531, section 2).
    """

    _TEMPERATURE = 2.0

    def __init__(self, images: NDArray[np.float32], labels: NDArray[np.int64], teacher: nn.Module) -> None:
        super().__init__(images, labels)
        self.teacher = teacher

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Moved images, and the teacher's logits, shape (samples, classes)."""
        (images,), _ = super().batch(rng, size)
        with torch.no_grad():
            return (images,), self.teacher(images)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Of logits, shape (samples, classes), both."""
        found, wanted = (nn.functional.log_softmax(t / self._TEMPERATURE, -1) for t in (output, target))
        divergence = nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        return divergence * self._TEMPERATURE**2


def new_vision_graph(
    seed: int, *, hidden: int = 64, heads: int = 4, layers: int = 3, intermediate: int = 128, classes: int = 10,
    image: int = 8, size: int = 2,
) -> Graph:  # fmt: skip
    """An image classifier of ViT's kind with random weights."""
    settings = {
        "model_type": "vit", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": intermediate, "patch_size": size, "num_channels": 1, "image_size": image,
        "architectures": ["ViTForImageClassification"], "id2label": {str(i): str(i) for i in range(classes)},
    }  # fmt: skip
    rng = np.random.default_rng(seed)

    def make(draw: Draw) -> Graph:
        return vit.build(Settings(settings, Path()), Drawn(draw), "vit").verify()

    def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name.endswith("bias"):
            return np.zeros(shape, np.float32)
        if "layernorm" in name:
            return np.ones(shape, np.float32)
        scale = 0.02
        if name.startswith("encoder."):
            scale = shape[1] ** -0.5
        elif "patch" in name or "position" in name:
            scale = 0.5
        return (rng.normal(size=shape) * scale).astype(np.float32)

    return drawn(make, draw, lambda name: not name.startswith("encoder."))


def train_digits(
    data: Digits, *, steps: int = 2000, seed: int = 0,
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> TorchGraph:  # fmt: skip
    """Train a dense fp32 vision transformer: about a minute of one core."""
    torch.manual_seed(seed)
    network = TorchGraph(new_vision_graph(seed))
    task = Shifted(data.train_images, data.train_labels)
    tuning = Tuning(steps, 64, 3e-3, seed, weight_decay=0.05)
    fine_tune(network, network.linears, {}, task, tuning, report=report)
    return network


def accuracy(network: TorchGraph, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of images that get their label."""
    with torch.no_grad():
        return float((network(torch.from_numpy(images)).argmax(-1).numpy() == labels).mean())
