"""Where a decoder's values lie, and what registers hold at a position, by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sta_hw.compiler.decoder.room import Keys, Room
from sta_hw.compiler.decoder.slots import SlotValue
from sta_hw.errors import InputError
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Activate, Attention, Embed, Input, Linear, Multiply, Operation, Output, RmsNorm
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import expand
from sta_hw.spec.isa import REGISTERS, Instruction, Opcode
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["decoder"]
"""8 rows, stacks of 16; windows of 16 groups of 16."""
SLACK = 16 * 16 * 8


def linear(name: str, source: str, columns: int, reduction: int) -> Linear:
    return Linear(name, (source,), np.zeros((columns, reduction), np.float32), np.zeros(columns, np.float32))


def graph(*, normed: bool = False) -> Graph:
    """A layer of width 48 with three heads of the query of 8 and one of the key, 80 in between, and 100 tokens."""
    embedded: list[Operation] = [
        Input("ids", (), ("tokens",)), Embed("embedded", ("ids",), np.zeros((100, 48), np.float32)),
        RmsNorm("normed", ("embedded",), np.ones(48, np.float32), 1e-5),
        linear("query", "normed", 24, 48), linear("key", "normed", 8, 48), linear("value", "normed", 8, 48),
    ]  # fmt: skip
    query = "query"
    if normed:
        query = "query normed"
        embedded.append(RmsNorm(query, ("query",), np.ones(8, np.float32), 1e-5, 3))
    rest: list[Operation] = [
        Attention("context", (query, "key", "value"), 3, True, 3), linear("gate", "context", 80, 24),
        Activate("gated", ("gate",), "silu"), linear("up", "context", 80, 24), Multiply("inner", ("gated", "up")),
        linear("logits", "inner", 100, 80), Output("next_token", ("logits",)),
    ]  # fmt: skip
    return Graph("small", (*embedded, *rest), {})


def room(config: Config = CONFIG, wide: tuple[str, ...] = (), **given: Any) -> Room:
    """For a context of 5 row tiles and passes of 2; values named are of 15 bits."""
    of: Any = SimpleNamespace(graph=graph(normed=given.pop("normed", False)))
    of.widths = {o.name: 15 if o.name in wide else 8 for o in of.graph.operations}
    return Room(of, config, 5, 2, **given)


def sizes(found: Room) -> dict[str, tuple[int, int]]:
    return {name: (place.width, place.size) for name, place in found.places.items()}


def test_buffers_and_caches() -> None:
    """Two tiles of each buffer, one of logits; six tiles of keys and values, which is three stacks."""
    found = room()
    assert sizes(found) == {
        "stream": (48, 2), "unused": (48, 2), "narrow": (48, 1), "query": (24, 1), "keys": (8, 1), "context": (24, 1),
        "inner": (80, 1), "logits": (100, 2), "key": (8, 1), "value": (8, 1),
    }  # fmt: skip
    tiles = {"unused": 1, "logits": 1, "key": 6, "value": 6}
    at, align = 0, 16 * 8
    for name, (width, size) in sizes(found).items():
        if name == "key":
            assert found.caches_at == at
        assert found.buffers[name] == at
        taken = tiles.get(name, 2) * 8 * width * size + SLACK * size
        at += -(-taken // align) * align
    assert found.image.size == at and found.cache_bytes == at - found.caches_at
    assert found.caches == {"key", "value"} and found.context_tiles == 6
    # Of three sequences there are two more such caches, behind the first.
    several, others = room(sequences=3), "keys and values of other sequences"
    assert several.image.places[-1] == (others, at, 2 * found.cache_bytes) and found.image.places[-1][0] != others
    assert room(sequences=2).image.places[-1] == (others, at, found.cache_bytes)
    assert several.buffers == found.buffers and several.image.size == at + 2 * found.cache_bytes
    # The context and a tile less than a pass, in whole stacks.
    assert Room(found.of, CONFIG, 4, 1).context_tiles == 4 and Room(found.of, CONFIG, 4, 2).context_tiles == 6


def test_buffers_of_other_decoders() -> None:
    """Lists instead of logits; norms of heads have queries and keys ahead and behind; 15 bits are in 16."""
    plain = sizes(room())
    best = sizes(room(best=True))
    assert "logits" not in best and best["best"][1] == 8 and best.keys() ^ plain.keys() == {"best", "logits"}
    normed = sizes(room(normed=True))
    more = {"query_wide": (24, 2), "keys_wide": (8, 2), "query_normed": (24, 1), "keys_normed": (8, 1)}
    assert normed == plain | more
    wide = room(wide=("normed", "context", "inner"))
    more = {"narrow, 15 bits": (48, 2), "context, 15 bits": (24, 2), "inner, 15 bits": (80, 2)}
    assert sizes(wide) == plain | more
    assert wide.taken("context", "context") == "context, 15 bits" and wide.taken("query", "query") == "query"
    assert sizes(room(wide=("gated",))) == plain | {"inner, 15 bits": (80, 2)}


def registers(found: Room, numbers: list[int], *, position: int, length: int = 0, base: int = 0) -> list[int]:
    """What registers hold behind the prologue; the host writes `base` where the first sequence's caches are others'."""
    program = found.prologue()
    if base:
        assert program[0] == Instruction(Opcode.SET, {"destination": found.cache_register, "value": 0})
        program[0] = Instruction(Opcode.SET, {"destination": found.cache_register, "value": base})
    reads = [Instruction(Opcode.LOAD, {"rows": 1, "address_register": n}) for n in numbers]
    expanded = expand([*program, *reads, Instruction(Opcode.HALT, {})], found.config, length, position)
    return [i["address"] for i in expanded if i.opcode == Opcode.LOAD]


@pytest.mark.parametrize("tile", [0, 1, 2, 5])
def test_registers_of_a_position(tile: int) -> None:
    found = room()
    stream, key = found.by_tile(96), found.by_tile(41)
    assert (stream, key) == (1, 2) and found.by_tile(96) == stream and found.by_tile(96, cached=True) == stream
    first, second = found.by_stack(1000, 0), found.by_stack(1000, 1)
    assert found.by_stack(1000, 2) == first and found.by_stack(1000, 3) == second and found.cache_register == 0
    assert registers(found, [stream, key], position=8 * tile + 3) == [96 * tile, 41 * tile]
    # Tiles of a stack are a tile's rows apart, and stacks 1000.
    wanted = [t // 2 * 1000 + t % 2 * 8 for t in (tile, tile + 1)]
    assert registers(found, [first, second], position=8 * tile) == wanted


def test_registers_of_a_sequence() -> None:
    """Caches lie behind what the host writes; other values do not."""
    found = room(sequences=2)
    base = found.cache_register
    assert base == 1 and found.cache_register == base
    numbers = [found.by_tile(96), found.by_tile(96, cached=True), found.by_stack(1000, 0), found.by_stack(1000, 1)]
    assert numbers[0] != numbers[1]
    assert registers(found, numbers, position=24, base=50_000) == [288, 50_288, 51_008, 52_000]
    assert room(sequences=2).prologue() == []
    # Where a stack is a row tile, the same holds of values.
    narrow = room(replace(CONFIG, rows=16), sequences=2)
    assert narrow.cache_register == 1 and narrow.by_stack(1000, 0) == narrow.by_stack(1000, 1)
    assert registers(narrow, [narrow.by_stack(1000, 0)], position=48, base=50_000) == [53_000]
    batch = room(sequences=2)
    batch.begin(Keys((16,), 0), batch=True)
    assert batch.cache_register == 0


def test_the_last_tile_that_counts() -> None:
    found = room()
    stream, last = found.by_tile(96), found.by_last_tile(64)
    assert found.by_last_tile(64) == last != stream
    for length, tiles in ((8, 0), (9, 1), (16, 1), (17, 2)):
        assert registers(found, [stream, last], position=16, length=length) == [192, 64 * tiles]
    # The next program does not look at it, unless it asks.
    count = len(found.prologue())
    found.begin(Keys((16, 16), 0))
    assert len(found.prologue()) == count - 4 and found.by_last_tile(64) == last and len(found.prologue()) == count


def test_there_are_eleven_registers() -> None:
    found = room()
    assert [found.by_tile(stride) for stride in range(11)] == list(range(1, 12))
    with pytest.raises(InputError, match=r"^small: .* more different widths than the 11 registers"):
        found.by_tile(11)


def test_each_program_begins_afresh() -> None:
    found = room()
    assert found.keys == Keys((0,), 0) and found.tiles == 1 and found.name("weights") == "weights1"
    assert found.rest_apart and found.words_before == 0
    found.words_before, found.steps = 70, [None]
    found.begin(Keys((16,), 8))
    assert found.keys == Keys((16,), 8) and found.words_before == 0 and found.steps == []


def test_shares_and_slots() -> None:
    found = room(sequences=3)
    found.begin(Keys((16, 32), 0))
    assert found.tiles == 2 and found.shares == [(0, 0), (1, 0)]
    found.begin(Keys((16,), 0), batch=True)
    assert found.tiles == 1 and found.shares == [(0, 0), (0, 1), (0, 2)]
    first, second = SlotValue(0, 0, 1, 8), SlotValue(1, 0, 1, 8)
    assert [found.of_slot(v) for v in (first, second, first)] == [REGISTERS, REGISTERS + 1, REGISTERS]


def test_what_was_added_lies_there_for_all_programs() -> None:
    image = room().image
    data = np.arange(40, dtype=np.uint8)
    first, size = image.add(data, name="weights"), image.size
    assert image.add(data.copy(), name="weights") == first and image.size == size
    others = {image.add(data, name="table"), image.add(data, 80, "weights"), image.add(data[1:], name="weights")}
    assert len(others) == 3 and first not in others
    assert image.finish()[first : first + 40].tolist() == data.tolist()
