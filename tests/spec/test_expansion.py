"""What programs mean: loops, registers and their limits; the reference, by its own code, says the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.random import Generator

from sta_hw.errors import InputError
from sta_hw.reference.instructions import IllegalError, fetched
from sta_hw.rtl.primitives.layouts import CLASS_BITS, UNDER_WAY_BITS
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import MOST_AGE, MOST_LOOPS, expand, needs_length, unroll
from sta_hw.spec.isa import CODES, FORMATS, Instruction, Opcode, Result, assemble, codes, disassemble, formats
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
DECODER = dataclasses.replace(CONFIG, features=("decoder",))
HALT, NEXT = Instruction(Opcode.HALT), Instruction(Opcode.NEXT)
UNITS = (Opcode.LOAD, Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT, Opcode.NORM)


def loop(count: int, register: int = 0) -> Instruction:
    return Instruction(Opcode.LOOP, {"count": count, "count_register": register})


def setting(destination: int, value: int, source: int = 0) -> Instruction:
    return Instruction(Opcode.SET, {"destination": destination, "value": value % (1 << 32), "value_register": source})


def legal_fields(opcode: Opcode, config: Config) -> Iterator[tuple[str, int, int]]:
    """The fields that a configuration's hardware has, with the least and the largest value."""
    for name, (_, field) in formats(opcode).places.items():
        if name != "opcode" and not field.reserved and field.feature in ("", *config.features):
            yield name, field.lowest, max(codes(name, config.features)) if name in CODES else field.highest


def fitting(opcode: Opcode, fields: dict[str, int]) -> dict[str, int]:
    """Fields of which some do not go together, changed so that they do; columns to whole pairs and blocks."""
    found = dict(fields)
    if found.get("rotate") and found.get("multiply"):
        del found["rotate"]
    if opcode != Opcode.PRODUCT:
        alone = ("multiply", "rotate", "digit", "lift")
        found = {name: value for name, value in found.items() if name not in alone}
    if found.get("lift"):
        found["continues"] = 1
    if opcode == Opcode.CONTEXT and found.get("result") == Result.BEST:
        del found["result"]
    if found.get("value_format"):
        found["run"] = max(2, found.get("run", 0))
    if found.get("multiply"):
        found["result"] = 1 + found.get("result", 0) % 2
    if found.get("rotate"):
        found["result"] = found.get("result", 0) % 2 * 4
    if found.get("bits15") and opcode != Opcode.NORM:
        stores = found.get("result") == Result.STORE16 and opcode != Opcode.SCORES
        activates = found.get("result") == Result.ACTIVATE and opcode == Opcode.PRODUCT and not found.get("multiply")
        if not stores and not activates:
            del found["bits15"]
    pairs = found.get("multiply") or found.get("rotate")
    if pairs or opcode == Opcode.SCORES or found.get("result") == Result.TRANSPOSE:
        found |= {"columns": 4 * (found.get("columns", 0) % 9), "parameters_base_register": 0}
    return found


def random_instruction(rng: Generator, opcode: Opcode, config: Config = CONFIG) -> Instruction:
    """Any legal one, whose registers do not make it illegal."""
    fields = {}
    for name, least, most in legal_fields(opcode, config):
        if rng.random() < 0.7:
            fields[name] = int(rng.integers(least, most + 1))
    return Instruction(opcode, fitting(opcode, fields))


def random_program(rng: Generator, most: int = 400, config: Config = CONFIG) -> list[Instruction]:
    """A well-formed program of so many expanded instructions, about."""
    budget = [most]

    def body(depth: int, room: int, turns: int) -> list[Instruction]:
        found: list[Instruction] = []
        while room > 8 and budget[0] > 0 and rng.random() < 0.93:
            kind = rng.random()
            if kind < 0.2 and depth < MOST_LOOPS and room > 24:
                count = int(rng.integers(1, 6))
                if turns * count > 64:
                    continue
                given = [loop(count)] if rng.random() < 0.7 else [setting(13, count + 7), loop(-7 % 65536, 13)]
                inner = body(depth + 1, int(rng.integers(8, room - 4)), turns * count)
                found += [*given, *inner, NEXT]
                room -= 3 + sum(len(FORMATS[i.opcode]) for i in inner)
            elif kind < 0.55:
                destination = int(rng.integers(1, 13))
                found.append(setting(destination, int(rng.integers(1 << 32)), int(rng.integers(16))))
                room -= 1
            else:
                opcode = UNITS[int(rng.integers(len(UNITS)))]
                found.append(random_instruction(rng, opcode, config))
                room -= len(FORMATS[opcode])
                budget[0] -= turns
        return found

    found: list[Instruction] = []
    while budget[0] > 0:
        found += body(0, 200, 1)
    return [*found, HALT]


