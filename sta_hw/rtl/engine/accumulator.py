"""The accumulators: a running sum per row, a bank of partial sums, a bank of results.

A column's sum over one pass is collected in a register. Sums of unfinished columns wait in the sum
bank for the next pass; a column's final sum goes to the result bank, a ring from which the drain
takes it. So draining a tile overlaps computing the next, and both banks need one read port only.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config

__all__ = ["ACCUMULATOR_WIDTH", "HAZARD_CYCLES", "Accumulator", "Flags"]

ACCUMULATOR_WIDTH = 32
"""Bits of a sum; sums wrap modulo 2**32 (docs/numerics.md gives the shapes that cannot)."""

HAZARD_CYCLES = 5
"""A partial sum may be read this many cycles after the beat that completed it, or later."""

Flags = data.StructLayout(
    {
        "valid": unsigned(1),
        "first": unsigned(1),
        "last": unsigned(1),
        "first_pass": unsigned(1),
        "final_pass": unsigned(1),
        "pass_end": unsigned(1),
        "widen": unsigned(1),
        "rescale": unsigned(1),
    }
)
"""Where a beat stands in the loops, as it travels beside the data."""


class Accumulator(wiring.Component):
    """Accumulate the array's sums over beats and passes. It never stalls.

    Parameters
    ----------
    config : Config
        `rows`, `columns`.
    sum_width : int
        Bits of an incoming sum.
    delay : int
        Cycles by which `sums` come after their `flags`, at least 3.
    plain : bool
        No beat has `widen` set; with feature digits those of a pass for which stored sums shift left by 7, not 8.

    Members
    -------
    flags : In(Flags)
        The beat that enters the array now.
    sums : In(rows x signed(sum_width))
        The sums of the beat whose flags came `delay` cycles before.
    halve : In(rows)
        Rows whose stored sums beats with `rescale` shift right by one, rounding down.
    written : Out(1)
        A result column was written to the ring.
    read_address : In(log2 columns), read_data : Out(rows x signed(32))
        Read port of the result ring; the data come 2 cycles later.
    """

    def __init__(self, config: Config, sum_width: int, delay: int, *, plain: bool = False) -> None:
        if delay < 3:
            raise ValueError(f"delay must be at least 3 cycles, not {delay}")
        self.config, self.sum_width, self.delay, self.plain = config, sum_width, delay, plain
        super().__init__(
            {
                "flags": In(Flags),
                "sums": In(data.ArrayLayout(signed(sum_width), config.rows)),
                "halve": In(config.rows),
                "written": Out(1),
                "read_address": In(range(config.columns)),
                "read_data": Out(data.ArrayLayout(signed(ACCUMULATOR_WIDTH), config.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        row_bits = ACCUMULATOR_WIDTH * cfg.rows

        # The flags of the beat at each stage; stage `delay` meets the sums.
        stages = [self.flags]
        for i in range(1, self.delay + 2):
            stage = Signal(Flags, name=f"flags_{i}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        reading, meeting, storing = (stages[self.delay + offset] for offset in (-3, 0, 1))

        # Ports collide on no address (HAZARD_CYCLES, ring occupancy), so no bypass is asked for.
        attributes = {"no_rw_check": 1}
        shape = unsigned(row_bits)
        sum_bank = m.submodules.sum_bank = memory.Memory(shape=shape, depth=cfg.columns, init=[], attrs=attributes)
        results = m.submodules.result_bank = memory.Memory(shape=shape, depth=cfg.columns, init=[], attrs=attributes)
        sum_read, sum_write = sum_bank.read_port(), sum_bank.write_port()
        result_read, result_write = results.read_port(), results.write_port()

        # Partial sums come back: memory, plain register, then the shift for a second byte plane.
        read_column = Signal(range(cfg.columns))
        m.d.comb += [sum_read.addr.eq(read_column), sum_read.en.eq(1)]
        with m.If(reading.valid & reading.last):
            m.d.sync += read_column.eq(Mux(reading.pass_end, 0, read_column + 1))
        # No reset, enable or logic before the registers behind the memories: they are the block RAM's own on ECP5.
        fetched = Signal(row_bits, reset_less=True)
        m.d.sync += fetched.eq(sum_read.data)
        preparing = stages[self.delay - 1]
        places = 8 if not self.plain else 7 if "digits" in cfg.features else 0
        widen = Signal()
        fresh = Signal()
        halve = Signal(cfg.rows, reset_less=True)
        m.d.comb += [widen.eq(0 if places == 0 else preparing.widen), fresh.eq(preparing.first_pass)]
        # One beat early, so that a row's choice comes from a register of its own.
        m.d.sync += halve.eq(Mux(stages[self.delay - 2].rescale, self.halve, 0))

        totals = []
        for r in range(cfg.rows):
            start = Signal(signed(ACCUMULATOR_WIDTH), name=f"start_{r}", reset_less=True)
            total = Signal(signed(ACCUMULATOR_WIDTH), name=f"total_{r}", reset_less=True)
            stored = fetched.word_select(r, ACCUMULATOR_WIDTH).as_signed()
            m.d.sync += start.eq(Mux(fresh, 0, Mux(widen, stored << (places or 8), Mux(halve[r], stored >> 1, stored))))
            with m.If(meeting.valid):
                m.d.sync += total.eq(Mux(meeting.first, start, total) + self.sums[r])
            totals.append(total)

        write_column = Signal(range(cfg.columns))
        ring_head = Signal(range(cfg.columns))
        # Registers of their own: they drive every bank's write enable.
        keep = Signal()
        completes = meeting.valid & meeting.last
        m.d.sync += [keep.eq(completes & ~meeting.final_pass), self.written.eq(completes & meeting.final_pass)]
        with m.If(keep | self.written):
            m.d.sync += write_column.eq(Mux(storing.pass_end, 0, write_column + 1))
        with m.If(self.written):
            m.d.sync += ring_head.eq(ring_head + 1)
        m.d.comb += [
            sum_write.addr.eq(write_column),
            sum_write.data.eq(Cat(*totals)),
            sum_write.en.eq(keep),
            result_write.addr.eq(ring_head),
            result_write.data.eq(Cat(*totals)),
            result_write.en.eq(self.written),
            result_read.addr.eq(self.read_address),
            result_read.en.eq(1),
        ]
        given = Signal(row_bits, reset_less=True)
        m.d.sync += given.eq(result_read.data)
        m.d.comb += self.read_data.as_value().eq(given)
        return m
