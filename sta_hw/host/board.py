"""A board behind a serial line: LiteX's uartbone protocol, checked."""

from __future__ import annotations

import os
import stat
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError, InputError, ToolError
from ..spec.board import BOARD_REGISTERS, REGISTERS, SERIAL_TIMEOUT
from ..spec.registers import register

__all__ = ["BoardLink", "Port", "open_port", "require_port"]

_WRITE, _READ = 1, 2
_BURST = 255
"""Words of the longest command."""
_TRIES = 5
_WRITE_TIMEOUT = 30.0
"""Seconds for a command of at most 1,030 bytes: at 9,600 baud it takes one."""


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


class _SerialPort:
    """A serial port; whatever becomes of it while it is open is one sentence (ToolError)."""

    def __init__(self, name: str, opened: Any) -> None:
        self._name, self._opened = name, opened

    def _do(self, method: str, *arguments: Any) -> Any:
        import termios

        try:
            return getattr(self._opened, method)(*arguments)
        except (OSError, termios.error, TypeError) as error:  # pyserial's own are OSErrors; a TypeError if it is closed
            why = " ".join(str(error).split()).rstrip(".")
            raise ToolError(
                f"the serial port {self._name} failed while it was in use ({why}); see to the cable and the board's "
                "power, and that no other program reads it."
            ) from error

    def write(self, data: bytes, /) -> Any:
        return self._do("write", data)

    def read(self, size: int, /) -> bytes:
        return bytes(self._do("read", size))

    def flush(self) -> None:
        self._do("flush")

    def reset_input_buffer(self) -> None:
        self._do("reset_input_buffer")


def open_port(name: str, baud: int) -> Port:
    """Open a serial port, for this program alone.

    Raises
    ------
    InputError
        If there is no such port, with those that there are.
    ToolError
        If pyserial is missing, or the port may not be opened, or another program has it.
    """
    try:
        import serial
    except ImportError as error:
        raise ToolError("the serial port needs pyserial: pip install pyserial.") from error
    try:
        # Two programs on one line would take each other's answers; and one that nobody reads must not wait for ever.
        return _SerialPort(name, serial.Serial(name, baud, timeout=1.0, write_timeout=_WRITE_TIMEOUT, exclusive=True))
    except (serial.SerialException, OSError, ValueError) as error:
        if isinstance(error, PermissionError) or "Permission" in str(error):
            raise ToolError(f"no permission for {name}; add yourself to the group dialout.") from error
        if "exclusively lock" in str(error):
            raise ToolError(f"another program has {name} open; end it, or wait for it.") from error
        raise InputError(f"{_no_port(name, error)}; {_other_ports()}") from error


def require_port(name: str) -> None:
    """Make sure that there is a port of that name, or that it is ``sim``, before any work; it is not opened.

    Raises
    ------
    InputError
        If there is none, with those that there are.
    """
    if name != "sim" and not stat.S_ISCHR(_mode(name) or 0):
        raise InputError(f"{_no_port(name, None)}; {_other_ports()}")


def _mode(name: str) -> int | None:
    """The kind of a file, as `stat` has it; None if there is none of that name."""
    try:
        return os.stat(name).st_mode
    except (OSError, ValueError):
        return None


def _no_port(name: str, error: Exception | None) -> str:
    """Why a name is no serial port's, or none that can be opened."""
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    mode = _mode(name)
    if mode is None:
        return f"cannot open {shown}: there is no such serial port"
    kinds = (
        (stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket")
    )  # fmt: skip
    kind = next((words for test, words in kinds if test(mode)), None)
    why = (
        f"it is {kind}, and no serial port"
        if kind
        else " ".join(str(error or "it is a device of another kind").split())
    )
    return f"cannot open {shown}: {why}"


def _other_ports() -> str:
    from serial.tools.list_ports import comports

    found = sorted(port.device for port in comports())
    return f"there are {', '.join(found)}." if found else "no serial port is connected."


class BoardLink:
    """Memory and registers of a board.

    Every burst written is checked by the board's own CRC, and sent again when it arrived damaged or not at all.

    Parameters
    ----------
    port : Port
    settle : function
        Waits until the board has forgotten an unfinished command.

    Attributes
    ----------
    resumable : bool
        Whether the board's memory controller keeps what image is in the memory (`sta_hw.host.loading`).
    image_known : bool
        Whether it does at the moment.
    sent, received : int
        Bytes that went over the line, commands among them.
    """

    def __init__(self, port: Port, settle: Callable[[], None] | None = None) -> None:
        self.port = port
        self.settle = settle or (lambda: time.sleep(2 * SERIAL_TIMEOUT))
        self.retries = self.sent = self.received = 0
        self.resumable = self.image_known = False

    def _command(self, kind: int, address: int, words: int) -> bytes:
        return struct.pack(">BBI", kind, words, address >> 2)

    def _send(self, data: bytes) -> None:
        self.port.write(data)
        self.sent += len(data)

    def _read_once(self, address: int, words: int) -> NDArray[np.uint32] | None:
        self.port.reset_input_buffer()
        self._send(self._command(_READ, address, words))
        answer = self.port.read(4 * words)
        self.received += len(answer)
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
            self._send(self._command(_WRITE, BOARD_REGISTERS + 4, 1) + bytes(4))
            self._send(self._command(_WRITE, address, len(words)) + payload)
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