def reference(program: list[Instruction], config: Config, length: int = 0, position: int = 0) -> list[Instruction]:
    """The reference's view of a program."""
    image = np.frombuffer(assemble(program, config), np.uint8)
    found = []
    for number, (i, known) in enumerate(
        zip(fetched(image, 0, config, length, position), unroll(program, config, length, position), strict=False)
    ):
        assert (i.number, i.place) == (number, known.source)
        found.append(i.whole())
    return found


@pytest.mark.parametrize("seed", range(25))
def test_random_programs_mean_the_same_to_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = (CONFIG, DECODER)[seed % 2]
    program = random_program(rng, config=config)
    length, position = rng.integers(1 << 16, size=2).tolist()
    assert reference(program, config, length, position) == expand(program, config, length, position)[:-1]


def test_a_loop_over_tiles_by_hand() -> None:
    """Two nested loops; on-chip bases in the upper half; r15 and r14 from the length."""
    product = Instruction(
        Opcode.PRODUCT,
        {"window_address": 64, "window_address_register": 1, "values_base": 7, "values_base_register": 2, "count0": 5},
    )
    program = [
        setting(2, 0), loop(2), setting(1, 0x100), loop(0, 14), product, setting(1, -16, 1), NEXT,
        setting(2, 9 << 16, 2), NEXT, Instruction(Opcode.LOAD, {"stride_register": 15}), HALT,
    ]  # fmt: skip
    assert CONFIG.rows == 4
    found = expand(program, CONFIG, length=9)  # three tiles
    want = [(64 + 0x100 - 16 * tile, 7 + 9 * chunk) for chunk in range(2) for tile in range(3)]
    assert [(i["window_address"], i["values_base"]) for i in found[:6]] == want
    assert all(i["count0"] == 5 for i in found[:6]) and found[6]["stride"] == 9
    # Words are read once: two SETs, two LOOPs and eight of the product at first, then none but what is new.
    words = [found.words for found in unroll(program, CONFIG, length=9)]
    assert words == [12, 2, 0, 2, 0, 0, 3, 1]


def test_the_ring_holds_a_body_of_63_products() -> None:
    """504 words at any place; 505 where they touch a 65th line, and not where they do not."""
    body = [Instruction(Opcode.PRODUCT)] * 62 + [setting(1, 0)] * 7  # with NEXT 504
    for before in range(9):
        program = [setting(1, 0)] * before + [loop(2), *body, NEXT, HALT]
        assert len(expand(program, CONFIG)) == 2 * 62 + 1
        reference(program, CONFIG)
    for before in range(8):
        program = [setting(1, 0)] * before + [loop(2), *body, *[setting(1, 0)] * 2, NEXT, HALT]
        fits = (before + 1) % 8 <= 6  # 506 words in 512, from where they begin
        if fits:
            assert len(expand(program, CONFIG)) == len(reference(program, CONFIG)) + 1
        else:
            with pytest.raises(InputError, match="may touch 64 lines of 64 bytes"):
                expand(program, CONFIG)
            with pytest.raises(IllegalError):
                reference(program, CONFIG)


