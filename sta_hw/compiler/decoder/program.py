"""A decoder as programs for the accelerator, with keys and values kept in memory.

The token of position p lies in row ``p mod rows`` of tile ``p div rows``: in the one input tile, in keys, in values. A
program computes all rows of a tile, and keeps the keys and values of those alone that registers POSITION and LENGTH
name; so the same program serves a prompt's tokens of a tile at once, and each of them for itself. Addresses of the
tile come from POSITION. There are two programs for each number of blocks of keys: with logits, and without, for those
tokens of a prompt whose logits nobody asks for.

Longer prompts have programs of several tiles, which read all weights once for them: each chunk of columns goes from
tile to tile, attention is computed tile by tile. Only the first tile's rows have to be kept from what other tokens left
there, so LENGTH goes to the end of the last tile that counts; what lies in its last rows, and in tiles behind it, is
never looked at. Logits are those of that last tile.

Of several sequences each has keys and values of its own. Then programs have a first instruction that says whose they
run with, and there is a program for each number of blocks of keys that runs a token of each sequence at once, a batch,
in rows of one tile (`slots`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.blocks import BlockedWeights
from ...formats.nm import implies
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
from ...spec.features import ALL_OF_DECODERS
from ...spec.isa import Opcode, Result, assemble, program_bytes
from ...spec.patterns import DENSE, Pattern
from ..liveness import check_liveness
from ..lower.linear import LinearLayer, linear
from ..parameters import LinearParameters
from ..schedule import Step, order
from .attention import attention
from .integers import IntegerDecoderGraph
from .kinds import Kind, all_kinds, keys_of, split
from .likeliest import MOST_NUMBERED
from .projections import norm_step, put_prefix, tile_of
from .room import BEST, CONTEXT, INNER, LOGITS, NARROW, STREAM, UNUSED, Keys, Room
from .slots import BatchProgram, SlotValue, require_slots, with_registers

__all__ = ["DecoderImage", "compile_decoder", "decoder_config"]


@dataclass(frozen=True)
class DecoderImage:
    """Programs with everything they need.

    Attributes
    ----------
    image : uint8 array
        The prefix's keys and values are in it.
    capacity : int
        Tokens of the context.
    programs : tuple of int
        Addresses.
    kinds : tuple of Kind
        What each is for.
    labels : tuple of tuples of str
        Of each program's instructions, by their numbers.
    input_address, logits_address : int
        Of the residual stream's tiles, and of the logits' only one (16 bits, column after column).
    best : bool
        The logits are those of lists: row after row its 8 largest, of each its number and itself in 32 bits.
    head_input : (int, int)
        What the head takes: address, and bytes of a value; values lie column after column.
    sequences : int
        So many have keys and values of their own. Of several, word 0 of each program, behind its header, holds in its
        lower 32 bits where those are that it runs with: the sequence's number times `cache_bytes`.
    cache_bytes : int
        From one sequence's keys and values to the next one's.
    batches : tuple of BatchProgram
        One for each number of blocks of keys, if there are several sequences.
    turns : tuple of (int, float32 array)
        Of a batch's row tile: address of its cosines and sines (16 bits, column after column, pair after pair), and the
        frequencies.
    """

    config: Config
    image: NDArray[np.uint8]
    capacity: int
    programs: tuple[int, ...]
    kinds: tuple[Kind, ...]
    labels: tuple[tuple[str, ...], ...]
    input_address: int
    logits_address: int
    width: int
    vocabulary: int
    best: bool = False
    head_input: tuple[int, int] = (0, 1)
    sequences: int = 1
    cache_bytes: int = 0
    batches: tuple[BatchProgram, ...] = ()
    turns: tuple[tuple[int, NDArray[np.float32]], ...] = ()

    @property
    def most(self) -> int:
        """Row tiles of a pass, at most."""
        return self.kinds[-1].tiles

    def number(self, position: int, length: int, *, logits: bool = True) -> int:
        """Which program runs `length` tokens from `position` on; without `logits`, tokens of a prompt.

        Raises
        ------
        InputError
            If they lie in more row tiles than a pass has, or not in the context.
        """
        rows = self.config.rows
        if length < 1 or position < 0 or position + length > self.capacity:
            raise InputError(
                f"{length} tokens from position {position} on do not lie in the context of {self.capacity}."
            )
        tiles = (position + length - 1) // rows - position // rows + 1
        if tiles > self.most:
            raise InputError(
                f"{length} tokens from position {position} on lie in {tiles} row tiles; "
                f"{self.most * rows - position % rows} are the most there."
            )
        kinds = [k for k in self.kinds if k.logits == logits and k.tiles >= tiles]
        kinds = [k for k in kinds if k.tiles == kinds[0].tiles]
        there = (position // rows + kinds[0].tiles) * rows
        return self.kinds.index(next((k for k in kinds if k.keys >= there), kinds[-1]))

    def length(self, position: int, length: int) -> int:
        """What register LENGTH holds where a program runs so many tokens: to the last tile's end, if there are more."""
        rows = self.config.rows
        after = position + length
        return length if position // rows == (after - 1) // rows else -(-after // rows) * rows - position

    def passes(self, position: int, count: int, last: int) -> list[tuple[int, bool]]:
        """How many tokens go into each pass, of `count` from a position on; and whether the logits are wanted.

        See `kinds.split`.
        """
        return split(self.config, self.most, position, count, last)

    def with_rows(self, image: NDArray[np.uint8], rows: NDArray[np.int64], first: int) -> None:
        """Write tokens' 16-bit streams, shape (tokens, width), into the input tiles from the first one's row on."""
        each = self.config.rows
        data = rows.astype("<i2").view(np.uint8).reshape(len(rows), self.width, 2)
        place = image[self.input_address : self.input_address + 2 * self.width * each * self.most]
        tiles = place.reshape(self.most, self.width, each, 2)
        for number in range(len(rows)):
            tile, row = divmod(first + number, each)
            tiles[tile, :, row] = data[number]

    def logits(self, image: NDArray[np.uint8], first: int, count: int) -> NDArray[np.int16]:
        """The 16-bit logits of the last tile's rows, shape (count, vocabulary), where programs give all."""
        size = 2 * self.vocabulary * self.config.rows
        raw = image[self.logits_address : self.logits_address + size].view("<i2")
        return raw.reshape(self.vocabulary, self.config.rows).T[first : first + count]


