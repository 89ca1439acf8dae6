"""What a decoder's attention takes, where it belongs: queries, and keys and values in their caches.

A turned pair lies in neighbouring columns of what a product stores. Windows of queries take column ``g D + p`` in group
g and position p, ``D = size / groups``, and words of keys have in place g of word p the column ``p groups + g``; so a
pair that is neighbours to both would want a pass of `groups` columns alone, and the sums of several passes have the
place that a context's sums wait in from block to block. Keys that turn are therefore stored as queries lie, and a
product with a permutation's matrix, exact, puts them into their words' order: one pass, for any context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...model.operations import Attention, Linear, Norm, RmsNorm, Rotary
from ...spec.isa import NormKind, Opcode, Result
from ...spec.patterns import DENSE
from ..image import norm_words
from ..lower.linear import LinearLayer, linear
from ..parameters import LinearParameters
from ..schedule import Step
from .arithmetic import cosines
from .room import (
    KEYS,
    KEYS_NORMED,
    KEYS_WIDE,
    NARROW,
    QUERY,
    QUERY_NORMED,
    QUERY_WIDE,
    UNUSED,
    Room,
)
from .slots import SlotValue

__all__ = ["norm_step", "project", "put_prefix", "row_of", "tile_of"]

_ONE = 1 << 12
"""The multiplier that leaves sums as they are, with a shift of 0."""


def _key_order(groups: int, size: int, heads: int) -> NDArray[np.int64]:
    """Keys' columns as the queries' windows meet them."""
    place = np.arange(size)
    within = place % groups * (size // groups) + place // groups
    return np.concatenate([head * size + within for head in range(heads)])


def _pairs(size: int) -> NDArray[np.int64]:
    """A head's columns with the two of a pair side by side, as hardware turns them."""
    return np.arange(size).reshape(2, -1).T.reshape(-1)


def _ordered(p: LinearParameters, order: NDArray[np.int64]) -> LinearParameters:
    return LinearParameters(
        p.weights[order], p.pattern, p.bias[order], p.multiplier[order], p.shift[order], p.second[order],
        blocks=None if p.blocks is None else p.blocks.columns(order),
    )  # fmt: skip


def _turns(low: Room, o: Rotary) -> int:
    """Address of all positions' cosines and sines: tile after tile, column after column, all rows together."""
    rows, pairs, tiles = low.config.rows, len(o.frequencies), low.context_tiles
    words = np.stack(cosines(o.frequencies, 0, tiles * rows), axis=-1)  # (positions, pairs, 2)
    by_tile = words.reshape(tiles, rows, 2 * pairs).transpose(0, 2, 1)
    return low.image.add(by_tile.astype("<i2"), name="cosines and sines")


def _turns_of_slots(low: Room, o: Rotary) -> int:
    """Address of the cosines and sines of a batch's tile: the host writes each row's own."""
    for address, frequencies in low.turns:
        if np.array_equal(frequencies, o.frequencies):
            return address
    address = low.image.reserve(4 * len(o.frequencies) * low.config.rows, "cosines and sines of a batch")
    low.turns.append((address, o.frequencies))
    return address


def norm_step(
    low: Room, o: Norm | RmsNorm, addresses: tuple[int, int, int], needs: str, gives: str, tile: int, register: int = 0
) -> None:
    """A NORM of one tile; addresses of what it takes, which a register is added to, and of 16-bit and 8-bit results."""
    p = low.of.norms[o.name]
    inverse = round(2**33 / len(p.scale))
    fields = {
        "input_address": addresses[0], "wide_address": addresses[1], "narrow_address": addresses[2],
        "width": len(p.scale), "inverse": inverse & 0xFFFFFFFF, "inverse_high": inverse >> 32,
        "parameters_address": low.image.add(norm_words(p), name=f"{o.name}: norm"),
        "kind": int(NormKind.RMS if isinstance(o, RmsNorm) else NormKind.LAYER), "epsilon": low.of.epsilons[o.name],
        "bits15": int(low.of.widths[o.name] == 15),
    }  # fmt: skip
    if register:
        fields["input_address_register"] = register
    wanted = ((needs, low.tiles - 1 if register else tile),) if needs else ()
    low.steps.append(Step(Opcode.NORM, fields, needs=wanted, gives=((gives, tile),), label=o.name))


