"""A decoder as programs for the accelerator: one for each row tile of the context, with keys and values kept in memory.

The token of position p lies in row ``p mod rows`` of tile ``p div rows``: in the one input tile, in keys, in values. A
tile's program computes all of its rows, and keeps the keys and values of those alone that registers POSITION and LENGTH
name; so the same program serves a prompt's tokens of a tile at once, and each of them for itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...model.families.decoders import NEXT
from ...model.operations import (
    Activate,
    Add,
    Attention,
    Embed,
    Input,
    Linear,
    Multiply,
    Norm,
    Operation,
    Output,
    RmsNorm,
    Rotary,
)
from ...spec.config import Config
from ...spec.isa import Mask, NormKind, Opcode, Result, Target, assemble, program_bytes
from ..buffers import Buffer
from ..image import Image, norm_words, parameter_words
from ..lower.linear import linear
from ..lower.state import EncodedWeights, Lowering
from ..parameters import LinearParameters
from ..schedule import Load, Step, schedule
from .arithmetic import cosines
from .integers import IntegerDecoderGraph

__all__ = ["DecoderImage", "compile_decoder"]

_STREAM, _NARROW, _WIDE, _CONTEXT, _INNER, _QUERY = "stream", "narrow", "wide", "context", "inner", "query"
_LOGITS = "logits"
"""Buffers of one tile; keys and values have buffers of their own, named by their products."""


class _SharedImage(Image):
    """What was added once lies there for all programs."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._there: dict[tuple[str, bytes, int], int] = {}

    def add(self, data: NDArray, count: int = 0, name: str = "") -> int:
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        key = name, hashlib.sha256(raw.tobytes()).digest(), count
        if key not in self._there:
            self._there[key] = super().add(data, count, name)
        return self._there[key]


@dataclass(frozen=True)
class DecoderImage:
    """Programs with everything they need.

    Attributes
    ----------
    image : uint8 array
        The prefix's keys and values are in it.
    programs : tuple of int
        Address of each tile's program.
    input_address, logits_address : int
        Of the residual stream's tile, and of the logits' (16 bits, column after column).
    """

    config: Config
    image: NDArray[np.uint8]
    programs: tuple[int, ...]
    input_address: int
    logits_address: int
    width: int
    vocabulary: int

    def with_rows(self, image: NDArray[np.uint8], rows: NDArray[np.int64], first: int) -> None:
        """Write tokens' 16-bit streams, shape (tokens, width), into the input tile from row `first` on."""
        data = rows.astype("<i2").view(np.uint8).reshape(len(rows), self.width, 2)
        place = image[self.input_address : self.input_address + 2 * self.width * self.config.rows]
        place.reshape(self.width, self.config.rows, 2)[:, first : first + len(rows)] = data.transpose(1, 0, 2)

    def logits(self, image: NDArray[np.uint8], first: int, count: int) -> NDArray[np.int16]:
        """The 16-bit logits of rows, shape (count, vocabulary)."""
        size = 2 * self.vocabulary * self.config.rows
        raw = image[self.logits_address : self.logits_address + size].view("<i2")
        return raw.reshape(self.vocabulary, self.config.rows).T[first : first + count]


