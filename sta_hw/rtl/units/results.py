"""The result path: the order in which the drain's columns go to memory or to the softmax, and when they are there.

Per product: stored as they are; through the activation table and a second per-column requantization;
added to the residual stream; transposed, to become weights; or handed to the softmax. With the features of these names
also columns through the table times their neighbours (gate), pairs of columns turned by angles of their rows (rotary),
and the largest results of each row alone (best).
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.isa import Result
from ..bus.axi import ADDRESS_BITS
from ..bus.runs import APART, row_range, run_layout, store_layout
from ..primitives.layouts import COUNT_BITS, UNDER_WAY_BITS, result_layout
from .attention import block_layout
from .best import LIST_BYTES, Best
from .result_arithmetic import ArithmeticPorts, arithmetic
from .rotary import Rotary

__all__ = ["ResultPath", "result_order_layout"]

_MOST_HELD = 8
"""Products that wait to be counted, a power of two; one more may be at its end."""


def result_order_layout(config: Config) -> data.StructLayout:
    """What to do with one product's results."""
    flags = {"gate": "multiply", "rotary": "rotate", "digits": "bits15", "apart": "apart"}
    more = {flag: unsigned(1) for feature, flag in flags.items() if feature in config.abilities}
    return data.StructLayout(
        {
            "mode": unsigned(3),  # isa.Result
            "scores": unsigned(1),  # to the softmax instead
            "seconds": unsigned(1),  # columns come with second multipliers
            "columns": unsigned(16),
            "address": unsigned(ADDRESS_BITS),
            "residual_address": unsigned(ADDRESS_BITS),
            **row_range(config),
            "block": block_layout(config),
            **more,
            "instruction": unsigned(COUNT_BITS),
        }
    )


