"""One random program on RTL and reference: what must be the same, and what must not happen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from sta_hw.compiler.liveness import check_liveness
from sta_hw.errors import CheckError, InputError
from sta_hw.reference.instructions import Fetched, IllegalError, fetched
from sta_hw.reference.program import ProgramError, ProgramRun, run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode
from sta_hw.spec.registers import SATURATIONS

from ..accelerator import AcceleratorModel, MemoryModel, UnendedError
from ..accelerator import ProgramRun as HardwareRun
from .damage import damaged
from .hazards import UnorderedError, needed_waits
from .programs import RandomProgram

__all__ = ["DifferenceError", "Hardware", "Subject"]

_WATCHDOG_BITS = 14
_MOST_CYCLES = 300_000
"""Of a damaged program, whose loops may have any number of turns; then it is stopped."""
_MOST_INSTRUCTIONS = 3000
"""That the reference is asked to run of a damaged program."""
_SETTLES = 4000
Image = NDArray[np.uint8]


class DifferenceError(CheckError):
    """What should not be: hardware and reference differ, or hardware does not end."""


@dataclass(frozen=True)
class Subject:
    """A program and how it is run.

    Attributes
    ----------
    image : uint8 array
    address : int
        Of the program.
    length, position : int
    memory : MemoryModel
    """

    image: Image
    address: int
    length: int
    position: int
    memory: MemoryModel

    @staticmethod
    def random(config: Config, rng: np.random.Generator, operations: int, *, anywhere: bool = True) -> Subject:
        """Legal; UnorderedError if it happens to have two instructions that no wait orders."""
        length, position = int(rng.integers(0, 70)), int(rng.integers(0, 200))
        image, address = RandomProgram(config, rng, anywhere=anywhere).image(operations, length, position)
        memory = MemoryModel(
            latency=int(rng.integers(1, 90)), beats_per_cycle=float(rng.choice([1.0, 0.4])),
            shared=bool(rng.integers(2)), stall=float(rng.choice([0.0, 0.1, 0.5])), seed=int(rng.integers(1, 1 << 30)),
        )  # fmt: skip
        return Subject(image, address, length, position, memory)

    def issued(self, config: Config) -> list[Fetched]:
        """The instructions that units see, as many as `_MOST_INSTRUCTIONS`, up to one that is illegal."""
        found: list[Fetched] = []
        try:
            for i in islice(fetched(self.image, self.address, config, self.length, self.position), _MOST_INSTRUCTIONS):
                found.append(i)
        except IllegalError:
            pass
        return found

    def with_image(self, image: Image) -> Subject:
        """The same with another image."""
        return replace(self, image=image)


def _differs(run: HardwareRun, expected: ProgramRun) -> str:
    """How a run differs from the reference's; empty if it does not."""
    if run.error:
        return f"hardware stops with {run.error.name} at instruction {run.error_instruction}"
    wrong = np.flatnonzero(run.image != expected.image)
    if len(wrong):
        return f"{len(wrong)} bytes differ, the first at {wrong[0]}"
    counted = {name: run.counters[name] for name in SATURATIONS}
    return "" if counted == expected.saturated else f"counters {counted} instead of {expected.saturated}"