class _Room(Lowering):
    """Buffers of one tile, and caches of all."""

    def __init__(self, of: IntegerDecoderGraph, config: Config, tiles: int) -> None:
        self.of, self.graph, self.config = of, of.graph, config
        self.encoded = EncodedWeights(config)
        self.tokens, self.tiles, self.now = config.rows, 1, 0
        self.image = _SharedImage(config)
        self.steps, self.groups, self.layers, self.values = [], [], [], {}
        self._names = self.words_before = 0
        self.weight = self.chunk_weight = 1.0
        self.places: dict[str, Buffer] = {}
        self.buffers: dict[str, int] = {}
        self.caches: set[str] = set()
        graph = of.graph
        width = int(graph.shapes[next(o.name for o in graph.operations if isinstance(o, Embed))][-1])
        inner = [int(graph.shapes[o.name][-1]) for o in graph.operations if isinstance(o, Activate)]
        heads = [int(graph.shapes[o.inputs[0]][-1]) for o in graph.operations if isinstance(o, Attention)]
        for name, columns, size in (
            (_STREAM, width, 2), (_WIDE, width, 2), (_NARROW, width, 1), (_QUERY, max(heads), 1),
            (_CONTEXT, max(heads), 1), (_INNER, max(inner), 1), (_LOGITS, int(graph.shapes[NEXT][-1]), 2),
        ):  # fmt: skip
            self._reserve(name, columns, size, 1)
        for o in graph.operations:
            if isinstance(o, Attention):
                for name in o.inputs[1:]:
                    self._reserve(name, int(graph.shapes[name][-1]), 1, tiles)
                    self.caches.add(name)

    def _reserve(self, name: str, width: int, size: int, tiles: int) -> None:
        # Windows of the last tile may be read up to a whole pass beyond its end.
        slack = self.config.groups * self.config.window * self.config.rows
        self.places[name] = Buffer(name, width, size)
        self.buffers[name] = self.image.reserve(tiles * self.config.rows * width * size + slack, f"buffer {name}")

    def tile_address(self, buffer: str, tile: int, column: int = 0) -> int:
        """Of a cache the tile of the program, or for its LOADs the tile that is named."""
        return super().tile_address(buffer, tile + self.now if buffer in self.caches else tile, column)

    def begin(self, tile: int) -> None:
        """The next tile's program."""
        self.now = tile
        self.steps, self.groups, self.layers = [], [], []
        self.words_before = 0


