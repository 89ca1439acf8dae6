"""The task with labels: its split, its augmentation, a few steps of learning; the rest is `sta-hw bench digits`."""

from __future__ import annotations

import numpy as np
import torch

from sta_hw.formats.nm import satisfies
from sta_hw.sparsity.digits import (
    HELD_OUT,
    Shifted,
    Taught,
    accuracy,
    digits,
    new_vision_graph,
    train_digits,
)
from sta_hw.sparsity.finetune import Tuning, fine_tune
from sta_hw.sparsity.pruners import SparseGpt
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.patterns import Pattern


def test_held_out_images_are_not_learned() -> None:
    data = digits()
    assert len(data.test_labels) == HELD_OUT and len(data.train_labels) == 1797 - HELD_OUT
    assert data.train_images.min() == -1 and data.train_images.max() == 1
    seen = {image.tobytes() for image in data.train_images}
    assert not any(image.tobytes() in seen for image in data.test_images)
    assert set(data.test_labels.tolist()) == set(range(10))
    other = digits(seed=1)
    assert not np.array_equal(other.test_labels, data.test_labels)


def test_images_move_by_a_pixel_at_most() -> None:
    data = digits()
    (moved,), labels = Shifted(data.train_images, data.train_labels).batch(np.random.default_rng(0), 32)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(data.train_labels), 32, replace=False)
    np.testing.assert_array_equal(labels.numpy(), data.train_labels[chosen])
    for image, found in zip(data.train_images[chosen], moved.numpy(), strict=True):
        edged = np.pad(image[..., 0], 1, constant_values=-1)
        assert any(np.array_equal(found[..., 0], edged[y : y + 8, x : x + 8]) for y in range(3) for x in range(3))


def test_a_teachers_own_scores_cost_nothing() -> None:
    data = digits()
    teacher = TorchGraph(new_vision_graph(0)).eval()
    task = Taught(data.train_images, data.train_labels, teacher)
    (images,), scores = task.batch(np.random.default_rng(0), 16)
    assert abs(task.loss(teacher(images), scores).item()) < 1e-6
    # At a temperature of 2, against the definition.
    other = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    p, q = (np.exp(t.detach().double().numpy() / 2) for t in (scores, other))
    p, q = (v / v.sum(1, keepdims=True) for v in (p, q))
    np.testing.assert_allclose(task.loss(other, scores).item(), 4 * (p * np.log(p / q)).sum(1).mean(), rtol=1e-5)


def test_training_pruning_tuning() -> None:
    data = digits()
    dense = train_digits(data, steps=150)
    before = accuracy(dense, data.test_images, data.test_labels)
    assert before > 0.6
    network = TorchGraph(dense.to_graph())
    patterns = dict.fromkeys(network.linears, Pattern(4, 16))
    batches = [(torch.from_numpy(data.train_images[:128]),)]
    masks = SparseGpt().prune(network, network.linears, patterns, batches)
    pruned = accuracy(network, data.test_images, data.test_labels)
    task = Taught(data.train_images, data.train_labels, dense)
    fine_tune(network, network.linears, patterns, task, Tuning(60, 64, 2e-3), masks=masks)
    assert accuracy(network, data.test_images, data.test_labels) > pruned
    assert all(satisfies(w.weight.detach().numpy(), Pattern(4, 16)) for w in network.linears.values())
