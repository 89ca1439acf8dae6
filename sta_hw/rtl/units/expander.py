"""Weights of 4 bits in blocks become INT8 on their way from the on-chip memory to the matrix engine."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import values_layout
from .expander_headers import HeaderStep, block_headers, most_words, wide_headers
from .expander_levels import STEPS, Ending, Filling, level_tables

__all__ = ["Expander", "expansion_layout"]


def expansion_layout(config: Config) -> data.StructLayout:
    """How a product's values lie in memory: INT8, or in blocks, wide ones too, whose headers `run` values follow."""
    wide = {"wide": unsigned(1)} if config.wide_block_groups else {}
    return data.StructLayout({"blocks": unsigned(1), "run": unsigned(6), **wide})


def _word_layout(config: Config) -> data.StructLayout:
    """A word with one beat of INT8 values, or with two of 4 bits."""
    return data.StructLayout(
        {
            "word": data.ArrayLayout(unsigned(8), config.groups),
            "blocks": unsigned(1),
            "table": unsigned(1),  # which of the two its levels are in
            "single": unsigned(1),  # its upper halves are not used
            "run_end": unsigned(1),
            "last": unsigned(1),
        }
    )


@dataclass(frozen=True)
class _Words:
    """Words one behind the other, on their way to the look-up of their values.

    While the first one's two beats go, headers are taken and the next word waits.

    Attributes
    ----------
    taken : view of _word_layout
        Where a word of values is put that is taken.
    pushed : Signal
        One is.
    room : Signal
        It can be.
    following, current : view of _word_layout
        The next word, and the one whose values are looked up.
    following_valid, current_valid : Signal
    moves : Signal
        The next word becomes the current one.
    """

    taken: data.View
    pushed: Signal
    room: Signal
    following: data.View
    following_valid: Signal
    current: data.View
    current_valid: Signal
    moves: Signal


@dataclass(frozen=True)
class _Order:
    """The product whose words come next.

    Attributes
    ----------
    fields : view of expansion_layout
    valid : Signal
        There is one.
    """

    fields: data.View
    valid: Signal


