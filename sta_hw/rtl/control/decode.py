"""Decode a program's words: add their registers, gather them to instructions, follow SET, LOOP and NEXT."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, stream

from ...spec.config import Config
from ...spec.expansion import MOST_LOOPS
from ...spec.isa import FORMATS, LOW_BITS, REGISTER_BITS, REGISTERS, Opcode
from ..primitives.layouts import COUNT_BITS
from .legality import COUNTER_BITS, HIGH, WORD_BITS, UnderWay, disagrees, refused

__all__ = ["MOST_WORDS", "AtHand", "Decoded", "decode"]

MOST_WORDS = max(len(words) for words in FORMATS.values())
"""Of an instruction."""
_OPCODE = slice(HIGH, HIGH + 4)


@dataclass(frozen=True)
class AtHand:
    """What goes between the ring of words and their decoder.

    Attributes
    ----------
    word : Signal of WORD_BITS
        The word at hand; while the registers are cleared, in its lower part what they begin with.
    there, running, clearing : Signal
        Whether it is one; whether the program runs; whether the registers are given what they begin with.
    first_values : Signal
        Which of them.
    behind : Signal
        The place behind the word's, counted as the ring counts them: once around more than there are.
    consume, jump : Signal
        Given by the decoder: it takes the word; the next one is at `target_place`.
    target_place : Signal like `behind`
        Given by the decoder: where a NEXT goes back to.
    kept : Signal
        Given by the decoder: the first line that may be looked at again.
    instructions : stream of instruction_layout
        Given by the decoder.
    illegal, ended : Signal
        Nothing more is taken.
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
    instructions: stream.Interface
    illegal: Signal
    ended: Signal


@dataclass(frozen=True)
class Decoded:
    """What the decoder finds.

    Attributes
    ----------
    wrong : Value
        The word at hand is nothing that may stand there.
    halts : Value
        It is a HALT.
    looping : Signal
        It stands in a loop.
    """

    wrong: Value
    halts: Value
    looping: Signal


def decode(m: Module, config: Config, at: AtHand) -> Decoded:
    """Add the word's register and see what it is: a word a cycle while no instruction waits to be taken.

    An instruction is given in the cycle after its last word was at hand, and taken in that cycle at the earliest. What
    is wrong is said in the cycle in which the word is at hand.
    """
    word, consume = at.word, at.consume
    registers = m.submodules.registers = memory.Memory(shape=unsigned(LOW_BITS), depth=REGISTERS, init=[])
    set_register, register = registers.write_port(), registers.read_port(domain="comb")
    low = Signal(LOW_BITS)
    m.d.comb += [
        register.addr.eq(word[LOW_BITS:HIGH]),
        low.eq((word[:LOW_BITS] + register.data)[:LOW_BITS]),
    ]
    first, bad = _gather(m, config, at, low)
    at_hand = word[_OPCODE]
    is_set, is_loop, is_next = (consume & first & (at_hand == o) for o in (Opcode.SET, Opcode.LOOP, Opcode.NEXT))
    preset = at.first_values[2 if "position" in config.features else 1 : -1]
    sets_zero = word[HIGH + 4 : HIGH + 8] == 0  # register 0 is zero for ever, also for the next program
    m.d.comb += [
        # At the start zero to all registers, and then to the last ones what they begin with.
        set_register.addr.eq(Mux(at.clearing, at.first_values, word[HIGH + 4 : HIGH + 8])),
        set_register.data.eq(low),
        set_register.en.eq((is_set & ~sets_zero) | (at.clearing & (~at.first_values[-1] | preset.all()))),
    ]
    depth, looping = _follow_loops(m, at, low[:COUNTER_BITS], is_loop, is_next)
    halts = consume & first & (at_hand == Opcode.HALT)
    wrong = at.running & consume & (
        bad
        | (is_set & sets_zero)
        | (is_loop & ((depth == MOST_LOOPS) | (low[:COUNTER_BITS] == 0)))
        | (is_next & ~looping)
        | (halts & looping)
    )  # fmt: skip
    return Decoded(wrong, halts, looping)


