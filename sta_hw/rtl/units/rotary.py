"""Rotary position embedding: pairs of neighbouring columns of results, turned by an angle that each row has of its own.

docs/numerics.md has the arithmetic.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.arithmetic import saturated
from ..primitives.layouts import result_layout
from ..primitives.multiplier import Multiplier
from ..primitives.queue import Queue, credits

__all__ = ["Rotary"]

_SHIFT = 20
"""Fraction bits of cosines and sines, and those that results have before and not after."""
_DEPTH = 16


class Rotary(wiring.Component):
    """Columns x and y of results become ``x cos - y sin`` and ``x sin + y cos``, 8 bits each.

    A pair is taken, and then given: ``6 * rows / drain_lanes`` cycles, with one multiplier for each lane.

    Parameters
    ----------
    config : Config

    Members
    -------
    source, target : In, Out(streams of result_layout)
        Column after column, all rows of one together; `last` is a product's, at the end of a pair.
    table : In(stream of drain_lanes x signed(16))
        In the same order: for x the rows' cosines, for y their sines, with 14 fraction bits.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        results = stream.Signature(result_layout(config))
        super().__init__(
            {
                "source": In(results),
                "table": In(stream.Signature(data.ArrayLayout(signed(16), config.drain_lanes))),
                "target": Out(results),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        lanes = cfg.drain_lanes
        words = 2 * (cfg.rows // lanes)  # of a pair
        bits = words.bit_length() - 1
        computing, last = Signal(), Signal()
        between = Signal(init=1)  # products: factors that are there are those of something else, perhaps
        # Both columns, and both factors, are there before the first is given.
        reads = []
        complete = []
        for name, source in (("results", self.source), ("factors", self.table)):
            values = source.payload.values if name == "results" else source.payload
            store = m.submodules[name] = memory.Memory(shape=unsigned(16 * lanes), depth=words, init=[])
            write, read = store.write_port(), store.read_port(domain="comb")
            place, full = Signal(range(words), name=f"{name}_place"), Signal(name=f"{name}_full")
            taken = source.valid & source.ready
            m.d.comb += [
                source.ready.eq(~full if name == "results" else ~full & ~between),
                write.addr.eq(place),
                write.data.eq(Cat(values[i] for i in range(lanes))),
                write.en.eq(taken),
            ]
            with m.If(taken):
                m.d.sync += [place.eq(place + 1), full.eq(place == words - 1)]
            reads.append(read)
            complete.append(full)
        with m.If(self.source.valid & self.source.ready):
            m.d.sync += [last.eq(self.source.payload.last), between.eq(0)]

        # A step multiplies one of a pair's columns: x first, then y, whose product is added to x's.
        queue = m.submodules.queue = Queue(width=8 * lanes + 1, depth=_DEPTH)
        step, ends = Signal(), Signal()
        number = Signal(bits + 1)  # second of two products, then the part, then which column is given
        second, given = number[0], number[-1]
        room = credits(m, "room", _DEPTH, step & second, queue.r_rdy & queue.r_en)
        m.d.comb += [
            computing.eq(complete[0] & complete[1]),
            step.eq(computing & (room | second)),
            ends.eq(step & number.all()),
            reads[0].addr.eq(Cat(number[1:-1], second)),
            reads[1].addr.eq(Cat(number[1:-1], second ^ given)),
        ]
        with m.If(step):
            m.d.sync += number.eq(number + 1)
        with m.If(ends):
            m.d.sync += [*(full.eq(0) for full in complete), between.eq(last)]

        flags = [Cat(step & second, second & ~given, ends & last)]
        for k in range(Multiplier.latency + 3):
            stage = Signal(3, name=f"flags_{k + 1}")
            m.d.sync += stage.eq(flags[-1])
            flags.append(stage)
        results = []
        for i in range(lanes):
            value, factor = (Signal(signed(16), name=f"{n}_{i}", reset_less=True) for n in ("value", "factor"))
            multiplier = m.submodules[f"multiplier_{i}"] = Multiplier(16, 16, cfg.vector_multiplier)
            held = Signal(signed(32), name=f"held_{i}", reset_less=True)
            total = Signal(signed(34), name=f"total_{i}", reset_less=True)
            result = Signal(signed(8), name=f"result_{i}", reset_less=True)
            product = Mux(flags[1 + Multiplier.latency][1], -multiplier.p, multiplier.p)
            m.d.sync += [
                value.eq(reads[0].data[16 * i :][:16].as_signed()),
                factor.eq(reads[1].data[16 * i :][:16].as_signed()),
                held.eq(multiplier.p),
                total.eq(held + product + (1 << _SHIFT - 1)),
                result.eq(saturated(total >> _SHIFT, 8)),
            ]
            m.d.comb += [multiplier.a.eq(value), multiplier.b.eq(factor)]
            results.append(result)
        m.d.comb += [
            queue.w_en.eq(flags[-1][0]),
            queue.w_data.eq(Cat(*results, flags[-1][2])),
            *(self.target.payload.values[i].eq(queue.r_data[8 * i :][:8].as_signed()) for i in range(lanes)),
            self.target.payload.last.eq(queue.r_data[-1]),
            self.target.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.target.ready),
        ]
        return m
