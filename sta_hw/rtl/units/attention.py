"""The softmax between Q x K^T and P x V: scores come column by column, probabilities leave the same way.

The arithmetic is that of `Softmax` (docs/numerics.md) in 8 bits; but here a beat holds one key's scores
for several rows (queries), as the drain gives them and as the windows take them, so nothing is
transposed. Each row has its own running exponent, sum and rounding remainder. A block of keys is held
until its maxima are known (attention_maxima.py, the first phase); meanwhile the next block arrives.

What is here is the component and its second phase: of a finished block the rows' exponents are raised, its scores
stream through the exponentials (attention_arithmetic.py), and the rows' sums are added to their totals.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.arithmetic import ring_shift
from ..primitives.layouts import growth_layout, row_parameter_layout
from ..primitives.queue import Queue, credits
from .attention_arithmetic import EXPONENT_BITS, PIPELINE, SUM_BITS, LaneRings, lane_rings, probabilities, reciprocals
from .attention_maxima import FinishedBlock, ScorePorts, running_maxima

__all__ = ["AttentionSoftmax", "block_layout"]

_OUTPUT_DEPTH = 16


def block_layout(config: Config) -> data.StructLayout:
    """A block of keys.

    `depth` is the windows' (the block has ``groups * depth`` keys), `start` the number of its first key; keys whose
    numbers are from 0 to `keys`, less one, are valid. `first` and `last`: it is the row's first and last block; `gain`
    of the reciprocal is 0 to 7; `coarse`: its scores have 3 fraction bits. With feature causal also `causal`: row r has
    r more keys.
    """
    more = {"causal": unsigned(1)} if "causal" in config.features else {}
    return data.StructLayout(
        {
            "depth": unsigned(6), "start": signed(16), "keys": unsigned(16), "first": unsigned(1),
            "last": unsigned(1), "gain": unsigned(3), "coarse": unsigned(1), **more,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class _Growth:
    """By how many places rows' exponents grew with a block, in rings as those of `LaneRings`; `ready`: is offered."""

    rings: list[list[Signal]]
    ready: Signal


@dataclass(frozen=True)
class _Now:
    """The second phase's block, and what is done with it.

    Attributes
    ----------
    block : view of block_layout
    part : Signal
        Of the rows whose exponents are raised.
    go, streaming, last_word, words_left : Signal
        A word is taken; words stream; the next one is the last; so many are left.
    adding, summing, turn : Signal
        A row's sum is added to its total; it is the total's last one; rings turn after it.
    row, lane : Signal
        Of that row.
    """

    block: data.View
    part: Signal
    go: Signal
    streaming: Signal
    last_word: Signal
    words_left: Signal
    adding: Signal
    summing: Signal
    turn: Signal
    row: Signal
    lane: Signal


def _now(config: Config) -> _Now:
    """No block at first."""
    parts = config.rows // config.lanes
    block = Signal(block_layout(config), name="current_block", reset_less=True)
    go = Signal()
    words_left = Signal(range(config.groups * config.window * parts + 1))
    part = Signal(range(parts + 1))
    lane = Signal(range(config.lanes))
    row = Signal(range(config.rows))
    streaming, last_word = Signal(), Signal()
    adding, summing, turn = Signal(), Signal(), Signal()
    return _Now(block, part, go, streaming, last_word, words_left, adding, summing, turn, row, lane)


@dataclass(frozen=True)
class _Total:
    """A row's total: its value, its gain, and whether the row is finished with it."""

    value: Signal
    gain: Signal
    finished: Signal