def _gather(m: Module, config: Config, at: AtHand, low: Signal) -> tuple[Signal, Signal]:
    """Take the words of an instruction, `low` being the lower part of the one at hand, and give it when all are there.

    Returns
    -------
    first : Signal
        The word at hand begins an instruction.
    bad : Signal
        It may not stand where it does, or not with the words before.
    """
    word, consume = at.word, at.consume
    slots = [Signal(WORD_BITS, name=f"word_{i}", reset_less=True) for i in range(MOST_WORDS)]
    full = Signal()
    index, left = Signal(range(MOST_WORDS)), Signal(range(MOST_WORDS))
    number = Signal(COUNT_BITS)
    first = Signal(init=1)
    at_hand = word[_OPCODE]
    under_way = Signal(4, reset_less=True)
    opcode = Signal(4)
    m.d.comb += opcode.eq(Mux(first, at_hand, under_way))
    m.d.comb += [
        consume.eq(at.there & ~full & ~at.illegal & ~at.ended),
        at.instructions.payload.bits.eq(Cat(slots)),
        at.instructions.payload.number.eq(number),
        at.instructions.valid.eq(full),
    ]
    with m.If(at.instructions.ready & full):
        m.d.sync += [full.eq(0), number.eq(number + 1)]

    def known(which: Opcode) -> Value:
        if which == Opcode.PRODUCT:  # and what has its fields
            return (opcode == Opcode.PRODUCT) | (opcode == Opcode.SCORES) | (opcode == Opcode.CONTEXT)
        return opcode == which if which not in (Opcode.SCORES, Opcode.CONTEXT) else Const(0, 1)

    unit = first & (at_hand >= Opcode.LOAD) & (at_hand < Opcode.SET)
    now = UnderWay(word, low, index, under_way, slots, consume)
    ragged = disagrees(m, config, now)
    bad = Signal()
    m.d.comb += bad.eq(
        refused(config, word, index, known) | ragged | (first & ((at_hand < Opcode.HALT) | (at_hand > Opcode.NEXT)))
    )
    with m.If(consume):
        for i, slot in enumerate(slots):
            with m.If(index == i):
                m.d.sync += slot.eq(Cat(low, Const(0, REGISTER_BITS), word[HIGH:]))
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
    return first, bad


def _follow_loops(m: Module, at: AtHand, turns: Value, is_loop: Value, is_next: Value) -> tuple[Signal, Signal]:
    """Keep of the loops around where each began, and how often it still runs; NEXT goes back until that is once.

    Parameters
    ----------
    turns : Value of COUNTER_BITS
        Of a LOOP at hand.
    is_loop, is_next : Value
        A LOOP, or a NEXT, is taken.

    Returns
    -------
    depth, looping : Signal
        How many loops are around; whether one is.
    """
    begins = m.submodules.begins = memory.Memory(shape=unsigned(len(at.behind)), depth=2 * MOST_LOOPS, init=[])
    counters = m.submodules.turns = memory.Memory(shape=unsigned(COUNTER_BITS), depth=2 * MOST_LOOPS, init=[])
    begin, begun = begins.write_port(), begins.read_port(domain="comb")
    put, top = counters.write_port(), counters.read_port(domain="comb")
    depth, above = Signal(range(MOST_LOOPS + 1)), Signal(range(2 * MOST_LOOPS), init=2 * MOST_LOOPS - 1)
    looping = Signal(name="_looping")  # depth is not 0
    is_back = at.word[_OPCODE][0]  # NEXT, or LOOP
    last = Signal()
    m.d.comb += [
        top.addr.eq(above),
        begun.addr.eq(above),
        begin.addr.eq(depth),
        begin.data.eq(at.behind),
        begin.en.eq(is_loop),
        put.addr.eq(Mux(is_back, above, depth)),
        put.data.eq(Mux(is_back, top.data - 1, turns)),
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
    return depth, looping
