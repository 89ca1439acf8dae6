"""Encoders from ONNX graphs, however they were exported or optimized, checked against onnxruntime."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...arguments import path_of
from ...errors import CheckError, InputError
from ...files import read_json
from ...spec.patterns import listed
from ..families.layers import Builder
from ..families.sentences import pool
from ..finite import require_finite
from ..fp32 import evaluate
from ..graph import Graph
from ..operations import Embed
from ..settings import Settings
from ..tensors import Tensors
from .canonical import canonical, pooled
from .naming import named
from .reader import Reader
from .session import Session
from .values import NotUnderstoodError, Term

__all__ = ["POOLINGS", "TOLERANCE", "Imported", "import_onnx"]

TOLERANCE = 1e-4
"""Of the imported graph's fp32 output against onnxruntime's, relative to the largest."""
_HALF_TOLERANCE = 1e-2
"""The same where onnxruntime computes in float16: some twenty roundings in a row, of 5e-4 each."""

_LONGEST = 1024
"""Tokens of the longest text that onnxruntime is compared with, at most."""

POOLINGS = ("mean", "first", "max", "last")

_OUTPUTS = (
    "logits", "sentence_embedding", "image_embeds", "text_embeds", "last_hidden_state", "token_embeddings",
)  # fmt: skip
"""Outputs by the names that exporters give them, the first that there is is taken."""
_ASSUMED = {"mask": "ones", "types": "zeros", "positions": "0, 1, ..."}


@dataclass(frozen=True)
class Imported:
    """An imported graph.

    Attributes
    ----------
    graph : Graph
    output : str
        The ONNX graph's output that its result is of.
    pooling : str
        How all tokens' outputs become one embedding: one of `POOLINGS`, ``modules.json``, or ``the graph's own``.
    left_out : names of the other outputs
    assumed : tuple of str
        What inputs beside the text are taken to be.
    labels : names of the classes, where it has a classifier
    scoring : str
        What makes scores of its logits, of `settings.SCORINGS`.
    difference : float
        Largest difference from onnxruntime on two samples, relative to the largest value.
    """

    graph: Graph
    output: str
    pooling: str
    left_out: tuple[str, ...]
    assumed: tuple[str, ...]
    labels: tuple[str, ...]
    scoring: str
    difference: float


def import_onnx(path: str | Path, output: str | None = None, pooling: str | None = None) -> Imported:
    """Import an encoder's ONNX graph.

    Parameters
    ----------
    output : str or None
        Which of its outputs; the usual one if None.
    pooling : str or None
        One of `POOLINGS`, for an output of all tokens. By default what a ``modules.json`` beside the file, or in the
        folder above, says; else the mean of texts and spectrograms, and the class token of images.

    Raises
    ------
    InputError
        If the file cannot be read or run, there is no such output, or something on the way to it is not understood: it
        is named with its node and operator. Or if a weight is not finite, or what comes of them for a sample.
    CheckError
        If the imported graph's output differs from onnxruntime's by more than `TOLERANCE`.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(f"pooling {pooling!r} is not supported; it is {listed(POOLINGS)}.")
    path = path_of(path, "path")
    session = Session(path)
    chosen = _chosen(session, output)
    reader = Reader(session)
    found = reader.read(chosen)
    kind = "logits" if "logits" in chosen else "embedding"
    try:
        term = canonical(reader.settle(found))
        bare = named(term, kind).verify()
        reader.confirm(_longest(bare))
        graph, used = _pooled(path, bare, term, kind, pooling, image="pixels" in session.roles.values())
    except NotUnderstoodError as problem:
        raise InputError(f"{path}, output {chosen!r}, is no encoder that is supported: {problem}.") from None
    for operation in graph.operations:
        arrays = {f"{operation.name}, {n}": v for n, v in operation.attributes().items() if isinstance(v, np.ndarray)}
        require_finite(arrays, str(path))
    difference = _difference(session, bare, chosen)
    if not difference < (_HALF_TOLERANCE if session.half else TOLERANCE):
        raise CheckError(
            f"{path}: the imported graph differs from onnxruntime by {difference:.2e} of the largest value."
        )
    assumed = tuple(f"{n}: {_ASSUMED[role]}" for n, role in session.roles.items() if role in _ASSUMED)
    left_out = tuple(n for n in session.outputs if n != chosen)
    labels, scoring = _labels(path, int(graph.shapes[kind][-1])) if kind == "logits" else ((), "softmax")
    return Imported(graph, chosen, used, left_out, assumed, labels, scoring, difference)


