"""A simulated board as a serial device of this machine, for programs that open a port by its name."""

from __future__ import annotations

import os
import select
import threading
import tty
from types import TracebackType

from .board import SimulatedPort

__all__ = ["SerialTerminal"]

_QUIET = 0.01
"""Of a simulated second, the time without an answer after which the board is left to stand."""


class SerialTerminal:
    """A pseudo-terminal with a simulated board at its other end; a context manager that gives the device's name.

    The board's time goes on while bytes are on their way in either direction and a little longer, and stands while
    nobody talks: a host that is slow to send the rest of a command never meets the bridge's timeout.

    Parameters
    ----------
    port : SimulatedPort
        Nothing else may use it meanwhile.
    """

    def __init__(self, port: SimulatedPort) -> None:
        self.port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._end, self._device = os.openpty()
        tty.setraw(self._device)
        self._timeout, self.port.timeout = self.port.timeout, _QUIET
        self._thread.start()
        return os.ttyname(self._device)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.port.timeout = self._timeout
        os.close(self._end)
        os.close(self._device)

    def _serve(self) -> None:
        while not self._stop.is_set():
            if select.select([self._end], [], [], 0.01)[0]:
                self.port.write(os.read(self._end, 4096))
                while answer := self.port.read(4):
                    os.write(self._end, answer)
