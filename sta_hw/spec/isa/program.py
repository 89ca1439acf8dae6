"""A program's bytes: a header of 64 bytes, instructions one behind the other, and zeros to a whole line."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from ...errors import InputError
from ..config import Config
from ..features import ABILITIES
from .encoding import instruction_bytes
from .instruction import Instruction
from .opcodes import Opcode

__all__ = [
    "HEADER_BYTES", "LINE_BYTES", "MAGIC", "MOST_LINES", "VERSION", "assemble", "disassemble", "most_program_bytes",
    "program_bytes",
]  # fmt: skip

LINE_BYTES = 64
HEADER_BYTES = 64
MAGIC = 0x48415453  # "STAH"
VERSION = 3
MOST_LINES = (1 << 17) - 1
"""Lines of 64 bytes that a program has at most, its header's among them."""


def program_bytes(instructions: Iterable[Instruction]) -> int:
    """Bytes of a program, its header included: whole lines."""
    size = sum(instruction_bytes(i.opcode) for i in instructions)
    return HEADER_BYTES + -(-size // LINE_BYTES) * LINE_BYTES


def most_program_bytes() -> int:
    """Bytes of the longest program, its header included."""
    return MOST_LINES * LINE_BYTES


def assemble(instructions: Sequence[Instruction], config: Config) -> bytes:
    """A program's bytes: header (magic, version, lines, hash of what programs see), instructions, and zeros.

    Raises
    ------
    InputError
        If it is too long, or an instruction needs a feature that the configuration has not.
    """
    size = program_bytes(instructions)
    if size > most_program_bytes():
        raise InputError(
            f"the program has {size:,} bytes, and hardware takes {most_program_bytes():,}; fewer tokens or layers "
            "would do."
        )
    _require_features(instructions, config)
    header = struct.pack("<III4xQ", MAGIC, VERSION, size // LINE_BYTES, int(config.program_hash, 16))
    body = b"".join(i.pack() for i in instructions)
    return (header.ljust(HEADER_BYTES, b"\0") + body).ljust(size, b"\0")


def disassemble(data: bytes, config: Config | None = None) -> list[Instruction]:
    """The instructions of a program as it is written, up to the last HALT.

    Raises
    ------
    InputError
        If the header is not one, the program is for another configuration than `config`, the data
        end early, or an instruction is malformed (the message says which).
    """
    if len(data) < HEADER_BYTES:
        raise InputError(f"a program begins with a header of {HEADER_BYTES} bytes; there are {len(data)}.")
    magic, version, lines, digest = struct.unpack_from("<III4xQ", data)
    if magic != MAGIC or version != VERSION:
        raise InputError(f"not a program of version {VERSION}: magic {magic:#x}, version {version}.")
    if config is not None and digest != int(config.program_hash, 16):
        raise InputError(f"the program is for hardware {digest:016x}, this is {config.program_hash}; compile it again.")
    end = max(lines, 1) * LINE_BYTES
    if len(data) < end:
        raise InputError(f"the program ends before its {lines} lines of {LINE_BYTES} bytes.")
    found: list[Instruction] = []
    at, body = HEADER_BYTES, bytes(data[:end])
    last = len(body.rstrip(b"\0"))
    while at < last:
        try:
            found.append(Instruction.unpack(body[at : at + LINE_BYTES]))
        except InputError as error:
            raise InputError(f"instruction {len(found)}, byte {at - HEADER_BYTES}: {error}") from None
        at += instruction_bytes(found[-1].opcode)
    if not found or found[-1].opcode != Opcode.HALT:
        raise InputError("the program does not end with HALT.")
    if config is not None:
        _require_features(found, config)
    return found


def _require_features(instructions: Sequence[Instruction], config: Config) -> None:
    """Raise InputError at an instruction that needs what the hardware has not."""
    for number, instruction in enumerate(instructions):
        for feature, what in instruction.features():
            if feature not in config.abilities:
                there, where = ", ".join(config.features) or "none", f"instruction {number} ({instruction.opcode.name})"
                if feature in ABILITIES:
                    raise InputError(f"{where}: {what} needs hardware with {ABILITIES[feature]}.")
                raise InputError(f"{where}: {what} needs the feature {feature}, and this hardware has {there}.")
