"""N:M masks of PyTorch weights, and how much two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ..spec.patterns import Pattern

__all__ = ["Key", "divergence", "nm_mask"]

Key = TypeVar("Key")
"""Names a linear layer."""


def nm_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """The N weights with the largest score in every group of M, ties to the lower position.

    Parameters
    ----------
    scores : shape (columns, reduction)
        Groups run along the reduction dimension; a last group shorter than M is completed with positions that
        score below all others.

    Returns
    -------
    bool tensor of the same shape
    """
    columns, reduction = scores.shape
    if pattern.dense:
        return torch.ones_like(scores, dtype=torch.bool)
    full = functional.pad(scores, (0, -reduction % pattern.m), value=-torch.inf)
    order = full.reshape(columns, -1, pattern.m).argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros(order.shape, dtype=torch.bool)
    mask.scatter_(-1, order[..., : pattern.n], True)
    return mask.reshape(columns, -1)[:, :reduction]


def divergence(before: Mapping[Key, Tensor], after: Mapping[Key, Tensor]) -> float:
    """Sparse Architecture Divergence: the share of weights that one mask keeps and the other does not.

    SR-STE (Zhou et al., arXiv 2102.04010, section 3.2, "SAD") counts them; the share compares models of any size.
    """
    changed = sum(int((mask != after[key]).sum()) for key, mask in before.items())
    return changed / max(1, sum(mask.numel() for mask in before.values()))
