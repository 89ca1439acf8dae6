"""The arithmetic of the softmax in attention: exponentials that add up along each row, and reciprocals of the sums."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import memory

from ...spec.config import Config
from ..primitives.arithmetic import ring_shift
from ..primitives.layouts import row_parameter_layout
from ..primitives.queue import Queue

__all__ = [
    "COARSE_BITS",
    "EXPONENT_BITS",
    "FRACTION_BITS",
    "PIPELINE",
    "SUM_BITS",
    "LaneRings",
    "lane_rings",
    "probabilities",
    "reciprocals",
    "scaled",
]

FRACTION_BITS = 6
COARSE_BITS = 3
"""Fraction bits that coarse scores lack."""
EXPONENT_BITS = 11 + COARSE_BITS
SUM_BITS = 32
PIPELINE = 6
"""Cycles from a word of scores to its probabilities."""


@dataclass(frozen=True)
class LaneRings:
    """Per lane a ring of registers with an entry for each of its rows; the first is that of the row at hand.

    Attributes
    ----------
    exponents, carries, sums : list of list of Signal
        Of each row the exponent, the remainder of its rounding, and the sum of its block.
    """

    exponents: list[list[Signal]]
    carries: list[list[Signal]]
    sums: list[list[Signal]]


def lane_rings(config: Config, name: str, shape: Shape) -> list[list[Signal]]:
    """Per lane of probabilities a ring of ``rows / lanes`` registers, called by `name`, lane and place.

    Row r is at place ``r // lanes`` of lane ``r % lanes``.
    """
    parts = config.rows // config.lanes
    return [[Signal(shape, name=f"{name}_{i}_{p}") for p in range(parts)] for i in range(config.lanes)]


def scaled(score: Value, coarse: Value) -> Value:
    """A score with 6 fraction bits, 19 bits wide: coarse ones come with 3."""
    fine = Cat(score, score[-1].replicate(COARSE_BITS))
    return Mux(coarse, Cat(Const(0, COARSE_BITS), score), fine).as_signed()


def probabilities(
    m: Module, word: Value, coarse: Value, go: Value, turn: Value, rings: LaneRings, output: Queue
) -> None:  # fmt: skip
    """Exponentials with error diffusion along each row: a pipeline that never stalls.

    Parameters
    ----------
    word : Value
        Per lane a score and its mask bit.
    coarse : Value
        The scores have `COARSE_BITS` fraction bits less.
    go : Value
        A word comes.
    turn : Value
        The sums turn by one place and are not added to.
    output : Queue
        Takes the probabilities, `PIPELINE` cycles later.
    """
    flags = [go]
    for i in range(PIPELINE):
        stage = Signal(name=f"stage_{i + 1}")
        m.d.sync += stage.eq(flags[-1])
        flags.append(stage)
    table = [round(2 ** (f / 64) * 2**15) for f in range(64)]
    results = []
    for i in range(len(rings.exponents)):
        score = Signal(signed(16 + COARSE_BITS), name=f"score_{i}", reset_less=True)
        keep = Signal(name=f"keep_{i}", reset_less=True)
        exponent = Signal(signed(EXPONENT_BITS), name=f"row_exponent_{i}", reset_less=True)
        given = word[17 * i :][:17]
        m.d.sync += [score.eq(scaled(given[:16], coarse)), keep.eq(given[16]), exponent.eq(rings.exponents[i][0] - 1)]
        rom = m.submodules[f"fraction_{i}"] = memory.Memory(shape=unsigned(16), depth=64, init=table)
        read = rom.read_port()
        m.d.comb += [read.addr.eq(score[:6]), read.en.eq(1)]
        gap = Signal(EXPONENT_BITS + 1, name=f"gap_{i}", reset_less=True)
        places = Signal(5, name=f"places_{i}", reset_less=True)
        places_3 = Signal(5, name=f"places_3_{i}", reset_less=True)
        keep_2, keep_3 = Signal(name=f"keep_2_{i}", reset_less=True), Signal(name=f"keep_3_{i}", reset_less=True)
        fraction = Signal(16, name=f"fraction_register_{i}", reset_less=True)
        fine = Signal(24, name=f"fine_{i}", reset_less=True)
        m.d.comb += gap.eq(exponent - (score >> FRACTION_BITS))  # not negative where it counts
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
        m.d.comb += running.eq(rings.carries[i][0] + fine[:16])
        m.d.sync += probability.eq(fine[16:] + running[16])
        with m.If(flags[4]):
            m.d.sync += ring_shift(rings.carries[i], running[:16])
        # A turn for reading adds nothing: cheaper than another input to the registers.
        with m.If(flags[5] | turn):
            m.d.sync += ring_shift(rings.sums[i], rings.sums[i][0] + Mux(turn, 0, probability))
        results.append(probability)
    m.d.comb += [output.w_en.eq(flags[5]), output.w_data.eq(Cat(*results))]


def reciprocals(m: Module, total: Value, gain: Value, summing: Value, totals: Queue) -> None:
    """1 / sum as a requantization (docs/numerics.md), one row per cycle, 7 cycles later.

    Parameters
    ----------
    total, gain : Value
        A row's sum, and the gain of its block.
    summing : Value
        They are there.
    totals : Queue
        Takes records of row_parameter_layout.
    """
    valid = [summing]
    for i in range(6):
        stage = Signal(name=f"total_valid_{i + 1}")
        m.d.sync += stage.eq(valid[-1])
        valid.append(stage)
    total_1, total_2 = Signal(SUM_BITS, reset_less=True), Signal(SUM_BITS, reset_less=True)
    gain_1, gain_2 = Signal(3, reset_less=True), Signal(3, reset_less=True)
    power = Signal(5, reset_less=True)
    m.d.sync += [total_1.eq(total), gain_1.eq(gain), total_2.eq(total_1), gain_2.eq(gain_1)]
    for bit in range(SUM_BITS):
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
