"""The softmax between Q x K^T and P x V: scores come column by column, probabilities leave the same way.

The arithmetic is that of `Softmax` (docs/numerics.md) in 8 bits; but here a beat holds one key's scores
for several rows (queries), as the drain gives them and as the windows take them, so nothing is
transposed. Each row has its own running exponent, sum and rounding remainder. A block of keys is held
until its maxima are known; meanwhile the next block arrives.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.arithmetic import at_limit, ring_shift
from ..primitives.layouts import growth_layout, row_parameter_layout
from ..primitives.queue import Queue, RegisterSlice, credits
from ..primitives.sequencer import Gearbox
from .attention_arithmetic import (
    COARSE_BITS,
    EXPONENT_BITS,
    FRACTION_BITS,
    PIPELINE,
    SUM_BITS,
    LaneRings,
    probabilities,
    reciprocals,
    scaled,
)

__all__ = ["AttentionSoftmax", "block_layout"]

_LOWEST = -512 << COARSE_BITS
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


class AttentionSoftmax(wiring.Component):
    """Softmax of `rows` rows at a time, block after block.

    Rate: takes `drain_lanes` scores and gives `lanes` probabilities per cycle. Between a block's last
    score and its first probability lie ``rows / lanes + 13`` cycles.

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
        # Handed from the first phase to the second: the block and its rows' exponents.
        self._pending = Signal()
        self._accept = Signal()
        self._block = Signal(block_layout(self.config), name="finished_block", reset_less=True)
        self._found = self._rings("found", signed(EXPONENT_BITS))
        queue = self._maxima(m)
        self._exponentials(m, queue)
        return m

    def _rings(self, name: str, shape: Shape) -> list[list[Signal]]:
        """Per lane of probabilities a ring with an entry for each of its rows."""
        cfg = self.config
        parts = cfg.rows // cfg.lanes
        return [[Signal(shape, name=f"{name}_{i}_{p}") for p in range(parts)] for i in range(cfg.lanes)]

    def _maxima(self, m: Module) -> Queue:
        """Queue the scores, each with its mask bit, while each row's running maximum is found."""
        cfg = self.config
        taken, given = cfg.drain_lanes, cfg.lanes
        parts = cfg.rows // taken
        block = Signal(block_layout(cfg), reset_less=True)
        active = Signal()
        end_1, end_2 = Signal(), Signal()
        m.d.comb += self.block.ready.eq(~active & ~end_1 & ~end_2 & ~self._pending)
        key = Signal(17)
        group_key = Signal(17)  # the number of the group's first key
        group = Signal(range(cfg.groups))
        position = Signal(6)
        part = Signal(range(parts))
        with m.If(self.block.valid & self.block.ready):
            m.d.sync += [
                block.eq(self.block.payload),
                active.eq(1),
                key.eq(self.block.payload.start), group_key.eq(self.block.payload.start),
                group.eq(0), position.eq(0), part.eq(0),
            ]  # fmt: skip

        # Words of `lanes` rows: scores beside mask bits, alike for all rows of a key unless masks are causal.
        gear = m.submodules.gear = Gearbox(17 * taken, 17 * given)
        words = (cfg.groups * cfg.window) * (cfg.rows // given)
        queue = m.submodules.scores_queue = Queue(width=17 * given, depth=2 * words)
        causal = "causal" in cfg.features
        valid = key < block.keys
        valids = self._causal(m, block, key, part) if causal else [valid] * taken
        arrived = m.submodules.arrived = RegisterSlice(16 * taken)
        scores = [arrived.r_data[16 * i :][:16].as_signed() for i in range(taken)]
        m.d.comb += [
            arrived.w_data.eq(self.scores.payload.as_value()),
            arrived.w_en.eq(self.scores.valid),
            self.scores.ready.eq(arrived.w_rdy),
            gear.source.valid.eq(active & arrived.r_rdy),
            gear.source.payload.eq(Cat(Cat(score, valid) for score, valid in zip(scores, valids, strict=True))),
            arrived.r_en.eq(active & gear.source.ready),
            queue.w_data.eq(gear.target.payload),
            queue.w_en.eq(gear.target.valid),
            gear.target.ready.eq(queue.w_rdy),
        ]
        move = gear.source.valid & gear.source.ready
        part_end = part == parts - 1
        position_end = position == block.depth - 1
        end = part_end & position_end & (group == cfg.groups - 1)

        # Per lane a ring of its rows' maxima, which turns by one place per beat.
        maxima = [
            [Signal(signed(EXPONENT_BITS), init=_LOWEST, name=f"maximum_{i}_{p}") for p in range(parts)]
            for i in range(taken)
        ]
        # The score's whole part, one cycle behind.
        whole = [Signal(signed(EXPONENT_BITS), name=f"whole_{i}", reset_less=True) for i in range(taken)]
        move_1, valid_1 = Signal(), Signal()
        if causal:
            late = [Signal(name=f"valid_1_{i}") for i in range(taken)]
            at_end = move & Cat(v & at_limit(score, 16) for score, v in zip(scores, valids, strict=True)).any()
        else:
            late = [valid_1] * taken
            at_end = move & valid & Cat(at_limit(score, 16) for score in scores).any()
        m.d.sync += [
            *(
                w.eq((scaled(score, block.coarse) >> FRACTION_BITS) + 1)
                for score, w in zip(scores, whole, strict=True)
            ),
            move_1.eq(move), *(v_1.eq(v) for v, v_1 in zip(valids[: taken if causal else 1], late, strict=False)),
            end_1.eq(move & end), self.saturated.eq(at_end),
        ]  # fmt: skip
        with m.If(move_1):
            for ring, found, counts in zip(maxima, whole, late, strict=True):
                m.d.sync += ring_shift(ring, Mux(counts & (found > ring[0]), found, ring[0]))
        with m.If(move):
            m.d.sync += part.eq(part + 1)
            with m.If(part_end):
                m.d.sync += [part.eq(0), position.eq(position + 1), key.eq(key + cfg.groups)]
                with m.If(position_end):
                    m.d.sync += [position.eq(0), group.eq(group + 1), group_key.eq(group_key + 1),
                                 key.eq(group_key + 1)]  # fmt: skip
            with m.If(end):
                m.d.sync += [active.eq(0), self._block.eq(block)]
        # A block's maxima are complete two cycles after its last score.
        m.d.sync += end_2.eq(end_1)
        with m.If(self._accept):
            m.d.sync += self._pending.eq(0)
        with m.If(end_2):
            m.d.sync += self._pending.eq(1)
            for r in range(cfg.rows):
                m.d.sync += self._found[r % given][r // given].eq(maxima[r % taken][r // taken])
            with m.If(self._block.last):
                m.d.sync += [b.eq(_LOWEST) for ring in maxima for b in ring]
        m.d.comb += self.busy.eq(active | self._pending)
        return queue

    def _causal(self, m: Module, block: data.View, key: Value, part: Value) -> list[Value]:
        """Of each row of the part at hand whether a key is valid: with causal masks row r has r more keys."""
        taken = self.config.drain_lanes
        beyond = Signal(signed(18))  # by how much the key's number is beyond the first row's last one
        m.d.comb += beyond.eq(key - block.keys)
        within, part_bits = part & block.causal.replicate(len(part)), taken.bit_length() - 1
        high, low = (beyond >> part_bits).as_signed(), beyond[:part_bits]
        less, same = Signal(), Signal()
        m.d.comb += [
            less.eq(~key[-1] & (high < within.as_unsigned())),
            same.eq(~key[-1] & block.causal & (high == within.as_unsigned())),
        ]
        return [less | (same & (low < i)) for i in range(taken)]

    def _exponentials(self, m: Module, queue: Queue) -> None:
        """Per block: raise the exponents, stream, add up; at the row's end, the reciprocals."""
        cfg = self.config
        lanes = cfg.lanes
        parts = cfg.rows // lanes
        block = Signal(block_layout(cfg), name="current_block", reset_less=True)
        exponents = self._rings("exponent", signed(EXPONENT_BITS))
        growths = self._rings("growth", unsigned(5))
        carries = self._rings("carry", unsigned(16))
        sums = self._rings("block_sum", unsigned((255 * cfg.groups * cfg.window).bit_length()))

        output = m.submodules.output = Queue(width=8 * lanes, depth=_OUTPUT_DEPTH)
        totals = m.submodules.totals_queue = Queue(width=row_parameter_layout().size, depth=2 * cfg.rows)
        growth_ready = Signal()
        m.d.comb += [
            self.probabilities.payload.eq(output.r_data),
            self.probabilities.valid.eq(output.r_rdy),
            output.r_en.eq(self.probabilities.ready),
            self.totals.payload.eq(totals.r_data),
            self.totals.valid.eq(totals.r_rdy),
            totals.r_en.eq(self.totals.ready),
            self.growth.valid.eq(growth_ready),
            *(self.growth.payload[r].eq(growths[r % lanes][r // lanes]) for r in range(cfg.rows)),
        ]
        with m.If(self.growth.ready):
            m.d.sync += growth_ready.eq(0)

        go = Signal()
        words_left = Signal(range(cfg.groups * cfg.window * parts + 1))
        part = Signal(range(parts + 1))
        lane = Signal(range(lanes))
        row = Signal(range(cfg.rows))
        drained = Signal(range(PIPELINE + 4))
        # Registers: that words stream and the last one is next; that a row's total is formed, and rings turn after it.
        streaming, last_word = Signal(), Signal()
        adding, summing, turn = Signal(), Signal(), Signal()
        room = credits(m, "room", _OUTPUT_DEPTH, go, output.r_rdy & output.r_en)
        # The totals of all rows have room before the first is formed.
        totals_left = Signal(range(2 * cfg.rows + 1), init=2 * cfg.rows)
        totals_room = Signal()
        m.d.comb += summing.eq(adding & block.last)
        m.d.sync += [
            totals_left.eq(totals_left - summing + (totals.r_rdy & totals.r_en)),
            totals_room.eq(totals_left >= cfg.rows),
        ]

        # The rows' totals, in units that follow their exponents: read, shifted, added to, a row per cycle.
        memory_of_totals = m.submodules.row_totals = memory.Memory(shape=unsigned(SUM_BITS), depth=cfg.rows, init=[])
        write, read = memory_of_totals.write_port(), memory_of_totals.read_port(domain="comb")
        block_sum = Array(ring[0] for ring in sums)[lane]
        growth = Array(growths[r % lanes][r // lanes] for r in range(cfg.rows))[row]
        total, stored, kept = (Signal(SUM_BITS, name=n, reset_less=True) for n in ("total", "stored", "kept"))
        added_1, added_2 = Signal.like(sums[0][0]), Signal.like(sums[0][0])
        growth_1 = Signal(5, reset_less=True)
        rows = [Signal(range(cfg.rows), name=f"row_{i}") for i in (1, 2, 3)]
        writing = [Signal(name=f"writing_{i}") for i in (1, 2, 3)]
        finished = [Signal(name=f"finished_{i}") for i in (1, 2, 3)]
        gains = [Signal(3, name=f"gain_{i}", reset_less=True) for i in (1, 2, 3)]
        for chain, start in ((rows, row), (writing, adding), (finished, summing), (gains, block.gain)):
            m.d.sync += [late.eq(early) for early, late in zip([start, *chain], chain, strict=False)]
        m.d.comb += [
            read.addr.eq(row),
            write.addr.eq(rows[2]),
            write.en.eq(writing[2]),
            write.data.eq(total),
        ]
        m.d.sync += [
            stored.eq(Mux(block.first, 0, read.data)),
            growth_1.eq(growth),
            added_1.eq(block_sum),
            kept.eq(stored >> growth_1),
            added_2.eq(added_1),
            total.eq(kept + (added_2 << 8)),
        ]
        with m.FSM(name="block") as fsm:
            with m.State("IDLE"):
                m.d.sync += [block.eq(self._block), part.eq(0)]
                with m.If(self._pending & ~growth_ready):
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                # A row of each lane per cycle: its new exponent, and by how much it grew.
                m.d.sync += part.eq(part + 1)
                for i in range(lanes):
                    gap = Signal(EXPONENT_BITS, name=f"growth_gap_{i}")
                    m.d.comb += gap.eq(self._found[i][0] - exponents[i][0])
                    # A total is below 2**31, so 31 places leave as much of it as more would.
                    m.d.sync += ring_shift(growths[i], Mux(block.first, 0, Mux(gap[5:].any(), 31, gap[:5])))
                    m.d.sync += ring_shift(exponents[i], self._found[i][0])
                    m.d.sync += ring_shift(self._found[i], self._found[i][-1])
                m.d.sync += [s.eq(0) for ring in sums for s in ring]
                with m.If(block.first):
                    m.d.sync += [c.eq(1 << 15) for ring in carries for c in ring]
                words = Signal.like(words_left)
                m.d.comb += words.eq(block.depth * cfg.groups * parts)
                m.d.sync += [words_left.eq(words), last_word.eq(words == 1)]
                with m.If(part == parts - 1):
                    m.d.sync += streaming.eq(1)
                    m.d.comb += self._accept.eq(1)
                    m.d.sync += growth_ready.eq(~block.first)
                    m.next = "STREAM"
            with m.State("STREAM"):
                m.d.sync += drained.eq(PIPELINE)
                with m.If(go & last_word):
                    m.d.sync += streaming.eq(0)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.sync += [row.eq(0), lane.eq(0)]
                with m.If(drained != 0):
                    m.d.sync += drained.eq(drained - 1)
                with m.Elif(totals_room | ~block.last):
                    m.d.sync += [adding.eq(1), turn.eq(lanes == 1)]
                    m.next = "TOTALS"
            with m.State("TOTALS"):
                m.d.sync += [row.eq(row + 1), lane.eq(Mux(turn, 0, lane + 1))]
                m.d.sync += turn.eq(lane == lanes - 2 if lanes > 1 else 1)
                with m.If(row == cfg.rows - 1):
                    m.d.sync += [adding.eq(0), turn.eq(0)]
                    m.next = "IDLE"
        m.d.comb += [go.eq(streaming & queue.r_rdy & room), queue.r_en.eq(go)]
        with m.If(go):
            m.d.sync += [words_left.eq(words_left - 1), last_word.eq(words_left == 2)]
            m.d.sync += [a for ring in exponents for a in ring_shift(ring, ring[0])]
        with m.If(~fsm.ongoing("IDLE")):
            m.d.comb += self.busy.eq(1)

        rings = LaneRings(exponents, carries, sums)
        probabilities(m, queue.r_data, block.coarse, go, turn, rings, output)
        reciprocals(m, total, gains[2], finished[2], totals)
