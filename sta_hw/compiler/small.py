"""An encoder that every hardware holds, of random whole numbers: for benches and examples that have no checkpoint."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import numpy as np

from ..errors import InputError
from ..formats import prune
from ..model.families.layers import LINEAR
from ..model.operations import Operation
from ..spec.config import Config
from ..spec.patterns import DENSE
from .encoder import compile_encoder
from .integers import IntegerActivate, IntegerAttention, IntegerLinear, IntegerNorm
from .limits import require_shape
from .model import CompiledModel
from .shapes import shape_graph

__all__ = ["TOKENS", "small_encoder"]

TOKENS = 3
"""Of the text that it takes."""


def small_encoder(config: Config) -> CompiledModel:
    """One encoder layer for three tokens, with every kind of instruction; the same for the same configuration.

    Raises
    ------
    InputError
        If the hardware is too small for any such layer.
    """
    for hidden in (32, config.groups, 2 * config.groups):
        for heads in (1, 2, 4, 8):
            with suppress(InputError):
                return _encoder_layer(config, hidden, heads)
    raise InputError(
        f"{config.rows} rows x {config.groups} groups with {config.columns} columns hold no encoder layer."
    )


def _encoder_layer(config: Config, hidden: int, heads: int) -> CompiledModel:
    """One encoder layer of so many dimensions and heads; raises InputError if the hardware cannot hold it."""
    rng = np.random.default_rng(14)
    sparse = [p for p in config.patterns if p.m > 1]
    names = list(LINEAR.values())
    patterns = {n: sparse[i % len(sparse)] if sparse and i % 3 else DENSE for i, n in enumerate(names)}
    require_shape(config, tokens=TOKENS, layers=1, hidden=hidden, heads=heads, intermediate=hidden, patterns=patterns)
    shape = shape_graph(hidden, heads, 1, hidden, {f"0.{name}": p for name, p in patterns.items()})

    def linear(o: IntegerLinear) -> IntegerLinear:
        p, columns = o.parameters, len(o.weight)
        weights = prune(rng.integers(-128, 128, p.weights.shape).astype(np.int8), p.pattern)
        return IntegerLinear.of(o, dataclasses.replace(
            p, weights=weights, bias=rng.integers(-5000, 5000, columns),
            multiplier=rng.integers(1 << 14, 1 << 16, columns), shift=rng.integers(0, 2, columns),
            second=rng.integers(1 << 14, 1 << 16, columns),
        ))  # fmt: skip

    def norm(o: IntegerNorm) -> IntegerNorm:
        return IntegerNorm.of(o, dataclasses.replace(
            o.parameters, scale=rng.integers(1 << 8, 1 << 12, hidden), shift=rng.integers(-300, 300, hidden),
            multiplier=rng.integers(1 << 10, 1 << 14, hidden),
        ))  # fmt: skip

    def filled(o: Operation) -> Operation:
        if isinstance(o, IntegerLinear):
            return linear(o)
        if isinstance(o, IntegerNorm):
            return norm(o)
        if isinstance(o, IntegerAttention):
            return dataclasses.replace(o, score_multiplier=rng.integers(1 << 14, 1 << 15, heads))
        if isinstance(o, IntegerActivate):
            return dataclasses.replace(o, table=rng.integers(-128, 128, 256).astype(np.int16))
        return o

    quantized = shape.replaced({o.name: filled(o) for o in shape.operations})
    return compile_encoder(quantized, config, TOKENS)
