"""Reference of the fetch unit: a program's bytes become the instructions that the units see, one after the other.

Written by hand from docs/isa.md, bit by bit: nothing here is taken from the tables that the assembler and the RTL
are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..spec.config import Config
from ..spec.isa import Error, Instruction, Opcode
from .fields import CONTEXT, HALT, LOAD, LOOP, NEXT, NORM, PRODUCT, SCORES, SET, SIZES, STRAY, UNPACK, Kept, refused

__all__ = ["Fetched", "IllegalError", "fetched"]

_ALL32 = (1 << 32) - 1
_LENGTH_MASK = 1
_IDLE = 1 << 20
"""Cycles without anything that moves, after which the hardware's watchdog stops a program."""
_GOES_BACK = 3
"""Cycles of a NEXT that goes back; SET, LOOP and other NEXTs take 1."""
_NOTHING = 5
"""Cycles of a LOAD that loads nothing."""
_RING = 64
"""Lines that are read ahead."""


class IllegalError(Exception):
    """An instruction, or a header, that hardware refuses.

    Parameters
    ----------
    number : int
        Of the instruction, from 0.
    error : Error
        What register STATUS gives.
    """

    def __init__(self, number: int, problem: str, error: Error = Error.OPCODE) -> None:
        self.number, self.error = number, error
        super().__init__(problem)


@dataclass(frozen=True)
class Fetched:
    """An instruction for a unit.

    Attributes
    ----------
    opcode : int
    number : int
        From 0; register ERROR_INSTRUCTION counts modulo 2^16.
    place : int
        Number of the one in the program that it comes from.
    fields : dict of int
        By name, but those of registers; `reserved` are all bits that have none.
    """

    opcode: int
    number: int
    place: int
    fields: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    def whole(self) -> Instruction:
        """As the assembler has it."""
        fields = {name: value for name, value in self.fields.items() if name != "reserved"}
        if self.opcode == NORM:
            fields["inverse_high"], fields["inverse"] = fields["inverse"] >> 32, fields["inverse"] & _ALL32
        return Instruction(Opcode(self.opcode), fields)


def _words(image: NDArray[np.uint8], at: int, config: Config) -> list[int]:
    """The words behind a program's header.

    Raises
    ------
    IllegalError
        If the header is not one, or the program is for other hardware or reaches beyond the image.
    """

    def refuse(error: Error, problem: str) -> IllegalError:
        return IllegalError(0, problem, error)

    header = image[at : at + 64].tobytes()
    if len(header) < 64:
        raise refuse(Error.ADDRESS, f"a program at {at} is outside the image of {len(image)} bytes")
    if header[:8] != b"STAH\3\0\0\0":
        raise refuse(Error.HEADER, "not a program of version 3")
    lines = int.from_bytes(header[8:12], "little")
    if lines >> 17:
        raise refuse(Error.HEADER, f"a program of {lines} lines of 64 bytes is longer than hardware takes, 131,071")
    if not lines:
        raise refuse(Error.HEADER, "a program has one line at least, its header")
    found = int.from_bytes(header[16:24], "little")
    if found != int(config.program_hash, 16):
        problem = f"the program is for hardware {found:016x}, this is {config.program_hash}; compile it again"
        raise refuse(Error.HARDWARE, problem)
    body = image[at + 64 : at + 64 * lines]
    if len(body) < 64 * (lines - 1):
        raise refuse(Error.ADDRESS, f"the image ends before the program's {lines} lines of 64 bytes")
    return body.copy().view("<u8").tolist()


