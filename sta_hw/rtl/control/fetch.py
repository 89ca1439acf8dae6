"""Fetch a program: its header, checked; then its words, expanded to the instructions that its loops stand for.

The words go through a ring of 64 lines of 64 bytes, filled ahead of their use. What an outermost loop's body has in it
stays until the loop is left, so loops run without the bus. One adder adds address registers, one word a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.expansion import WINDOW_LINES
from ...spec.isa import HEADER_BYTES, LINE_BYTES, MAGIC, MOST_LINES, REGISTERS, VERSION, WORD_BYTES, Error
from ..bus.axi import ADDRESS_BITS
from ..bus.runs import run_layout
from ..primitives.layouts import COUNT_BITS, LENGTH_BITS
from ..primitives.sequencer import Gearbox
from .decode import MOST_WORDS, AtHand, Decoded, decode
from .legality import WORD_BITS

__all__ = ["Fetch", "instruction_layout"]

_LINE = LINE_BYTES // WORD_BYTES
_LINES_BITS = MOST_LINES.bit_length()


def instruction_layout() -> data.StructLayout:
    """An instruction's words, registers added, and its number."""
    return data.StructLayout({"bits": unsigned(WORD_BITS * MOST_WORDS), "number": unsigned(COUNT_BITS)})


class Fetch(wiring.Component):
    """From the program's address to a stream of instructions.

    A word takes a cycle; an instruction is there when all its words are, and the next one begins when it is taken. A
    NEXT that goes back takes 3.

    Members
    -------
    start : In(1), address : In(32), length : In(16); position : In(16), with the feature of that name
    run : Out(stream of run_layout), words : In(stream of bus words)
    instructions : Out(stream of instruction_layout)
    ended : Out(1)
        HALT is reached: all instructions were given.
    illegal : Out(1)
        What comes next, of the number given, is no instruction; until reset.
    error : Out(4)
        isa.Error of the header, until reset.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(ADDRESS_BITS),
                "length": In(LENGTH_BITS),
                **({"position": In(LENGTH_BITS)} if "position" in config.features else {}),
                "run": Out(stream.Signature(run_layout())),
                "words": In(stream.Signature(unsigned(8 * config.bus_bytes))),
                "instructions": Out(stream.Signature(instruction_layout())),
                "ended": Out(1),
                "illegal": Out(1),
                "error": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        gear = m.submodules.gear = Gearbox(8 * self.config.bus_bytes, WORD_BITS)
        lines = _lines(gear)
        read = self._fill(m, gear, lines)
        at_hand, dry = self._read(m, lines, read)
        decoded = decode(m, self.config, at_hand)
        starved = Signal()  # all that could come is there, and was used
        m.d.sync += starved.eq(dry & (~lines.more | (decoded.looping & ~lines.room)))
        self._sequence(m, lines, at_hand.clearing, starved, decoded)
        return m

    def _fill(self, m: Module, gear: Gearbox, lines: _Lines) -> memory.ReadPort:
        """Ask for lines ahead of their use, as many as the ring has room for; all that is asked for has its place."""
        cfg = self.config
        ring = m.submodules.ring = memory.Memory(
            shape=unsigned(WORD_BITS),
            depth=WINDOW_LINES * _LINE,
            init=[],
            attrs={"no_rw_check": 1, "ram_style": "block"},
        )
        write, read = ring.write_port(), ring.read_port()
        asked, kept, filled = lines.asked, lines.kept, lines.filled
        asks = self.run.valid & self.run.ready
        m.d.comb += [
            gear.source.payload.eq(self.words.payload),
            gear.source.valid.eq(self.words.valid),
            self.words.ready.eq(gear.source.ready),
            gear.target.ready.eq(1),
            write.addr.eq(filled),
            write.data.eq(lines.found),
            write.en.eq(lines.arrived),
            self.run.payload.address.eq(self.address + (asked << 6)),
            self.run.payload.beats.eq(LINE_BYTES // cfg.bus_bytes),
            self.run.valid.eq(lines.header | (lines.running & lines.room & lines.more)),
        ]
        with m.If(lines.arrived):
            m.d.sync += filled.eq(filled + 1)
        with m.If(asks):
            m.d.sync += asked.eq(asked + 1)
        m.d.sync += [
            lines.room.eq(((lines.around - kept)[: len(kept)] < WINDOW_LINES) & ~asks),
            lines.more.eq(asked != lines.count),
        ]
        return read

    def _read(self, m: Module, lines: _Lines, read: memory.ReadPort) -> tuple[AtHand, Value]:
        """From the ring to the word at hand. Before that its lower part is what the registers begin with.

        Returns
        -------
        AtHand
        Value of 1 bit
            All that is asked for was used.
        """
        # Places in the ring, counted once around more than there are: to be read, behind the one at hand.
        # The header's line is the first one, and not looked at again.
        place, behind = (Signal.like(lines.filled, name=n, init=_LINE) for n in ("place", "behind"))
        word = Signal(WORD_BITS)
        there, fetched = Signal(), Signal()
        advance, consume, jump = Signal(), Signal(), Signal()
        target_place = Signal.like(place)
        first_values = Signal(range(2 * REGISTERS))
        clearing = Signal()
        running = lines.running
        available = running & (place != lines.filled)
        m.d.comb += [advance.eq((~there | consume) & running), read.addr.eq(place), read.en.eq(advance)]
        with m.If(self.start):
            m.d.sync += clearing.eq(1)
        with m.If(clearing):
            m.d.sync += [first_values.eq(first_values + 1), clearing.eq(~first_values.all())]
            with m.If(first_values[-1]):
                m.d.sync += word[:LENGTH_BITS].eq(self._first_value(first_values))
        with m.Elif(advance):
            m.d.sync += [word.eq(read.data), there.eq(fetched & ~jump), fetched.eq(available & ~jump), behind.eq(place)]
        with m.If(jump):
            m.d.sync += place.eq(target_place)
        with m.Elif(advance):
            m.d.sync += place.eq(place + available)
        at_hand = AtHand(
            word, there, running, clearing, first_values, behind, consume, jump, target_place, lines.kept,
            self.instructions, self.illegal, self.ended,
        )  # fmt: skip
        all_read = place == Cat(Const(0, 3), lines.around)
        return at_hand, running & ~there & ~fetched & ~self.instructions.valid & all_read

    def _first_value(self, which: Value) -> Value:
        """What a register begins with, a cycle before it is written: LENGTH, POSITION, and how many tiles of rows."""
        cfg = self.config
        tiles = (self.length + cfg.rows - 1) >> cfg.rows.bit_length() - 1
        given = Mux(which[0], tiles, self.length)
        if "position" in cfg.features:
            tile = self.position >> cfg.rows.bit_length() - 1
            given = Mux(which[0] ^ which[1], given, Mux(which[0], tile, self.position))
        return given

    def _sequence(self, m: Module, lines: _Lines, clearing: Value, starved: Value, decoded: Decoded) -> None:
        """Read the header and look at it, run; end with HALT, or at the first thing that is wrong."""
        arrived, found = lines.arrived, lines.found
        mine, known = Signal(init=1), Signal(init=1)
        with m.FSM(name="fetch"):
            with m.State("IDLE"), m.If(self.start):
                m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += lines.header.eq(1)
                with m.If(self.run.ready):
                    m.next = "HEADER"
            with m.State("HEADER"), m.If(arrived), m.Switch(lines.filled[:3]):
                with m.Case(0):
                    m.d.sync += known.eq(found == (VERSION << 32 | MAGIC))
                with m.Case(1):
                    m.d.sync += lines.count.eq(found)
                    with m.If(found[_LINES_BITS:32].any() | (found[:_LINES_BITS] == 0)):
                        m.d.sync += known.eq(0)
                with m.Case(2):
                    m.d.sync += mine.eq(found == int(self.config.program_hash, 16))
                with m.Case(HEADER_BYTES // WORD_BYTES - 1):
                    m.next = "RUN"
                    with m.If(~known | ~mine):
                        m.d.sync += self.error.eq(Mux(known, Error.HARDWARE, Error.HEADER))
                        m.next = "FAILED"
            with m.State("RUN"):
                m.d.comb += lines.running.eq(~clearing)
                with m.If(starved | decoded.wrong):
                    m.d.sync += self.illegal.eq(1)
                    m.next = "FAILED"
                with m.Elif(decoded.halts):
                    m.next = "ENDED"
            with m.State("ENDED"):
                m.d.comb += self.ended.eq(1)
            with m.State("FAILED"):
                pass


@dataclass(frozen=True)
class _Lines:
    """A program's lines on their way into the ring.

    Attributes
    ----------
    arrived, found : Value
        A word is there; the word.
    filled : Signal
        Words that were there, counted once around more than the ring has places.
    kept : Signal
        The first line that may be looked at again.
    asked, count : Signal
        Lines asked for; lines of the program.
    around : Value
        `asked`, as `kept` is counted.
    running, header : Signal
        The program runs; its header is asked for.
    room, more : Signal
        There is room for another line; the program has another line.
    """

    arrived: Value
    found: Value
    filled: Signal
    kept: Signal
    asked: Signal
    count: Signal
    around: Value
    running: Signal
    header: Signal
    room: Signal
    more: Signal


def _lines(gear: Gearbox) -> _Lines:
    """None at first; they come through a gearbox."""
    filled = Signal(range(2 * WINDOW_LINES * _LINE))
    kept = Signal(range(2 * WINDOW_LINES), init=1)
    asked, lines = Signal(_LINES_BITS), Signal(_LINES_BITS)
    running, room, more, header = Signal(), Signal(), Signal(), Signal()
    arrived, found, around = gear.target.valid, gear.target.payload, asked[: len(kept)]
    return _Lines(arrived, found, filled, kept, asked, lines, around, running, header, room, more)
