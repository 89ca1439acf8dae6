"""A task with labels: a small vision transformer on scikit-learn's handwritten digits, trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..model.bert import LINEAR_NAMES, BertModel
from ..model.vision import VisionModel
from .encoder import Encoder
from .finetune import Classification, Tuning, fine_tune

__all__ = [
    "Digits",
    "Shifted",
    "Taught",
    "VisionNetwork",
    "accuracy",
    "digits",
    "new_vision_model",
    "train_digits",
]

HELD_OUT = 450
"""Of the 1,797 images; the model sees none of them before it is evaluated."""


@dataclass(frozen=True)
class Digits:
    """8 x 8 grey images of digits, values -1 to 1, and their labels: shapes (samples, 1, 8, 8) and (samples,).

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
    images = (images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    labels = labels.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(images[train], labels[train], images[test], labels[test])


class Shifted(Classification):
    """Images moved by up to a pixel each way."""

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Tensor, ...], Tensor]:
        (images,), labels = super().batch(rng, size)
        moves = rng.integers(-1, 2, (len(images), 2))
        edges = nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
        moved = [edges[i, :, 1 + y : 9 + y, 1 + x : 9 + x] for i, (y, x) in enumerate(moves.tolist())]
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
        (images,), _ = super().batch(rng, size)
        with torch.no_grad():
            return (images,), self.teacher(images)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        found, wanted = (nn.functional.log_softmax(t / self._TEMPERATURE, -1) for t in (output, target))
        divergence = nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        return divergence * self._TEMPERATURE**2


class VisionNetwork(nn.Module):
    """A vision transformer as a PyTorch module: images (samples, channels, height, width) to class scores."""

    def __init__(self, model: VisionModel) -> None:
        super().__init__()
        self.model = model
        self.encoder = Encoder(model.encoder)
        self.patch = nn.Parameter(torch.tensor(model.patch))
        self.patch_bias = nn.Parameter(torch.tensor(model.patch_bias))
        self.class_tokens = nn.Parameter(torch.tensor(model.class_tokens))
        self.positions = nn.Parameter(torch.tensor(model.positions))
        self.classifier = nn.Parameter(torch.tensor(model.classifier))
        self.classifier_bias = nn.Parameter(torch.tensor(model.classifier_bias))

    @property
    def linears(self) -> dict[tuple[int, str], nn.Linear]:
        """The encoder's linear layers, by (layer, name)."""
        return self.encoder.linears

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, shape (samples, classes)."""
        size = self.patch.shape[-1]
        embedded = nn.functional.conv2d(images, self.patch, self.patch_bias, size).flatten(2).transpose(1, 2)
        tokens = self.class_tokens.expand(len(images), -1, -1)
        pooled = self.encoder(torch.cat([tokens, embedded], 1) + self.positions)
        return pooled @ self.classifier.T + self.classifier_bias

    def to_model(self) -> VisionModel:
        """The numpy model with this module's parameters."""

        def array(p: Tensor) -> NDArray[np.float32]:
            return p.detach().numpy().copy()

        return VisionModel(
            self.encoder.to_model(), array(self.patch), array(self.patch_bias), array(self.class_tokens),
            array(self.positions), array(self.classifier), array(self.classifier_bias),
        )  # fmt: skip


def new_vision_model(
    seed: int, *, hidden: int = 64, heads: int = 4, layers: int = 3, intermediate: int = 128, classes: int = 10,
    image: int = 8, size: int = 2,
) -> VisionModel:  # fmt: skip
    """A vision transformer with random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.02) -> NDArray[np.float32]:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    tensors: dict[str, NDArray[np.float32]] = {}
    norms = ["embeddings"]
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        norms += [f"{prefix}.attention.output", f"{prefix}.output"]
        for name in LINEAR_NAMES:
            columns = intermediate if name == LINEAR_NAMES[4] else hidden
            reduction = intermediate if name == LINEAR_NAMES[5] else hidden
            tensors[f"{prefix}.{name}.weight"] = normal(columns, reduction, scale=reduction**-0.5)
            tensors[f"{prefix}.{name}.bias"] = np.zeros(columns, np.float32)
    for name in norms:
        tensors[f"{name}.LayerNorm.weight"] = np.ones(hidden, np.float32)
        tensors[f"{name}.LayerNorm.bias"] = np.zeros(hidden, np.float32)
    encoder = BertModel(tensors, hidden, heads, layers, intermediate, norm_first=True, pooling="first")
    return VisionModel(
        encoder, normal(hidden, 1, size, size, scale=0.5), np.zeros(hidden, np.float32), normal(1, hidden),
        normal((image // size) ** 2 + 1, hidden, scale=0.5), normal(classes, hidden), np.zeros(classes, np.float32),
    )  # fmt: skip


def train_digits(
    data: Digits, *, steps: int = 2000, seed: int = 0,
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> VisionNetwork:  # fmt: skip
    """Train a dense fp32 vision transformer: about a minute of one core."""
    torch.manual_seed(seed)
    network = VisionNetwork(new_vision_model(seed))
    task = Shifted(data.train_images, data.train_labels)
    tuning = Tuning(steps, 64, 3e-3, seed, weight_decay=0.05)
    fine_tune(network, network.linears, {}, task, tuning, report=report)
    return network


def accuracy(network: VisionNetwork, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of images that get their label."""
    with torch.no_grad():
        return float((network(torch.from_numpy(images)).argmax(-1).numpy() == labels).mean())
