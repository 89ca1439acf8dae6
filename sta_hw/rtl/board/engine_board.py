"""The engine alone behind a serial line: every stream a window of words on the bridge's bus."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...spec.board import BOARD_REGISTERS, IDENTITY
from ...spec.config import Config
from ..emit import streams_of
from ..engine.engine import Engine
from .uart import UartReceiver, UartTransmitter
from .uart_bridge import UartBridge

__all__ = ["STREAMS", "EngineBoard", "stream_words"]

STREAMS = 0x40000000
"""Byte address of stream 0's words; the next stream's are 256 bytes on. Order: `streams_of(Engine)`."""


def stream_words(config: Config) -> dict[str, int]:
    """32-bit words of a beat of each of the engine's streams, in their order on the bus."""
    engine = Engine(config)
    engine._MustUse__silence = True  # asked for its ports alone
    return {s.name: -(-s.width // 32) for s in streams_of(engine)}


class EngineBoard(wiring.Component):
    """Engine and serial bridge, for parts too small for the whole accelerator.

    Writing the last word of an input stream's beat offers the beat; reading the last word of an output stream's
    takes it. The board's register at offset 8 tells, a bit per stream, which input may be offered a beat and which
    output has one; the one at 12 how many beats were offered while the one before still waited, which are lost.
    Writing that one resets it and the engine.

    Parameters
    ----------
    config : Config
    divisor, timeout : int
        As in `BoardCore`.

    Members
    -------
    rx, tx : In(1), Out(1)
    ready, busy, failed : Out(1)
        Lamps: reset is over; the array works; a beat was lost.
    """

    def __init__(self, config: Config, divisor: int, timeout: int) -> None:
        self.config, self.divisor, self.timeout = config, divisor, timeout
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "ready": Out(1), "busy": Out(1), "failed": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        engine = Engine(self.config, plain=True, ahead=False)
        again = Signal()
        m.submodules.engine = ResetInserter(again)(engine)
        receiver = m.submodules.receiver = UartReceiver(self.divisor)
        transmitter = m.submodules.transmitter = UartTransmitter(self.divisor)
        bridge = m.submodules.bridge = UartBridge(self.timeout)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        wiring.connect(m, receiver.bytes, bridge.received)
        wiring.connect(m, bridge.sent, transmitter.bytes)
        m.d.sync += self.ready.eq(1)
        # Accesses take two cycles, so that the words of all streams may go through a register.
        second = Signal()
        m.d.sync += second.eq(bridge.strobe & ~second)
        m.d.comb += bridge.acknowledge.eq(second)
        access = bridge.strobe & ~second
        here = bridge.address[26:] == STREAMS >> 28
        board = bridge.address[14:] == BOARD_REGISTERS >> 16
        number, word = bridge.address[6:10], bridge.address[:6]
        lost = Signal(8)
        flags: list[Value] = []
        found: list[tuple[Value, Value]] = []
        for i, port in enumerate(streams_of(engine)):
            stream = getattr(engine, port.name)
            if port.name == "growth":  # of attention alone, which is not here
                flags.append(Const(0, 1))
                continue
            words = -(-port.width // 32)
            chosen = here & (number == i)
            last = chosen & (word == words - 1) & access
            if port.direction == "input":
                held = Signal(32 * words, name=f"{port.name}_held")
                offered = Signal(name=f"{port.name}_offered")
                m.d.comb += [Value.cast(stream.payload).eq(held), stream.valid.eq(offered)]
                with m.If(stream.ready | again):
                    m.d.sync += offered.eq(0)
                with m.If(chosen & access & bridge.write):
                    with m.If(offered):
                        m.d.sync += lost.eq(lost + last)
                    with m.Else():
                        # Words come in order: they shift in from the top.
                        m.d.sync += held.eq(Cat(held, bridge.write_data)[32:])
                        with m.If(last):
                            m.d.sync += offered.eq(1)
                flags.append(~offered)
            else:
                payload = Value.cast(stream.payload)
                m.d.comb += stream.ready.eq(last & ~bridge.write)
                flags.append(stream.valid)
                found += [(chosen & (word == w), payload[32 * w : 32 * w + 32]) for w in range(words)]
        m.d.comb += [bridge.clear.eq(access & bridge.write & board & (word == 1)), self.failed.eq(lost != 0)]
        m.d.sync += again.eq(access & bridge.write & board & (word == 3))
        with m.If(again):
            m.d.sync += lost.eq(0)
        found += [
            (board & (word == offset), value)
            for offset, value in enumerate((Signal(32, init=IDENTITY), bridge.checksum, Cat(*flags), lost))
        ]
        answer = Signal(32)
        value: Value = Signal(32)  # what is not there reads as 0
        for condition, other in found:
            value = Mux(condition, other, value)
        m.d.sync += answer.eq(value)
        m.d.comb += [bridge.read_data.eq(answer), self.busy.eq(engine.busy)]
        return m