class _Running:
    """A program that runs: where in it the next instruction is, its registers, the loops around.

    Attributes
    ----------
    number : int
        Of the next instruction for a unit.
    origin : int
        Of the instruction at hand, in the program.
    begins : list of int
        The first word of each loop around.
    """

    def __init__(self, words: list[int], config: Config, length: int | None, position: int) -> None:
        self.words = words
        self.number = self.origin = 0
        self.begins: list[int] = []
        self._left: list[int] = []  # turns of each loop around
        self._place = self._furthest = 0
        self._idle = 0  # cycles since anything moved
        self._unknown = {14, 15} if length is None else set()
        length = length or 0
        self._registers = [0] * 14 + [(length + config.rows - 1) // config.rows, length]
        if "position" in config.features:
            self._registers[12:14] = [position // config.rows, position]
        self._numbers: dict[int, int] = {}  # by words at which instructions begin, in the order of their first use

    def take(self) -> tuple[int, list[int]]:
        """Go over the next instruction: its opcode and its words, registers added.

        Raises
        ------
        IllegalError, InputError
            As `fetched`.
        """
        opcode, place, behind = self._next()
        self.origin = self._numbers.setdefault(place, len(self._numbers))
        found = []
        for word in self.words[place:behind]:
            register = word >> 32 & 15
            if register in self._unknown:
                raise InputError(f"instruction {self.number} depends on register LENGTH; give length.")
            found.append(word >> 32 << 32 | (word + self._registers[register]) & _ALL32)
        if not self.begins and place // 8 > self._furthest:
            self._furthest = place // 8
            if self._furthest + _RING < len(self.words) // 8:  # another line is read
                self._idle = 0
        self._place = behind
        self._idle += 1
        if self._idle > _IDLE:
            problem = f"{_IDLE:,} cycles of SETs, LOOPs and NEXTs without an instruction for a unit between them"
            raise IllegalError(self.number, problem, Error.TIMEOUT)
        if opcode in STRAY and found[0] >> STRAY[opcode]:
            raise IllegalError(self.number, "bits are set that are reserved")
        return opcode, found

    def _next(self) -> tuple[int, int, int]:
        """The next instruction's opcode, first word, and the word behind it; all of them must be there."""
        place, words = self._place, self.words
        first_line = self.begins[0] // 8 if self.begins else None
        if first_line is not None and place // 8 - first_line > 63:
            raise IllegalError(self.number, "the outermost loop touches more than 64 lines")
        if place >= len(words):
            raise IllegalError(self.number, "the program ends without HALT")
        opcode = words[place] >> 36 & 15
        size = SIZES.get(opcode, 0)
        if not size:
            raise IllegalError(self.number, f"opcode {opcode} is unknown")
        behind = place + size
        if first_line is not None and (behind - 1) // 8 - first_line > 63:
            raise IllegalError(self.number, "the outermost loop touches more than 64 lines")
        if behind > len(words):
            raise IllegalError(self.number, "the program ends within an instruction")
        return opcode, place, behind

    def follow(self, opcode: int, word: int) -> None:
        """Do what a SET, a LOOP or a NEXT says."""
        if opcode == SET:
            register = word >> 40 & 15
            if not register:
                raise IllegalError(self.number, "register 0 cannot be set")
            self._registers[register] = word & _ALL32
            self._unknown.discard(register)
        elif opcode == LOOP:
            count = word & 0xFFFF
            if not count or len(self.begins) == 8:
                raise IllegalError(self.number, "a loop of no turns, or in 8 others")
            self.begins.append(self._place)
            self._left.append(count)
        else:
            if not self.begins:
                raise IllegalError(self.number, "NEXT without LOOP")
            self._left[-1] -= 1
            if self._left[-1]:
                self._place = self.begins[-1]
                self._idle += _GOES_BACK - 1
            else:
                self.begins.pop()
                self._left.pop()

    def give(self, *, moves: bool) -> None:
        """An instruction is with its unit, and moves something."""
        self.number += 1
        self._idle = 0 if moves else self._idle + _NOTHING - 1


def fetched(
    image: NDArray[np.uint8], at: int, config: Config, length: int | None = 0, position: int = 0
) -> Iterator[Fetched]:
    """The instructions for the units, in order, up to HALT.

    Parameters
    ----------
    image : uint8 array
    at : int
        Where the program begins.
    length : int, or None
        Register LENGTH; None: it is not known, and the program must not depend on it.
    position : int
        Register POSITION, where there is one.

    Raises
    ------
    IllegalError
        If the header is not one, or the program is for other hardware; at an instruction that hardware refuses; if
        loops run on without any for so long that its watchdog stops them.
    InputError
        At an instruction that depends on a length that is not known.
    """
    running, there = _Running(_words(image, at, config), config, length, position), Kept(config)
    while True:
        opcode, found = running.take()
        if opcode == HALT:
            if running.begins:
                raise IllegalError(running.number, "HALT in a loop")
            return
        if opcode in (SET, LOOP, NEXT):
            running.follow(opcode, found[0])
            continue
        fields = UNPACK[opcode](found)
        if problem := refused(opcode, fields, config) or (
            there.refused(opcode, fields) if opcode in (PRODUCT, SCORES, CONTEXT) else ""
        ):
            raise IllegalError(running.number, problem)
        by_length = fields.get("place") or (opcode == SCORES and fields["mask"] == _LENGTH_MASK)
        if length is None and by_length:
            raise InputError(f"instruction {running.number} depends on register LENGTH; give length.")
        yield Fetched(opcode, running.number, running.origin, fields)
        running.give(moves=opcode != LOAD or bool(fields["rows"] and fields["beats"]))
