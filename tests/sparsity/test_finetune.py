"""Fine-tuning: it learns, keeps groups satisfied, and an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import embed, inner
from torch import nn

from sta_hw.errors import InputError
from sta_hw.formats.nm import satisfies
from sta_hw.model.random import random_ids, random_model
from sta_hw.sparsity.finetune import Classification, Distillation, FineTuned, SrSte, Tuning, fine_tune
from sta_hw.sparsity.pruners import Magnitude
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.patterns import Pattern


class Harm:
    """Pickled, it is a command that runs when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def task_and_teacher() -> tuple[Distillation, TorchGraph]:
    model = random_model(0, layers=1)
    teacher = TorchGraph(inner(model))
    embedded = [embed(model, random_ids(i, 3 + i % 7)) for i in range(40)]
    with torch.no_grad():
        targets = [teacher(torch.from_numpy(e)[None], None, False)[0].numpy() for e in embedded]
    return Distillation(embedded, targets, teacher.pool), teacher


def tune(
    tuning: Tuning, pattern: Pattern, state: Path | None = None, report: Any = None
) -> tuple[TorchGraph, FineTuned]:
    task, teacher = task_and_teacher()
    network = TorchGraph(teacher.graph)
    patterns = dict.fromkeys(network.linears, pattern)
    masks = None if tuning.dynamic else Magnitude().prune(network, network.linears, patterns)
    extra = {"report": report} if report else {}
    found = fine_tune(network, network.linears, patterns, task, tuning, masks=masks, state=state, **extra)
    return network, found


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(4, 16)], ids=str)
def test_loss_falls_and_groups_stay_satisfied(dynamic: bool, pattern: Pattern) -> None:
    network, found = tune(Tuning(60, 8, 3e-3, 0, dynamic), pattern)
    assert np.mean(found.losses[-5:]) < 0.7 * np.mean(found.losses[:5])
    for key, linear in network.linears.items():
        weight = linear.weight.detach()
        assert satisfies(weight.numpy(), pattern) and bool((weight[~found.masks[key]] == 0).all())
    assert len(found.divergences) == (6 if dynamic else 0)
    assert all(0 <= d < 0.5 for d in found.divergences)


def test_dense_and_distilled_to_itself_has_no_loss() -> None:
    _, found = tune(Tuning(1, 8, 1e-6, 0), Pattern(1, 1))
    assert found.losses[0] == pytest.approx(0, abs=1e-5)


def test_sr_ste_gradient() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 8, requires_grad=True)
    upstream = torch.randn(3, 8)
    refined = SrSte(Pattern(2, 4), decay=0.1)(weight)
    refined.backward(upstream)
    pruned = refined == 0
    assert pruned.sum() == 12
    expected = upstream + 0.1 * torch.where(pruned, weight.detach(), 0.0)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("dynamic", [False, True])
def test_resumed_is_the_same(dynamic: bool, tmp_path: Path) -> None:
    tuning = Tuning(30, 8, 3e-3, 5, dynamic)
    whole, _ = tune(tuning, Pattern(2, 8))

    def interrupt(done: int, total: int, loss: float) -> None:
        if done == 25:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(tuning, Pattern(2, 8), state, interrupt)
    steps: list[int] = []
    again, found = tune(tuning, Pattern(2, 8), state, lambda done, total, loss: steps.append(done))
    assert steps == list(range(21, 31)) and len(found.losses) == 30
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_states_that_do_not_fit(tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    tune(Tuning(5, 8, 1e-3, 0), Pattern(2, 8), state)
    with pytest.raises(InputError, match="other settings"):
        tune(Tuning(6, 8, 1e-3, 0), Pattern(2, 8), state)
    whole = state.read_bytes()
    harm = tmp_path / "harm"
    for damaged in (b"nothing", b"", whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), pickle.dumps(Harm(harm))):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match="not a saved state"):
            tune(Tuning(5, 8, 1e-3, 0), Pattern(2, 8), state)
    torch.save(Harm(harm), state)
    with pytest.raises(InputError, match="not a saved state"):
        tune(Tuning(5, 8, 1e-3, 0), Pattern(2, 8), state)
    assert not harm.exists()


def test_settings_are_checked() -> None:
    for wrong in ({"steps": -1}, {"batch": 0}, {"rate": 0.0}):
        with pytest.raises(InputError, match="usual"):
            Tuning(**wrong)
    for share in (-0.1, 1.1):
        with pytest.raises(InputError, match="share of the steps, 0 to 1"):
            Tuning(settle=share)


def test_masks_settle() -> None:
    """In the settled half of the steps no mask changes, and pruned weights get no gradient."""
    _, moving = tune(Tuning(60, 8, 3e-2, 0, True), Pattern(2, 8))
    _, settled = tune(Tuning(60, 8, 3e-2, 0, True, settle=0.5), Pattern(2, 8))
    assert moving.divergences[:3] == settled.divergences[:3] and min(moving.divergences[3:]) > 0
    assert settled.divergences[3:] == [0, 0, 0]


def test_classification_learns_labels() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 4)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    network = nn.Linear(4, 2)
    fine_tune(network, {}, {}, Classification(inputs, labels), Tuning(80, 32, 0.1))
    assert (network(torch.from_numpy(inputs)).argmax(-1).numpy() == labels).mean() > 0.95
