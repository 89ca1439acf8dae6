"""Pruners: every group satisfied, errors in the order the papers claim, formulas against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sta_hw.errors import InputError
from sta_hw.formats.nm import keep_mask, satisfies
from sta_hw.sparsity.pruners import PRUNERS, AsymmetricSparseGpt, SparseGpt, capture
from sta_hw.spec.patterns import Pattern

PATTERNS = [Pattern(1, 4), Pattern(2, 4), Pattern(3, 8), Pattern(8, 16), Pattern(15, 16), Pattern(1, 32)]


class Network(nn.Module):
    """Three products, of which the first two have one input."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b, self.c = nn.Linear(40, 24), nn.Linear(40, 24), nn.Linear(24, 8)

    @property
    def linears(self) -> dict[str, nn.Linear]:
        return {"a": self.a, "b": self.b, "c": self.c}

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.c(torch.tanh(self.a(x)) * self.b(x))


def batches(count: int = 4) -> list[tuple[torch.Tensor, ...]]:
    """Correlated inputs of uneven size, padded with rubbish that the mask leaves out."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(40, 40)) * np.linspace(0.1, 2, 40)
    found = []
    for _ in range(count):
        x = (rng.normal(size=(5, 9, 40)) @ mixing).astype(np.float32)
        mask = rng.random((5, 9)) < 0.8
        x[~mask] = 1e3
        found.append((torch.from_numpy(x), torch.from_numpy(mask)))
    return found


@pytest.mark.parametrize("method", PRUNERS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_groups_are_satisfied(method: str, pattern: Pattern) -> None:
    network = Network()
    patterns = {"a": pattern, "c": pattern}
    kept = network.b.weight.detach().clone()
    masks = PRUNERS[method]().prune(network, network.linears, patterns, batches())
    assert set(masks) == {"a", "c"} and torch.equal(kept, network.b.weight)
    for name, mask in masks.items():
        weight = network.linears[name].weight.detach()
        assert satisfies(weight.numpy(), pattern) and bool((weight[~mask] == 0).all())
        assert bool((weight[mask] != 0).all())


def test_errors_fall_from_method_to_method() -> None:
    errors = []
    for method in PRUNERS:
        network = Network()
        data = batches()
        wanted = [Network().a(x[m]) for x, m in data]
        PRUNERS[method]().prune(network, {"a": network.a}, {"a": Pattern(4, 16)}, data)
        found = [network.a(x[m]) for x, m in data]
        errors.append(sum(((f - w) ** 2).sum().item() for f, w in zip(found, wanted, strict=True)))
    assert errors[0] > 1.1 * errors[1] and errors[1] > 1.2 * errors[2]


def test_capture_is_the_mean_outer_product_without_padding() -> None:
    network, data = Network(), batches()
    gram, shared = capture(network, network.linears, data)
    rows = np.concatenate([x[m].numpy() for x, m in data]).astype(np.float64)
    np.testing.assert_allclose(gram.numpy(), rows.T @ rows / len(rows), rtol=1e-12)
    assert shared == ["a", "b"]


def test_wanda_scores() -> None:
    network, data = Network(), batches()
    rows = np.concatenate([x[m].numpy() for x, m in data]).astype(np.float64)
    weight = network.a.weight.detach().numpy().copy()
    mask = PRUNERS["wanda"]().prune(network, {"a": network.a}, {"a": Pattern(2, 8)}, data)["a"]
    norms = np.sqrt((rows**2).mean(0)).astype(np.float32)
    np.testing.assert_array_equal(mask.numpy(), keep_mask(np.abs(weight) * norms, Pattern(2, 8)))


def test_sparsegpt_in_white_noise_is_magnitude() -> None:
    linear = nn.Linear(32, 16)
    weight = linear.weight.detach().clone()
    mask = SparseGpt().layer(linear, Pattern(2, 8), torch.eye(32, dtype=torch.float64))
    np.testing.assert_array_equal(mask.numpy(), keep_mask(weight.abs().numpy(), Pattern(2, 8)))
    torch.testing.assert_close(linear.weight.detach(), weight * mask)


def test_sparsegpt_makes_up_for_what_it_drops() -> None:
    """Of two inputs that are the same, the second one's weight carries both."""
    linear = nn.Linear(2, 1)
    linear.weight.data = torch.tensor([[1.0, 2.0]])
    SparseGpt(damping=1e-9).layer(linear, Pattern(1, 2), torch.ones(2, 2, dtype=torch.float64))
    np.testing.assert_allclose(linear.weight.detach().numpy(), [[0.0, 3.0]], rtol=1e-3)


def test_asymmetric_calibration_begins_as_sparsegpt() -> None:
    """The first layer's inputs are the dense network's: only the bias differs, by the mean that pruning took."""
    found = []
    data = batches()
    for method in (SparseGpt(), AsymmetricSparseGpt()):
        network = Network()
        mask = method.prune(network, network.linears, {"a": Pattern(3, 8)}, data)["a"]
        found.append((network, mask))
    (plain, mask), (other, other_mask) = found
    torch.testing.assert_close(plain.a.weight, other.a.weight)
    assert torch.equal(mask, other_mask) and not torch.equal(plain.a.bias, other.a.bias)
    missing = sum((Network().a(x[m]) - other.a(x[m])).sum(0) for x, m in data)
    assert missing.abs().max() < 1e-2


def test_asymmetric_calibration_makes_up_for_earlier_layers() -> None:
    errors = []
    data = batches(16)
    for method in (SparseGpt(), AsymmetricSparseGpt()):
        network = Network()
        method.prune(network, network.linears, dict.fromkeys("abc", Pattern(4, 8)), data)
        errors.append(sum(((network(x)[m] - Network()(x)[m]) ** 2).sum().item() for x, m in data))
    assert errors[1] < 0.9 * errors[0]


def test_refusals() -> None:
    network = Network()
    with pytest.raises(InputError, match="no calibration batch"):
        PRUNERS["wanda"]().prune(network, network.linears, {"a": Pattern(2, 4)})
    with pytest.raises(InputError, match="reaches other"):
        PRUNERS["sparsegpt"]().prune(network, {"other": nn.Linear(40, 4)}, {"other": Pattern(2, 4)}, batches())
    with pytest.raises(InputError, match="reaches other"):
        PRUNERS["sparsegpt-asymmetric"]().prune(
            network, {"other": nn.Linear(40, 4)}, {"other": Pattern(2, 4)}, batches()
        )
