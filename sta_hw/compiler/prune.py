"""One-shot pruning of a graph to N:M that keeps what it computes, in numpy: SparseGPT towards the dense network.

Weights (columns, reduction) are pruned layer after layer, each for the inputs that the pruned layers before it give
(Frantar and Alistarh, arXiv 2301.00774, section 3.3, algorithm 1; N:M: section 3.4). Calibration is asymmetric, as in
GPTAQ (Li et al., arXiv 2504.02692, section 3): what is wanted are the dense weights' results for the dense network's
inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cache import cache_folder, keep, kept, made_once
from ..errors import InputError
from ..formats.nm import keep_mask, prune, satisfies
from ..model.families.decoders import is_decoder
from ..model.finite import require_finite
from ..model.fp32 import value_of
from ..model.graph import Graph
from ..model.operations import Linear
from ..model.part import accelerator_part
from ..spec.patterns import Pattern

__all__ = [
    "DAMPING",
    "METHODS",
    "RIDGE",
    "InputStatistics",
    "prune_model",
    "prune_weights",
    "pruning_sentences",
    "refit",
    "require_pruner",
    "toward_dense",
]

METHODS = ("sparsegpt", "magnitude")
"""How `prune_model` chooses what stays: SparseGPT with asymmetric calibration, refitted, or the largest magnitudes."""
DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean."""
RIDGE = 0.05
"""Of the regression towards the dense network's results, as a share of the mean of the Hessian's diagonal."""

_LARGEST_INPUT = 1e15
_AT_ONCE = 64
"""Columns whose equations are solved together: what bounds the memory."""
_MOST_KEPT = 512
"""Weights kept in a column up to which they are fitted again, which takes the cube of their number: at 384 inputs less
time than the rest of the pruning, at 1,536 several times as much."""
_LONGEST_TOKEN = 4.0
"""Of a decoder's inputs a token counts for no more than one of so many times the tokens' usual length: the first one
of a text is hundreds of times as long in some layers, and would be all that is looked at."""
Floats = NDArray[np.float64]


