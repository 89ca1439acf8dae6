"""DominoSearch: budgets hold, choices are good, sensitivities are what a loss does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from support import embed, inner

from sta_hw.errors import InputError
from sta_hw.model.random import random_ids, random_model
from sta_hw.sparsity.costs import cycles_of, layer_costs
from sta_hw.sparsity.domino import domino_search, sensitivities
from sta_hw.sparsity.torch_graph import TorchGraph, pad
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS


def problem(seed: int, layers: int, m: int) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    rng = np.random.default_rng(seed)
    errors = {i: [*np.sort(rng.random(m) ** 3 * rng.integers(1, 20))[::-1].tolist(), 0.0] for i in range(layers)}
    costs = {i: (rng.integers(1, 9) * np.arange(m + 1.0) + rng.random()).tolist() for i in range(layers)}
    return errors, costs


@pytest.mark.parametrize("seed", range(8))
def test_close_to_the_best_choice(seed: int) -> None:
    m = 4
    errors, costs = problem(seed, 4, m)
    for share in (0.3, 0.5, 0.8, 1.0):
        budget = share * sum(c[m] for c in costs.values()) + 0.3 * sum(c[1] for c in costs.values())
        found = domino_search(errors, costs, budget, m)
        assert sum(costs[i][p.n] for i, p in found.items()) <= budget
        best = min(
            sum(errors[i][n] for i, n in enumerate(choice))
            for choice in itertools.product(range(1, m + 1), repeat=4)
            if sum(costs[i][n] for i, n in enumerate(choice)) <= budget
        )
        assert sum(errors[i][p.n] for i, p in found.items()) <= 1.35 * best + 0.3


def test_enough_for_all_is_dense_and_too_little_is_refused() -> None:
    errors, costs = problem(0, 3, 8)
    dense = sum(c[8] for c in costs.values())
    assert all(p == Pattern(8, 8) for p in domino_search(errors, costs, dense, 8).values())
    least = sum(c[1] for c in costs.values())
    assert all(p == Pattern(1, 8) for p in domino_search(errors, costs, least, 8).values())
    with pytest.raises(InputError, match="out of reach"):
        domino_search(errors, costs, 0.99 * least, 8)


def test_sensitivities() -> None:
    """They fall with N, end at zero, and follow the loss that pruning one layer really causes."""
    model = random_model(1, layers=1)
    network = TorchGraph(inner(model))
    batches = [pad([embed(model, random_ids(10 * b + i, 8)) for i in range(8)]) for b in range(12)]
    wanted = [network(*b).detach() for b in batches]

    def loss(output: torch.Tensor, number: int) -> torch.Tensor:
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(number))
        return (output * noise).sum()

    found = sensitivities(network, network.linears, batches, loss, 8)
    real = {}
    for key, falls in found.items():
        assert len(falls) == 9 and falls[8] == 0 and all(a >= b for a, b in itertools.pairwise(falls))
        pruned = TorchGraph(inner(model))
        linear = pruned.linears[key]
        from sta_hw.sparsity.masks import nm_mask

        linear.weight.data *= nm_mask(linear.weight.detach().abs(), Pattern(2, 8))
        with torch.no_grad():
            real[key] = sum(float(((pruned(*b) - w) ** 2).sum()) for b, w in zip(batches, wanted, strict=True))
    ranks = [np.argsort(np.argsort(v)) for v in ([found[k][2] for k in found], list(real.values()))]
    assert np.corrcoef(*ranks)[0, 1] > 0.5
    with pytest.raises(InputError, match="no calibration"):
        sensitivities(network, network.linears, [], loss, 8)


def test_costs_in_every_unit() -> None:
    model = random_model(0, hidden=128, intermediate=512, layers=2)
    config = PRESETS["small"]
    parameters = layer_costs(model, "parameters", 16, config, 12)
    macs = layer_costs(model, "macs", 16, config, 12)
    cycles = layer_costs(model, "cycles", 16, config, 12)
    for key in parameters:
        assert parameters[key][8] == model.linear(key).weight.size / 2
        assert macs[key] == [12 * c for c in parameters[key]]
        assert cycles[key][16] > cycles[key][1]
    dense = cycles_of(model, {}, config, 12)
    sparse = cycles_of(model, dict.fromkeys(parameters, Pattern(2, 16)), config, 12)
    assert sparse < dense
    with pytest.raises(InputError, match="parameters, macs, cycles"):
        layer_costs(model, "joules", 16, config, 12)
