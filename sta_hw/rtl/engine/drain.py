"""The drain: result columns leave the accumulators, are requantized and streamed out."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import drain_command_layout, parameter_layout, result_layout, row_parameter_layout
from ..primitives.queue import Queue, credits
from .accumulator import ACCUMULATOR_WIDTH
from .requantizer import Requantizer

__all__ = ["Drain"]

_READ_LATENCY = 2  # result bank and the register behind it
_FIFO_DEPTH = 16


class Drain(wiring.Component):
    """Take result columns from the ring in order and stream `drain_lanes` requantized rows per cycle.

    The pipeline never stalls: a column enters only when the output FIFO has room for it.

    Parameters
    ----------
    config : Config
        `rows`, `drain_lanes`, `columns`, `window`, `multiplier`.

    Members
    -------
    command : In(stream of drain_command_layout)
        What the drain needs of the next product's command.
    parameters : In(stream of parameter_layout)
        One per result column; or, `per_row`, ``taps * rows`` at the product's start (row
        fastest), whose bias is not used.
    written : In(1)
        A column was added to the ring.
    taken : Out(1)
        A column was removed from it.
    read_address, read_data
        The ring's read port, latency 2.
    results : Out(stream of result_layout)
        ``columns * rows / drain_lanes`` beats per product.
    """

    latency = 1 + _READ_LATENCY + Requantizer.latency + 2
    """Cycles from a column's arrival in the ring to its first result beat, nothing waiting."""

    def __init__(self, config: Config) -> None:
        self.config = config
        row = signed(ACCUMULATOR_WIDTH)
        super().__init__(
            {
                "command": In(stream.Signature(drain_command_layout())),
                "parameters": In(stream.Signature(parameter_layout())),
                "written": In(1),
                "taken": Out(1),
                "read_address": Out(range(config.columns)),
                "read_data": In(data.ArrayLayout(row, config.rows)),
                "results": Out(stream.Signature(result_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        product = _product(cfg)
        output = m.submodules.output = Queue(width=16 * cfg.drain_lanes + 1, depth=_FIFO_DEPTH)
        go = self._walk(m, product, output)
        row_parameters = self._table(m, product.filling, product.taps, product.row_entry)
        own_used = ~product.per_row & self.taken
        m.d.comb += self.parameters.ready.eq(product.busy & Mux(product.filling, 1, own_used))

        valid = [go]
        last = [self.taken & (product.columns_left == 0)]
        depth = _READ_LATENCY + 1 + Requantizer.latency
        for i in range(depth):
            valid_next, last_next = Signal(name=f"valid_{i + 1}"), Signal(name=f"last_{i + 1}")
            m.d.sync += [valid_next.eq(valid[-1]), last_next.eq(last[-1])]
            valid.append(valid_next)
            last.append(last_next)
        results = self._requantize(m, self._beside_the_read(m, product), row_parameters)
        m.d.comb += [
            output.w_en.eq(valid[depth]),
            output.w_data.eq(Cat(*results, last[depth])),
            self.results.valid.eq(output.r_rdy),
            self.results.payload.eq(output.r_data),
            output.r_en.eq(self.results.ready),
        ]
        self._begin(m, product)
        return m

    def _walk(self, m: Module, product: _Product, output: Queue) -> Signal:
        """Column after column, part after part of its rows; whether a part is read in this cycle."""
        cfg = self.config
        parts = cfg.rows // cfg.drain_lanes
        part, tap, row_entry = product.part, product.tap, product.row_entry
        part_end = part == parts - 1
        go = Signal()
        room = credits(m, "room", _FIFO_DEPTH, go, output.r_en & output.r_rdy)
        # What is in the ring.
        waiting = Signal(range(cfg.columns + 1))
        some = Signal()
        m.d.sync += [
            waiting.eq(waiting + self.written - self.taken),
            some.eq(self.written | (waiting > 1) | ((waiting == 1) & ~self.taken)),
        ]
        m.d.comb += [
            go.eq(product.busy & ~product.filling & some & room & (product.per_row | self.parameters.valid)),
            self.taken.eq(go & part_end),
        ]
        with m.If(go):
            m.d.sync += [part.eq(Mux(part_end, 0, part + 1)), row_entry.eq(row_entry + 1)]
        with m.If(self.taken):
            m.d.sync += [
                self.read_address.eq(self.read_address + 1),
                product.columns_left.eq(product.columns_left - 1),
                tap.eq(tap + 1),
            ]
            with m.If(tap + 1 == product.taps):
                m.d.sync += [tap.eq(0), row_entry.eq(0)]
            with m.If(product.columns_left == 0):
                m.d.sync += product.busy.eq(0)
        return go

    def _beside_the_read(self, m: Module, product: _Product) -> _Beside:
        """What a column's sums are requantized with, delayed by as much as their read takes."""
        beside = _Beside(self.parameters.payload, product.part, product.per_row, product.wide)
        for i in range(_READ_LATENCY):
            column_parameters = Signal(parameter_layout(), name=f"parameters_{i + 1}", reset_less=True)
            part = Signal.like(product.part, name=f"part_{i + 1}")
            mode = Signal(2, name=f"mode_{i + 1}", reset_less=True)
            m.d.sync += [
                column_parameters.eq(beside.column_parameters),
                part.eq(beside.part),
                mode.eq(Cat(beside.per_row, beside.wide)),
            ]
            beside = _Beside(column_parameters, part, mode[0], mode[1])
        return beside

    def _requantize(self, m: Module, beside: _Beside, row_parameters: list[data.View]) -> list[Value]:
        """The results of the part that was read, a lane each, by its column's parameters or each row's own."""
        cfg = self.config
        column_parameters, by_row = beside.column_parameters, beside.per_row
        wide_operand = Signal()
        m.d.sync += wide_operand.eq(beside.wide)
        results = []
        for lane, of_row in enumerate(row_parameters):
            requantizer = m.submodules[f"requantizer_{lane}"] = Requantizer(cfg.vector_multiplier)
            rows = Array(self.read_data[at] for at in range(lane, cfg.rows, cfg.drain_lanes))
            total = Signal(signed(ACCUMULATOR_WIDTH), name=f"sum_{lane}", reset_less=True)
            own = Signal(parameter_layout(), name=f"own_{lane}", reset_less=True)
            m.d.sync += [
                total.eq(rows[beside.part]),
                own.bias.eq(Mux(by_row, 0, column_parameters.bias)),
                own.multiplier.eq(Mux(by_row, of_row.multiplier, column_parameters.multiplier)),
                own.shift.eq(Mux(by_row, of_row.shift, column_parameters.shift)),
            ]
            m.d.comb += [
                requantizer.sum.eq(total),
                requantizer.bias.eq(own.bias),
                requantizer.multiplier.eq(own.multiplier),
                requantizer.shift.eq(own.shift),
                requantizer.wide.eq(wide_operand),
            ]
            results.append(requantizer.result)
        return results

    def _begin(self, m: Module, product: _Product) -> None:
        """Take the next product's command, at its first column and tap."""
        new = self.command.payload
        m.d.comb += self.command.ready.eq(~product.busy)
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [
                product.busy.eq(1),
                product.filling.eq(new.per_row),
                product.per_row.eq(new.per_row),
                product.wide.eq(new.wide_result),
                product.taps.eq(new.taps),
                product.tap.eq(0),
                product.row_entry.eq(0),
                product.part.eq(0),
                product.columns_left.eq(new.columns - 1),
            ]

    def _table(self, m: Module, filling: Signal, taps: Value, address: Value) -> list[data.View]:
        """The parameters that belong to rows: their memory's word, lane by lane, 2 cycles after `address`."""
        cfg = self.config
        parts = cfg.rows // cfg.drain_lanes
        fill_lane = Signal(cfg.drain_lanes, init=1)  # one-hot
        fill_part = Signal(range(parts))
        fill_tap = Signal(6)
        entry = Signal(range(cfg.window * parts))
        take = filling & self.parameters.valid
        with m.If(take):
            m.d.sync += fill_lane.eq(fill_lane.rotate_left(1))
            with m.If(fill_lane[-1]):
                m.d.sync += [entry.eq(entry + 1), fill_part.eq(fill_part + 1)]
                with m.If(fill_part == parts - 1):
                    m.d.sync += [fill_part.eq(0), fill_tap.eq(fill_tap + 1)]
                    with m.If(fill_tap + 1 == taps):
                        m.d.sync += [fill_tap.eq(0), entry.eq(0), filling.eq(0)]
        # One memory for all lanes, in block RAM: it is wide, and read at one address.
        entry_width = row_parameter_layout().size
        table = memory.Memory(
            shape=unsigned(entry_width * cfg.drain_lanes),
            depth=cfg.window * parts,
            init=[],
            attrs={"no_rw_check": 1, "ram_style": "block"},
        )
        m.submodules.row_parameters = table
        write, read = table.write_port(granularity=entry_width), table.read_port()
        given = self.parameters.payload
        m.d.comb += [
            write.addr.eq(entry),
            write.data.eq(Cat(given.multiplier, given.shift).replicate(cfg.drain_lanes)),
            write.en.eq(Mux(take, fill_lane, 0)),
            read.addr.eq(address),
            read.en.eq(1),
        ]
        word = Signal(entry_width * cfg.drain_lanes, reset_less=True)
        m.d.sync += word.eq(read.data)
        return [
            data.View(row_parameter_layout(), word[lane * entry_width :][:entry_width])
            for lane in range(cfg.drain_lanes)
        ]


@dataclass(frozen=True)
class _Product:
    """The product whose columns leave.

    Attributes
    ----------
    busy, filling : Signal
        There is one; the table of its per-row parameters is being loaded.
    per_row, wide : Signal
        Parameters belong to rows; results have 16 bits.
    taps, tap : Signal
        How many there are; which is the column's.
    columns_left, part : Signal
        Columns behind this one; which part of its rows is read.
    row_entry : Signal
        ``tap * parts + part``
    """

    busy: Signal
    filling: Signal
    per_row: Signal
    wide: Signal
    taps: Signal
    tap: Signal
    columns_left: Signal
    part: Signal
    row_entry: Signal


def _product(config: Config) -> _Product:
    """None at first."""
    parts = config.rows // config.drain_lanes
    busy = Signal()
    filling = Signal()
    per_row = Signal()
    wide = Signal()
    taps = Signal(6)
    tap = Signal(6)
    columns_left = Signal(16)
    part = Signal(range(parts))
    row_entry = Signal(range(config.window * parts))
    return _Product(busy, filling, per_row, wide, taps, tap, columns_left, part, row_entry)


@dataclass(frozen=True)
class _Beside:
    """What goes beside the ring's read.

    Attributes
    ----------
    column_parameters : view of parameter_layout
    part : Value
        Of the column's rows.
    per_row, wide : Value
        As of `_Product`.
    """

    column_parameters: data.View
    part: Value
    per_row: Value
    wide: Value