class Expander(wiring.Component):
    """Values of one product after the other (docs/format.md).

    A block's 16 levels are computed ahead of its values, two a cycle, into one of two tables. Rate: a beat a cycle, as
    long as a block has 8 values of each group or more, an even number (10, if its header has three words); INT8 words
    pass at one a cycle. Latency: `latency` cycles from a word to its values, and `first` cycles from the first word of
    a product in blocks. A block takes `steps` cycles at least.

    Members
    -------
    order : In(stream of expansion_layout)
        One per product; one ahead.
    words : In(stream of {word, last})
        As they lie in memory.
    values : Out(stream of values_layout)
        A product whose words end within a header gives one beat too many, marked as its last: the decoder's count finds
        it.
    """

    steps = STEPS
    """Cycles that a block takes at least."""

    @staticmethod
    def latency(config: Config) -> int:
        """Cycles from a word of INT8 to its values."""
        return 3 + (config.block_groups == 1)

    @staticmethod
    def first(config: Config, *, wide: bool = False) -> int:
        """Cycles from the first word of a product in blocks to its first values: more where a header has more words."""
        return 11 + (0 if wide else most_words(config))

    def __init__(self, config: Config) -> None:
        self.config = config
        word = data.StructLayout({"word": unsigned(8 * config.groups), "last": unsigned(1)})
        super().__init__(
            {
                "order": In(stream.Signature(expansion_layout(config))),
                "words": In(stream.Signature(word)),
                "values": Out(stream.Signature(values_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        order = self._ordered(m)
        words = self._waiting_words(m)
        filling = Filling(
            full=Signal(2, name="full"), emptied=Signal(2, name="emptied"), next=Signal(name="fills"),
            start=Signal(name="start"),
        )  # fmt: skip
        headers, header_valid, ending = self._take(m, order, words, filling)
        tables = level_tables(m, self.config, headers, header_valid, filling, ending)
        self._give(m, words, tables, filling)
        return m

    def _ordered(self, m: Module) -> _Order:
        """One product ahead of the one in work."""
        waiting, waits = Signal(expansion_layout(self.config), reset_less=True), Signal()
        m.d.comb += self.order.ready.eq(~waits)
        with m.If(~waits):
            m.d.sync += [waiting.eq(self.order.payload), waits.eq(self.order.valid)]
        return _Order(waiting, waits)

    def _waiting_words(self, m: Module) -> _Words:
        """Two words one behind the other; three, where a header's three words take longer than two words' beats."""
        cfg = self.config
        following, current = (Signal(_word_layout(cfg), name=n, reset_less=True) for n in ("following", "current"))
        following_valid, current_valid, moves, room = Signal(), Signal(), Signal(), Signal()
        pushed = Signal()
        taken, follows = following, Signal()
        if cfg.block_groups == 1:
            taken = Signal(_word_layout(cfg), name="ahead", reset_less=True)
            ahead_valid, more = Signal(), Signal()  # `more`: that one becomes the following one
            m.d.comb += [more.eq(ahead_valid & (~following_valid | moves)), follows.eq(more)]
            with m.If(more):
                m.d.sync += following.eq(taken)
            with m.If(pushed):
                m.d.sync += ahead_valid.eq(1)
            with m.Elif(more):
                m.d.sync += ahead_valid.eq(0)
            m.d.comb += room.eq(~ahead_valid | more)
        else:
            m.d.comb += [room.eq(~following_valid | moves), follows.eq(pushed)]
        with m.If(follows):
            m.d.sync += following_valid.eq(1)
        with m.Elif(moves):
            m.d.sync += following_valid.eq(0)
        return _Words(taken, pushed, room, following, following_valid, current, current_valid, moves)

    def _take(self, m: Module, order: _Order, words: _Words, filling: Filling) -> tuple[list[Signal], Signal, Ending]:
        """Take words: headers into registers, values to the next stage. Each run's values follow the next one's header.

        Returns
        -------
        headers : list of Signal
            Of each block, 24 bits.
        header_valid : Signal
            They are there.
        ending : Ending
        """
        cfg = self.config
        new, there = order.fields, order.valid
        share = cfg.block_groups
        active, blocks, odd_run = Signal(), Signal(), Signal()
        run_words = Signal(6)
        in_header, first = Signal(), Signal()
        second_header = Signal()  # shares its words with the one before
        header_left, values_left = Signal(2), Signal(6)
        values_end = Signal()
        table = Signal()
        header_valid = Signal()
        last, word = self.words.payload.last, self.words.payload.word
        takes_header = blocks & in_header
        begin, header_word, header_slot = Signal(), Signal(), Signal()
        begins_wide = new.wide if cfg.wide_block_groups else Const(0)
        wide = wide_headers(m, cfg, word, (begin, begins_wide), header_word, header_slot)
        m.d.comb += self.words.ready.eq(
            active & Mux(takes_header, ~header_valid & (words.room | ~last) & ~wide.wait, words.room)
        )
        taken = self.words.valid & self.words.ready
        m.d.comb += [
            header_word.eq(taken & takes_header),
            header_slot.eq(active & takes_header & ~header_valid & wide.wait),
        ]
        m.d.comb += words.pushed.eq(taken & (~takes_header | last))
        with m.If(words.pushed):
            m.d.sync += [
                *(words.taken.word[g].eq(word[8 * g :][:8]) for g in range(cfg.groups)),
                words.taken.blocks.eq(blocks & ~takes_header),
                words.taken.table.eq(table),
                words.taken.single.eq(values_end & odd_run),
                words.taken.run_end.eq(values_end | last),
                words.taken.last.eq(last),
            ]

        header_end = header_left == 0
        step = HeaderStep(header_word | header_slot, header_word, header_end, second_header)
        headers = block_headers(m, cfg, word, step, wide)
        most = most_words(cfg)
        with m.If(filling.start):
            m.d.sync += header_valid.eq(0)
        with m.If(step.taken):
            m.d.sync += header_left.eq(header_left - 1)
            with m.If(header_end):
                m.d.sync += [header_valid.eq(1), first.eq(0), in_header.eq(first)]
                if share == 2:
                    m.d.sync += [
                        second_header.eq(~second_header),
                        header_left.eq(Mux(second_header & ~wide.wide, most, 0)),
                    ]
                else:
                    m.d.sync += header_left.eq(Mux(wide.wide, 0, most))
        with m.If(taken & ~takes_header):
            m.d.sync += [values_left.eq(values_left - 1), values_end.eq(values_left == 2)]
            with m.If(values_end):
                m.d.sync += [
                    values_left.eq(run_words),
                    values_end.eq(run_words == 1),
                    in_header.eq(1),
                    table.eq(~table),
                ]
        ends = Signal()
        m.d.comb += ends.eq(taken & last & blocks)
        with m.If(ends):
            m.d.sync += header_valid.eq(0)
        with m.If(taken & last):
            m.d.sync += active.eq(0)
        with m.If(~active & there):
            words_of_run = ((new.run + 1) >> 1)[:6]
            m.d.comb += begin.eq(1)
            m.d.sync += [
                there.eq(0), active.eq(1), blocks.eq(new.blocks), odd_run.eq(new.run[0]), run_words.eq(words_of_run),
                values_left.eq(words_of_run), values_end.eq(new.blocks & (words_of_run == 1)),
                in_header.eq(1), first.eq(1), second_header.eq(0), table.eq(filling.next),
                header_left.eq(most if wide.slot is None else Mux(new.wide, 0, most)),
            ]  # fmt: skip
        return headers, header_valid, Ending(ends, Mux(takes_header, ~first, filling.next == table))

    def _give(self, m: Module, words: _Words, tables: list[list[memory.ReadPort]], filling: Filling) -> None:
        """Look up the values of a word's two beats, one after the other."""
        word, valid = words.current, words.current_valid
        phase, word_end, give = Signal(), Signal(), Signal()
        out = self.values
        m.d.comb += [
            word_end.eq(~word.blocks | phase | word.single),
            give.eq(valid & (~word.blocks | filling.full.bit_select(word.table, 1)) & (~out.valid | out.ready)),
            words.moves.eq(words.following_valid & (~valid | (give & word_end))),
        ]
        done = give & word_end
        m.d.comb += [filling.emptied[i].eq(done & word.blocks & word.run_end & (word.table == i)) for i in range(2)]
        with m.If(words.moves):
            m.d.sync += [word.eq(words.following), valid.eq(1)]
        with m.Elif(done):
            m.d.sync += valid.eq(0)
        with m.If(give):
            m.d.sync += [phase.eq(~word_end), out.valid.eq(1), out.payload.last.eq(word.last & word_end)]
        with m.Elif(out.ready):
            m.d.sync += out.valid.eq(0)
        for g, (even, odd) in enumerate(tables):
            code = Signal(4, name=f"code_{g}")
            m.d.comb += [
                code.eq(Mux(phase, word.word[g][4:], word.word[g][:4])),
                *(side.addr.eq(Cat(code[1:], word.table)) for side in (even, odd)),
            ]
            # Three registers of which two are zero: what comes behind takes all in one LUT.
            sources = (
                (even.data, word.blocks & ~code[0]),
                (odd.data, word.blocks & code[0]),
                (word.word[g], ~word.blocks),
            )
            found: Value = Const(0, 8)
            for name, (value, chosen) in zip(("even", "odd", "plain"), sources, strict=True):
                kept = Signal(8, name=f"{name}_value_{g}", reset_less=True)
                with m.If(give):
                    m.d.sync += kept.eq(Mux(chosen, value, 0))
                found = found | kept
            m.d.comb += out.payload.values[g].eq(found)
