"""What quantization gives: integer parameters of linear layers, LayerNorms, layers and a whole encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..spec.patterns import Pattern

__all__ = ["POOL_FACTOR", "Ints", "LayerParameters", "LinearParameters", "NormParameters", "QuantizedEncoder"]

POOL_FACTOR = 15.0
"""Pooled results are in units of the last 8-bit scale over this."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LinearParameters:
    """One linear layer: weights (columns, reduction), and per column what follows the sum.

    Attributes
    ----------
    input_scale, steps : float64 arrays, shapes (reduction,) and (columns,)
        ``weights = round(w * input_scale / steps)``, ``bias = round((b - offset) / steps)``.
    offset : float64 array, shape (columns,)
        What is taken from the bias because nothing behind sees it.
    """

    weights: NDArray[np.int8]
    pattern: Pattern
    bias: Ints
    multiplier: Ints
    shift: Ints
    second: Ints
    input_scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    steps: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))


@dataclass(frozen=True)
class NormParameters:
    """One LayerNorm, as rtl/units/norm.py takes it; `wide_scale` is that of its 16-bit results."""

    scale: Ints
    shift: Ints
    multiplier: Ints
    wide_scale: float = 1.0


@dataclass(frozen=True)
class LayerParameters:
    """One encoder layer.

    Attributes
    ----------
    score_multiplier, score_shift : int64 arrays, shape (heads,)
        Requantization of the products of queries and keys.
    coarse : int64 array, shape (heads,)
        1 where scores have 3 fraction bits instead of 6.
    gain : int64 array, shape (heads,)
        The context's scale is the value's over ``2**gain``.
    """

    linear: Mapping[str, LinearParameters]
    score_multiplier: Ints
    score_shift: Ints
    coarse: Ints
    gain: Ints
    table: NDArray[np.int16]
    norm1: NormParameters
    norm2: NormParameters


@dataclass(frozen=True)
class QuantizedEncoder:
    """A whole encoder in integers.

    Attributes
    ----------
    embedded_scale : float
        Of the 16-bit sum of embeddings that the host stores; 0 if each token has its own (sta_hw/compiler/embedded.py).
    output_scale : float
        Of the pooled output before division by `POOL_FACTOR`.
    embedding_norm : NormParameters
        Of the LayerNorm before the first products; a layer's `norm1` and `norm2` lie between its attention and
        feed-forward products, and behind its last sum.
    norm_first : bool
        The residual stream is the sums, as in ViT; else the LayerNorms' results, as in BERT.
    projection : two LinearParameters or None
        Of ELECTRA's linear layer between the embeddings' LayerNorm and the first layer, to 8 and to 16 bits.
    pooling : str
        ``mean`` or ``first``.
    """

    layers: tuple[LayerParameters, ...]
    embedding_norm: NormParameters
    embedded_scale: float
    output_scale: float
    hidden: int
    heads: int
    intermediate: int
    norm_first: bool = False
    pooling: str = "mean"
    projection: tuple[LinearParameters, LinearParameters] | None = None
