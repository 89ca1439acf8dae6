"""The loop nest over a matrix's stored weights: pass, column, sub-group, non-zero."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import command_layout

__all__ = ["Loops"]


class Loops(wiring.Component):
    """Where in its loops the current beat stands.

    All outputs come from registers or one gate behind them: every counter counts down and knows one
    step ahead that it will be at its end.

    Members
    -------
    command : In(command_layout), load : In(1)
        Start a matrix; the outputs describe its first beat from the next cycle on.
    step : In(1)
        Go to the next beat.
    base : Out(log2 window)
        Window address where the beat's sub-group begins, tap included.
    offset : Out(log2 window)
        The same without the tap.
    first : Out(1)
        First beat of a column.
    column_end, pass_end, matrix_end : Out(1)
        Last beat of a column, of a pass, of the matrix.
    first_pass, final_pass : Out(1)
    widen : Out(1)
        The pass before which sums shift left: by 8 (the engine alone: low bytes follow), or by 7 (`lift`).
    rescale : Out(1)
        First beat of a matrix whose sums are rescaled first.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "command": In(command_layout(config)),
                "load": In(1),
                "step": In(1),
                "base": Out(config.address_width),
                "offset": Out(config.address_width),
                "first": Out(1),
                "column_end": Out(1),
                "pass_end": Out(1),
                "matrix_end": Out(1),
                "first_pass": Out(1),
                "final_pass": Out(1),
                "widen": Out(1),
                "rescale": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        new = self.command
        lifts = new.continues & new.lift if "digits" in self.config.features else 0
        step = self.step
        nonzero_last = self._countdown(m, "nonzero", new.n, step)
        groups = Signal(6)
        m.d.comb += groups.eq(new.depth >> new.m_log2)
        group_last = self._countdown(m, "group", groups, step & nonzero_last)
        m.d.comb += self.column_end.eq(nonzero_last & group_last)
        column_last = self._countdown(m, "column", new.columns, step & self.column_end)
        m.d.comb += self.pass_end.eq(self.column_end & column_last)
        # A pass begins with the first tap, even if its columns are no multiple of the taps.
        tap_last = self._countdown(m, "tap", new.taps, step & self.column_end, restart=column_last)
        unfinished = Signal()
        pass_last = self._countdown(m, "pass", new.passes, step & self.pass_end)
        m.d.comb += [self.matrix_end.eq(self.pass_end & pass_last), self.final_pass.eq(pass_last & ~unfinished)]

        depth = Signal(6)
        group_size = Signal(6)
        tap_base = Signal.like(self.base)
        next_tap = Signal.like(self.base)
        m.d.comb += next_tap.eq(Mux(tap_last | column_last, 0, tap_base + depth))
        passes_to_widen = Signal(17)  # wide enough that 0 never comes down to 1 again
        with m.If(step):
            m.d.sync += [self.first.eq(self.column_end), self.rescale.eq(0)]
            with m.If(nonzero_last):
                m.d.sync += [self.base.eq(self.base + group_size), self.offset.eq(self.offset + group_size)]
            with m.If(self.column_end):
                m.d.sync += [self.base.eq(next_tap), self.offset.eq(0), tap_base.eq(next_tap)]
            with m.If(self.pass_end):
                m.d.sync += [
                    self.first_pass.eq(0),
                    self.widen.eq(passes_to_widen == 1),
                    passes_to_widen.eq(passes_to_widen - 1),
                ]
        with m.If(self.load):
            m.d.sync += [
                depth.eq(new.depth),
                group_size.eq(1 << new.m_log2),
                passes_to_widen.eq(new.widen_at),
                self.base.eq(0),
                self.offset.eq(0),
                tap_base.eq(0),
                self.first.eq(1),
                self.first_pass.eq(~new.continues),
                self.widen.eq(lifts),
                self.rescale.eq(new.continues & new.rescale),
                unfinished.eq(new.unfinished),
            ]
        return m

    def _countdown(self, m: Module, name: str, count: Value, advance: Value, restart: Value | int = 0) -> Signal:
        """A counter of `count` steps that starts over at its end; returns whether it is there."""
        size = Signal(len(count), name=f"{name}_size")
        single = Signal(name=f"{name}_single")
        left = Signal(len(count), name=f"{name}_left")
        last = Signal(name=f"{name}_last")
        with m.If(advance):
            with m.If(last | restart):
                m.d.sync += [left.eq(size), last.eq(single)]
            with m.Else():
                m.d.sync += [left.eq(left - 1), last.eq(left == 2)]
        with m.If(self.load):
            m.d.sync += [size.eq(count), left.eq(count), single.eq(count == 1), last.eq(count == 1)]
        return last