def _key_order(groups: int, size: int, heads: int) -> NDArray[np.int64]:
    """Keys' columns as the queries' windows meet them; see `lower.attention`."""
    place = np.arange(size)
    within = place % groups * (size // groups) + place // groups
    return np.concatenate([head * size + within for head in range(heads)])


def _ordered(p: LinearParameters, order: NDArray[np.int64]) -> LinearParameters:
    return LinearParameters(
        p.weights[order], p.pattern, p.bias[order], p.multiplier[order], p.shift[order], p.second[order]
    )


def _pairs(size: int) -> NDArray[np.int64]:
    """A head's columns with the two of a pair side by side, as hardware turns them."""
    return np.arange(size).reshape(2, -1).T.reshape(-1)


def _turns(low: _Room, o: Rotary) -> int:
    """Address of the current tile's cosines and sines: column after column, all rows together."""
    rows, pairs = low.config.rows, len(o.frequencies)
    words = np.stack(cosines(o.frequencies, low.now * rows, rows), axis=-1)  # (rows, pairs, 2)
    return low.image.add(words.reshape(rows, 2 * pairs).T.astype("<i2"), name=f"positions of tile {low.now}")


def _turned(low: _Room, o: Rotary, result: Result, target: str) -> None:
    """Queries or keys that turn: a product for each head."""
    source = low.graph.by_name[o.inputs[0]]
    if not isinstance(source, Linear):
        raise InputError(f"{low.graph.name}: {o.name} turns a norm's results, which has no program yet.")
    p, rows = low.of.linears[source.name], low.config.rows
    size, turns = 2 * len(o.frequencies), _turns(low, o)
    for head in range(o.heads):
        first = len(low.steps)
        columns = _ordered(p, head * size + _pairs(size))
        linear(low, f"{source.name}, head {head}", columns, _NARROW, result, target, needs=source.inputs[0],
               gives=f"{o.name}, head {head}")  # fmt: skip
        for step in low.steps[first:]:
            column = (step.fields["result_address"] - low.tile_address(target, 0)) // rows
            step.fields.update({
                "rotate": 1, "wide": 1, "residual_address": turns + column * 2 * rows,
                "result_address": step.fields["result_address"] + head * size * rows,
            })  # fmt: skip


def _gate(low: _Room, o: Multiply) -> None:
    """Gate and what it lets through, column by column side by side, in one product."""
    opened = low.graph.by_name[o.inputs[0]]
    gate, up = low.graph.linear(opened.inputs[0]), low.graph.linear(o.inputs[1])
    a, b = low.of.linears[gate.name], low.of.linears[up.name]

    def both(first: NDArray, second: NDArray) -> NDArray:
        return np.stack([first, second], axis=1).reshape(2 * len(first), *first.shape[1:])

    p = LinearParameters(
        both(a.weights, b.weights), a.pattern, both(a.bias, b.bias), both(a.multiplier, b.multiplier),
        both(a.shift, b.shift), both(a.second, b.second),
    )  # fmt: skip
    first, base = len(low.steps), low.tile_address(_INNER, 0)
    linear(low, o.name, p, _NARROW, Result.ACTIVATE, _INNER, needs=gate.inputs[0], gives=o.name,
           table=low.of.tables[opened.name])  # fmt: skip
    for step in low.steps[first:]:
        half = (step.fields["result_address"] - base) // 2
        step.fields.update({"multiply": 1, "wide": 1, "result_address": base + half})


def _norm(low: _Room, o: Norm | RmsNorm, before: str) -> None:
    p, columns = low.of.norms[o.name], len(low.of.norms[o.name].scale)
    inverse = round(2**33 / columns)
    fields = {
        "input_address": low.tile_address(_STREAM, 0), "wide_address": low.tile_address(_WIDE, 0),
        "narrow_address": low.tile_address(_NARROW, 0), "width": columns, "inverse": inverse & 0xFFFFFFFF,
        "inverse_high": inverse >> 32, "parameters_address": low.image.add(norm_words(p), name=f"{o.name}: norm"),
        "kind": int(NormKind.RMS if isinstance(o, RmsNorm) else NormKind.LAYER), "epsilon": low.of.epsilons[o.name],
    }  # fmt: skip
    needs = ((before, 0),) if before else ()
    low.steps.append(Step(Opcode.NORM, fields, needs=needs, gives=((o.name, 0),), label=o.name))


def _loops(low: _Room, size: int, passes: int) -> dict[str, int]:
    """The order in which the keys' words are taken: what a key has of a pass, then keys as the softmax takes them."""
    cfg = low.config
    halves, tile_words = cfg.rows // cfg.groups, size * cfg.rows // cfg.groups
    inner = [(size // cfg.groups, cfg.rows)] if passes == 1 else []
    keys = [(halves, cfg.groups), (cfg.window // halves, tile_words), (cfg.groups, 1)]
    loops = [*inner, *keys] if passes == 1 else [*keys, (passes, cfg.rows)]
    return {
        f"{what}{n}": value
        for n, pair in enumerate(loops)
        for what, value in zip(("count", "stride"), pair, strict=True)
    }


def _attention(low: _Room, o: Attention) -> None:
    """Queries; keys and values into the caches; scores and contexts of every head, over blocks of keys."""
    cfg, of = low.config, low.of
    query, key, value = o.inputs
    heads = o.heads // o.shared
    size = int(low.graph.shapes[o.name][-1]) // o.heads
    turns = isinstance(low.graph.by_name[query], Rotary)
    for name, result, target in (
        (key, Result.TRANSPOSE, key), (value, Result.STORE8, value), (query, Result.STORE8, _QUERY),
    ):  # fmt: skip
        first, given = len(low.steps), low.graph.by_name[name]
        if isinstance(given, Rotary):
            _turned(low, given, result, target)
        else:
            p = of.linears[name]
            if name == key:
                p = _ordered(p, _key_order(cfg.groups, size, heads))
            linear(low, name, p, _NARROW, result, target, needs=given.inputs[0], gives=name)
        if target in low.caches:
            for step in low.steps[first:]:
                step.fields["place"] = 1

    def event(name: str, head: int) -> tuple[str, int]:
        return (f"{name}, head {head}" if isinstance(low.graph.by_name[name], Rotary) else name), 0

    # Where pairs turn, neighbours of queries and of keys are the same: a pass for each block of keys' columns.
    passes, depth = (size // cfg.groups, 1) if turns else (1, size // cfg.groups)
    multiplier, shift, coarse, gain = of.scores[o.name]
    none = np.zeros(o.heads, np.int64)
    words = parameter_words(none, multiplier, shift, none)
    halves, tile_words = cfg.rows // cfg.groups, size * cfg.rows // cfg.groups
    block_tiles = cfg.window // halves
    each = cfg.groups * cfg.window
    for head in range(o.heads):
        shared = head // o.shared
        parameters_at = low.image.add(words[head], name=f"{o.name}, head {head}: parameters")
        for block in range(low.now * cfg.rows // each + 1):
            names = {n: low.name(n) for n in ("keys", "values", "parameters")}
            loads = [
                Load(
                    Target.VALUES, block_tiles * tile_words,
                    low.tile_address(source, block * block_tiles - low.now, shared * size),
                    low.beats(size * cfg.rows), block_tiles, size * heads * cfg.rows, (event(source, shared),),
                    names[n],
                )
                for source, n in ((key, "keys"), (value, "values"))
            ]  # fmt: skip
            low.groups.append(
                [loads[0], Load(Target.PARAMETERS, 1, parameters_at, low.beats(16), base=names["parameters"]), loads[1]]
            )
            last = block == low.now * cfg.rows // each
            group = len(low.groups) - 1
            low.steps.append(Step(
                Opcode.SCORES,
                {
                    "window_address": low.tile_address(_QUERY, 0, head * size),
                    "window_beats": low.beats(size * cfg.rows), "n": 1, "depth": depth, "columns": each,
                    "passes": passes, "wide": 1, **_loops(low, size, passes),
                    "mask": int(Mask.CAUSAL), "keys": 1 + low.now * cfg.rows, "key_start": block * each,
                    "row_first": int(block == 0), "row_last": int(last), "gain": int(gain[head]),
                    "coarse": int(coarse[head]),
                },
                group, {"values_base": (names["keys"], 0), "parameters_base": (names["parameters"], 0)},
                (event(query, head),), (), o.name, (0, 2),
            ))  # fmt: skip
            low.steps.append(Step(
                Opcode.CONTEXT,
                {
                    "window_beats": low.beats(each * cfg.rows), "n": 1, "depth": cfg.window, "columns": size,
                    "passes": 1, "continues": int(block > 0), "unfinished": int(not last), "count0": halves,
                    "stride0": 1, "count1": block_tiles, "stride1": tile_words, "count2": size, "stride2": halves,
                    "count3": 1, "result": int(Result.STORE8),
                    "result_address": low.tile_address(_CONTEXT, 0, head * size),
                },
                group, {"values_base": (names["values"], 0)}, (),
                ((o.name, 0),) if last and head == o.heads - 1 else (), o.name, (2, 3),
            ))  # fmt: skip


def _lower(low: _Room) -> None:
    """All of a tile's steps."""
    of, graph = low.of, low.graph
    latest = ""  # what gave the residual stream last
    for o in graph.operations:
        if isinstance(o, Norm | RmsNorm):
            _norm(low, o, latest)
        elif isinstance(o, Attention):
            _attention(low, o)
        elif isinstance(o, Multiply):
            _gate(low, o)
        elif isinstance(o, Activate):
            if any(isinstance(t, Multiply) for t in graph.takers(o.name)):
                continue
            first = graph.linear(o.inputs[0])
            linear(low, first.name, of.linears[first.name], _NARROW, Result.ACTIVATE, _INNER, needs=first.inputs[0],
                   gives=o.name, table=of.tables[o.name])  # fmt: skip
        elif isinstance(o, Add) and o.inputs[0] in of.linears:
            product = graph.linear(o.inputs[0])
            source = _CONTEXT if isinstance(graph.by_name[product.inputs[0]], Attention) else _INNER
            linear(low, product.name, of.linears[product.name], source, Result.RESIDUAL, _STREAM,
                   needs=product.inputs[0], gives=o.name, residual=_STREAM)  # fmt: skip
            latest = o.name
        elif isinstance(o, Output):
            head = graph.linear(o.inputs[0])
            linear(low, head.name, of.linears[head.name], _NARROW, Result.STORE16, _LOGITS, needs=head.inputs[0],
                   gives=o.name)  # fmt: skip
        elif not isinstance(o, Input | Embed | Linear | Add | Rotary):
            raise InputError(f"{graph.name}: {type(o).__name__.lower()} {o.name} has no instruction yet.")


def compile_decoder(of: IntegerDecoderGraph, config: Config, capacity: int) -> DecoderImage:
    """Programs for a context of so many tokens.

    Raises
    ------
    InputError
        If the hardware lacks a feature, a size does not fit it, or an operation has no instruction yet.
    """
    if capacity <= len(of.prefix):
        raise InputError(
            f"a context of {capacity} tokens has no room behind the prefix of {len(of.prefix)}; "
            f"{len(of.prefix) + 1} is the least."
        )
    kinds = {type(o) for o in of.graph.operations}
    wanted = {"causal", "rms", "position"} | ({"rotary"} if Rotary in kinds else set())
    wanted |= {"gate"} if Multiply in kinds else set()
    if missing := sorted(wanted - set(config.features)):
        raise InputError(f"a decoder needs hardware with {', '.join(missing)}; --features decoder has all.")
    each = config.groups * config.window
    if (of.rules.block, of.rules.groups) != (each, config.groups):
        raise InputError(
            f"the decoder was quantized for blocks of {of.rules.block} keys in {of.rules.groups} groups; the hardware "
            f"has {each} in {config.groups}."
        )
    widths: list[tuple[Operation, int]] = [
        (o, int(of.graph.shapes[o.name][-1]) // o.heads) for o in of.graph.operations if isinstance(o, Attention)
    ]
    for o, size in widths:
        if size % config.groups:
            raise InputError(f"{o.name}: heads of {size} are no multiple of groups = {config.groups}.")
    if Rotary in kinds and capacity > each and any(size > config.groups for _, size in widths):
        # Their scores take several passes, whose sums have the place of a context's that goes on in the next block.
        raise InputError(
            f"a context of {capacity} tokens takes more than the {each} keys of a block; where queries turn, heads are "
            f"as wide as groups = {config.groups}, or the context is at most {each}."
        )
    if wide := [n for n, bits in of.widths.items() if bits != 8]:
        raise InputError(f"{wide[0]} has 15 bits, which no hardware takes yet.")
    tiles = -(-capacity // each) * each // config.rows
    low = _Room(of, config, tiles)
    programs = []
    for tile in range(-(-capacity // config.rows)):
        low.begin(tile)
        _lower(low)
        instructions, _ = schedule(low.steps, low.groups, config)
        raw = np.frombuffer(assemble(instructions, config), np.uint8)
        programs.append(low.image.add(raw, program_bytes(instructions), f"program of tile {tile}"))
    low.image.reserve(64, "unused")
    image = low.image.finish()
    for o in of.graph.operations:
        if isinstance(o, Attention):
            _put_prefix(low, o, image)
    return DecoderImage(
        config, image, tuple(programs), low.buffers[_STREAM], low.buffers[_LOGITS], low.places[_STREAM].width,
        low.places[_LOGITS].width,
    )  # fmt: skip


def _put_prefix(low: _Room, o: Attention, image: NDArray[np.uint8]) -> None:
    """The prefix's keys and values where products would have stored them."""
    cfg = low.config
    keys, values = low.of.keys[o.name], low.of.values[o.name]
    heads = o.heads // o.shared
    size = keys.shape[1] // heads
    turns = isinstance(low.graph.by_name[o.inputs[1]], Rotary)
    order = _key_order(cfg.groups, size, heads)
    if turns:
        order = np.concatenate([head * size + _pairs(size) for head in range(heads)])
    for position in range(len(keys)):
        low.now, row = divmod(position, cfg.rows)
        at = low.tile_address(o.inputs[1], 0)
        columns = keys[position, order].view(np.uint8)
        for block in range(len(columns) // cfg.groups):
            start = at + block * cfg.groups * cfg.rows + row * cfg.groups
            image[start : start + cfg.groups] = columns[block * cfg.groups : (block + 1) * cfg.groups]
        at = low.tile_address(o.inputs[2], 0)
        image[at + row : at + len(columns) * cfg.rows : cfg.rows] = values[position].view(np.uint8)