def _cached(low: Room, first: int, width: int, *, values: bool = False) -> None:
    """The steps from `first` on store into the caches, of so many columns, into the tiles of the pass.

    Of the first tile the position's rows alone, for those before are other tokens'. What lies behind the last token, in
    its tile and in others, is overwritten before any token looks at it. Of a batch the results are stored once for each
    slot, its row alone.
    """
    cfg, each = low.config, low.config.value_rows // low.config.rows
    if low.batch:
        stacks = (each, cfg.value_rows * width, cfg.rows) if values else (1, cfg.rows * width)
        low.steps[first:] = _for_each_slot(
            low, low.steps[first:],
            [low.of_slot(SlotValue(slot, slot * low.cache_bytes, *stacks)) for slot in range(low.sequences)],
        )  # fmt: skip
        return
    for step in low.steps[first:]:
        tile = tile_of(step)
        step.fields["place"] = int(tile == 0)
        if values:
            step.fields["result_address_register"] = low.by_stack(cfg.value_rows * width, tile)
            step.fields["result_address"] -= tile % each * cfg.rows
        else:
            step.fields["result_address_register"] = low.by_tile(cfg.rows * width, cached=True)


def row_of(low: Room, slot: int) -> dict[str, int]:
    """Fields with which results of a batch's row tile are stored for that slot's row alone: register LENGTH is 1."""
    return {"place": 1, "rows_before": slot, "rows_after": -slot % low.config.rows}


def _for_each_slot(low: Room, steps: Sequence[Step], registers: Sequence[int]) -> list[Step]:
    """Products once for each slot, whose register is added to where its row is stored; over the same weights."""
    found: list[Step] = []
    parts: list[Step] = []  # of a product, those that leave their sums to the last one
    for step in steps:
        parts.append(step)
        if step.fields.get("unfinished"):
            continue
        for slot, register in enumerate(registers):
            for part in parts:
                fields = part.fields | row_of(low, slot) | {"result_address_register": register}
                if slot and fields.pop("keep", 0):  # the first slot's product has kept them
                    there = low.windows_on_chip.there(fields["window_address"], fields["window_beats"])
                    fields["kept"] = int(there)
                found.append(replace(part, fields=fields))
        parts = []
    return found


def tile_of(step: Step) -> int:
    """A product's row tile, of the pass."""
    (need,) = step.needs
    assert isinstance(need, tuple)
    return int(need[1])


def _normed(low: Room, o: Rotary, wide: str, narrow: str) -> None:
    """A product's 16-bit results, and the norm of each head."""
    norm = low.graph.by_name[o.inputs[0]]
    assert isinstance(norm, RmsNorm)
    source = low.graph.linear(norm.inputs[0])
    linear(low, LinearLayer(
        source.name, low.of.linears[source.name], low.taken(NARROW, source.inputs[0]), Result.STORE16, wide,
        needs=source.inputs[0], gives=source.name,
    ))  # fmt: skip
    size = 2 * len(o.frequencies)
    for tile in range(low.tiles):
        for head in range(o.heads):
            places = ((wide, tile), (UNUSED, 0), (narrow, tile))
            addresses = tuple(low.tile_address(b, t, head * size) for b, t in places)
            norm_step(low, norm, (addresses[0], addresses[1], addresses[2]), source.name,
                      f"{norm.name}, head {head}", tile)  # fmt: skip


def _turned(
    low: Room, o: Rotary, normed: str, result: Result, target: str, gives: str, heads: Sequence[int] | None = None
) -> None:
    """Queries or keys that turn: a product for each head, of the layer's input or, with a diagonal, of its norm.

    Of those `heads`, all if not said.
    """
    source = low.graph.by_name[o.inputs[0]]
    rows, size = low.config.rows, 2 * len(o.frequencies)
    turns = _turns_of_slots(low, o) if low.batch else _turns(low, o)
    by_tile = 0 if low.batch else low.by_tile(2 * rows * size)
    for head in range(o.heads) if heads is None else heads:
        first, columns = len(low.steps), head * size + _pairs(size)
        if isinstance(source, Linear):
            needs, at = source.inputs[0], 0
            p, label = _ordered(low.of.linears[source.name], columns), source.name
            taken = low.taken(NARROW, needs)
        else:
            p, label, taken = low.of.linears[o.name], f"{o.name}: turn", normed
            p = _ordered(replace(p, weights=np.tile(p.weights, (o.heads, 1))), columns)
            needs, at = f"{source.name}, head {head}", head * size * rows
        linear(low, LinearLayer(
            f"{label}, head {head}", p, taken, result, target,
            needs=needs, gives=f"{gives}, head {head}", keeps=at == 0,
        ))  # fmt: skip
        for step in low.steps[first:]:
            tile = tile_of(step)
            column = (step.fields["result_address"] - low.tile_address(target, tile)) // rows
            step.fields.update({
                "rotate": 1, "wide": 1, "residual_address": turns + (tile * size + column) * 2 * rows,
                "residual_address_register": by_tile,
                "window_address": step.fields["window_address"] + at,
                "result_address": step.fields["result_address"] + head * size * rows,
            })  # fmt: skip


