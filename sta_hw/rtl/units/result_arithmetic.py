"""The arithmetic of results on their way to memory: table, second multiplication, residual stream, saturation."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
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
    order, given, active, mode, largest = ports.order, ports.given, ports.active, ports.mode, ports.largest
    lanes = config.drain_lanes
    parts = config.rows // lanes
    has = config.features
    beat = given.payload
    adding = mode[1]

    # `lanes` elements of the residual stream at a time.
    unpack = m.submodules.unpack = Gearbox(8 * config.bus_bytes, 16 * lanes)
    m.d.comb += [
        unpack.source.payload.eq(ports.residual.payload),
        unpack.source.valid.eq(ports.residual.valid),
        ports.residual.ready.eq(unpack.source.ready),
    ]
    queue = m.submodules.queue = Queue(width=16 * lanes + len(mode) - 2, depth=_QUEUE_DEPTH)
    part = Signal(range(parts))
    go = Signal()
    gives: Value = go
    if "gate" in has:
        # Columns by turns: gates, which wait behind the table and their multipliers, and what they multiply.
        waiting = m.submodules.waiting = Queue(width=16 * lanes, depth=parts)
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
        active
        & given.valid
        & room
        & (~order.seconds | ports.seconds.valid)
        & (~adding | unpack.target.valid)
        & (~beat.last | runs_out)
    )
    m.d.comb += [
        go.eq(may & (~gated | waiting.r_rdy) if "gate" in has else may),
        unpack.target.ready.eq(go & adding),
        ports.seconds.ready.eq(go & order.seconds & (part == parts - 1)),
    ]
    with m.If(go):
        m.d.sync += part.eq(Mux(part == parts - 1, 0, part + 1))

    if "rotary" in has:
        assert ports.angles is not None
        table = ports.angles
        m.d.comb += [
            table.payload.as_value().eq(unpack.target.payload),
            table.valid.eq(unpack.target.valid & active & order.rotate),
        ]
        with m.If(active & order.rotate):
            m.d.comb += unpack.target.ready.eq(table.ready)

    flags = [Cat(gives, mode)]
    for i in range(_LATENCY):
        stage = Signal(1 + len(mode), name=f"flags_{i + 1}")
        m.d.sync += stage.eq(flags[-1])
        flags.append(stage)
    more = [
        Cat(largest, *((go & gates, gated) if "gate" in has else ()), *((order.bits15,) if "digits" in has else ()))
    ]
    for i in range(_LATENCY if {"gate", "best", "digits"} & {*has} else 0):
        stage = Signal(len(more[0]), name=f"more_{i + 1}", reset_less=True)
        m.d.sync += stage.eq(more[-1])
        more.append(stage)
    if "gate" in has:
        factor_1, factor_2 = (Signal(16 * lanes, name=f"factor_{i}", reset_less=True) for i in (1, 2))
        m.d.sync += [factor_1.eq(waiting.r_data), factor_2.eq(factor_1)]
    seconds = [ports.seconds.payload]
    for i in range(2):
        second = Signal(16, name=f"second_{i + 1}", reset_less=True)
        m.d.sync += second.eq(seconds[-1])
        seconds.append(second)

    results = []
    gate_values: list[Value] = []
    for i in range(lanes):
        table = m.submodules[f"table_{i}"] = memory.Memory(
            shape=signed(16), depth=256, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
        )
        write, read = table.write_port(), table.read_port()
        found = Signal(signed(16), name=f"found_{i}", reset_less=True)
        m.d.comb += [
            write.addr.eq(ports.table_address),
            write.data.eq(ports.table_data),
            write.en.eq(ports.table_enable),
            read.addr.eq(
                Mux(order.multiply, saturated(beat.values[i], 8), beat.values[i])[:8]
                if "gate" in has
                else beat.values[i][:8]
            ),
            read.en.eq(1),
        ]
        m.d.sync += found.eq(read.data)
        own = [beat.values[i]]
        for k in range(_LATENCY - 1):
            stage = Signal(signed(16), name=f"own_{i}_{k + 1}", reset_less=True)
            m.d.sync += stage.eq(own[-1])
            own.append(stage)
        residual = [unpack.target.payload[16 * i :][:16].as_signed()]
        for k in range(2):
            stage = Signal(signed(16), name=f"residual_{i}_{k + 1}", reset_less=True)
            m.d.sync += stage.eq(residual[-1])
            residual.append(stage)
        multiplier = m.submodules[f"multiplier_{i}"] = Multiplier(16, 17, config.vector_multiplier)
        m.d.comb += [
            multiplier.a.eq(Mux(flags[2][2], residual[2], found)),
            multiplier.b.eq(seconds[2]),
        ]
        if "gate" in has:
            with m.If(more[2][2]):
                m.d.comb += [multiplier.a.eq(own[2]), multiplier.b.eq(factor_2[16 * i :][:16].as_signed())]
        scaled = Signal(signed(17), name=f"scaled_{i}", reset_less=True)
        m.d.sync += scaled.eq((multiplier.p + (1 << 15)) >> 16)
        at = 3 + Multiplier.latency
        total = Signal(signed(18), name=f"total_{i}", reset_less=True)
        is_activated, is_added = flags[at][1], flags[at][2]
        if "gate" in has:
            is_activated = is_activated | more[at][2]
            gate_values.append(scaled[:16])
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
        results.append(result)
    if "gate" in has:
        m.d.comb += [waiting.w_en.eq(more[3 + Multiplier.latency][1]), waiting.w_data.eq(Cat(*gate_values))]
    taken, is_wide = flags[_LATENCY][0], flags[_LATENCY][3]
    if "best" in has:
        taken = taken & ~more[_LATENCY][0]
    at_ends = Cat(at_limit(r, 16) for r in results).any()
    if "digits" in has:
        at_ends = Mux(more[_LATENCY][-1], Cat(at_limit(r, 15) for r in results).any(), at_ends)
    m.d.sync += ports.saturated.eq(
        Cat(
            taken & is_wide & at_ends,
            taken & ~is_wide & Cat(at_limit(r, 8) for r in results).any(),
        )
    )
    m.d.comb += [queue.w_en.eq(flags[_LATENCY][0]), queue.w_data.eq(Cat(*results, flags[_LATENCY][3:]))]
    pack(m, config, queue, ports.store)
    return go
