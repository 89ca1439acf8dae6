"""Results packed to bus words, as they are stored: in 8 or 16 bits, transposed, or rows apart."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream

from ...spec.config import Config
from ..primitives.queue import Queue
from ..primitives.sequencer import Gearbox
from .transposer import Transposer

__all__ = ["pack"]


def pack(m: Module, config: Config, queue: Queue, store: stream.Interface) -> None:
    """Bus words of 16-bit or 8-bit elements; transposed, apart, or neither: up to one a cycle, as results fill them.

    Parameters
    ----------
    queue : Queue
        Of `drain_lanes` results of 16 bits, and behind them how they are stored: in 16 bits, transposed, and with
        feature apart rows apart, a bit each.
    store : stream of bus words
    """
    lanes = config.drain_lanes
    words = [queue.r_data[16 * i :][:16] for i in range(lanes)]
    is_wide = queue.r_data[16 * lanes]
    flags = queue.r_data[16 * lanes :]
    wide = m.submodules.pack_wide = Gearbox(16 * lanes, 8 * config.bus_bytes)
    narrow = m.submodules.pack_narrow = Gearbox(8 * lanes, 8 * config.bus_bytes)
    transposer = m.submodules.transposer = Transposer(config)
    gate = m.submodules.output = Queue(width=8 * config.bus_bytes, depth=2)
    # A product's words leave before the next product's, of another kind, may enter.
    under_way = Signal(16)
    kind = Signal(len(flags))
    same = kind == flags
    entering = queue.r_rdy & same
    m.d.comb += [
        wide.source.payload.eq(Cat(*words)),
        wide.source.valid.eq(entering & is_wide),
        narrow.source.payload.eq(Cat(w[:8] for w in words)),
        narrow.source.valid.eq(entering & ~is_wide),
        queue.r_en.eq(same & Mux(is_wide, wide.source.ready, narrow.source.ready)),
        transposer.source.payload.eq(narrow.target.payload),
        transposer.source.valid.eq(narrow.target.valid & kind[1]),
        narrow.target.ready.eq(Mux(kind[1], transposer.source.ready, gate.w_rdy & ~kind[0])),
        wide.target.ready.eq(gate.w_rdy & kind[0]),
        transposer.target.ready.eq(gate.w_rdy & kind[1]),
    ]
    moved_in = queue.r_rdy & queue.r_en
    with m.If(kind[0]):
        m.d.comb += [gate.w_data.eq(wide.target.payload), gate.w_en.eq(wide.target.valid)]
    with m.Elif(kind[1]):
        m.d.comb += [gate.w_data.eq(transposer.target.payload), gate.w_en.eq(transposer.target.valid)]
    with m.Else():
        m.d.comb += [gate.w_data.eq(narrow.target.payload), gate.w_en.eq(narrow.target.valid)]
    empty, leaves = under_way == 0, gate.w_en & gate.w_rdy
    if "apart" in config.abilities:
        filling = _fill(m, config, kind[2] & ~kind[0], narrow, gate)
        empty, leaves = empty & ~filling, leaves & ~filling
    with m.If(queue.r_rdy & empty):
        m.d.sync += kind.eq(flags)
    steps = Mux(kind[0], config.bus_bytes // (2 * lanes), config.bus_bytes // lanes)
    m.d.sync += under_way.eq(under_way + moved_in - Mux(leaves, steps, 0))
    m.d.comb += [
        store.payload.eq(gate.r_data),
        store.valid.eq(gate.r_rdy),
        gate.r_en.eq(store.ready),
    ]


def _fill(m: Module, config: Config, apart: Value, narrow: Gearbox, gate: Queue) -> Signal:
    """Behind each column the words that are not its own, and not written; returns whether one of them is given."""
    own, others = config.rows // config.bus_bytes, (config.groups - config.rows) // config.bus_bytes
    number, left, filling = Signal(range(own)), Signal(range(others + 1)), Signal()
    m.d.comb += filling.eq(left != 0)
    with m.If(filling):
        m.d.comb += [narrow.target.ready.eq(0), gate.w_en.eq(1)]
        m.d.sync += left.eq(left - gate.w_rdy)
    with m.If(~filling & apart & gate.w_en & gate.w_rdy):
        m.d.sync += number.eq(Mux(number == own - 1, 0, number + 1))
        with m.If(number == own - 1):
            m.d.sync += left.eq(others)
    return filling
