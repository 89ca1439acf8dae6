"""Streaming softmax: base 2, integer, one pass, rows of any length.

Unnormalised probabilities leave a few cycles after their logits, each block with the exponent it was
scaled by (the running maximum, as in online softmax: Milakov and Gimelshein, arXiv 1805.02867);
the row's sum and its reciprocal, as requantization parameters, follow when the row ends. The state is one
exponent, one sum and one rounding remainder, whatever the row's length.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..engine.array import AdderTree
from ..primitives.queue import Queue, credits

__all__ = ["Softmax", "logits_layout", "probabilities_layout", "row_layout"]

_OUTPUT_DEPTH = 32
_EXPONENT_BITS = 11
_LOWEST = -512
_SUM_WIDTH = 32


def logits_layout(config: Config) -> data.StructLayout:
    """One beat of logits: 16 bits with 6 fraction bits, base-2 units.

    `mask` bits that are 0 exclude elements. `wide` (16-bit probabilities) and `gain` (0 to 7: the
    reciprocal is multiplied by ``2**gain``) are the row's, the same in each of its beats.
    """
    return data.StructLayout(
        {
            "values": data.ArrayLayout(signed(16), config.softmax_lanes),
            "mask": unsigned(config.softmax_lanes),
            "last": unsigned(1),
            "wide": unsigned(1),
            "gain": unsigned(3),
        }
    )


def probabilities_layout(config: Config) -> data.StructLayout:
    """One beat of probabilities, 8 or 16 bits unsigned, in units of 2**(exponent - 8 or - 16)."""
    return data.StructLayout(
        {
            "values": data.ArrayLayout(unsigned(16), config.softmax_lanes),
            "exponent": signed(_EXPONENT_BITS),
            "last": unsigned(1),
        }
    )


def row_layout() -> data.StructLayout:
    """One row's sum (16 fraction bits), its exponent, and the requantization that divides by the sum."""
    return data.StructLayout(
        {
            "sum": unsigned(_SUM_WIDTH),
            "exponent": signed(_EXPONENT_BITS),
            "multiplier": unsigned(16),
            "shift": unsigned(3),
        }
    )


