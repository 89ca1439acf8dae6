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

__all__ = ["UNPACK", "Fetched", "IllegalError", "fetched"]

_HALT, _LOAD, _PRODUCT, _SCORES, _CONTEXT, _NORM, _SET, _LOOP, _NEXT = range(1, 10)
_SIZES = {_HALT: 1, _LOAD: 3, _PRODUCT: 8, _SCORES: 8, _CONTEXT: 8, _NORM: 5, _SET: 1, _LOOP: 1, _NEXT: 1}
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
        if self.opcode == _NORM:
            fields["inverse_high"], fields["inverse"] = fields["inverse"] >> 32, fields["inverse"] & _ALL32
        return Instruction(Opcode(self.opcode), fields)


def _signed16(value: int) -> int:
    return value - (1 << 16) if value >> 15 else value


def _waits(w: list[int]) -> dict[str, int]:
    return {
        "wait_loads": w[0] >> 40 & 63, "wait_matrix": w[0] >> 46 & 63, "wait_products": w[0] >> 52 & 63,
        "wait_norms": w[0] >> 58,
    }  # fmt: skip


def _load(w: list[int]) -> dict[str, int]:
    return _waits(w) | {
        "address": w[0] & _ALL32,
        "rows": w[1] & 0xFFFF, "destination": w[1] >> 16 & 0xFFFF,
        "beats": w[1] >> 36 & 0xFFFFF, "target": w[1] >> 56 & 15,
        "stride": w[2] & _ALL32,
        "reserved": w[1] >> 60 | w[2] >> 36,
    }  # fmt: skip


def _product(w: list[int]) -> dict[str, int]:
    return _waits(w) | {
        "window_address": w[0] & _ALL32,
        "result_address": w[1] & _ALL32,
        "window_beats": w[1] >> 36 & 0xFFFFF, "result": w[1] >> 56 & 15, "continues": w[1] >> 60 & 1,
        "unfinished": w[1] >> 61 & 1, "wide": w[1] >> 62 & 1, "parameters_step": w[1] >> 63,
        "residual_address": w[2] & _ALL32,
        "rows_before": w[2] >> 36 & 0xFF, "rows_after": w[2] >> 44 & 0xFF, "row_first": w[2] >> 52 & 1,
        "row_last": w[2] >> 53 & 1, "gain": w[2] >> 54 & 7, "coarse": w[2] >> 57 & 1, "mask": w[2] >> 58 & 3,
        "multiply": w[2] >> 60 & 1, "rotate": w[2] >> 61 & 1, "place": w[2] >> 62 & 1,
        "count0": w[3] & 0xFFFF, "values_base": w[3] >> 16 & 0xFFFF, "stride0": w[3] >> 36 & 0xFFFF,
        "count3": w[3] >> 52,
        "positions_count": w[4] & 0xFFFF, "positions_base": w[4] >> 16 & 0xFFFF, "stride1": w[4] >> 36 & 0xFFFF,
        "count1": w[4] >> 52,
        "columns": w[5] & 0xFFFF, "parameters_base": w[5] >> 16 & 0xFFFF, "stride2": w[5] >> 36 & 0xFFFF,
        "count2": w[5] >> 52,
        "keys": w[6] & 0xFFFF, "key_start": _signed16(w[6] >> 16 & 0xFFFF), "stride3": w[6] >> 36 & 0xFFFF,
        "keep": w[6] >> 52 & 1, "kept": w[6] >> 53 & 1, "apart": w[6] >> 54 & 1,
        "passes": w[7] & 0xFFFF, "n": w[7] >> 16 & 63, "m_log2": w[7] >> 22 & 7, "depth": w[7] >> 25 & 63,
        "encoding": w[7] >> 36 & 3, "value_format": w[7] >> 38 & 3, "run": w[7] >> 40 & 63,
        "digit": w[6] >> 56 & 3, "lift": w[6] >> 58 & 1, "bits15": w[6] >> 59 & 1,
        "reserved": w[2] >> 63 | w[6] >> 55 & 1 | w[6] >> 60 | w[7] >> 46,
    }  # fmt: skip


