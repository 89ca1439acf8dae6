"""The fetch unit: what it gives is what a program means, at any width of the bus, under stalls; what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Out, connect, flipped

from sim.native import NativeModel, build
from sta_hw.reference.instructions import IllegalError, fetched
from sta_hw.rtl.control.fetch import Fetch, instruction_layout
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.primitives.layouts import COUNT_BITS
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import expand
from sta_hw.spec.isa import (
    CODES,
    HEADER_BYTES,
    WORD_BYTES,
    Error,
    Instruction,
    Opcode,
    assemble,
    codes,
    formats,
    instruction_bytes,
)
from tests.spec.test_expansion import HALT, NEXT, legal_fields, loop, random_program, setting

LENGTH, POSITION = 1000, 777
PRODUCT = Instruction(Opcode.PRODUCT)


class Bench(wiring.Component):
    """Fetch, started once; its words come when it asked for them; how it ended is a last beat."""

    def __init__(self, config: Config) -> None:
        self.fetch = Fetch(config)
        members = {name: self.fetch.signature.members[name] for name in ("words", "instructions")}
        end = data.StructLayout(
            {"error": unsigned(4), "illegal": unsigned(1), "number": unsigned(COUNT_BITS), "misplaced": unsigned(1)}
        )
        super().__init__({**members, "end": Out(stream.Signature(end))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetch = fetch = self.fetch
        started, given = Signal(), Signal()
        asked = Signal(12)
        place, misplaced = Signal(32, init=64), Signal()  # the next line's address; another one was asked for
        ended = fetch.ended | fetch.illegal | (fetch.error != 0)
        coming = (asked != 0) | ended
        connect(m, fetch.instructions, flipped(self.instructions))
        asks = fetch.run.valid & fetch.run.ready
        run = fetch.run.payload
        with m.If(asks):
            m.d.sync += place.eq(place + 64)
            with m.If((run.address != place) | (run.beats != 64 // fetch.config.bus_bytes)):
                m.d.sync += misplaced.eq(1)
        m.d.sync += [
            started.eq(1),
            asked.eq(asked + Mux(asks, run.beats, 0) - (fetch.words.valid & fetch.words.ready & ~ended)),
        ]
        with m.If(self.end.valid & self.end.ready):
            m.d.sync += given.eq(1)
        m.d.comb += [
            fetch.start.eq(~started),
            fetch.address.eq(64),
            fetch.length.eq(LENGTH),
            *([fetch.position.eq(POSITION)] if "position" in fetch.config.features else []),
            fetch.run.ready.eq(1),
            fetch.words.payload.eq(self.words.payload),
            fetch.words.valid.eq(self.words.valid & coming),
            self.words.ready.eq(fetch.words.ready & coming),
            self.end.valid.eq(ended & ~fetch.instructions.valid & ~given),
            self.end.payload.error.eq(fetch.error),
            self.end.payload.illegal.eq(fetch.illegal),
            self.end.payload.number.eq(fetch.instructions.payload.number),
            self.end.payload.misplaced.eq(misplaced),
        ]
        return m


def built(config: Config) -> Callable[[], NativeModel]:
    """What makes a model just out of reset."""
    block = Bench(config)
    library, streams = build(emit_verilog(block, "fetch"), "fetch", streams_of(block)), streams_of(block)
    return lambda: NativeModel(library, streams)


@pytest.fixture(scope="module", params=[(4, ()), (8, ()), (16, ()), (64, ()), (8, ("decoder",)), (8, ("position",))])
def hardware(request: pytest.FixtureRequest) -> tuple[Config, Callable[[], NativeModel]]:
    bus, features = request.param
    config = Config(rows=max(8, bus), groups=4, lanes=bus, drain_lanes=2, features=features)
    return config, built(config)


def run(hardware: tuple[Config, Callable[[], NativeModel]], program: bytes, count: int, stall: float, seed: int):
    """Instructions as numbers, and how it ended: error, illegal, and the number of the instruction at its end, which no
    number equals if lines were asked for in another order."""
    config, fresh = hardware
    bus = np.frombuffer(program, np.uint8).reshape(-1, config.bus_bytes)
    words = np.zeros((len(bus), -(-config.bus_bytes // 4)), np.uint32)
    words[:] = bus.copy().view("<u4")
    outcome = fresh().run({"words": words}, {"instructions": count, "end": 1}, stall=stall, seed=seed)
    end = int(outcome.outputs["end"][0, 0])
    found = [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in outcome.outputs["instructions"]]
    return found, (end & 15, end >> 4 & 1, end >> 5)


def packed(program: list[Instruction], config: Config) -> list[int]:
    bits = instruction_layout().size - COUNT_BITS
    return [
        formats(i.opcode).pack({**i.fields, "opcode": int(i.opcode)}) | number << bits
        for number, i in enumerate(expand(program, config, LENGTH, POSITION)[:-1])
    ]


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(hardware, seed: int) -> None:
    """The RTL's expansion is the assembler's; words behind an instruction's last one are not looked at."""
    config, _ = hardware
    program = random_program(np.random.default_rng(seed + 100), config=config)
    expected = packed(program, config)
    for stall in (0.0, 0.4):
        found, end = run(hardware, assemble(program, config), len(expected), stall, seed + 1)
        assert end == (0, 0, len(expected))
        require_equal(found, expected)


