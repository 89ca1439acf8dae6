"""LayerNorm or RMSNorm of one row tile, from memory to memory: statistics in one pass, normalization in a second.

Works on the 16-bit residual stream, ``lanes / 2`` elements a cycle; gives the next residual stream in 16 bits
and the next product's activations in 8. docs/numerics.md has the arithmetic.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.parameters import NORM_COLUMN
from ..bus.axi import ADDRESS_BITS
from ..bus.runs import Kind, row_range, run_layout, store_layout
from ..primitives.arithmetic import at_limit, ring_shift, saturated
from ..primitives.layouts import COUNT_BITS, record_layout
from ..primitives.multiplier import Multiplier
from ..primitives.queue import Queue, credits
from ..primitives.sequencer import Gearbox
from .norm_statistics import EPSILON_BITS, INVERSE_BITS, SQUARES_BITS, SUM_BITS, WIDTH_BITS, RowStatistics

__all__ = ["Norm", "norm_order_layout"]

_NORMAL_BITS = 18
_QUEUE_DEPTH = 16
_LATENCY = 9 + 3 * Multiplier.latency


def norm_order_layout(config: Config) -> data.StructLayout:
    """One row tile: addresses, columns, ``round(2**33 / columns)``, and which rows are stored.

    With feature rms also whether it is RMSNorm, and what is added to the variance, in units of 2^14; with feature
    digits whether 16-bit results saturate to 15 bits.
    """
    more = {"rms": unsigned(1), "epsilon": unsigned(EPSILON_BITS)} if "rms" in config.features else {}
    more |= {"bits15": unsigned(1)} if "digits" in config.features else {}
    return data.StructLayout(
        {
            "input_address": unsigned(ADDRESS_BITS),
            "wide_address": unsigned(ADDRESS_BITS),
            "narrow_address": unsigned(ADDRESS_BITS),
            "parameters_address": unsigned(ADDRESS_BITS),
            "width": unsigned(WIDTH_BITS),
            "inverse": unsigned(INVERSE_BITS),
            **row_range(config),
            **more,
            "instruction": unsigned(COUNT_BITS),
        }
    )


class Norm(wiring.Component):
    """LayerNorm, or RMSNorm, order after order.

    The sums of one tile are taken while the tile before is normalized. Cycles per tile of K columns:
    ``3 K * rows / lanes`` for writing, or ``2 K * rows / lanes`` for reading and 32 per row for the statistics if
    that is more. Tiles wider than `norm_columns` are read from memory twice, one tile after the other.

    Members
    -------
    order : In(stream of norm_order_layout)
    input_run, parameters_run : Out(streams of run_layout); wide_run, narrow_run : Out(streams of store_layout)
    input, parameters : In(streams of bus words); wide, narrow : Out(streams of bus words)
    wide_done, narrow_done : In(1)
        A run is in memory.
    done : Out(1)
    busy : Out(1)
    saturated : Out(1)
        A word of 16-bit results had one at an end of its range.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        word = stream.Signature(unsigned(8 * config.bus_bytes))
        run, store = stream.Signature(run_layout()), stream.Signature(store_layout(config))
        super().__init__(
            {
                "order": In(stream.Signature(norm_order_layout(config))),
                "input_run": Out(run), "input": In(word),
                "parameters_run": Out(run), "parameters": In(word),
                "wide_run": Out(store), "wide": Out(word), "wide_done": In(1),
                "narrow_run": Out(store), "narrow": Out(word), "narrow_done": In(1),
                "done": Out(1), "busy": Out(1), "saturated": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        lanes = cfg.lanes // 2
        slots = cfg.rows // lanes
        first = Signal(norm_order_layout(cfg), name="first_order", reset_less=True)  # the tile whose sums are taken
        order = Signal(norm_order_layout(cfg), reset_less=True)  # the tile that is normalized
        first_beats = first.width * slots  # 16-bit elements, `lanes` to a bus word
        beats = order.width * slots
        kept = Signal()
        order_kept = Signal()

        wanted = {}
        reading_again = Signal()
        for name, address, count, number in (
            # Also for the second reading: the next order is taken only after it.
            ("input", first.input_address, first_beats, first.instruction),
            ("parameters", order.parameters_address, _words(order.width, cfg.bus_bytes), order.instruction),
            ("wide", order.wide_address, beats, order.instruction),
            ("narrow", order.narrow_address, beats >> 1, order.instruction),
        ):  # fmt: skip
            run = getattr(self, f"{name}_run")
            flag = Signal(name=f"{name}_wanted")
            m.d.comb += [
                run.payload.address.eq(address),
                run.payload.beats.eq(count),
                run.payload.instruction.eq(number),
                run.valid.eq(flag),
            ]
            with m.If(run.ready):
                m.d.sync += flag.eq(0)
            wanted[name] = flag
        for run, kind in ((self.wide_run, Kind.WIDE), (self.narrow_run, Kind.NARROW)):
            m.d.comb += [run.payload.kind.eq(kind), *(run.payload[f].eq(order[f]) for f in row_range(cfg))]

        # A tile that fits waits on chip between the passes, while the sums of the next one are taken.
        tile = m.submodules.tile = Queue(width=8 * cfg.bus_bytes, depth=cfg.norm_columns * slots)
        left, left_first = Signal(20), Signal(20)
        slot = Signal(range(slots))
        sum_step, step = Signal(), Signal()
        statistics_done, hand_over = Signal(), Signal()
        with m.FSM(name="sums") as sums_fsm:
            with m.State("IDLE"):
                m.d.comb += self.order.ready.eq(1)
                m.d.sync += first.eq(self.order.payload)
                with m.If(self.order.valid):
                    m.d.sync += wanted["input"].eq(1)
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [left_first.eq(first_beats), kept.eq(first.width <= cfg.norm_columns)]
                m.next = "SUMS"
            with m.State("SUMS"):
                m.d.comb += sum_step.eq(self.input.valid & (tile.w_rdy | ~kept))
                with m.If(sum_step):
                    m.d.sync += left_first.eq(left_first - 1)
                    with m.If(left_first == 1):
                        m.next = "SETTLE"
            with m.State("SETTLE"):  # the squares are still on their way
                m.d.sync += left_first.eq(left_first + 1)
                with m.If(left_first == 8):
                    m.next = "STATISTICS"
            with m.State("STATISTICS"), m.If(statistics_done):
                m.next = "HAND_OVER"
            with m.State("HAND_OVER"), m.If(hand_over):
                m.next = "IDLE"
                with m.If(~kept):
                    m.d.sync += wanted["input"].eq(1)
                    m.next = "READ_AGAIN"
            with m.State("READ_AGAIN"):
                m.d.comb += reading_again.eq(1)
                with m.If(step & (left == 1)):
                    m.next = "IDLE"
        with m.FSM(name="normalization") as fsm:
            with m.State("IDLE"):
                m.d.comb += hand_over.eq(sums_fsm.ongoing("HAND_OVER"))
                m.d.sync += [order.eq(first), order_kept.eq(kept)]
                with m.If(hand_over):
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [left.eq(beats), slot.eq(0)]
                m.d.sync += [wanted[n].eq(1) for n in ("parameters", "wide", "narrow")]
                m.next = "NORMALIZE"
            with m.State("NORMALIZE"), m.If(step & (left == 1)):
                m.next = "RUNS"
            with m.State("RUNS"), m.If(~(wanted["wide"] | wanted["narrow"] | wanted["parameters"])):
                m.next = "IDLE"
        with m.If(step):
            m.d.sync += [left.eq(left - 1), slot.eq(Mux(slot == slots - 1, 0, slot + 1))]
        # A tile is done when both its results are in memory.
        wides, narrows = Signal(4), Signal(4)
        both = (wides != 0) & (narrows != 0)
        m.d.sync += [wides.eq(wides + self.wide_done - both), narrows.eq(narrows + self.narrow_done - both)]
        under_way = Signal(4)
        m.d.sync += under_way.eq(under_way + (self.order.valid & self.order.ready) - both)
        m.d.comb += [self.done.eq(both), self.busy.eq(under_way != 0)]

        def lanes_of(word: Value) -> list[Value]:
            return [word[16 * i :][:16].as_signed() for i in range(lanes)]

        normalizing = fsm.ongoing("NORMALIZE")
        rms = first.rms if "rms" in cfg.features else None
        sums, squares = self._first_pass(
            m, lanes_of(self.input.payload), sum_step, rms, sums_fsm.ongoing("SETUP"), slots
        )
        # Two banks: one tile's rows are found while the tile before is normalized.
        bank = Signal()
        with m.If(hand_over):
            m.d.sync += bank.eq(~bank)
        statistics = m.submodules.statistics = RowStatistics(lanes, slots, epsilon="rms" in cfg.features)
        if "rms" in cfg.features:
            m.d.comb += statistics.epsilon.eq(first.epsilon)
        m.d.comb += [
            *(statistics.sums[i].eq(ring[0]) for i, ring in enumerate(sums)),
            *(statistics.squares[i].eq(ring[0]) for i, ring in enumerate(squares)),
            statistics.running.eq(sums_fsm.ongoing("STATISTICS")),
            statistics.width.eq(first.width),
            statistics.inverse.eq(first.inverse),
            statistics_done.eq(statistics.done),
            self._turn.eq(statistics.turn),
            statistics.bank.eq(bank),
            statistics.slot.eq(slot),
        ]
        word = Mux(order_kept, tile.r_data, self.input.payload)
        short = order.bits15 if "digits" in cfg.features else None
        ready = self._second_pass(m, lanes_of(word), statistics.rows, step, slot == slots - 1, short)
        m.d.comb += [
            step.eq(normalizing & ready & Mux(order_kept, tile.r_rdy, reading_again & self.input.valid)),
            self.input.ready.eq(sum_step | (reading_again & step)),
            tile.w_data.eq(self.input.payload),
            tile.w_en.eq(sum_step & kept),
            tile.r_en.eq(step & order_kept),
            # An odd number of columns leaves half a word of a bus wider than a column's parameters.
            self._parameters.flush.eq(fsm.ongoing("IDLE") if cfg.bus_bytes > 8 else 0),
        ]
        return m

    def _first_pass(self, m: Module, x, active, rms: Value | None, clear, slots: int):
        """Sums and sums of squares of each row, in rings that turn by one place per beat. RMSNorm's sums are zero."""
        lanes = len(x)
        self._turn = Signal()
        sums = [[Signal(signed(SUM_BITS), name=f"sum_{i}_{s}") for s in range(slots)] for i in range(lanes)]
        squares = [[Signal(SQUARES_BITS, name=f"squares_{i}_{s}") for s in range(slots)] for i in range(lanes)]
        flags = [active]
        for k in range(Multiplier.latency + 1):
            stage = Signal(name=f"summing_{k + 1}")
            m.d.sync += stage.eq(flags[-1])
            flags.append(stage)
        for i in range(lanes):
            value = Signal(signed(16), name=f"value_{i}", reset_less=True)
            square = Signal(32, name=f"square_{i}", reset_less=True)
            multiplier = m.submodules[f"square_multiplier_{i}"] = Multiplier(16, 16, self.config.vector_multiplier)
            m.d.comb += [multiplier.a.eq(x[i]), multiplier.b.eq(x[i])]
            m.d.sync += [
                value.eq(Mux(active if rms is None else active & ~rms, x[i], 0)),
                square.eq(Mux(flags[-2], multiplier.p, 0)),
            ]
            # When the statistics turn the rings, the terms are zero.
            for ring, term, flag in ((sums[i], value, flags[1]), (squares[i], square, flags[-1])):
                with m.If(flag | self._turn):
                    m.d.sync += ring_shift(ring, ring[0] + term)
        with m.If(clear):
            m.d.sync += [r.eq(0) for ring in sums + squares for r in ring]
        return sums, squares

    def _second_pass(self, m, x, rows, active, column_end, short: Value | None) -> Value:
        """Normalize, scale, shift; requantize to 8 bits. Returns whether a beat can be taken.

        Where wide results are `short` they saturate to 15 bits.
        """
        cfg = self.config
        lanes = len(x)
        gear = m.submodules.parameters_gear = self._parameters = Gearbox(8 * cfg.bus_bytes, 64)
        wide = m.submodules.wide_queue = Queue(width=16 * lanes, depth=_QUEUE_DEPTH)
        narrow = m.submodules.narrow_queue = Queue(width=8 * lanes, depth=_QUEUE_DEPTH)
        pack = m.submodules.pack = Gearbox(8 * lanes, 8 * cfg.bus_bytes)
        m.d.comb += [
            gear.source.payload.eq(self.parameters.payload),
            gear.source.valid.eq(self.parameters.valid),
            self.parameters.ready.eq(gear.source.ready),
            gear.target.ready.eq(active & column_end),
            self.wide.payload.eq(wide.r_data),
            self.wide.valid.eq(wide.r_rdy),
            wide.r_en.eq(self.wide.ready),
            pack.source.payload.eq(narrow.r_data),
            pack.source.valid.eq(narrow.r_rdy),
            narrow.r_en.eq(pack.source.ready),
            self.narrow.payload.eq(pack.target.payload),
            self.narrow.valid.eq(pack.target.valid),
            pack.target.ready.eq(self.narrow.ready),
        ]
        rooms = []
        for name, queue in (("wide", wide), ("narrow", narrow)):
            rooms.append(credits(m, f"{name}_room", _QUEUE_DEPTH, active, queue.r_rdy & queue.r_en))

        def delayed(value: Value, cycles: int, name: str) -> Value:
            for k in range(cycles):
                stage = Signal(value.shape(), name=f"{name}_{k + 1}", reset_less=True)
                m.d.sync += stage.eq(value)
                value = stage
            return value

        parameters = data.View(record_layout(NORM_COLUMN), gear.target.payload)
        through = Multiplier.latency
        scale = delayed(parameters.scale, 5 + through, "scale")
        shift = delayed(parameters.shift, 6 + 2 * through, "shift")
        multiplier_8 = delayed(parameters.multiplier, 7 + 2 * through, "narrow_multiplier")
        results_16, results_8 = [], []
        if short is not None:  # beside the results, and beside those that leave
            short = delayed(short, 6 + 2 * through, "short")
            short_late = delayed(short, 3 + through, "short_late")
        for i in range(lanes):
            row = rows[i]
            deviation = Signal(signed(18), name=f"deviation_{i}", reset_less=True)
            inverse = Signal(16, name=f"inverse_{i}", reset_less=True)
            m.d.sync += [deviation.eq((x[i] << 1) - row.mean), inverse.eq(row.inverse)]
            places = delayed(row.shift, 1 + through, f"places_{i}")
            # After the coarse shift only the bits that can be left after the fine one are kept.
            coarse = Signal(signed(_NORMAL_BITS + 9), name=f"coarse_{i}", reset_less=True)
            fine = Signal(signed(_NORMAL_BITS + 9), name=f"fine_{i}", reset_less=True)
            shifted = Signal(signed(37), name=f"shifted_{i}", reset_less=True)
            multiplier = m.submodules[f"deviation_multiplier_{i}"] = Multiplier(18, 17, cfg.vector_multiplier)
            m.d.comb += [
                multiplier.a.eq(deviation),
                multiplier.b.eq(inverse),
            ]
            normal = Signal(signed(_NORMAL_BITS), name=f"normal_{i}", reset_less=True)
            m.d.sync += [
                shifted.eq((multiplier.p << 1) >> Cat(Const(0, 3), places[3:])),
                coarse.eq(saturated(shifted, _NORMAL_BITS + 9)),
                fine.eq(coarse >> delayed(places, 2, f"fine_places_{i}")[:3]),
                normal.eq(saturated((fine + 1) >> 1, _NORMAL_BITS)),
            ]
            by_scale = m.submodules[f"scale_multiplier_{i}"] = Multiplier(18, 18, cfg.vector_multiplier)
            product = Signal(signed(20), name=f"product_{i}", reset_less=True)
            result_16 = Signal(signed(16), name=f"wide_result_{i}", reset_less=True)
            by_narrow = m.submodules[f"narrow_multiplier_{i}"] = Multiplier(16, 17, cfg.vector_multiplier)
            requantized = Signal(signed(17), name=f"requantized_{i}", reset_less=True)
            result_8 = Signal(signed(8), name=f"narrow_result_{i}", reset_less=True)
            m.d.comb += [
                by_scale.a.eq(normal),
                by_scale.b.eq(scale),
                by_narrow.a.eq(result_16),
                by_narrow.b.eq(multiplier_8),
            ]
            m.d.sync += [
                product.eq((by_scale.p + (1 << 15)) >> 16),
                result_16.eq(
                    saturated(product + shift, 16)
                    if short is None
                    else Mux(short, saturated(product + shift, 15), saturated(product + shift, 16))
                ),
                requantized.eq((by_narrow.p + (1 << 15)) >> 16),
                result_8.eq(saturated(requantized, 8)),
            ]
            results_16.append(delayed(result_16, through + 2, f"wide_late_{i}"))
            results_8.append(result_8)
        valid = active
        for k in range(_LATENCY):
            stage = Signal(name=f"normalized_{k + 1}")
            m.d.sync += stage.eq(valid)
            valid = stage
        at_ends = Cat(at_limit(r, 16) for r in results_16).any()
        if short is not None:
            at_ends = Mux(short_late, Cat(at_limit(r, 15) for r in results_16).any(), at_ends)
        m.d.sync += self.saturated.eq(valid & at_ends)
        m.d.comb += [
            wide.w_en.eq(valid),
            wide.w_data.eq(Cat(*results_16)),
            narrow.w_en.eq(valid),
            narrow.w_data.eq(Cat(*results_8)),
        ]
        return rooms[0] & rooms[1] & gear.target.valid


def _words(columns: Value, bus_bytes: int) -> Value:
    """Bus words of so many columns' parameters, 8 bytes each."""
    if bus_bytes <= 8:
        return columns * (8 // bus_bytes)
    return (columns * 8 + (bus_bytes - 1)) >> (bus_bytes.bit_length() - 1)