class AttentionSoftmax(wiring.Component):
    """Softmax of `rows` rows at a time, block after block.

    Rate: takes `drain_lanes` scores and gives `lanes` probabilities per cycle. A block's first probability comes
    ``rows / lanes + 12`` cycles after its last score, if nothing waits.

    Parameters
    ----------
    config : Config

    Members
    -------
    block : In(stream of block_layout)
        One per block, before its scores.
    scores : In(stream of drain_lanes x signed(16))
        Base-2 logits with 6 fraction bits, or 3 if coarse; key after key, all rows of a key in order. Keys come in the
        order of window positions: number ``g * depth + p`` is key ``groups * p + g`` of the block.
    probabilities : Out(stream of lanes x unsigned(8))
        In the same order.
    growth : Out(stream of growth_layout)
        Before the probabilities of each block but a row's first: by how many places the sums of the
        blocks before must shift right.
    totals : Out(stream of row_parameter_layout)
        After a row's last block: the requantization of each row that divides by its sum.
    busy : Out(1)
    saturated : Out(1)
        A word of scores of a valid key had one at an end of its 16 bits.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "block": In(stream.Signature(block_layout(config))),
                "scores": In(stream.Signature(data.ArrayLayout(signed(16), config.drain_lanes))),
                "probabilities": Out(stream.Signature(data.ArrayLayout(unsigned(8), config.lanes))),
                "growth": Out(stream.Signature(growth_layout(config))),
                "totals": Out(stream.Signature(row_parameter_layout())),
                "busy": Out(1),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = ScorePorts(self.block, self.scores, self.busy, self.saturated)
        queue, finished = running_maxima(m, self.config, ports)
        self._exponentials(m, queue, finished)
        return m

    def _exponentials(self, m: Module, queue: Queue, finished: FinishedBlock) -> None:
        """Per block: raise the exponents, stream, add up; at the row's end, the reciprocals."""
        cfg = self.config
        sum_shape = unsigned((255 * cfg.groups * cfg.window).bit_length())
        rings = LaneRings(
            lane_rings(cfg, "exponent", signed(EXPONENT_BITS)),
            lane_rings(cfg, "carry", unsigned(16)),
            lane_rings(cfg, "block_sum", sum_shape),
        )
        growth = _Growth(lane_rings(cfg, "growth", unsigned(5)), ready=Signal(name="growth_ready"))
        output, totals = self._outputs(m, growth)
        now = _now(cfg)
        room = credits(m, "room", _OUTPUT_DEPTH, now.go, output.r_rdy & output.r_en)
        totals_room = self._reserve_totals(m, now, totals)
        total = self._row_totals(m, now, rings.sums, growth)
        idle = self._sequence(m, now, rings, growth, finished, totals_room)
        m.d.comb += [now.go.eq(now.streaming & queue.r_rdy & room), queue.r_en.eq(now.go)]
        with m.If(now.go):
            m.d.sync += [now.words_left.eq(now.words_left - 1), now.last_word.eq(now.words_left == 2)]
            m.d.sync += [a for ring in rings.exponents for a in ring_shift(ring, ring[0])]
        with m.If(~idle):
            m.d.comb += self.busy.eq(1)
        probabilities(m, queue.r_data, now.block.coarse, now.go, now.turn, rings, output)
        reciprocals(m, total.value, total.gain, total.finished, totals)

    def _outputs(self, m: Module, growth: _Growth) -> tuple[Queue, Queue]:
        """The queues of probabilities and of totals; a block's growth is offered until it is taken."""
        cfg = self.config
        output = m.submodules.output = Queue(width=8 * cfg.lanes, depth=_OUTPUT_DEPTH)
        totals = m.submodules.totals_queue = Queue(width=row_parameter_layout().size, depth=2 * cfg.rows)
        m.d.comb += [
            self.probabilities.payload.eq(output.r_data),
            self.probabilities.valid.eq(output.r_rdy),
            output.r_en.eq(self.probabilities.ready),
            self.totals.payload.eq(totals.r_data),
            self.totals.valid.eq(totals.r_rdy),
            totals.r_en.eq(self.totals.ready),
            self.growth.valid.eq(growth.ready),
            *(self.growth.payload[r].eq(growth.rings[r % cfg.lanes][r // cfg.lanes]) for r in range(cfg.rows)),
        ]
        with m.If(self.growth.ready):
            m.d.sync += growth.ready.eq(0)
        return output, totals

    def _reserve_totals(self, m: Module, now: _Now, totals: Queue) -> Signal:
        """Whether the totals of all rows have room; they do before the first is formed."""
        rows = self.config.rows
        totals_left = Signal(range(2 * rows + 1), init=2 * rows)
        totals_room = Signal()
        m.d.comb += now.summing.eq(now.adding & now.block.last)
        m.d.sync += [
            totals_left.eq(totals_left - now.summing + (totals.r_rdy & totals.r_en)),
            totals_room.eq(totals_left >= rows),
        ]
        return totals_room

    def _row_totals(self, m: Module, now: _Now, sums: list[list[Signal]], growth: _Growth) -> _Total:
        """The rows' totals, in units that follow their exponents: read, shifted, added to, a row per cycle."""
        cfg, lanes = self.config, self.config.lanes
        memory_of_totals = m.submodules.row_totals = memory.Memory(shape=unsigned(SUM_BITS), depth=cfg.rows, init=[])
        write, read = memory_of_totals.write_port(), memory_of_totals.read_port(domain="comb")
        block_sum = Array(ring[0] for ring in sums)[now.lane]
        row_growth = Array(growth.rings[r % lanes][r // lanes] for r in range(cfg.rows))[now.row]
        total, stored, kept = (Signal(SUM_BITS, name=n, reset_less=True) for n in ("total", "stored", "kept"))
        added_1, added_2 = Signal.like(sums[0][0]), Signal.like(sums[0][0])
        growth_1 = Signal(5, reset_less=True)
        rows = [Signal(range(cfg.rows), name=f"row_{i}") for i in (1, 2, 3)]
        writing = [Signal(name=f"writing_{i}") for i in (1, 2, 3)]
        finished = [Signal(name=f"finished_{i}") for i in (1, 2, 3)]
        gains = [Signal(3, name=f"gain_{i}", reset_less=True) for i in (1, 2, 3)]
        chains = ((rows, now.row), (writing, now.adding), (finished, now.summing), (gains, now.block.gain))
        for chain, start in chains:
            m.d.sync += [late.eq(early) for early, late in zip([start, *chain], chain, strict=False)]
        m.d.comb += [
            read.addr.eq(now.row),
            write.addr.eq(rows[2]),
            write.en.eq(writing[2]),
            write.data.eq(total),
        ]
        m.d.sync += [
            stored.eq(Mux(now.block.first, 0, read.data)),
            growth_1.eq(row_growth),
            added_1.eq(block_sum),
            kept.eq(stored >> growth_1),
            added_2.eq(added_1),
            total.eq(kept + (added_2 << 8)),
        ]
        return _Total(total, gains[2], finished[2])

    def _sequence(
        self, m: Module, now: _Now, rings: LaneRings, growth: _Growth, finished: FinishedBlock, totals_room: Value
    ) -> Value:
        """A finished block after the other: prepare its rows, stream it, drain it, add up; whether there is none."""
        cfg, lanes = self.config, self.config.lanes
        block, part, row, lane = now.block, now.part, now.row, now.lane
        drained = Signal(range(PIPELINE + 4))
        with m.FSM(name="block") as fsm:
            with m.State("IDLE"):
                m.d.sync += [block.eq(finished.block), part.eq(0)]
                with m.If(finished.pending & ~growth.ready):
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                self._prepare(m, now, rings, growth, finished)
            with m.State("STREAM"):
                m.d.sync += drained.eq(PIPELINE)
                with m.If(now.go & now.last_word):
                    m.d.sync += now.streaming.eq(0)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.sync += [row.eq(0), lane.eq(0)]
                with m.If(drained != 0):
                    m.d.sync += drained.eq(drained - 1)
                with m.Elif(totals_room | ~block.last):
                    m.d.sync += [now.adding.eq(1), now.turn.eq(lanes == 1)]
                    m.next = "TOTALS"
            with m.State("TOTALS"):
                m.d.sync += [row.eq(row + 1), lane.eq(Mux(now.turn, 0, lane + 1))]
                m.d.sync += now.turn.eq(lane == lanes - 2 if lanes > 1 else 1)
                with m.If(row == cfg.rows - 1):
                    m.d.sync += [now.adding.eq(0), now.turn.eq(0)]
                    m.next = "IDLE"
        return fsm.ongoing("IDLE")

    def _prepare(self, m: Module, now: _Now, rings: LaneRings, growth: _Growth, finished: FinishedBlock) -> None:
        """A row of each lane per cycle: its new exponent, and by how much it grew."""
        cfg = self.config
        parts = cfg.rows // cfg.lanes
        block, part = now.block, now.part
        m.d.sync += part.eq(part + 1)
        for i, (exponents, found) in enumerate(zip(rings.exponents, finished.maxima, strict=True)):
            gap = Signal(EXPONENT_BITS, name=f"growth_gap_{i}")
            m.d.comb += gap.eq(found[0] - exponents[0])
            # A total is below 2**31, so 31 places leave as much of it as more would.
            m.d.sync += ring_shift(growth.rings[i], Mux(block.first, 0, Mux(gap[5:].any(), 31, gap[:5])))
            m.d.sync += ring_shift(exponents, found[0])
            m.d.sync += ring_shift(found, found[-1])
        m.d.sync += [s.eq(0) for ring in rings.sums for s in ring]
        with m.If(block.first):
            m.d.sync += [c.eq(1 << 15) for ring in rings.carries for c in ring]
        words = Signal.like(now.words_left)
        m.d.comb += words.eq(block.depth * cfg.groups * parts)
        m.d.sync += [now.words_left.eq(words), now.last_word.eq(words == 1)]
        with m.If(part == parts - 1):
            m.d.sync += now.streaming.eq(1)
            m.d.comb += finished.accept.eq(1)
            m.d.sync += growth.ready.eq(~block.first)
            m.next = "STREAM"
