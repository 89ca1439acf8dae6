"""The instruction set: layouts of the program's binary, an assembler and a disassembler.

A program lies in memory as one header and then its instructions, 64 bytes each, little-endian, fields
packed from bit 0. Units run ahead of one another; what must wait for what is explicit: every
instruction carries, for each of four counters of finished work, the count it waits for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from ..errors import InputError
from .config import Config

__all__ = [
    "BODIES", "COMMON", "HEADER_BYTES", "INSTRUCTION_BYTES", "MAGIC", "VERSION", "Error", "Instruction",
    "Opcode", "Result", "Target", "assemble", "assemble_text", "disassemble", "disassemble_text", "layout_of",
    "most_instructions",
]  # fmt: skip

INSTRUCTION_BYTES = 64
HEADER_BYTES = 64
MAGIC = 0x48415453  # "STAH"
VERSION = 2


class Opcode(IntEnum):
    """What an instruction does."""

    HALT = 1
    """End of the program: finishes when every unit is idle."""
    LOAD = 2
    """Memory to an on-chip memory."""
    PRODUCT = 3
    """Matrix product: windows from memory, weights on chip, results to memory."""
    SCORES = 4
    """Attention, first half: Q x K^T of one head, one row tile and one block of keys, into the softmax."""
    CONTEXT = 5
    """Attention, second half: P x V, its windows from the softmax, normalised by the row sums."""
    NORM = 6
    """LayerNorm of one row tile, memory to memory."""


class Target(IntEnum):
    """On-chip memories that LOAD fills."""

    VALUES = 0
    POSITIONS = 1
    PARAMETERS = 2
    TABLE = 3


class Result(IntEnum):
    """What becomes of a product's results."""

    STORE8 = 0
    """8 bits, column after column."""
    STORE16 = 1
    """16 bits, column after column."""
    ACTIVATE = 2
    """8 bits through the table, then requantized per column to 8 bits."""
    RESIDUAL = 3
    """16 bits, added to the scaled residual stream; 16 bits stored."""
    TRANSPOSE = 4
    """8 bits; blocks of `groups` columns stored row after row, for use as weights."""


class Error(IntEnum):
    """Why the accelerator stopped (register ERROR)."""

    NONE = 0
    HEADER = 1
    """The program's header is not one of this version."""
    HARDWARE = 2
    """The program was made for another configuration."""
    OPCODE = 3
    """Illegal instruction."""
    ADDRESS = 4
    """An address is outside the image or not aligned to the bus."""
    READ = 5
    """The bus answered a read with an error."""
    WRITE = 6
    """The bus answered a write with an error."""
    ENGINE = 7
    """The matrix engine found weights that do not match their header, or refused the product."""
    TIMEOUT = 8
    """Nothing moved for 2^20 cycles: instructions wait for one another."""


COMMON = (("opcode", 8), ("wait_loads", 20), ("wait_matrix", 20), ("wait_products", 20), ("wait_norms", 20))
"""Fields of every instruction: the opcode, and how many LOADs, products through the array, products whose
results are in memory (or in the softmax), and NORMs must be finished before it starts."""

_PRODUCT = (
    ("window_address", 32), ("window_beats", 20),
    ("encoding", 2), ("n", 6), ("m_log2", 3), ("depth", 6), ("columns", 16), ("passes", 16),
    ("continues", 1), ("unfinished", 1), ("wide", 1),
    ("values_base", 16), ("count0", 16), ("stride0", 16), ("count1", 12), ("stride1", 16),
    ("count2", 12), ("stride2", 16), ("count3", 12), ("stride3", 16),
    ("positions_base", 16), ("positions_count", 16),
    ("parameters_base", 16), ("parameters_step", 1),
    ("result", 3), ("result_address", 32), ("residual_address", 32),
    ("keys", 16), ("row_first", 1), ("row_last", 1), ("gain", 3), ("coarse", 1),
)  # fmt: skip

BODIES: dict[Opcode, tuple[tuple[str, int], ...]] = {
    Opcode.HALT: (),
    Opcode.LOAD: (("target", 2), ("destination", 16), ("address", 32), ("beats", 20), ("rows", 16), ("stride", 32)),
    Opcode.PRODUCT: _PRODUCT,
    Opcode.SCORES: _PRODUCT,
    Opcode.CONTEXT: _PRODUCT,
    Opcode.NORM: (
        ("input_address", 32), ("wide_address", 32), ("narrow_address", 32), ("parameters_address", 32),
        ("width", 14), ("inverse", 33),
    ),
}  # fmt: skip
"""Fields after the common ones, by opcode.

LOAD: `rows` runs of `beats` bus words, `stride` bytes apart, to consecutive words from `destination`.
PRODUCT, SCORES, CONTEXT: the engine's command; weight values in the order of four nested counters
(the first is the innermost; strides in words); results from `result_address` on. SCORES: `keys` of the block's
keys are valid, `row_first` and `row_last` mark the row's first and last block, `gain` and `coarse` as in the softmax.
NORM: `inverse` is ``round(2**33 / width)``.
"""


def layout_of(opcode: Opcode) -> tuple[tuple[str, int], ...]:
    """All fields of an instruction with their widths, lowest bits first."""
    return COMMON + BODIES[opcode]


