"""The result path: what becomes of the drain's columns on their way to memory or to the softmax.

Per product: stored as they are; through the activation table and a second per-column requantization;
added to the residual stream; transposed, to become weights; or handed to the softmax. With the features of these names
also columns through the table times their neighbours (gate), pairs of columns turned by angles of their rows (rotary),
and the largest results of each row alone (best).
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.isa import Result
from ..bus.axi import ADDRESS_BITS
from ..bus.dma import APART, row_range, run_layout, store_layout
from ..primitives.arithmetic import at_limit, saturated
from ..primitives.layouts import COUNT_BITS, UNDER_WAY_BITS, result_layout
from ..primitives.multiplier import Multiplier
from ..primitives.queue import Queue, credits
from ..primitives.sequencer import Gearbox
from .attention import block_layout
from .best import LIST_BYTES, Best
from .rotary import Rotary
from .transposer import Transposer

__all__ = ["ResultPath", "result_order_layout"]

_MOST_HELD = 8
"""Products that wait to be counted, a power of two; one more may be at its end."""
_QUEUE_DEPTH = 16
_LATENCY = 5 + Multiplier.latency


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
        order = Signal(result_order_layout(cfg), reset_less=True)
        active = Signal()
        residual_wanted = Signal()
        store_wanted = Signal()
        block_wanted = Signal()
        largest = Signal()  # the rows' largest results alone
        # The mode, decoded once.
        activate, adding, wide, transpose = (
            Signal(name=n, reset_less=True) for n in ("activate", "adding", "wide", "transpose")
        )
        words_per_column = cfg.rows // cfg.bus_bytes
        has = cfg.features
        columns = Mux(order.multiply, order.columns >> 1, order.columns) if "gate" in has else order.columns
        if "best" in has:  # lists are stored as so many columns of 16 bits are
            columns = Mux(largest, LIST_BYTES // 2, columns)

        self._crowded = Signal()  # as many products are held as may be
        # An order is looked at when its first result is there: what it reads has then been waited for.
        m.d.comb += self.order.ready.eq(~active & self.results.valid & ~self._crowded)
        with m.If(self.order.valid & self.order.ready):
            new = self.order.payload
            two_bytes = (new.mode == Result.STORE16) | (new.mode == Result.RESIDUAL)
            if "digits" in has:
                two_bytes = two_bytes | new.bits15
            m.d.sync += [
                order.eq(new),
                active.eq(1),
                block_wanted.eq(new.scores),
                store_wanted.eq(~new.scores),
                residual_wanted.eq(~new.scores & (new.mode == Result.RESIDUAL)),
                activate.eq(new.mode == Result.ACTIVATE),
                adding.eq(new.mode == Result.RESIDUAL),
                wide.eq(two_bytes),
                transpose.eq(new.mode == Result.TRANSPOSE),
            ]
            if "rotary" in has:
                m.d.sync += residual_wanted.eq(~new.scores & ((new.mode == Result.RESIDUAL) | new.rotate))
            if "best" in has:
                m.d.sync += [
                    largest.eq(~new.scores & (new.mode == Result.BEST)),
                    wide.eq(two_bytes | (new.mode == Result.BEST)),
                    store_wanted.eq(~new.scores & ((new.mode != Result.BEST) | new.block.last)),
                ]
        m.d.comb += [
            self.block.payload.eq(order.block),
            self.block.valid.eq(block_wanted),
            self.store_run.payload.address.eq(order.address),
            self.store_run.payload.beats.eq((columns * words_per_column) << wide),
            self.store_run.payload.instruction.eq(order.instruction),
            *(self.store_run.payload[f].eq(order[f]) for f in row_range(cfg)),
            self.store_run.payload.kind.eq(Cat(wide, transpose)),
            self.store_run.valid.eq(store_wanted),
            self.residual_run.payload.address.eq(order.residual_address),
            self.residual_run.payload.beats.eq((order.columns * words_per_column) << 1),
            self.residual_run.payload.instruction.eq(order.instruction),
            self.residual_run.valid.eq(residual_wanted),
        ]
        mode = Cat(activate, adding, wide, transpose)
        if "apart" in cfg.abilities:
            part, factor = self.store_run.payload.part, (cfg.groups // cfg.rows).bit_length() - 1
            m.d.comb += part.eq(order.address[cfg.rows.bit_length() - 1 :][: len(part)])
            with m.If(order.apart):
                m.d.comb += [
                    Value.cast(self.store_run.payload.kind).eq(APART),
                    self.store_run.payload.beats.eq((order.columns * words_per_column) << factor),
                ]
            mode = Cat(mode, order.apart)
        if "best" in has:  # of lists all is stored
            with m.If(largest):
                m.d.comb += [self.store_run.payload[f].eq(0) for f in row_range(cfg)]
        for run, wanted in (
            (self.store_run, store_wanted),
            (self.residual_run, residual_wanted),
            (self.block, block_wanted),
        ):
            with m.If(wanted & run.ready):
                m.d.sync += wanted.eq(0)

        given = self._given = self._changed(m, order, active, largest) if {"rotary", "best"} & {*has} else self.results
        beat = given.payload
        computes = Signal()
        m.d.comb += computes.eq(active & ~order.scores)
        go = self._arithmetic(m, order, computes, mode, largest)
        to_scores = active & order.scores & ~block_wanted
        m.d.comb += [
            *(self.scores.payload[i].eq(beat.values[i]) for i in range(cfg.drain_lanes)),
            self.scores.valid.eq(to_scores & given.valid),
            given.ready.eq(Mux(to_scores, self.scores.ready, go)),
        ]
        m.d.comb += self.scored.eq(to_scores & given.valid & self.scores.ready & beat.last)
        with m.If((given.valid & given.ready & beat.last) & ~store_wanted & ~residual_wanted):
            m.d.sync += active.eq(0)
        if "best" in has:
            with m.If(self._best.done):
                m.d.sync += active.eq(0)
        new = self.order.payload
        stores = ~new.scores
        if "best" in has:
            stores = stores & ((new.mode != Result.BEST) | new.block.last)
        self._count(m, self.order.valid & self.order.ready & stores)
        return m

    def _count(self, m: Module, begun: Value) -> None:
        """Products finished: one that leaves the chip when memory has answered, others not before those ahead of them.

        `begun`: a product's results begin whose store is to come. No other product begins while `_MOST_HELD` are held,
        so that no more are under way than counts of instructions hold.
        """
        outstanding = Signal(UNDER_WAY_BITS)  # stores that memory has not answered
        behind = Signal(UNDER_WAY_BITS)  # of those, how many came before the last product that stores nothing
        held = Signal(range(2 * _MOST_HELD))  # such products, which are finished and not counted
        m.d.comb += self._crowded.eq(held[-1])
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

    def _changed(self, m: Module, order: data.View, active: Value, largest: Value) -> stream.Interface:
        """The results, but those of products that are rotated or of which the largest alone are wanted."""
        cfg = self.config
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

        if "rotary" in cfg.features:
            self._rotary = m.submodules.rotary = Rotary(cfg)
            through(self._rotary, order.rotate)
        if "best" in cfg.features:
            best = self._best = m.submodules.best = Best(cfg)
            through(best, largest)
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
        return given

    def _arithmetic(self, m: Module, order: data.View, active: Value, mode: Value, largest: Value) -> Signal:
        """Table, second multiplication, addition, packing. Returns the condition that takes a result beat."""
        cfg = self.config
        lanes = cfg.drain_lanes
        parts = cfg.rows // lanes
        has, given = cfg.features, self._given
        beat = given.payload
        adding = mode[1]

        # `lanes` elements of the residual stream at a time.
        unpack = m.submodules.unpack = Gearbox(8 * cfg.bus_bytes, 16 * lanes)
        m.d.comb += [
            unpack.source.payload.eq(self.residual.payload),
            unpack.source.valid.eq(self.residual.valid),
            self.residual.ready.eq(unpack.source.ready),
        ]
        queue = m.submodules.queue = Queue(width=16 * lanes + len(mode) - 2, depth=_QUEUE_DEPTH)
        part = Signal(range(parts))
        go = Signal()
        gives: Value = go
        if "gate" in has:
            # Columns by turns: gates, which wait behind the table and their multipliers, and what they multiply.
            waiting = m.submodules.waiting = Queue(width=16 * lanes, depth=parts)
            second_column, gates, gated = Signal(), Signal(), Signal()
            m.d.comb += [
                gates.eq(order.multiply & ~second_column),
                gated.eq(order.multiply & second_column),
                waiting.r_en.eq(go & gated),
            ]
            gives = go & ~gates
            with m.If(go & (part == parts - 1)):
                m.d.sync += second_column.eq(gates)
        room = credits(m, "room", _QUEUE_DEPTH, gives, queue.r_rdy & queue.r_en)
        # The last beat waits until the runs of this product are with the masters.
        runs_out = ~(self.store_run.valid | self.residual_run.valid)
        may = (
            active
            & given.valid
            & room
            & (~order.seconds | self.seconds.valid)
            & (~adding | unpack.target.valid)
            & (~beat.last | runs_out)
        )
        m.d.comb += [
            go.eq(may & (~gated | waiting.r_rdy) if "gate" in has else may),
            unpack.target.ready.eq(go & adding),
            self.seconds.ready.eq(go & order.seconds & (part == parts - 1)),
        ]
        with m.If(go):
            m.d.sync += part.eq(Mux(part == parts - 1, 0, part + 1))

        if "rotary" in has:
            table = self._rotary.table
            m.d.comb += [
                table.payload.as_value().eq(unpack.target.payload),
                table.valid.eq(unpack.target.valid & active & order.rotate),
            ]
            with m.If(active & order.rotate):
                m.d.comb += unpack.target.ready.eq(table.ready)

        flags = [Cat(gives, mode)]
        for i in range(_LATENCY):
            stage = Signal(1 + len(mode), name=f"flags_{i + 1}")
            m.d.sync += stage.eq(flags[-1])
            flags.append(stage)
        more = [Cat(largest, *((go & gates, gated) if "gate" in has else ()), *self._short(order))]
        for i in range(_LATENCY if {"gate", "best", "digits"} & {*has} else 0):
            stage = Signal(len(more[0]), name=f"more_{i + 1}", reset_less=True)
            m.d.sync += stage.eq(more[-1])
            more.append(stage)
        if "gate" in has:
            factor_1, factor_2 = (Signal(16 * lanes, name=f"factor_{i}", reset_less=True) for i in (1, 2))
            m.d.sync += [factor_1.eq(waiting.r_data), factor_2.eq(factor_1)]
        seconds = [self.seconds.payload]
        for i in range(2):
            second = Signal(16, name=f"second_{i + 1}", reset_less=True)
            m.d.sync += second.eq(seconds[-1])
            seconds.append(second)

        results = []
        gate_values: list[Value] = []
        for i in range(lanes):
            table = m.submodules[f"table_{i}"] = memory.Memory(
                shape=signed(16), depth=256, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
            )
            write, read = table.write_port(), table.read_port()
            found = Signal(signed(16), name=f"found_{i}", reset_less=True)
            m.d.comb += [
                write.addr.eq(self.table_address),
                write.data.eq(self.table_data),
                write.en.eq(self.table_enable),
                read.addr.eq(
                    Mux(order.multiply, saturated(beat.values[i], 8), beat.values[i])[:8]
                    if "gate" in has
                    else beat.values[i][:8]
                ),
                read.en.eq(1),
            ]
            m.d.sync += found.eq(read.data)
            own = [beat.values[i]]
            for k in range(_LATENCY - 1):
                stage = Signal(signed(16), name=f"own_{i}_{k + 1}", reset_less=True)
                m.d.sync += stage.eq(own[-1])
                own.append(stage)
            residual = [unpack.target.payload[16 * i :][:16].as_signed()]
            for k in range(2):
                stage = Signal(signed(16), name=f"residual_{i}_{k + 1}", reset_less=True)
                m.d.sync += stage.eq(residual[-1])
                residual.append(stage)
            multiplier = m.submodules[f"multiplier_{i}"] = Multiplier(16, 17, cfg.vector_multiplier)
            m.d.comb += [
                multiplier.a.eq(Mux(flags[2][2], residual[2], found)),
                multiplier.b.eq(seconds[2]),
            ]
            if "gate" in has:
                with m.If(more[2][2]):
                    m.d.comb += [multiplier.a.eq(own[2]), multiplier.b.eq(factor_2[16 * i :][:16].as_signed())]
            scaled = Signal(signed(17), name=f"scaled_{i}", reset_less=True)
            m.d.sync += scaled.eq((multiplier.p + (1 << 15)) >> 16)
            at = 3 + Multiplier.latency
            total = Signal(signed(18), name=f"total_{i}", reset_less=True)
            is_activated, is_added = flags[at][1], flags[at][2]
            if "gate" in has:
                is_activated = is_activated | more[at][2]
                gate_values.append(scaled[:16])
            m.d.sync += total.eq(Mux(is_activated, 0, own[at]) + Mux(is_activated | is_added, scaled, 0))
            result = Signal(signed(16), name=f"result_{i}", reset_less=True)
            if "digits" in has:
                is_short = more[at + 1][-1]
                wide_result = Mux(is_short, saturated(total, 15), saturated(total, 16))
                m.d.sync += result.eq(Mux(flags[at + 1][1] & ~is_short, saturated(total, 8), wide_result))
            else:
                m.d.sync += result.eq(Mux(flags[at + 1][1], saturated(total, 8), saturated(total, 16)))
            if "best" in has:  # halves of numbers among them
                with m.If(more[at + 1][0]):
                    m.d.sync += result.eq(total)
            results.append(result)
        if "gate" in has:
            m.d.comb += [waiting.w_en.eq(more[3 + Multiplier.latency][1]), waiting.w_data.eq(Cat(*gate_values))]
        taken, is_wide = flags[_LATENCY][0], flags[_LATENCY][3]
        if "best" in has:
            taken = taken & ~more[_LATENCY][0]
        at_ends = Cat(at_limit(r, 16) for r in results).any()
        if "digits" in has:
            at_ends = Mux(more[_LATENCY][-1], Cat(at_limit(r, 15) for r in results).any(), at_ends)
        m.d.sync += self.saturated.eq(
            Cat(
                taken & is_wide & at_ends,
                taken & ~is_wide & Cat(at_limit(r, 8) for r in results).any(),
            )
        )
        m.d.comb += [queue.w_en.eq(flags[_LATENCY][0]), queue.w_data.eq(Cat(*results, flags[_LATENCY][3:]))]
        self._pack(m, queue)
        return go

    def _short(self, order: data.View) -> tuple[Value, ...]:
        """Whether results in 16 bits saturate to 15, where there is such a thing."""
        return (order.bits15,) if "digits" in self.config.features else ()

    def _pack(self, m: Module, queue: Queue) -> None:
        """Bus words of 16-bit or 8-bit elements; transposed, apart, or neither."""
        cfg = self.config
        lanes = cfg.drain_lanes
        words = [queue.r_data[16 * i :][:16] for i in range(lanes)]
        is_wide = queue.r_data[16 * lanes]
        flags = queue.r_data[16 * lanes :]
        wide = m.submodules.pack_wide = Gearbox(16 * lanes, 8 * cfg.bus_bytes)
        narrow = m.submodules.pack_narrow = Gearbox(8 * lanes, 8 * cfg.bus_bytes)
        transposer = m.submodules.transposer = Transposer(cfg)
        gate = m.submodules.output = Queue(width=8 * cfg.bus_bytes, depth=2)
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
        if "apart" in cfg.abilities:
            filling = self._fill(m, kind[2] & ~kind[0], narrow, gate)
            empty, leaves = empty & ~filling, leaves & ~filling
        with m.If(queue.r_rdy & empty):
            m.d.sync += kind.eq(flags)
        steps = Mux(kind[0], cfg.bus_bytes // (2 * lanes), cfg.bus_bytes // lanes)
        m.d.sync += under_way.eq(under_way + moved_in - Mux(leaves, steps, 0))
        m.d.comb += [
            self.store.payload.eq(gate.r_data),
            self.store.valid.eq(gate.r_rdy),
            gate.r_en.eq(self.store.ready),
        ]

    def _fill(self, m: Module, apart: Value, narrow: Gearbox, gate: Queue) -> Signal:
        """Behind each column the words that are not its own, and not written; returns whether one of them is given."""
        cfg = self.config
        own, others = cfg.rows // cfg.bus_bytes, (cfg.groups - cfg.rows) // cfg.bus_bytes
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
