"""LayerNorm or RMSNorm of one row tile, from memory to memory: statistics in one pass, normalization in a second.

Works on the 16-bit residual stream, up to ``lanes / 2`` elements a cycle; gives the next residual stream in 16 bits
and the next product's activations in 8. docs/numerics.md has the arithmetic.

What is here is the component, the two machines that take tiles through both passes, and the first pass: sums and sums
of squares, of which norm_statistics.py makes statistics. norm_arithmetic.py is the second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..bus.axi import ADDRESS_BITS
from ..bus.runs import Kind, row_range, run_layout, store_layout
from ..primitives.arithmetic import ring_shift
from ..primitives.layouts import COUNT_BITS
from ..primitives.multiplier import Multiplier
from ..primitives.queue import Queue
from .norm_arithmetic import NormalizationPorts, normalization
from .norm_statistics import EPSILON_BITS, INVERSE_BITS, SQUARES_BITS, SUM_BITS, WIDTH_BITS, RowStatistics

__all__ = ["Norm", "norm_order_layout"]

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


@dataclass(frozen=True)
class _Tiles:
    """The two tiles in the unit.

    Attributes
    ----------
    first, order : views of norm_order_layout
        The order of the tile whose sums are taken, and of the one that is normalized.
    first_beats, beats : Value
        Bus words of ``lanes / 2`` 16-bit elements of each.
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
    sums, squares : list of list of Signal, (lanes / 2) x slots, signed(30) and unsigned(46)
        Row ``slot * lanes / 2 + lane`` is at place `slot` of its lane's ring.
    turn : Signal of 1 bit
        Given by the statistics: the rings turn, and nothing is added.
    """

    sums: list[list[Signal]]
    squares: list[list[Signal]]
    turn: Signal


class Norm(wiring.Component):
    """LayerNorm, or RMSNorm, order after order.

    The sums of one tile are taken while the tile before is normalized. Cycles per tile of K columns:
    ``3 K * rows / lanes`` for writing both results by one bus, or ``2 K * rows / lanes`` for reading, 32 per row for
    the statistics and some 25 if that is more. The second pass takes at most 16 words in 18 cycles. A tile's first
    result comes 32 cycles per row, and some 40, after its last word. Tiles wider than `norm_columns` are read from
    memory twice, one tile after the other.

    Parameters
    ----------
    config : Config

    Members
    -------
    order : In(stream of norm_order_layout)
        One per tile.
    input_run, parameters_run : Out(streams of run_layout)
        What is to be read: one of a tile's elements, or two if it is read twice; one of its columns' parameters.
    wide_run, narrow_run : Out(streams of store_layout)
        Where a tile's results go: one of each.
    input : In(stream of bus words)
        ``lanes / 2`` elements of 16 bits, signed; column after column, all rows of a column in order.
    parameters : In(stream of bus words)
        Per column a record of `NORM_COLUMN`, 8 bytes; a tile's last word is filled up.
    wide, narrow : Out(streams of bus words)
        Results in the order of the elements: ``lanes / 2`` of 16 bits, `lanes` of 8, signed.
    wide_done, narrow_done : In(1)
        A run is in memory.
    done : Out(1)
        For a cycle: both of a tile's are.
    busy : Out(1)
        There is a tile that is not done.
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
        ports = NormalizationPorts(
            lanes_of(word), rows, moves.step, tiles.slot == slots - 1, short,
            self.parameters, self.wide, self.narrow, self.saturated,
        )  # fmt: skip
        parameters, ready = normalization(m, cfg, ports)
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

    def _first_pass(
        self, m: Module, x: list[Value], active: Value, rms: Value | None, clear: Value, slots: int
    ) -> _Sums:  # fmt: skip
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


def _words(columns: Value, bus_bytes: int) -> Value:
    """Bus words of so many columns' parameters, 8 bytes each."""
    if bus_bytes <= 8:
        return columns * (8 // bus_bytes)
    return (columns * 8 + (bus_bytes - 1)) >> (bus_bytes.bit_length() - 1)
