"""N of every layer at one M, under a budget of parameters, multiply-accumulates or the accelerator's cycles."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..spec.patterns import Pattern
from .pruners import Batch

__all__ = ["domino_search", "sensitivities"]

Key = TypeVar("Key", bound=Hashable)


def sensitivities(
    network: nn.Module, linears: Mapping[Key, nn.Linear], batches: Sequence[Batch],
    loss: Callable[[Tensor, int], Tensor], m: int,
) -> dict[Key, list[float]]:  # fmt: skip
    """For every layer, by how much the loss rises when it alone is pruned to N:M, for N = 0 to M.

    To second order in the weights, with the squared gradients of single batches for the Hessian's diagonal (the
    Fisher information): half the sum over pruned weights of ``w**2 * E[g**2]``.

    Parameters
    ----------
    loss : of the network's output and the number of the batch

    Returns
    -------
    dict of lists of M + 1 numbers, falling from N = 0 to 0 at N = M
    """
    if not batches:
        raise InputError("there is no calibration batch; the search needs at least one.")
    squares = {key: torch.zeros_like(linear.weight) for key, linear in linears.items()}
    network.eval()
    for number, batch in enumerate(batches):
        network.zero_grad()
        loss(network(*batch), number).backward()
        for key, linear in linears.items():
            assert linear.weight.grad is not None
            squares[key] += linear.weight.grad**2 / len(batches)
    network.zero_grad()
    found = {}
    for key, linear in linears.items():
        cost = linear.weight.detach() ** 2 * squares[key] / 2
        # Of each group's costs in falling order N:M prunes all but N; what completes a last group costs nothing.
        groups = functional.pad(cost, (0, -cost.shape[1] % m)).reshape(-1, m)
        ranked = groups.sort(dim=1, descending=True).values.sum(0, dtype=torch.float64)
        falls = [ranked[n:].sum().item() for n in range(m + 1)]
        found[key] = falls
    return found


def domino_search(
    errors: Mapping[Key, Sequence[float]], costs: Mapping[Key, Sequence[float]], budget: float, m: int,
    *, least: int = 1,
) -> dict[Key, Pattern]:  # fmt: skip
    """Choose N of every layer so that the costs' sum is within `budget` and the errors' sum is small.

    DominoSearch (Sun et al., NeurIPS 2021, section 3): from dense on, the layer where it hurts least for what it
    saves goes to the next N, one group size M for all (section 3.1's layer-wise N:M, section 3.3's cost-aware
    penalty). Where the paper lowers a magnitude threshold until groups fall to the next N one after the other, like
    dominoes, this takes the steps in order of error over saving, from the errors of `sensitivities`.

    Parameters
    ----------
    errors, costs : M + 1 numbers for each layer, for N = 0 to M
        The costs in any unit: parameters, multiply-accumulates, cycles of `estimate_cycles`.
    budget : float
        In the costs' unit.
    least : int
        The smallest N.

    Raises
    ------
    InputError
        If even the sparsest choice is beyond the budget; the message says what it costs.
    """
    chosen = dict.fromkeys(errors, m)
    total = sum(costs[key][m] for key in errors)
    lowest = sum(costs[key][least] for key in errors)
    if lowest > budget:
        raise InputError(
            f"the budget of {budget:,.0f} is out of reach: with N = {least} everywhere the cost is {lowest:,.0f}."
        )
    order = list(errors)

    def step(key: Key) -> tuple[float, int, int] | None:
        """The best next N of a layer: the one with the least error per saving, possibly several below."""
        now = chosen[key]
        best = None
        for n in range(least, now):
            saving = costs[key][now] - costs[key][n]
            if saving > 0:
                slope = (errors[key][n] - errors[key][now]) / saving
                if best is None or slope <= best[0]:
                    best = (slope, order.index(key), n)
        return best

    heap = [s for key in order if (s := step(key))]
    heapq.heapify(heap)
    while total > budget:
        _, index, n = heapq.heappop(heap)
        key = order[index]
        # The last step may be shorter, so that no more is given up than must be.
        fitting = [k for k in range(n, chosen[key]) if total - costs[key][chosen[key]] + costs[key][k] <= budget]
        target = max(fitting, default=n)
        total += costs[key][target] - costs[key][chosen[key]]
        chosen[key] = target
        if found := step(key):
            heapq.heappush(heap, found)
    # What is left of the budget goes where it helps most.
    while True:
        raises = [
            ((errors[key][chosen[key]] - errors[key][n]) / max(costs[key][n] - costs[key][chosen[key]], 1e-9), key, n)
            for key in order
            for n in range(chosen[key] + 1, m + 1)
            if total - costs[key][chosen[key]] + costs[key][n] <= budget and errors[key][n] < errors[key][chosen[key]]
        ]
        if not raises:
            break
        _, key, n = max(raises, key=lambda r: r[0])
        total += costs[key][n] - costs[key][chosen[key]]
        chosen[key] = n
    return {key: Pattern(n, m) for key, n in chosen.items()}
