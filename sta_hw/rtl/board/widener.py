"""From the accelerator's AXI4 bus to a wider one, as controllers have it whose word is a whole burst of the chip."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring

from ..bus.axi import master_ports
from ..primitives.queue import Queue

__all__ = ["Widener"]

_BURSTS = 32
"""Bursts under way at most, of each direction."""


class Widener(wiring.Component):
    """Bursts of narrow words as bursts of wide ones, whatever word they begin and end with.

    A narrow word a cycle, either way. LiteDRAM's own converter waits for each wide word before it asks for the next.

    Parameters
    ----------
    narrow, wide : int
        Bytes of the words; `wide` is `narrow` times a power of two.

    Members
    -------
    s_axi_* : AXI4 slave, INCR bursts of whole narrow words
        ``rready`` and ``bready`` are taken as set.
    m_axi_* : AXI4 master
        What of a wide word a write's burst does not have is not enabled. Data are offered whether or not their address
        has been taken.
    """

    def __init__(self, narrow: int, wide: int) -> None:
        self.narrow, self.wide = narrow, wide
        self.parts = wide // narrow
        slave = {name.replace("m_axi", "s_axi"): member.flip() for name, member in master_ports(narrow).items()}
        super().__init__(slave | master_ports(wide))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reads = self._addresses(m, "ar")
        writes = self._addresses(m, "aw")
        self._read(m, reads)
        self._write(m, writes)
        m.d.comb += [
            self.m_axi_bready.eq(1), self.s_axi_bvalid.eq(self.m_axi_bvalid), self.s_axi_bresp.eq(self.m_axi_bresp),
            self.s_axi_bid.eq(self.m_axi_bid),
        ]  # fmt: skip
        return m

    def _addresses(self, m: Module, channel: str) -> Queue:
        """Addresses of wide words; the queue has of each burst its first part of a word, and its length."""

        def of(side: str, name: str) -> Value:
            return getattr(self, f"{side}_axi_{channel}{name}")

        low = self.narrow.bit_length() - 1
        bits = self.parts.bit_length() - 1
        address, length = of("s", "addr"), of("s", "len")
        first = address[low : low + bits]
        bursts = m.submodules[f"{channel}_bursts"] = Queue(width=bits + len(length), depth=_BURSTS)
        ahead = m.submodules[f"{channel}_ahead"] = Queue(width=len(address) + len(length) + 3, depth=4)
        both = of("s", "valid") & bursts.w_rdy & ahead.w_rdy
        last = Signal(len(length) + 1, name=f"{channel}_last")
        m.d.comb += [
            of("s", "ready").eq(bursts.w_rdy & ahead.w_rdy),
            last.eq(first + length),
            bursts.w_data.eq(Cat(first, length)),
            ahead.w_data.eq(Cat(Const(0, low + bits), address[low + bits :], last[bits:], *[Const(0)] * (bits - 1))),
            bursts.w_en.eq(both),
            ahead.w_en.eq(both),
            of("m", "addr").eq(ahead.r_data[: len(address)]),
            of("m", "len").eq(ahead.r_data[len(address) :]),
            of("m", "size").eq(self.wide.bit_length() - 1),
            of("m", "burst").eq(1),
            of("m", "valid").eq(ahead.r_rdy),
            ahead.r_en.eq(of("m", "ready")),
        ]
        return bursts

    def _place(self, m: Module, bursts: Queue, step: Value, name: str) -> tuple[Signal, Value]:
        """The part of a word that is next, and whether the burst ends with it; a word is done with at each `step`."""
        bits = self.parts.bit_length() - 1
        begun = Signal(name=f"{name}_begun")
        part, part_kept = Signal(bits, name=f"{name}_part"), Signal(bits, name=f"{name}_part_kept")
        left, left_kept = Signal(8, name=f"{name}_left"), Signal(8, name=f"{name}_left_kept")
        m.d.comb += [part.eq(bursts.r_data[:bits]), left.eq(bursts.r_data[bits:])]
        with m.If(begun):
            m.d.comb += [part.eq(part_kept), left.eq(left_kept)]
        ends = left == 0
        with m.If(step):
            m.d.sync += [begun.eq(~ends), part_kept.eq(part + 1), left_kept.eq(left - 1)]
        m.d.comb += bursts.r_en.eq(step & ends)
        return part, ends

    def _read(self, m: Module, bursts: Queue) -> None:
        step = self.m_axi_rvalid & bursts.r_rdy
        part, ends = self._place(m, bursts, step, "read")
        m.d.comb += self.m_axi_rready.eq(bursts.r_rdy & (ends | part.all()))
        m.d.sync += [
            self.s_axi_rvalid.eq(step),
            self.s_axi_rdata.eq(self.m_axi_rdata.word_select(part, 8 * self.narrow)),
            self.s_axi_rlast.eq(ends), self.s_axi_rresp.eq(self.m_axi_rresp), self.s_axi_rid.eq(self.m_axi_rid),
        ]  # fmt: skip

    def _write(self, m: Module, bursts: Queue) -> None:
        full = self.m_axi_wvalid
        free = ~full | self.m_axi_wready
        step = self.s_axi_wvalid & bursts.r_rdy & free
        part, ends = self._place(m, bursts, step, "write")
        complete = ends | part.all()
        fresh = Signal(init=1)  # the next part begins a word
        m.d.comb += self.s_axi_wready.eq(bursts.r_rdy & free)
        with m.If(free):
            m.d.sync += full.eq(step & complete)
        with m.If(step):
            m.d.sync += [fresh.eq(complete), self.m_axi_wlast.eq(ends)]
            with m.If(fresh):
                m.d.sync += self.m_axi_wstrb.eq(0)
            m.d.sync += [
                self.m_axi_wdata.word_select(part, 8 * self.narrow).eq(self.s_axi_wdata),
                self.m_axi_wstrb.word_select(part, self.narrow).eq(self.s_axi_wstrb),
            ]