class Softmax(wiring.Component):
    """Softmax over rows of `softmax_lanes` elements per cycle, without a bubble between rows.

    Latency, nothing waiting: ``softmax_block / softmax_lanes + Softmax.latency`` cycles from a full
    block's first beat to its first probabilities.

    Parameters
    ----------
    config : Config
        `softmax_lanes` elements per beat; `softmax_block` elements share an exponent.

    Members
    -------
    logits : In(stream of logits_layout)
    probabilities : Out(stream of probabilities_layout)
        One beat per beat of logits.
    totals : Out(stream of row_layout)
        One per row.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "logits": In(stream.Signature(logits_layout(config))),
                "probabilities": Out(stream.Signature(probabilities_layout(config))),
                "totals": Out(stream.Signature(row_layout())),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from the beat that ends a block (or row) to the block's first probabilities."""
        levels = (self.config.softmax_lanes - 1).bit_length()
        return 11 + 2 * levels

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue, exponents = self._maximum(m)
        beat = self._start(m, queue, exponents)
        self._probabilities(m, beat)
        return m

    def _maximum(self, m: Module) -> tuple[Queue, Queue]:
        """Queue the beats while the running maximum of their block is found.

        Returns the queue of (block_first, block_end, row_first, beat) and that of block exponents.
        """
        cfg = self.config
        lanes = cfg.softmax_lanes
        beats_per_block = cfg.softmax_block // lanes
        depth = beats_per_block + 8
        payload = self.logits.payload
        beat_width = logits_layout(cfg).size
        queue = m.submodules.queue = Queue(width=beat_width + 3, depth=depth)
        exponents = m.submodules.exponents = Queue(width=_EXPONENT_BITS, depth=depth + 2)

        accept = Signal()
        beat_number = Signal(range(beats_per_block))
        row_first = Signal(init=1)
        block_end = payload.last | (beat_number == beats_per_block - 1)
        m.d.comb += [
            accept.eq(self.logits.valid & queue.w_rdy),
            self.logits.ready.eq(queue.w_rdy),
            queue.w_en.eq(accept),
            queue.w_data.eq(Cat(payload.as_value(), beat_number == 0, block_end, row_first)),
        ]
        with m.If(accept):
            m.d.sync += [beat_number.eq(Mux(block_end, 0, beat_number + 1)), row_first.eq(payload.last)]

        # Maximum over the lanes, a register per level; whole parts only.
        whole = [Mux(payload.mask[i], (payload.values[i] >> 6) + 1, _LOWEST).as_signed() for i in range(lanes)]
        flags: Value = Cat(accept, block_end, payload.last)
        first = [Signal(signed(_EXPONENT_BITS), name=f"whole_{i}") for i in range(lanes)]
        m.d.sync += [s.eq(w) for s, w in zip(first, whole, strict=True)]
        flags = _registered(m, flags, "flags_0")
        level = 1
        while len(first) > 1:
            merged = []
            for i in range(0, len(first), 2):
                best = Signal(signed(_EXPONENT_BITS), name=f"maximum_{level}_{i // 2}")
                pair = first[i : i + 2]
                m.d.sync += best.eq(Mux(pair[0] > pair[-1], pair[0], pair[-1]))
                merged.append(best)
            first = merged
            flags = _registered(m, flags, f"flags_{level}")
            level += 1
        running = Signal(signed(_EXPONENT_BITS), init=_LOWEST)
        best_yet = Signal(signed(_EXPONENT_BITS))
        m.d.comb += [
            best_yet.eq(Mux(first[0] > running, first[0], running)),
            exponents.w_data.eq(best_yet),
            exponents.w_en.eq(flags[0] & flags[1]),
        ]
        with m.If(flags[0]):
            m.d.sync += running.eq(Mux(flags[2], _LOWEST, best_yet))
        return queue, exponents

    def _start(self, m: Module, queue: Queue, exponents: Queue) -> data.View:
        """Let a beat into the pipeline when its exponent is known and the outputs have room."""
        cfg = self.config
        layout = data.StructLayout(
            {
                "beat": logits_layout(cfg),
                "block_first": unsigned(1),
                "block_end": unsigned(1),
                "row_first": unsigned(1),
            }
        )
        head = data.View(layout, queue.r_data)
        exponent = exponents.r_data.as_signed()
        self._output = m.submodules.output = Queue(width=probabilities_layout(cfg).size, depth=_OUTPUT_DEPTH)
        self._rows = m.submodules.rows = Queue(width=row_layout().size, depth=_OUTPUT_DEPTH)
        go = Signal()
        room = credits(m, "room", _OUTPUT_DEPTH, go, self._output.r_rdy & self._output.r_en)
        row_room = credits(m, "row_room", _OUTPUT_DEPTH, go & head.beat.last, self._rows.r_rdy & self._rows.r_en)
        m.d.comb += [
            go.eq(queue.r_rdy & exponents.r_rdy & room & row_room),
            queue.r_en.eq(go),
            exponents.r_en.eq(go & head.block_end),
            self.probabilities.payload.eq(self._output.r_data),
            self.probabilities.valid.eq(self._output.r_rdy),
            self._output.r_en.eq(self.probabilities.ready),
            self.totals.payload.eq(self._rows.r_data),
            self.totals.valid.eq(self._rows.r_rdy),
            self._rows.r_en.eq(self.totals.ready),
        ]
        previous = Signal(signed(_EXPONENT_BITS))
        started = Signal(
            data.StructLayout(
                {
                    "valid": unsigned(1),
                    "beat": logits_layout(cfg),
                    "exponent": signed(_EXPONENT_BITS),
                    "rescale": unsigned(6),  # places by which the row's sum shifts right first
                    "row_first": unsigned(1),
                }
            )
        )
        growth = Signal(_EXPONENT_BITS)
        m.d.comb += growth.eq(exponent - previous)
        m.d.sync += [
            started.valid.eq(go),
            started.beat.eq(head.beat),
            started.exponent.eq(exponent),
            started.row_first.eq(head.row_first),
            started.rescale.eq(Mux(head.row_first, 0, Mux(growth > 63, 63, growth))),
        ]
        with m.If(go):
            m.d.sync += previous.eq(exponent)
        return started

    def _probabilities(self, m: Module, started: data.View) -> None:
        """Exponentials, rounding, sums: a pipeline that never stalls."""
        cfg = self.config
        lanes = cfg.softmax_lanes
        levels = (lanes - 1).bit_length()
        side_layout = data.StructLayout(
            {
                "valid": unsigned(1),
                "last": unsigned(1),
                "wide": unsigned(1),
                "gain": unsigned(3),
                "row_first": unsigned(1),
                "exponent": signed(_EXPONENT_BITS),
                "rescale": unsigned(6),
            }
        )
        side = [Signal(side_layout, name="side_0")]
        m.d.comb += [
            *(side[0][f].eq(started.beat[f]) for f in ("last", "wide", "gain")),
            *(side[0][f].eq(started[f]) for f in ("valid", "row_first", "exponent", "rescale")),
        ]
        for i in range(1, 16 + 2 * levels):
            side.append(Signal(side_layout, name=f"side_{i}"))
            m.d.sync += side[i].eq(side[i - 1])

        table = [round(2 ** (f / 64) * 2**15) for f in range(64)]
        fine: list[Signal] = []
        for i in range(lanes):
            logit = started.beat.values[i]
            rom = m.submodules[f"fraction_{i}"] = memory.Memory(shape=unsigned(16), depth=64, init=table)
            read = rom.read_port()
            m.d.comb += [read.addr.eq(logit[:6]), read.en.eq(1)]
            gap = Signal(signed(12), name=f"gap_{i}")
            m.d.comb += gap.eq(started.exponent - 1 - (logit >> 6))
            places = Signal(5, name=f"places_{i}")
            shifted = Signal(24, name=f"shifted_{i}")
            result = Signal(32, name=f"fine_{i}")
            keep = [started.beat.mask[i]]
            for stage in range(2):
                keep.append(Signal(name=f"keep_{i}_{stage}"))
                m.d.sync += keep[-1].eq(keep[-2])
            m.d.sync += [
                places.eq(Mux(gap > 31, 31, gap[:5])),
                shifted.eq(Cat(Const(0, 8), read.data) >> places),
                # 16 bits of probability above 16 bits of fraction, in either width.
                result.eq(Mux(keep[2], Mux(side[2].wide, shifted << 8, shifted), 0)),
            ]
            fine.append(result)
        stage = 3  # cycles behind `started` that `fine` is

        final = self._diffused(m, fine, side, stage)
        stage += levels + 2
        out = data.View(probabilities_layout(cfg), Signal(probabilities_layout(cfg).size, name="output_beat"))
        m.d.comb += [
            *(out.values[i].eq(final[i]) for i in range(lanes)),
            out.exponent.eq(side[stage].exponent),
            out.last.eq(side[stage].last),
            self._output.w_data.eq(out.as_value()),
            self._output.w_en.eq(side[stage].valid),
        ]
        tree = m.submodules.sum = AdderTree(lanes, 17)
        m.d.comb += [tree.terms[i].eq(final[i]) for i in range(lanes)]
        stage += tree.latency
        self._totals(m, tree.sum, side, stage)

    def _diffused(self, m: Module, fine: Sequence[Signal], side: Sequence[data.View], stage: int) -> list[Signal]:
        """Round to whole units with error diffusion along the row: a probability's 16 upper bits.

        The fractions are summed along the row; each carry out of that running sum goes to the
        element where it happens. So rounding changes no row's sum by more than half a unit, where
        rounding each element alone would bias a row of many small ones.
        """
        levels = (len(fine) - 1).bit_length()
        prefix: list[Value] = [f[:16] for f in fine]
        whole: list[Value] = [f[16:] for f in fine]
        for level in range(levels):
            reach = 1 << level
            sums, kept = [], []
            for i in range(len(prefix)):
                partial = Signal(17 + level, name=f"prefix_{level}_{i}")
                m.d.sync += partial.eq(prefix[i] + prefix[i - reach] if i >= reach else prefix[i])
                sums.append(partial)
                kept.append(_registered(m, whole[i], f"whole_{level}_{i}"))
            prefix, whole = sums, kept
        at = side[stage + levels]
        carry = Signal(16)
        start = Signal(16)
        m.d.comb += start.eq(Mux(at.row_first, 1 << 15, carry))
        running = []
        for i, value in enumerate(prefix):
            total = Signal(17 + levels, name=f"running_{i}")
            m.d.sync += total.eq(value + start)
            running.append(total)
        with m.If(at.valid):
            m.d.sync += carry.eq((prefix[-1] + start)[:16])
        final = []
        for i, total in enumerate(running):
            before = running[i - 1][16:] if i else 0
            probability = Signal(16, name=f"probability_{i}")
            value = _registered(m, whole[i], f"whole_{levels}_{i}")
            m.d.sync += probability.eq(value + (total[16:] - before)[: levels + 1])
            final.append(probability)
        return final

    def _totals(self, m: Module, beat_sum: Value, side: Sequence[data.View], stage: int) -> None:
        """Accumulate the row's sum; at its end, look up the reciprocal. Five cycles."""
        at = side[stage]
        total = Signal(_SUM_WIDTH)
        base = Mux(at.row_first, 0, total) >> at.rescale
        with m.If(at.valid):
            m.d.sync += total.eq(base + Mux(at.wide, beat_sum, beat_sum << 8))

        power = Signal(5)
        total_1 = Signal(_SUM_WIDTH)
        m.d.sync += total_1.eq(total)
        for bit in range(_SUM_WIDTH):
            with m.If(total[bit]):
                m.d.sync += power.eq(bit)

        at = side[stage + 2]
        index = Signal(10)
        places = Signal(6)
        total_2 = Signal(_SUM_WIDTH)
        m.d.sync += [
            index.eq((total_1 << ~power)[21:31]),
            places.eq(power + Mux(at.wide, 4, -4) - at.gain),  # less the base shift of 12
            total_2.eq(total_1),
        ]
        table = [round(2**16 / (1 + (i + 0.5) / 1024)) for i in range(1024)]
        rom = m.submodules.reciprocal = memory.Memory(shape=unsigned(16), depth=1024, init=table)
        read = rom.read_port()
        shift = Signal(3)
        extra = Signal(6)
        total_3 = Signal(_SUM_WIDTH)
        m.d.comb += [read.addr.eq(index), read.en.eq(1)]
        m.d.sync += [
            shift.eq(Mux(places >= 28, 7, places[2:])),
            extra.eq(Mux(places >= 28, places - 28, places[:2])),
            total_3.eq(total_2),
        ]
        row = Signal(row_layout())
        empty = total_3 == 0
        m.d.sync += [
            row.sum.eq(total_3),
            row.exponent.eq(side[stage + 4].exponent),
            row.multiplier.eq(Mux(empty, 0, ((Cat(0, read.data) >> extra) + 1) >> 1)),
            row.shift.eq(Mux(empty, 0, shift)),
        ]
        m.d.comb += [
            self._rows.w_data.eq(row.as_value()),
            self._rows.w_en.eq(side[stage + 5].valid & side[stage + 5].last),
        ]


def _registered(m: Module, value: Value, name: str) -> Signal:
    """`value`, one cycle later."""
    register = Signal(len(value), name=name)
    m.d.sync += register.eq(value)
    return register
