"""One-shot pruning of an encoder to N:M that keeps what it computes, in numpy: SparseGPT towards the dense network.

Weights (columns, reduction) are pruned layer after layer, each for the inputs that the pruned layers before it give
(Frantar and Alistarh, arXiv 2301.00774, section 3.3, algorithm 1; N:M: section 3.4). Calibration is asymmetric, as in
GPTAQ (Li et al., arXiv 2504.02692, section 3): what is wanted are the dense weights' results for the dense network's
inputs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cache import cache_folder, keep, kept
from ..errors import InputError
from ..formats.nm import keep_mask, prune, satisfies
from ..model.bert import BertModel, Product
from ..model.finite import require_finite
from ..spec.patterns import Pattern

__all__ = [
    "DAMPING",
    "METHODS",
    "RIDGE",
    "InputStatistics",
    "prune_model",
    "prune_weights",
    "pruning_sentences",
    "toward_dense",
]

METHODS = ("sparsegpt", "magnitude")
"""How `prune_model` chooses what stays: SparseGPT with asymmetric calibration, or the largest magnitudes."""
DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean."""
RIDGE = 0.05
"""Of the regression towards the dense network's results, as a share of the mean of the Hessian's diagonal."""

_LARGEST_INPUT = 1e15
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
    def of(pruned: NDArray, dense: NDArray) -> InputStatistics:
        """Of inputs of shape (rows, reduction), row by row the same tokens."""
        count = len(pruned)
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


def toward_dense(weights: Floats, inputs: InputStatistics, ridge: float = RIDGE) -> Floats:
    """Weights that give, for the pruned network's inputs, nearly what `weights` give for the dense network's."""
    # Inputs that are always zero ask for nothing.
    damped = inputs.gram + ridge * (np.diag(inputs.gram).mean() or 1.0) * np.eye(len(inputs.gram))
    return weights + np.linalg.solve(damped, (weights @ inputs.cross).T).T


def prune_model(
    model: BertModel,
    patterns: Mapping[tuple[int, str], Pattern],
    calibration: Sequence[list[int] | NDArray[np.float32]],
    *,
    method: str = "sparsegpt",
    report: Callable[[str], None] = lambda _: None,
) -> BertModel:
    """Prune the linear layers that have a pattern with M above 1; biases take the mean that is left.

    Layers whose weights satisfy their pattern already stay as they are. A matrix of 384 x 1,536 takes about half
    a second; all of all-MiniLM-L6-v2 with 384 sentences a quarter of a minute.

    Parameters
    ----------
    patterns : N:M by (layer, name)
    calibration : token ids of texts, or sums of embeddings
        Not looked at by ``magnitude``.
    method : str
        One of `METHODS`.

    Raises
    ------
    InputError
        If the method is unknown, there is no calibration text, a weight is not finite, or inputs are beyond 1e15.
    """
    if method not in METHODS:
        raise InputError(f"pruning method {method!r} is unknown; it is {' or '.join(METHODS)}.")
    require_finite(model.tensors, "the model")
    wanted = {
        key: pattern
        for key, pattern in patterns.items()
        if pattern.m > 1 and not satisfies(model.linear(*key)[0], pattern)
    }
    if method == "magnitude" or not wanted:
        return model.replaced({key: prune(model.linear(*key)[0], pattern) for key, pattern in wanted.items()})
    if not calibration:
        raise InputError("there is no calibration text; SparseGPT needs at least one.")
    with np.errstate(all="ignore"):  # what overflows is refused by name
        return model.with_tensors(_pruned_tensors(model, wanted, calibration, report))


