"""Columns of results become rows: keys are computed column by column and used as weights row by row."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config

__all__ = ["Transposer"]


class Transposer(wiring.Component):
    """Blocks of `groups` columns of `rows` bytes, column after column, become row after row.

    Takes ``groups * rows / lanes`` bus words, then gives as many; it does not do both at once. One small memory
    per byte of the bus; row r of column g lies in memory ``r + g * max(1, lanes / groups)``, modulo their number,
    so that neither the rows of a column nor the columns of a row meet in one.

    Members
    -------
    source : In(stream of bus words), target : Out(stream of bus words)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        word = unsigned(8 * config.bus_bytes)
        super().__init__({"source": In(stream.Signature(word)), "target": Out(stream.Signature(word))})

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        bus, groups, rows = cfg.bus_bytes, cfg.groups, cfg.rows
        bits = bus.bit_length() - 1
        count = groups * rows // bus
        parts = rows // bus  # bus words in a column
        at_once = max(1, bus // groups)  # rows in a bus word
        pieces = max(1, groups // bus)  # bus words in a row
        number = Signal(range(count))
        giving = Signal()
        fetched = Signal()  # what the memories gave waits to be turned straight
        advance = Signal()
        m.d.comb += [
            self.source.ready.eq(~giving),
            self.target.valid.eq(fetched),
            advance.eq(~fetched | self.target.ready),
        ]
        with m.If(advance):
            m.d.sync += fetched.eq(giving)
        taken = self.source.valid & self.source.ready
        with m.If(taken | (giving & advance)):
            m.d.sync += number.eq(number + 1)
            with m.If(number == count - 1):
                m.d.sync += [number.eq(0), giving.eq(~giving)]

        column, row = Signal(range(groups)), Signal(range(rows))
        m.d.comb += [column.eq(number // parts), row.eq(number // pieces * at_once)]
        turn = Signal(bits)
        m.d.comb += turn.eq(Mux(giving, row, column * at_once))
        stored = [self.source.payload[8 * i :][:8] for i in range(bus)]
        read: list[Value] = []
        for i, byte in enumerate(_rotated(stored, turn)):
            kept = m.submodules[f"bytes_{i}"] = memory.Memory(shape=unsigned(8), depth=count, init=[])
            write, used = kept.write_port(), kept.read_port(domain="comb")
            distance = (Const(i, bits) - turn)[:bits]  # from the word's first row and column
            first = (number % pieces) * bus if groups >= bus else 0
            column_read = first + (distance >> (at_once.bit_length() - 1))
            m.d.comb += [
                write.addr.eq(number),
                write.data.eq(byte),
                write.en.eq(taken),
                used.addr.eq(column_read * parts + (row >> bits)),
            ]
            byte_read = Signal(8, name=f"byte_{i}", reset_less=True)
            with m.If(advance):
                m.d.sync += byte_read.eq(used.data)
            read.append(byte_read)
        back = Signal(bits, reset_less=True)
        with m.If(advance):
            m.d.sync += back.eq(-turn)
        straight = _rotated(read, back)
        order = [r + g * at_once for r in range(at_once) for g in range(min(groups, bus))]
        m.d.comb += self.target.payload.eq(Cat(straight[i] for i in order))
        return m


def _rotated(lanes: Sequence[Value], places: Value) -> list[Value]:
    """Lane i goes to lane ``i + places``, modulo their number."""
    result = list(lanes)
    for bit in range(len(places)):
        turned = result[-(1 << bit) :] + result[: -(1 << bit)]
        result = [Mux(places[bit], b, a) for a, b in zip(result, turned, strict=True)]
    return result
