"""A board behind a serial line: LiteX's uartbone protocol, checked, and the backend that runs models there."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..config import Config
from ..errors import CheckError, InputError, ToolError
from ..isa import Error
from ..registers import COUNTERS, capabilities, register
from ..rtl.board_core import BOARD_REGISTERS, IDENTITY, MEMORY, REGISTERS
from ..rtl.uart_bridge import SERIAL_TIMEOUT
from .backends import Outcome
from .saturation import counted

__all__ = ["BoardBackend", "BoardLink", "BoardRun", "Port", "connect", "open_port"]

_WRITE, _READ = 1, 2
_BURST = 255
"""Words of the longest command."""
_TRIES = 5


class Port(Protocol):
    """What is used of a pyserial port."""

    def write(self, data: bytes, /) -> Any:
        """Send."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer after a time without any."""
        ...

    def flush(self) -> None:
        """Wait until all is sent."""

    def reset_input_buffer(self) -> None:
        """Forget what has come."""


def open_port(name: str, baud: int) -> Port:
    """Open a serial port.

    Raises
    ------
    InputError
        If there is no such port.
    ToolError
        If pyserial is missing, or the port may not be opened.
    """
    try:
        import serial
    except ImportError as error:
        raise ToolError("the serial port needs pyserial: pip install pyserial.") from error
    try:
        return serial.Serial(name, baud, timeout=1.0)
    except PermissionError as error:
        raise ToolError(f"no permission for {name}; add yourself to the group dialout.") from error
    except (serial.SerialException, OSError, ValueError) as error:
        if "Permission" in str(error):
            raise ToolError(f"no permission for {name}; add yourself to the group dialout.") from error
        raise InputError(f"cannot open {name}: {error}.") from error


@dataclass(frozen=True)
class BoardRun:
    """What a board tells of a run: cycles from start to end, and the accelerator's counters."""

    cycles: int
    counters: dict[str, int] = field(default_factory=dict)


def connect(board: Any, port_name: str) -> BoardLink:
    """The link to a board at a serial port; ``sim`` simulates the board from its pins in, with its memory chip.

    Raises
    ------
    InputError
        If the port cannot be opened.
    """
    if port_name != "sim":
        return BoardLink(open_port(port_name, board.baud))
    from sim.pins import PinsPort

    simulated = PinsPort(board)
    simulated.pause(60_000)  # the memory starts
    return BoardLink(simulated, lambda: simulated.pause(round(2 * SERIAL_TIMEOUT * board.frequency)))


