"""Pooling: products whose windows choose each text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...reference.requantizer import quantize_factor
from ...spec.isa import Opcode, Result, Target
from ..buffers import Buffer
from ..image import parameter_words
from ..packing import Place, window_rows
from ..parameters import POOL_FACTOR, LinearParameters
from ..schedule import RING_SHARE, Load, Step
from .linear import LinearLayer, linear
from .state import Lowering

__all__ = ["pool"]


def pool(low: Lowering, label: str, source: str, target: str, *, mean: bool, needs: str) -> None:
    """Each text's mean over its tokens, or its first one: products with windows that choose them, a text a row."""
    runs = low.packing.pooled()
    if low.config.value_rows > low.config.rows:
        source, needs = _side_by_side(low, label, source, needs)
    windows = [low.image.add(_pool_windows(low, texts, mean), name="pooling: windows") for texts in runs]
    if mean and len(low.packing.texts) == 1:
        low.mean_windows = (windows[0], *low.blocks_of(low.packing.tokens))
    multiplier, shift = quantize_factor(POOL_FACTOR / (low.packing.longest if mean else 1))
    one = np.zeros(1, np.int64)
    parameters = low.image.add(
        parameter_words(one, one + int(multiplier), one + int(shift), one), name="pooling: parameters"
    )
    pooling = _Pooling(label, source, target, needs, parameters)
    for number, (texts, address) in enumerate(zip(runs, windows, strict=True)):
        _pool_texts(low, pooling, number, texts, address)


def _side_by_side(low: Lowering, label: str, source: str, needs: str) -> tuple[str, str]:
    """What is pooled as weights are, of `value_rows` tokens side by side: its product with one. Buffer and event."""
    cfg, width = low.config, low.places[source].width
    name = f"{label}: side by side"
    low.places[name] = Buffer(name, width, 1)
    tokens = -(-low.tiles * cfg.rows // cfg.value_rows) * cfg.value_rows
    low.buffers[name] = low.image.reserve(tokens * width, f"buffer {name}")
    one, none = np.eye(width, dtype=np.int8), np.zeros(width, np.int64)
    exact = none + (1 << 12)
    p = LinearParameters(one, low.encoded.tightest(one), none, exact, none, none)
    linear(low, LinearLayer(name, p, source, Result.STORE8, name, needs=needs, gives=name, side_by_side=True))
    low.layers[-1] = replace(low.layers[-1], work=0.0)  # nothing that the network asks for
    return name, name


def _pool_windows(low: Lowering, texts: Sequence[Place], mean: bool) -> NDArray[np.uint8]:
    """What pooling multiplies tokens by, shape (positions, rows); rows without a text repeat the last one."""
    cfg = low.config
    start = texts[0].tiles(cfg.value_rows).start * cfg.value_rows
    depth, blocks = low.blocks_of(texts[-1].end - start)
    row = start + window_rows(cfg.groups, depth, blocks)
    chosen = [
        np.where((row >= t.first) & (row < (t.end if mean else t.first + 1)), low.packing.weight(t) if mean else 1, 0)
        for t in texts
    ]
    chosen += chosen[-1:] * (cfg.rows - len(chosen))
    return np.stack(chosen, axis=1).astype(np.uint8)


@dataclass(frozen=True)
class _Pooling:
    """What all products of a pooling have: buffers' names, the event they wait for, and where parameters lie."""

    label: str
    source: str
    target: str
    needs: str
    parameters: int


def _pool_texts(low: Lowering, pooling: _Pooling, number: int, texts: Sequence[Place], windows: int) -> None:
    """Pool as many texts as a row tile has rows into tile `number` of the results."""
    cfg, source, hidden = low.config, pooling.source, low.places[pooling.source].width
    halves, each = cfg.value_rows // cfg.groups, cfg.value_rows // cfg.rows
    stacks = range(texts[0].tiles(cfg.value_rows).start, texts[-1].tiles(cfg.value_rows).stop)
    needed = low.stacked(stacks.start, stacks.stop)
    depth, blocks = low.blocks_of(texts[-1].end - stacks.start * cfg.value_rows)
    most = int(cfg.weight_words * RING_SHARE) // (len(stacks) * halves)
    if blocks > 1:
        most = min(most, cfg.columns)
    if most == 0:
        low.refuse(f"pooling {low.tokens} tokens does not fit weight_words = {cfg.weight_words}; double it.")
        most = cfg.columns
    width = min(hidden, most)
    for first in range(0, hidden, width):
        count = min(width, hidden - first)
        names = {n: low.name(n) for n in ("values", "parameters")}
        low.groups.append(
            [
                Load(
                    Target.VALUES, len(stacks) * count * halves, low.value_address(source, stacks.start * each, first),
                    low.beats(count * cfg.value_rows), len(stacks), hidden * cfg.value_rows,
                    tuple((pooling.needs, t) for t in low.within(needed.start, needed.stop)), names["values"],
                ),
                Load(Target.PARAMETERS, 1, pooling.parameters, low.beats(16), base=names["parameters"]),
            ]
        )  # fmt: skip
        fields = {
            "window_address": windows, "window_beats": low.beats(blocks * cfg.groups * depth * cfg.rows),
            "n": 1, "depth": depth,
            "columns": count, "passes": blocks, "wide": 1,
            "count0": halves, "stride0": 1, "count1": depth // halves, "stride1": count * halves,
            "count2": count, "stride2": halves, "count3": blocks, "stride3": depth // halves * count * halves,
            "result": int(Result.STORE16), "result_address": low.tile_address(pooling.target, number, first),
        }  # fmt: skip
        bases = {"values_base": (names["values"], 0), "parameters_base": (names["parameters"], 0)}
        low.steps.append(Step(Opcode.PRODUCT, fields, len(low.groups) - 1, bases, label=pooling.label))
