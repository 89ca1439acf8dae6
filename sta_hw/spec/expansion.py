"""What a program means: the flat list of instructions that its loops and address registers stand for.

The fetch unit (rtl/control/decode.py) does the same word by word, and the reference by code of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import InputError
from .config import Config
from .isa import FORMATS, HEADER_BYTES, LINE_BYTES, LOW_BITS, REGISTERS, WORD_BYTES, Instruction, Mask, Opcode
from .records import Record

__all__ = [
    "LENGTH_REGISTER", "MOST_AGE", "MOST_LOOPS", "POSITION_REGISTER", "TILES_REGISTER", "TILE_REGISTER", "WINDOW_LINES",
    "Expanded", "expand", "needs_length", "unroll",
]  # fmt: skip

MOST_LOOPS = 8
"""Loops within one another."""
MOST_AGE = 63
"""Instructions given after one that still waits at the end of a unit's queue, at most."""
WINDOW_LINES = 64
"""Lines of 64 bytes that the body of an outermost loop may touch: what the buffer holds that loops replay from."""
TILES_REGISTER, LENGTH_REGISTER = 14, 15
"""Address registers that begin with the text's row tiles, and with its length."""
TILE_REGISTER, POSITION_REGISTER = 12, 13
"""With feature position, those that begin with the first token's row tile, and with its position."""
_CONTROL = (Opcode.SET, Opcode.LOOP, Opcode.NEXT)
_MASK = (1 << LOW_BITS) - 1
_LOW = {
    opcode: tuple(
        (word.register, Record(opcode.name, word.low), tuple(f.name for f in word.low)) for word in words if word.low
    )
    for opcode, words in FORMATS.items()
}


@dataclass(frozen=True, slots=True)
class Expanded:
    """An instruction as the units see it.

    Attributes
    ----------
    instruction : Instruction
        Its registers added.
    source : int
        Number of the one in the program that it comes from.
    words : int
        Words of 64 bits that had to be read from memory for it, those of SET, LOOP and NEXT before it among them.
    """

    instruction: Instruction
    source: int
    words: int


def _lines(at: int) -> int:
    return (HEADER_BYTES + at * WORD_BYTES) // LINE_BYTES


def needs_length(program: Iterable[Instruction]) -> bool:
    """Whether what a program does depends on register LENGTH: by masks, rows, or registers that begin with it."""
    begun = {TILES_REGISTER, LENGTH_REGISTER}
    for i in program:
        named = {value for name, value in i.fields.items() if name.endswith("_register")}
        masked = i.opcode == Opcode.SCORES and i["mask"] == Mask.LENGTH
        if begun & named or masked or i.fields.get("place"):
            return True
        if i.opcode == Opcode.SET:
            begun.discard(i["destination"])
    return False


def unroll(program: Sequence[Instruction], config: Config, length: int = 0, position: int = 0) -> Iterator[Expanded]:
    """The instructions of a program in the order in which they are issued, HALT last.

    Parameters
    ----------
    program : sequence of Instruction
        As `disassemble` gives it.
    config : Config
    length : int
        What register LENGTH holds.
    position : int
        What register POSITION holds, with the feature.

    Raises
    ------
    InputError
        If a loop is none: the sentence says why, and where.
    """
    starts = [0]  # the first word of each instruction
    for i in program:
        starts.append(starts[-1] + len(FORMATS[i.opcode]))
    registers = [0] * REGISTERS
    registers[TILES_REGISTER], registers[LENGTH_REGISTER] = -(-length // config.rows), length
    if "position" in config.features:
        registers[TILE_REGISTER], registers[POSITION_REGISTER] = position // config.rows, position
    plain: dict[int, Instruction] = {}  # those that add no register
    loops: list[tuple[int, int]] = []  # of each its body's first instruction, and how often it still runs
    outermost = 0
    at, words, read = 0, 0, 0

    def problem(text: str) -> InputError:
        return InputError(f"instruction {at} ({program[at].opcode.name}): {text}.")

    while at < len(program):
        i = program[at]
        if at >= read:
            words, read = words + len(FORMATS[i.opcode]), at + 1
        if loops and _lines(starts[at + 1] - 1) - _lines(outermost) >= WINDOW_LINES:
            raise problem(
                f"the outermost loop around it began {starts[at + 1] - outermost} words ago, and its body may touch "
                f"{WINDOW_LINES} lines of {LINE_BYTES} bytes"
            )
        if i.opcode == Opcode.SET:
            if not i["destination"]:
                raise problem("register 0 is always zero; registers 1 to 15 can be set")
            registers[i["destination"]] = (i["value"] + registers[i["value_register"]]) & _MASK
        elif i.opcode == Opcode.LOOP:
            count = (i["count"] + registers[i["count_register"]]) & 0xFFFF
            if not count:
                raise problem("its count is 0; it is from 1 to 65,535")
            if len(loops) == MOST_LOOPS:
                raise problem(f"there are {MOST_LOOPS} loops around it, and no more can be within one another")
            if not loops:
                outermost = starts[at + 1]
            loops.append((at + 1, count))
        elif i.opcode == Opcode.NEXT:
            if not loops:
                raise problem("there is no loop around it")
            start, left = loops.pop()
            if left > 1:
                loops.append((start, left - 1))
                at = start
                continue
        elif i.opcode == Opcode.HALT:
            if loops:
                raise problem("it stands in a loop")
            yield Expanded(i, at, words)
            return
        else:
            found = plain.get(at)
            if found is None:
                found, adds = _added(i, registers)
                if not adds:
                    plain[at] = found
            yield Expanded(found, at, words)
            words = 0
        at += 1
    raise InputError("the program does not end with HALT.")


def _added(i: Instruction, registers: Sequence[int]) -> tuple[Instruction, bool]:
    """An instruction with its registers' values in its words, and whether it has any."""
    fields, adds = dict(i.fields), False
    for name, low, names in _LOW[i.opcode]:
        number = fields.pop(name, 0)
        if not number:
            continue
        adds = True
        word = low.pack({n: fields.get(n, 0) for n in names}) + registers[number] & _MASK
        fields.update(low.unpack(word))
    return (Instruction(i.opcode, fields) if adds else i), adds


def expand(program: Sequence[Instruction], config: Config, length: int = 0, position: int = 0) -> list[Instruction]:
    """`unroll`'s instructions."""
    return [found.instruction for found in unroll(program, config, length, position)]