def require_equal(found: list[int], expected: list[int]) -> None:
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        places = formats(Opcode(b >> 36 & 15)).places.values()
        mask = sum((1 << f.width) - 1 << at for at, f in places)
        assert (a >> 512, a & mask) == (b >> 512, b & mask), number


@pytest.mark.parametrize(
    "program",
    [
        [loop(0), NEXT, HALT], [loop(2), HALT], [NEXT, HALT], [PRODUCT, setting(0, 1), HALT],
        [loop(1)] * 9 + [NEXT] * 9 + [HALT],
        [setting(1, 65534), loop(3), loop(2, 1), PRODUCT, NEXT, setting(1, 1, 1), NEXT, HALT],
        [PRODUCT], [], [loop(3), *[PRODUCT] * 64, NEXT, HALT], [PRODUCT, loop(2), *[PRODUCT] * 70, NEXT, HALT],
        [loop(2), *[PRODUCT] * 62, *[setting(1, 0)] * 15, NEXT, HALT],
        [*[setting(1, 0)] * 7, loop(2), *[PRODUCT] * 62, *[setting(1, 0)] * 16, NEXT, HALT],
    ],
)  # fmt: skip
def test_what_is_refused(hardware, program: list[Instruction]) -> None:
    """At the number that the reference gives, whatever is before it given; never a hang."""
    config, _ = hardware
    raw = assemble(program, config)
    before = numbers_before(raw, config)
    for stall in (0.0, 0.5):
        found, end = run(hardware, raw, before, stall, 5)
        assert (len(found), end) == (before, (0, 1, before))


def numbers_before(program: bytes, config: Config) -> int:
    """Instructions before the one that the reference refuses."""
    with pytest.raises(IllegalError) as refused:
        list(fetched(np.frombuffer(program, np.uint8), 0, config, LENGTH, POSITION))
    return refused.value.number