class BoardLink:
    """Memory and registers of a board.

    Every burst written is checked by the board's own CRC, and sent again when it arrived damaged or not at all.

    Parameters
    ----------
    port : Port
    settle : function
        Waits until the board has forgotten an unfinished command.
    """

    def __init__(self, port: Port, settle: Callable[[], None] | None = None) -> None:
        self.port = port
        self.settle = settle or (lambda: time.sleep(2 * SERIAL_TIMEOUT))
        self.retries = 0

    def _command(self, kind: int, address: int, words: int) -> bytes:
        return struct.pack(">BBI", kind, words, address >> 2)

    def _read_once(self, address: int, words: int) -> NDArray[np.uint32] | None:
        self.port.reset_input_buffer()
        self.port.write(self._command(_READ, address, words))
        answer = self.port.read(4 * words)
        return np.frombuffer(answer, ">u4").astype(np.uint32) if len(answer) == 4 * words else None

    def _recover(self) -> None:
        self.retries += 1
        self.port.flush()
        self.settle()
        self.port.reset_input_buffer()

    def read(self, address: int, words: int) -> NDArray[np.uint32]:
        """Read 32-bit words from a byte address.

        Raises
        ------
        CheckError
            If the board does not answer.
        """
        found = []
        for start in range(0, words, _BURST):
            count = min(_BURST, words - start)
            for _ in range(_TRIES):
                part = self._read_once(address + 4 * start, count)
                if part is not None:
                    break
                self._recover()
            else:
                raise CheckError(f"the board does not answer (reading 0x{address + 4 * start:08x})")
            found.append(part)
        return np.concatenate(found) if found else np.zeros(0, np.uint32)

    def write(self, address: int, words: NDArray[np.uint32], progress: Callable[[int], None] | None = None) -> None:
        """Write 32-bit words from a byte address, checked burst by burst.

        Raises
        ------
        CheckError
            If a burst does not arrive intact after several tries.
        """
        words = np.asarray(words, np.uint32)
        before = self.retries
        for start in range(0, len(words), _BURST):
            part = words[start : start + _BURST]
            self._burst(address + 4 * start, part)
            if progress:
                progress(start + len(part))
        # A byte lost in a command's address may have sent its data elsewhere.
        while self.retries > before and len(words) > 1:
            before = self.retries
            wrong = np.unique(np.flatnonzero(self.read(address, len(words)) != words) // _BURST)
            for number in wrong:
                start = int(number) * _BURST
                self._burst(address + 4 * start, words[start : start + _BURST])

    def _burst(self, address: int, words: NDArray[np.uint32]) -> None:
        payload = words.astype(">u4").tobytes()
        for _ in range(_TRIES):
            self.port.write(self._command(_WRITE, BOARD_REGISTERS + 4, 1) + bytes(4))
            self.port.write(self._command(_WRITE, address, len(words)) + payload)
            checksum = self._read_once(BOARD_REGISTERS + 4, 1)
            if checksum is not None and int(checksum[0]) == zlib.crc32(payload):
                return
            self._recover()
        raise CheckError(f"a burst to 0x{address:08x} does not arrive intact")

    def register(self, name: str) -> int:
        """Read one of the accelerator's registers."""
        return int(self.read(REGISTERS + register(name).offset, 1)[0])

    def set_register(self, name: str, value: int) -> None:
        """Write one of the accelerator's registers."""
        self._burst(REGISTERS + register(name).offset, np.array([value], np.uint32))


class BoardBackend:
    """Runs compiled models on a board.

    Parameters
    ----------
    config : Config
    link : BoardLink

    Raises
    ------
    CheckError
        If what answers is no such board, or its accelerator has another configuration.
    """

    def __init__(self, config: Config, link: BoardLink) -> None:
        self.config, self.link = config, link
        identity = int(link.read(BOARD_REGISTERS, 1)[0])
        if identity != IDENTITY:
            raise CheckError(f"this is no board with STA-HW: its identity reads 0x{identity:08x}")
        for name, value in capabilities(config).items():
            if link.register(name) != value:
                raise CheckError(
                    f"the board's accelerator is another one than {config.hash}: register {name} differs; "
                    "build and flash it again, or name its preset."
                )
        self._loaded: NDArray[np.uint32] | None = None

    def run(
        self, model: CompiledModel, embedded: NDArray, progress: Callable[[int, int], None] | None = None
    ) -> Outcome:
        """Load what changed of image and program, run, and read the whole image back.

        Raises
        ------
        InputError
            If the model was compiled for another configuration.
        CheckError
            If the accelerator stops with an error, does not end, or the line fails.
        """
        if model.config.hash != self.config.hash:
            raise InputError(f"the model was compiled for hardware {model.config.hash}; compile it for this board.")
        words = model.with_input(embedded).view("<u4")
        total = 2 * len(words)
        link = self.link
        link.set_register("control", 0b10)
        link.write(MEMORY, words, (lambda done: progress(done, total)) if progress else None)
        link.set_register("image_address", 0)
        link.set_register("image_size", 4 * len(words))
        link.set_register("program_address", model.program_address)
        link.set_register("control", 0b001)
        for _ in range(100_000):
            status = link.register("status")
            if not status & 1:
                break
        else:
            raise CheckError("the board's program does not end")
        error, instruction = Error(status >> 8 & 0xFF), link.register("error_instruction")
        if error != Error.NONE:
            raise CheckError(
                f"the accelerator stopped: {error.name} at instruction {instruction} ({model.labels[instruction]})"
            )
        counters = {c.name: link.register(f"counter_{c.name}") for c in COUNTERS}
        image = link.read(MEMORY, len(words)).astype("<u4").view(np.uint8)
        if progress:
            progress(total, total)
        run = BoardRun(counters["cycles"], counters)
        return Outcome(image, model.output(image), run, counted(counters, model, embedded))
