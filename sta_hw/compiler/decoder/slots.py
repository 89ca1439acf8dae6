"""A batch's slots: whose token is in which row of a tile, and what a program has to know of each sequence.

A row tile holds a new token of each of several sequences; slot s has row (POSITION + s) mod rows, which register
POSITION picks, and keys and values of its own, which lie behind those of slot 0. What a slot's instructions need to
know besides is the row tile that its sequence has come to. Programs have it as the values of SETs, which the host
writes before each run, and which stand ahead of the first instruction that needs them: there are more of such values
than registers, so a register's value gives way to another, and is set once more where it is needed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InputError
from ...spec.isa import FORMATS, HEADER_BYTES, REGISTERS, WORD_BYTES, Instruction, Opcode
from ..schedule import Scheduled

__all__ = ["BatchProgram", "SlotValue", "require_slots", "with_registers"]


@dataclass(frozen=True)
class SlotValue:
    """What a register holds of a slot: of row tile t, `base` + (t div `each`) `stride` + (t mod `each`) `part`.

    Attributes
    ----------
    slot : int
    base, each, stride, part : int
        Where the slot's keys or values begin, from slot 0's on; how far it is from one stack of `each` row tiles to the
        next, and from one tile of a stack to the next.
    """

    slot: int
    base: int
    each: int
    stride: int
    part: int = 0

    def at(self, tile: int) -> int:
        """The value of a row tile."""
        return self.base + tile // self.each * self.stride + tile % self.each * self.part


@dataclass(frozen=True)
class BatchProgram:
    """A program that runs a token of each sequence of a batch, register LENGTH 1.

    Attributes
    ----------
    address : int
    keys : int
        That each sequence looks at, at most: up to its tile's end.
    labels : tuple of str
        Of the instructions, by their numbers.
    values : tuple of (SlotValue, tuple of int)
        With the addresses in the image of the 32 bits that hold each, in SETs.
    """

    address: int
    keys: int
    labels: tuple[str, ...]
    values: tuple[tuple[SlotValue, tuple[int, ...]], ...]


def require_slots(slots: int, rows: int) -> None:
    """Refuse a batch that a row tile does not hold.

    Raises
    ------
    InputError
    """
    if not 1 <= slots <= rows:
        raise InputError(f"a batch of {slots} sequences is out of range; a row tile of the hardware holds 1 to {rows}.")


def with_registers(
    scheduled: Sequence[Scheduled], values: Sequence[SlotValue]
) -> tuple[list[Instruction], list[tuple[SlotValue, list[int]]]]:
    """A flat program whose instructions name `values` as registers, from number `REGISTERS` on, with SETs for them.

    Returns
    -------
    instructions : list of Instruction
    places : list of (SlotValue, list of int)
        Bytes from the program's header on at which each value is, of those that are needed.
    """
    found: list[Instruction] = []
    where: dict[int, list[int]] = {}
    held: dict[int, int] = {}  # of values in registers, which; the one that was needed last is behind the others
    free = list(range(REGISTERS - 1, 0, -1))
    at = HEADER_BYTES
    for step in scheduled:
        fields = dict(step.fields)
        for name, number in step.fields.items():
            if not name.endswith("_register") or number < REGISTERS:
                continue
            register = held.pop(number, 0)
            if not register:
                register = free.pop() if free else held.pop(next(iter(held)))
                found.append(Instruction(Opcode.SET, {"destination": register}))
                where.setdefault(number, []).append(at)
                at += WORD_BYTES
            held[number] = register
            fields[name] = register
        found.append(Instruction(step.opcode, fields))
        at += WORD_BYTES * len(FORMATS[step.opcode])
    return found, [(values[number - REGISTERS], places) for number, places in where.items()]
