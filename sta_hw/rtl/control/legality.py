"""Whether a word of a program may stand where it does, looked at as it is read: what fetch stops at as illegal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ...spec.config import Config
from ...spec.isa import CODES, FORMATS, LOW_BITS, REGISTER_BITS, WORD_BYTES, Opcode, Result, codes, formats
from ...spec.records import Field
from ..bus.axi import ADDRESS_BITS

__all__ = ["COUNTER_BITS", "HIGH", "WORD_BITS", "UnderWay", "disagrees", "refused"]

WORD_BITS = 8 * WORD_BYTES
HIGH = LOW_BITS + REGISTER_BITS
"""First bit of a word behind its register's number."""
COUNTER_BITS = 16
"""Of columns, and of a loop's turns."""


@dataclass(frozen=True)
class UnderWay:
    """A word, and what is known of the instruction that it belongs to.

    Attributes
    ----------
    word : Signal of WORD_BITS
        As it is in the program.
    low : Signal of LOW_BITS
        Its lower part, the register added.
    index : Signal
        Which word of the instruction it is, from 0.
    opcode : Signal of 4 bits
        The instruction's, if it has more words than one.
    slots : list of Signal of WORD_BITS
        The words before, registers added.
    consume : Signal
        The word is taken in this cycle.
    """

    word: Signal
    low: Signal
    index: Signal
    opcode: Signal
    slots: list[Signal]
    consume: Signal


def refused(config: Config, word: Value, index: Value, known: Callable[[Opcode], Value]) -> Value:
    """Whether a word has bits that no field has, or codes that are reserved: in its upper part, where all such are.

    Parameters
    ----------
    word : Value of WORD_BITS
    index : Value
        Which word of the instruction it is, from 0.
    known : function of Opcode
        Whether the instruction is of that opcode; PRODUCT also stands for those that have its fields.

    Returns
    -------
    Value of 1 bit, in the cycle of its operands
    """

    def there(name: str, described: Field) -> bool:
        """Whether this hardware has a field."""
        if described.reserved or described.feature not in ("", *config.abilities):
            return False
        return name not in CODES or max(codes(name, config.abilities)) > 0

    places: dict[int, list[Value]] = {}  # from which bit on nothing may be set, and in which words
    for opcode, words in FORMATS.items():
        used = {bit for n, (at, f) in formats(opcode).places.items() if there(n, f) for bit in range(at, at + f.width)}
        for number in range(len(words)):
            low, high = WORD_BITS * number + HIGH, WORD_BITS * (number + 1)
            first = max((bit for bit in used if low <= bit < high), default=low - 1) + 1
            if first < high:
                places.setdefault(first - WORD_BITS * number, []).append(known(opcode) & (index == number))
    wrong: Value = Const(0, 1)
    above, top = Const(0, 1), WORD_BITS
    for first in sorted(places, reverse=True):
        above, top = above | word[first:top].any(), first
        wrong = wrong | (above & Cat(*places[first]).any())
    for opcode, name in (
        (Opcode.LOAD, "target"), (Opcode.PRODUCT, "result"), (Opcode.PRODUCT, "mask"), (Opcode.NORM, "kind"),
        (Opcode.PRODUCT, "digit"), (Opcode.PRODUCT, "value_format"),
    ):  # fmt: skip
        at, f = formats(opcode).places[name]
        number, first = at // WORD_BITS, at % WORD_BITS
        if there(name, f):
            most = max(codes(name, config.abilities))
            wrong = wrong | (known(opcode) & (index == number) & (word[first : first + f.width] > most))
    # Bits of features that this hardware has not, or of no field, below those that it has.
    for opcode, words in FORMATS.items():
        there_of = [(at, f.width) for n, (at, f) in formats(opcode).places.items() if there(n, f)]
        used = {bit for at, width in there_of for bit in range(at, at + width)}
        for number in range(0 if opcode in (Opcode.SCORES, Opcode.CONTEXT) else len(words)):
            highs = range(WORD_BITS * number + HIGH, WORD_BITS * (number + 1))
            gaps = [bit for bit in highs if bit not in used and bit < max(used & {*highs}, default=0)]
            if gaps:
                set_bits = Cat(word[bit % WORD_BITS] for bit in gaps).any()
                wrong = wrong | (known(opcode) & (index == number) & set_bits)
    return wrong


