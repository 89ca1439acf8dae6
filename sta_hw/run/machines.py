"""What runs a decoder's programs: the reference, generated RTL in simulation, a board behind its serial line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError, InputError, ToolError
from ..host.board import BoardLink
from ..host.loading import forget_image, load_image
from ..reference.program import ProgramError, run_counted
from ..spec.board import MEMORY
from ..spec.config import Config
from ..spec.isa import Error
from ..spec.registers import COUNTERS
from .board import BoardBackend, connect, why_stopped

__all__ = [
    "DECODER_BACKENDS",
    "BoardMachine",
    "Machine",
    "Progress",
    "ReferenceMachine",
    "RtlMachine",
    "decoder_machine",
]

DECODER_BACKENDS = ("fp32", "fast", "reference", "rtl", "board")
"""Those of `sta_hw.run.backends`; numpy in float32, and in the accelerator's integers without a program."""

Progress = Callable[[int], None]
"""Called with cycles, or instructions, so far."""


class Machine(Protocol):
    """Memory with an image, and what runs its programs.

    Attributes
    ----------
    progress : function or None
        Called now and then while a program runs.
    """

    config: Config
    progress: Progress | None

    def load(self, image: NDArray[np.uint8]) -> None:
        """Put an image into memory."""

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        """Change some of it."""

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        """Some of it."""
        ...

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """Run a program to its end; cycles, where there are any, and counters.

        Raises
        ------
        CheckError
            If it stops with an error, at an instruction that is named.
        """
        ...


def _stopped(error: str, number: int, labels: Sequence[str]) -> CheckError:
    # Register ERROR_INSTRUCTION counts modulo 2**16.
    where = " or ".join(dict.fromkeys(labels[number :: 1 << 16])) or "behind the end"
    return CheckError(f"the accelerator stopped: {error} at instruction {number} ({where})")


class _InProcess:
    """Memory in this process."""

    def __init__(self, config: Config, progress: Progress | None = None) -> None:
        self.config, self.progress = config, progress
        self.image: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def load(self, image: NDArray[np.uint8]) -> None:
        self.image = image.copy()

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        self.image[address : address + len(data)] = data

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        return self.image[address : address + count]


class ReferenceMachine(_InProcess):
    """The numpy reference of programs."""

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """See `Machine`."""
        progress = self.progress

        def told(done: int, _: int) -> None:
            assert progress is not None
            progress(done)

        try:
            found = run_counted(
                self.image, program, self.config, told if progress else None, length=length, position=position
            )
        except ProgramError as error:
            raise _stopped(error.error.name, error.instruction, labels) from error
        self.image = found.image
        return None, found.saturated


class RtlMachine(_InProcess):
    """The generated Verilog under Verilator.

    Parameters
    ----------
    memory : sim.accelerator.MemoryModel or None
        Latency, bandwidth and stalls of the simulated memory.
    """

    def __init__(self, config: Config, progress: Progress | None = None, memory: Any = None) -> None:
        from sim.accelerator import AcceleratorModel

        super().__init__(config, progress)
        self.memory, self.model = memory, AcceleratorModel(config)

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """See `Machine`."""
        try:
            run = self.model.run(
                self.image, program, length=length, position=position, memory=self.memory, progress=self.progress
            )
        except BaseException:  # Ctrl-C too: the next program must not find this one running
            self.model.reset()
            raise
        if run.error != Error.NONE:
            raise _stopped(run.error.name, run.error_instruction, labels)
        self.image = run.image
        return run.cycles, run.counters


class BoardMachine:
    """A board behind a serial line; only what changes goes over it.

    Parameters
    ----------
    size : int
        Bytes of the board's memory.

    Attributes
    ----------
    loading : function or None
        Is told the bytes of an image that are there, and all.
    image_bytes, pass_bytes : int
        That went over the serial line in either direction, commands among them: for the image, and since it is there.
    """

    def __init__(self, config: Config, link: BoardLink, size: int, progress: Progress | None = None) -> None:
        self.config, self.size, self.progress = config, size, progress
        self.loading: Callable[[int, int], None] | None = None
        self.link = BoardBackend(config, link).link
        self.image_bytes = self._bytes = self._before = 0

    @property
    def _line_bytes(self) -> int:
        return self.link.sent + self.link.received

    @property
    def pass_bytes(self) -> int:
        """Bytes over the serial line since the image is there."""
        return self._line_bytes - self._before

    def load(self, image: NDArray[np.uint8]) -> None:
        """See `Machine`.

        Raises
        ------
        InputError
            If the image is larger than the memory.
        """
        if len(image) > self.size:
            raise InputError(
                f"the image takes {len(image):,} bytes with its keys and values; the board's memory has "
                f"{self.size:,}. A smaller model or context would do."
            )
        self._bytes = len(image)
        before = self._line_bytes
        self.link.set_register("control", 0b10)
        load_image(self.link, image, self.loading)
        self._before = self._line_bytes
        self.image_bytes = self._before - before

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        """See `Machine`."""
        forget_image(self.link)
        self.link.write(MEMORY + address, data.view("<u4"))

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        """See `Machine`."""
        return self.link.read(MEMORY + address, count // 4).astype("<u4").view(np.uint8)

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """See `Machine`."""
        link = self.link
        forget_image(link)
        for name, value in (
            ("image_address", 0), ("image_size", self._bytes), ("program_address", program), ("length", length),
            ("position", position), ("control", 0b001),
        ):  # fmt: skip
            link.set_register(name, value)
        try:
            for _ in range(100_000):
                status = link.register("status")
                if not status & 1:
                    break
            else:
                raise CheckError("the board's program does not end")
        except BaseException:  # Ctrl-C too: the next program must not find this one running
            with suppress(CheckError, ToolError):
                link.set_register("control", 0b10)
            raise
        if error := why_stopped(status):
            raise _stopped(error, link.register("error_instruction"), labels)
        counters = {c.name: link.register(f"counter_{c.name}") for c in COUNTERS}
        return counters["cycles"], counters


def decoder_machine(name: str, config: Config, progress: Progress | None = None, board: Any = None,
                    port: str = "sim") -> Machine:  # fmt: skip
    """The machine called `name`: ``reference``, ``rtl``, or ``board`` with a board and its serial port.

    Raises
    ------
    InputError
        If there is none of that name, no board was given, or it has no memory for an image.
    CheckError
        If the board does not answer, or has another configuration.
    """
    if name == "reference":
        return ReferenceMachine(config, progress)
    if name == "rtl":
        return RtlMachine(config, progress)
    if name != "board":
        raise InputError(f"backend {name!r} is unknown; it is {', '.join(DECODER_BACKENDS)}.")
    if board is None or board.sdram is None:
        raise InputError("the backend board needs a board with SDRAM; name one, for example ulx3s-85f.")
    return BoardMachine(config, connect(board, port, config), board.sdram.size, progress)
