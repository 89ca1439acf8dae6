"""Reference of the whole accelerator: runs a program's bytes on a memory image, one instruction after the other.

An instruction waits for earlier ones alone, so their order is one that the hardware may take; its units run ahead of
one another, and it must leave the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.config import Config
from ..spec.isa import Error, Instruction, Opcode
from .instructions import Fetched, IllegalError, fetched
from .machine import Machine, WaitsError
from .memories import AddressError
from .weights import WeightsError

__all__ = ["Executed", "Observe", "ProgramError", "ProgramRun", "run_counted", "run_program"]


class ProgramError(CheckError):
    """An instruction that stops the accelerator.

    Parameters
    ----------
    error : Error
        What register STATUS gives.
    instruction : int
        Its number, from 0; kept modulo 2^16, as in register ERROR_INSTRUCTION.
    """

    def __init__(self, error: Error, instruction: int, problem: str) -> None:
        self.error, self.instruction = error, instruction % (1 << 16)
        super().__init__(problem)


@dataclass(frozen=True)
class Executed:
    """An instruction that was run, and what it left in memory.

    Attributes
    ----------
    number : int
        In the order in which instructions are dispatched.
    place : int
        Its number in the program.
    instruction : Instruction
    stores : tuple of (address, uint8 array)
        What it wrote to memory.
    sources : tuple of int
        Numbers of the instructions whose results it found on chip: LOADs, products with unfinished sums, SCORES.
    waits : tuple of int
        Numbers of the instructions that were to be finished before it: the last of each kind.
    """

    number: int
    place: int
    instruction: Instruction
    stores: tuple[tuple[int, NDArray[np.uint8]], ...]
    sources: tuple[int, ...]
    waits: tuple[int, ...]


Observe = Callable[[Executed], None]


@dataclass(frozen=True)
class ProgramRun:
    """What a program leaves.

    Attributes
    ----------
    image : uint8 array
    saturated : dict of int
        How many groups of values, as the hardware computes them side by side, had one at an end of its range: the
        counters of the same names (sta_hw/spec/registers.py).
    """

    image: NDArray[np.uint8]
    saturated: dict[str, int]


def run_program(
    image: NDArray[np.uint8],
    program_address: int,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
    *,
    length: int | None = None,
    position: int = 0,
) -> NDArray[np.uint8]:
    """`run_counted`'s image."""
    return run_counted(image, program_address, config, progress, length=length, position=position).image


def run_counted(
    image: NDArray[np.uint8],
    program_address: int,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
    observe: Observe | None = None,
    *,
    length: int | None = None,
    position: int = 0,
) -> ProgramRun:
    """The image after the program at `program_address` has run, and what saturated; `image` itself is not changed.

    Parameters
    ----------
    image : uint8, shape (bytes,)
    progress : function
        Called with the number of instructions done, and of all.
    observe : function
        Called with each instruction after it has run.
    length : int
        Register LENGTH; needed where the program depends on it.
    position : int
        Register POSITION, where there is one.

    Raises
    ------
    ProgramError
        If the program's header is malformed (`Error.HEADER`), or it is for another configuration (`Error.HARDWARE`);
        if an instruction's address, or the program's, is outside the image or not aligned to the bus
        (`Error.ADDRESS`), the matrix engine reports faults for its weights or refuses it (`Error.ENGINE`), it is
        illegal (`Error.OPCODE`), or waits for what never comes (`Error.TIMEOUT`); the message names it.
    CheckError
        If what an instruction does is not defined (docs/isa.md): it has other windows than it multiplies, for which the
        hardware waits, or of which it takes the next one's; it continues what there is not.
    InputError
        If the program depends on register LENGTH, and no length is given.
    """
    if program_address % config.bus_bytes:
        problem = f"the program's address {program_address} is not a multiple of the bus's {config.bus_bytes} bytes"
        raise ProgramError(Error.ADDRESS, 0, problem)
    machine = Machine(image.copy(), config, length or 0, position)
    actions: dict[int, Callable[[Fetched], None]] = {
        Opcode.LOAD: machine.memories.load,
        Opcode.PRODUCT: machine.product,
        Opcode.SCORES: machine.product,
        Opcode.CONTEXT: machine.context,
        Opcode.NORM: machine.norm,
    }
    ended: dict[str, list[int]] = {counter: [] for counter in ("loads", "matrix", "products", "norms")}
    count = sum(1 for _ in _legal(image, program_address, config, length, position)) if progress else 0
    for instruction in _legal(image, program_address, config, length, position):
        number = instruction.number
        machine.memories.begin(number)
        try:
            actions[instruction.opcode](instruction)
        except CheckError as error:
            problem = f"instruction {number} ({Opcode(instruction.opcode).name}): {error}"
            for kind, code in (
                (WeightsError, Error.ENGINE), (AddressError, Error.ADDRESS), (WaitsError, Error.TIMEOUT)
            ):  # fmt: skip
                if isinstance(error, kind):
                    raise ProgramError(code, number, problem) from None
            raise CheckError(problem) from None
        if observe:
            sources = tuple(sorted(machine.memories.sources - {-1}))
            # Of each class that it waits for the last one that is to be finished.
            ends = ((numbers, len(numbers) - instruction[f"wait_{c}"]) for c, numbers in ended.items())
            waits = tuple(n[at] for (n, at), c in zip(ends, ended, strict=True) if instruction[f"wait_{c}"] and at >= 0)
            observe(
                Executed(number, instruction.place, instruction.whole(), tuple(machine.memories.stores), sources, waits)
            )
        if instruction.opcode == Opcode.LOAD:
            counters = ["loads"]
        elif instruction.opcode == Opcode.NORM:
            counters = ["norms"]
        else:
            counters = ["matrix"] if instruction["unfinished"] else ["matrix", "products"]
        for counter in counters:
            ended[counter].append(number)
        if progress:
            progress(instruction.number + 1, count)
    return ProgramRun(machine.memories.image, machine.results.saturated)


def _legal(image: NDArray[np.uint8], at: int, config: Config, length: int | None, position: int) -> Iterator[Fetched]:
    """The program's instructions; ProgramError at one that is illegal."""
    try:
        yield from fetched(image, at, config, length, position)
    except IllegalError as error:
        header = error.error in (Error.HEADER, Error.HARDWARE, Error.ADDRESS)
        where = "" if header else f"instruction {error.number}: "
        raise ProgramError(error.error, error.number, f"{where}{error}") from None
