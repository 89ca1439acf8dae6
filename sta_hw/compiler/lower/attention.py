"""Attention: scores, softmax and context of every head, over blocks of keys."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ...errors import InputError
from ...spec.isa import Opcode, Result, Target
from ..image import parameter_words
from ..parameters import LayerParameters
from ..schedule import RING_SHARE, Load, Step
from .state import Lowering

__all__ = ["attention"]


def attention(low: Lowering, layer: int, p: LayerParameters) -> None:
    """Scores, softmax and context of every head; scores run one step ahead of contexts."""
    cfg, encoder = low.config, low.encoder
    size = encoder.hidden // encoder.heads
    halves = cfg.rows // cfg.groups
    keys_depth, blocks = low.key_blocks()
    block_tiles = keys_depth // halves
    tile_words = size * cfg.rows // cfg.groups
    whole = 2 * low.tiles * tile_words <= int(cfg.weight_words * RING_SHARE)
    label = f"layer {layer} attention"
    none = np.zeros(encoder.heads, np.int64)
    scores_to = parameter_words(none, p.score_multiplier, p.score_shift, none)
    context: Step | None = None
    if 2 * block_tiles * tile_words > cfg.weight_words:
        wanted = 1 << (2 * block_tiles * tile_words - 1).bit_length()
        raise InputError(
            f"{label}: a block of keys and values takes {2 * block_tiles * tile_words} words, more than "
            f"weight_words = {cfg.weight_words}; {wanted} would do."
        )
    scores_parameters = [low.image.add(words) for words in scores_to]
    block_loop = low.repeat(blocks, 2, True)
    tile_loop = low.repeat(low.tiles, 2 * len(block_loop), True)
    # Tiles whose contexts each one's stands for.
    starts = [tile for tile, _ in tile_loop]
    followed = {a: low.within(a, b) for a, b in pairwise([*starts, low.tiles])}
    for head, tile, block, weight in (
        (head, tile, block, low.weight * by_head * by_tile * by_block)
        for head, by_head in low.repeat(encoder.heads, 2 * len(block_loop) * len(tile_loop), True)
        for tile, by_tile in tile_loop
        for block, by_block in block_loop
    ):
        first = block * block_tiles
        if not whole or (tile == 0 and block == 0):
            names = {n: low.name(n) for n in ("keys", "values", "parameters")}
            start, stop = (0, low.tiles) if whole else (first, min(first + block_tiles, low.tiles))
            keys, values = (
                Load(
                    Target.VALUES, (stop - start) * tile_words,
                    low.tile_address(buffer, start, head * size), low.beats(size * cfg.rows),
                    stop - start, encoder.hidden * cfg.rows,
                    tuple((f"{buffer}{layer}", t) for t in low.within(start, stop)), names[name],
                )
                for buffer, name in (("k", "keys"), ("v", "values"))
            )  # fmt: skip
            parameters = Load(Target.PARAMETERS, 1, scores_parameters[head], low.beats(16), base=names["parameters"])
            # Scores run ahead: they may not wait for values that overwrite those of contexts after them.
            loads = [keys, parameters, values]
            low.groups.append(loads)
        offset = first * tile_words if whole else 0
        group = len(low.groups) - 1
        last = block == blocks - 1
        low.steps.append(
            Step(
                Opcode.SCORES,
                {
                    "window_address": low.tile_address("q", tile, head * size),
                    "window_beats": low.beats(size * cfg.rows), "n": 1, "depth": size // cfg.groups,
                    "columns": cfg.groups * keys_depth, "passes": 1, "wide": 1,
                    "count0": size // cfg.groups, "stride0": cfg.rows, "count1": halves,
                    "stride1": cfg.groups, "count2": block_tiles, "stride2": tile_words,
                    "count3": cfg.groups, "stride3": 1,
                    "keys": min(low.tokens - block * cfg.groups * keys_depth, cfg.groups * keys_depth),
                    "row_first": int(block == 0), "row_last": int(last), "gain": p.gain[head],
                    "coarse": p.coarse[head],
                },
                group,
                {"values_base": (names["keys"], offset), "parameters_base": (names["parameters"], 0)},
                ((f"q{layer}", tile),), (), label, (0, 2), weight,
            )
        )  # fmt: skip
        if context is not None:
            low.steps.append(context)
        context = Step(
            Opcode.CONTEXT,
            {
                "window_beats": low.beats(cfg.groups * keys_depth * cfg.rows), "n": 1,
                "depth": keys_depth, "columns": size, "passes": 1,
                "continues": int(block > 0), "unfinished": int(not last),
                "count0": halves, "stride0": 1, "count1": block_tiles, "stride1": tile_words,
                "count2": size, "stride2": halves, "count3": 1,
                "result": int(Result.STORE8), "result_address": low.tile_address("c", tile, head * size),
            },
            group, {"values_base": (names["values"], offset)}, (),
            tuple((f"c{layer}", t) for t in followed[tile]) if last and head == encoder.heads - 1 else (),
            label, (2, 3), weight,
        )  # fmt: skip
    assert context is not None
    low.steps.append(context)
    low.layers.append(
        {
            "layer": label, "columns": low.tokens, "reduction": size, "nm": "dense", "used": "dense",
            "encoding": "dense", "depth": size // cfg.groups, "passes": blocks, "chunk": cfg.groups * keys_depth,
            "work": 2.0 * low.tokens * low.tokens * encoder.hidden, "bytes": 0,
        }
    )  # fmt: skip