def test_each_bit_that_no_field_has_is_refused(hardware) -> None:
    """Also reserved fields; flipped one by one, in the words' upper parts; all at the narrowest bus, at others some."""
    config, _ = hardware
    for opcode in Opcode:
        program = {
            Opcode.HALT: [PRODUCT, HALT], Opcode.LOOP: [PRODUCT, loop(1), NEXT, HALT],
            Opcode.NEXT: [PRODUCT, loop(1), NEXT, HALT], Opcode.SET: [PRODUCT, setting(1, 1), HALT],
        }.get(opcode, [PRODUCT, Instruction(opcode), HALT])  # fmt: skip
        at = HEADER_BYTES + 8 * WORD_BYTES + WORD_BYTES * (opcode == Opcode.NEXT)
        used = {
            bit
            for name, _, most in legal_fields(opcode, config)
            for first, field in [formats(opcode).places[name]]
            for bit in range(first, first + field.width)
            if most or name not in CODES
        } | set(range(36, 40))
        bits = [b for b in range(formats(opcode).width) if b % 64 >= 36 and b not in used]
        wrong = {
            Opcode.LOAD: [("target", max(codes("target", config.features)) + 1), ("target", 9)],
            Opcode.SCORES: [("mask", 3), ("result", 6)],
            Opcode.NORM: [("kind", 2)],
        }
        places = formats(opcode).places
        masks = [1 << b for b in bits] + [v << places[n][0] for n, v in wrong.get(opcode, [])]
        for mask in (
            masks if config.bus_bytes == 4 or config.features else masks[:: max(1, len(masks) // 9)] + masks[-2:]
        ):
            raw = bytearray(assemble(program, config))
            size = formats(opcode).width // 8
            raw[at : at + size] = (int.from_bytes(raw[at : at + size], "little") ^ mask).to_bytes(size, "little")
            assert numbers_before(bytes(raw), config) == 1
            assert run(hardware, bytes(raw), 1, 0.2, 3)[1] == (0, 1, 1), (opcode, mask)


@pytest.mark.parametrize("before", range(8))
def test_the_longest_loop(hardware, before: int) -> None:
    """63 products and what else fits 64 lines, wherever it begins, run; a word more is refused."""
    config, _ = hardware
    room = 64 * 8 - (before + 1) % 8 - 63 * 8 - 1  # beside products and NEXT
    ahead, products = [setting(1, 64)] * before, [Instruction(Opcode.PRODUCT, {"window_address_register": 1})] * 63
    for more in (0, room):
        body = [*products, *[setting(1, 3, 1)] * more]
        program = [*ahead, loop(2), *body, NEXT, PRODUCT, HALT]
        expected = packed(program, config)
        found, end = run(hardware, assemble(program, config), len(expected), 0.3, before + 1)
        assert end == (0, 0, len(expected)) and len(expected) == 2 * 63 + 1
        mask = (1 << 32) - 1 | (1 << COUNT_BITS) - 1 << 512
        assert [f & mask for f in found] == [e & mask for e in expected]
    program = [*ahead, loop(2), *products, *[setting(1, 3, 1)] * (room + 1), NEXT, HALT]
    raw = assemble(program, config)
    assert run(hardware, raw, 63, 0.3, before + 1)[1] == (0, 1, 63) and numbers_before(raw, config) == 63


def test_headers(hardware) -> None:
    config, _ = hardware
    good = assemble([PRODUCT, HALT], config)
    for at, value, error in (
        (0, 1, Error.HEADER),
        (4, 9, Error.HEADER),
        (8, good[8], Error.HEADER),  # 0 lines
        (11, 1, Error.HEADER),
        (20, 77, Error.HARDWARE),
    ):
        bad = bytearray(good)
        bad[at] ^= value
        assert run(hardware, bytes(bad[:HEADER_BYTES]), 0, 0.3, 2)[1] == (error, 0, 0)


ASKING = {
    "all": Config(rows=8, groups=16, lanes=8, drain_lanes=2, features=("decoder",), window_words=64),
    "digits": Config(rows=8, groups=4, lanes=4, drain_lanes=2, features=("digits",), window_words=16),
    "blocks": Config(rows=8, groups=8, lanes=8, drain_lanes=2, features=("gate", "blocks4")),
    "nothing": Config(rows=8, groups=4, lanes=8, drain_lanes=2),
}


def asking(rng: np.random.Generator, opcode: Opcode, config: Config, there: list[int]) -> dict[str, int]:
    """What a product asks for; now and then what does not go together, or what hardware has not.

    `there`: where windows that are kept begin and end, in words of the bus; what is asked for lies about there.
    """
    most, (start, end) = config.window_words or 8, there
    fields = {"columns": config.groups * int(rng.integers(1, 4)), "result": int(rng.choice([0, 1, 2, 3, 4]))}
    how = ("keep", "kept", "kept", "")[rng.integers(4)] if config.window_words and opcode != Opcode.CONTEXT else ""
    first, behind = start, end
    if how == "kept":
        first, behind = np.sort(rng.integers(start, end + 1, 2)).tolist()
    elif how == "keep" and rng.integers(4):
        first = int(rng.choice([start, end, int(rng.integers(start, end + 1)), end + 1, max(start - 1, 0)]))
        behind = first + int(
            rng.choice([1, 2, most // 2, most - 1, most, *[max(start + most - first + d, 0) for d in (0, 1)]])
        )
    if rng.integers(12) == 0:
        first, behind = max(first - int(rng.integers(2)), 0), behind + int(rng.integers(2))
    odd = int(how != "" and rng.integers(60) == 0)
    fields |= {"window_address": config.bus_bytes * first + odd, "window_beats": max(behind - first, 0)}
    fields |= {how: 1} if how else {}
    if how == "keep":
        joins = start <= first <= end and max(behind, end) - start <= most
        there[:] = [start, max(behind, end)] if joins else [first, behind]
    for name, needed, feature in (
        ("digit", {"digit": 1 + int(rng.integers(2))}, "digits"), ("lift", {"continues": 1}, "digits"),
        ("bits15", {"result": 1 + int(rng.integers(2))}, "digits"), ("apart", {"result": 0}, "apart"),
        ("value_format", {"run": int(rng.choice([2, 3, 63]))}, "blocks4"),
        ("multiply", {"result": 1 + int(rng.integers(2))}, "gate"), ("keep", {}, "none"), ("kept", {}, "none"),
    ):  # fmt: skip
        if rng.random() < (0.15 if feature in config.abilities else 0.002):
            fields[name] = 1
            fields |= needed if rng.integers(12) else {}
    if fields.get("value_format") and rng.integers(2 if "wide_blocks" in config.abilities else 8) == 0:
        fields["value_format"] = 2
    values = {
        "digit": [1, 3],
        "value_format": [1, 2, 3],
        "run": [0, 1],
        "result": [5, 6],
        "columns": [2, 3],
        "continues": [0, 1],
    }
    if rng.integers(25) == 0:
        name = str(rng.choice(list(values)))
        fields[name] = int(rng.choice(values[name]))
    return fields


@pytest.mark.parametrize("name", ASKING)
def test_what_goes_together(name: str) -> None:
    """Random products, of which some ask for what was not kept, has no room, is not there, or goes with other results:
    RTL refuses the one that the reference does."""
    config = ASKING[name]
    hardware, rng, ends = (config, built(config)), np.random.default_rng(len(name)), []
    size = instruction_bytes(Opcode.PRODUCT)
    for seed in range(400):
        opcodes = rng.choice([Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT], 24, p=[0.9, 0.05, 0.05])
        raw = bytearray(assemble([*(Instruction(Opcode(o)) for o in opcodes), HALT], config))
        there = [100, 100]
        for number, opcode in enumerate(opcodes):
            asked = asking(rng, Opcode(opcode), config, there)
            at = HEADER_BYTES + number * size
            raw[at : at + size] = (
                formats(Opcode(opcode)).pack({**asked, "opcode": int(opcode)}).to_bytes(size, "little")
            )
        try:
            before, illegal = len(list(fetched(np.frombuffer(raw, np.uint8), 0, config, LENGTH, POSITION))), 0
        except IllegalError as refused:
            before, illegal = refused.number, 1
        ends.append(before)
        found, end = run(hardware, bytes(raw), before, 0.2 * (seed % 2), seed + 1)
        assert (len(found), end) == (before, (0, illegal, before)), (seed, before)
    assert len(set(ends)) > 12
