"""Fetch a program: its header, checked; then its words, expanded to the instructions that its loops stand for.

The words go through a ring of 64 lines of 64 bytes, filled ahead of their use. What an outermost loop's body has in it
stays until the loop is left, so loops run without the bus. One adder adds address registers, one word a cycle.
"""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.expansion import LENGTH_REGISTER, MOST_LOOPS, TILES_REGISTER, WINDOW_LINES
from ...spec.isa import (
    FORMATS,
    HEADER_BYTES,
    LINE_BYTES,
    LOW_BITS,
    MAGIC,
    MOST_LINES,
    REGISTER_BITS,
    REGISTERS,
    VERSION,
    WORD_BYTES,
    Error,
    Opcode,
    Result,
    formats,
)
from ..bus.axi import ADDRESS_BITS
from ..bus.dma import run_layout
from ..primitives.layouts import COUNT_BITS, LENGTH_BITS
from ..primitives.sequencer import Gearbox

__all__ = ["Fetch", "instruction_layout"]

_WORD = 8 * WORD_BYTES
_LINE = LINE_BYTES // WORD_BYTES
_MOST_WORDS = max(len(words) for words in FORMATS.values())
_HIGH = LOW_BITS + REGISTER_BITS
"""First bit of a word behind its register's number."""
_OPCODE = slice(_HIGH, _HIGH + 4)
_COUNT = 16
_LINES_BITS = MOST_LINES.bit_length()


def instruction_layout() -> data.StructLayout:
    """An instruction's words, registers added, and its number."""
    return data.StructLayout({"bits": unsigned(_WORD * _MOST_WORDS), "number": unsigned(COUNT_BITS)})


def _refused(word: Value, index: Value, known: Callable[[Opcode], Value]) -> Value:
    """Whether a word has bits that no field has, or codes that are reserved: in its upper part, where all such are."""
    cases: list[Value] = []
    for opcode, words in FORMATS.items():
        record = formats(opcode)
        for number in range(len(words)):
            low, high = _WORD * number + _HIGH, _WORD * (number + 1)
            used = {
                bit
                for at, f in record.places.values()
                if not f.reserved
                for bit in range(at, at + f.width)
                if low <= bit < high
            }
            bits = [word[bit - _WORD * number] for bit in range(low, high) if bit not in used]
            if bits:
                cases.append(known(opcode) & (index == number) & Cat(*bits).any())
    for opcode, name, most in (
        (Opcode.LOAD, "target", 3), (Opcode.PRODUCT, "result", max(Result)), (Opcode.PRODUCT, "mask", 1)
    ):  # fmt: skip
        at, f = formats(opcode).places[name]
        number, first = at // _WORD, at % _WORD
        cases.append(known(opcode) & (index == number) & (word[first : first + f.width] > most))
    return Cat(*cases).any()