class Hardware:
    """The RTL of one configuration; `cycles` and `instructions` are those of all runs so far that ended well."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = AcceleratorModel(config)
        self.impatient = AcceleratorModel(config, watchdog_bits=_WATCHDOG_BITS)
        self.cycles = self.instructions = 0
        self._next: tuple[Subject, ProgramRun] | None = None
        self._parent: Subject | None = None

    def restart(self) -> None:
        """Behind a difference: reset by wire."""
        self.model.reset()
        self.impatient.reset()

    def legal(self, rng: np.random.Generator, operations: int = 8) -> str:
        """Run a random legal program on both; what became of it in a word.

        Raises
        ------
        DifferenceError
            If they differ, or the hardware does not end.
        """
        try:
            subject = Subject.random(self.config, rng, operations)
        except UnorderedError:
            return "unordered"
        issued = subject.issued(self.config)
        expected = self._reference(subject)
        if self._waits_for_itself(issued):
            return "waits for itself"
        self._compare(self.model, subject, expected)
        self.instructions += len(issued)
        return "equal"

    def damaged(self, rng: np.random.Generator, *, fresh: bool) -> tuple[str, str]:
        """Run a damaged program, then one that is not; the kind of damage, and what became of it.

        The legal one that it is made of is the last one's, unless it is to be a `fresh` one.

        Raises
        ------
        DifferenceError
            If it does not stop, touches what is outside the image, ends otherwise than the reference where docs/isa.md
            says how, or the next program does not run right.
        """
        if fresh or self._parent is None:
            self._parent = self._made(rng)
        image, kind, what = damaged(self._parent.image, self._parent.address, rng)
        subject = self._parent.with_image(image)
        try:
            ended = self._ended(subject)
            self._next_is_right()
        except CheckError as error:
            raise DifferenceError(f"{what}: {error}") from None
        return kind, ended

    def _made(self, rng: np.random.Generator, operations: int = 4) -> Subject:
        """A legal program that ends, of up to so many operations."""
        while True:
            try:
                subject = Subject.random(self.config, rng, int(rng.integers(1, operations + 1)), anywhere=False)
            except UnorderedError:
                continue
            if not self._waits_for_itself(subject.issued(self.config)):
                return subject

    def _reference(self, s: Subject) -> ProgramRun:
        return run_counted(s.image, s.address, self.config, length=s.length, position=s.position)

    def _run(self, model: AcceleratorModel, s: Subject, most: int, patience: int = 3_000_000) -> HardwareRun:
        run = model.run(
            s.image, s.address, memory=s.memory, length=s.length, position=s.position, most=most, patience=patience
        )
        if model.under_way:
            raise DifferenceError(f"{model.under_way} bursts are under way behind the end")
        return run

    def _compare(self, model: AcceleratorModel, s: Subject, expected: ProgramRun) -> None:
        run = self._run(model, s, 50_000_000)
        if problem := _differs(run, expected):
            self._clear(model)
            raise DifferenceError(problem)
        self.cycles += run.cycles

    def _waits_for_itself(self, issued: list[Fetched]) -> bool:
        program = [*(i.whole() for i in issued), Instruction(Opcode.HALT)]
        try:
            check_liveness(program, self.config)
        except InputError:
            return True
        return False

    def _clear(self, model: AcceleratorModel) -> None:
        """Reset by register, as a host does."""
        model.write("control", 0b10)
        for _ in range(_SETTLES):
            if not model.read("status") & 1:
                break
        else:
            raise DifferenceError("a reset does not end")
        if model.under_way or model.transfers[2]:
            raise DifferenceError(
                f"behind a reset: {model.under_way} bursts, {model.transfers[2]} breaches of protocol"
            )

    def _next_is_right(self) -> None:
        """A legal program, the same each time, behind whatever was run."""
        if self._next is None:
            subject = replace(self._made(np.random.default_rng(1), 1), memory=MemoryModel(latency=10))
            self._next = subject, self._reference(subject)
        self._clear(self.impatient)
        subject, expected = self._next
        if problem := _differs(self._run(self.impatient, subject, _MOST_CYCLES), expected):
            raise DifferenceError(f"the next program: {problem}")

    def _ended(self, s: Subject) -> str:
        """Run it on both, and say what it came to."""
        try:
            run = self._run(self.impatient, s, _MOST_CYCLES, patience=4 << _WATCHDOG_BITS)
        except UnendedError:
            if self.impatient.transfers[2]:
                raise DifferenceError(f"{self.impatient.transfers[2]} breaches of protocol") from None
            return self._stopped(s)
        self.cycles += run.cycles
        issued = s.issued(self.config)
        if len(issued) == _MOST_INSTRUCTIONS:
            return "longer than compared"
        expected: ProgramRun | ProgramError
        try:
            expected = self._reference(s)
        except ProgramError as error:
            expected = error
        except CheckError:
            return "not defined"
        counted = len(issued)
        if isinstance(expected, ProgramError):  # what these two stop has begun
            counted = expected.instruction + (expected.error in (Error.ENGINE, Error.ADDRESS))
        if not self._ordered(issued[:counted], s):
            return "not ordered, or not loaded"
        if isinstance(expected, ProgramError):
            return self._same_error(run, expected, issued, s)
        if run.error == Error.TIMEOUT and not self._waits_for_itself(issued):
            self._compare(self.model, s, expected)  # with the watchdog that accelerators have
        elif run.error != Error.TIMEOUT and (problem := _differs(run, expected)):
            raise DifferenceError(problem)
        return "equal" if not run.error else "waits for itself"

    def _stopped(self, s: Subject) -> str:
        """Of a program that was still at work: whether it ends as the reference does when it is given the time."""
        issued = s.issued(self.config)
        if len(issued) == _MOST_INSTRUCTIONS or self._waits_for_itself(issued) or not self._ordered(issued, s):
            return "stopped by a reset"
        try:
            expected = self._reference(s)
        except CheckError:
            return "stopped by a reset"
        self._compare(self.model, s, expected)
        return "equal, in its own time"

    def _ordered(self, issued: list[Fetched], s: Subject) -> bool:
        """Whether waits order all that depends on one another, and what is read on chip was loaded.

        The program's own bytes must be left alone, which are read ahead of their use.
        """
        try:
            needed = needed_waits(((i.opcode, i.fields) for i in issued), self.config, len(s.image))
        except UnorderedError:
            return False
        for i, (touched, waits) in zip(issued, needed, strict=True):
            if touched.unloaded or not touched.is_apart() or any(end > s.address for _, end in touched.writes):
                return False
            if any(not 0 < i[f"wait_{name}"] <= distance for name, distance in waits.items()):
                return False
        return True

    def _same_error(self, run: HardwareRun, expected: ProgramError, issued: list[Fetched], s: Subject) -> str:
        """Hardware may name a later instruction: units run ahead of one another."""
        said = f"{expected.error.name} at {expected.instruction} in the reference"
        found = f"{run.error.name} at {run.error_instruction} in hardware"
        if run.error == Error.NONE:
            # Lines that are not there are not read by hardware that comes to its HALT before.
            if expected.error == Error.ADDRESS and "lines of 64 bytes" in str(expected):
                return "ended before a missing line"
            if expected.error != Error.TIMEOUT:
                raise DifferenceError(f"{said}, none in hardware ({expected})")
        if run.error == Error.TIMEOUT and expected.error != Error.TIMEOUT and not self._waits_for_itself(issued):
            run = self._run(self.model, s, 50_000_000)  # with the watchdog that accelerators have
            self._clear(self.model)
        same = (run.error, run.error_instruction) == (expected.error, expected.instruction)
        if same or (run.error == expected.error == Error.TIMEOUT):
            return expected.error.name
        if run.error_instruction > expected.instruction or run.error == Error.TIMEOUT:
            return f"{expected.error.name}, a later one named"
        raise DifferenceError(f"{said}, {found} ({expected})")
