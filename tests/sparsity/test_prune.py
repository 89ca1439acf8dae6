"""One-shot pruning in numpy: optimal brain surgery against its textbook form, whole encoders, what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import in_fp32

from sta_hw.compiler import prune as pruning
from sta_hw.compiler.prune import (
    DAMPING,
    InputStatistics,
    prune_model,
    prune_model_once,
    prune_weights,
    pruning_sentences,
    refit,
    toward_dense,
)
from sta_hw.errors import InputError
from sta_hw.formats.nm import satisfies
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.graph import Graph
from sta_hw.model.minilm import evaluation_sentences
from sta_hw.model.random import random_ids, random_model
from sta_hw.spec.patterns import Pattern, parse_nm

CALIBRATION = [random_ids(seed, 14) for seed in range(24)]


def correlated(rows: int, reduction: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, reduction)) @ (
        rng.normal(size=(reduction, reduction)) * np.linspace(0.2, 2, reduction)
    )


def surgery(row: np.ndarray, gram: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Optimal Brain Surgeon as in the textbook: weights are dropped one by one, the inverse Hessian is brought up to
    date by elimination, and weights that were passed no longer move."""
    hessian = gram + DAMPING * np.diag(gram).mean() * np.eye(len(gram))
    found = row.copy()
    for i in range(len(row)):
        inverse = np.linalg.inv(hessian[i:, i:])
        if not keep[i]:
            found[i:] -= found[i] / inverse[0, 0] * inverse[0]
            found[i] = 0
    return found


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "3:8", "8:16", "1:32"])
def test_it_is_optimal_brain_surgery(pattern: str) -> None:
    x = correlated(200, 40)
    gram = x.T @ x / len(x)
    weights = np.random.default_rng(1).normal(size=(6, 40))
    found, mask = prune_weights(weights, gram, parse_nm(pattern))
    assert satisfies(found, parse_nm(pattern)) and ((found != 0) == mask).all()
    for row, keep, own in zip(weights, mask, found, strict=True):
        np.testing.assert_allclose(own, surgery(row, gram, keep), rtol=1e-6, atol=1e-9)


def test_what_is_kept_is_fitted_to_its_mask() -> None:
    """No kept weight can be moved for the better; columns keep different numbers, one of them nothing."""
    x = correlated(200, 40)
    gram = x.T @ x / len(x)
    weights = np.random.default_rng(1).normal(size=(7, 40))
    pruned, mask = prune_weights(weights, gram, Pattern(2, 4))
    mask[1, ::3], mask[5] = False, False
    found = refit(weights, gram, mask, damping=1e-9)
    assert not found[~mask].any()
    slope = (found - weights) @ gram
    np.testing.assert_allclose(slope[mask], 0, atol=1e-6)

    def loss(w: np.ndarray) -> np.ndarray:
        return ((w - weights) @ gram * (w - weights)).sum(1)

    assert (loss(found)[[0, 2, 3, 4, 6]] < loss(pruned)[[0, 2, 3, 4, 6]]).all()
    silent = gram.copy()
    silent[:, 3] = silent[3] = 0
    assert np.isfinite(refit(weights, silent, mask)).all() and not refit(weights, 0 * gram, mask)[~mask].any()


def test_inputs_that_are_always_zero_have_no_weights() -> None:
    x = correlated(100, 16)
    x[:, [3, 7]] = 0
    found, _ = prune_weights(np.ones((4, 16)), x.T @ x / 100, Pattern(8, 16))
    assert not found[:, [3, 7]].any() and np.isfinite(found).all()


def test_regression_makes_up_for_changed_inputs() -> None:
    dense = correlated(300, 12)
    pruned = dense @ (np.eye(12) + 0.1 * np.random.default_rng(2).normal(size=(12, 12)))
    weights = np.random.default_rng(3).normal(size=(5, 12))
    moved = toward_dense(weights, InputStatistics.of(pruned, dense), ridge=1e-9)
    np.testing.assert_allclose(pruned @ moved.T, dense @ weights.T, rtol=1e-4, atol=1e-4)


def mean_cosine(model: Graph, other: Graph) -> float:
    found = []
    for seed in range(100, 130):
        a, b = (in_fp32(m, random_ids(seed, 14)).astype(float) for m in (model, other))
        found.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return float(np.mean(found))


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_keeps_more_than_by_magnitude(norm_first: bool) -> None:
    model = random_model(0, layers=2, norm_first=norm_first)
    patterns = {f"{layer}.{name}": parse_nm("2:4") for layer in range(2) for name in LINEAR.values()}
    patterns["0.output.dense"] = parse_nm("dense")
    steps: list[str] = []
    found = prune_model(model, patterns, CALIBRATION, report=steps.append)
    assert len(steps) == 8
    for key, pattern in patterns.items():
        weight = found.linear(key).weight
        assert weight.dtype == np.float32 and (pattern.m == 1 or satisfies(weight, pattern))
    np.testing.assert_array_equal(found.linear("0.output.dense").weight, model.linear("0.output.dense").weight)
    by_magnitude = prune_model(model, patterns, [], method="magnitude")
    assert mean_cosine(model, found) > mean_cosine(model, by_magnitude) + 0.02
    again = prune_model(found, patterns, CALIBRATION)
    assert all(again.tensors[name] is tensor for name, tensor in found.tensors.items())


def test_kept_by_everything_that_shapes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STA_HW_CACHE", str(tmp_path))
    model = random_model(0)
    patterns = {"0.intermediate.dense": parse_nm("2:4")}
    found = prune_model_once(model, patterns, CALIBRATION)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "prune_model", lambda *_, **__: pytest.fail("pruned again"))
        again = prune_model_once(model, patterns, CALIBRATION)
    assert all((again.tensors[n] == t).all() for n, t in found.tensors.items())

    changed = model.with_tensors(model.tensors | {"embeddings.LayerNorm.bias": np.ones(32, np.float32)})
    for other in (
        (changed, patterns, CALIBRATION),
        (model, {"0.intermediate.dense": parse_nm("1:4")}, CALIBRATION),
        (model, patterns, CALIBRATION[1:]),
    ):
        before = len(list(tmp_path.iterdir()))
        prune_model_once(*other)
        assert len(list(tmp_path.iterdir())) == before + 1

    for damage in (path.read_bytes()[:-5], path.read_bytes()[:-1] + b"\x55", b""):
        path.write_bytes(damage)
        again = prune_model_once(model, patterns, CALIBRATION)
        assert all((again.tensors[n] == t).all() for n, t in found.tensors.items())


def test_sentences_are_not_evaluated() -> None:
    sentences = pruning_sentences()
    assert len(sentences) == len(set(sentences)) == 384
    assert not set(sentences) & set(evaluation_sentences())


def test_refusals() -> None:
    patterns = {"0.output.dense": parse_nm("2:4")}
    with pytest.raises(InputError, match="'wanda' is unknown; it is sparsegpt or magnitude"):
        prune_model(random_model(0), patterns, CALIBRATION, method="wanda")
    with pytest.raises(InputError, match="at least one"):
        prune_model(random_model(0), patterns, [])
