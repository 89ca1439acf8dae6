"""What docs/registers.md says of registers and controller, as a model of a page: one call of `step` is one clock cycle.

Written from that page alone, with names and offsets of its own: it shares nothing with the RTL but the numbers in the
page's tables. Counters are left to `sim.control`, which sums what `running` lets through.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["ControlModel", "Seen"]

_CONTROL, _STATUS, _ERROR_INSTRUCTION, _CLEAR, _STALLED = 0x18, 0x1C, 0x20, 0x24, 0x34
_PLACES = (0x28, 0x2C, 0x30, 0x38)  # image address, image size, program address, length
_LENGTH_BITS = 16
_COUNTERS = 0x80
_OKAY, _ERROR = 0, 2
_ADDRESS = 4  # the error code


class Seen(NamedTuple):
    """What is to be seen outside in one cycle; `read_data` is None for a counter, `job` its four registers."""

    address_ready: bool
    word_ready: bool
    read_ready: bool
    write_answer: int | None
    read_answer: int | None
    read_data: int | None
    interrupt: bool
    busy: bool
    failed: bool
    core_start: bool
    core_stop: bool
    core_reset: bool
    running: bool
    job: tuple[int, int, int, int]


@dataclass
class ControlModel:
    """Registers and controller.

    Parameters
    ----------
    constants : dict of int to int
        Values of the capability words, by offset.
    counters : int
        How many counters there are.
    longest_burst : int
        In bytes.

    Attributes
    ----------
    phase : str
        ``idle``; ``quieting`` (the core was told to stop); ``resetting``; ``clean`` (in reset); ``starting``;
        ``running``.
    accepted : int
        Jobs taken. Each is in the end one of `complete`, `failures`, `misplaced`, `abandoned`, or still under way.
    coincidences : Counter
        How often what happened in which phase, or together.
    """

    constants: dict[int, int]
    counters: int
    longest_burst: int
    phase: str = "idle"
    job_under_way: bool = False
    enabled: bool = False
    pending: bool = False
    done: bool = False
    failed: bool = False
    refused: bool = False
    error: int = 0
    instruction: int = 0
    places: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    job: tuple[int, int, int, int] = (0, 0, 0, 0)
    write_answer: int | None = None
    address: int | None = None
    word: tuple[int, int] | None = None
    reading: int | None = None
    read_answer: int | None = None
    read_data: int | None = None
    accepted: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    coincidences: Counter[str] = field(default_factory=Counter)

    def seen(self) -> Seen:
        """What is to be seen in this cycle."""
        sound = self._sound()
        size = self.longest_burst
        return Seen(
            self.address is None,
            self.word is None,
            self.reading is None and self.read_answer is None,
            self.write_answer,
            self.read_answer,
            self.read_data,
            self.pending and self.enabled,
            self.phase != "idle",
            self.failed,
            self.phase == "starting" and sound,
            self.phase in ("quieting", "resetting", "clean"),
            self.phase == "resetting",
            self.phase == "running",
            # Of the image only whole bursts come out; a job whose image has others is not begun.
            (self.job[0] // size * size, self.job[1] // size * size, *self.job[2:]),
        )

    def _sound(self) -> bool:
        base, size, *_ = self.job
        return base % self.longest_burst == 0 and size % self.longest_burst == 0 and base + size <= 1 << 32

    def step(
        self,
        *,
        address: int | None,
        word: tuple[int, int] | None,
        write_ready: bool,
        read_address: int | None,
        read_ready: bool,
        idle: bool,
        finished: bool,
        error: tuple[int, int] | None,
        stalled: int,
    ) -> bool:
        """One clock edge. Returns whether a job was taken.

        Parameters
        ----------
        address, word, read_address : int or None; (data, strobes) or None; int or None
            Taken from the bus in this cycle.
        write_ready, read_ready : bool
            An answer that is offered is taken.
        idle, finished, error : bool, bool, (code, instruction) or None
            What the core says.
        """
        self._read(read_address, read_ready, stalled)
        start = reset = clear = False
        enable = self.enabled
        if self.write_answer is not None and write_ready:
            self.write_answer = None
        if self.address is not None and self.word is not None and self.write_answer is None:
            offset, (data, strobes) = self.address & ~3, self.word
            self.address = self.word = None
            self.write_answer = _OKAY
            if offset == _CONTROL:
                if strobes & 1:
                    start, reset, enable = bool(data & 1), bool(data & 2), bool(data & 4)
            elif offset == _CLEAR:
                clear = strobes != 0
            elif offset in _PLACES:
                for byte in range(4):
                    if strobes >> byte & 1:
                        mask = 0xFF << 8 * byte
                        old = self.places[_PLACES.index(offset)]
                        self.places[_PLACES.index(offset)] = old & ~mask | data & mask
                self.places[3] &= (1 << _LENGTH_BITS) - 1
                if self.job_under_way:
                    self.coincidences[f"place written when {self.phase}"] += 1
            else:
                self.write_answer = _ERROR
        if address is not None:
            self.address = address
        if word is not None:
            self.word = word
        return self._control(start, reset, clear, enable, idle, finished, error)

    def _control(
        self, start: bool, reset: bool, clear: bool, enable: bool, idle: bool, finished: bool,
        error: tuple[int, int] | None,
    ) -> bool:  # fmt: skip
        taken = start and not reset and not self.job_under_way
        end = None
        if self.phase == "starting" and not self._sound():
            end = "misplaced"
        elif self.phase == "running" and finished:
            end = "complete"
        elif self.phase == "running" and error is not None:
            end = "failures"
        for name, happens in (("start", start), ("reset", reset), ("clear", clear), ("enable", enable != self.enabled)):
            if happens:
                self.coincidences[f"{name} when {self.phase}"] += 1
                if end:
                    self.coincidences[f"{name} with {end}"] += 1
        if start and reset:
            self.coincidences["start with reset"] += 1
        if reset and self.job_under_way:
            end = "abandoned"

        after = self.phase
        if self.phase == "quieting":
            after = "resetting" if idle else "quieting"
        elif self.phase == "resetting":
            after = "clean"
        elif self.phase == "clean":
            after = "starting" if (self.job_under_way or taken) and not reset else "idle"
        elif reset or (self.phase == "idle" and taken):
            after = "quieting"
        elif end:
            after = "idle"
        elif self.phase == "starting":
            after = "running"

        self.enabled = enable
        if clear:
            self.pending = False
        if taken or reset:
            self.pending = self.done = self.failed = self.refused = False
            self.error = self.instruction = 0
        if start and not taken:
            self.refused = True
        if taken:
            self.job, self.job_under_way = (self.places[0], self.places[1], self.places[2], self.places[3]), True
            self.accepted += 1
            self.coincidences["image to the end of addresses"] += self._sound() and sum(self.job[:2]) == 1 << 32
        if end:
            self.ended[end] += 1
            self.job_under_way = False
        if end == "complete":
            self.done = self.pending = True
        elif end == "failures":
            assert error is not None
            self.failed = self.pending = True
            self.error, self.instruction = error
        elif end == "misplaced":
            self.failed = self.pending = True
            self.error = _ADDRESS
        self.phase = after
        return taken

    def counter_read(self) -> int | None:
        """Number of the counter that is being read."""
        number = -1 if self.reading is None else (self.reading - _COUNTERS) >> 2
        return number if 0 <= number < self.counters else None

    def answer_counter(self) -> None:
        """The turn of the counter that is being read has come: there is its answer."""
        self.reading, self.read_answer, self.read_data = None, _OKAY, None

    def _read(self, address: int | None, ready: bool, stalled: int) -> None:
        """The read channel: an answer holds the state of the cycle before it."""
        if self.read_answer is not None and ready:
            self.read_answer = self.read_data = None
        if self.reading is not None and self.counter_read() is None:
            value = self._value(self.reading & ~3, stalled)
            self.reading = None
            self.read_answer, self.read_data = (_ERROR, 0) if value is None else (_OKAY, value)
        if address is not None:
            self.reading = address

    def _value(self, offset: int, stalled: int) -> int | None:
        if offset in self.constants:
            return self.constants[offset]
        if offset in _PLACES:
            return self.places[_PLACES.index(offset)]
        if offset == _CONTROL:
            return 4 * self.enabled
        if offset == _STATUS:
            low = (self.phase != "idle") | self.done << 1 | self.failed << 2 | self.refused << 3
            return low | self.error << 8 | self.pending << 16
        if offset == _ERROR_INSTRUCTION:
            return self.instruction
        return stalled if offset == _STALLED else None