def disagrees(m: Module, config: Config, now: UnderWay) -> Value:
    """Whether a word asks for what does not go together with its instruction's other fields.

    Returns
    -------
    Value of 1 bit, in the cycle of its operands; with windows kept on chip, what is kept is followed in registers of
    `m`, and the words with a product's addresses must be there three cycles before the one with its flags
    """
    word, low, index, under_way, slots = now.word, now.low, now.index, now.opcode, now.slots
    # Columns that go in blocks of `groups`: of scores, no more than a window has; and transposed. Of the codes that
    # pass, the highest bit is TRANSPOSE's alone.
    places = formats(Opcode.PRODUCT).places
    group_bits = config.groups.bit_length() - 1
    result = slots[1][places["result"][0] - WORD_BITS :][:4]
    transposes = result[2] & ~result[0] if "best" in config.features else result[2]
    scores = under_way == Opcode.SCORES
    ragged = (index == places["columns"][0] // WORD_BITS) & (
        ((scores | transposes) & low[:group_bits].any()) | (scores & (low[group_bits:COUNTER_BITS] > config.window))
    )
    if {"gate", "rotary", "best", "digits", "blocks4"} & {*config.features}:
        ragged = ragged | _misfits(config, now)
    if "apart" in config.abilities:
        bit = places["apart"][0] % WORD_BITS
        fits = (under_way == Opcode.PRODUCT) & (result == Result.STORE8)
        after_load = (under_way == Opcode.SCORES) | (under_way == Opcode.CONTEXT) | (under_way == Opcode.PRODUCT)
        ragged = ragged | (after_load & (index == places["apart"][0] // WORD_BITS) & word[bit] & ~fits)
    if config.window_words:
        ragged = ragged | _unkept(m, config, now)
    return ragged


def _misfits(config: Config, now: UnderWay) -> Value:
    """Whether a word asks for what the features cannot do with others: pairs of columns of which one is missing."""
    word, low, index, under_way, slots = now.word, now.low, now.index, now.opcode, now.slots
    places = formats(Opcode.PRODUCT).places
    has = config.features
    product = under_way == Opcode.PRODUCT
    after_load = product | (under_way == Opcode.SCORES) | (under_way == Opcode.CONTEXT)
    wrong: Value = Const(0, 1)
    kind = slots[1][places["result"][0] - WORD_BITS :][:4]
    for feature, name, results in (
        ("gate", "multiply", (Result.STORE16, Result.ACTIVATE)),
        ("rotary", "rotate", (Result.STORE8, Result.TRANSPOSE)),
    ):
        if feature not in has:
            continue
        bit = places[name][0] % WORD_BITS
        fits = product & Cat(kind == r for r in results).any()
        wrong = wrong | (after_load & (index == 2) & word[bit] & ~fits)
        wrong = wrong | (after_load & (index == places["columns"][0] // WORD_BITS) & slots[2][bit] & low[0])
    if "digits" in has:
        at = places["digit"][0] % WORD_BITS
        lift, bits15 = (word[places[name][0] % WORD_BITS] for name in ("lift", "bits15"))
        continues = slots[1][places["continues"][0] % WORD_BITS]
        activates = product & (kind == Result.ACTIVATE)
        if "gate" in has:
            activates = activates & ~slots[2][places["multiply"][0] % WORD_BITS]
        stores = ((kind == Result.STORE16) & (under_way != Opcode.SCORES)) | activates
        alone = ((word[at : at + 2].any() | lift) & ~product) | (lift & ~continues) | (bits15 & ~stores)
        wrong = wrong | (after_load & (index == places["digit"][0] // WORD_BITS) & alone)
    if "best" in has:
        first = places["result"][0] % WORD_BITS
        listed = word[first : first + 4] == Result.BEST
        wrong = wrong | ((under_way == Opcode.CONTEXT) & (index == 1) & listed)
    if "blocks4" in has:
        bits = {name: places[name][0] % WORD_BITS for name in ("value_format", "run")}
        in_blocks = word[bits["value_format"] :][: places["value_format"][1].width].any()
        short = in_blocks & ~word[bits["run"] + 1 : bits["run"] + places["run"][1].width].any()
        wrong = wrong | (after_load & (index == places["run"][0] // WORD_BITS) & short)
    return wrong


def _unkept(m: Module, config: Config, now: UnderWay) -> Value:
    """Whether a word asks for windows to be kept that have no room, or for kept ones of which some are not there.

    Kept is what lies from `start` to `end`, in words of the bus; all of it has a place of its own on chip.
    """
    word, index, under_way, slots, consume = now.word, now.index, now.opcode, now.slots, now.consume
    places = formats(Opcode.PRODUCT).places
    unit = config.bus_bytes.bit_length() - 1
    bits = ADDRESS_BITS - unit + 1
    beats_at = places["window_beats"][0] - WORD_BITS
    address, beats = slots[0][unit:ADDRESS_BITS], slots[1][beats_at : beats_at + 20]
    start, end = Signal(bits), Signal(bits)
    # Each from a register: the words with address and beats are there cycles before the one with the flags.
    behind, furthest = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
    apart, inside, joins, fits, fits_joined = (
        Signal(name=n, reset_less=True) for n in ("apart", "inside", "joins", "fits", "fits_joined")
    )
    keeps, takes = (word[places[n][0] % WORD_BITS] for n in ("keep", "kept"))
    here = index == places["keep"][0] // WORD_BITS
    product = (under_way == Opcode.PRODUCT) | (under_way == Opcode.SCORES)
    m.d.sync += [
        behind.eq(address + beats),
        furthest.eq(Mux(behind > end, behind, end)),
        apart.eq((address < start) | (address > end)),
        inside.eq(~apart & (behind <= end) & ~slots[0][:unit].any()),
        fits.eq(beats <= config.window_words),
        joins.eq(~apart),
        fits_joined.eq(furthest - start <= config.window_words),
    ]
    with m.If(consume & here & product & keeps):
        with m.If(joins & fits_joined):
            m.d.sync += end.eq(furthest)
        with m.Else():
            m.d.sync += [start.eq(address), end.eq(behind)]
    after_load = product | (under_way == Opcode.CONTEXT)
    bad = (keeps & takes) | (keeps & ~fits) | (takes & ~inside) | ((keeps | takes) & ~product)
    return after_load & here & bad
