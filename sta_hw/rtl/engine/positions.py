"""Where the non-zeros are: words of indices or bitmaps, one per group, become the window addresses of beats.

In `Decoder`, which says when a word is taken and when a beat is made: the words at hand are consumed from their low
ends, an address is made in two stages (a whole one of an index; of a bitmap its lowest set bit, and where that is a
stage later), and positions that are not N different ones in ascending order are found two cycles behind their beat.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from ...spec.config import Config
from ..primitives.layouts import Encoding, beat_layout, command_layout
from .loops import Loops

__all__ = [
    "Arriving",
    "FirstStage",
    "Matrix",
    "Words",
    "check_positions",
    "early_layout",
    "fill_addresses",
    "finish_addresses",
    "held_words",
    "matrix_at_hand",
    "use_words",
]


@dataclass(frozen=True)
class Matrix:
    """The matrix at hand.

    Attributes
    ----------
    command : view of command_layout
    sparse, uses_bitmap : Signal
        Its weights have positions; these are bitmaps.
    group_mask, index_mask : Signal
        Bits of an index within its group, and the same where the words hold indices.
    """

    command: data.View
    sparse: Signal
    uses_bitmap: Signal
    group_mask: Signal
    index_mask: Signal


@dataclass(frozen=True)
class Words:
    """One metadata word per group, consumed from its low end.

    Attributes
    ----------
    words : list of Signal
    full : Signal
        There are some.
    slot, slot_end : Signal
        Of the index that is in the words' low bits; it is the words' last one.
    end : Signal
        The next step uses the words up.
    seen : list of Signal
        For each bit of each word, whether a lower one is set; above the top bit, whether any is. Empty where there
        are no bitmaps.
    """

    words: list[Signal]
    full: Signal
    slot: Signal
    slot_end: Signal
    end: Signal
    seen: list[Signal]


@dataclass(frozen=True)
class Arriving:
    """What the stream of positions has.

    Attributes
    ----------
    words : view of an array
        A word per group, valid or not.
    wanted : Signal
        They are taken if they are valid.
    taken : Value
        They are taken.
    """

    words: data.View
    wanted: Signal
    taken: Value


@dataclass(frozen=True)
class FirstStage:
    """The register that a step fills.

    Attributes
    ----------
    early : view of early_layout
    space : Signal
        There is room for another beat.
    positions : list of Signal
        In each group, where the lowest bit is that a bitmap had set.
    """

    early: data.View
    space: Signal
    positions: list[Signal]


def early_layout(config: Config) -> data.StructLayout:
    """A beat on its way: its addresses lack what a bitmap adds."""
    return data.StructLayout(
        {
            "beat": beat_layout(config),
            "lowest": data.ArrayLayout(unsigned(config.window), config.groups),  # one bit set, or none
            "mask": unsigned(config.address_width),  # bits of an index within its group
            "offset": unsigned(config.address_width),  # the sub-group
        }
    )


def matrix_at_hand(m: Module, config: Config, new: data.View, load: Value) -> Matrix:
    """The matrix at hand; what its positions are is decoded from the `new` command while that is `load`-ed."""
    command = Signal(command_layout(config), reset_less=True)
    sparse = Signal()
    uses_bitmap = Signal()
    group_mask = Signal(config.address_width, reset_less=True)
    index_mask = Signal(config.address_width, reset_less=True)
    new_mask = ((1 << new.m_log2) - 1)[: config.address_width]
    with m.If(load):
        m.d.sync += [
            uses_bitmap.eq(new.encoding == Encoding.BITMAP),
            sparse.eq(new.encoding != Encoding.DENSE if config.sparse else 0),
            group_mask.eq(new_mask),
            index_mask.eq(Mux(new.encoding == Encoding.INDEX, new_mask, 0)),
        ]
    return Matrix(command, sparse, uses_bitmap, group_mask, index_mask)


def held_words(m: Module, config: Config, matrix: Matrix, column_end: Value) -> Words:
    """A word per group, for `use_words` to move on; it ends with a bitmap's column, or with its last index."""
    words = [Signal(config.window, name=f"word_{g}", reset_less=True) for g in range(config.groups)]
    word_full = Signal()
    slot = Signal(range(config.window))
    slot_end = Signal()
    word_end = Signal()
    m.d.comb += word_end.eq(Mux(matrix.uses_bitmap, column_end, slot_end))
    seen = [_seen(m, word, f"seen_{g}") for g, word in enumerate(words)] if _has(config, "bitmap") else []
    return Words(words, word_full, slot, slot_end, word_end, seen)


def fill_addresses(m: Module, config: Config, early: data.View, matrix: Matrix, words: Words, loops: Loops) -> None:
    """What the first stage holds of each group's current non-zero: its address for indices, a bitmap's lowest bit."""
    for g, word in enumerate(words.words):
        # Tap and sub-group begin at multiples of M, so the index within the group is OR-ed in.
        within = word[: config.address_width] & matrix.index_mask if _has(config, "index") else 0
        m.d.sync += early.beat.addresses[g].eq(loops.base | within)
        if _has(config, "bitmap"):
            lowest = word & ~words.seen[g][: config.window]
            m.d.sync += early.lowest[g].eq(Mux(matrix.uses_bitmap, lowest, 0))
    if _has(config, "bitmap"):
        m.d.sync += [early.mask.eq(matrix.group_mask), early.offset.eq(loops.offset)]


