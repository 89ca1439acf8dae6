"""How near an integer model comes to the dense one: outputs of the reference, which the RTL equals, against fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compiler.check import cosine
from ..compiler.encoder import compile_encoder
from ..run.backends import ReferenceBackend
from ..spec.config import Config
from ..spec.patterns import Pattern
from ..tasks.embedder import Embedder

__all__ = ["compared_outputs", "cosines"]


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