@pytest.mark.parametrize(
    ("program", "number", "message"),
    [
        ([loop(0), NEXT, HALT], 0, "its count is 0; it is from 1 to 65,535"),
        ([loop(2), HALT], 0, r"instruction 1 \(HALT\): it stands in a loop"),
        ([NEXT, HALT], 0, "there is no loop around it"),
        ([Instruction(Opcode.NORM), setting(0, 1), HALT], 1, "register 0 is always zero"),
        ([loop(1)] * 9 + [NEXT] * 9 + [HALT], 0, "there are 8 loops around it"),
        ([setting(1, 65534), loop(3), loop(2, 1), NEXT, setting(1, 1, 1), NEXT, HALT], 0, "its count is 0"),
        ([Instruction(Opcode.NORM)], 1, "does not end with HALT"),
        ([], 0, "does not end with HALT"),
    ],
)
def test_loops_that_are_none(program: list[Instruction], number: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand(program, CONFIG)
    with pytest.raises(IllegalError) as refused:
        reference(program, CONFIG)
    assert refused.value.number == number


def test_registers_that_begin_with_the_position() -> None:
    """r13 and r12, where there is a register POSITION; elsewhere they begin at 0."""
    program = [Instruction(Opcode.LOAD, {"stride_register": r, "address_register": r + 1}) for r in (12, 14)] + [HALT]
    for config, first in ((CONFIG, (0, 0)), (DECODER, (9, 38))):
        found = expand(program, config, length=6, position=38)
        assert [(i["stride"], i["address"]) for i in found[:2]] == [first, (2, 6)]


@pytest.mark.parametrize("config", [DECODER, Config(rows=4, groups=16, window=8, drain_lanes=2, window_words=128)])
def test_each_bit_of_the_upper_halves_is_legal_for_both(config: Config) -> None:
    """The assembler's tables and the reference's own code say the same; setting register 0 is the program's error."""
    other = {"result": int(Result.STORE16), "continues": 1}
    bases = [Instruction(o) for o in UNITS if config is DECODER or len(FORMATS[o]) == 8]
    programs = [[i, HALT] for i in bases]
    if config is DECODER:
        programs += [[Instruction(o, other), HALT] for o in (Opcode.PRODUCT, Opcode.CONTEXT)]
        programs += [[HALT], [loop(1), NEXT, HALT], [setting(1, 1), HALT]]
    refused = 0
    for program in programs:
        raw, words = assemble(program, config), len(FORMATS[program[0].opcode])
        for bit in (64 * word + b for word in range(words) for b in range(36 + 4 * (word == 0), 64)):
            data = bytearray(raw)
            data[64 + bit // 8] ^= 1 << bit % 8
            said, number = ["", ""], 0
            try:
                disassemble(bytes(data), config)
            except InputError as error:
                said[0] = str(error)
            try:
                list(fetched(np.frombuffer(bytes(data), np.uint8), 0, config, 0, 0))
            except IllegalError as error:
                said[1], number = str(error), error.number
            assert bool(said[0]) == bool(said[1]) or said == ["", "register 0 cannot be set"], (program[0], bit, said)
            assert number == 0
            refused += bool(said[0])
    assert refused > 100


@pytest.mark.parametrize(
    ("opcode", "fields", "needs"),
    [
        (Opcode.SCORES, {"mask": 1}, True), (Opcode.SCORES, {"mask": 0, "keys": 5}, False), (Opcode.SCORES, {}, False),
        (Opcode.PRODUCT, {"place": 1}, True), (Opcode.PRODUCT, {"mask": 1}, False), (Opcode.PRODUCT, {}, False),
        (Opcode.PRODUCT, {"result_address_register": 14}, True), (Opcode.LOAD, {"address_register": 13}, False),
        (Opcode.LOOP, {"count": 1, "count_register": 14}, True),
    ],
)  # fmt: skip
def test_what_depends_on_the_length(opcode: Opcode, fields: dict[str, int], needs: bool) -> None:
    """A mask by LENGTH, rows by LENGTH, and the registers that begin with it, until they are set."""
    one = Instruction(opcode, fields)
    assert needs_length([one]) is needs and needs_length([HALT, one]) is needs
    registers = {value for name, value in fields.items() if name.endswith("_register")}
    for register in registers:
        assert not needs_length([setting(register, 0), one])
        assert needs_length([setting(1, 0), one]) is needs
    assert needs_length([setting(14, 4, 15)]) and not needs_length([setting(15, 0), setting(14, 4, 15)])


def test_counts_of_waits_cannot_be_mistaken() -> None:
    """A difference of two counts of `CLASS_BITS` bits: at least as much below as an instruction may be old, at most
    twice as many as may be under way."""
    under_way = (1 << UNDER_WAY_BITS) - 2
    assert (MOST_AGE, under_way) == (63, 62)
    assert -MOST_AGE >= -(1 << CLASS_BITS) // 2 and MOST_AGE + under_way + MOST_AGE < 1 << CLASS_BITS