class ResultPath(wiring.Component):
    """Product after product, `drain_lanes` results a cycle.

    Members
    -------
    order : In(stream of result_order_layout)
        One per product with results, in order.
    results : In(stream of result_layout)
        The engine's.
    seconds : In(stream of unsigned(16))
        One second multiplier per column of the products that have them.
    table_enable, table_address, table_data : In
        Write port of the activation table: 256 entries of 16 bits, index 0 first (as unsigned).
    residual_run : Out(stream of run_layout), residual : In(stream of bus words)
        The residual stream is read like the results are stored.
    store_run : Out(stream of run_layout), store : Out(stream of bus words), stored : In(1)
        To memory; `stored` when a run is there.
    block, scores : Out(streams)
        To the softmax.
    scored : Out(1)
        When a product's scores are in the softmax.
    done : Out(UNDER_WAY_BITS)
        Products finished in this cycle: `scored`, `stored`, and `listed`, those that memory does not answer for only
        when all before them are: who waits for all but the last few counts on their order.
    listed : Out(1)
        With feature best: a product's results are in the lists, and nothing of it goes to memory; counted in `done`.
    saturated : Out(2)
        Results on their way to memory, one at least of which is an end of its range: 16 bits, 8 bits.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        word = stream.Signature(unsigned(8 * config.bus_bytes))
        super().__init__(
            {
                "order": In(stream.Signature(result_order_layout(config))),
                "results": In(stream.Signature(result_layout(config))),
                "seconds": In(stream.Signature(unsigned(16))),
                "table_enable": In(1),
                "table_address": In(8),
                "table_data": In(16),
                "residual_run": Out(stream.Signature(run_layout())),
                "residual": In(word),
                "store_run": Out(stream.Signature(store_layout(config))),
                "store": Out(word),
                "stored": In(1),
                "block": Out(stream.Signature(block_layout(config))),
                "scores": Out(stream.Signature(data.ArrayLayout(signed(16), config.drain_lanes))),
                "scored": Out(1),
                "done": Out(UNDER_WAY_BITS),
                "saturated": Out(2),
                **({"listed": Out(1)} if "best" in config.features else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        now = _now(cfg)
        crowded = Signal(name="_crowded")  # as many products are held as may be
        self._take_order(m, now, crowded)
        self._ask_for_runs(m, now)

        changed = self._changed(m, now) if {"rotary", "best"} & {*cfg.features} else _Changed(self.results, None, None)
        given, best = changed.given, changed.best
        beat = given.payload
        computes = Signal()
        m.d.comb += computes.eq(now.active & ~now.order.scores)
        go = arithmetic(
            m, cfg,
            ArithmeticPorts(
                now.order, computes, now.largest, now.mode, given, self.seconds, self.residual, self.store,
                changed.rotary.table if changed.rotary is not None else None,
                self.store_run.valid | self.residual_run.valid,
                self.table_enable, self.table_address, self.table_data, self.saturated,
            ),
        )  # fmt: skip
        to_scores = now.active & now.order.scores & ~now.block_wanted
        m.d.comb += [
            *(self.scores.payload[i].eq(beat.values[i]) for i in range(cfg.drain_lanes)),
            self.scores.valid.eq(to_scores & given.valid),
            given.ready.eq(Mux(to_scores, self.scores.ready, go)),
        ]
        m.d.comb += self.scored.eq(to_scores & given.valid & self.scores.ready & beat.last)
        with m.If((given.valid & given.ready & beat.last) & ~now.store_wanted & ~now.residual_wanted):
            m.d.sync += now.active.eq(0)
        if best is not None:
            with m.If(best.done):
                m.d.sync += now.active.eq(0)
        new = self.order.payload
        stores = ~new.scores
        if best is not None:
            stores = stores & ((new.mode != Result.BEST) | new.block.last)
        self._count(m, self.order.valid & self.order.ready & stores, crowded)
        return m

    def _take_order(self, m: Module, now: _Now, crowded: Value) -> None:
        """Take an order when its first result is there: what it reads has then been waited for; decode its mode."""
        has = self.config.features
        m.d.comb += self.order.ready.eq(~now.active & self.results.valid & ~crowded)
        with m.If(self.order.valid & self.order.ready):
            new = self.order.payload
            two_bytes = (new.mode == Result.STORE16) | (new.mode == Result.RESIDUAL)
            if "digits" in has:
                two_bytes = two_bytes | new.bits15
            m.d.sync += [
                now.order.eq(new),
                now.active.eq(1),
                now.block_wanted.eq(new.scores),
                now.store_wanted.eq(~new.scores),
                now.residual_wanted.eq(~new.scores & (new.mode == Result.RESIDUAL)),
                now.activate.eq(new.mode == Result.ACTIVATE),
                now.adding.eq(new.mode == Result.RESIDUAL),
                now.wide.eq(two_bytes),
                now.transpose.eq(new.mode == Result.TRANSPOSE),
            ]
            if "rotary" in has:
                m.d.sync += now.residual_wanted.eq(~new.scores & ((new.mode == Result.RESIDUAL) | new.rotate))
            if "best" in has:
                m.d.sync += [
                    now.largest.eq(~new.scores & (new.mode == Result.BEST)),
                    now.wide.eq(two_bytes | (new.mode == Result.BEST)),
                    now.store_wanted.eq(~new.scores & ((new.mode != Result.BEST) | new.block.last)),
                ]

    def _ask_for_runs(self, m: Module, now: _Now) -> None:
        """The runs of the product's results and of what is added to them; the softmax's block."""
        cfg, has, order = self.config, self.config.features, now.order
        words_per_column = cfg.rows // cfg.bus_bytes
        columns = Mux(order.multiply, order.columns >> 1, order.columns) if "gate" in has else order.columns
        if "best" in has:  # lists are stored as so many columns of 16 bits are
            columns = Mux(now.largest, LIST_BYTES // 2, columns)
        m.d.comb += [
            self.block.payload.eq(order.block),
            self.block.valid.eq(now.block_wanted),
            self.store_run.payload.address.eq(order.address),
            self.store_run.payload.beats.eq((columns * words_per_column) << now.wide),
            self.store_run.payload.instruction.eq(order.instruction),
            *(self.store_run.payload[f].eq(order[f]) for f in row_range(cfg)),
            self.store_run.payload.kind.eq(Cat(now.wide, now.transpose)),
            self.store_run.valid.eq(now.store_wanted),
            self.residual_run.payload.address.eq(order.residual_address),
            self.residual_run.payload.beats.eq((order.columns * words_per_column) << 1),
            self.residual_run.payload.instruction.eq(order.instruction),
            self.residual_run.valid.eq(now.residual_wanted),
        ]
        if "apart" in cfg.abilities:
            part, factor = self.store_run.payload.part, (cfg.groups // cfg.rows).bit_length() - 1
            m.d.comb += part.eq(order.address[cfg.rows.bit_length() - 1 :][: len(part)])
            with m.If(order.apart):
                m.d.comb += [
                    Value.cast(self.store_run.payload.kind).eq(APART),
                    self.store_run.payload.beats.eq((order.columns * words_per_column) << factor),
                ]
        if "best" in has:  # of lists all is stored
            with m.If(now.largest):
                m.d.comb += [self.store_run.payload[f].eq(0) for f in row_range(cfg)]
        for run, wanted in (
            (self.store_run, now.store_wanted),
            (self.residual_run, now.residual_wanted),
            (self.block, now.block_wanted),
        ):
            with m.If(wanted & run.ready):
                m.d.sync += wanted.eq(0)

    def _count(self, m: Module, begun: Value, crowded: Signal) -> None:
        """Products finished: one that leaves the chip when memory has answered, others not before those ahead of them.

        `begun`: a product's results begin whose store is to come. No other product begins while `_MOST_HELD` are held,
        so that no more are under way than counts of instructions hold.
        """
        outstanding = Signal(UNDER_WAY_BITS)  # stores that memory has not answered
        behind = Signal(UNDER_WAY_BITS)  # of those, how many came before the last product that stores nothing
        held = Signal(range(2 * _MOST_HELD))  # such products, which are finished and not counted
        m.d.comb += crowded.eq(held[-1])
        finished = self.scored + self.listed if "best" in self.config.features else self.scored
        none = Signal()
        m.d.comb += [
            none.eq(outstanding == self.stored),
            self.done.eq(self.stored + Mux(none, finished, 0) + Mux(none | (behind == 0), held, 0)),
        ]
        m.d.sync += [
            outstanding.eq(outstanding + begun - self.stored),
            held.eq(Mux(none | (behind == 0), 0, held) + Mux(none, 0, finished)),
        ]
        with m.If(finished):
            m.d.sync += behind.eq(outstanding - self.stored)
        with m.Elif(self.stored & (behind != 0)):
            m.d.sync += behind.eq(behind - 1)

    def _changed(self, m: Module, now: _Now) -> _Changed:
        """The results, but those of products that are rotated or of which the largest alone are wanted."""
        cfg, order, active = self.config, now.order, now.active
        given = stream.Signature(result_layout(cfg)).create(path=("given",))
        results = self.results
        m.d.comb += [
            given.payload.eq(results.payload),
            given.valid.eq(results.valid),
            results.ready.eq(given.ready),
        ]
        over = Signal()  # all of the product's results are in the unit that changes them
        with m.If(~active):
            m.d.sync += over.eq(0)
        with m.Elif(results.valid & results.ready & results.payload.last):
            m.d.sync += over.eq(1)

        def through(unit: Rotary | Best, used: Value) -> None:
            with m.If(active & used):
                m.d.comb += [
                    unit.source.valid.eq(results.valid & ~over),
                    results.ready.eq(unit.source.ready & ~over),
                    given.payload.eq(unit.target.payload),
                    given.valid.eq(unit.target.valid),
                ]
            m.d.comb += [unit.source.payload.eq(results.payload), unit.target.ready.eq(given.ready & active & used)]

        rotary = best = None
        if "rotary" in cfg.features:
            rotary = m.submodules.rotary = Rotary(cfg)
            through(rotary, order.rotate)
        if "best" in cfg.features:
            best = m.submodules.best = Best(cfg)
            through(best, now.largest)
            self._order_best(m, now, best)
        return _Changed(given, rotary, best)

    def _order_best(self, m: Module, now: _Now, best: Best) -> None:
        """To the lists goes each product of which the largest results are wanted; tell when its results are in them."""
        order = now.order
        wanted, waits = Signal(name="best_wanted"), Signal(name="listed_waits")
        with m.If(self.order.valid & self.order.ready):
            m.d.sync += wanted.eq(~self.order.payload.scores & (self.order.payload.mode == Result.BEST))
        with m.Elif(best.order.ready):
            m.d.sync += wanted.eq(0)
        # Not in a cycle in which a product's results are in memory: whoever counts sees one at a time.
        m.d.comb += self.listed.eq(waits & ~self.stored)
        m.d.sync += waits.eq(best.done | (waits & self.stored))
        m.d.comb += [
            best.order.valid.eq(wanted),
            best.order.payload.first.eq(order.block.first),
            best.order.payload.last.eq(order.block.last),
            best.order.payload.number.eq(order.residual_address),
        ]


@dataclass(frozen=True)
class _Now:
    """The product whose results come.

    Attributes
    ----------
    order : view of result_order_layout
    active : Signal
        There is one.
    residual_wanted, store_wanted, block_wanted : Signal
        What it reads, what it stores, its block of keys: still to be asked for, or given.
    largest : Signal
        The rows' largest results alone are wanted.
    activate, adding, wide, transpose : Signal
        Its mode, decoded once.
    mode : Value
        The same and, with feature apart, rows apart, as `ArithmeticPorts` has them.
    """

    order: data.View
    active: Signal
    residual_wanted: Signal
    store_wanted: Signal
    block_wanted: Signal
    largest: Signal
    activate: Signal
    adding: Signal
    wide: Signal
    transpose: Signal
    mode: Value


def _now(config: Config) -> _Now:
    """None at first."""
    order = Signal(result_order_layout(config), reset_less=True)
    active = Signal()
    residual_wanted = Signal()
    store_wanted = Signal()
    block_wanted = Signal()
    largest = Signal()
    activate, adding, wide, transpose = (
        Signal(name=n, reset_less=True) for n in ("activate", "adding", "wide", "transpose")
    )
    mode = Cat(activate, adding, wide, transpose)
    if "apart" in config.abilities:
        mode = Cat(mode, order.apart)
    return _Now(
        order, active, residual_wanted, store_wanted, block_wanted, largest, activate, adding, wide, transpose, mode
    )


@dataclass(frozen=True)
class _Changed:
    """The results as they are given on.

    Attributes
    ----------
    given : stream of result_layout
    rotary, best : the units that change them, with the features of these names
    """

    given: stream.Interface
    rotary: Rotary | None
    best: Best | None
