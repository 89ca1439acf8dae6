"""Headers of blocks of 4-bit weights: of words of weights, the bytes that are each block's scale and minimum.

docs/format.md says in which bytes they lie, for blocks that are spread over one, two, four or eight groups, and for
wide ones. In `Expander`, which says when a word is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ...spec.config import Config

__all__ = ["MINIMUM_BITS", "SCALE_BITS", "HeaderStep", "WideHeaders", "block_headers", "most_words", "wide_headers"]

SCALE_BITS, MINIMUM_BITS = 12, 12
_SLOT = 4
"""Bytes that a header takes in a word of wide blocks' headers."""


@dataclass(frozen=True)
class WideHeaders:
    """Headers of wide blocks: a word has as many, one behind the other, as a block that is not wide has groups.

    Attributes
    ----------
    wide : Value
        The product's blocks are wide.
    slot : Value or None
        The next header of all of them; None on hardware without.
    wait : Value
        It is of those that wait, so that no word is taken for it.
    """

    wide: Value
    slot: Value | None
    wait: Value


@dataclass(frozen=True)
class HeaderStep:
    """A step of the headers.

    Attributes
    ----------
    taken, by_word : Value
        There is one; a word was taken for it, and not one of those that wait.
    end, second : Value
        The headers are complete with it; they share their words with those before.
    """

    taken: Value
    by_word: Value
    end: Value
    second: Value


def most_words(config: Config) -> int:
    """How many more words than one a header takes at most, where it is not of wide blocks."""
    return {1: 2, 2: 1}.get(config.block_groups, 0)


def block_headers(m: Module, config: Config, word: Value, step: HeaderStep, wide: WideHeaders) -> list[Signal]:
    """Registers of the headers, 24 bits for each block.

    Of one group they are three words; of two one and a half; of four or more one.
    """
    groups, share = config.groups, config.block_groups
    bits = SCALE_BITS + MINIMUM_BITS
    headers = [Signal(bits, name=f"header_{b}", reset_less=True) for b in range(groups // share)]
    for number, header in enumerate(headers):
        part = [word[8 * g :][:8] for g in range(number * share, (number + 1) * share)]
        found, only_high = Cat(part[:3]), Const(0, 1)
        if share == 1:
            found = Cat(header[8:], part[0])
        elif share == 2:
            kept = Signal(8, name=f"kept_{number}", reset_less=True)
            only_high = step.end & ~step.second & ~wide.wide
            found = Cat(part, Mux(only_high, part[0], kept))
            with m.If(step.by_word & only_high):
                m.d.sync += kept.eq(part[1])
        if wide.slot is not None:
            place = 8 * _SLOT * (number * share // config.wide_block_groups)
            found = Mux(wide.wide, wide.slot[place:][: len(header)], found)
        # One condition for each bit, so that it is the register's enable and no multiplexer.
        with m.If(step.taken):
            m.d.sync += header[16:].eq(found[16:])
            with m.If(~only_high):
                m.d.sync += header[:16].eq(found)
    return headers


def wide_headers(
    m: Module, config: Config, word: Value, begin: tuple[Value, Value], by_word: Value, by_slot: Value
) -> WideHeaders:
    """Keep the headers of wide blocks that a word has beside the one that is next.

    Parameters
    ----------
    word : Value of 8 groups bits
    begin : tuple of Value
        A product begins; whether its blocks are wide.
    by_word, by_slot : Value
        A word of headers is taken; a header is taken of those that wait.
    """
    share = config.block_groups
    if not config.wide_block_groups:
        return WideHeaders(Const(0), None, Const(0))
    bits = 8 * config.groups // share
    wide, left = Signal(), Signal(range(share + 1))
    rest = Signal(bits * (share - 1), reset_less=True)
    slot = Signal(bits)
    m.d.comb += slot.eq(Mux(left != 0, rest[:bits], word[:bits]))
    with m.If(begin[0]):
        m.d.sync += [wide.eq(begin[1]), left.eq(0)]
    with m.Elif(by_word & wide):
        m.d.sync += [rest.eq(word[bits:]), left.eq(share - 1)]
    with m.Elif(by_slot):
        m.d.sync += [rest.eq(rest[bits:]), left.eq(left - 1)]
    return WideHeaders(wide, slot, left != 0)
