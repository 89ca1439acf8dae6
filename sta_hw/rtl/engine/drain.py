"""The drain: result columns leave the accumulators, are requantized and streamed out."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed, unsigned
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
        parts = cfg.rows // cfg.drain_lanes
        shape = parameter_layout()

        busy = Signal()
        filling = Signal()  # the table of per-row parameters is being loaded
        per_row = Signal()
        wide = Signal()
        taps = Signal(6)
        tap = Signal(6)
        columns_left = Signal(16)
        part = Signal(range(parts))
        part_end = part == parts - 1

        output = m.submodules.output = Queue(width=16 * cfg.drain_lanes + 1, depth=_FIFO_DEPTH)
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
            go.eq(busy & ~filling & some & room & (per_row | self.parameters.valid)),
            self.taken.eq(go & part_end),
        ]
        row_entry = Signal(range(cfg.window * parts))  # tap * parts + part
        with m.If(go):
            m.d.sync += [part.eq(Mux(part_end, 0, part + 1)), row_entry.eq(row_entry + 1)]
        with m.If(self.taken):
            m.d.sync += [
                self.read_address.eq(self.read_address + 1),
                columns_left.eq(columns_left - 1),
                tap.eq(tap + 1),
            ]
            with m.If(tap + 1 == taps):
                m.d.sync += [tap.eq(0), row_entry.eq(0)]
            with m.If(columns_left == 0):
                m.d.sync += busy.eq(0)

        self._table(m, filling, taps, row_entry)
        m.d.comb += self.parameters.ready.eq(busy & Mux(filling, 1, ~per_row & self.taken))

        # Beside the ring's read: flags and the column's own parameters.
        valid = [go]
        last = [self.taken & (columns_left == 0)]
        depth = _READ_LATENCY + 1 + Requantizer.latency
        for i in range(depth):
            valid_next, last_next = Signal(name=f"valid_{i + 1}"), Signal(name=f"last_{i + 1}")
            m.d.sync += [valid_next.eq(valid[-1]), last_next.eq(last[-1])]
            valid.append(valid_next)
            last.append(last_next)
        chosen = [self.parameters.payload, part, per_row, wide]
        for i in range(_READ_LATENCY):
            column_parameters = Signal(shape, name=f"parameters_{i + 1}", reset_less=True)
            part_next = Signal.like(part, name=f"part_{i + 1}")
            mode = Signal(2, name=f"mode_{i + 1}", reset_less=True)
            m.d.sync += [
                column_parameters.eq(chosen[0]),
                part_next.eq(chosen[1]),
                mode.eq(Cat(chosen[2], chosen[3])),
            ]
            chosen = [column_parameters, part_next, mode[0], mode[1]]
        column_parameters, part_read, by_row, wide_read = chosen

        wide_operand = Signal()
        m.d.sync += wide_operand.eq(wide_read)
        results = []
        for lane in range(cfg.drain_lanes):
            requantizer = m.submodules[f"requantizer_{lane}"] = Requantizer(cfg.vector_multiplier)
            rows = Array(self.read_data[p * cfg.drain_lanes + lane] for p in range(parts))
            total = Signal(signed(ACCUMULATOR_WIDTH), name=f"sum_{lane}", reset_less=True)
            own = Signal(shape, name=f"own_{lane}", reset_less=True)
            of_row = self._row_parameters[lane]
            m.d.sync += [
                total.eq(rows[part_read]),
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
        m.d.comb += [
            output.w_en.eq(valid[depth]),
            output.w_data.eq(Cat(*results, last[depth])),
            self.results.valid.eq(output.r_rdy),
            self.results.payload.eq(output.r_data),
            output.r_en.eq(self.results.ready),
        ]

        new = self.command.payload
        m.d.comb += self.command.ready.eq(~busy)
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [
                busy.eq(1),
                filling.eq(new.per_row),
                per_row.eq(new.per_row),
                wide.eq(new.wide_result),
                taps.eq(new.taps),
                tap.eq(0),
                row_entry.eq(0),
                part.eq(0),
                columns_left.eq(new.columns - 1),
            ]
        return m

    def _table(self, m: Module, filling, taps, address) -> None:
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
        self._row_parameters = [
            data.View(row_parameter_layout(), word[lane * entry_width :][:entry_width])
            for lane in range(cfg.drain_lanes)
        ]
