"""Programs as text: one line per instruction, the opcode's name and then ``field=value``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from ..errors import InputError
from .isa import CODES, Instruction, Opcode

__all__ = ["assemble_text", "disassemble_text"]


def disassemble_text(instructions: Iterable[Instruction], labels: Iterable[str] = ()) -> str:
    """One line per instruction, a loop's body indented; `assemble_text` reads it back.

    `labels` say what each belongs to, in a comment; those that repeat the opcode's name are left out.
    """
    lines, depth = [], 0
    for instruction, label in zip_longest(instructions, labels, fillvalue=""):
        assert isinstance(instruction, Instruction)
        depth -= instruction.opcode == Opcode.NEXT
        words = ["  " * depth + instruction.opcode.name.lower()]  # none where there are NEXTs without a LOOP
        depth += instruction.opcode == Opcode.LOOP
        for name, value in instruction.fields.items():
            known = CODES.get(name)
            words.append(f"{name}={known(value).name.lower() if known else value}")
        if label and label != words[0].strip():
            words.append(f" # {label}")
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
            found.append(_instruction(words))
        except InputError as error:
            raise InputError(f"line {number}: {error}") from None
    return found


def _instruction(words: list[str]) -> Instruction:
    if words[0].upper() not in Opcode.__members__:
        raise InputError(f"opcode {words[0]!r} is unknown; there are {', '.join(o.name.lower() for o in Opcode)}.")
    fields: dict[str, int] = {}
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name in fields:
            raise InputError(f"{name} is given twice.")
        known = CODES.get(name)
        if known and value.upper() in known.__members__:
            fields[name] = int(known[value.upper()])
            continue
        try:
            fields[name] = int(value, 0)
        except ValueError:
            raise InputError(f"{word!r} is not of the form field=number.") from None
    return Instruction(Opcode[words[0].upper()], fields)
