"""The norms' second pass: a row tile's elements normalized, scaled and shifted, and requantized to 8 bits.

In the order of the functions: the pipeline as a whole, with what says in which cycle it has what; the streams at its
ends; a lane from normalized element to results; a lane from element to normalized element. docs/numerics.md has the
arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream

from ...spec.config import Config
from ...spec.parameters import NORM_COLUMN
from ..primitives.arithmetic import at_limit, saturated
from ..primitives.layouts import record_layout
from ..primitives.multiplier import Multiplier
from ..primitives.queue import Queue, credits
from ..primitives.sequencer import Gearbox

__all__ = ["NormalizationPorts", "normalization"]

_NORMAL_BITS = 18
_QUEUE_DEPTH = 16
_LATENCY = 9 + 3 * Multiplier.latency


@dataclass(frozen=True)
class NormalizationPorts:
    """What goes between `Norm` and its second pass.

    Attributes
    ----------
    elements : list of Value, lanes / 2 of signed(16)
        A word: of so many rows the elements of one column.
    rows : view of an array of row_layout, lanes / 2
        Their statistics (norm_statistics.py).
    step : Value of 1 bit
        The word is taken.
    column_end : Value of 1 bit
        It is its column's last one.
    short : Value of 1 bit, or None
        With feature digits: 16-bit results saturate to 15 bits.
    parameters : stream of bus words
        Columns' parameters, 8 bytes each.
    wide, narrow : streams of bus words
        Results of 16 bits and of 8, in the order of the elements.
    saturated : Signal of 1 bit
        As `Norm.saturated`.
    """

    elements: list[Value]
    rows: data.View
    step: Value
    column_end: Value
    short: Value | None
    parameters: stream.Interface
    wide: stream.Interface
    narrow: stream.Interface
    saturated: Signal


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


def normalization(m: Module, config: Config, ports: NormalizationPorts) -> tuple[Gearbox, Value]:
    """Normalize, scale, shift; requantize to 8 bits: a pipeline that never stalls.

    Takes up to a word a cycle, but not the 17th before the first has left: 16 words in 18 cycles. A word's results are
    given to the queues that bus words are made of 9 cycles and three times the multiplier's later.

    Returns
    -------
    Gearbox
        Columns' parameters come through it, from bus words to records of 64 bits; `flush` is not driven here.
    Value of 1 bit
        A word can be taken: its column's parameters are here, and its results have room.
    """
    x, rows, active, short = ports.elements, ports.rows, ports.step, ports.short
    gear, wide, narrow = _ends(m, config, ports)
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
    results = [_normalized(m, config, i, x[i], rows[i], along) for i in range(len(x))]
    results_16, results_8 = [wide_result for wide_result, _ in results], [result for _, result in results]
    valid = active
    for k in range(_LATENCY):
        stage = Signal(name=f"normalized_{k + 1}")
        m.d.sync += stage.eq(valid)
        valid = stage
    at_ends = Cat(at_limit(r, 16) for r in results_16).any()
    if at_short_end is not None:
        at_ends = Mux(at_short_end, Cat(at_limit(r, 15) for r in results_16).any(), at_ends)
    m.d.sync += ports.saturated.eq(valid & at_ends)
    m.d.comb += [
        wide.w_en.eq(valid),
        wide.w_data.eq(Cat(*results_16)),
        narrow.w_en.eq(valid),
        narrow.w_data.eq(Cat(*results_8)),
    ]
    return gear, rooms[0] & rooms[1] & gear.target.valid


def _ends(m: Module, config: Config, ports: NormalizationPorts) -> tuple[Gearbox, Queue, Queue]:
    """Where columns' parameters come from bus words, and where wide and narrow results wait to become some."""
    lanes = len(ports.elements)
    gear = m.submodules.parameters_gear = Gearbox(8 * config.bus_bytes, 64)
    wide = m.submodules.wide_queue = Queue(width=16 * lanes, depth=_QUEUE_DEPTH)
    narrow = m.submodules.narrow_queue = Queue(width=8 * lanes, depth=_QUEUE_DEPTH)
    pack = m.submodules.pack = Gearbox(8 * lanes, 8 * config.bus_bytes)
    m.d.comb += [
        gear.source.payload.eq(ports.parameters.payload),
        gear.source.valid.eq(ports.parameters.valid),
        ports.parameters.ready.eq(gear.source.ready),
        gear.target.ready.eq(ports.step & ports.column_end),
        ports.wide.payload.eq(wide.r_data),
        ports.wide.valid.eq(wide.r_rdy),
        wide.r_en.eq(ports.wide.ready),
        pack.source.payload.eq(narrow.r_data),
        pack.source.valid.eq(narrow.r_rdy),
        narrow.r_en.eq(pack.source.ready),
        ports.narrow.payload.eq(pack.target.payload),
        ports.narrow.valid.eq(pack.target.valid),
        pack.target.ready.eq(ports.narrow.ready),
    ]
    return gear, wide, narrow


def _normalized(m: Module, config: Config, i: int, x: Value, row: data.View, along: _Along) -> tuple[Value, Signal]:
    """A lane's wide result, delayed to when its narrow one is there, and that one."""
    normal = _standardized(m, config, i, x, row)
    by_scale = m.submodules[f"scale_multiplier_{i}"] = Multiplier(18, 18, config.vector_multiplier)
    product = Signal(signed(20), name=f"product_{i}", reset_less=True)
    result_16 = Signal(signed(16), name=f"wide_result_{i}", reset_less=True)
    by_narrow = m.submodules[f"narrow_multiplier_{i}"] = Multiplier(16, 17, config.vector_multiplier)
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


def _standardized(m: Module, config: Config, i: int, x: Value, row: data.View) -> Signal:
    """A lane's element less its row's mean, over the deviation, with 12 fraction bits."""
    deviation = Signal(signed(18), name=f"deviation_{i}", reset_less=True)
    inverse = Signal(16, name=f"inverse_{i}", reset_less=True)
    m.d.sync += [deviation.eq((x << 1) - row.mean), inverse.eq(row.inverse)]
    places = _delayed(m, row.shift, 1 + Multiplier.latency, f"places_{i}")
    # After the coarse shift only the bits that can be left after the fine one are kept.
    coarse = Signal(signed(_NORMAL_BITS + 9), name=f"coarse_{i}", reset_less=True)
    fine = Signal(signed(_NORMAL_BITS + 9), name=f"fine_{i}", reset_less=True)
    shifted = Signal(signed(37), name=f"shifted_{i}", reset_less=True)
    multiplier = m.submodules[f"deviation_multiplier_{i}"] = Multiplier(18, 17, config.vector_multiplier)
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


def _delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """A value so many cycles later."""
    for k in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{k + 1}", reset_less=True)
        m.d.sync += stage.eq(value)
        value = stage
    return value
