"""Instructions: pack and unpack, text and back, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sta_hw.errors import InputError
from sta_hw.spec.assembly import assemble_text, disassemble_text
from sta_hw.spec.expansion import Expanded
from sta_hw.spec.features import FEATURES
from sta_hw.spec.isa import (
    FORMATS,
    MOST_LINES,
    REGISTERS,
    Error,
    Instruction,
    Opcode,
    Target,
    assemble,
    disassemble,
    formats,
    instruction_bytes,
    most_program_bytes,
)
from sta_hw.spec.isa_page import markdown
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.records import Field, Record
from tests.spec.test_expansion import DECODER, fitting, legal_fields

HALT = Instruction(Opcode.HALT)


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    """Any legal instruction."""
    opcode = draw(st.sampled_from(list(Opcode)))
    fields = {}
    for name, least, most in legal_fields(opcode, DECODER):
        fields[name] = draw(st.integers(least, most))
    return Instruction(opcode, {k: v for k, v in fitting(opcode, fields).items() if v})


@given(st.lists(instructions(), max_size=5))
def test_binary_and_text_round_trip(found: list[Instruction]) -> None:
    config, program = DECODER, [*found, HALT]
    assert disassemble(assemble(program, config), config) == program
    assert assemble_text(disassemble_text(program)) == program
    text = disassemble_text(program, ["0.output.dense"] * len(found) + ["halt"])
    assert assemble_text(text) == program and text.count(" # 0.output.dense\n") == len(found)
    assert "# halt" not in text


def test_every_instruction_fills_its_words() -> None:
    for opcode, words in FORMATS.items():
        assert formats(opcode).width == 64 * len(words) == 8 * instruction_bytes(opcode) <= 512


def test_what_no_hardware_takes_is_refused() -> None:
    for opcode, fields, message in (
        (Opcode.PRODUCT, {"value_format": 3}, "PRODUCT: value_format = 3 is unknown; there are INT8 0, BLOCKS4 1"),
        (Opcode.PRODUCT, {"value_format": 1, "run": 1}, "PRODUCT: value_format = 1 goes with run >= 2"),
        (Opcode.PRODUCT, {"value_format": 2}, "PRODUCT: value_format = 2 goes with run >= 2"),
        (Opcode.NORM, {"kind": 2}, "NORM: kind = 2 is unknown; there are LAYER 0, RMS 1"),
        (Opcode.SCORES, {"mask": 3}, "SCORES: mask = 3 is unknown; there are KEYS 0, LENGTH 1, CAUSAL 2"),
        (Opcode.PRODUCT, {"encoding": 3}, "PRODUCT: encoding = 3 is unknown; there are DENSE 0, INDEX 1, BITMAP 2"),
        (Opcode.LOAD, {"target": 5}, "LOAD: target = 5 is unknown; there are VALUES 0"),
        (
            Opcode.SCORES,
            {"key_start": 32768},
            "key_start = 32768 is out of range; it has 16 bits, the nearest is 32767",
        ),
        (Opcode.LOAD, {"opcode": 3}, "the opcode is none of its fields"),
        (Opcode.PRODUCT, {"multiply": 1}, "multiply = 1 goes with PRODUCT and result STORE16 or ACTIVATE alone"),
        (Opcode.PRODUCT, {"rotate": 1, "result": 1}, "rotate = 1 goes with PRODUCT and result STORE8 or TRANSPOSE"),
        (Opcode.PRODUCT, {"rotate": 1, "multiply": 1, "result": 4}, "multiply = 1 goes with PRODUCT"),
        (Opcode.SCORES, {"rotate": 1}, "SCORES: rotate = 1 goes with PRODUCT"),
        (Opcode.CONTEXT, {"result": 5}, "CONTEXT: result BEST is PRODUCT's alone"),
        (Opcode.PRODUCT, {"digit": 3}, "digit = 3 is unknown; there are NONE 0, HIGH 1, LOW 2"),
        (Opcode.SCORES, {"digit": 1}, "SCORES: digit = 1 goes with PRODUCT alone"),
        (Opcode.CONTEXT, {"lift": 1, "continues": 1}, "CONTEXT: lift = 1 goes with PRODUCT alone"),
        (Opcode.PRODUCT, {"lift": 1}, "lift = 1 goes with continues = 1 alone"),
        (Opcode.PRODUCT, {"bits15": 1, "result": 3}, "bits15 = 1 goes with result STORE16, or ACTIVATE without"),
        (Opcode.PRODUCT, {"bits15": 1, "result": 2, "multiply": 1}, "bits15 = 1 goes with result STORE16, or ACTIVATE"),
        (Opcode.CONTEXT, {"bits15": 1, "result": 2}, "bits15 = 1 goes with result STORE16, or ACTIVATE"),
        (Opcode.SCORES, {"bits15": 1, "result": 1}, "bits15 = 1 goes with result STORE16, or ACTIVATE"),
        (Opcode.PRODUCT, {"keep": 1, "kept": 1}, "keep = 1 goes with PRODUCT and SCORES, and without kept"),
        (Opcode.CONTEXT, {"keep": 1}, "keep = 1 goes with PRODUCT and SCORES"),
        (Opcode.CONTEXT, {"kept": 1}, "kept = 1 goes with PRODUCT and SCORES, and without keep"),
        (Opcode.SCORES, {"apart": 1}, "apart = 1 goes with PRODUCT and result STORE8 alone"),
        (Opcode.PRODUCT, {"apart": 1, "result": 1}, "apart = 1 goes with PRODUCT and result STORE8 alone"),
    ):
        with pytest.raises(InputError, match=message):
            Instruction(opcode, fields)
    with pytest.raises(InputError, match="PRODUCT has no field 'colums'"):
        Instruction(Opcode.PRODUCT)["colums"]
    for opcode, fields in (
        (Opcode.PRODUCT, {"keep": 1}), (Opcode.SCORES, {"kept": 1}), (Opcode.PRODUCT, {"apart": 1}),
        (Opcode.CONTEXT, {"bits15": 1, "result": 1}),
    ):  # fmt: skip
        assert Instruction(opcode, fields).fields == fields
    assert Instruction(Opcode.PRODUCT)["columns"] == 0


def test_what_the_hardware_has_not_is_refused() -> None:
    """By the assembler and where a program is read again; and what names no feature needs none."""
    for opcode, fields, feature in (
        (Opcode.PRODUCT, {"multiply": 1, "result": 2}, "gate"), (Opcode.PRODUCT, {"rotate": 1}, "rotary"),
        (Opcode.PRODUCT, {"result": 5}, "best"),
        (Opcode.SCORES, {"mask": 2}, "causal"), (Opcode.NORM, {"kind": 1}, "rms"), (Opcode.NORM, {"epsilon": 5}, "rms"),
        (Opcode.CONTEXT, {"place": 1}, "position"), (Opcode.PRODUCT, {"digit": 2}, "digits"),
        (Opcode.PRODUCT, {"lift": 1, "continues": 1}, "digits"), (Opcode.NORM, {"bits15": 1}, "digits"),
        (Opcode.CONTEXT, {"bits15": 1, "result": 1}, "digits"),
        (Opcode.PRODUCT, {"value_format": 1, "run": 2}, "blocks4"), (Opcode.LOAD, {"target": 4}, "blocks4"),
    ):  # fmt: skip
        program = [Instruction(opcode, fields), HALT]
        less = dataclasses.replace(DECODER, features=tuple(f for f in FEATURES if f != feature))
        (name, value), *_ = fields.items()
        message = (
            rf"instruction 0 \({opcode.name}\): {name} = {value} needs the feature {feature}, and this hardware has"
        )
        with pytest.raises(InputError, match=message):
            assemble(program, less)
        data = bytearray(assemble(program, DECODER))
        assert disassemble(bytes(data), DECODER) == program
        data[16:24] = bytes.fromhex(less.program_hash)[::-1]
        with pytest.raises(InputError, match=message):
            disassemble(bytes(data), less)
    assert not list(Instruction(Opcode.SCORES, {"mask": 1, "columns": 9}).features())
    with pytest.raises(InputError, match=r"instruction 0 \(PRODUCT\): keep = 1 needs hardware with "):
        assemble([Instruction(Opcode.PRODUCT, {"keep": 1}), HALT], DECODER)


def test_records_pack_numbers_and_arrays() -> None:
    record = Record("row", (Field("a", 3), Field("", 2), Field("b", 4, signed=True)))
    values = {"a": np.array([1, 7]), "b": np.array([-8, 3])}
    words = record.pack(values)
    assert words.tolist() == [1 | 8 << 5, 7 | 3 << 5] and record.width == 9
    for name, column in record.unpack(words).items():
        np.testing.assert_array_equal(column, values[name])
    assert record.unused(0b11111) == 0b11000
    for name, value in (("a", 0), ("a", 7), ("b", -8), ("b", 7)):
        record.check(name, value)
    for name, value, bits, nearest in (("a", -1, 3, 0), ("a", 8, 3, 7), ("b", -9, 4, -8), ("b", 8, 4, 7)):
        with pytest.raises(
            InputError, match=f"{name} = {value} is out of range; it has {bits} bits, the nearest is {nearest}"
        ):
            record.check(name, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jump", "line 1: opcode 'jump' is unknown; there are halt, load"),
        ("halt\nload beats=x", "line 2: 'beats=x' is not of the form field=number"),
        ("load colour=1", "line 1: LOAD has no field 'colour'"),
        ("load rows=65536", "rows = 65536 is out of range; it has 16 bits, the nearest is 65535"),
    ],
)
def test_bad_text(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assemble_text(text)


def test_bad_binaries() -> None:
    config = PRESETS["ci"]
    good = assemble([HALT], config)
    for data, message in (
        (good[:10], "header of 64 bytes; there are 10"),
        (b"\0" * 64, "not a program of version 3"),
        (good[:4] + b"\4" + good[5:], "not a program of version 3: magic 0x48415453, version 4"),
        (good[:8] + bytes(4) + good[12:], "does not end with HALT"),
        (good[:-1], "ends before its 2 lines of 64 bytes"),
        (good[:68] + b"\xd0" + good[69:], "instruction 0, byte 0: opcode 13 is unknown"),
        (good[:71] + b"\x01" + good[72:], "HALT: bit 56 is set, which no field has"),
        (good[:64] + bytes(64), "does not end with HALT"),
        (good[:64] + bytes(60) + b"\x30\0\0\0", "instruction 0, byte 0: opcode 0 is unknown"),
    ):
        with pytest.raises(InputError, match=message):
            disassemble(data, config)
    with pytest.raises(InputError, match="for hardware"):
        disassemble(good, PRESETS["tiny"])


def test_programs_with_what_they_do_not_see_changed_are_the_same() -> None:
    config = PRESETS["ci"]
    other = dataclasses.replace(
        config, multiplier="lut", softmax_lanes=4, softmax_block=16, norm_columns=16, outstanding=2
    )
    assert other.hash != config.hash and assemble([HALT], other) == assemble([HALT], config)
    assert assemble([HALT], dataclasses.replace(config, weight_words=512)) != assemble([HALT], config)


def test_how_long_a_program_may_be() -> None:
    config = PRESETS["ci"]
    assert most_program_bytes() == 64 * MOST_LINES
    with pytest.raises(InputError, match=r"the program has 8,388,672 bytes, and hardware takes 8,388,544"):
        assemble([Instruction(Opcode.PRODUCT)] * MOST_LINES + [HALT], config)
    # As long as may be, it is looked at further.
    with pytest.raises(InputError, match="needs the feature rotary, and this hardware has none"):
        assemble([Instruction(Opcode.PRODUCT, {"rotate": 1})] * (MOST_LINES - 1), config)


def test_what_drivers_and_programs_know_by_number() -> None:
    """Beside what the page has."""
    assert assemble([HALT], PRESETS["ci"])[:4] == b"STAH" and REGISTERS == 16
    assert {int(e): e.name for e in Error} == dict(
        enumerate(["NONE", "HEADER", "HARDWARE", "OPCODE", "ADDRESS", "READ", "WRITE", "ENGINE", "TIMEOUT"])
    )


def test_memories_of_targets() -> None:
    assert [target.memory.name for target in Target] == ["VALUES", "POSITIONS", "PARAMETERS", "TABLE", "PARAMETERS"]


def test_what_describes_does_not_change() -> None:
    record = Record("row", (Field("a", 3),))
    for described, name in (
        (HALT, "opcode"),
        (record, "name"),
        (record.fields[0], "width"),
        (FORMATS[HALT.opcode][0], "low"),
        (Expanded(HALT, 0, 1), "source"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(described, name, 0)


def test_the_page_is_current() -> None:
    """docs/isa.md: `python -m sta_hw.spec.isa_page` writes it."""
    assert (Path(__file__).parents[2] / "docs" / "isa.md").read_text() == markdown()


def test_loops_are_indented() -> None:
    product, end = Instruction(Opcode.PRODUCT, {"columns": 3}), Instruction(Opcode.NEXT)
    program = [Instruction(Opcode.LOOP, {"count": 2}), Instruction(Opcode.LOOP, {"count": 3}), product, end, end, HALT]
    text = "loop count=2\n  loop count=3\n    product columns=3\n  next\nnext\nhalt\n"
    assert disassemble_text(program) == text and assemble_text(text) == program


def test_comments_and_hexadecimal_numbers() -> None:
    found = assemble_text("# nothing\nload address=0x40 target=positions beats=2 rows=1  # two beats\n\nhalt")
    assert found[0]["address"] == 64 and found[0]["target"] == 1 and found[1].opcode == Opcode.HALT