def finish_addresses(m: Module, config: Config, early: data.View, decoded: data.View) -> list[Signal]:
    """Give `decoded` the addresses of the first stage, whole; returns, by group, where the lowest bit is."""
    positions = []
    for g in range(config.groups):
        position = Signal(config.address_width, name=f"position_{g}")
        for bit in range(config.address_width):
            m.d.comb += position[bit].eq(Cat(early.lowest[g][i] for i in range(config.window) if i >> bit & 1).any())
        positions.append(position)
        m.d.comb += decoded.addresses[g].eq(early.beat.addresses[g] | (position & early.mask))
    return positions


def use_words(m: Module, config: Config, matrix: Matrix, words: Words, arriving: Arriving, step: Value) -> None:
    """Load metadata words; in a `step` shift their indices out, or clear their lowest set bit."""
    m_log2 = matrix.command.m_log2
    widths = config.index_widths if "index" in config.encodings else ()
    for g, word in enumerate(words.words):
        rest = Signal(config.window, name=f"rest_{g}")
        m.d.comb += rest.eq(word)
        with m.Switch(m_log2):
            for width in widths:
                with m.Case(width):
                    m.d.comb += rest.eq(word >> width)
        if "bitmap" in config.encodings:
            with m.If(matrix.uses_bitmap):
                m.d.comb += rest.eq(word & words.seen[g][: config.window])
        # Whatever is there, valid or not: the word that was is used up.
        with m.If(arriving.wanted | step):
            m.d.sync += word.eq(Mux(arriving.wanted, arriving.words[g], rest))
    last_slot = Signal(range(config.window))
    with m.Switch(m_log2):
        for width in config.index_widths:
            with m.Case(width):
                m.d.comb += last_slot.eq(config.window // width - 1)
    slot, slot_end = words.slot, words.slot_end
    with m.If(step):
        m.d.sync += [slot.eq(slot + 1), slot_end.eq(slot + 1 == last_slot)]
        with m.If(words.end):
            m.d.sync += words.full.eq(0)
    with m.If(arriving.taken | ~words.full):
        m.d.sync += [slot.eq(0), slot_end.eq(last_slot == 0)]
    with m.If(arriving.taken):
        m.d.sync += words.full.eq(1)


def check_positions(
    m: Module,
    config: Config,
    first_stage: FirstStage,
    matrix: Matrix,
    words: Words,
    counts: Value,
    column_end: Value,
    checking: Signal,
) -> Value:
    """Find a sub-group whose positions are not N different ones in ascending order.

    Index: sub-groups ascend by themselves, so within a column each address must lie above the one before.
    Bitmap: the set bits come out in ascending order, so the k-th non-zero of a window must lie in
    sub-group k // N, and nothing may be left after the last. `counts` is set in the step of a beat that
    has positions, `checking` in the cycle after, and what is returned in the one after that.
    """
    early = first_stage.early
    wrong = Signal(config.groups)
    first, second = Signal(), Signal()
    m.d.sync += [first.eq(counts), second.eq(first)]
    m.d.comb += checking.eq(first)
    for g, word in enumerate(words.words):
        found: Value = Const(0, 1)
        if "index" in config.encodings:
            # The first stage also holds what never counted; what it held for the last step is kept here.
            before = Signal(config.address_width, name=f"before_{g}", reset_less=True)
            with m.If(first):
                m.d.sync += before.eq(early.beat.addresses[g])
            found = ~early.beat.first & (early.beat.addresses[g] <= before)
        if "bitmap" in config.encodings:
            rest = word & words.seen[g][: config.window]
            elsewhere = ((first_stage.positions[g] ^ early.offset) & ~early.mask).any()
            count_wrong = Signal(name=f"count_wrong_{g}")
            m.d.sync += count_wrong.eq(~words.seen[g][-1] | (column_end & rest.any()))
            found = Mux(matrix.uses_bitmap, count_wrong | elsewhere, found)
        m.d.sync += wrong[g].eq(found)
    return second & wrong.any()


def _has(config: Config, encoding: str) -> bool:
    """Whether weights may have positions of that encoding."""
    return config.sparse and encoding in config.encodings


def _seen(m: Module, word: Signal, name: str) -> Signal:
    """For each bit of a word, whether a lower one is set; above the top bit, whether any is."""
    window = len(word)
    seen = Signal(window + 1, name=name)
    # By fours, which are single LUTs: a carry chain would take longer to enter and leave.
    some = [word[i : i + 4].any() for i in range(0, window, 4)]
    for i in range(window + 1):
        m.d.comb += seen[i].eq(Cat(*some[: i // 4], word[i // 4 * 4 : i]).any())
    return seen
