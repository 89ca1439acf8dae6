"""The arithmetic of results on their way to memory: table, second multiplication, residual stream, saturation."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, stream

from ...spec.config import Config
from ..primitives.arithmetic import at_limit, saturated
from ..primitives.multiplier import Multiplier
from ..primitives.queue import Queue, credits
from ..primitives.sequencer import Gearbox
from .result_packing import pack

__all__ = ["ArithmeticPorts", "arithmetic"]

_QUEUE_DEPTH = 16
_LATENCY = 5 + Multiplier.latency


@dataclass(frozen=True)
class ArithmeticPorts:
    """What goes between the result path and its arithmetic.

    Attributes
    ----------
    order : view of result_order_layout
        The product's whose results come.
    active, largest : Value
        Whether there is one that goes to memory; whether only the largest results are wanted, which come as halves of
        numbers.
    mode : Value
        What is done: activate, add, 16 bits, transpose, and with feature apart rows apart, a bit each, lowest first.
    given : stream of result_layout
        `drain_lanes` results a beat; `ready` is not driven here.
    seconds : stream of unsigned(16)
        A second multiplier per column.
    residual, store : streams of bus words
        What is added, or the angles; what goes to memory.
    angles : stream or None
        To the unit that turns pairs of columns, with feature rotary: `drain_lanes` factors a beat.
    runs_wait : Value
        Runs of the product are not yet with the masters: its last beat waits.
    table_enable, table_address, table_data : Signal
        Write port of the activation table.
        Its 256 entries have 16 bits, signed; the address is the 8-bit result as unsigned.
    saturated : Signal of 2 bits
        As `ResultPath.saturated`.
    """

    order: data.View
    active: Value
    largest: Value
    mode: Value
    given: stream.Interface
    seconds: stream.Interface
    residual: stream.Interface
    store: stream.Interface
    angles: stream.Interface | None
    runs_wait: Value
    table_enable: Signal
    table_address: Signal
    table_data: Signal
    saturated: Signal


def arithmetic(m: Module, config: Config, ports: ArithmeticPorts) -> Signal:
    """Take up to a beat of results a cycle; 5 cycles and the multiplier's later it is in the queue to be packed.

    A result is rounded once, in its second multiplication (by 2^-16, half up), and saturates to 8, 15 or 16 bits.

    Returns
    -------
    Signal of 1 bit
        A beat of `given` is taken in this cycle.
    """
    has, lanes = config.features, config.drain_lanes
    # `lanes` elements of the residual stream at a time.
    unpack = m.submodules.unpack = Gearbox(8 * config.bus_bytes, 16 * lanes)
    m.d.comb += [
        unpack.source.payload.eq(ports.residual.payload),
        unpack.source.valid.eq(ports.residual.valid),
        ports.residual.ready.eq(unpack.source.ready),
    ]
    queue = m.submodules.queue = Queue(width=16 * lanes + len(ports.mode) - 2, depth=_QUEUE_DEPTH)
    taken = _take(m, config, ports, unpack, queue)
    if "rotary" in has:
        _give_angles(m, ports, unpack)

    stages = _Stages(
        flags=_delayed(m, "flags", Cat(taken.gives, ports.mode), _LATENCY),
        more=_delayed(
            m, "more",
            Cat(
                ports.largest,
                *((taken.go & taken.gates, taken.gated) if "gate" in has else ()),
                *((ports.order.bits15,) if "digits" in has else ()),
            ),
            _LATENCY if {"gate", "best", "digits"} & {*has} else 0,
            reset_less=True,
        ),
        factors=_delayed(m, "factor", taken.waiting.r_data, 2, reset_less=True) if taken.waiting else [],
        seconds=_delayed(m, "second", ports.seconds.payload, 2, reset_less=True),
    )  # fmt: skip
    lane_results = [_lane(m, config, ports, stages, unpack, i) for i in range(lanes)]
    if taken.waiting:
        at = 3 + Multiplier.latency
        gate_values = [scaled[:16] for _, scaled in lane_results]
        m.d.comb += [taken.waiting.w_en.eq(stages.more[at][1]), taken.waiting.w_data.eq(Cat(*gate_values))]
    results = [result for result, _ in lane_results]
    _report_saturation(m, config, ports, stages, results)
    m.d.comb += [queue.w_en.eq(stages.flags[_LATENCY][0]), queue.w_data.eq(Cat(*results, stages.flags[_LATENCY][3:]))]
    pack(m, config, queue, ports.store)
    return taken.go


@dataclass(frozen=True)
class _Taken:
    """What becomes of the beat at hand.

    Attributes
    ----------
    go, gives : Value
        It is taken; its results go to memory.
    gates, gated : Value
        With feature gate: of a product whose columns take turns, it has gates, or what they multiply.
    waiting : Queue or None
        With feature gate, the gates until then.
    """

    go: Signal
    gives: Value
    gates: Value
    gated: Value
    waiting: Queue | None


@dataclass(frozen=True)
class _Stages:
    """What goes along with a beat; each list has the value of the cycle it is taken, then after each register.

    Attributes
    ----------
    flags : whether it gives results, and its mode
    more : largest results, gates, gated, 15 bits, of the features that there are
    factors : the gates of a beat that is gated
    seconds : the second multiplier
    """

    flags: list[Value]
    more: list[Value]
    factors: list[Value]
    seconds: list[Value]


def _take(m: Module, config: Config, ports: ArithmeticPorts, unpack: Gearbox, queue: Queue) -> _Taken:
    """A beat is taken when all that it needs is there, and room for its results."""
    order, has = ports.order, config.features
    parts = config.rows // config.drain_lanes
    adding = ports.mode[1]
    part = Signal(range(parts))
    go = Signal()
    gives, gates, gated, waiting = go, Const(0), Const(0), None
    if "gate" in has:
        # Columns by turns: gates, which wait behind the table and their multipliers, and what they multiply.
        waiting = m.submodules.waiting = Queue(width=16 * config.drain_lanes, depth=parts)
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
    runs_out = ~ports.runs_wait
    may = (
        ports.active
        & ports.given.valid
        & room
        & (~order.seconds | ports.seconds.valid)
        & (~adding | unpack.target.valid)
        & (~ports.given.payload.last | runs_out)
    )
    m.d.comb += [
        go.eq(may & (~gated | waiting.r_rdy) if waiting else may),
        unpack.target.ready.eq(go & adding),
        ports.seconds.ready.eq(go & order.seconds & (part == parts - 1)),
    ]
    with m.If(go):
        m.d.sync += part.eq(Mux(part == parts - 1, 0, part + 1))
    return _Taken(go, gives, gates, gated, waiting)


def _give_angles(m: Module, ports: ArithmeticPorts, unpack: Gearbox) -> None:
    """To the unit that turns pairs of columns goes what another product adds."""
    assert ports.angles is not None
    table = ports.angles
    m.d.comb += [
        table.payload.as_value().eq(unpack.target.payload),
        table.valid.eq(unpack.target.valid & ports.active & ports.order.rotate),
    ]
    with m.If(ports.active & ports.order.rotate):
        m.d.comb += unpack.target.ready.eq(table.ready)


def _delayed(m: Module, name: str, value: Value, stages: int, *, reset_less: bool = False) -> list[Value]:
    """A value, and what it was in each of so many cycles before."""
    found = [value]
    for i in range(stages):
        stage = Signal.like(value, name=f"{name}_{i + 1}", reset_less=reset_less)
        m.d.sync += stage.eq(found[-1])
        found.append(stage)
    return found


def _lane(
    m: Module, config: Config, ports: ArithmeticPorts, stages: _Stages, unpack: Gearbox, i: int
) -> tuple[Signal, Signal]:
    """A lane's result before it is packed, and its second product, shifted."""
    has, flags, more = config.features, stages.flags, stages.more
    value = ports.given.payload.values[i]
    table = m.submodules[f"table_{i}"] = memory.Memory(
        shape=signed(16), depth=256, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
    )
    write, read = table.write_port(), table.read_port()
    found = Signal(signed(16), name=f"found_{i}", reset_less=True)
    looked_up = Mux(ports.order.multiply, saturated(value, 8), value) if "gate" in has else value
    m.d.comb += [
        write.addr.eq(ports.table_address),
        write.data.eq(ports.table_data),
        write.en.eq(ports.table_enable),
        read.addr.eq(looked_up[:8]),
        read.en.eq(1),
    ]
    m.d.sync += found.eq(read.data)
    own = _delayed(m, f"own_{i}", value, _LATENCY - 1, reset_less=True)
    residual = _delayed(m, f"residual_{i}", unpack.target.payload[16 * i :][:16].as_signed(), 2, reset_less=True)
    multiplier = m.submodules[f"multiplier_{i}"] = Multiplier(16, 17, config.vector_multiplier)
    m.d.comb += [
        multiplier.a.eq(Mux(flags[2][2], residual[2], found)),
        multiplier.b.eq(stages.seconds[2]),
    ]
    if "gate" in has:
        with m.If(more[2][2]):
            m.d.comb += [multiplier.a.eq(own[2]), multiplier.b.eq(stages.factors[2][16 * i :][:16].as_signed())]
    scaled = Signal(signed(17), name=f"scaled_{i}", reset_less=True)
    m.d.sync += scaled.eq((multiplier.p + (1 << 15)) >> 16)
    at = 3 + Multiplier.latency
    total = Signal(signed(18), name=f"total_{i}", reset_less=True)
    is_activated, is_added = flags[at][1], flags[at][2]
    if "gate" in has:
        is_activated = is_activated | more[at][2]
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
    return result, scaled


def _report_saturation(
    m: Module, config: Config, ports: ArithmeticPorts, stages: _Stages, results: list[Signal]
) -> None:
    """Whether a result of the beat is at an end of its range; halves of numbers are not results."""
    flags, more = stages.flags[_LATENCY], stages.more[-1]
    given = flags[0] & ~more[0] if "best" in config.features else flags[0]
    at_ends = Cat(at_limit(r, 16) for r in results).any()
    if "digits" in config.features:
        at_ends = Mux(more[-1], Cat(at_limit(r, 15) for r in results).any(), at_ends)
    m.d.sync += ports.saturated.eq(
        Cat(given & flags[3] & at_ends, given & ~flags[3] & Cat(at_limit(r, 8) for r in results).any())
    )
