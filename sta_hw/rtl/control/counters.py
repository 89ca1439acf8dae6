"""Many event counters in a memory and an adder for 15 of them."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

__all__ = ["Counters"]


_BANK = 15
"""Counters in a memory of their own: in so many cycles four bits hold what a counter has counted since its last visit,
and one cell of LUT RAM holds a bit of them all. A sixteenth would make each of them wider."""


class Counters(wiring.Component):
    """Counts of events, each wrapping at `width` bits.

    In each bank of up to 15, one after the other, a counter a cycle, what a small register has counted since the last
    visit is added to the counter's word in memory. A wide adder for each counter would be four times the logic, and
    the multiplexer that reads them as much again.

    Parameters
    ----------
    count : int
        Number of counters.
    width : int
        Bits of each.

    Members
    -------
    events : In(count)
        Each counter's increment in this cycle.
    clear : In(1)
        All become zero; events of this cycle are not counted.
    select : In(bits_for(count - 1))
        The counter to read.
    ready : Out(1)
        `value` is the selected counter's: one cycle in every `count`, or 15, the first after at most so many.
    value : Out(width)
        All events but those of the last two cycles.
    """

    def __init__(self, *, count: int, width: int = 32) -> None:
        self.count, self.width = count, width
        super().__init__(
            {
                "events": In(count), "clear": In(1), "select": In(bits_for(count - 1)),
                "ready": Out(1), "value": Out(width),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.count <= _BANK + 1:
            self._bank(m)
            return m
        low = m.submodules.low = Counters(count=_BANK, width=self.width)
        high = m.submodules.high = Counters(count=self.count - _BANK, width=self.width)
        of_high = self.select >= _BANK
        m.d.comb += [
            low.events.eq(self.events[:_BANK]),
            high.events.eq(self.events[_BANK:]),
            low.clear.eq(self.clear),
            high.clear.eq(self.clear),
            low.select.eq(self.select),
            high.select.eq(self.select - _BANK),
            self.ready.eq(Mux(of_high, high.ready, low.ready)),
            self.value.eq(Mux(of_high, high.value, low.value)),
        ]
        return m

    def _bank(self, m: Module) -> None:
        """All of them in one memory."""
        m.submodules.totals = totals = memory.Memory(shape=unsigned(self.width), depth=self.count, init=[])
        write, read = totals.write_port(), totals.read_port(domain="comb")
        index = Signal(range(self.count))
        m.d.sync += index.eq(Mux(index == self.count - 1, 0, index + 1))

        recent = Array(Signal(range(self.count + 1), name=f"recent_{i}") for i in range(self.count))
        for i, recently in enumerate(recent):
            m.d.sync += recently.eq(Mux(index == i, 0, recently) + self.events[i])
            with m.If(self.clear):
                m.d.sync += recently.eq(0)

        # A clear is a round of visits in which what the memory holds does not count.
        clearing = Signal(range(self.count + 1))
        with m.If(self.clear):
            m.d.sync += clearing.eq(self.count)
        with m.Elif(clearing.any()):
            m.d.sync += clearing.eq(clearing - 1)

        visited = Signal.like(index)
        total, addend = Signal(self.width), Signal(range(self.count + 1))
        m.d.sync += [
            visited.eq(index),
            total.eq(Mux(clearing.any(), 0, read.data)),
            addend.eq(recent[index]),
        ]
        m.d.comb += [
            read.addr.eq(index),
            self.value.eq(total + addend),
            write.addr.eq(visited),
            write.data.eq(self.value),
            write.en.eq(1),
            self.ready.eq(self.select == visited),
        ]