_MOST_POSITIONS = 1 << 15
"""A block's first key has a number of 16 bits, signed."""


def _both_blocks(
    a: BlockedWeights | None, b: BlockedWeights | None, both: Callable[[NDArray, NDArray], NDArray]
) -> BlockedWeights | None:
    """Weights of 4 bits, if both are; in blocks as small as the smaller ones."""
    if a is None or b is None:
        return None
    size = min(a.size, b.size)
    a, b = a.of_size(size), b.of_size(size)
    kept = None
    if a.kept is not None or b.kept is not None:
        kept = both(*(np.ones(p.codes.shape, bool) if p.kept is None else p.kept for p in (a, b)))
    return BlockedWeights(size, both(a.codes, b.codes), both(a.scales, b.scales), both(a.minima, b.minima), kept)


def _both_patterns(low: Room, a: LinearParameters, b: LinearParameters) -> Pattern:
    """The N:M of two products in one: theirs, or where they differ the sparsest that both satisfy."""
    if a.pattern == b.pattern or a.pattern.dense or b.pattern.dense:
        return a.pattern if a.pattern == b.pattern else DENSE
    possible = [p for p in low.config.patterns if all(implies(q.pattern, p) for q in (a, b))]
    return min(possible, key=lambda p: p.density, default=DENSE)


def _gate(low: Room, o: Multiply) -> None:
    """Gate and what it lets through, column by column side by side, in one product."""
    opened = low.graph.by_name[o.inputs[0]]
    gate, up = low.graph.linear(opened.inputs[0]), low.graph.linear(o.inputs[1])
    a, b = low.of.linears[gate.name], low.of.linears[up.name]

    def both(first: NDArray, second: NDArray) -> NDArray:
        return np.stack([first, second], axis=1).reshape(2 * len(first), *first.shape[1:])

    p = LinearParameters(
        both(a.weights, b.weights), _both_patterns(low, a, b), both(a.bias, b.bias), both(a.multiplier, b.multiplier),
        both(a.shift, b.shift), both(a.second, b.second), blocks=_both_blocks(a.blocks, b.blocks, both),
    )  # fmt: skip
    target, short = low.taken(INNER, o.name), low.of.widths[o.name] == 15
    first = len(low.steps)
    linear(low, LinearLayer(
        o.name, p, low.taken(NARROW, gate.inputs[0]), Result.STORE16 if short else Result.ACTIVATE, target,
        needs=gate.inputs[0], gives=o.name, table=low.of.tables[opened.name],
    ))  # fmt: skip
    for step in low.steps[first:]:
        base = low.tile_address(target, tile_of(step))
        half = (step.fields["result_address"] - base) // 2
        step.fields.update({"multiply": 1, "wide": 1, "result_address": base + half, "bits15": int(short)})


