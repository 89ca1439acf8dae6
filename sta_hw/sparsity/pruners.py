"""One-shot pruners of the linear layers of any PyTorch module: one interface, four methods."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..compiler.prune import DAMPING, RIDGE, InputStatistics, prune_weights, toward_dense
from ..errors import InputError
from ..spec.patterns import Pattern
from .masks import nm_mask

__all__ = [
    "PRUNERS",
    "AsymmetricSparseGpt",
    "Magnitude",
    "Pruner",
    "SparseGpt",
    "Wanda",
    "capture",
    "first_inputs",
]

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


def first_inputs(network: nn.Module, linears: Mapping[Key, nn.Linear], batch: Batch) -> tuple[Tensor, list[Key]]:
    """Inputs of the layer that runs first among `linears`: float64, shape (rows, reduction).

    With the names of all that take this very input (as query, key and value do).

    Raises
    ------
    InputError
        If no layer is reached.
    """
    first: Tensor | None = None
    shared: list[Key] = []

    def hook(key: Key) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            nonlocal first
            if first is not None and arguments[0] is not first:
                raise _ReachedError
            shared.append(key)
            first = arguments[0]

        return look

    handles = [linear.register_forward_pre_hook(hook(key)) for key, linear in linears.items()]
    try:
        with torch.no_grad(), contextlib.suppress(_ReachedError):
            network(*batch)
    finally:
        for handle in handles:
            handle.remove()
    if first is None:
        raise InputError(f"no forward of the network reaches {', '.join(map(str, linears))}.")
    keep = batch[-1] if len(batch) > 1 and batch[-1].dtype == torch.bool else None
    chosen = first[keep] if keep is not None and keep.shape == first.shape[:-1] else first
    return chosen.reshape(-1, first.shape[-1]).double(), shared


def capture(network: nn.Module, linears: Mapping[Key, nn.Linear], batches: Sequence[Batch]) -> tuple[Tensor, list[Key]]:
    """Mean outer product of a linear layer's inputs: float64, shape (reduction, reduction).

    Of the layer that runs first among `linears`, and the names of all that share its input; see `first_inputs`.

    Raises
    ------
    InputError
        If there is no batch, or no layer is reached.
    """
    _require(batches)
    gram = torch.zeros(())
    count = 0
    for batch in batches:
        rows, shared = first_inputs(network, linears, batch)
        gram = gram + rows.T @ rows
        count += len(rows)
    return gram / count, shared


def _linear(network: nn.Module, name: str) -> nn.Linear:
    module = network.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def _require(batches: Sequence[Batch]) -> None:
    if not batches:
        raise InputError("there is no calibration batch; activation-aware pruning needs at least one.")


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
        """Prune one layer in place; its mask. `gram`: inputs' products, shape (reduction, reduction)."""
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

    def __init__(self, damping: float = DAMPING) -> None:
        self.damping = damping

    def layer(self, linear: nn.Linear, pattern: Pattern, gram: Tensor) -> Tensor:
        """Prune one layer in place; its mask. `gram`: inputs' products, shape (reduction, reduction)."""
        weight = linear.weight.detach()
        found, mask = prune_weights(weight.double().numpy(), gram.numpy(), pattern, self.damping)
        linear.weight.data = torch.from_numpy(found).to(weight.dtype)
        return torch.from_numpy(mask)


class AsymmetricSparseGpt(SparseGpt):
    """SparseGPT towards the outputs of the dense network.

    Calibration is asymmetric, as in GPTAQ (Li et al., arXiv 2504.02692, section 3): a layer's inputs are what the
    pruned layers before it give, its wanted outputs those of the dense weights for the dense network's inputs. Weights
    are first moved to the ridge regression of the ones on the others, then pruned; the bias takes the mean that is
    left. So a layer makes up for those before it.

    Parameters
    ----------
    ridge : float
        Of the regression, as a share of the mean of the Hessian's diagonal.
    """

    def __init__(self, damping: float = DAMPING, ridge: float = RIDGE) -> None:
        super().__init__(damping)
        self.ridge = ridge

    def prune(
        self, network: nn.Module, linears: Mapping[Key, nn.Linear], patterns: Mapping[Key, Pattern],
        batches: Sequence[Batch] = (), report: Callable[[str], None] = lambda _: None,
    ) -> dict[Key, Tensor]:  # fmt: skip
        """See `Pruner`; raises what `Wanda` does."""
        _require(batches)
        dense = copy.deepcopy(network)
        modules = dict(network.named_modules())
        left = {key: linear for key, linear in linears.items() if key in patterns and not patterns[key].dense}
        names = {key: next((n for n, m in modules.items() if m is linear), None) for key, linear in left.items()}
        if strangers := [key for key, name in names.items() if name is None]:
            raise InputError(f"no forward of the network reaches {', '.join(map(str, strangers))}.")
        twins = {key: _linear(dense, str(name)) for key, name in names.items()}
        masks = {}
        while left:
            gram, cross, mean, wanted = (torch.zeros(()) for _ in range(4))
            count = 0
            keys: list[Key] = []
            for batch in batches:
                rows, keys = first_inputs(network, left, batch)
                dense_rows, _ = first_inputs(dense, {key: twins[key] for key in left}, batch)
                gram, cross = gram + rows.T @ rows, cross + (dense_rows - rows).T @ rows
                mean, wanted = mean + rows.sum(0), wanted + dense_rows.sum(0)
                count += len(rows)
            gram, cross, mean, wanted = (total / count for total in (gram, cross, mean, wanted))
            inputs = InputStatistics(*(total.numpy() for total in (gram, cross, mean, wanted)))
            for key in keys:
                report(f"pruning {key}")
                linear = left.pop(key)
                weight = linear.weight.detach().double()
                moved = toward_dense(weight.numpy(), inputs, self.ridge)
                linear.weight.data = torch.from_numpy(moved).to(linear.weight.dtype)
                masks[key] = self.layer(linear, patterns[key], gram)
                if linear.bias is not None:
                    missing = weight @ wanted - linear.weight.detach().double() @ mean
                    linear.bias.data += missing.to(linear.bias.dtype)
        return masks


PRUNERS: dict[str, Callable[[], Pruner]] = {
    "magnitude": Magnitude, "wanda": Wanda, "sparsegpt": SparseGpt, "sparsegpt-asymmetric": AsymmetricSparseGpt,
}  # fmt: skip
"""By the name `sta-hw prune` takes."""
