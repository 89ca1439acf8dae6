"""The softmax between Q x K^T and P x V: scores come column by column, probabilities leave the same way.

The arithmetic is that of `Softmax` (docs/numerics.md) in 8 bits; but here a beat holds one key's scores
for several rows (queries), as the drain gives them and as the windows take them, so nothing is
transposed. Each row has its own running exponent, sum and rounding remainder. A block of keys is held
until its maxima are known; meanwhile the next block arrives.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.arithmetic import at_limit, ring_shift
from ..primitives.layouts import growth_layout, row_parameter_layout
from ..primitives.queue import Queue, RegisterSlice, credits
from ..primitives.sequencer import Gearbox

__all__ = ["AttentionSoftmax", "block_layout"]

_FRACTION_BITS = 6
_COARSE_BITS = 3
"""Fraction bits that coarse scores lack."""
_EXPONENT_BITS = 11 + _COARSE_BITS
_LOWEST = -512 << _COARSE_BITS
_SUM_BITS = 32
_OUTPUT_DEPTH = 16
_PIPELINE = 6
"""Cycles from a word of scores to its probabilities."""


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


def _scaled(score: Value, coarse: Value) -> Value:
    """A score with 6 fraction bits, 19 bits wide: coarse ones come with 3."""
    fine = Cat(score, score[-1].replicate(_COARSE_BITS))
    return Mux(coarse, Cat(Const(0, _COARSE_BITS), score), fine).as_signed()


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
        self._found = self._rings("found", signed(_EXPONENT_BITS))
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
            [Signal(signed(_EXPONENT_BITS), init=_LOWEST, name=f"maximum_{i}_{p}") for p in range(parts)]
            for i in range(taken)
        ]
        # The score's whole part, one cycle behind.
        whole = [Signal(signed(_EXPONENT_BITS), name=f"whole_{i}", reset_less=True) for i in range(taken)]
        move_1, valid_1 = Signal(), Signal()
        if causal:
            late = [Signal(name=f"valid_1_{i}") for i in range(taken)]
            at_end = move & Cat(v & at_limit(score, 16) for score, v in zip(scores, valids, strict=True)).any()
        else:
            late = [valid_1] * taken
            at_end = move & valid & Cat(at_limit(score, 16) for score in scores).any()
        m.d.sync += [
            *(
                w.eq((_scaled(score, block.coarse) >> _FRACTION_BITS) + 1)
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
        exponents = self._rings("exponent", signed(_EXPONENT_BITS))
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
        drained = Signal(range(_PIPELINE + 4))
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
        memory_of_totals = m.submodules.row_totals = memory.Memory(shape=unsigned(_SUM_BITS), depth=cfg.rows, init=[])
        write, read = memory_of_totals.write_port(), memory_of_totals.read_port(domain="comb")
        block_sum = Array(ring[0] for ring in sums)[lane]
        growth = Array(growths[r % lanes][r // lanes] for r in range(cfg.rows))[row]
        total, stored, kept = (Signal(_SUM_BITS, name=n, reset_less=True) for n in ("total", "stored", "kept"))
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
                    gap = Signal(_EXPONENT_BITS, name=f"growth_gap_{i}")
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
                m.d.sync += drained.eq(_PIPELINE)
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

        self._pipeline(m, queue.r_data, block.coarse, go, turn, exponents, carries, sums, output)
        self._reciprocals(m, total, gains[2], finished[2], totals)

    def _pipeline(self, m: Module, word: Value, coarse: Value, go, turn, exponents, carries, sums, output) -> None:
        """Exponentials with error diffusion along each row: a pipeline that never stalls."""
        flags = [go]
        for i in range(_PIPELINE):
            stage = Signal(name=f"stage_{i + 1}")
            m.d.sync += stage.eq(flags[-1])
            flags.append(stage)
        table = [round(2 ** (f / 64) * 2**15) for f in range(64)]
        results = []
        for i in range(self.config.lanes):
            score = Signal(signed(16 + _COARSE_BITS), name=f"score_{i}", reset_less=True)
            keep = Signal(name=f"keep_{i}", reset_less=True)
            exponent = Signal(signed(_EXPONENT_BITS), name=f"row_exponent_{i}", reset_less=True)
            given = word[17 * i :][:17]
            m.d.sync += [score.eq(_scaled(given[:16], coarse)), keep.eq(given[16]), exponent.eq(exponents[i][0] - 1)]
            rom = m.submodules[f"fraction_{i}"] = memory.Memory(shape=unsigned(16), depth=64, init=table)
            read = rom.read_port()
            m.d.comb += [read.addr.eq(score[:6]), read.en.eq(1)]
            gap = Signal(_EXPONENT_BITS + 1, name=f"gap_{i}", reset_less=True)
            places = Signal(5, name=f"places_{i}", reset_less=True)
            places_3 = Signal(5, name=f"places_3_{i}", reset_less=True)
            keep_2, keep_3 = Signal(name=f"keep_2_{i}", reset_less=True), Signal(name=f"keep_3_{i}", reset_less=True)
            fraction = Signal(16, name=f"fraction_register_{i}", reset_less=True)
            fine = Signal(24, name=f"fine_{i}", reset_less=True)
            m.d.comb += gap.eq(exponent - (score >> _FRACTION_BITS))  # not negative where it counts
            m.d.sync += [
                places.eq(Mux(gap[5:].any(), 31, gap[:5])),
                places_3.eq(places),
                keep_2.eq(keep),
                keep_3.eq(keep_2),
                fraction.eq(read.data),
                fine.eq(Mux(keep_3, Cat(Const(0, 8), fraction) >> places_3, 0)),
            ]
            # The row's remainder takes the fraction; its carry goes to this element.
            running = Signal(17, name=f"running_{i}")
            probability = Signal(8, name=f"probability_{i}", reset_less=True)
            m.d.comb += running.eq(carries[i][0] + fine[:16])
            m.d.sync += probability.eq(fine[16:] + running[16])
            with m.If(flags[4]):
                m.d.sync += ring_shift(carries[i], running[:16])
            # A turn for reading adds nothing: cheaper than another input to the registers.
            with m.If(flags[5] | turn):
                m.d.sync += ring_shift(sums[i], sums[i][0] + Mux(turn, 0, probability))
            results.append(probability)
        m.d.comb += [output.w_en.eq(flags[5]), output.w_data.eq(Cat(*results))]

    def _reciprocals(self, m: Module, total: Value, gain: Value, summing: Value, totals) -> None:
        """1 / sum as a requantization (docs/numerics.md), one row per cycle, 7 cycles later."""
        valid = [summing]
        for i in range(6):
            stage = Signal(name=f"total_valid_{i + 1}")
            m.d.sync += stage.eq(valid[-1])
            valid.append(stage)
        total_1, total_2 = Signal(_SUM_BITS, reset_less=True), Signal(_SUM_BITS, reset_less=True)
        gain_1, gain_2 = Signal(3, reset_less=True), Signal(3, reset_less=True)
        power = Signal(5, reset_less=True)
        m.d.sync += [total_1.eq(total), gain_1.eq(gain), total_2.eq(total_1), gain_2.eq(gain_1)]
        for bit in range(_SUM_BITS):
            with m.If(total_1[bit]):
                m.d.sync += power.eq(bit)
        index, places, empty = Signal(10, reset_less=True), Signal(6, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            index.eq((total_2 << ~power)[21:31]),
            places.eq(power - 4 - gain_2),  # less the base shift of 12
            empty.eq(total_2 == 0),
        ]
        table = [round(2**16 / (1 + (i + 0.5) / 1024)) for i in range(1024)]
        rom = m.submodules.reciprocal = memory.Memory(shape=unsigned(16), depth=1024, init=table)
        read = rom.read_port()
        shift, extra, empty_4 = Signal(3, reset_less=True), Signal(6, reset_less=True), Signal(reset_less=True)
        shift_5, extra_5, empty_5 = Signal(3, reset_less=True), Signal(6, reset_less=True), Signal(reset_less=True)
        inverse = Signal(16, reset_less=True)
        m.d.comb += [read.addr.eq(index), read.en.eq(1)]
        m.d.sync += [
            shift.eq(Mux(places >= 28, 7, places[2:])),
            extra.eq(Mux(places >= 28, places - 28, places[:2])),
            empty_4.eq(empty),
            inverse.eq(read.data),
            shift_5.eq(shift),
            extra_5.eq(extra),
            empty_5.eq(empty_4),
        ]
        shifted = Signal(17, reset_less=True)
        found = Signal(row_parameter_layout(), name="reciprocal_found")
        shift_6 = Signal(3, reset_less=True)
        m.d.sync += [
            shifted.eq(Mux(empty_5, 0, Cat(0, inverse) >> extra_5)),
            shift_6.eq(Mux(empty_5, 0, shift_5)),
        ]
        m.d.comb += [
            found.multiplier.eq((shifted + 1) >> 1),
            found.shift.eq(shift_6),
            totals.w_data.eq(found),
            totals.w_en.eq(valid[6]),
        ]
