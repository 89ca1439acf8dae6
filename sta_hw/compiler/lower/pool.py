"""Pooling: a product with ones and zeros."""

from __future__ import annotations

import numpy as np

from ...reference.requantizer import quantize_factor
from ...spec.isa import Opcode, Result, Target
from ..image import parameter_words
from ..parameters import POOL_FACTOR
from ..schedule import RING_SHARE, Load, Step
from .state import Lowering

__all__ = ["pool"]


def pool(low: Lowering, source: str, *, needs: str) -> None:
    """Mean over the tokens, or the first one: a product with ones and zeros."""
    cfg, hidden = low.config, low.encoder.hidden
    halves = cfg.rows // cfg.groups
    depth, blocks = low.key_blocks()
    position = np.arange(cfg.groups * depth)
    token = cfg.groups * (position % depth) + position // depth
    token = token[None, :] + cfg.groups * depth * np.arange(blocks)[:, None]
    pooled = low.tokens if low.encoder.pooling == "mean" else 1
    ones = np.repeat((token < pooled).reshape(-1, 1).astype(np.uint8), cfg.rows, axis=1)
    windows = low.image.add(ones)
    multiplier, shift = quantize_factor(POOL_FACTOR / pooled)
    one = np.zeros(1, np.int64)
    parameters = low.image.add(parameter_words(one, one + int(multiplier), one + int(shift), one))
    most = int(cfg.weight_words * RING_SHARE) // (low.tiles * halves)
    if blocks > 1:
        most = min(most, cfg.columns)
    if most == 0:
        low.refuse(f"pooling {low.tokens} tokens does not fit weight_words = {cfg.weight_words}; double it.")
        most = cfg.columns
    width = min(hidden, most)
    unit = max(1, cfg.bus_bytes // cfg.rows)
    width = max(unit, width // unit * unit)
    for first in range(0, hidden, width):
        count = min(width, hidden - first)
        names = {n: low.name(n) for n in ("values", "parameters")}
        low.groups.append(
            [
                Load(
                    Target.VALUES, low.tiles * count * halves, low.tile_address(source, 0, first),
                    low.beats(count * cfg.rows), low.tiles, hidden * cfg.rows,
                    tuple((needs, t) for t in low.within(0, low.tiles)), names["values"],
                ),
                Load(Target.PARAMETERS, 1, parameters, low.beats(16), base=names["parameters"]),
            ]
        )  # fmt: skip
        fields = {
            "window_address": windows, "window_beats": low.beats(ones.size), "n": 1, "depth": depth,
            "columns": count, "passes": blocks, "wide": 1,
            "count0": halves, "stride0": 1, "count1": depth // halves, "stride1": count * halves,
            "count2": count, "stride2": halves, "count3": blocks, "stride3": depth // halves * count * halves,
            "result": int(Result.STORE16), "result_address": low.tile_address("out", 0, first),
        }  # fmt: skip
        bases = {"values_base": (names["values"], 0), "parameters_base": (names["parameters"], 0)}
        low.steps.append(Step(Opcode.PRODUCT, fields, len(low.groups) - 1, bases, label="pooling"))