def _listed(low: Room, steps: list[Step]) -> None:
    """The head's products, in order, list their largest results, by the numbers of their columns."""
    steps = [step for step in steps if not step.fields.get("unfinished")]  # those of high digits have no results
    number = 0
    for step in steps:
        step.fields.update({"wide": 1, "result_address": low.tile_address(BEST, 0), "residual_address": number})
        number += step.fields["columns"]
    steps[0].fields["row_first"] = steps[-1].fields["row_last"] = 1


def _norm(low: Room, o: Norm | RmsNorm, latest: str, *, last_tile: bool) -> None:
    """A norm of the residual stream: of all row tiles, or of the `last_tile` that counts, as if it were the first."""
    register = low.by_last_tile(2 * low.places[STREAM].width * low.config.rows) if last_tile and low.tiles > 1 else 0
    for tile in range(1 if last_tile else low.tiles):
        results = [low.tile_address(b, t) for b, t in ((UNUSED, 0), (low.taken(NARROW, o.name), tile))]
        if low.of.widths[o.name] == 15:  # the wide ones are taken
            results.reverse()
        norm_step(low, o, (low.tile_address(STREAM, tile), results[0], results[1]), latest, o.name, tile, register)


def _lower(low: Room, logits: bool) -> None:
    """All of a tile's steps; without `logits`, those of all layers."""
    of, graph = low.of, low.graph
    last = graph.linear(graph.by_name[NEXT].inputs[0]).inputs[0]
    latest = ""  # what gave the residual stream last
    for o in graph.operations:
        if o.name == last and not logits:
            break
        if isinstance(o, Norm | RmsNorm):
            if not isinstance(graph.by_name[o.inputs[0]], Linear):  # those of heads come with the attention
                _norm(low, o, latest, last_tile=o.name == last)
        elif isinstance(o, Attention):
            attention(low, o)
        elif isinstance(o, Multiply):
            _gate(low, o)
        elif isinstance(o, Activate):
            if any(isinstance(t, Multiply) for t in graph.takers(o.name)):
                continue
            first = graph.linear(o.inputs[0])
            at = len(low.steps)
            source, target = low.taken(NARROW, first.inputs[0]), low.taken(INNER, o.name)
            linear(low, LinearLayer(
                first.name, of.linears[first.name], source, Result.ACTIVATE, target,
                needs=first.inputs[0], gives=o.name, table=of.tables[o.name],
            ))  # fmt: skip
            for step in low.steps[at:]:
                step.fields["bits15"] = int(of.widths[o.name] == 15)
        elif isinstance(o, Add) and o.inputs[0] in of.linears:
            product = graph.linear(o.inputs[0])
            source = CONTEXT if isinstance(graph.by_name[product.inputs[0]], Attention) else INNER
            source = low.taken(source, product.inputs[0])
            linear(low, LinearLayer(
                product.name, of.linears[product.name], source, Result.RESIDUAL, STREAM,
                needs=product.inputs[0], gives=o.name, residual=STREAM,
            ))  # fmt: skip
            latest = o.name
        elif isinstance(o, Output):
            head = graph.linear(o.inputs[0])
            low.tiles = 1  # the last one alone
            result, target = (Result.BEST, BEST) if BEST in low.places else (Result.STORE16, LOGITS)
            at = len(low.steps)
            linear(low, LinearLayer(
                head.name, of.linears[head.name], low.taken(NARROW, head.inputs[0]), result, target,
                needs=head.inputs[0], gives=o.name,
            ))  # fmt: skip
            if result == Result.BEST:
                _listed(low, low.steps[at:])
        elif not isinstance(o, Input | Embed | Linear | Add | Rotary):
            raise InputError(f"{graph.name}: {type(o).__name__.lower()} {o.name} has no instruction yet.")


def decoder_config(config: Config) -> Config:
    """The hardware with decoders' features, if it has none."""
    return config if config.features else replace(config, features=(ALL_OF_DECODERS,))


