"""A whole board from its pins in: the top level as it goes to synthesis, its SDRAM chip, its serial line."""

from __future__ import annotations

import ctypes
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from boards import Board
from sta_hw.fpga.build import prepare_board
from sta_hw.rtl.emit import run_yosys
from sta_hw.spec.config import Config

from .board import SimulatedPort
from .library import PRIMITIVES

__all__ = ["HERE", "LAGS", "PinsPort"]

HERE = Path(__file__).parent
LAGS = (1, 2)
"""Bits by which a DDR3's byte lanes come late."""
_DIVISOR = 8
_CHIP_WORD = 16
"""Bytes of a burst."""
_LAMPS = ("ready", "busy", "failed")


class PinsPort(SimulatedPort):
    """The serial port of a board whose pins are simulated: oscillator, PLL, pin cells, polarities, lamps.

    The serial line is faster than the board's, 8 clock cycles per bit; all else is what goes into the bitstream.

    Parameters
    ----------
    board : Board
    config : Config or None
        Another configuration than the board's.
    timeout : float
        As in `SimulatedPort`.
    """

    def __init__(self, board: Board, config: Config | None = None, *, timeout: float = 1.0) -> None:
        faster = dataclasses.replace(board, baud=round(board.frequency / _DIVISOR))
        with tempfile.TemporaryDirectory(prefix="sta_hw_") as name:
            folder = Path(name)
            sources = prepare_board(faster, config or board.config, folder)
            run_yosys("read_rtlil top.il\nwrite_verilog -noattr top.v\n", folder)
            parts = [(folder / Path(source).with_suffix(".v")).read_text(encoding="utf-8") for source in sources]
        ecp5 = board.chip.family == "ecp5"
        extra = [PRIMITIVES, *(HERE / name for name in _models(board))]
        ddr3 = board.sdram is not None and board.sdram.kind == "DDR3"
        self._open(
            [*parts, _wrapper(board)], extra, _DIVISOR, timeout, clocks=2 if ecp5 else 1,
            chip="board__DOT__chip__DOT__words" if ddr3 else "",
        )  # fmt: skip

    def put(self, address: int, data: bytes) -> None:
        """Put bytes into a DDR3 chip past its pins: from a multiple of 16 on, filled up with zeros to one.

        A large model takes hours over the simulated serial line.
        """
        data += bytes(-len(data) % _CHIP_WORD)
        self._library.board_put(self._handle, address // _CHIP_WORD, data, len(data) // _CHIP_WORD)

    def get(self, address: int, count: int) -> bytes:
        """What a DDR3 chip holds, from a multiple of 16 on: `count` bytes."""
        words = -(-count // _CHIP_WORD)
        buffer = ctypes.create_string_buffer(words * _CHIP_WORD)
        self._library.board_get(self._handle, address // _CHIP_WORD, buffer, words)
        return buffer.raw[:count]


def _models(board: Board) -> list[str]:
    """Verilog of the cells at its pins and of its memory."""
    if board.chip.family == "ice40":
        return ["ice40_pins.v"]
    if board.sdram is None:
        return ["ecp5_pins.v", "ecp5_pll.v"]
    if board.sdram.kind == "DDR3":
        return ["ecp5_pins.v", "ecp5_ddr3.v", "sdram_cells.v", "ddr3.v"]
    return ["ecp5_pins.v", "ecp5_pll.v", "sdram_cells.v", "sdram.v"]


def _wrapper(board: Board) -> str:
    """Verilog of ``board``: the top level's pins, the memory chip, and the harness's names."""
    platform = board.make_platform()
    pins = {"uart_0__rx__io": "rx_pin", "uart_0__tx__io": "tx"}
    body = ["wire rx_pin;", "assign rx_pin = rx;"]
    if board.chip.family == "ecp5":
        pins[f"{platform.default_clk}_0__io"] = "clk"
    for lamp, (pin, inverted) in zip(_LAMPS, _lamps(board, platform), strict=True):
        if pin:
            pins[pin] = f"{lamp}_pin"
            body += [f"wire {lamp}_pin;", f"assign {lamp} = {'~' if inverted else ''}{lamp}_pin;"]
        else:
            body += [f"assign {lamp} = 0;"]
    if board.sdram is not None and board.sdram.kind == "DDR3":
        widths = {"a": 15, "ba": 3, "dm": 2, "dq": 16, "dqs": 2}
        names: tuple[str, ...] = ("a", "ba", "cas", "clk", "clk_en", "dm", "dq", "dqs", "odt", "ras", "we")
        pins |= {f"ddr3_0__{n}__{'p' if n in ('clk', 'dqs') else 'io'}": f"ddr3_{n}" for n in names}
        body += [f"wire [{widths.get(n, 1) - 1}:0] ddr3_{n};" for n in names]
        body += [
            f"ddr3 #(.LAG_0({LAGS[0]}), .LAG_1({LAGS[1]})) chip (.tick(clk), .ck(ddr3_clk), .cke(ddr3_clk_en),",
            "    .ras_n(ddr3_ras), .cas_n(ddr3_cas), .we_n(ddr3_we), .ba(ddr3_ba), .a(ddr3_a), .dm(ddr3_dm),",
            "    .odt(ddr3_odt), .dq(ddr3_dq), .dqs(ddr3_dqs), .violations(violations));",
        ]
    elif board.sdram is not None:
        widths = {"a": 13, "ba": 2, "dqm": 2, "dq": 16}
        names = ("a", "ba", "cas", "clk_en", "cs", "dqm", "ras", "we", "clk", "dq")
        pins |= {f"sdram_0__{n}__io": f"sdram_{n}" for n in names}
        body += [f"wire [{widths.get(n, 1) - 1}:0] sdram_{n};" for n in names]
        # The chip's model looks at falling edges, the chip at rising ones.
        body += [
            "sdram chip (.clk(~sdram_clk), .cke(sdram_clk_en), .cs_n(sdram_cs), .ras_n(sdram_ras), .cas_n(sdram_cas),",
            "    .we_n(sdram_we), .ba(sdram_ba), .a(sdram_a), .dm(sdram_dqm), .dq(sdram_dq), .violations(violations));",
        ]
    else:
        body += ["assign violations = 0;"]
    ports = ", ".join(f".{pin}({name})" for pin, name in pins.items())
    return "\n".join(
        [
            "module board (input clk, input rst, input rx, output tx, output ready, output busy, output failed,",
            "    output [31:0] violations);",
            *body, f"top pins ({ports});", "endmodule", "",
        ]
    )  # fmt: skip


def _lamps(board: Board, platform: Any) -> list[tuple[str, bool]]:
    """Pin and inversion of the lamps of `_LAMPS`, in their order; no pin where the board has no such lamp."""
    if ("rgb_led", 0) in platform.resources and ("led", 0) not in platform.resources:
        colors = {part.name: part.ios[0].invert for part in platform.resources["rgb_led", 0].ios}
        return [(f"rgb_led_0__{c}__io", colors[c]) for c in "gbr"]
    numbers = (0, None, 1) if board.chip.family == "ice40" else (0, 1, 2)
    return [
        (f"led_{i}__io", platform.resources["led", i].ios[0].invert) if i is not None else ("", False) for i in numbers
    ]