def _pooled(path: Path, bare: Graph, term: Term, kind: str, pooling: str | None, *, image: bool) -> tuple[Graph, str]:
    """The graph with the pooling that its output lacks, and which that is."""
    if len(bare.shapes[kind]) == 1 or kind == "logits":
        if pooling is not None:
            raise InputError(
                f"{path}: pooling {pooling} is not used: this output is pooled already, or has every token's classes."
            )
        return bare, "the graph's own"
    folder = next((f for f in (path.parent, path.parent.parent) if (f / "modules.json").exists()), None)
    if pooling is None and folder is not None:
        builder = Builder(Tensors({}, path), list(bare.operations[:-1]), int(bare.shapes[kind][-1]))
        pool(builder, bare.operations[-1].inputs[0], folder, builder.width)
        return builder.graph(bare.name).verify(), str(folder / "modules.json")
    chosen = pooling or ("first" if image else "mean")
    return named(canonical(pooled(term, chosen)), kind).verify(), chosen


def _labels(path: Path, count: int) -> tuple[tuple[str, ...], str]:
    """Names of the classes and what makes their scores: of a ``config.json`` beside the file, as Optimum writes it."""
    beside = path.parent / "config.json"
    settings = Settings(read_json(beside, "configuration") if beside.exists() else {}, beside)
    labels, scoring = settings.labels, settings.scoring(count)
    if settings.problems:
        raise InputError("\n".join(settings.problems))
    return tuple(labels if len(labels) == count else (f"LABEL_{i}" for i in range(count))), scoring


def _chosen(session: Session, output: str | None) -> str:
    names = session.outputs
    if output is not None:
        if output not in names:
            raise InputError(f"{session.path} has no output {output!r}; it has {', '.join(names)}.")
        return output
    if len(names) == 1:
        return names[0]
    for name in _OUTPUTS:
        if name in names:
            return name
    raise InputError(f"{session.path} has outputs {', '.join(names)}; choose one of them.")


def _longest(graph: Graph) -> int:
    """Tokens of the longest text that is tried."""
    return max(min(graph.most_tokens or _LONGEST, _LONGEST), 1)


def _difference(session: Session, graph: Graph, chosen: str) -> float:
    """From onnxruntime, on samples of different lengths; the second holds what the first has not.

    The third is as long as one may be: windows, limits of positions and parts of a text are not seen in short ones.
    """
    name, role = next((n, r) for n, r in session.roles.items() if r in ("ids", "pixels", "features"))
    padding = next((o.padding for o in graph.operations if isinstance(o, Embed) and o.padding is not None), None)
    worst = 0.0
    last = graph.operations[-1].name
    for _, sample in zip(range(3 if role == "ids" else 2), session.samples(padding, _longest(graph)), strict=False):
        wanted = session.run([chosen], sample)[0].astype(np.float32).reshape(-1)
        given: NDArray = sample[name][0] if sample[name].ndim > 1 else sample[name]
        with np.errstate(all="ignore"):
            value = given if role == "ids" else np.moveaxis(given, 0, -1).astype(np.float32)
            found = evaluate(graph, {role: value}, keep={last})[last].reshape(-1)
        for where, computed in (("onnxruntime", wanted), ("fp32", found)):
            if not np.isfinite(computed).all():
                raise InputError(
                    f"{session.path}: output {chosen!r} of a sample is not finite in {where}; the weights overflow."
                )
        if found.shape != wanted.shape:
            return math.inf
        worst = max(worst, float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)))
    return worst
