"""How near an integer model comes to the dense one: outputs of the reference, which the RTL equals, against fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compiler.check import cosine
from ..compiler.encoder import compile_encoder
from ..errors import InputError
from ..model.arrays import given as given_name
from ..model.minilm import evaluation_sentences
from ..run.backends import ReferenceBackend
from ..sparsity.store import dense_source
from ..spec.config import Config
from ..spec.patterns import Pattern
from ..spec.presets import PRESETS
from ..tasks.embedder import Embedder

__all__ = ["accuracy_inputs", "compared_outputs", "cosines", "dense_network", "one_shot_cosines"]


def compared_outputs(
    dense: Embedder, sparse: Embedder, patterns: dict[str, Pattern], config: Config,
    inputs: Sequence[NDArray[np.float32]], calibration: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Outputs for each input: what the accelerator gives, and the dense model in fp32. Shapes (inputs, values).

    Parameters
    ----------
    sparse : Embedder
        With its weights pruned to `patterns`.
    inputs : sequence of arrays, shape (tokens, width)
        As `Embedder.read` gives them.
    calibration : Path or None
        As `Embedder.quantize` takes it.
    """
    quantized = sparse.quantize(patterns, calibration=calibration)
    reference = ReferenceBackend(config)
    found, exact = [], []
    for number, embedded in enumerate(inputs):
        report(f"input {number + 1} of {len(inputs)}")
        model = compile_encoder(quantized, config, len(embedded))
        image = reference.run(model, embedded).image
        found.append(sparse.result(model, image)[1].reshape(-1))
        exact.append(dense.exact(embedded).reshape(-1))
    return np.stack(found), np.stack(exact)


def cosines(found: NDArray[np.float64], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each row with the other's: shape (rows,)."""
    return np.array([cosine(*rows) for rows in zip(found, exact, strict=True)])


def dense_network(embedder: Embedder, note: Callable[[str], None] = lambda _: None) -> tuple[str, str, Embedder]:
    """The network whose fp32 results are compared with: the figure's name, where it is from, and itself.

    It is the dense one: for a pruned checkpoint the one it was pruned from, where that is still as it was; otherwise
    `note` is told why not.
    """
    if not embedder.source.pruned:
        return "cosine_with_dense_fp32", embedder.source.place, embedder
    source, why = None, "it does not say what dense network it was pruned from"
    try:
        source = dense_source(embedder.folder)
    except InputError as error:
        why = str(error).rstrip(".")
    if source is not None:
        why = f"{source.place}, which it was pruned from, is not there as it was"
        with suppress(InputError):
            dense = Embedder.load(source.path)
            if source.difference(dense.source) is None and dense.source.tokenizer == embedder.source.tokenizer:
                return "cosine_with_dense_fp32", source.place, dense
    note(f"the cosine is with the pruned checkpoint's own fp32: {why}.")
    return "cosine_with_pruned_fp32", embedder.source.place, embedder


def accuracy_inputs(embedder: Embedder, file: Path | None, count: int) -> list[NDArray[np.float32]]:
    """What accuracy is measured with: bundled sentences, or a file's images or spectrograms; `count` at most.

    Raises
    ------
    InputError
        If a file is given for a model of texts, or is none of the model's inputs.
    """
    if embedder.tokenizer is None:
        if file is None:
            return []
        name = given_name(embedder.network.graph)
        return [embedder.part.embed(name, array) for array in embedder.arrays(file)[:count]]
    if file is not None:
        raise InputError("this model takes texts, and its accuracy is that of bundled sentences; give no file.")
    most = embedder.network.graph.most_tokens
    ids = [embedder.token_ids(sentence, most) for sentence in evaluation_sentences()[:count]]
    return [embedder.part.embed("ids", found) for found in ids]


def one_shot_cosines(
    dense: Embedder, embedder: Embedder, patterns: dict[str, Pattern], method: str,
    inputs: Sequence[NDArray[np.float32]], calibration: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> NDArray[np.float64]:  # fmt: skip
    """Cosine of each input's INT8 output, after pruning to `patterns` by `method`, with that of `dense` in fp32.

    Computed by the numpy reference, for the reference configuration.
    """
    report("pruning")
    sparse = embedder.pruned(patterns, method, report, calibration)
    return cosines(*compared_outputs(dense, sparse, patterns, PRESETS["reference"], inputs, calibration, report))
