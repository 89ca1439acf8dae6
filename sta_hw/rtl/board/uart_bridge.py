"""From a serial line onto a bus: LiteX's uartbone protocol, so that `litex_server` can drive it.

A command is one byte (1 write, 2 read; 3 and 4 the same at one address), one byte of length in words, four of
word address, and for writes the words; everything most significant byte first.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["UartBridge"]

_POLYNOMIAL = 0xEDB88320


class UartBridge(wiring.Component):
    """Bytes in, bus accesses, bytes out.

    Parameters
    ----------
    timeout : int
        A command in which no byte came for so many cycles is forgotten, so that a lost byte does no lasting harm.

    Members
    -------
    received : In(stream of unsigned(8)), sent : Out(stream of unsigned(8))
    address : Out(30)
        Of a 32-bit word.
    write_data, read_data : Out(32), In(32)
    strobe, write, acknowledge : Out(1), Out(1), In(1)
        An access lasts from `strobe` to `acknowledge`.
    checksum : Out(32)
        CRC-32 (as in Ethernet and zlib) of all data bytes written since `clear`.
    clear : In(1)
    """

    def __init__(self, timeout: int) -> None:
        self.timeout = timeout
        byte = stream.Signature(unsigned(8))
        super().__init__(
            {
                "received": In(byte), "sent": Out(byte),
                "address": Out(30), "write_data": Out(32), "read_data": In(32),
                "strobe": Out(1), "write": Out(1), "acknowledge": In(1),
                "checksum": Out(32), "clear": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        byte = self.received.payload
        command, length = Signal(8), Signal(8)
        part = Signal(2)
        word = Signal(32)
        register = Signal(32, init=0xFFFFFFFF)
        m.d.comb += self.checksum.eq(~register)
        quiet = Signal(range(self.timeout + 1))
        taken = self.received.valid & self.received.ready
        late = quiet == self.timeout
        m.d.sync += quiet.eq(quiet + 1)
        with m.FSM(name="bridge") as fsm:
            with m.State("COMMAND"):
                m.d.comb += self.received.ready.eq(1)
                m.d.sync += [command.eq(byte), part.eq(0)]
                with m.If(taken & (byte >= 1) & (byte <= 4)):
                    m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.comb += self.received.ready.eq(1)
                m.d.sync += length.eq(byte)
                with m.If(taken):
                    m.next = "ADDRESS"
                with m.Elif(late):
                    m.next = "COMMAND"
            with m.State("ADDRESS"):
                m.d.comb += self.received.ready.eq(1)
                with m.If(taken):
                    m.d.sync += [self.address.eq(Cat(byte, self.address)), part.eq(part + 1)]
                    with m.If(part == 3):
                        m.next = "NEXT"
                with m.Elif(late):
                    m.next = "COMMAND"
            with m.State("NEXT"):
                with m.If(length == 0):
                    m.next = "COMMAND"
                with m.Elif(command[0]):
                    m.next = "DATA"
                with m.Else():
                    m.next = "READ"
            with m.State("DATA"):
                m.d.comb += self.received.ready.eq(1)
                with m.If(taken):
                    m.d.sync += [self.write_data.eq(Cat(byte, self.write_data)), part.eq(part + 1)]
                    m.d.sync += register.eq(_crc_step(register, byte))
                    with m.If(part == 3):
                        m.next = "WRITE"
                with m.Elif(late):
                    m.next = "COMMAND"
            with m.State("WRITE"):
                m.d.comb += [self.strobe.eq(1), self.write.eq(1)]
                with m.If(self.acknowledge):
                    m.next = "ADVANCE"
            with m.State("READ"):
                m.d.comb += self.strobe.eq(1)
                m.d.sync += word.eq(self.read_data)
                with m.If(self.acknowledge):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.sent.valid.eq(1), self.sent.payload.eq(word[24:])]
                with m.If(self.sent.ready):
                    m.d.sync += [word.eq(word << 8), part.eq(part + 1)]
                    with m.If(part == 3):
                        m.next = "ADVANCE"
            with m.State("ADVANCE"):
                m.d.sync += [length.eq(length - 1), self.address.eq(self.address + (command <= 2))]
                m.next = "NEXT"
        waiting = fsm.ongoing("LENGTH") | fsm.ongoing("ADDRESS") | fsm.ongoing("DATA")
        with m.If(taken | ~waiting):
            m.d.sync += quiet.eq(0)
        with m.If(self.clear):
            m.d.sync += register.eq(0xFFFFFFFF)
        return m


def _crc_step(register: Value, byte: Value) -> Value:
    """The CRC register after one more byte."""
    value = register ^ byte
    for _ in range(8):
        value = (value >> 1) ^ Mux(value[0], _POLYNOMIAL, 0)
    return value[:32]