def _require(of: IntegerDecoderGraph, config: Config, capacity: int, best: bool) -> None:
    """Refuse what has no program."""
    if capacity <= len(of.prefix):
        raise InputError(
            f"a context of {capacity} tokens has no room behind the prefix of {len(of.prefix)}; "
            f"{len(of.prefix) + 1} is the least."
        )
    if capacity > _MOST_POSITIONS:
        raise InputError(f"a context of {capacity} tokens exceeds the {_MOST_POSITIONS:,} keys that hardware numbers.")
    if best and (vocabulary := int(of.graph.shapes[NEXT][-1])) > MOST_NUMBERED:
        raise InputError(
            f"a vocabulary of {vocabulary:,} exceeds the {MOST_NUMBERED:,} tokens that lists of the largest logits "
            "number; have all logits given."
        )
    kinds = {type(o) for o in of.graph.operations}
    wanted = {"causal", "rms", "position"} | ({"rotary"} if Rotary in kinds else set())
    wanted |= {"gate"} if Multiply in kinds else set()
    wanted |= {"best"} if best else set()
    wanted |= {"digits"} if 15 in of.widths.values() else set()
    if missing := sorted(wanted - set(config.features)):
        raise InputError(f"a decoder needs hardware with {', '.join(missing)}; the feature decoder stands for all.")
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
        if size > each:
            raise InputError(f"{o.name}: heads of {size} are wider than groups x window = {each}.")


def compile_decoder(
    of: IntegerDecoderGraph, config: Config, capacity: int, *, best: bool = False, sequences: int = 1
) -> DecoderImage:
    """Programs for a context of so many tokens; of each row's logits they give all, or the 8 `best`.

    Of several `sequences` each has a context of its own, and there are programs that run a token of each at once.

    Raises
    ------
    InputError
        If the hardware lacks a feature, a size does not fit it, an operation has no instruction yet, or a row tile does
        not hold so many sequences.
    """
    _require(of, config, capacity, best)
    require_slots(sequences, config.rows)
    kinds = all_kinds(config, capacity)
    low = Room(of, config, kinds[-1].keys // config.rows, kinds[-1].tiles, best=best, sequences=sequences)
    programs, labels = [], []
    for kind in kinds:
        low.begin(keys_of(config, kind, kinds))
        name = f"program of {kind.tiles} tiles for {kind.keys} keys, {'with' if kind.logits else 'without'} logits"
        address, said, _ = _program(low, kind.logits, name)
        programs.append(address)
        labels.append(said)
    batches = []
    for keys in (kind.keys for kind in kinds if kind.tiles == 1 and kind.logits and sequences > 1):
        low.begin(Keys((keys,), 0), batch=True)
        address, said, places = _program(low, True, f"program of a batch for {keys} keys")
        batches.append(BatchProgram(address, keys, said, places))
    low.image.reserve(64, "unused")
    image = low.image.finish()
    for o in of.graph.operations:
        if isinstance(o, Attention):
            put_prefix(low, o, image)
    first = image[low.caches_at :][: low.cache_bytes]
    for sequence in range(1, sequences):
        image[low.caches_at + sequence * low.cache_bytes :][: low.cache_bytes] = first
    taken = low.taken(NARROW, of.graph.linear(of.graph.by_name[NEXT].inputs[0]).inputs[0])
    return DecoderImage(
        config, image, capacity, tuple(programs), tuple(kinds), tuple(labels), low.buffers[STREAM],
        low.buffers[BEST if best else LOGITS], low.places[STREAM].width, int(of.graph.shapes[NEXT][-1]), best,
        (low.buffers[taken], low.places[taken].size), sequences, low.cache_bytes, tuple(batches), tuple(low.turns),
    )  # fmt: skip


def _program(
    low: Room, logits: bool, name: str
) -> tuple[int, tuple[str, ...], tuple[tuple[SlotValue, tuple[int, ...]], ...]]:
    """A program in the image: its address, labels, and where a batch's values of slots are to be written."""
    _lower(low, logits)
    scheduled = order(low.steps, low.groups, low.config)
    instructions, places = with_registers(scheduled, low.values_of_slots)
    check_liveness((i for i in instructions if i.opcode != Opcode.SET), low.config)
    if not low.batch:
        instructions = [*low.prologue(), *instructions]
    raw = np.frombuffer(assemble(instructions, low.config), np.uint8)
    address = low.image.add(raw, program_bytes(instructions), name)
    found = tuple((value, tuple(address + at for at in of_value)) for value, of_value in places)
    return address, tuple(step.label for step in scheduled), found