def _norm(w: list[int]) -> dict[str, int]:
    return _waits(w) | {
        "input_address": w[0] & _ALL32,
        "wide_address": w[1] & _ALL32,
        "width": w[1] >> 36 & 0x3FFF,
        "narrow_address": w[2] & _ALL32,
        "rows_before": w[2] >> 36 & 0xFF, "rows_after": w[2] >> 44 & 0xFF,
        "parameters_address": w[3] & _ALL32,
        "inverse": (w[1] >> 50 & 1) << 32 | w[4] & _ALL32, "kind": w[1] >> 51 & 3, "epsilon": w[4] >> 36,
        "bits15": w[1] >> 53 & 1,
        "reserved": w[1] >> 54 | w[2] >> 52 | w[3] >> 36,
    }  # fmt: skip


_STRAY = {_HALT: 40, _SET: 44, _LOOP: 40, _NEXT: 40}
"""From which bit on nothing may be set."""
UNPACK = {_LOAD: _load, _PRODUCT: _product, _SCORES: _product, _CONTEXT: _product, _NORM: _norm}


def _refused_pairs(opcode: int, fields: dict[str, int], config: Config) -> str:
    """Why hardware refuses what a product is to do with neighbouring columns, or with the largest of them."""
    for name, feature, results in (("multiply", "gate", (1, 2)), ("rotate", "rotary", (0, 4))):
        if not fields[name]:
            continue
        if feature not in config.features:
            return f"{name} is set, and there is no such unit"
        if opcode != _PRODUCT or fields["result"] not in results:
            return f"{name} is set, and the result is {fields['result']}"
        if fields["columns"] % 2:
            return f"{name} is set, and there are {fields['columns']} columns, which are no pairs"
    if opcode == _CONTEXT and fields["result"] == 5:
        return "result 5 is no CONTEXT's"
    return _refused_digits(opcode, fields, config)


def _refused_digits(opcode: int, fields: dict[str, int], config: Config) -> str:
    """Why hardware refuses what a product of 15-bit windows asks for, or 16 bits through the table."""
    asked = {name: fields[name] for name in ("digit", "lift", "bits15") if fields[name]}
    if not asked:
        return ""
    name, value = next(iter(asked.items()))
    if "digits" not in config.features:
        return f"{name} is {value}, and there is no such feature"
    if opcode != _PRODUCT and (fields["digit"] or fields["lift"]):
        return f"{name} is {value}, which is PRODUCT's alone"
    if fields["digit"] == 3:
        return "digit 3 is unknown"
    if fields["lift"] and not fields["continues"]:
        return "lift is set, and it continues nothing"
    activates = opcode == _PRODUCT and fields["result"] == 2 and not fields["multiply"]
    if fields["bits15"] and (opcode == _SCORES or (fields["result"] != 1 and not activates)):
        return f"bits15 is set, and the result is {fields['result']}"
    return ""


class _Kept:
    """Which windows are on chip: those of the addresses from `start` to `end`, in words of the bus."""

    def __init__(self, config: Config) -> None:
        self.config, self.start, self.end = config, 0, 0

    def refused(self, opcode: int, fields: dict[str, int]) -> str:
        """Why hardware refuses to keep, or to take what is kept; empty if it does, or if nothing of that is asked."""
        keep, kept = fields["keep"], fields["kept"]
        if not (keep or kept):
            return ""
        words = self.config.window_words
        if not words or opcode == _CONTEXT or (keep and kept):
            return "keep or kept is set, where there is no such memory, in CONTEXT, or both"
        first, odd = divmod(fields["window_address"], self.config.bus_bytes)
        behind = first + fields["window_beats"]
        if kept:
            if odd or first < self.start or behind > self.end or first > self.end:
                return f"kept is set, and of the {fields['window_beats']} words not all were kept"
        elif behind - first > words:
            return f"keep is set for {fields['window_beats']} words, and there is room for {words}"
        elif self.start <= first <= self.end and max(behind, self.end) - self.start <= words:
            self.end = max(behind, self.end)
        else:
            self.start, self.end = first, behind
        return ""