@dataclass(frozen=True)
class Instruction:
    """One instruction; fields left out are zero."""

    opcode: Opcode
    fields: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.fields.get(name, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", {k: int(v) for k, v in self.fields.items() if v})
        widths = dict(layout_of(self.opcode))
        for name, value in self.fields.items():
            if name not in widths or name == "opcode":
                raise InputError(f"{self.opcode.name} has no field {name!r}; it has {', '.join(list(widths)[1:])}.")
            if not 0 <= value < 1 << widths[name]:
                raise InputError(
                    f"{self.opcode.name}: {name} = {value} is out of range; "
                    f"it has {widths[name]} bits, the nearest is {min(max(value, 0), (1 << widths[name]) - 1)}."
                )

    def pack(self) -> bytes:
        """The instruction's 64 bytes."""
        word, at = 0, 0
        for name, width in layout_of(self.opcode):
            word |= (int(self.opcode) if name == "opcode" else self[name]) << at
            at += width
        return word.to_bytes(INSTRUCTION_BYTES, "little")

    @staticmethod
    def unpack(data: bytes) -> Instruction:
        """An instruction from its 64 bytes.

        Raises
        ------
        InputError
            If the opcode is unknown, or bits are set beyond the last field.
        """
        word = int.from_bytes(data, "little")
        try:
            opcode = Opcode(word & 0xFF)
        except ValueError:
            raise InputError(
                f"opcode {word & 0xFF} is unknown; there are {', '.join(f'{o.name} {int(o)}' for o in Opcode)}."
            ) from None
        fields, at = {}, 0
        for name, width in layout_of(opcode):
            fields[name] = word >> at & ((1 << width) - 1)
            at += width
        if word >> at:
            raise InputError(f"{opcode.name}: bits beyond its last field are set.")
        del fields["opcode"]
        return Instruction(opcode, {k: v for k, v in fields.items() if v})


def most_instructions(config: Config) -> int:
    """How many instructions a program can have: it is read as one run, of fewer than 2^20 beats of the bus."""
    return (1 << 20) // (INSTRUCTION_BYTES // config.bus_bytes) - 1


def assemble(instructions: Sequence[Instruction], config: Config) -> bytes:
    """A program's bytes: header (magic, version, instruction count, configuration hash), instructions.

    Raises
    ------
    InputError
        If there are more than `most_instructions`.
    """
    if len(instructions) > (most := most_instructions(config)):
        raise InputError(
            f"the program has {len(instructions):,} instructions, and hardware with a bus of {config.bus_bytes} bytes "
            f"takes {most:,}; fewer tokens or layers, or a wider bus (lanes), would do."
        )
    header = struct.pack("<III4xQ", MAGIC, VERSION, len(instructions), int(config.hash, 16))
    return header.ljust(HEADER_BYTES, b"\0") + b"".join(i.pack() for i in instructions)


def disassemble(data: bytes, config: Config | None = None) -> list[Instruction]:
    """The instructions of a program.

    Raises
    ------
    InputError
        If the header is not one, the program is for another configuration than `config`, the data
        end early, or an instruction is malformed (the message says which).
    """
    if len(data) < HEADER_BYTES:
        raise InputError(f"a program begins with a header of {HEADER_BYTES} bytes; there are {len(data)}.")
    magic, version, count, digest = struct.unpack_from("<III4xQ", data)
    if magic != MAGIC or version != VERSION:
        raise InputError(f"not a program of version {VERSION}: magic {magic:#x}, version {version}.")
    if config is not None and digest != int(config.hash, 16):
        raise InputError(f"the program is for hardware {digest:016x}, this is {config.hash}; compile it again.")
    if len(data) < HEADER_BYTES + count * INSTRUCTION_BYTES:
        raise InputError(f"the program ends before its {count} instructions.")
    found = []
    for number in range(count):
        start = HEADER_BYTES + number * INSTRUCTION_BYTES
        try:
            found.append(Instruction.unpack(data[start : start + INSTRUCTION_BYTES]))
        except InputError as error:
            raise InputError(f"instruction {number}: {error}") from None
    return found


_NAMES: dict[str, type[IntEnum]] = {"target": Target, "result": Result}


def disassemble_text(instructions: Iterable[Instruction]) -> str:
    """One line per instruction: the opcode's name, then ``field=value``; `assemble_text` reads it back."""
    lines = []
    for instruction in instructions:
        words = [instruction.opcode.name.lower()]
        for name, value in instruction.fields.items():
            if value:
                known = _NAMES.get(name)
                words.append(f"{name}={known(value).name.lower() if known else value}")
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def assemble_text(text: str) -> list[Instruction]:
    """Instructions from text; ``#`` begins a comment; numbers may be hexadecimal (0x...).

    Raises
    ------
    InputError
        With the line's number.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            if words[0].upper() not in Opcode.__members__:
                raise InputError(
                    f"opcode {words[0]!r} is unknown; there are {', '.join(o.name.lower() for o in Opcode)}."
                )
            fields = {}
            for word in words[1:]:
                name, _, value = word.partition("=")
                known = _NAMES.get(name)
                if known and value.upper() in known.__members__:
                    fields[name] = int(known[value.upper()])
                    continue
                try:
                    fields[name] = int(value, 0)
                except ValueError:
                    raise InputError(f"{word!r} is not of the form field=number.") from None
            found.append(Instruction(Opcode[words[0].upper()], fields))
        except InputError as error:
            raise InputError(f"line {number}: {error}") from None
    return found
