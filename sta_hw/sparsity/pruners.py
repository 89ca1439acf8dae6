"""One-shot pruners of the linear layers of any PyTorch module: one interface, three methods."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..config import Pattern
from ..errors import InputError
from .masks import nm_mask

__all__ = ["PRUNERS", "Magnitude", "Pruner", "SparseGpt", "Wanda", "capture"]

Key = TypeVar("Key", bound=Hashable)
Batch = tuple[Tensor, ...]
"""Arguments of the network's forward. If the last is bool of shape (texts, tokens), rows it masks do not count."""


class Pruner(Protocol):
    """Prunes a network in place.

    Parameters
    ----------
    network : module, called with a batch's tensors
    linears : linear layers of it to prune, by any name, in the order they run
    patterns : N:M by the same names; layers without one, or with M = 1, stay as they are
    batches : calibration; methods that look at weights alone take none
    report : told what is being done

    Returns
    -------
    dict of bool tensors, shape (columns, reduction)
        The masks; pruned weights are zero.
    """

    def prune(
        self, network: nn.Module, linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern],
        batches: Sequence[Batch] = (), report: Callable[[str], None] = lambda _: None,
    ) -> dict[Key, Tensor]: ...  # fmt: skip


class _ReachedError(Exception):
    """The layer whose input was wanted has it; the rest of the network need not run."""


def capture(network: nn.Module, linears: Mapping[Key, nn.Linear], batches: Sequence[Batch]) -> tuple[Tensor, list[Key]]:
    """Mean outer product of a linear layer's inputs: float64, shape (reduction, reduction).

    Of the layer that runs first among `linears`; returned with the names of all that take this very input (as query,
    key and value do).

    Raises
    ------
    InputError
        If there is no batch, or no layer is reached.
    """
    gram = torch.zeros(0)
    count = 0
    keep: Tensor | None = None
    first: Tensor | None = None
    shared: list[Key] = []

    def hook(key: Key) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            nonlocal first, gram, count
            x = arguments[0]
            if first is not None and x is not first:
                raise _ReachedError
            shared.append(key)
            if first is None:
                first = x
                chosen = x[keep] if keep is not None and keep.shape == x.shape[:-1] else x
                rows = chosen.reshape(-1, x.shape[-1]).double()
                gram = rows.T @ rows + (gram if count else 0)
                count += len(rows)

        return look

    handles = [linear.register_forward_pre_hook(hook(key)) for key, linear in linears.items()]
    try:
        with torch.no_grad():
            for batch in batches:
                keep = batch[-1] if len(batch) > 1 and batch[-1].dtype == torch.bool else None
                first = None
                shared.clear()
                with contextlib.suppress(_ReachedError):
                    network(*batch)
                if first is None:
                    raise InputError(f"no forward of the network reaches {', '.join(map(str, linears))}.")
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise InputError("there is no calibration batch; activation-aware pruning needs at least one.")
    return gram / count, list(shared)


class _InputAware(ABC, Generic[Key]):
    """Layer after layer, each seeing the inputs that the pruned layers before it give."""

    def prune(
        self, network: nn.Module, linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern],
        batches: Sequence[Batch] = (), report: Callable[[str], None] = lambda _: None,
    ) -> dict[Key, Tensor]:  # fmt: skip
        """See `Pruner`.

        Raises
        ------
        InputError
            If there is no calibration batch, or a layer is not reached.
        """
        masks = {}
        left = {key: linear for key, linear in linears.items() if key in patterns and not patterns[key].dense}
        while left:
            gram, keys = capture(network, left, batches)
            for key in keys:
                report(f"pruning {key}")
                masks[key] = self.layer(left.pop(key), patterns[key], gram)
        return masks

    @abstractmethod
    def layer(self, linear: nn.Linear, pattern: Pattern, gram: Tensor) -> Tensor:
        """Prune one layer in place, from the mean outer product of its inputs; return its mask."""


class Magnitude:
    """The N largest magnitudes of each group (Mishra et al., arXiv 2104.08378, section 3)."""

    def prune(
        self, network: nn.Module, linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern],
        batches: Sequence[Batch] = (), report: Callable[[str], None] = lambda _: None,
    ) -> dict[Key, Tensor]:  # fmt: skip
        """See `Pruner`; `batches` are not looked at."""
        masks = {}
        for key, linear in linears.items():
            if key in patterns and not patterns[key].dense:
                masks[key] = nm_mask(linear.weight.detach().abs(), patterns[key])
                linear.weight.data *= masks[key]
        return masks


class Wanda(_InputAware):
    """Magnitude times the norm of the weight's input (Sun et al., arXiv 2306.11695, section 3, equation 1)."""

    def layer(self, linear: nn.Linear, pattern: Pattern, gram: Tensor) -> Tensor:
        norms = gram.diagonal().sqrt().to(linear.weight.dtype)
        mask = nm_mask(linear.weight.detach().abs() * norms, pattern)
        linear.weight.data *= mask
        return mask


class SparseGpt(_InputAware):
    """Optimal Brain Surgeon over a layer's inputs, with weight update.

    SparseGPT (Frantar and Alistarh, arXiv 2301.00774, section 3.3 and algorithm 1; N:M: section 3.4): weights go
    position by position along the reduction dimension; what is dropped is made up for by those behind it, through
    the Cholesky factor of the inverse Hessian. A group's mask is chosen when its first position is reached.

    Parameters
    ----------
    damping : float
        Added to the Hessian's diagonal, as a share of its mean.
    """

    def __init__(self, damping: float = 0.01) -> None:
        self.damping = damping

    def layer(self, linear: nn.Linear, pattern: Pattern, gram: Tensor) -> Tensor:
        hessian = gram.clone()
        silent = hessian.diagonal() == 0
        hessian.diagonal()[silent] = 1.0
        hessian.diagonal().add_(self.damping * hessian.diagonal().mean())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        factor = torch.linalg.cholesky(inverse, upper=True)
        weight = linear.weight.detach().double()
        weight[:, silent] = 0
        mask = torch.ones_like(weight, dtype=torch.bool)
        reduction = weight.shape[1]
        for start in range(0, reduction, pattern.m):
            stop = min(start + pattern.m, reduction)
            part, inside = weight[:, start:stop].clone(), factor[start:stop, start:stop]
            keep = nm_mask(part**2 / inside.diagonal() ** 2, pattern)
            mask[:, start:stop] = keep
            errors = torch.zeros_like(part)
            for i in range(stop - start):
                errors[:, i] = part[:, i] * ~keep[:, i] / inside[i, i]
                part[:, i:] -= errors[:, i : i + 1] * inside[i, i:]
            weight[:, start:stop] = part
            weight[:, stop:] -= errors @ factor[start:stop, stop:]
        linear.weight.data = (weight * mask).to(linear.weight.dtype)
        return mask


PRUNERS: dict[str, Callable[[], Pruner]] = {"magnitude": Magnitude, "wanda": Wanda, "sparsegpt": SparseGpt}
"""By the name `sta-hw prune` takes."""