def _refused(opcode: int, fields: dict[str, int], config: Config) -> str:
    """Why hardware refuses an instruction; empty if it takes it."""
    if fields["reserved"]:
        return "bits are set that are reserved"
    has = config.features
    if opcode == _LOAD and fields["target"] > 3 + ("blocks4" in has):
        return f"target {fields['target']} is unknown"
    if opcode in (_PRODUCT, _SCORES, _CONTEXT):
        if fields["result"] > 4 + ("best" in has) or fields["mask"] > 1 + ("causal" in has):
            return f"result {fields['result']} or mask {fields['mask']} is unknown"
        if problem := _refused_pairs(opcode, fields, config):
            return problem
        if fields["apart"] and (config.groups <= config.rows or opcode != _PRODUCT or fields["result"]):
            return "apart is set, where groups are no more than rows, or for other results than STORE8"
        wide = 8 * max(1, min(32 // config.window, config.groups)) <= config.groups
        most = 1 + wide if "blocks4" in has else 0
        if fields["value_format"] > most or (fields["run"] and "blocks4" not in has):
            return f"value_format {fields['value_format']} or run {fields['run']} is unknown"
        if fields["value_format"] and fields["run"] < 2:
            return f"blocks of 4 bits with a run of {fields['run']}"
    if opcode == _SCORES and fields["columns"] > config.groups * config.window:
        return f"scores of {fields['columns']} keys; a window has {config.groups * config.window}"
    if fields.get("place") and "position" not in has:
        return "place is set, and there is no register POSITION"
    if opcode == _NORM and (fields["kind"] > ("rms" in has) or (fields["epsilon"] and "rms" not in has)):
        return f"kind {fields['kind']} or epsilon {fields['epsilon']} is unknown"
    if opcode == _NORM and fields["bits15"] and "digits" not in has:
        return "bits15 is set, and there is no such feature"
    blocks = opcode == _SCORES or (opcode in (_PRODUCT, _CONTEXT) and fields["result"] == 4)
    if blocks and fields["columns"] % config.groups:
        return f"{fields['columns']} columns; scores and transposed results have multiples of groups = {config.groups}"
    return ""


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
        if opcode in _STRAY and found[0] >> _STRAY[opcode]:
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
        size = _SIZES.get(opcode, 0)
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
        if opcode == _SET:
            register = word >> 40 & 15
            if not register:
                raise IllegalError(self.number, "register 0 cannot be set")
            self._registers[register] = word & _ALL32
            self._unknown.discard(register)
        elif opcode == _LOOP:
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
    running, there = _Running(_words(image, at, config), config, length, position), _Kept(config)
    while True:
        opcode, found = running.take()
        if opcode == _HALT:
            if running.begins:
                raise IllegalError(running.number, "HALT in a loop")
            return
        if opcode in (_SET, _LOOP, _NEXT):
            running.follow(opcode, found[0])
            continue
        fields = UNPACK[opcode](found)
        if problem := _refused(opcode, fields, config) or (
            there.refused(opcode, fields) if opcode in (_PRODUCT, _SCORES, _CONTEXT) else ""
        ):
            raise IllegalError(running.number, problem)
        by_length = fields.get("place") or (opcode == _SCORES and fields["mask"] == _LENGTH_MASK)
        if length is None and by_length:
            raise InputError(f"instruction {running.number} depends on register LENGTH; give length.")
        yield Fetched(opcode, running.number, running.origin, fields)
        running.give(moves=opcode != _LOAD or bool(fields["rows"] and fields["beats"]))
