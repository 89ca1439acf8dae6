"""Instructions: pack and unpack, text and back, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sta_hw.errors import InputError
from sta_hw.spec.isa import (
    BODIES,
    INSTRUCTION_BYTES,
    Instruction,
    Opcode,
    assemble,
    assemble_text,
    disassemble,
    disassemble_text,
    layout_of,
    most_instructions,
)
from sta_hw.spec.presets import PRESETS


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    """Any legal instruction."""
    opcode = draw(st.sampled_from(list(Opcode)))
    fields = {}
    for name, width in layout_of(opcode)[1:]:
        most = {"result": 4}.get(name, (1 << width) - 1)
        fields[name] = draw(st.integers(0, most))
    return Instruction(opcode, {k: v for k, v in fields.items() if v})


@given(st.lists(instructions(), max_size=5))
def test_binary_and_text_round_trip(program: list[Instruction]) -> None:
    config = PRESETS["ci"]
    assert disassemble(assemble(program, config), config) == program
    assert assemble_text(disassemble_text(program)) == program


def test_every_instruction_fits() -> None:
    for opcode in BODIES:
        assert sum(width for _, width in layout_of(opcode)) <= 8 * INSTRUCTION_BYTES


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
    good = assemble([Instruction(Opcode.HALT)], config)
    for data, message in (
        (good[:10], "header of 64 bytes; there are 10"),
        (b"\0" * 64, "not a program of version 2"),
        (good[:-1], "ends before its 1 instructions"),
        (good[:64] + b"\x63" + good[65:], "instruction 0: opcode 99 is unknown"),
        (good[:64] + b"\x01" + b"\xff" * 63, "bits beyond its last field"),
    ):
        with pytest.raises(InputError, match=message):
            disassemble(data, config)
    with pytest.raises(InputError, match="for hardware"):
        disassemble(good, PRESETS["tiny"])


def test_a_program_has_as_many_instructions_as_one_run_of_the_bus() -> None:
    """On a bus of 4 bytes an instruction is 16 beats, and a run has fewer than 2^20."""
    config = PRESETS["ci"]
    assert config.bus_bytes == 4 and most_instructions(config) == 65_535
    halt = Instruction(Opcode.HALT)
    assert len(disassemble(assemble([halt] * 3, config), config)) == 3
    with pytest.raises(InputError, match=r"65,536 instructions, and hardware with a bus of 4 bytes takes 65,535"):
        assemble([halt] * 65_536, config)


def test_comments_and_hexadecimal_numbers() -> None:
    found = assemble_text("# nothing\nload address=0x40 target=positions beats=2 rows=1  # two beats\n\nhalt")
    assert found[0]["address"] == 64 and found[0]["target"] == 1 and found[1].opcode == Opcode.HALT