def _put_in_order(low: Room, name: str, size: int, heads: int) -> None:
    """Turned keys into the order of weights: the same product for each head."""
    rows = low.config.rows
    order = _key_order(low.config.groups, size, 1)
    none = np.zeros(size, np.int64)
    p = LinearParameters(np.eye(size, dtype=np.int8)[order], DENSE, none, none + _ONE, none, none)
    first = len(low.steps)
    linear(low, LinearLayer(
        f"{name}: order", p, KEYS, Result.TRANSPOSE, name,
        needs=f"{name}: turned, head 0", gives=f"{name}, head 0", keeps=False,
    ))  # fmt: skip
    given = low.steps[first:]
    low.steps[first:] = [
        replace(
            step, needs=((f"{name}: turned, head {head}", tile_of(step)),),
            gives=((f"{name}, head {head}", tile_of(step)),) if step.gives else (),
            fields=step.fields | {
                field: step.fields[field] + head * size * rows for field in ("window_address", "result_address")
            },
        )
        for step in given for head in range(heads)
    ]  # fmt: skip


def project(low: Room, o: Attention, size: int) -> None:
    """Values and keys into the caches; queries."""
    groups, (query, key, value) = low.config.groups, o.inputs
    heads = o.heads // o.shared
    q, k = low.graph.by_name[query], low.graph.by_name[key]
    assert isinstance(q, Rotary) == isinstance(k, Rotary), o.name
    whole = size == groups  # words of keys have the order of queries
    # What waits for a norm or a turn has another product ahead of it.
    turning = [(x, w, n) for x, w, n in ((k, KEYS_WIDE, KEYS_NORMED), (q, QUERY_WIDE, QUERY_NORMED))
               if isinstance(x, Rotary)]  # fmt: skip
    for x, wide, narrow in turning:
        if not isinstance(low.graph.by_name[x.inputs[0]], Linear):
            _normed(low, x, wide, narrow)
    _values(low, value, size * heads)
    if isinstance(k, Rotary) and not whole:
        _turned(low, k, KEYS_NORMED, Result.STORE8, KEYS, f"{key}: turned")
    else:
        first = len(low.steps)
        if isinstance(k, Rotary):
            _turned(low, k, KEYS_NORMED, Result.TRANSPOSE, key, key)
        else:
            p = _ordered(low.of.linears[key], _key_order(groups, size, heads))
            source = low.taken(NARROW, k.inputs[0])
            linear(low, LinearLayer(key, p, source, Result.TRANSPOSE, key, needs=k.inputs[0], gives=key))
        _cached(low, first, size * heads)
    if not isinstance(q, Rotary):
        linear(low, LinearLayer(
            query, low.of.linears[query], low.taken(NARROW, q.inputs[0]), Result.STORE8, QUERY,
            needs=q.inputs[0], gives=query,
        ))  # fmt: skip
        return
    # Weights of the last heads' queries come from memory while keys go there, which scores are about to load.
    last = o.heads - o.heads // 3
    _turned(low, q, QUERY_NORMED, Result.STORE8, QUERY, query, range(last))
    if isinstance(k, Rotary) and not whole:
        first = len(low.steps)
        _put_in_order(low, key, size, heads)
        _cached(low, first, size * heads)
    _turned(low, q, QUERY_NORMED, Result.STORE8, QUERY, query, range(last, o.heads))


def _values(low: Room, value: str, width: int) -> None:
    """Values, `width` columns of all heads, into the cache."""
    first = len(low.steps)
    needs = low.graph.by_name[value].inputs[0]
    linear(low, LinearLayer(
        value, low.of.linears[value], low.taken(NARROW, needs), Result.STORE8, value,
        needs=needs, gives=value, side_by_side=True,
    ))  # fmt: skip
    _cached(low, first, width, values=True)


def put_prefix(low: Room, o: Attention, image: NDArray[np.uint8]) -> None:
    """The prefix's keys and values where products would have stored them."""
    cfg = low.config
    keys, values = low.of.keys[o.name], low.of.values[o.name]
    heads = o.heads // o.shared
    size = keys.shape[1] // heads
    order = _key_order(cfg.groups, size, heads)
    if isinstance(low.graph.by_name[o.inputs[1]], Rotary):
        order = np.concatenate([head * size + _pairs(size) for head in range(heads)])[order]
    for position in range(len(keys)):
        tile, row = divmod(position, cfg.rows)
        at = low.tile_address(o.inputs[1], tile)
        columns = keys[position, order].view(np.uint8)
        for block in range(len(columns) // cfg.groups):
            start = at + block * cfg.groups * cfg.rows + row * cfg.groups
            image[start : start + cfg.groups] = columns[block * cfg.groups : (block + 1) * cfg.groups]
        at, step = low.value_address(o.inputs[2], tile), cfg.value_rows
        image[at + row : at + len(columns) * step : step] = values[position].view(np.uint8)
