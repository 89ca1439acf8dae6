"""Attention: scores, softmax and context of every head and text, over blocks of keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...errors import InputError
from ...model.operations import Operation
from ...spec.config import Config
from ...spec.isa import Mask, Opcode, Result, Target
from ..image import parameter_words
from ..info import LayerInfo
from ..integers import IntegerAttention, linear_of
from ..packing import Place
from ..parameters import LinearParameters
from ..schedule import RING_SHARE, Load, Step
from .linear import LinearLayer, linear
from .state import Lowering

__all__ = ["attention", "counters", "key_counters"]

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


def counters(steps: Sequence[tuple[int, int]]) -> dict[str, int]:
    """A product's fields of counters, the innermost first: how often each, and its stride; no more than four."""
    assert len(steps) <= 4
    filled = [*steps, *[(1, 0)] * (4 - len(steps))]
    return {f"{what}{n}": v for n, pair in enumerate(filled) for what, v in zip(("count", "stride"), pair, strict=True)}


def key_counters(config: Config, size: int, stacks: int) -> list[tuple[int, int]]:
    """The order in which the softmax takes a block's keys: key g of each beat of values, then the next one of each.

    A beat of values is of `groups` consecutive tokens: several beats lie in a row tile, or several row tiles in a beat.
    """
    rows, groups = config.rows, config.groups
    tile_words = size * rows // groups
    if groups > rows:
        return [(stacks, groups // rows * tile_words), (rows, 1), (groups // rows, tile_words)]
    return [(rows // groups, groups), (stacks, tile_words), (groups, 1)]


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
        linear(low, LinearLayer(
            linear_o.name, p, low.narrow[source], result, target,
            needs=low.event(source), gives=linear_o.name, side_by_side=linear_o is value,
        ))  # fmt: skip
    low.note(o.name, o, o.name, low.narrow[o.name])
    _heads(low, o)


def _heads(low: Lowering, o: IntegerAttention) -> None:
    """Scores, softmax and context of every head and text; scores run one step ahead of contexts."""
    cfg, size, stack_words = low.config, _head_size(low, o), _stack_words(low, o)
    none = np.zeros(o.heads, np.int64)
    scores_to = parameter_words(none, o.score_multiplier, o.score_shift, none)
    longest_block = max(low.key_blocks(t)[0] for t in low.packing.texts) // (cfg.value_rows // cfg.groups)
    if 2 * longest_block * stack_words > cfg.weight_words:
        wanted = 1 << (2 * longest_block * stack_words - 1).bit_length()
        raise InputError(
            f"{o.name}: a block of keys and values takes {2 * longest_block * stack_words} words, more than "
            f"weight_words = {cfg.weight_words}; {wanted} would do."
        )
    scores_parameters = [
        low.image.add(words, name=f"{o.name}, head {head}: parameters") for head, words in enumerate(scores_to)
    ]
    # Texts whose keys and values are on chip together: in so many stacks, of `value_rows` tokens.
    most = int(cfg.weight_words * RING_SHARE) // (2 * stack_words)
    runs = low.packing.together(most, cfg.value_rows)
    loops = {text: _loops(low, text) for text in low.packing.texts}
    products = sum(2 * len(tile_loop) * len(block_loop) for tile_loop, block_loop, _ in loops.values())
    context: Step | None = None
    for head, by_head in low.repeat(o.heads, products, True):
        last_head = head == o.heads - 1
        for texts in runs:
            stacks = range(texts[0].tiles(cfg.value_rows).start, texts[-1].tiles(cfg.value_rows).stop)
            whole = len(stacks) <= most
            if whole:
                names = _load_keys(low, o, head, stacks, scores_parameters[head])
            for text in texts:
                tile_loop, block_loop, followed = loops[text]
                for tile, by_tile in tile_loop:
                    for block, by_block in block_loop:
                        keys_of = low.block_stacks(text, block)
                        if not whole:
                            names = _load_keys(low, o, head, keys_of, scores_parameters[head])
                        offset = (keys_of.start - stacks.start) * stack_words if whole else 0
                        done = last_head and block == block_loop[-1][0]
                        gives = tuple((o.name, t) for t in followed[tile]) if done else ()
                        weight = low.weight * by_head * by_tile * by_block
                        here = _Block(head, text, tile, block, names, offset, weight)
                        low.steps.append(_scores(low, o, here))
                        if context is not None:
                            low.steps.append(context)
                        context = _context(low, o, here, gives)
    assert context is not None
    low.steps.append(context)
    low.layers.append(
        LayerInfo(
            layer=o.name, columns=low.packing.longest, reduction=size, nm="dense", used="dense", encoding="dense",
            depth=size // cfg.groups, passes=max(low.key_blocks(t)[1] for t in low.packing.texts),
            chunk=cfg.groups * max(low.key_blocks(t)[0] for t in low.packing.texts),
            work=2.0 * sum(t.tokens**2 for t in low.packing.texts) * size * o.heads, bytes=0,
        )
    )  # fmt: skip


def _loops(low: Lowering, text: Place) -> tuple[Loop, Loop, dict[int, list[int]]]:
    """A text's row tiles and blocks of keys, each with how many it stands for; tiles whose contexts each tile's is."""
    block_loop = low.repeat(low.key_blocks(text)[1], 2, True)
    mine = text.tiles(low.config.rows)
    tile_loop = [(mine.start + t, w) for t, w in low.repeat(len(mine), 2 * len(block_loop), True)]
    starts = [tile for tile, _ in tile_loop]
    return tile_loop, block_loop, {a: low.within(a, b) for a, b in pairwise([*starts, mine.stop])}


def _load_keys(low: Lowering, o: IntegerAttention, head: int, stacks: range, parameters_at: int) -> dict[str, str]:
    """A group of LOADs: keys, values and the scores' parameters of a head; names of their bases.

    Keys lie in row tiles, values in stacks; both take as many words.
    """
    cfg, size = low.config, _head_size(low, o)
    names = {n: low.name(n) for n in ("keys", "values", "parameters")}
    needed, each = low.stacked(stacks.start, stacks.stop), cfg.value_rows // cfg.rows
    keys, values = (
        Load(
            Target.VALUES, len(stacks) * size * cfg.value_rows // cfg.groups, address, low.beats(size * rows),
            len(stacks) * cfg.value_rows // rows, size * o.heads * rows,
            tuple((value, t) for t in low.within(needed.start, needed.stop)), names[name],
        )
        for value, name, rows, address in (
            (o.inputs[1], "keys", cfg.rows,
             low.tile_address(low.narrow[o.inputs[1]], stacks.start * each, head * size)),
            (o.inputs[2], "values", cfg.value_rows,
             low.value_address(low.narrow[o.inputs[2]], stacks.start * each, head * size)),
        )
    )  # fmt: skip
    parameters = Load(Target.PARAMETERS, 1, parameters_at, low.beats(16), base=names["parameters"])
    # Scores run ahead: they may not wait for values that overwrite those of contexts after them.
    low.groups.append([keys, parameters, values])
    return names


@dataclass(frozen=True)
class _Block:
    """What of a head is multiplied at a time: a row tile of a text by a block of its keys, and by their values.

    Attributes
    ----------
    names : dict
        Of the bases of ``keys``, ``values`` and ``parameters`` on chip.
    offset : int
        Words from there to the block's.
    weight : float
        How many blocks it stands for, in an outline.
    """

    head: int
    text: Place
    tile: int
    number: int
    names: dict[str, str]
    offset: int
    weight: float


def _scores(low: Lowering, o: IntegerAttention, block: _Block) -> Step:
    """Queries by keys, into the softmax.

    Keys are numbered from the text's first token on, and blocks begin with a row tile: so numbers step evenly from
    block to block. The only text may be shorter than it was compiled for.
    """
    cfg, size, text = low.config, _head_size(low, o), block.text
    keys_depth, blocks = low.key_blocks(text)
    alone = len(low.packing.texts) == 1
    return Step(
        Opcode.SCORES,
        {
            "window_address": low.tile_address(low.narrow[o.inputs[0]], block.tile, block.head * size),
            "window_beats": low.beats(size * cfg.rows), "n": 1, "depth": size // cfg.groups,
            "columns": cfg.groups * keys_depth, "passes": 1, "wide": 1,
            **counters([
                (size // cfg.groups, cfg.rows),
                *key_counters(cfg, size, keys_depth // (cfg.value_rows // cfg.groups)),
            ]),
            "mask": int(Mask.LENGTH if alone else Mask.KEYS), "keys": 0 if alone else text.tokens,
            "key_start": block.number * cfg.groups * keys_depth - text.first % cfg.value_rows,
            "row_first": int(block.number == 0), "row_last": int(block.number == blocks - 1),
            "gain": o.gain[block.head], "coarse": o.coarse[block.head],
        },
        len(low.groups) - 1,
        {"values_base": (block.names["keys"], block.offset), "parameters_base": (block.names["parameters"], 0)},
        ((o.inputs[0], block.tile),), (), o.name, (0, 2), block.weight,
    )  # fmt: skip


def _context(low: Lowering, o: IntegerAttention, block: _Block, gives: tuple[tuple[str, int], ...]) -> Step:
    """Probabilities by values: sums go on from block to block, and are stored behind the last one, which `gives`."""
    cfg, size = low.config, _head_size(low, o)
    halves = cfg.value_rows // cfg.groups
    keys_depth, blocks = low.key_blocks(block.text)
    before, after = low.packing.others(low.packing.texts.index(block.text), block.tile)
    return Step(
        Opcode.CONTEXT,
        {
            "window_beats": low.beats(cfg.groups * keys_depth * cfg.rows), "n": 1,
            "depth": keys_depth, "columns": size, "passes": 1,
            "continues": int(block.number > 0), "unfinished": int(block.number < blocks - 1),
            "count0": halves, "stride0": 1, "count1": keys_depth // halves, "stride1": _stack_words(low, o),
            "count2": size, "stride2": halves, "count3": 1, "result": int(Result.STORE8),
            "result_address": low.tile_address(low.narrow[o.name], block.tile, block.head * size),
            "rows_before": before, "rows_after": after,
        },
        len(low.groups) - 1, {"values_base": (block.names["values"], block.offset)}, (), gives, o.name, (2, 3),
        block.weight,
    )  # fmt: skip


def _head_size(low: Lowering, o: IntegerAttention) -> int:
    return low.places[low.narrow[o.name]].width // o.heads


def _stack_words(low: Lowering, o: IntegerAttention) -> int:
    """Words on chip of a head's keys, or values, of `value_rows` tokens."""
    return _head_size(low, o) * low.config.value_rows // low.config.groups
