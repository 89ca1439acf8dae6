"""Feeds of the engine's streams: windows from memory or from the softmax, requantization parameters."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.parameters import COLUMN
from ..bus.axi import ADDRESS_BITS
from ..bus.runs import run_layout
from ..primitives.layouts import COUNT_BITS, parameter_layout, record_layout, row_parameter_layout
from ..primitives.queue import Queue, RegisterSlice

__all__ = ["ParameterFeed", "WindowFeed", "parameter_order_layout", "window_order_layout"]

_AHEAD = 4


def window_order_layout(config: Config) -> data.StructLayout:
    """The windows of one product: from memory, or probabilities. With feature digits also which digit (`isa.Digit`).

    With `window_words` also whether they are to be kept, or are kept ones.
    """
    more = {"digit": unsigned(2)} if "digits" in config.features else {}
    more |= {"keep": unsigned(1), "kept": unsigned(1)} if config.window_words else {}
    return data.StructLayout(
        {
            "probabilities": unsigned(1), "address": unsigned(ADDRESS_BITS), "beats": unsigned(20),
            "instruction": unsigned(COUNT_BITS), **more,
        }
    )  # fmt: skip


class WindowFeed(wiring.Component):
    """Windows in the order of products; reads from memory run up to 4 products ahead.

    What is to be kept goes into a memory of `window_words` on its way, to the place that the address's low bits give.

    Members
    -------
    order : In(stream of window_order_layout)
        `beats` are those of memory: with a digit two for each that goes on.
    run : Out(stream of run_layout), words : In(stream of bus words)
    probabilities, activations : In, Out(streams of lanes x 8 bits)
    waits_for_softmax : Out(1)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        beat = stream.Signature(data.ArrayLayout(unsigned(8), config.lanes))
        super().__init__(
            {
                "order": In(stream.Signature(window_order_layout(config))),
                "run": Out(stream.Signature(run_layout())),
                "words": In(stream.Signature(unsigned(8 * config.bus_bytes))),
                "probabilities": In(beat),
                "activations": Out(beat),
                "waits_for_softmax": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        new = self.order.payload
        digits = "digits" in self.config.features
        kind = Cat(new.probabilities, new.digit) if digits else new.probabilities
        unit, place_bits = cfg.bus_bytes.bit_length() - 1, (max(1, cfg.window_words) - 1).bit_length()
        queued: Value = Cat(kind, new.beats) if digits else new.beats << 1 | new.probabilities
        width, elsewhere = 20 + len(kind), new.probabilities
        if cfg.window_words:
            queued = Cat(kind, new.beats, new.keep, new.kept, new.address[unit : unit + place_bits])
            width, elsewhere = width + 2 + place_bits, new.probabilities | new.kept
        queue = m.submodules.queue = Queue(width=width, depth=_AHEAD)
        m.d.comb += [
            self.run.payload.address.eq(new.address),
            self.run.payload.beats.eq(new.beats),
            self.run.payload.instruction.eq(new.instruction),
            self.run.valid.eq(self.order.valid & ~elsewhere & queue.w_rdy),
            self.order.ready.eq(queue.w_rdy & (elsewhere | self.run.ready)),
            queue.w_en.eq(self.order.valid & self.order.ready),
            queue.w_data.eq(queued),
        ]
        left = Signal(20)
        last = Signal()  # one is left
        active = Signal()
        probabilities = Signal()
        output = m.submodules.output = RegisterSlice(8 * self.config.lanes)
        move = output.w_en & output.w_rdy
        word: Value = self.words.payload
        there: Value = self.words.valid
        taken, kept = Signal(), Signal()
        if cfg.window_words:
            given = queue.r_data[20 + len(kind) :]
            word, there = self._kept(m, given, active, taken, ~active & queue.r_rdy, output.w_rdy, kept)
        m.d.comb += [
            queue.r_en.eq(~active),
            output.w_data.eq(Mux(probabilities, self.probabilities.payload.as_value(), word)),
            output.w_en.eq(active & Mux(probabilities, self.probabilities.valid, there)),
            self.words.ready.eq(active & ~probabilities & output.w_rdy),
            self.probabilities.ready.eq(active & probabilities & output.w_rdy),
            self.activations.payload.eq(output.r_data),
            self.activations.valid.eq(output.r_rdy),
            output.r_en.eq(self.activations.ready),
            self.waits_for_softmax.eq(active & probabilities & ~self.probabilities.valid),
        ]
        beats = queue.r_data[len(kind) :][:20]
        if digits:
            move = self._digits(m, queue, active, probabilities, output, word, there)
        with m.If(~active & queue.r_rdy):
            m.d.sync += [left.eq(beats), probabilities.eq(queue.r_data[0]), last.eq(beats == 1), active.eq(beats != 0)]
        with m.If(move):
            m.d.sync += [left.eq(left - 1), last.eq(left == 2), active.eq(~last)]
        if cfg.window_words:
            m.d.comb += taken.eq(move)
            with m.If(kept):
                m.d.comb += self.words.ready.eq(0)
        return m

    def _digits(
        self,
        m: Module,
        queue: Queue,
        active: Value,
        probabilities: Value,
        output: RegisterSlice,
        word: Value,
        there: Value,
    ) -> Value:
        """Of two bus words of 15-bit values the word of one of their digits. Returns whether a word is taken."""
        digit, second, lanes = Signal(2), Signal(), self.config.lanes
        values = [word[16 * i :][:16] for i in range(lanes // 2)]
        found = Cat(Mux(digit[1], v[:7], v[7:15]) for v in values)  # low ones are from 0 to 127
        first = Signal(4 * lanes, reset_less=True)  # of the first word
        cuts = active & (digit != 0)
        taken = Signal()
        m.d.comb += taken.eq(active & Mux(probabilities, self.probabilities.valid, there) & output.w_rdy)
        with m.If(cuts):
            m.d.comb += [output.w_data.eq(Cat(first, found)), output.w_en.eq(there & second)]
            with m.If(taken):
                m.d.sync += [second.eq(~second), first.eq(found)]
        with m.If(~active):
            m.d.sync += [digit.eq(queue.r_data[1:3]), second.eq(0)]
        return taken

    def _kept(
        self, m: Module, given: Value, active: Value, taken: Value, begins: Value, free: Value, kept: Signal
    ) -> tuple[Value, Value]:
        """The memory of windows that are kept: written as they pass, read a word ahead of their way out.

        `given` has the flags and the place of the product that begins. Returns the word at hand, and whether it is one.
        """
        words = self.config.window_words
        storage = m.submodules.kept_windows = memory.Memory(
            shape=unsigned(8 * self.config.bus_bytes), depth=words, init=[], attrs={"no_rw_check": 1}
        )
        write, read = storage.write_port(), storage.read_port()
        place = Signal((words - 1).bit_length())
        keep = Signal()
        fetched, advance = Signal(), Signal()  # a word is read
        m.d.comb += [
            write.addr.eq(place),
            write.data.eq(self.words.payload),
            write.en.eq(taken & keep),
            read.addr.eq(place),
            read.en.eq(advance),
            advance.eq(active & kept & (~fetched | free)),
        ]
        with m.If(~active):
            m.d.sync += fetched.eq(0)
        with m.Elif(advance):
            m.d.sync += fetched.eq(1)
        with m.If(begins):
            m.d.sync += [keep.eq(given[0]), kept.eq(given[1]), place.eq(given[2:])]
        with m.Elif(advance | (taken & keep)):
            m.d.sync += place.eq(place + 1)
        return Mux(kept, read.data, self.words.payload), Mux(kept, fetched, self.words.valid)


def parameter_order_layout() -> data.StructLayout:
    """Where a product's requantization comes from, and whether its second multipliers are wanted."""
    return data.StructLayout({"totals": unsigned(1), "seconds": unsigned(1)})


class ParameterFeed(wiring.Component):
    """Requantization parameters in the order of products: from memory words, or the softmax's row totals.

    Members
    -------
    order : In(stream of parameter_order_layout)
    words : In(stream of {word, last})
        Columns' parameters as they lie in memory.
    totals : In(stream of row_parameter_layout)
        ``rows`` per product.
    parameters : Out(stream of parameter_layout)
    seconds : Out(stream of unsigned(16))
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        word = data.StructLayout({"word": unsigned(COLUMN.width), "last": unsigned(1)})
        super().__init__(
            {
                "order": In(stream.Signature(parameter_order_layout())),
                "words": In(stream.Signature(word)),
                "totals": In(stream.Signature(row_parameter_layout())),
                "parameters": Out(stream.Signature(parameter_layout())),
                "seconds": Out(stream.Signature(unsigned(16))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        orders = m.submodules.orders = Queue(width=2, depth=16)
        # Columns between the drain's entry and the result path.
        seconds = m.submodules.seconds_queue = Queue(width=16, depth=64)
        order = data.View(parameter_order_layout(), orders.r_data)
        row = Signal(range(max(2, self.config.rows)))
        word = data.View(record_layout(COLUMN), self.words.payload.word)
        wanted = orders.r_rdy & (~order.seconds | seconds.w_rdy)
        output = m.submodules.output = RegisterSlice(parameter_layout().size)
        m.d.comb += [
            orders.w_data.eq(self.order.payload),
            orders.w_en.eq(self.order.valid),
            self.order.ready.eq(orders.w_rdy),
            self.seconds.payload.eq(seconds.r_data),
            self.seconds.valid.eq(seconds.r_rdy),
            seconds.r_en.eq(self.seconds.ready),
            seconds.w_data.eq(word.second),
        ]
        given = data.View(parameter_layout(), output.w_data)
        m.d.comb += [
            self.parameters.payload.eq(output.r_data),
            self.parameters.valid.eq(output.r_rdy),
            output.r_en.eq(self.parameters.ready),
        ]
        with m.If(order.totals):
            m.d.comb += [
                given.multiplier.eq(self.totals.payload.multiplier),
                given.shift.eq(self.totals.payload.shift),
                output.w_en.eq(orders.r_rdy & self.totals.valid),
                self.totals.ready.eq(orders.r_rdy & output.w_rdy),
            ]
        with m.Else():
            m.d.comb += [
                given.bias.eq(word.bias),
                given.multiplier.eq(word.multiplier),
                given.shift.eq(word.shift),
                output.w_en.eq(wanted & self.words.valid),
                self.words.ready.eq(wanted & output.w_rdy),
                seconds.w_en.eq(self.words.valid & self.words.ready & order.seconds),
            ]
        moved = output.w_en & output.w_rdy
        with m.If(moved & order.totals):
            m.d.sync += row.eq(Mux(row == self.config.rows - 1, 0, row + 1))
        m.d.comb += orders.r_en.eq(moved & Mux(order.totals, row == self.config.rows - 1, self.words.payload.last))
        return m
