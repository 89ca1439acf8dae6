"""A whole board in this process: board core, LiteDRAM, an SDRAM chip, and the host's end of the serial line."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sta_hw.fpga.litedram import Sdram, generate_controller
from sta_hw.rtl.board.board_core import BoardCore
from sta_hw.rtl.board.engine_board import EngineBoard
from sta_hw.rtl.emit import emit_verilog
from sta_hw.spec.config import Config

from .library import PRIMITIVES, compile_library

__all__ = ["SimulatedPort"]

_HERE = Path(__file__).parent
_SLICE = 200_000


class SimulatedPort:
    """The serial port of a simulated board: `write`, `read` and `timeout` as pyserial's have them.

    Parameters
    ----------
    config : Config
    top : str
        ``accelerator`` with its memory, or ``engine``.
    divisor : int
        Clock cycles per bit.
    bridge_timeout : int
        Cycles after which the board forgets an unfinished command.
    """

    def __init__(
        self, config: Config, *, top: str = "accelerator", divisor: int = 8, bridge_timeout: int = 4096,
        timeout: float = 1.0,
    ) -> None:  # fmt: skip
        extra = [PRIMITIVES]
        if top == "engine":
            engine = EngineBoard(config, divisor, bridge_timeout)
            parts = [emit_verilog(engine, "board_core"), (_HERE / "engine_board.v").read_text(encoding="utf-8")]
        else:
            controller = generate_controller(Sdram(), 80e6, config.bus_bytes)
            core = BoardCore(config, controller.start_up, divisor, bridge_timeout)
            wrapper = (
                (_HERE / "board.v")
                .read_text(encoding="utf-8")
                .replace("BUS_BYTES = 8", f"BUS_BYTES = {config.bus_bytes}")
            )
            parts = [emit_verilog(core, "board_core"), controller.verilog, wrapper]
            extra += [_HERE / "sdram_cells.v", _HERE / "sdram.v"]
        self._open(parts, extra, divisor, timeout)

    def _open(
        self, parts: list[str], extra: list[Path], divisor: int, timeout: float, clocks: int = 1, chip: str = ""
    ) -> None:
        """Compile and start the module ``board``, which needs `clocks` periods of its clock for one of the design's.

        `chip` is the name, in Verilator's model, of what its memory chip holds, in words of 16 bytes.
        """
        library = compile_library(
            "\n".join(parts), "board",
            f'#pragma once\n#include "Vboard.h"\nusing Model = Vboard;\nconstexpr int clocks = {clocks};\n' +
            (f'#include "Vboard___024root.h"\n#define CHIP_WORDS rootp->{chip}\n' if chip else ""),
            _HERE / "board.cpp", extra=extra,
        )  # fmt: skip
        lib = self._library = ctypes.CDLL(str(library))
        lib.board_open.restype = ctypes.c_void_p
        lib.board_close.argtypes = [ctypes.c_void_p]
        lib.board_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64]
        lib.board_run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        lib.board_receive.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        for name in ("board_receive", "board_pending", "board_cycles", "board_violations"):
            function = getattr(lib, name)
            function.restype = ctypes.c_int64
            function.argtypes = function.argtypes or [ctypes.c_void_p]
        if chip:
            lib.board_put.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64]
            lib.board_get.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
        lib.board_lamps.argtypes = [ctypes.c_void_p]
        self._handle = lib.board_open(divisor)
        self.timeout = timeout
        self._divisor = divisor
        self.lose: set[int] = set()
        """Numbers of bytes, counted from 0, that never reach the board."""
        self.sent = 0

    def close(self) -> None:
        """Free the model."""
        if self._handle:
            self._library.board_close(self._handle)
            self._handle = None

    def write(self, data: bytes) -> int:
        """Put bytes on the line; they arrive while `read` waits."""
        kept = bytes(b for i, b in enumerate(data, self.sent) if i not in self.lose)
        self.sent += len(data)
        self._library.board_send(self._handle, kept, len(kept))
        return len(data)

    def flush(self) -> None:
        """Wait until all is sent."""
        while self._library.board_pending(self._handle):
            self._library.board_run(self._handle, 100)

    def read(self, size: int = 1) -> bytes:
        """Bytes from the board; fewer than `size` after a time without any (100,000 cycles a second of `timeout`)."""
        self.flush()
        buffer = ctypes.create_string_buffer(size)
        patience = int(self.timeout * 100_000) + 40 * self._divisor * size
        count = self._library.board_receive(self._handle, buffer, size, patience)
        return buffer.raw[:count]

    def reset_input_buffer(self) -> None:
        """Forget what has come."""
        waiting = ctypes.create_string_buffer(1 << 16)
        self._library.board_receive(self._handle, waiting, len(waiting), 0)

    def pause(self, cycles: int) -> None:
        """Let the board run."""
        self._library.board_run(self._handle, cycles)

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return self._library.board_cycles(self._handle)

    @property
    def violations(self) -> int:
        """Commands the SDRAM's data sheet forbids."""
        return self._library.board_violations(self._handle)

    @property
    def lamps(self) -> dict[str, bool]:
        """What the board's lamps show."""
        bits = self._library.board_lamps(self._handle)
        return {name: bool(bits >> i & 1) for i, name in enumerate(("ready", "busy", "failed"))}