def pruning_sentences() -> list[str]:
    """384 sentences from docstrings of Python's standard library (PSF license); none is evaluated, nor near to one."""
    text = resources.files("sta_hw.model").joinpath("data", "pruning-sentences.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class InputStatistics:
    """What pruning has to know of a layer's inputs, in the pruned network and in the dense one.

    Attributes
    ----------
    gram : float64 array, shape (reduction, reduction)
        Mean outer product of the pruned network's inputs.
    cross : float64 array, shape (reduction, reduction)
        Mean outer product of the differences (dense less pruned) with the pruned network's inputs.
    mean, dense_mean : float64 arrays, shape (reduction,)
    """

    gram: Floats
    cross: Floats
    mean: Floats
    dense_mean: Floats

    @staticmethod
    def of(pruned: NDArray, dense: NDArray, longest: float = np.inf) -> InputStatistics:
        """Of inputs of shape (rows, reduction), row by row the same tokens.

        Rows that are longer than `longest` times the median are shortened to that, in both networks alike.
        """
        count = len(pruned)
        if np.isfinite(longest):
            length = np.sqrt(np.square(dense, dtype=np.float64).mean(1))
            share = np.minimum(longest * np.median(length) / np.maximum(length, 1e-30), 1.0).astype(np.float32)
            pruned, dense = pruned * share[:, None], dense * share[:, None]
        gram, cross = (((x.T @ pruned) / count).astype(np.float64) for x in (pruned, dense - pruned))
        return InputStatistics(gram, cross, pruned.mean(0, dtype=np.float64), dense.mean(0, dtype=np.float64))


def prune_weights(
    weights: Floats, gram: Floats, pattern: Pattern, damping: float = DAMPING
) -> tuple[Floats, NDArray[np.bool_]]:
    """SparseGPT of one matrix: what is dropped is made up for by the weights behind it.

    Weights go position by position along the reduction dimension, with the Cholesky factor of the inverse Hessian; a
    group's mask is chosen when its first position is reached.

    Parameters
    ----------
    weights : float64 array, shape (columns, reduction)
    gram : float64 array, shape (reduction, reduction)
        Mean outer product of the inputs.
    pattern : Pattern

    Returns
    -------
    pruned weights and the mask of those that stay, both of the shape of `weights`
    """
    hessian = gram.copy()
    silent = np.diag(hessian) == 0
    hessian[silent, silent] = 1.0
    hessian[np.diag_indices_from(hessian)] += damping * np.diag(hessian).mean()
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    found = weights.copy()
    found[:, silent] = 0
    mask = np.ones(found.shape, bool)
    reduction = found.shape[1]
    for start in range(0, reduction, pattern.m):
        stop = min(start + pattern.m, reduction)
        part, inside = found[:, start:stop].copy(), factor[start:stop, start:stop]
        keep = keep_mask((part / np.diag(inside)) ** 2, pattern)
        mask[:, start:stop] = keep
        errors = np.zeros_like(part)
        for i in range(stop - start):
            errors[:, i] = part[:, i] * ~keep[:, i] / inside[i, i]
            part[:, i:] -= errors[:, i : i + 1] * inside[i, i:]
        found[:, start:stop] = part
        found[:, stop:] -= errors @ factor[start:stop, stop:]
    return found * mask, mask


def refit(weights: Floats, gram: Floats, mask: NDArray[np.bool_], damping: float = DAMPING) -> Floats:
    """The kept weights that give nearly what `weights` give: least squares for each column, given its mask.

    SparseGPT goes position by position, and makes up for a dropped weight with those behind it alone; with the mask
    known, all that is kept can (Frantar and Alistarh, section 3.1: what the algorithm approximates).

    Parameters
    ----------
    weights : float64 array, shape (columns, reduction)
        Before pruning.
    gram : float64 array, shape (reduction, reduction)
    mask : bool array, shape (columns, reduction)

    Returns
    -------
    float64 array, shape (columns, reduction), zero outside the mask
    """
    hessian = gram + damping * (np.diag(gram).mean() or 1.0) * np.eye(len(gram))
    wanted = weights @ hessian
    found = np.zeros_like(weights)
    kept = mask.sum(1)
    for count in np.unique(kept[kept > 0]):
        alike = np.flatnonzero(kept == count)
        for start in range(0, len(alike), _AT_ONCE):
            rows = alike[start : start + _AT_ONCE]
            places = np.argsort(~mask[rows], axis=1, kind="stable")[:, :count]
            right = np.take_along_axis(wanted[rows], places, 1)[..., None]
            solved = np.linalg.solve(hessian[places[:, :, None], places[:, None, :]], right)[..., 0]
            found[rows[:, None], places] = solved
    return found


def toward_dense(weights: Floats, inputs: InputStatistics, ridge: float = RIDGE) -> Floats:
    """Weights that give, for the pruned network's inputs, nearly what `weights` give for the dense network's."""
    # Inputs that are always zero ask for nothing.
    damped = inputs.gram + ridge * (np.diag(inputs.gram).mean() or 1.0) * np.eye(len(inputs.gram))
    return weights + np.linalg.solve(damped, (weights @ inputs.cross).T).T


def require_pruner(name: str) -> None:
    """Refuse what is none of `METHODS`.

    Raises
    ------
    InputError
        With the nearest.
    """
    if name not in METHODS:
        near = get_close_matches(str(name), METHODS, n=1, cutoff=0)[0]
        raise InputError(f"pruner {name!r} is unknown; it is {' or '.join(METHODS)}, the nearest is {near}.")


def prune_model(
    graph: Graph,
    patterns: Mapping[str, Pattern],
    calibration: Sequence[list[int] | NDArray[np.float32]],
    *,
    method: str = "sparsegpt",
    report: Callable[[str], None] = lambda _: None,
) -> Graph:
    """Prune the linear operations that have a pattern with M above 1; biases take the mean that is left.

    Those whose weights satisfy their pattern already stay as they are. A matrix of 384 x 1,536 takes about half
    a second; all of all-MiniLM-L6-v2 with 384 sentences a quarter of a minute. Of a decoder, biases that are zero stay
    so, as most of these checkpoints have no tensors for them; texts begin with the token that all texts begin with.

    Parameters
    ----------
    patterns : N:M by name
    calibration : token ids of texts, or sums of embeddings
        Not looked at by ``magnitude``.
    method : str
        One of `METHODS`.

    Raises
    ------
    InputError
        If the method is unknown, there is no calibration text, a weight is not finite, or inputs are beyond 1e15; and
        what `accelerator_part` raises.
    """
    require_pruner(method)
    require_finite(graph.tensors, "the model")
    wanted = {
        name: pattern
        for name, pattern in patterns.items()
        if pattern.m > 1 and not satisfies(graph.linear(name).weight, pattern)
    }
    if method == "magnitude" or not wanted:
        return graph.with_weights({name: prune(graph.linear(name).weight, p) for name, p in wanted.items()})
    if not calibration:
        raise InputError("there is no calibration text; SparseGPT needs at least one.")
    with np.errstate(all="ignore"):  # what overflows is refused by name
        return graph.replaced(_pruned(graph, wanted, calibration, report))


def _texts(
    graph: Graph, calibration: Sequence[list[int] | NDArray[np.float32]]
) -> tuple[Graph, str, list[NDArray]]:  # fmt: skip
    """The operations to prune, the value that they begin with, and that of every text."""
    if is_decoder(graph):
        return graph, "ids", [np.asarray(ids) for ids in calibration]
    part = accelerator_part(graph)
    embedded = [given if isinstance(given, np.ndarray) else part.embed("ids", given) for given in calibration]
    return part.inner, part.begins, embedded


def _pruned(
    whole: Graph, wanted: Mapping[str, Pattern], calibration: Sequence[list[int] | NDArray[np.float32]],
    report: Callable[[str], None],
) -> dict[str, Linear]:  # fmt: skip
    """Linear operations pruned with SparseGPT, one after the other; all texts go through the graph in step."""
    graph, begins, texts = _texts(whole, calibration)
    decoder = is_decoder(whole)
    bounds = np.cumsum([len(t) for t in texts])[:-1]
    # Every text's values, in the pruned network and in the dense one.
    values, dense_values = ({begins: list(texts)} for _ in range(2))
    left = {name: sum(o.inputs.count(name) for o in graph.operations) for name in graph.by_name}
    found: dict[str, Linear] = {}
    source, inputs = "", None
    for o in graph.operations[1:]:
        if len(found) == len(wanted):  # A decoder's head gives many values, which nothing takes.
            break
        if isinstance(o, Linear) and (o.name in graph.linears or o.name in wanted):
            value, dense_value = (np.concatenate(v[o.inputs[0]]) for v in (values, dense_values))
            if o.inputs[0] != source:  # Query, key and value share theirs.
                source, inputs = o.inputs[0], None
                report(f"pruning {o.name}")
                _require_squares(next(iter(graph.arrays(o))), value, dense_value)
            pruned = o
            if pattern := wanted.get(o.name):
                longest = _LONGEST_TOKEN if decoder else np.inf
                inputs = inputs or InputStatistics.of(value, dense_value, longest)
                dense = o.weight.astype(np.float64)
                wanted_weight = toward_dense(dense, inputs)
                weight, mask = prune_weights(wanted_weight, inputs.gram, pattern)
                if mask.sum(1).max() <= _MOST_KEPT:
                    weight = refit(wanted_weight, inputs.gram, mask)
                bias: NDArray = o.bias
                if not decoder or bias.any():
                    bias = bias + dense @ inputs.dense_mean - weight @ inputs.mean
                pruned = replace(o, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
                found[o.name] = pruned
            values[o.name] = np.split(value_of(pruned, value), bounds)
            dense_values[o.name] = np.split(value_of(o, dense_value), bounds)
        else:
            for own in (values, dense_values):
                own[o.name] = [value_of(o, *given) for given in zip(*(own[i] for i in o.inputs), strict=True)]
        for name in o.inputs:  # Of many texts, values that nothing takes any more are let go.
            left[name] -= 1
            if not left[name]:
                del values[name], dense_values[name]
    return found


def _require_squares(tensor: str, *inputs: NDArray) -> None:
    """Inputs whose squares fp32 can sum."""
    for values in inputs:
        largest = float(np.abs(values).max())
        if not np.isfinite(largest):
            raise InputError(
                f"pruning {tensor}: its inputs are not finite, as what comes before overflows in fp32. Magnitudes "
                "alone need no inputs."
            )
        if not largest < _LARGEST_INPUT:
            raise InputError(
                f"pruning {tensor}: its inputs reach {largest:.3g}, and their squares are summed in fp32; "
                f"{_LARGEST_INPUT:g} is the limit. Magnitudes alone need no inputs."
            )


def prune_model_once(
    graph: Graph,
    patterns: Mapping[str, Pattern],
    calibration: Sequence[list[int] | NDArray[np.float32]],
    *,
    method: str = "sparsegpt",
    report: Callable[[str], None] = lambda _: None,
) -> Graph:
    """What `prune_model` gives, from the cache folder if the same was pruned before.

    The same are: this module's text, the graph with its arrays, patterns, calibration, and numpy's version. What is
    kept is checked; a damaged file is made again.
    """
    from safetensors.numpy import load, save

    if method != "sparsegpt" or all(p.m == 1 for p in patterns.values()):
        return prune_model(graph, patterns, calibration, method=method, report=report)
    described = [
        Path(__file__).read_text(encoding="utf-8"), np.__version__, str(graph),
        sorted((k, str(p)) for k, p in patterns.items()),
        [_named(given) for given in calibration],
    ]  # fmt: skip
    key = _digest(graph.tensors, repr(described))
    path = cache_folder() / f"pruned-{key[:24]}.safetensors"
    with made_once(path):
        data = kept(path)
        if data is None:
            pruned = prune_model(graph, patterns, calibration, method=method, report=report).tensors
            changed = {name: np.ascontiguousarray(t) for name, t in pruned.items() if t is not graph.tensors[name]}
            data = save(changed)
            keep(path, data)
    return graph.with_tensors(load(data))


def _named(given: list[int] | NDArray[np.float32]) -> object:
    return _digest({"embedded": given}, "") if isinstance(given, np.ndarray) else list(map(int, given))


def _digest(tensors: Mapping[str, NDArray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
