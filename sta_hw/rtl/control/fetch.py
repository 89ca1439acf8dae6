"""Fetch a program: its header, checked; then its words, expanded to the instructions that its loops stand for.

The words go through a ring of 64 lines of 64 bytes, filled ahead of their use. What an outermost loop's body has in it
stays until the loop is left, so loops run without the bus. One adder adds address registers, one word a cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.expansion import MOST_LOOPS, WINDOW_LINES
from ...spec.isa import (
    CODES,
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
    codes,
    formats,
)
from ...spec.records import Field
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


def _refused(config: Config, word: Value, index: Value, known: Callable[[Opcode], Value]) -> Value:
    """Whether a word has bits that no field has, or codes that are reserved: in its upper part, where all such are."""

    def there(name: str, described: Field) -> bool:
        """Whether this hardware has a field."""
        if described.reserved or described.feature not in ("", *config.abilities):
            return False
        return name not in CODES or max(codes(name, config.features)) > 0

    places: dict[int, list[Value]] = {}  # from which bit on nothing may be set, and in which words
    for opcode, words in FORMATS.items():
        used = {bit for n, (at, f) in formats(opcode).places.items() if there(n, f) for bit in range(at, at + f.width)}
        for number in range(len(words)):
            low, high = _WORD * number + _HIGH, _WORD * (number + 1)
            first = max((bit for bit in used if low <= bit < high), default=low - 1) + 1
            if first < high:
                places.setdefault(first - _WORD * number, []).append(known(opcode) & (index == number))
    wrong: Value = Const(0, 1)
    above, top = Const(0, 1), _WORD
    for first in sorted(places, reverse=True):
        above, top = above | word[first:top].any(), first
        wrong = wrong | (above & Cat(*places[first]).any())
    for opcode, name in (
        (Opcode.LOAD, "target"), (Opcode.PRODUCT, "result"), (Opcode.PRODUCT, "mask"), (Opcode.NORM, "kind"),
        (Opcode.PRODUCT, "digit"), (Opcode.PRODUCT, "value_format"),
    ):  # fmt: skip
        at, f = formats(opcode).places[name]
        number, first = at // _WORD, at % _WORD
        if there(name, f):
            most = max(codes(name, config.features))
            wrong = wrong | (known(opcode) & (index == number) & (word[first : first + f.width] > most))
    # Bits of features that this hardware has not, or of no field, below those that it has.
    for opcode, words in FORMATS.items():
        there_of = [(at, f.width) for n, (at, f) in formats(opcode).places.items() if there(n, f)]
        used = {bit for at, width in there_of for bit in range(at, at + width)}
        for number in range(0 if opcode in (Opcode.SCORES, Opcode.CONTEXT) else len(words)):
            highs = range(_WORD * number + _HIGH, _WORD * (number + 1))
            gaps = [bit for bit in highs if bit not in used and bit < max(used & {*highs}, default=0)]
            if gaps:
                set_bits = Cat(word[bit % _WORD] for bit in gaps).any()
                wrong = wrong | (known(opcode) & (index == number) & set_bits)
    return wrong


@dataclass(frozen=True)
class _AtHand:
    """What goes between the ring and the decoder.

    Attributes
    ----------
    word : Signal
        The word at hand; while the registers are cleared, in its lower part what they begin with.
    there, running, clearing : Signal
        Whether it is one; whether the program runs; whether the registers are given what they begin with.
    first_values : Signal
        Which of them.
    behind : Signal
        The place behind the word's, counted as the ring counts them.
    consume, jump : Signal
        Given by the decoder: it takes the word; the next one is at `target_place`.
    target_place : Signal
        Where a NEXT goes back to.
    kept : Signal
        The first line that may be looked at again.
    """

    word: Signal
    there: Signal
    running: Signal
    clearing: Signal
    first_values: Signal
    behind: Signal
    consume: Signal
    jump: Signal
    target_place: Signal
    kept: Signal


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
        cfg = self.config
        m = Module()
        gear = m.submodules.gear = Gearbox(8 * cfg.bus_bytes, _WORD)
        window = WINDOW_LINES * _LINE
        ring = m.submodules.ring = memory.Memory(
            shape=unsigned(_WORD), depth=window, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
        )
        write, read = ring.write_port(), ring.read_port()
        arrived, found = gear.target.valid, gear.target.payload  # all that is asked for has its place
        # Places in the ring, counted once around more than there are: words filled, to be read, behind the one at hand.
        # The header's line is the first one, and not looked at again.
        filled = Signal(range(2 * window))
        place, behind = (Signal(range(2 * window), name=n, init=_LINE) for n in ("place", "behind"))
        kept = Signal(range(2 * WINDOW_LINES), init=1)  # the first line that may be looked at again
        asked, lines = Signal(_LINES_BITS), Signal(_LINES_BITS)
        around = asked[: len(kept)]
        running, room, more, header = Signal(), Signal(), Signal(), Signal()
        asks = self.run.valid & self.run.ready
        m.d.comb += [
            gear.source.payload.eq(self.words.payload),
            gear.source.valid.eq(self.words.valid),
            self.words.ready.eq(gear.source.ready),
            gear.target.ready.eq(1),
            write.addr.eq(filled),
            write.data.eq(found),
            write.en.eq(arrived),
            self.run.payload.address.eq(self.address + (asked << 6)),
            self.run.payload.beats.eq(LINE_BYTES // cfg.bus_bytes),
            self.run.valid.eq(header | (running & room & more)),
        ]
        with m.If(arrived):
            m.d.sync += filled.eq(filled + 1)
        with m.If(asks):
            m.d.sync += asked.eq(asked + 1)
        m.d.sync += [room.eq(((around - kept)[: len(kept)] < WINDOW_LINES) & ~asks), more.eq(asked != lines)]

        # From the ring to the word at hand. Before that its lower part is what the registers begin with.
        word = Signal(_WORD)
        there, fetched = Signal(), Signal()
        advance, consume, jump = Signal(), Signal(), Signal()
        target_place = Signal.like(place)
        first_values = Signal(range(2 * REGISTERS))
        clearing = Signal()
        available = running & (place != filled)
        m.d.comb += [advance.eq((~there | consume) & running), read.addr.eq(place), read.en.eq(advance)]
        tiles = (self.length + cfg.rows - 1) >> cfg.rows.bit_length() - 1
        given = Mux(first_values[0], tiles, self.length)  # a cycle before it is written
        if "position" in cfg.features:
            tile = self.position >> cfg.rows.bit_length() - 1
            given = Mux(first_values[0] ^ first_values[1], given, Mux(first_values[0], tile, self.position))
        with m.If(self.start):
            m.d.sync += clearing.eq(1)
        with m.If(clearing):
            m.d.sync += [first_values.eq(first_values + 1), clearing.eq(~first_values.all())]
            with m.If(first_values[-1]):
                m.d.sync += word[:LENGTH_BITS].eq(given)
        with m.Elif(advance):
            m.d.sync += [word.eq(read.data), there.eq(fetched & ~jump), fetched.eq(available & ~jump), behind.eq(place)]
        with m.If(jump):
            m.d.sync += place.eq(target_place)
        with m.Elif(advance):
            m.d.sync += place.eq(place + available)

        wrong = self._decode(
            m, _AtHand(word, there, running, clearing, first_values, behind, consume, jump, target_place, kept)
        )
        starved = Signal()  # all that could come is there, and was used
        m.d.sync += starved.eq(
            running & ~there & ~fetched & ~self.instructions.valid & (place == Cat(Const(0, 3), around))
            & (~more | (self._looping & ~room))
        )  # fmt: skip

        mine, known = Signal(init=1), Signal(init=1)
        with m.FSM(name="fetch"):
            with m.State("IDLE"), m.If(self.start):
                m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += header.eq(1)
                with m.If(self.run.ready):
                    m.next = "HEADER"
            with m.State("HEADER"), m.If(arrived), m.Switch(filled[:3]):
                with m.Case(0):
                    m.d.sync += known.eq(found == (VERSION << 32 | MAGIC))
                with m.Case(1):
                    m.d.sync += lines.eq(found)
                    with m.If(found[_LINES_BITS:32].any() | (found[:_LINES_BITS] == 0)):
                        m.d.sync += known.eq(0)
                with m.Case(2):
                    m.d.sync += mine.eq(found == int(cfg.program_hash, 16))
                with m.Case(HEADER_BYTES // WORD_BYTES - 1):
                    m.next = "RUN"
                    with m.If(~known | ~mine):
                        m.d.sync += self.error.eq(Mux(known, Error.HARDWARE, Error.HEADER))
                        m.next = "FAILED"
            with m.State("RUN"):
                m.d.comb += running.eq(~clearing)
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

    def _misfits(self, word: Value, index: Value, under_way: Value, slots: list[Signal], low: Value) -> Value:
        """Whether a word asks for what the features cannot do with others: pairs of columns of which one is missing."""
        places = formats(Opcode.PRODUCT).places
        has = self.config.features
        product = under_way == Opcode.PRODUCT
        after_load = product | (under_way == Opcode.SCORES) | (under_way == Opcode.CONTEXT)
        wrong: Value = Const(0, 1)
        kind = slots[1][places["result"][0] - _WORD :][:4]
        for feature, name, results in (
            ("gate", "multiply", (Result.STORE16, Result.ACTIVATE)),
            ("rotary", "rotate", (Result.STORE8, Result.TRANSPOSE)),
        ):
            if feature not in has:
                continue
            bit = places[name][0] % _WORD
            fits = product & Cat(kind == r for r in results).any()
            wrong = wrong | (after_load & (index == 2) & word[bit] & ~fits)
            wrong = wrong | (after_load & (index == places["columns"][0] // _WORD) & slots[2][bit] & low[0])
        if "digits" in has:
            at = places["digit"][0] % _WORD
            lift, bits15 = (word[places[name][0] % _WORD] for name in ("lift", "bits15"))
            continues = slots[1][places["continues"][0] % _WORD]
            activates = product & (kind == Result.ACTIVATE)
            if "gate" in has:
                activates = activates & ~slots[2][places["multiply"][0] % _WORD]
            stores = ((kind == Result.STORE16) & (under_way != Opcode.SCORES)) | activates
            alone = ((word[at : at + 2].any() | lift) & ~product) | (lift & ~continues) | (bits15 & ~stores)
            wrong = wrong | (after_load & (index == places["digit"][0] // _WORD) & alone)
        if "best" in has:
            first = places["result"][0] % _WORD
            listed = word[first : first + 4] == Result.BEST
            wrong = wrong | ((under_way == Opcode.CONTEXT) & (index == 1) & listed)
        if "blocks4" in has:
            bits = {name: places[name][0] % _WORD for name in ("value_format", "run")}
            short = word[bits["value_format"]] & ~word[bits["run"] + 1 : bits["run"] + places["run"][1].width].any()
            wrong = wrong | (after_load & (index == places["run"][0] // _WORD) & short)
        return wrong

    def _unkept(
        self, m: Module, word: Value, index: Value, under_way: Value, slots: list[Signal], consume: Value
    ) -> Value:
        """Whether a word asks for windows to be kept that have no room, or for kept ones of which some are not there.

        Kept is what lies from `start` to `end`, in words of the bus; all of it has a place of its own on chip.
        """
        cfg = self.config
        places = formats(Opcode.PRODUCT).places
        unit = cfg.bus_bytes.bit_length() - 1
        bits = ADDRESS_BITS - unit + 1
        beats_at = places["window_beats"][0] - _WORD
        address, beats = slots[0][unit:ADDRESS_BITS], slots[1][beats_at : beats_at + 20]
        start, end = Signal(bits), Signal(bits)
        # Each from a register: the words with address and beats are there cycles before the one with the flags.
        behind, furthest = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        apart, inside, joins, fits, fits_joined = (
            Signal(name=n, reset_less=True) for n in ("apart", "inside", "joins", "fits", "fits_joined")
        )
        keeps, takes = (word[places[n][0] % _WORD] for n in ("keep", "kept"))
        here = index == places["keep"][0] // _WORD
        product = (under_way == Opcode.PRODUCT) | (under_way == Opcode.SCORES)
        m.d.sync += [
            behind.eq(address + beats),
            furthest.eq(Mux(behind > end, behind, end)),
            apart.eq((address < start) | (address > end)),
            inside.eq(~apart & (behind <= end) & ~slots[0][:unit].any()),
            fits.eq(beats <= cfg.window_words),
            joins.eq(~apart),
            fits_joined.eq(furthest - start <= cfg.window_words),
        ]
        with m.If(consume & here & product & keeps):
            with m.If(joins & fits_joined):
                m.d.sync += end.eq(furthest)
            with m.Else():
                m.d.sync += [start.eq(address), end.eq(behind)]
        after_load = product | (under_way == Opcode.CONTEXT)
        bad = (keeps & takes) | (keeps & ~fits) | (takes & ~inside) | ((keeps | takes) & ~product)
        return after_load & here & bad

    def _decode(self, m: Module, at: _AtHand) -> Value:
        """Add the word's register and see what it is. Returns whether it is nothing that may stand there."""
        word, consume, first_values = at.word, at.consume, at.first_values
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
            consume.eq(at.there & ~full & ~self.illegal & ~self.ended),
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

        unit = first & (at_hand >= Opcode.LOAD) & (at_hand < Opcode.SET)
        # Columns that go in blocks of `groups`: of scores, no more than a window has; and transposed. Of the codes that
        # pass, the highest bit is TRANSPOSE's alone.
        places = formats(Opcode.PRODUCT).places
        group_bits = self.config.groups.bit_length() - 1
        result = slots[1][places["result"][0] - _WORD :][:4]
        transposes = result[2] & ~result[0] if "best" in self.config.features else result[2]
        scores = under_way == Opcode.SCORES
        ragged = (index == places["columns"][0] // _WORD) & (
            ((scores | transposes) & low[:group_bits].any()) | (scores & (low[group_bits:_COUNT] > self.config.window))
        )
        if {"gate", "rotary", "best", "digits", "blocks4"} & {*self.config.features}:
            ragged = ragged | self._misfits(word, index, under_way, slots, low)
        if "apart" in self.config.abilities:
            bit = places["apart"][0] % _WORD
            fits = (under_way == Opcode.PRODUCT) & (result == Result.STORE8)
            after_load = (under_way == Opcode.SCORES) | (under_way == Opcode.CONTEXT) | (under_way == Opcode.PRODUCT)
            ragged = ragged | (after_load & (index == places["apart"][0] // _WORD) & word[bit] & ~fits)
        if self.config.window_words:
            ragged = ragged | self._unkept(m, word, index, under_way, slots, consume)
        bad = Signal()
        m.d.comb += bad.eq(
            _refused(self.config, word, index, known)
            | ragged
            | (first & ((at_hand < Opcode.HALT) | (at_hand > Opcode.NEXT)))
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
        begins = m.submodules.begins = memory.Memory(shape=unsigned(len(at.behind)), depth=2 * MOST_LOOPS, init=[])
        turns = m.submodules.turns = memory.Memory(shape=unsigned(_COUNT), depth=2 * MOST_LOOPS, init=[])
        begin, begun = begins.write_port(), begins.read_port(domain="comb")
        put, top = turns.write_port(), turns.read_port(domain="comb")
        depth, above = Signal(range(MOST_LOOPS + 1)), Signal(range(2 * MOST_LOOPS), init=2 * MOST_LOOPS - 1)
        self._looping = looping = Signal()  # depth is not 0
        is_set, is_loop, is_next = (consume & first & (at_hand == o) for o in (Opcode.SET, Opcode.LOOP, Opcode.NEXT))
        last = Signal()
        preset = first_values[2 if "position" in self.config.features else 1 : -1]
        sets_zero = word[_HIGH + 4 : _HIGH + 8] == 0  # register 0 is zero for ever, also for the next program
        m.d.comb += [
            # At the start zero to all registers, and then to the last ones what they begin with.
            set_register.addr.eq(Mux(at.clearing, first_values, word[_HIGH + 4 : _HIGH + 8])),
            set_register.data.eq(low),
            set_register.en.eq((is_set & ~sets_zero) | (at.clearing & (~first_values[-1] | preset.all()))),
            top.addr.eq(above),
            begun.addr.eq(above),
            begin.addr.eq(depth),
            begin.data.eq(at.behind),
            begin.en.eq(is_loop),
            put.addr.eq(Mux(at_hand[0], above, depth)),  # NEXT, or LOOP
            put.data.eq(Mux(at_hand[0], top.data - 1, low[:_COUNT])),
            put.en.eq(is_loop | is_next),
            last.eq(top.data == 1),
            at.target_place.eq(begun.data),
            at.jump.eq(is_next & ~last & looping),
        ]
        with m.If(is_loop):
            m.d.sync += [depth.eq(depth + 1), above.eq(depth), looping.eq(1)]
        with m.If(is_next & last):
            m.d.sync += [depth.eq(depth - 1), above.eq(above - 1), looping.eq(above.any())]
        with m.If(~looping):
            m.d.sync += at.kept.eq(at.behind[3:])
        self._halts = consume & first & (at_hand == Opcode.HALT)
        return at.running & consume & (
            bad
            | (is_set & sets_zero)
            | (is_loop & ((depth == MOST_LOOPS) | (low[:_COUNT] == 0)))
            | (is_next & ~looping)
            | (self._halts & looping)
        )  # fmt: skip
