"""The largest results of each row over any number of columns: a language model's likeliest next tokens."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import result_layout
from ..primitives.sequencer import Gearbox

__all__ = ["LIST_BYTES", "Best", "best_order_layout"]

_KEPT = 8
"""Results kept of each row."""
_NUMBER_BITS = 18
LIST_BYTES = 8 * _KEPT
"""Of each row in memory."""
_LOWEST = -32768
"""Of a place that no result has taken: less than any result."""


def best_order_layout() -> data.StructLayout:
    """A product: whether lists are emptied before it and given after it, and its first column's number."""
    return data.StructLayout({"first": unsigned(1), "last": unsigned(1), "number": unsigned(_NUMBER_BITS)})


class Best(wiring.Component):
    """Lists of the 8 largest results of each row, the largest first; of equal ones those that came earlier.

    A result that is no larger than its row's list has takes a cycle, any other one 16 more. Emptying takes a cycle for
    each place, giving ``64 / (16 * drain_lanes)`` beats and 2 cycles for each.

    Parameters
    ----------
    config : Config

    Members
    -------
    order : In(stream of best_order_layout)
        One per product, before its results.
    source : In(stream of result_layout)
        Column after column, all rows of one together.
    target : Out(stream of result_layout)
        After the last product: row after row, its places; each a number, 32 bits, and a result, 32 bits signed. The
        number of places that are free is all ones, their result -32,768.
    done : Out(1)
        All results of a product whose lists are not given are taken.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        results = stream.Signature(result_layout(config))
        super().__init__(
            {
                "order": In(stream.Signature(best_order_layout())),
                "source": In(results),
                "target": Out(results),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lists = self._lists(m)
        gear = self._give(m, lists.found)
        self._sequence(m, lists, gear)
        return m

    def _lists(self, m: Module) -> _Lists:
        """The lists at a row and a place, and each row's least result, which another one must exceed."""
        cfg = self.config
        lanes = cfg.drain_lanes
        entry = data.StructLayout({"number": unsigned(_NUMBER_BITS), "result": signed(16)})
        lists = m.submodules.lists = memory.Memory(
            shape=unsigned(entry.size), depth=cfg.rows * _KEPT, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
        )
        write, read = lists.write_port(), lists.read_port()
        least = m.submodules.least = memory.Memory(shape=signed(16), depth=cfg.rows, init=[])
        set_least, get_least = least.write_port(), least.read_port(domain="comb")
        row, place = Signal(range(cfg.rows)), Signal(range(_KEPT))
        values = [self.source.payload.values[i] for i in range(lanes)]
        lane = row[: lanes.bit_length() - 1]
        result = Array(values)[lane] if lanes > 1 else values[0]
        candidate, found = Signal(entry, reset_less=True), data.View(entry, read.data)
        m.d.comb += [
            read.addr.eq(Cat(place, row)),
            read.en.eq(1),
            write.addr.eq(Cat(place, row)),
            write.data.eq(candidate),
            get_least.addr.eq(row),
            set_least.addr.eq(row),
            set_least.data.eq(candidate.result),
        ]
        return _Lists(write.en, set_least.en, row, place, result, get_least.data, candidate, found, lane.all())

    def _give(self, m: Module, found: data.View) -> Gearbox:
        """To the target go the places that are given to the gearbox."""
        cfg = self.config
        lanes = cfg.drain_lanes
        gear = m.submodules.gear = Gearbox(64, 16 * lanes)
        m.d.comb += [
            gear.source.payload.eq(
                Cat(found.number, Const(0, 32 - _NUMBER_BITS), found.result, found.result[-1].replicate(16))
            ),
            *(self.target.payload.values[i].eq(gear.target.payload[16 * i :][:16].as_signed()) for i in range(lanes)),
            self.target.valid.eq(gear.target.valid),
            gear.target.ready.eq(self.target.ready),
        ]
        beats = 64 * cfg.rows * _KEPT // (16 * lanes)
        given = Signal(range(beats))
        m.d.comb += self.target.payload.last.eq(given == beats - 1)
        with m.If(self.target.valid & self.target.ready):
            m.d.sync += given.eq(Mux(given == beats - 1, 0, given + 1))
        return gear

    def _sequence(self, m: Module, lists: _Lists, gear: Gearbox) -> None:
        """Empty the lists, put each result that belongs there into its row's, give them."""
        order = Signal(best_order_layout(), reset_less=True)
        number = Signal(_NUMBER_BITS, reset_less=True)
        moves = Signal()  # what the candidate displaced goes on, also where it is equal
        empty = Const(_LOWEST & 0xFFFF, 16)
        row, place, candidate, found = lists.row, lists.place, lists.candidate, lists.found
        last_place, last_row = place == _KEPT - 1, row == self.config.rows - 1
        advance, ends = Signal(), Signal()
        m.d.comb += ends.eq(self.source.payload.last & lists.lane_end)

        def after(moves_on: Value) -> None:
            """What follows a result that is done with."""
            with m.If(moves_on):
                m.next = "SCAN"
                with m.If(ends):
                    m.next = "IDLE"
                    with m.If(order.last):
                        m.next = "FETCH"

        with m.FSM(name="best"):
            with m.State("IDLE"):
                m.d.comb += self.order.ready.eq(1)
                m.d.sync += [order.eq(self.order.payload), number.eq(self.order.payload.number)]
                m.d.sync += [candidate.number.eq(-1), candidate.result.eq(empty), row.eq(0), place.eq(0)]
                with m.If(self.order.valid):
                    m.next = "SCAN"
                    with m.If(self.order.payload.first):
                        m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [lists.put.eq(1), lists.set_least.eq(1)]
                m.d.sync += place.eq(place + 1)
                with m.If(last_place):
                    m.d.sync += row.eq(row + 1)
                    with m.If(last_row):
                        m.next = "SCAN"
            with m.State("SCAN"):
                m.d.sync += [candidate.number.eq(number), candidate.result.eq(lists.result), moves.eq(0)]
                with m.If(self.source.valid & (lists.result > lists.least)):
                    m.next = "LOOK"
                with m.Else():
                    m.d.comb += advance.eq(self.source.valid)
                    after(self.source.valid)
            with m.State("LOOK"):
                m.next = "PUT"
            with m.State("PUT"):
                with m.If(moves | (candidate.result > found.result)):
                    m.d.comb += [lists.put.eq(1), lists.set_least.eq(last_place)]
                    m.d.sync += [moves.eq(1), candidate.eq(found)]
                m.d.sync += place.eq(place + 1)
                m.d.comb += advance.eq(last_place)
                m.next = "LOOK"
                after(last_place)
            with m.State("FETCH"):
                m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += gear.source.valid.eq(1)
                with m.If(gear.source.ready):
                    m.d.sync += place.eq(place + 1)
                    m.next = "FETCH"
                    with m.If(last_place):
                        m.d.sync += row.eq(row + 1)
                        with m.If(last_row):
                            m.next = "IDLE"
        # To the next row, when it is known that this one's result is in its list or in none.
        with m.If(advance):
            m.d.sync += row.eq(row + 1)
            m.d.comb += [self.source.ready.eq(lists.lane_end), self.done.eq(ends & ~order.last)]
            with m.If(last_row):
                m.d.sync += number.eq(number + 1)


@dataclass(frozen=True)
class _Lists:
    """The lists, at a row and a place.

    Attributes
    ----------
    put, set_least : Signal
        The candidate goes to that place; its result becomes the row's least.
    row, place : Signal
    result : Value
        Of the row, from the source.
    least : Value
        Of the row's list.
    candidate, found : views of number and result
        What may go into the list; what is there, a cycle later.
    lane_end : Value
        The row is the last one of a beat of the source.
    """

    put: Signal
    set_least: Signal
    row: Signal
    place: Signal
    result: Value
    least: Value
    candidate: data.View
    found: data.View
    lane_end: Value
