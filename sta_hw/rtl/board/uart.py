"""A UART: 8 data bits, no parity, one stop bit."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import cdc, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]


class UartReceiver(wiring.Component):
    """Bytes from a serial line.

    Parameters
    ----------
    divisor : int
        Clock cycles per bit, at least 4.

    Members
    -------
    rx : In(1)
        The line, idle high; synchronized here.
    bytes : Out(stream of unsigned(8))
        One byte is held; a byte that nobody took by the end of the next one is lost. A byte whose stop bit is
        missing is dropped.

    Raises
    ------
    ValueError
        If `divisor` is too small.
    """

    def __init__(self, divisor: int) -> None:
        if divisor < 4:
            raise ValueError(f"a UART needs at least 4 cycles per bit, not {divisor}")
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "bytes": Out(stream.Signature(unsigned(8)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rx = Signal(init=1)
        m.submodules.synchronizer = cdc.FFSynchronizer(self.rx, rx, init=1)
        count = Signal(range(self.divisor))
        bits = Signal(range(9))
        shift = Signal(8)
        with m.If(self.bytes.ready):
            m.d.sync += self.bytes.valid.eq(0)
        with m.FSM(name="receiver"):
            with m.State("IDLE"):
                m.d.sync += [count.eq(self.divisor // 2 - 1), bits.eq(0)]
                with m.If(~rx):
                    m.next = "START"
            with m.State("START"):  # to the middle of the start bit
                m.d.sync += count.eq(count - 1)
                with m.If(count == 0):
                    m.d.sync += count.eq(self.divisor - 1)
                    m.next = "DATA"
                    with m.If(rx):  # a glitch
                        m.next = "IDLE"
            with m.State("DATA"):
                m.d.sync += count.eq(count - 1)
                with m.If(count == 0):
                    m.d.sync += [count.eq(self.divisor - 1), bits.eq(bits + 1), shift.eq(Cat(shift, rx)[1:])]
                    with m.If(bits == 7):
                        m.next = "STOP"
            with m.State("STOP"):
                m.d.sync += count.eq(count - 1)
                with m.If(count == 0):
                    with m.If(rx):
                        m.d.sync += [self.bytes.payload.eq(shift), self.bytes.valid.eq(1)]
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "BREAK"
            with m.State("BREAK"), m.If(rx):
                m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Bytes onto a serial line.

    Members
    -------
    bytes : In(stream of unsigned(8))
    tx : Out(1)
        Idle high.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"bytes": In(stream.Signature(unsigned(8))), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = Signal(9, init=0x1FF)
        left = Signal(range(11))
        count = Signal(range(self.divisor))
        m.d.comb += self.bytes.ready.eq(left == 0)
        with m.If(left == 0):
            m.d.sync += count.eq(self.divisor - 1)
            with m.If(self.bytes.valid):
                m.d.sync += [shift.eq(Cat(self.bytes.payload, Const(1, 1))), self.tx.eq(0), left.eq(10)]
        with m.Elif(count == 0):
            m.d.sync += [count.eq(self.divisor - 1), left.eq(left - 1), self.tx.eq(shift[0])]
            m.d.sync += shift.eq(Cat(shift[1:], Const(1, 1)))
        with m.Else():
            m.d.sync += count.eq(count - 1)
        return m
