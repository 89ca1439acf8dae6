"""INT8 weights rounded with the error given on: GPTQ's rule, and smaller errors of what is multiplied."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.compiler.decoder.feedback import error_weights, rounded


def inputs(seed: int, tokens: int, width: int) -> np.ndarray:
    """Whose channels depend on each other, as a network's do."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(tokens, width)) @ rng.normal(size=(width, width)) * rng.uniform(0.1, 3, width)


@pytest.mark.parametrize("reduction", [1, 7, 32, 70])
@pytest.mark.parametrize("sparse", [False, True])
def test_by_the_rule(reduction: int, sparse: bool) -> None:
    """Channel by channel, each time with the inverse of what is left of the damped products (GPTQ, equation 2)."""
    rng = np.random.default_rng(reduction)
    x = inputs(0, 200, reduction)
    weights = rng.uniform(-127, 127, (9, reduction))
    weights[0, 0], weights[1, -1] = 127, -127
    kept = rng.random(weights.shape) < 0.5 if sparse else None
    if kept is not None:
        weights *= kept
    gram = x.T @ x
    left = gram + np.eye(reduction) * 0.01 * np.trace(gram) / reduction
    w, wanted = weights.copy(), np.zeros(weights.shape)
    for i in range(reduction):
        inverse = np.linalg.inv(left[i:, i:])
        wanted[:, i] = np.clip(np.round(w[:, i]), -127, 127)
        if kept is not None:
            wanted[~kept[:, i], i] = 0
        w[:, i:] -= ((w[:, i] - wanted[:, i]) / inverse[0, 0])[:, None] * inverse[0]
    found = rounded(weights, error_weights(gram), kept)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.int8 and np.abs(found.astype(int)).max() <= 127


def test_products_err_less() -> None:
    """On other inputs of the same kind than it was made for; each weight stays near to what it was."""
    x = inputs(1, 3000, 48)
    weights = np.random.default_rng(2).uniform(-20, 20, (64, 48))
    found = rounded(weights, error_weights(x[:2000].T @ x[:2000]))
    nearest = np.round(weights)
    assert (found != nearest).any() and np.abs(found - weights).max() < 20
    new, old = (np.linalg.norm(x[2000:] @ (w - weights).T) for w in (found, nearest))
    assert new < 0.8 * old


def test_without_inputs() -> None:
    """Calibration that was zero everywhere leaves nothing to weigh errors by: to the nearest."""
    weights = np.random.default_rng(3).uniform(-127, 127, (5, 12))
    np.testing.assert_array_equal(rounded(weights, error_weights(np.zeros((12, 12)))), np.round(weights))


def test_what_errors_make_of_the_largest_weights_saturates() -> None:
    """Half a step of the first channel's, times 4, is given to the second one, which is at its end already."""
    upper = np.array([[1.0, -4.0], [0.0, 1.0]])
    assert rounded(np.array([[0.5, 127.0], [-0.5, -127.0], [0.5, 120.0]]), upper).tolist() == [
        [0, 127], [0, -127], [0, 122]
    ]  # fmt: skip
