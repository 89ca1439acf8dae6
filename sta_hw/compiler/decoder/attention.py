"""A decoder's attention: scores and contexts over blocks of keys, behind the products of `projections`."""

from __future__ import annotations

from itertools import product

import numpy as np

from ...model.operations import Attention, Rotary
from ...spec.isa import Mask, Opcode, Result, Target
from ..image import parameter_words
from ..lower.attention import counters, key_counters
from ..schedule import RING_SHARE, Load, Step
from .projections import project, row_of
from .room import CONTEXT, QUERY, Room
from .slots import SlotValue

__all__ = ["attention"]


def _keys_and_values(
    low: Room, o: Attention, shared: int, slot: int, keys: range, parameters: tuple[int, int]
) -> dict[str, str]:
    """A group of LOADs: some of a head's keys and values, and parameters of scores; names of their bases."""
    cfg, (_, key, value) = low.config, o.inputs
    size = int(low.graph.shapes[o.name][-1]) // o.heads
    tokens, first = len(keys), keys.start
    names = {n: low.name(n) for n in ("keys", "values", "parameters")}
    # Those before the pass have been there since other runs.
    tiles = range(low.tiles) if keys.stop > low.keys.before else range(0)
    events = {n: tuple((_event(low, n, shared), tile) for tile in tiles) for n in (key, value)}
    loads = [
        Load(
            Target.VALUES, tokens * size // cfg.groups,
            address(source, first // cfg.rows, shared * size) + slot * low.cache_bytes,
            low.beats(size * rows), tokens // rows, size * (o.heads // o.shared) * rows, events[source], names[name],
            low.cache_register,
        )
        for source, name, rows, address in (
            (key, "keys", cfg.rows, low.tile_address), (value, "values", cfg.value_rows, low.value_address)
        )
    ]  # fmt: skip
    address, count = parameters
    scores = Load(Target.PARAMETERS, count, address, low.beats(16 * count), base=names["parameters"])
    # Scores run ahead: they may not wait for values that overwrite those of contexts after them.
    low.groups.append([loads[0], scores, loads[1]])
    return names


def _event(low: Room, name: str, head: int) -> str:
    return f"{name}, head {head}" if isinstance(low.graph.by_name[name], Rotary) else name


def attention(low: Room, o: Attention) -> None:
    """Queries, keys and values; scores and contexts of every head and row tile, scores one step ahead of contexts.

    Row tiles, and heads that share keys and values, take them from the chip one after the other, where all find room.
    Of a batch's row tile each sequence has scores and contexts of its own, of which its row alone is kept.
    """
    cfg, size = low.config, int(low.graph.shapes[o.name][-1]) // o.heads
    project(low, o, size)
    multiplier, shift, _, _ = low.of.scores[o.name]
    none = np.zeros(o.heads, np.int64)
    parameters = low.image.add(parameter_words(none, multiplier, shift, none), name=f"{o.name}: parameters")
    each, most = cfg.groups * cfg.window, low.keys.limits[-1]
    together = 2 * most * size // cfg.groups <= cfg.weight_words * RING_SHARE
    context: Step | None = None
    for shared, share, within in product(range(o.heads // o.shared), low.shares, range(o.shared)):
        head, (tile, slot) = shared * o.shared + within, share
        limit = low.keys.limits[tile]
        if together and tile == within == 0:
            names = _keys_and_values(low, o, shared, slot, range(most), (parameters + 16 * head, o.shared))
        for start in range(0, limit, each):
            keys = range(start, min(start + each, limit))
            if not together:
                names = _keys_and_values(low, o, shared, slot, keys, (parameters + 16 * head, 1))
            places = (start * size // cfg.groups, within) if together else (0, 0)
            low.steps.append(_scores(low, o, head, share, keys, names, places))
            if context is not None:
                low.steps.append(context)
            context = _context(low, o, head, share, keys, names, places[0])
    assert context is not None
    low.steps.append(context)


def _scores(
    low: Room, o: Attention, head: int, share: tuple[int, int], keys: range, names: dict[str, str],
    places: tuple[int, int],
) -> Step:  # fmt: skip
    cfg, (_, _, coarse, gain), (tile, slot) = low.config, low.of.scores[o.name], share
    size = int(low.graph.shapes[o.name][-1]) // o.heads
    return Step(
        Opcode.SCORES,
        {
            "window_address": low.tile_address(QUERY, tile, head * size), "window_beats": low.beats(size * cfg.rows),
            "n": 1, "depth": size // cfg.groups, "columns": len(keys), "passes": 1, "wide": 1,
            **counters([(size // cfg.groups, cfg.rows), *key_counters(cfg, size, len(keys) // cfg.value_rows)]),
            "mask": int(Mask.CAUSAL), "keys": 1 + tile * cfg.rows, "key_start": keys.start,
            "key_start_register": low.of_slot(SlotValue(slot, 0, 1, cfg.rows)) if low.batch else low.by_tile(cfg.rows),
            "row_first": int(keys.start == 0), "row_last": int(keys.stop == low.keys.limits[tile]),
            "gain": int(gain[head]), "coarse": int(coarse[head]),
        },
        len(low.groups) - 1, {"values_base": (names["keys"], places[0]), "parameters_base": (names["parameters"],
        places[1])}, ((_event(low, o.inputs[0], head), tile),), (), o.name, (0, 2),
    )  # fmt: skip


def _context(
    low: Room, o: Attention, head: int, share: tuple[int, int], keys: range, names: dict[str, str], place: int
) -> Step:
    cfg, (tile, slot) = low.config, share
    last = keys.stop == low.keys.limits[tile]
    size = int(low.graph.shapes[o.name][-1]) // o.heads
    halves, depth = cfg.value_rows // cfg.groups, len(keys) // cfg.groups
    short = int(low.of.widths[o.name] == 15)
    target = low.taken(CONTEXT, o.name)
    return Step(
        Opcode.CONTEXT,
        {
            "window_beats": low.beats(len(keys) * cfg.rows), "n": 1, "depth": depth,
            "columns": size, "passes": 1, "continues": int(keys.start > 0), "unfinished": int(not last),
            "count0": halves, "stride0": 1, "count1": depth // halves,
            "stride1": size * halves, "count2": size, "stride2": halves, "count3": 1,
            "result": int(Result.STORE16 if short else Result.STORE8), "wide": short, "bits15": short,
            "result_address": low.tile_address(target, tile, head * size),
            **(row_of(low, slot) if low.batch else {}),
        },
        len(low.groups) - 1, {"values_base": (names["values"], place)}, (),
        ((o.name, tile),) if last and head == o.heads - 1 else (), o.name, (2, 3),
    )  # fmt: skip
