"""Queues whose every output comes straight from a register, for timing: flags, and data of block RAM too."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Queue", "RegisterSlice", "capacity", "credits"]

_BLOCK_DEPTH = 64
"""From this depth the memory is block RAM, whose data get a register behind them."""


def _bits(depth: int) -> int:
    return max(2, (depth - 1).bit_length())


def capacity(depth: int) -> int:
    """Words that a `Queue` of this depth holds at most: those of its memory and of the registers behind it."""
    return (1 << _bits(depth)) + (2 if depth >= _BLOCK_DEPTH else 1)


class Queue(wiring.Component):
    """First in, first out. One word in and one out per cycle; 2 cycles from in to out, 3 from `_BLOCK_DEPTH` words on.

    Amaranth's ``SyncFIFOBuffered`` gives the same but compares levels behind its outputs, and Yosys puts multiplexers
    behind its block RAM, for a collision that cannot happen.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words it holds at least; the next power of two, from 4, is what its memory is given.

    Attributes
    ----------
    capacity : int
        Words it holds at most.

    Members
    -------
    w_data : In(width), w_en : In(1), w_rdy : Out(1)
        A word goes in when both are set.
    r_data : Out(width), r_rdy : Out(1), r_en : In(1)
        A word comes out when both are set.
    """

    def __init__(self, *, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        self.capacity = capacity(depth)
        super().__init__(
            {
                "w_data": In(width), "w_en": In(1), "w_rdy": Out(1, init=1),
                "r_data": Out(width), "r_rdy": Out(1), "r_en": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block, bits = self.depth >= _BLOCK_DEPTH, _bits(self.depth)
        # What is read was written in an earlier cycle, and nothing is written when all places are taken.
        attributes = {"no_rw_check": 1} | ({"ram_style": "block"} if block else {})
        storage = memory.Memory(shape=unsigned(self.width), depth=1 << bits, init=[], attrs=attributes)
        m.submodules.storage = storage
        write, read = storage.write_port(), storage.read_port()
        some = Signal()  # in the memory, not yet read
        put, get = Signal(), Signal()
        # Places counted once around more than there are, and one ahead: all is compared before `put` or `get` is known.
        heads = [Signal(bits + 1, init=i, name=f"head_{i}") for i in range(2)]
        tails = [Signal(bits + 1, init=i, name=f"tail_{i}") for i in range(2)]
        for step, places in ((put, tails), (get, heads)):
            with m.If(step):
                m.d.sync += [places[0].eq(places[1]), places[1].eq(places[1] + 1)]
        # In and and or: Yosys would share the comparator between a multiplexer's sides, behind `put` and `get`.
        full = [tail == (heads[0] ^ 1 << bits) for tail in tails]
        left = [tails[0] != head for head in heads]
        m.d.sync += [
            some.eq(put | (get & left[1]) | (~get & left[0])),
            self.w_rdy.eq(~((put & full[1]) | (~put & full[0]))),
        ]
        m.d.comb += [
            put.eq(self.w_en & self.w_rdy),
            write.addr.eq(tails[0]),
            write.en.eq(put),
            write.data.eq(self.w_data),
            read.addr.eq(heads[0]),
            read.en.eq(get),
        ]
        if block:
            fetched = Signal()
            move = Signal()
            given = Signal(self.width, reset_less=True)
            m.d.comb += [
                move.eq(~self.r_rdy | self.r_en),
                get.eq(some & (~fetched | move)),
                self.r_data.eq(given),
            ]
            with m.If(~fetched | move):
                m.d.sync += fetched.eq(some)
            with m.If(move):
                m.d.sync += [self.r_rdy.eq(fetched), given.eq(read.data)]
        else:
            m.d.comb += [get.eq(some & (~self.r_rdy | self.r_en)), self.r_data.eq(read.data)]
            with m.If(~self.r_rdy | self.r_en):
                m.d.sync += self.r_rdy.eq(some)
        return m


def credits(m: Module, name: str, count: int, take: Value, give: Value) -> Signal:
    """Whether any of `count` places is free, from a register, where each `take` uses one and each `give` frees one."""
    left = Signal(range(count + 1), init=count, name=f"{name}_left")
    some = Signal(init=1, name=f"{name}_some")
    m.d.sync += [left.eq(left - take + give), some.eq(give | (left > 1) | ((left == 1) & ~take))]
    return some


class RegisterSlice(wiring.Component):
    """Two registers in a stream: neither its data nor its handshake go through combinationally.

    One word per cycle, one cycle late. The members are those of `Queue`.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(
            {
                "w_data": In(width), "w_en": In(1), "w_rdy": Out(1, init=1),
                "r_data": Out(width), "r_rdy": Out(1), "r_en": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spare = Signal(self.width, reset_less=True)  # taken while the word before still waits
        given = Signal(self.width, reset_less=True)
        m.d.comb += self.r_data.eq(given)
        free = Signal()
        m.d.comb += free.eq(~self.r_rdy | self.r_en)
        with m.If(self.w_rdy):
            m.d.sync += spare.eq(self.w_data)
        with m.If(free):
            m.d.sync += [
                given.eq(Mux(self.w_rdy, self.w_data, spare)),
                self.r_rdy.eq(self.w_en | ~self.w_rdy),
                self.w_rdy.eq(1),
            ]
        with m.Else():
            m.d.sync += self.w_rdy.eq(self.w_rdy & ~self.w_en)
        return m
