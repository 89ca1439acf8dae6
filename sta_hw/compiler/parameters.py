"""What quantization gives: integer parameters of linear operations and LayerNorms."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..formats.blocks import BlockedWeights
from ..spec.config import Config
from ..spec.parameters import COLUMN, SHORT_COLUMN
from ..spec.patterns import Pattern
from ..spec.records import Record

__all__ = ["POOL_FACTOR", "Ints", "LinearParameters", "NormParameters"]

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
    blocks : BlockedWeights or None
        The same weights in 4 bits, if they are kept so.
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
    blocks: BlockedWeights | None = None

    def blocks_on(self, config: Config) -> BlockedWeights | None:
        """The blocks, where the hardware takes them; elsewhere the weights are INT8."""
        return self.blocks if "blocks4" in config.features else None

    def record_on(self, config: Config) -> Record:
        """How its columns' parameters lie in memory: short beside blocks, if all biases have room there."""
        bias = SHORT_COLUMN.field("bias")
        fit = bool(((self.bias >= bias.lowest) & (self.bias <= bias.highest)).all())
        return SHORT_COLUMN if fit and self.blocks_on(config) is not None else COLUMN


@dataclass(frozen=True)
class NormParameters:
    """One LayerNorm, as rtl/units/norm.py takes it; `wide_scale` is that of its 16-bit results."""

    scale: Ints
    shift: Ints
    multiplier: Ints
    wide_scale: float = 1.0
