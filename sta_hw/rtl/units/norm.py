"""LayerNorm or RMSNorm of one row tile, from memory to memory: statistics in one pass, normalization in a second.

Works on the 16-bit residual stream, ``lanes / 2`` elements a cycle; gives the next residual stream in 16 bits
and the next product's activations in 8. docs/numerics.md has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
_Ongoing: TypeAlias = "Callable[[str], Value]"
"""Whether a machine is in the state of that name."""


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
        tiles, moves = _two_tiles(cfg, slots), _moves()
        wanted = self._ask_for_runs(m, tiles, slots)
        # A tile that fits waits on chip between the passes, while the sums of the next one are taken.
        tile = m.submodules.tile = Queue(width=8 * cfg.bus_bytes, depth=cfg.norm_columns * slots)
        sums_are_at = self._sequence_sums(m, tiles, moves, wanted["input"], tile.w_rdy)
        normalization_is_at = self._sequence_normalization(m, tiles, moves, wanted, sums_are_at("HAND_OVER"))
        with m.If(moves.step):
            m.d.sync += [tiles.left.eq(tiles.left - 1), tiles.slot.eq(Mux(tiles.slot == slots - 1, 0, tiles.slot + 1))]
        self._count_tiles(m)

        def lanes_of(word: Value) -> list[Value]:
            return [word[16 * i :][:16].as_signed() for i in range(lanes)]

        rms = tiles.first.rms if "rms" in cfg.features else None
        sums = self._first_pass(m, lanes_of(self.input.payload), moves.sum_step, rms, sums_are_at("SETUP"), slots)
        rows = self._statistics(m, tiles, moves, sums, sums_are_at("STATISTICS"))
        word = Mux(tiles.order_kept, tile.r_data, self.input.payload)
        short = tiles.order.bits15 if "digits" in cfg.features else None
        parameters, ready = self._second_pass(m, lanes_of(word), rows, moves.step, tiles.slot == slots - 1, short)
        step, sum_step = moves.step, moves.sum_step
        given = Mux(tiles.order_kept, tile.r_rdy, moves.reading_again & self.input.valid)
        m.d.comb += [
            step.eq(normalization_is_at("NORMALIZE") & ready & given),
            self.input.ready.eq(sum_step | (moves.reading_again & step)),
            tile.w_data.eq(self.input.payload),
            tile.w_en.eq(sum_step & tiles.kept),
            tile.r_en.eq(step & tiles.order_kept),
            # An odd number of columns leaves half a word of a bus wider than a column's parameters.
            parameters.flush.eq(normalization_is_at("IDLE") if cfg.bus_bytes > 8 else 0),
        ]
        return m

    def _ask_for_runs(self, m: Module, tiles: _Tiles, slots: int) -> dict[str, Signal]:
        """The tiles' runs: each is asked for from when its flag, which is returned by its name, is set."""
        cfg, first, order = self.config, tiles.first, tiles.order
        wanted = {}
        for name, address, count, number in (
            # Also for the second reading: the next order is taken only after it.
            ("input", first.input_address, tiles.first_beats, first.instruction),
            ("parameters", order.parameters_address, _words(order.width, cfg.bus_bytes), order.instruction),
            ("wide", order.wide_address, tiles.beats, order.instruction),
            ("narrow", order.narrow_address, tiles.beats >> 1, order.instruction),
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
        return wanted

    def _sequence_sums(self, m: Module, tiles: _Tiles, moves: _Moves, input_wanted: Signal, room: Value) -> _Ongoing:
        """The first pass, tile after tile: the input is read, and read again of a tile that does not fit on chip.

        `room`: a word of the input can be kept.
        """
        first, left_first, kept, sum_step = tiles.first, tiles.left_first, tiles.kept, moves.sum_step
        with m.FSM(name="sums") as fsm:
            with m.State("IDLE"):
                m.d.comb += self.order.ready.eq(1)
                m.d.sync += first.eq(self.order.payload)
                with m.If(self.order.valid):
                    m.d.sync += input_wanted.eq(1)
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [left_first.eq(tiles.first_beats), kept.eq(first.width <= self.config.norm_columns)]
                m.next = "SUMS"
            with m.State("SUMS"):
                m.d.comb += sum_step.eq(self.input.valid & (room | ~kept))
                with m.If(sum_step):
                    m.d.sync += left_first.eq(left_first - 1)
                    with m.If(left_first == 1):
                        m.next = "SETTLE"
            with m.State("SETTLE"):  # the squares are still on their way
                m.d.sync += left_first.eq(left_first + 1)
                with m.If(left_first == 8):
                    m.next = "STATISTICS"
            with m.State("STATISTICS"), m.If(moves.statistics_done):
                m.next = "HAND_OVER"
            with m.State("HAND_OVER"), m.If(moves.hand_over):
                m.next = "IDLE"
                with m.If(~kept):
                    m.d.sync += input_wanted.eq(1)
                    m.next = "READ_AGAIN"
            with m.State("READ_AGAIN"):
                m.d.comb += moves.reading_again.eq(1)
                with m.If(moves.step & (tiles.left == 1)):
                    m.next = "IDLE"
        return fsm.ongoing

    def _sequence_normalization(
        self, m: Module, tiles: _Tiles, moves: _Moves, wanted: Mapping[str, Signal], offered: Value
    ) -> _Ongoing:
        """The second pass, tile after tile; `offered`: the first one has a tile's statistics."""
        with m.FSM(name="normalization") as fsm:
            with m.State("IDLE"):
                m.d.comb += moves.hand_over.eq(offered)
                m.d.sync += [tiles.order.eq(tiles.first), tiles.order_kept.eq(tiles.kept)]
                with m.If(moves.hand_over):
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [tiles.left.eq(tiles.beats), tiles.slot.eq(0)]
                m.d.sync += [wanted[n].eq(1) for n in ("parameters", "wide", "narrow")]
                m.next = "NORMALIZE"
            with m.State("NORMALIZE"), m.If(moves.step & (tiles.left == 1)):
                m.next = "RUNS"
            with m.State("RUNS"), m.If(~(wanted["wide"] | wanted["narrow"] | wanted["parameters"])):
                m.next = "IDLE"
        return fsm.ongoing

    def _count_tiles(self, m: Module) -> None:
        """A tile is done when both its results are in memory."""
        wides, narrows = Signal(4), Signal(4)
        both = (wides != 0) & (narrows != 0)
        m.d.sync += [wides.eq(wides + self.wide_done - both), narrows.eq(narrows + self.narrow_done - both)]
        under_way = Signal(4)
        m.d.sync += under_way.eq(under_way + (self.order.valid & self.order.ready) - both)
        m.d.comb += [self.done.eq(both), self.busy.eq(under_way != 0)]

    def _first_pass(self, m: Module, x, active, rms: Value | None, clear, slots: int) -> _Sums:
        """Sums and sums of squares of each row, in rings that turn by one place per beat. RMSNorm's sums are zero."""
        lanes = len(x)
        turn = Signal(name="_turn")
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
                with m.If(flag | turn):
                    m.d.sync += ring_shift(ring, ring[0] + term)
        with m.If(clear):
            m.d.sync += [r.eq(0) for ring in sums + squares for r in ring]
        return _Sums(sums, squares, turn)

    def _statistics(self, m: Module, tiles: _Tiles, moves: _Moves, sums: _Sums, running: Value) -> data.View:
        """Each row's mean and deviation: of the tile that is normalized, while those of the next one are found."""
        bank = Signal()
        with m.If(moves.hand_over):
            m.d.sync += bank.eq(~bank)
        lanes, slots = len(sums.sums), len(sums.sums[0])
        has_epsilon = "rms" in self.config.features
        statistics = m.submodules.statistics = RowStatistics(lanes, slots, epsilon=has_epsilon)
        if has_epsilon:
            m.d.comb += statistics.epsilon.eq(tiles.first.epsilon)
        m.d.comb += [
            *(statistics.sums[i].eq(ring[0]) for i, ring in enumerate(sums.sums)),
            *(statistics.squares[i].eq(ring[0]) for i, ring in enumerate(sums.squares)),
            statistics.running.eq(running),
            statistics.width.eq(tiles.first.width),
            statistics.inverse.eq(tiles.first.inverse),
            moves.statistics_done.eq(statistics.done),
            sums.turn.eq(statistics.turn),
            statistics.bank.eq(bank),
            statistics.slot.eq(tiles.slot),
        ]
        return statistics.rows

    def _second_pass(self, m, x, rows, active, column_end, short: Value | None) -> tuple[Gearbox, Value]:
        """Normalize, scale, shift; requantize to 8 bits: a pipeline that never stalls.

        Where wide results are `short` they saturate to 15 bits. Returns the gearbox that columns' parameters come
        through, and whether a beat can be taken.
        """
        gear, wide, narrow = self._ends_of_second_pass(m, len(x), active & column_end)
        rooms = [
            credits(m, f"{name}_room", _QUEUE_DEPTH, active, queue.r_rdy & queue.r_en)
            for name, queue in (("wide", wide), ("narrow", narrow))
        ]
        through = Multiplier.latency
        parameters = data.View(record_layout(NORM_COLUMN), gear.target.payload)
        along = _Along(
            scale=_delayed(m, parameters.scale, 5 + through, "scale"),
            shift=_delayed(m, parameters.shift, 6 + 2 * through, "shift"),
            multiplier_8=_delayed(m, parameters.multiplier, 7 + 2 * through, "narrow_multiplier"),
            short=None if short is None else _delayed(m, short, 6 + 2 * through, "short"),
        )
        at_short_end = None if along.short is None else _delayed(m, along.short, 3 + through, "short_late")
        results = [self._normalized(m, i, x[i], rows[i], along) for i in range(len(x))]
        results_16, results_8 = [wide_result for wide_result, _ in results], [result for _, result in results]
        valid = active
        for k in range(_LATENCY):
            stage = Signal(name=f"normalized_{k + 1}")
            m.d.sync += stage.eq(valid)
            valid = stage
        at_ends = Cat(at_limit(r, 16) for r in results_16).any()
        if at_short_end is not None:
            at_ends = Mux(at_short_end, Cat(at_limit(r, 15) for r in results_16).any(), at_ends)
        m.d.sync += self.saturated.eq(valid & at_ends)
        m.d.comb += [
            wide.w_en.eq(valid),
            wide.w_data.eq(Cat(*results_16)),
            narrow.w_en.eq(valid),
            narrow.w_data.eq(Cat(*results_8)),
        ]
        return gear, rooms[0] & rooms[1] & gear.target.valid

    def _ends_of_second_pass(self, m: Module, lanes: int, column_taken: Value) -> tuple[Gearbox, Queue, Queue]:
        """Where columns' parameters come from bus words, and where wide and narrow results wait to become some."""
        cfg = self.config
        gear = m.submodules.parameters_gear = Gearbox(8 * cfg.bus_bytes, 64)
        wide = m.submodules.wide_queue = Queue(width=16 * lanes, depth=_QUEUE_DEPTH)
        narrow = m.submodules.narrow_queue = Queue(width=8 * lanes, depth=_QUEUE_DEPTH)
        pack = m.submodules.pack = Gearbox(8 * lanes, 8 * cfg.bus_bytes)
        m.d.comb += [
            gear.source.payload.eq(self.parameters.payload),
            gear.source.valid.eq(self.parameters.valid),
            self.parameters.ready.eq(gear.source.ready),
            gear.target.ready.eq(column_taken),
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
        return gear, wide, narrow

    def _normalized(self, m: Module, i: int, x: Value, row: data.View, along: _Along) -> tuple[Value, Signal]:
        """A lane's wide result, delayed to when its narrow one is there, and that one."""
        cfg = self.config
        normal = self._standardized(m, i, x, row)
        by_scale = m.submodules[f"scale_multiplier_{i}"] = Multiplier(18, 18, cfg.vector_multiplier)
        product = Signal(signed(20), name=f"product_{i}", reset_less=True)
        result_16 = Signal(signed(16), name=f"wide_result_{i}", reset_less=True)
        by_narrow = m.submodules[f"narrow_multiplier_{i}"] = Multiplier(16, 17, cfg.vector_multiplier)
        requantized = Signal(signed(17), name=f"requantized_{i}", reset_less=True)
        result_8 = Signal(signed(8), name=f"narrow_result_{i}", reset_less=True)
        m.d.comb += [
            by_scale.a.eq(normal),
            by_scale.b.eq(along.scale),
            by_narrow.a.eq(result_16),
            by_narrow.b.eq(along.multiplier_8),
        ]
        m.d.sync += [
            product.eq((by_scale.p + (1 << 15)) >> 16),
            result_16.eq(
                saturated(product + along.shift, 16)
                if along.short is None
                else Mux(along.short, saturated(product + along.shift, 15), saturated(product + along.shift, 16))
            ),
            requantized.eq((by_narrow.p + (1 << 15)) >> 16),
            result_8.eq(saturated(requantized, 8)),
        ]
        return _delayed(m, result_16, Multiplier.latency + 2, f"wide_late_{i}"), result_8

    def _standardized(self, m: Module, i: int, x: Value, row: data.View) -> Signal:
        """A lane's element less its row's mean, over the deviation, with 12 fraction bits."""
        deviation = Signal(signed(18), name=f"deviation_{i}", reset_less=True)
        inverse = Signal(16, name=f"inverse_{i}", reset_less=True)
        m.d.sync += [deviation.eq((x << 1) - row.mean), inverse.eq(row.inverse)]
        places = _delayed(m, row.shift, 1 + Multiplier.latency, f"places_{i}")
        # After the coarse shift only the bits that can be left after the fine one are kept.
        coarse = Signal(signed(_NORMAL_BITS + 9), name=f"coarse_{i}", reset_less=True)
        fine = Signal(signed(_NORMAL_BITS + 9), name=f"fine_{i}", reset_less=True)
        shifted = Signal(signed(37), name=f"shifted_{i}", reset_less=True)
        multiplier = m.submodules[f"deviation_multiplier_{i}"] = Multiplier(18, 17, self.config.vector_multiplier)
        m.d.comb += [
            multiplier.a.eq(deviation),
            multiplier.b.eq(inverse),
        ]
        normal = Signal(signed(_NORMAL_BITS), name=f"normal_{i}", reset_less=True)
        m.d.sync += [
            shifted.eq((multiplier.p << 1) >> Cat(Const(0, 3), places[3:])),
            coarse.eq(saturated(shifted, _NORMAL_BITS + 9)),
            fine.eq(coarse >> _delayed(m, places, 2, f"fine_places_{i}")[:3]),
            normal.eq(saturated((fine + 1) >> 1, _NORMAL_BITS)),
        ]
        return normal


@dataclass(frozen=True)
class _Tiles:
    """The two tiles in the unit.

    Attributes
    ----------
    first, order : views of norm_order_layout
        The order of the tile whose sums are taken, and of the one that is normalized.
    first_beats, beats : Value
        Bus words of `lanes` 16-bit elements of each.
    kept, order_kept : Signal
        Whether each waits on chip between the passes; if not, it is read again.
    left_first, left : Signal
        Words that are still to come to each pass.
    slot : Signal
        Of the word that is normalized.
    """

    first: data.View
    order: data.View
    first_beats: Value
    beats: Value
    kept: Signal
    order_kept: Signal
    left_first: Signal
    left: Signal
    slot: Signal


def _two_tiles(config: Config, slots: int) -> _Tiles:
    """None of them there yet."""
    first = Signal(norm_order_layout(config), name="first_order", reset_less=True)
    order = Signal(norm_order_layout(config), reset_less=True)
    kept = Signal()
    order_kept = Signal()
    left, left_first = Signal(20), Signal(20)
    slot = Signal(range(slots))
    return _Tiles(first, order, first.width * slots, order.width * slots, kept, order_kept, left_first, left, slot)


@dataclass(frozen=True)
class _Moves:
    """What happens in a cycle.

    Attributes
    ----------
    sum_step, step : Signal
        A word is taken by the first pass; by the second one.
    reading_again : Signal
        The second pass takes words from memory.
    statistics_done, hand_over : Signal
        The first pass has a tile's statistics; the second pass takes the tile over.
    """

    sum_step: Signal
    step: Signal
    reading_again: Signal
    statistics_done: Signal
    hand_over: Signal


def _moves() -> _Moves:
    """For the two machines to drive."""
    reading_again = Signal()
    sum_step, step = Signal(), Signal()
    statistics_done, hand_over = Signal(), Signal()
    return _Moves(sum_step, step, reading_again, statistics_done, hand_over)


@dataclass(frozen=True)
class _Sums:
    """What the first pass gives: per lane rings with a place for each of its rows.

    Attributes
    ----------
    sums, squares : list of list of Signal
    turn : Signal
        Given by the statistics: the rings turn, and nothing is added.
    """

    sums: list[list[Signal]]
    squares: list[list[Signal]]
    turn: Signal


@dataclass(frozen=True)
class _Along:
    """What goes along with a beat through the second pass, each in the cycle in which it is used.

    Attributes
    ----------
    scale, shift, multiplier_8 : Value
        Its column's parameters: gain, bias, and the factor to 8 bits.
    short : Value or None
        With feature digits: wide results saturate to 15 bits.
    """

    scale: Value
    shift: Value
    multiplier_8: Value
    short: Value | None


def _delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """A value so many cycles later."""
    for k in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{k + 1}", reset_less=True)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def _words(columns: Value, bus_bytes: int) -> Value:
    """Bus words of so many columns' parameters, 8 bytes each."""
    if bus_bytes <= 8:
        return columns * (8 // bus_bytes)
    return (columns * 8 + (bus_bytes - 1)) >> (bus_bytes.bit_length() - 1)
