"""The loader: runs of memory words into the on-chip memories."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.isa import Target, codes
from ...spec.parameters import COLUMN, SHORT_COLUMN
from ..bus.axi import ADDRESS_BITS
from ..bus.runs import run_layout
from ..primitives.layouts import COUNT_BITS, record_layout
from ..primitives.queue import Queue
from ..primitives.sequencer import Gearbox

__all__ = ["Loader", "load_order_layout"]


def load_order_layout(config: Config) -> data.StructLayout:
    """One LOAD."""
    highest = max(codes("target", config.features))
    return data.StructLayout(
        {
            "target": unsigned(highest.bit_length()), "destination": unsigned(16), "address": unsigned(ADDRESS_BITS),
            "beats": unsigned(20), "rows": unsigned(16), "stride": unsigned(32), "instruction": unsigned(COUNT_BITS),
        }
    )  # fmt: skip


class Loader(wiring.Component):
    """One LOAD after the other; the runs of one follow each other without a gap.

    With `loads_ahead` the next one's runs are asked for meanwhile, and 3 cycles lie between the two. A bus word, or a
    word of what the memory is filled from (`widths`), moves in each cycle, whichever is the narrower. What is wider
    than the bus is written a cycle after its last bus word, all else in the cycle in which that is there.

    Short records of columns' parameters (feature blocks4) are written as long ones, their biases with 32 bits.

    Attributes
    ----------
    widths : dict
        Bits of a word in memory, by target.

    Members
    -------
    order : In(stream of load_order_layout)
    run : Out(stream of run_layout), words : In(stream of bus words)
    enable : Out(4)
        Which memory is written in this cycle, by `Target.memory`.
    address : Out(16)
    values, positions, parameters, entry : Out
        The word for each memory.
    done : Out(1)
    busy : Out(1)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.widths = {
            Target.VALUES: 8 * config.groups,
            Target.POSITIONS: config.groups * config.window,
            Target.PARAMETERS: COLUMN.width,
            Target.TABLE: 16,
        }
        memories = len(self.widths)
        if "blocks4" in config.features:
            self.widths[Target.SHORT_PARAMETERS] = SHORT_COLUMN.width
        super().__init__(
            {
                "order": In(stream.Signature(load_order_layout(config))),
                "run": Out(stream.Signature(run_layout())),
                "words": In(stream.Signature(unsigned(8 * config.bus_bytes))),
                "enable": Out(memories),
                "address": Out(16),
                "values": Out(self.widths[Target.VALUES]),
                "positions": Out(self.widths[Target.POSITIONS]),
                "parameters": Out(self.widths[Target.PARAMETERS]),
                "entry": Out(self.widths[Target.TABLE]),
                "done": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        order = Signal(load_order_layout(cfg), reset_less=True)
        asked = Signal(16)  # runs still to ask for
        next_address = Signal(ADDRESS_BITS, reset_less=True)
        runs_left = Signal(16)
        beats_left = Signal(20)
        step = Signal()
        asks: Value = order
        given, ahead = self.order, cfg.loads_ahead > 0
        if ahead:
            given, asks = self._ahead(m, asked, next_address)
        m.d.comb += [
            self.run.payload.address.eq(next_address),
            self.run.payload.beats.eq(asks.beats),
            self.run.payload.instruction.eq(asks.instruction),
        ]
        taken = Signal()
        finished = Signal()
        empty = Signal()
        with m.FSM(name="loader") as fsm:
            with m.State("IDLE"):
                m.d.comb += given.ready.eq(1)
                new = given.payload
                m.d.sync += [
                    order.eq(new),
                    *([] if ahead else [asked.eq(new.rows), next_address.eq(new.address)]),
                    runs_left.eq(new.rows),
                    beats_left.eq(new.beats),
                    self.address.eq(new.destination),
                ]
                with m.If(given.valid):
                    m.next = "RUN"
            with m.State("RUN"):
                nothing = (order.rows == 0) | (order.beats == 0)
                # What comes while a LOAD of nothing is looked at is the next one's.
                m.d.comb += taken.eq(~nothing if ahead else 1)
                if not ahead:
                    m.d.comb += self.run.valid.eq((asked != 0) & ~nothing)  # never of no beats
                    with m.If(self.run.valid & self.run.ready):
                        m.d.sync += [asked.eq(asked - 1), next_address.eq(next_address + order.stride)]
                with m.If(step):
                    m.d.sync += beats_left.eq(beats_left - 1)
                    with m.If(beats_left == 1):
                        m.d.sync += [beats_left.eq(order.beats), runs_left.eq(runs_left - 1)]
                        with m.If(runs_left == 1):
                            m.next = "FLUSH"
                with m.If(nothing):
                    m.next = "FLUSH"
            with m.State("FLUSH"), m.If(empty):  # the last words leave the gearbox
                m.d.comb += finished.eq(1)
                m.next = "IDLE"
        m.d.comb += [self.busy.eq(~fsm.ongoing("IDLE")), self.done.eq(finished)]
        ready, filled = self._gears(m, order, taken, fsm.ongoing("IDLE"))
        m.d.comb += [
            self.words.ready.eq(taken & ready),
            step.eq(self.words.valid & taken & ready),
            empty.eq(~filled),
        ]
        with m.If(self.enable.any()):
            m.d.sync += self.address.eq(self.address + 1)
        return m

    def _gears(self, m: Module, order: data.View, taken: Value, idle: Value) -> tuple[Value, Value]:
        """Words that are taken go to the order's target, as wide as its memory is; no part of one stays when `idle`.

        Returns whether the target takes a word of the bus, and whether any target is given one of its own.
        """
        outputs = {
            Target.VALUES: self.values,
            Target.POSITIONS: self.positions,
            Target.PARAMETERS: self.parameters,
            Target.TABLE: self.entry,
        }
        readies: list[Value] = []
        filled: list[Value] = []  # in the targets' order
        for target, width in self.widths.items():
            gear = m.submodules[f"gear_{target.name.lower()}"] = Gearbox(8 * self.config.bus_bytes, width)
            chosen = order.target == target
            m.d.comb += [
                gear.source.payload.eq(self.words.payload),
                gear.source.valid.eq(self.words.valid & taken & chosen),
                gear.target.ready.eq(1),
                gear.flush.eq(idle),
            ]
            if target in outputs:
                m.d.comb += [outputs[target].eq(gear.target.payload), self.enable[target].eq(gear.target.valid)]
            else:
                # Bits that no field of a column has are left as they are: nothing reads them.
                short = data.View(record_layout(SHORT_COLUMN), gear.target.payload)
                column = data.View(record_layout(COLUMN), self.parameters)
                with m.If(chosen):
                    m.d.comb += [column[name].eq(short[name]) for name in SHORT_COLUMN.places]
                m.d.comb += self.enable[target.memory].eq(filled[target.memory] | gear.target.valid)
            readies.append(chosen & gear.source.ready)
            filled.append(gear.target.valid)
        return reduce(or_, readies), reduce(or_, filled)

    def _ahead(self, m: Module, asked: Signal, next_address: Signal) -> tuple[stream.Interface, Value]:
        """Ask for LOADs as they come. Returns them for who takes their words, and the one that is asked for."""
        layout = load_order_layout(self.config)
        asking = Signal(layout, reset_less=True)
        queue = m.submodules.orders = Queue(width=layout.size, depth=4)
        given = stream.Signature(layout).create(path=("given",))
        free = Signal()
        m.d.comb += [
            free.eq(asked == 0),
            self.order.ready.eq(free & queue.w_rdy),
            queue.w_data.eq(self.order.payload),
            queue.w_en.eq(self.order.valid & free),
            given.payload.eq(queue.r_data),
            given.valid.eq(queue.r_rdy),
            queue.r_en.eq(given.ready),
            self.run.valid.eq(~free),
        ]
        with m.If(self.order.valid & self.order.ready):
            new = self.order.payload
            m.d.sync += [asking.eq(new), asked.eq(Mux(new.beats == 0, 0, new.rows)), next_address.eq(new.address)]
        with m.Elif(self.run.valid & self.run.ready):
            m.d.sync += [asked.eq(asked - 1), next_address.eq(next_address + asking.stride)]
        return given, asking
