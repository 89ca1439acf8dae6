"""Series of networks: every level satisfied, made from the level before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_finetune import task_and_teacher

from sta_hw.errors import InputError
from sta_hw.formats.nm import keep_mask, satisfies
from sta_hw.sparsity.finetune import FineTuned, Tuning, fine_tune
from sta_hw.sparsity.idp import Level, idp, levels_down, steps_by_level
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.patterns import Pattern


def test_levels() -> None:
    assert [str(p) for p in levels_down(4, 1)] == ["3:4", "2:4", "1:4"]
    assert len(levels_down(16, 2)) == 14
    for last in (0, 4):
        with pytest.raises(InputError, match="1 to 3"):
            levels_down(4, last)


def test_series(tmp_path: Path) -> None:
    task, teacher = task_and_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    levels = levels_down(8, 2)
    found = list(idp(teacher, lambda n: n.linears, levels, task, Tuning(10, 8, 3e-3), states=tmp_path))
    assert [f.pattern for f in found] == levels
    for level in found:
        assert isinstance(level.network, TorchGraph)
        for linear in level.network.linears.values():
            assert satisfies(linear.weight.detach().numpy(), level.pattern)
    assert all(torch.equal(before[n], v) for n, v in teacher.state_dict().items())
    # A level inherits: it begins no worse than one-shot pruning from dense would be after as many steps.
    assert found[-1].tuned.losses[-1] < found[-1].tuned.losses[0] + 0.2
    assert [len(f.tuned.losses) for f in found] == steps_by_level(levels, 10)


def test_steps_grow_with_what_is_lost() -> None:
    levels = levels_down(16, 2)
    steps = steps_by_level(levels, 24)
    assert abs(sum(steps) - 24 * len(levels)) <= len(levels) and steps == sorted(steps)
    assert steps[-1] / steps[-2] == pytest.approx((3 / 2) ** 2, rel=0.02)
    assert min(steps_by_level(levels, 1)) == 1 and steps_by_level(levels, 0) == [0] * len(levels)


@pytest.mark.parametrize("stop", [(Pattern(5, 8), 1), (Pattern(3, 8), 13), (Pattern(2, 8), 20)])
def test_resumed_is_the_same(stop: tuple[Pattern, int], tmp_path: Path) -> None:
    """Interrupted within a level, before its masks settle and behind; whole levels are not worked on again."""
    levels, tuning = levels_down(8, 2), Tuning(10, 8, 3e-3, 5)

    def series(states: Path | None, interrupted: bool = False) -> list[Level]:
        task, teacher = task_and_teacher()

        def report(level: Pattern, done: int, total: int, loss: float) -> None:
            if interrupted and (level, done) == stop:
                raise KeyboardInterrupt

        return list(idp(teacher, lambda n: n.linears, levels, task, tuning, states=states, report=report))

    whole = series(None)
    with pytest.raises(KeyboardInterrupt):
        series(tmp_path, interrupted=True)
    again = series(tmp_path)
    for a, b in zip(whole, again, strict=True):
        assert a.tuned.losses == b.tuned.losses
        assert all(torch.equal(v, w) for v, w in zip(a.network.parameters(), b.network.parameters(), strict=True))


def test_masks_change_between_levels() -> None:
    """A weight dropped at one level may come back at a sparser one: masks are not nested by force."""
    task, teacher = task_and_teacher()
    series = list(idp(teacher, lambda n: n.linears, [Pattern(3, 4), Pattern(2, 4)], task, Tuning(40, 8, 2e-2)))
    masks = [{k: w.weight != 0 for k, w in level.network.linears.items()} for level in series]
    returned = sum(int((masks[1][k] & ~masks[0][k]).sum()) for k in masks[0])
    assert returned > 0


def test_levels_behind_the_first_prune_by_saliency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight times the root of its mean squared gradient, of which the first level knows nothing."""
    seen = []

    def look(network: TorchGraph, linears: dict, patterns: dict, *arguments: Any, **options: Any) -> FineTuned:
        before = {key: linear.weight.detach().clone() for key, linear in linears.items()}
        seen.append((before, patterns, dict(options["scales"])))
        return fine_tune(network, linears, patterns, *arguments, **options)

    monkeypatch.setattr("sta_hw.sparsity.idp.fine_tune", look)
    task, teacher = task_and_teacher()
    levels = [Pattern(3, 4), Pattern(2, 4)]
    _, second = idp(teacher, lambda n: n.linears, levels, task, Tuning(2, 8, 1e-9))
    assert seen[0][2] == {} and set(seen[1][2]) == set(teacher.linears)
    differ = 0
    for key, scale in seen[1][2].items():
        weight = seen[1][0][key].numpy()
        expected = keep_mask(np.abs(weight) * scale.numpy(), levels[1])
        # A rate of next to nothing: what is kept is what was the largest when the level began.
        np.testing.assert_array_equal(second.tuned.masks[key].numpy() & (weight != 0), expected & (weight != 0))
        differ += int((expected != keep_mask(np.abs(weight), levels[1])).sum())
    assert differ > 0
