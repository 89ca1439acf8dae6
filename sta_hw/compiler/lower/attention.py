"""Attention: scores, softmax and context of every head and text, over blocks of keys."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ...errors import InputError
from ...model.operations import Operation
from ...spec.isa import Mask, Opcode, Result, Target
from ..image import parameter_words
from ..integers import IntegerAttention, linear_of
from ..packing import Place
from ..parameters import LinearParameters
from ..schedule import RING_SHARE, Load, Step
from .linear import linear
from .state import Lowering

__all__ = ["attention"]

Loop = list[tuple[int, float]]


def _keys_permuted(low: Lowering, p: LinearParameters, heads: int) -> LinearParameters:
    """Keys are stored transposed in blocks of `groups` dimensions; this order of columns meets the queries' windows."""
    groups, size = low.config.groups, len(p.weights) // heads
    position = np.arange(size)
    within = position % groups * (size // groups) + position // groups
    order = np.concatenate([head * size + within for head in range(heads)])
    return LinearParameters(
        p.weights[order], p.pattern, p.bias[order], p.multiplier[order], p.shift[order], p.second[order]
    )


def attention(low: Lowering, o: Operation) -> None:
    """Keys, values, queries; then scores, softmax and context of every head: scores run one step ahead of contexts."""
    assert isinstance(o, IntegerAttention)
    query, key, value = (linear_of(low.graph, i) for i in o.inputs)
    for linear_o, p, result in (
        (key, _keys_permuted(low, key.parameters, o.heads), Result.TRANSPOSE),
        (value, value.parameters, Result.STORE8),
        (query, query.parameters, Result.STORE8),
    ):
        source, target = linear_o.inputs[0], low.narrow[linear_o.name]
        low.note(linear_o.name, linear_o, linear_o.name, target)
        linear(low, linear_o.name, p, low.narrow[source], result, target, needs=low.event(source), gives=linear_o.name)
    low.note(o.name, o, o.name, low.narrow[o.name])
    _heads(low, o)


def _heads(low: Lowering, o: IntegerAttention) -> None:
    """Scores, softmax and context of every head and text; scores run one step ahead of contexts."""
    cfg, size = low.config, low.places[low.narrow[o.name]].width // o.heads
    tile_words = size * cfg.rows // cfg.groups
    none = np.zeros(o.heads, np.int64)
    scores_to = parameter_words(none, o.score_multiplier, o.score_shift, none)
    longest_block = max(low.key_blocks(t)[0] for t in low.packing.texts) // (cfg.rows // cfg.groups)
    if 2 * longest_block * tile_words > cfg.weight_words:
        wanted = 1 << (2 * longest_block * tile_words - 1).bit_length()
        raise InputError(
            f"{o.name}: a block of keys and values takes {2 * longest_block * tile_words} words, more than "
            f"weight_words = {cfg.weight_words}; {wanted} would do."
        )
    scores_parameters = [
        low.image.add(words, name=f"{o.name}, head {head}: parameters") for head, words in enumerate(scores_to)
    ]
    # Texts whose keys and values are on chip together.
    most = int(cfg.weight_words * RING_SHARE) // (2 * tile_words)
    runs = low.packing.together(most)
    loops = {text: _loops(low, text) for text in low.packing.texts}
    products = sum(2 * len(tile_loop) * len(block_loop) for tile_loop, block_loop, _ in loops.values())
    context: Step | None = None
    for head, by_head in low.repeat(o.heads, products, True):
        last_head = head == o.heads - 1
        for texts in runs:
            tiles = range(texts[0].tiles(cfg.rows).start, texts[-1].tiles(cfg.rows).stop)
            whole = len(tiles) <= most
            if whole:
                names = _load_keys(low, o, head, tiles, scores_parameters[head])
            for text in texts:
                tile_loop, block_loop, followed = loops[text]
                for tile, by_tile in tile_loop:
                    for block, by_block in block_loop:
                        keys_of = low.block_tiles(text, block)
                        if not whole:
                            names = _load_keys(low, o, head, keys_of, scores_parameters[head])
                        offset = (keys_of.start - tiles.start) * tile_words if whole else 0
                        done = last_head and block == block_loop[-1][0]
                        gives = tuple((o.name, t) for t in followed[tile]) if done else ()
                        weight = low.weight * by_head * by_tile * by_block
                        scores, after = _attention_block(low, o, head, text, tile, block, names, offset, gives, weight)
                        low.steps.append(scores)
                        if context is not None:
                            low.steps.append(context)
                        context = after
    assert context is not None
    low.steps.append(context)
    low.layers.append(
        {
            "layer": o.name, "columns": low.packing.longest, "reduction": size, "nm": "dense", "used": "dense",
            "encoding": "dense", "depth": size // cfg.groups,
            "passes": max(low.key_blocks(t)[1] for t in low.packing.texts),
            "chunk": cfg.groups * max(low.key_blocks(t)[0] for t in low.packing.texts),
            "work": 2.0 * sum(t.tokens**2 for t in low.packing.texts) * size * o.heads, "bytes": 0,
        }
    )  # fmt: skip


def _loops(low: Lowering, text: Place) -> tuple[Loop, Loop, dict[int, list[int]]]:
    """A text's row tiles and blocks of keys, each with how many it stands for; tiles whose contexts each tile's is."""
    block_loop = low.repeat(low.key_blocks(text)[1], 2, True)
    mine = text.tiles(low.config.rows)
    tile_loop = [(mine.start + t, w) for t, w in low.repeat(len(mine), 2 * len(block_loop), True)]
    starts = [tile for tile, _ in tile_loop]
    return tile_loop, block_loop, {a: low.within(a, b) for a, b in pairwise([*starts, mine.stop])}


def _load_keys(low: Lowering, o: IntegerAttention, head: int, tiles: range, parameters_at: int) -> dict[str, str]:
    """A group of LOADs: keys, values and the scores' parameters of a head; names of their bases."""
    cfg, size = low.config, low.places[low.narrow[o.name]].width // o.heads
    names = {n: low.name(n) for n in ("keys", "values", "parameters")}
    keys, values = (
        Load(
            Target.VALUES, len(tiles) * size * cfg.rows // cfg.groups,
            low.tile_address(low.narrow[value], tiles.start, head * size), low.beats(size * cfg.rows),
            len(tiles), size * o.heads * cfg.rows,
            tuple((value, t) for t in low.within(tiles.start, tiles.stop)), names[name],
        )
        for value, name in ((o.inputs[1], "keys"), (o.inputs[2], "values"))
    )  # fmt: skip
    parameters = Load(Target.PARAMETERS, 1, parameters_at, low.beats(16), base=names["parameters"])
    # Scores run ahead: they may not wait for values that overwrite those of contexts after them.
    low.groups.append([keys, parameters, values])
    return names


def _attention_block(
    low: Lowering, o: IntegerAttention, head: int, text: Place, tile: int, block: int, names: dict[str, str],
    offset: int, gives: tuple[tuple[str, int], ...], weight: float,
) -> tuple[Step, Step]:  # fmt: skip
    """The scores and the context of a head, a row tile of a text and a block of its keys."""
    cfg, size = low.config, low.places[low.narrow[o.name]].width // o.heads
    halves = cfg.rows // cfg.groups
    keys_depth, blocks = low.key_blocks(text)
    block_tiles = keys_depth // halves
    tile_words = size * cfg.rows // cfg.groups
    group = len(low.groups) - 1
    last = block == blocks - 1
    # Keys are numbered from the text's first token on, and blocks begin with a row tile: so numbers step evenly from
    # block to block. The only text may be shorter than it was compiled for.
    alone = len(low.packing.texts) == 1
    before, after = low.packing.others(low.packing.texts.index(text), tile)
    scores = Step(
        Opcode.SCORES,
        {
            "window_address": low.tile_address(low.narrow[o.inputs[0]], tile, head * size),
            "window_beats": low.beats(size * cfg.rows), "n": 1, "depth": size // cfg.groups,
            "columns": cfg.groups * keys_depth, "passes": 1, "wide": 1,
            "count0": size // cfg.groups, "stride0": cfg.rows, "count1": halves,
            "stride1": cfg.groups, "count2": block_tiles, "stride2": tile_words,
            "count3": cfg.groups, "stride3": 1,
            "mask": int(Mask.LENGTH if alone else Mask.KEYS), "keys": 0 if alone else text.tokens,
            "key_start": block * cfg.groups * keys_depth - text.first % cfg.rows,
            "row_first": int(block == 0), "row_last": int(last), "gain": o.gain[head],
            "coarse": o.coarse[head],
        },
        group,
        {"values_base": (names["keys"], offset), "parameters_base": (names["parameters"], 0)},
        ((o.inputs[0], tile),), (), o.name, (0, 2), weight,
    )  # fmt: skip
    context = Step(
        Opcode.CONTEXT,
        {
            "window_beats": low.beats(cfg.groups * keys_depth * cfg.rows), "n": 1,
            "depth": keys_depth, "columns": size, "passes": 1,
            "continues": int(block > 0), "unfinished": int(not last),
            "count0": halves, "stride0": 1, "count1": block_tiles, "stride1": tile_words,
            "count2": size, "stride2": halves, "count3": 1,
            "result": int(Result.STORE8), "result_address": low.tile_address(low.narrow[o.name], tile, head * size),
            "rows_before": before, "rows_after": after,
        },
        group, {"values_base": (names["values"], offset)}, (), gives, o.name, (2, 3), weight,
    )  # fmt: skip
    return scores, context
