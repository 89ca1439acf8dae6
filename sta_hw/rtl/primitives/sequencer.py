"""On-chip memories that are filled by the loader and read as streams, in the order of nested counters."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .queue import Queue, credits

__all__ = ["Gearbox", "StreamedMemory", "order_layout"]

_QUEUE_DEPTH = 8
_ORDERS_AHEAD = 4


def order_layout(levels: int) -> data.StructLayout:
    """Where to read: a base, and for each nested counter (innermost first) its count and stride in words."""
    fields: dict[str, Value] = {"base": unsigned(16)}
    for level in range(levels):
        fields |= {f"count{level}": unsigned(16), f"stride{level}": unsigned(16)}
    return data.StructLayout(fields)


class StreamedMemory(wiring.Component):
    """A memory written word by word and read as streams, one word per cycle.

    Latency from an order to its first word: 7 cycles, 2 of them in the queue of orders; an order's words follow the
    last one's after a cycle without one.

    Parameters
    ----------
    width, depth : int
        Bits of a word; words.
    levels : int
        Nested counters of an order.

    Members
    -------
    write_enable, write_address, write_data : In
    order : In(stream of order_layout)
        Up to 4 ahead. All counts at least 1.
    words : Out(stream of {word, last})
        The last word of an order is marked.
    """

    def __init__(self, width: int, depth: int, levels: int) -> None:
        self.width, self.depth, self.levels = width, depth, levels
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(range(depth)),
                "write_data": In(width),
                "order": In(stream.Signature(order_layout(levels))),
                "words": Out(stream.Signature(data.StructLayout({"word": unsigned(width), "last": unsigned(1)}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = order_layout(self.levels)
        orders = m.submodules.orders = Queue(width=layout.size, depth=_ORDERS_AHEAD)
        m.d.comb += [
            orders.w_data.eq(self.order.payload),
            orders.w_en.eq(self.order.valid),
            self.order.ready.eq(orders.w_rdy),
        ]
        new = data.View(layout, orders.r_data)
        queue = m.submodules.queue = Queue(width=self.width + 1, depth=_QUEUE_DEPTH)
        busy = Signal()
        step = Signal()
        load = Signal()
        at_end = Signal()
        room = credits(m, "room", _QUEUE_DEPTH, step, queue.r_rdy & queue.r_en)
        address = Signal(16, reset_less=True)
        m.d.comb += [
            step.eq(busy & room),
            load.eq(orders.r_rdy & ~busy),
            orders.r_en.eq(load),
        ]
        bases = [address] + [Signal(16, name=f"base_{i}", reset_less=True) for i in range(1, self.levels)]
        strides = [Signal(16, name=f"stride_{i}", reset_less=True) for i in range(self.levels)]
        ends: list[Value] = []
        for level in range(self.levels):
            size = Signal(16, name=f"size_{level}", reset_less=True)
            left = Signal(16, name=f"left_{level}", reset_less=True)
            last = Signal(name=f"last_{level}")
            single = Signal(name=f"single_{level}", reset_less=True)
            advance = step & Cat(*ends).all() if ends else step
            with m.If(advance):
                m.d.sync += [left.eq(Mux(last, size, left - 1)), last.eq(Mux(last, single, left == 2))]
            count = new[f"count{level}"]
            with m.If(load):
                m.d.sync += [size.eq(count), left.eq(count), last.eq(count == 1), single.eq(count == 1)]
                m.d.sync += strides[level].eq(new[f"stride{level}"])
            ends.append(last)
        m.d.comb += at_end.eq(Cat(*ends).all())
        # The innermost counter that is not at its end advances; those inside it restart there. At the end of all it
        # does not matter where they go: the next order sets them.
        moved: Value = (bases[-1] + strides[-1])[:16]
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                moved = Mux(ends[level], moved, (bases[level] + strides[level])[:16])
            with m.If(load | (step & Cat(*ends[:level]).all() if level else step)):
                m.d.sync += bases[level].eq(Mux(busy, moved, new.base))
        with m.If(load):
            m.d.sync += busy.eq(1)
        with m.Elif(step & at_end):
            m.d.sync += busy.eq(0)

        # The compiler writes no word that an order under way reads.
        attributes = {"no_rw_check": 1, "ram_style": "block"}
        words = m.submodules.words = memory.Memory(
            shape=unsigned(self.width), depth=self.depth, init=[], attrs=attributes
        )
        write, read = words.write_port(), words.read_port()
        fetched = Signal(self.width, reset_less=True)
        flags = [Cat(step, at_end)]
        for i in range(2):
            stage = Signal(2, name=f"flags_{i}")
            m.d.sync += stage.eq(flags[-1])
            flags.append(stage)
        m.d.sync += fetched.eq(read.data)
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_enable),
            read.addr.eq(address),
            read.en.eq(1),
            queue.w_en.eq(flags[2][0]),
            queue.w_data.eq(Cat(fetched, flags[2][1])),
            self.words.valid.eq(queue.r_rdy),
            self.words.payload.eq(queue.r_data),
            queue.r_en.eq(self.words.ready),
        ]
        return m


class Gearbox(wiring.Component):
    """Words of one width from words of another; the wider is a power of two times the narrower.

    Low parts come first. Rate: one input or one output word per cycle, whichever is narrower.

    Members
    -------
    source : In(stream of source_bits), target : Out(stream of target_bits)
    flush : In(1)
        Forget what is left of the word under way; meanwhile nothing moves.
    """

    def __init__(self, source_bits: int, target_bits: int) -> None:
        wide, narrow = max(source_bits, target_bits), min(source_bits, target_bits)
        if wide % narrow or (wide // narrow) & (wide // narrow - 1):
            raise ValueError(f"{wide} bits are no power of two times {narrow}")
        self.source_bits, self.target_bits = source_bits, target_bits
        super().__init__(
            {
                "source": In(stream.Signature(unsigned(source_bits))),
                "target": Out(stream.Signature(unsigned(target_bits))),
                "flush": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        source, target = self.source, self.target
        if self.source_bits == self.target_bits:
            m.d.comb += [
                target.payload.eq(source.payload),
                target.valid.eq(source.valid),
                source.ready.eq(target.ready),
            ]
            return m
        if self.source_bits > self.target_bits:
            parts = self.source_bits // self.target_bits
            part = Signal(range(parts))
            words = Array(source.payload[i * self.target_bits :][: self.target_bits] for i in range(parts))
            m.d.comb += [
                target.payload.eq(words[part]),
                target.valid.eq(source.valid & ~self.flush),
                # A flush drops the rest of a word that was begun.
                source.ready.eq(Mux(self.flush, part != 0, target.ready & (part == parts - 1))),
            ]
            with m.If(target.valid & target.ready):
                m.d.sync += part.eq(part + 1)
        else:
            parts = self.target_bits // self.source_bits
            part = Signal(range(parts))
            word = Signal(self.target_bits, reset_less=True)
            full = Signal()
            m.d.comb += [
                target.payload.eq(word),
                target.valid.eq(full),
                source.ready.eq((~full | target.ready) & ~self.flush),
            ]
            with m.If(target.ready):
                m.d.sync += full.eq(0)
            with m.If(source.valid & source.ready):
                m.d.sync += [
                    word.eq(Cat(word, source.payload)[self.source_bits :]),
                    part.eq(part + 1),
                    full.eq(part == parts - 1),
                ]
            with m.If(self.flush):
                m.d.sync += full.eq(0)
        with m.If(self.flush):
            m.d.sync += part.eq(0)
        return m