class Fetch(wiring.Component):
    """From the program's address to a stream of instructions.

    A word takes a cycle; an instruction is there when all its words are, and the next one begins when it is taken. A
    NEXT that goes back takes 3.

    Members
    -------
    start : In(1), address : In(32), length : In(16)
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
                "run": Out(stream.Signature(run_layout())),
                "words": In(stream.Signature(unsigned(8 * config.bus_bytes))),
                "instructions": Out(stream.Signature(instruction_layout())),
                "ended": Out(1),
                "illegal": Out(1),
                "error": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        gear = m.submodules.gear = Gearbox(8 * cfg.bus_bytes, _WORD)
        window = WINDOW_LINES * _LINE
        ring = m.submodules.ring = memory.Memory(
            shape=unsigned(_WORD), depth=window, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
        )
        write, read = ring.write_port(), ring.read_port()
        arrived = gear.target.valid  # all that is asked for has its place
        m.d.comb += [
            gear.source.payload.eq(self.words.payload),
            gear.source.valid.eq(self.words.valid),
            self.words.ready.eq(gear.source.ready),
            gear.target.ready.eq(1),
        ]
        # Places in the ring, counted once around more than there are: words filled, to be read, behind the one at hand.
        filled, place, behind = (Signal(range(2 * window), name=n) for n in ("filled", "place", "behind"))
        asked, kept = (Signal(range(2 * WINDOW_LINES), name=n) for n in ("asked", "kept"))  # lines
        line = Signal(ADDRESS_BITS, reset_less=True)
        lines_left = Signal(_LINES_BITS)
        running, room = Signal(), Signal()
        m.d.comb += [
            self.run.payload.address.eq(line),
            self.run.payload.beats.eq(LINE_BYTES // cfg.bus_bytes),
            write.addr.eq(filled),
            write.data.eq(gear.target.payload),
            write.en.eq(arrived & running),
        ]
        with m.If(write.en):
            m.d.sync += filled.eq(filled + 1)
        with m.If(self.run.valid & self.run.ready):
            m.d.sync += line.eq(Cat(line[:6], line[6:] + 1))
        # One line more is asked for where the one before left room for it.
        m.d.sync += room.eq(((asked - kept)[: len(asked)] < WINDOW_LINES) & ~(self.run.valid & self.run.ready))
        with m.If(running & self.run.valid & self.run.ready):
            m.d.sync += [asked.eq(asked + 1), lines_left.eq(lines_left - 1)]

        # From the ring to the word at hand. At the start, sixteen SETs go before it: the registers' first values.
        word = Signal(_WORD)
        there, fetched = Signal(), Signal()
        advance, consume, jump = Signal(), Signal(), Signal()
        first_sets = Signal(range(REGISTERS + 1))
        target_place = Signal.like(place)
        available = running & (place != filled)
        m.d.comb += [advance.eq(~there | consume), read.addr.eq(place), read.en.eq(advance)]
        with m.If(first_sets.any()):
            m.d.sync += [first_sets.eq(first_sets - 1), there.eq(1), word.eq(self._first_set(first_sets))]
        with m.Elif(advance):
            m.d.sync += [word.eq(read.data), there.eq(fetched & ~jump), fetched.eq(available & ~jump)]
        with m.If(jump):
            m.d.sync += [place.eq(target_place), behind.eq(target_place)]
        with m.Elif(advance):
            m.d.sync += [place.eq(place + available), behind.eq(behind + fetched)]
        with m.If(self.start):
            m.d.sync += first_sets.eq(REGISTERS)

        wrong = self._decode(m, word, there, consume, jump, running, behind, kept, target_place)
        starved = Signal()  # all that could come is there, and was used
        m.d.sync += starved.eq(
            running & ~there & ~fetched & ~self.instructions.valid & (place == filled) & (filled == Cat(Const(0, 3), asked))
            & ((lines_left == 0) | (self._looping & ~room & ~self.run.valid))
        )  # fmt: skip

        header = Signal(range(_LINE))
        mine, known = Signal(init=1), Signal(init=1)
        found = gear.target.payload
        with m.FSM(name="fetch"):
            with m.State("IDLE"):
                m.d.sync += line.eq(self.address)
                with m.If(self.start):
                    m.next = "ASK_HEADER"
            with m.State("ASK_HEADER"):
                m.d.comb += self.run.valid.eq(1)
                with m.If(self.run.ready):
                    m.next = "HEADER"
            with m.State("HEADER"), m.If(arrived):
                m.d.sync += header.eq(header + 1)
                with m.If(header == 0):
                    m.d.sync += known.eq(found == (VERSION << 32 | MAGIC))
                with m.If(header == 1):
                    m.d.sync += lines_left.eq(found)
                    with m.If(found[_LINES_BITS:32].any()):
                        m.d.sync += known.eq(0)
                with m.If(header == 2):
                    m.d.sync += mine.eq(found == int(cfg.program_hash, 16))
                with m.If(header == HEADER_BYTES // WORD_BYTES - 1):
                    m.next = "RUN"
                    with m.If(~known | ~mine):
                        m.d.sync += self.error.eq(Mux(known, Error.HARDWARE, Error.HEADER))
                        m.next = "FAILED"
            with m.State("RUN"):
                m.d.comb += [running.eq(1), self.run.valid.eq(room & (lines_left != 0))]
                with m.If(starved | wrong):
                    m.d.sync += self.illegal.eq(1)
                    m.next = "FAILED"
                with m.Elif(self._halts):
                    m.next = "ENDED"
            with m.State("ENDED"):
                m.d.comb += self.ended.eq(1)
            with m.State("FAILED"):
                pass
        return m

    def _first_set(self, left: Value) -> Value:
        """SET of one of the registers, the last one first: `left` are to come."""
        rows = self.config.rows.bit_length() - 1
        tiles = ((self.length + self.config.rows - 1) >> rows)[:LENGTH_BITS]
        number = (left - 1)[:REGISTER_BITS]
        value = Mux(
            number == LENGTH_REGISTER, self.length, Mux(number == TILES_REGISTER, tiles, Const(0, LENGTH_BITS))
        )
        return Cat(
            value, Const(0, LOW_BITS - LENGTH_BITS + REGISTER_BITS), Const(Opcode.SET, 4), number, Const(0, _WORD)
        )[:_WORD]

    def _decode(self, m: Module, word, there, consume, jump, running, behind, kept, target_place) -> Value:
        """Add the word's register and see what it is. Returns whether it is nothing that may stand there."""
        registers = m.submodules.registers = memory.Memory(shape=unsigned(LOW_BITS), depth=REGISTERS, init=[])
        set_register, register = registers.write_port(), registers.read_port(domain="comb")
        low = Signal(LOW_BITS)
        m.d.comb += [
            register.addr.eq(word[LOW_BITS:_HIGH]),
            low.eq((word[:LOW_BITS] + register.data)[:LOW_BITS]),
        ]
        # The words of the instruction under way, and whether all are there.
        slots = [Signal(_WORD, name=f"word_{i}", reset_less=True) for i in range(_MOST_WORDS)]
        full = Signal()
        index, left = Signal(range(_MOST_WORDS)), Signal(range(_MOST_WORDS))
        number = Signal(COUNT_BITS)
        first = Signal(init=1)
        at_hand = word[_OPCODE]
        under_way = Signal(4, reset_less=True)
        opcode = Signal(4)
        m.d.comb += opcode.eq(Mux(first, at_hand, under_way))
        m.d.comb += [
            consume.eq(there & ~full & ~self.illegal & ~self.ended),
            self.instructions.payload.bits.eq(Cat(slots)),
            self.instructions.payload.number.eq(number),
            self.instructions.valid.eq(full),
        ]
        with m.If(self.instructions.ready & full):
            m.d.sync += [full.eq(0), number.eq(number + 1)]

        def known(which: Opcode) -> Value:
            if which == Opcode.PRODUCT:  # and what has its fields
                return (opcode == Opcode.PRODUCT) | (opcode == Opcode.SCORES) | (opcode == Opcode.CONTEXT)
            return opcode == which if which not in (Opcode.SCORES, Opcode.CONTEXT) else Const(0, 1)

        control = first & (at_hand >= Opcode.SET)
        unit = first & (at_hand >= Opcode.LOAD) & (at_hand < Opcode.SET)
        bad = Signal()
        m.d.comb += bad.eq(
            _refused(word, index, known) | (first & ((at_hand < Opcode.HALT) | (at_hand > Opcode.NEXT)))
        )
        with m.If(consume):
            for i, slot in enumerate(slots):
                with m.If(index == i):
                    m.d.sync += slot.eq(Cat(low, Const(0, REGISTER_BITS), word[_HIGH:]))
            with m.If(unit):
                m.d.sync += [first.eq(0), index.eq(1), under_way.eq(at_hand)]
                with m.Switch(at_hand):
                    for which, words in FORMATS.items():
                        with m.Case(which):
                            m.d.sync += left.eq(len(words) - 1)
            with m.If(~first):
                m.d.sync += [index.eq(index + 1), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += [first.eq(1), index.eq(0), full.eq(~bad)]

        # Loops around: where each began, and how often it still runs.
        frame = data.StructLayout({"begin": len(behind), "left": _COUNT})
        loops = m.submodules.loops = memory.Memory(shape=frame, depth=2 * MOST_LOOPS, init=[])
        put, top = loops.write_port(), loops.read_port(domain="comb")
        depth, above = Signal(range(MOST_LOOPS + 1)), Signal(range(2 * MOST_LOOPS), init=2 * MOST_LOOPS - 1)
        self._looping = looping = Signal()  # depth is not 0
        is_set, is_loop, is_next = (consume & first & (at_hand == o) for o in (Opcode.SET, Opcode.LOOP, Opcode.NEXT))
        last = Signal()
        m.d.comb += [
            set_register.addr.eq(word[_HIGH + 4 : _HIGH + 8]),
            set_register.data.eq(low),
            set_register.en.eq(is_set),
            top.addr.eq(above),
            put.addr.eq(Mux(at_hand[0], above, depth)),  # NEXT, or LOOP
            put.data.begin.eq(Mux(at_hand[0], top.data.begin, behind)),
            put.data.left.eq(Mux(at_hand[0], top.data.left - 1, low[:_COUNT])),
            put.en.eq(is_loop | is_next),
            last.eq(top.data.left == 1),
            target_place.eq(top.data.begin),
            jump.eq(is_next & ~last & looping),
        ]
        with m.If(is_loop):
            m.d.sync += [depth.eq(depth + 1), above.eq(depth), looping.eq(1)]
        with m.If(is_next & last):
            m.d.sync += [depth.eq(depth - 1), above.eq(above - 1), looping.eq(above.any())]
        with m.If(~looping):
            m.d.sync += kept.eq(behind[3:])
        self._halts = consume & first & (at_hand == Opcode.HALT)
        return running & consume & (
            bad
            | (is_set & (word[_HIGH + 4 : _HIGH + 8] == 0))
            | (is_loop & ((depth == MOST_LOOPS) | (low[:_COUNT] == 0)))
            | (is_next & ~looping)
            | (self._halts & looping)
        )  # fmt: skip
