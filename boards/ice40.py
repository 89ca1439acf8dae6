"""Top level of iCE40 UP5K boards: clock, serial line, lamps, the engine behind them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io

from sta_hw.errors import InputError

from .description import Board

__all__ = ["Ice40Top"]

_DIVIDERS = {48e6: "0b00", 24e6: "0b01", 12e6: "0b10", 6e6: "0b11"}


class Ice40Top(Elaboratable):
    """Pins to `board_core`, a Verilog file beside; the clock is the part's own 48 MHz oscillator, divided.

    Parameters
    ----------
    board : Board

    Raises
    ------
    InputError
        If the oscillator does not divide to the board's frequency.
    """

    def __init__(self, board: Board) -> None:
        if board.frequency not in _DIVIDERS:
            raise InputError(f"the UP5K's oscillator gives 48, 24, 12 or 6 MHz, not {board.frequency / 1e6:g}.")
        self.board = board

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        clock = Signal()
        m.submodules.oscillator = Instance(
            "SB_HFOSC",
            p_CLKHF_DIV=_DIVIDERS[self.board.frequency],
            i_CLKHFEN=Const(1),
            i_CLKHFPU=Const(1),
            o_CLKHF=clock,
        )
        m.d.comb += ClockSignal().eq(clock)
        platform.add_clock_constraint(clock, self.board.frequency)
        # Block RAM cannot be read in the first microseconds after configuration.
        waited = Signal(10, reset_less=True)
        with m.If(~waited.all()):
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += ResetSignal().eq(~waited.all())
        serial = platform.request("uart", dir="-")
        m.submodules.rx_buffer = rx = io.Buffer("i", serial.rx)
        m.submodules.tx_buffer = tx = io.Buffer("o", serial.tx)
        lamps = Signal(3)
        m.submodules.core = Instance(
            "board_core", i_clk=ClockSignal(), i_rst=ResetSignal(), i_rx=rx.i, o_tx=tx.o, o_ready=lamps[0],
            o_busy=lamps[1], o_failed=lamps[2],
        )  # fmt: skip
        for i in range(2):
            m.submodules[f"led_{i}"] = led = io.Buffer("o", platform.request("led", i, dir="-"))
            m.d.comb += led.o.eq(lamps[0] if i == 0 else lamps[2])
        return m