def _pruned_tensors(
    model: BertModel, wanted: Mapping[tuple[int, str], Pattern], calibration: Sequence[list[int] | NDArray[np.float32]],
    report: Callable[[str], None],
) -> dict[str, NDArray]:  # fmt: skip
    """All tensors, layer after layer pruned with SparseGPT."""
    tensors = dict(model.tensors)
    runs, dense_runs = ([model.products(ids, keep=False) for ids in calibration] for _ in range(2))
    stops, dense_stops = ([next(run) for run in started] for started in (runs, dense_runs))
    bounds = np.cumsum([len(stop.value) for stop in stops])[:-1]
    while stops:
        layer, names = stops[0].layer, stops[0].names
        report(f"pruning layer {layer}: {names[0]}")
        value, dense_value = (np.concatenate([stop.value for stop in at]) for at in (stops, dense_stops))
        for values in (value, dense_value):
            largest = float(np.abs(values).max())
            if not largest < _LARGEST_INPUT:
                raise InputError(
                    f"pruning encoder.layer.{layer}.{names[0]}: its inputs reach {largest:.3g}, and their squares are "
                    f"summed in fp32; {_LARGEST_INPUT:g} is the limit. Magnitudes alone need no inputs."
                )
        inputs: InputStatistics | None = None
        results, dense_results = [], []
        for name in names:
            weight, bias = model.linear(layer, name)
            dense_results.append(dense_value @ weight.T + bias)
            if pattern := wanted.get((layer, name)):
                inputs = inputs or InputStatistics.of(value, dense_value)
                dense = weight.astype(np.float64)
                found, _ = prune_weights(toward_dense(dense, inputs), inputs.gram, pattern)
                moved = bias + dense @ inputs.dense_mean - found @ inputs.mean
                weight, bias = found.astype(np.float32), moved.astype(np.float32)
                prefix = f"encoder.layer.{layer}.{name}"
                tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"] = weight, bias
            results.append(value @ weight.T + bias)
        stops, dense_stops = _advanced(runs, results, bounds), _advanced(dense_runs, dense_results, bounds)
    return tensors


def prune_model_once(
    model: BertModel,
    patterns: Mapping[tuple[int, str], Pattern],
    calibration: Sequence[list[int] | NDArray[np.float32]],
    *,
    method: str = "sparsegpt",
    report: Callable[[str], None] = lambda _: None,
) -> BertModel:
    """What `prune_model` gives, from the cache folder if the same was pruned before.

    The same are: this module's text, the model's shape and tensors, patterns, calibration, and numpy's version. What is
    kept is checked; a damaged file is made again.
    """
    from safetensors.numpy import load, save

    if method != "sparsegpt" or all(p.m == 1 for p in patterns.values()):
        return prune_model(model, patterns, calibration, method=method, report=report)
    shape = dataclasses.replace(model, tensors={})
    described = [
        Path(__file__).read_text(encoding="utf-8"), np.__version__, repr(shape),
        sorted((k, str(p)) for k, p in patterns.items()),
        [_named(given) for given in calibration],
    ]  # fmt: skip
    key = _digest(model.tensors, repr(described))
    path = cache_folder() / f"pruned-{key[:24]}.safetensors"
    data = kept(path)
    if data is None:
        pruned = prune_model(model, patterns, calibration, method=method, report=report).tensors
        changed = {name: np.ascontiguousarray(t) for name, t in pruned.items() if t is not model.tensors[name]}
        data = save(changed)
        keep(path, data)
    return model.with_tensors(model.tensors | load(data))


def _named(given: list[int] | NDArray[np.float32]) -> object:
    return _digest({"embedded": given}, "") if isinstance(given, np.ndarray) else list(map(int, given))


def _digest(tensors: Mapping[str, NDArray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _advanced(
    runs: Sequence[Generator[Product, list[NDArray], object]], results: Sequence[NDArray], bounds: NDArray
) -> list[Product]:
    """The next stop of every text after the linear layers' results, of all texts in a row; none behind the last."""
    parts = zip(*(np.split(result, bounds) for result in results), strict=True)
    try:
        return [run.send(list(part)) for run, part in zip(runs, parts, strict=True)]
    except StopIteration:
        return []
