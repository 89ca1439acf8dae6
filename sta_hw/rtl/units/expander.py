"""Weights of 4 bits in blocks become INT8 on their way from the on-chip memory to the matrix engine."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import values_layout

__all__ = ["Expander", "expansion_layout"]

_SCALE, _MINIMUM = 12, 12
_FRACTION, _FINER = 7, 3
"""Fraction bits of a weight before it is rounded down; how many the minimum has less."""
_STEPS = 8
"""In which the 16 levels of a block are computed, two at a time."""
_SLOT = 4
"""Bytes that a header takes in a word of wide blocks' headers."""


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

    steps = _STEPS
    """Cycles that a block takes at least."""

    @staticmethod
    def latency(config: Config) -> int:
        """Cycles from a word of INT8 to its values."""
        return 3 + (config.block_groups == 1)

    @staticmethod
    def first(config: Config, *, wide: bool = False) -> int:
        """Cycles from the first word of a product in blocks to its first values: more where a header has more words."""
        return 11 + (0 if wide else {1: 2, 2: 1}.get(config.block_groups, 0))

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
        cfg = self.config
        m = Module()
        # One ahead of the one in work.
        waiting, waits = Signal(expansion_layout(cfg), reset_less=True), Signal()
        m.d.comb += self.order.ready.eq(~waits)
        with m.If(~waits):
            m.d.sync += [waiting.eq(self.order.payload), waits.eq(self.order.valid)]
        # Two words one behind the other: while the first one's two beats go, headers are taken and the next word waits.
        following, current = (Signal(_word_layout(cfg), name=n, reset_less=True) for n in ("following", "current"))
        following_valid, current_valid, moves, room = Signal(), Signal(), Signal(), Signal()
        self._pushed = Signal()
        taken, follows = following, Signal()
        if cfg.block_groups == 1:  # one more, as a header's three words take longer than two words' beats
            taken = Signal(_word_layout(cfg), name="ahead", reset_less=True)
            ahead_valid, more = Signal(), Signal()  # `more`: that one becomes the following one
            m.d.comb += [more.eq(ahead_valid & (~following_valid | moves)), follows.eq(more)]
            with m.If(more):
                m.d.sync += following.eq(taken)
            with m.If(self._pushed):
                m.d.sync += ahead_valid.eq(1)
            with m.Elif(more):
                m.d.sync += ahead_valid.eq(0)
            m.d.comb += room.eq(~ahead_valid | more)
        else:
            m.d.comb += [room.eq(~following_valid | moves), follows.eq(self._pushed)]
        with m.If(follows):
            m.d.sync += following_valid.eq(1)
        with m.Elif(moves):
            m.d.sync += following_valid.eq(0)

        start, abandon, full = Signal(), Signal(), Signal(2)
        header, header_valid = self._take(m, (waiting, waits), taken, room, start, abandon)

        emptied = Signal(2)
        tables = self._fill(m, header, header_valid, start, abandon, full, emptied)
        self._give(m, tables, full, emptied, (following, following_valid), (current, current_valid), moves)
        return m

    def _take(self, m, order, following, room, start, abandon) -> tuple[list[Signal], Signal]:
        """Take words: headers into registers, values to the next stage. Each run's values follow the next one's header.

        Returns the header of each block, 24 bits, and whether it is there.
        """
        cfg = self.config
        new, there = order
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
        wide, slot, waits = self._slots(m, word, new, begin, header_word, header_slot)
        m.d.comb += self.words.ready.eq(active & Mux(takes_header, ~header_valid & (room | ~last) & ~waits, room))
        taken = self.words.valid & self.words.ready
        m.d.comb += [
            header_word.eq(taken & takes_header),
            header_slot.eq(active & takes_header & ~header_valid & waits),
        ]
        pushed = self._pushed
        m.d.comb += pushed.eq(taken & (~takes_header | last))
        with m.If(pushed):
            m.d.sync += [
                *(following.word[g].eq(word[8 * g :][:8]) for g in range(cfg.groups)),
                following.blocks.eq(blocks & ~takes_header),
                following.table.eq(table),
                following.single.eq(values_end & odd_run),
                following.run_end.eq(values_end | last),
                following.last.eq(last),
            ]

        header_end = header_left == 0
        step = _HeaderStep(header_word | header_slot, header_word, header_end, second_header, wide, slot)
        headers = self._headers(m, word, step)
        most = {1: 2, 2: 1}.get(share, 0)
        with m.If(start):
            m.d.sync += header_valid.eq(0)
        with m.If(header_word | header_slot):
            m.d.sync += header_left.eq(header_left - 1)
            with m.If(header_end):
                m.d.sync += [header_valid.eq(1), first.eq(0), in_header.eq(first)]
                if share == 2:
                    m.d.sync += [second_header.eq(~second_header), header_left.eq(Mux(second_header & ~wide, most, 0))]
                else:
                    m.d.sync += header_left.eq(Mux(wide, 0, most))
        with m.If(taken & ~takes_header):
            m.d.sync += [values_left.eq(values_left - 1), values_end.eq(values_left == 2)]
            with m.If(values_end):
                m.d.sync += [
                    values_left.eq(run_words),
                    values_end.eq(run_words == 1),
                    in_header.eq(1),
                    table.eq(~table),
                ]
        with m.If(abandon):
            m.d.sync += header_valid.eq(0)
        # The header behind the last run is none.
        m.d.comb += abandon.eq(taken & last & blocks)
        self._last_table, self._taken_header = table, takes_header
        with m.If(taken & last):
            m.d.sync += active.eq(0)
        with m.If(~active & there):
            words_of_run = ((new.run + 1) >> 1)[:6]
            m.d.comb += begin.eq(1)
            m.d.sync += [
                there.eq(0), active.eq(1), blocks.eq(new.blocks), odd_run.eq(new.run[0]), run_words.eq(words_of_run),
                values_left.eq(words_of_run), values_end.eq(new.blocks & (words_of_run == 1)),
                in_header.eq(1), first.eq(1), second_header.eq(0), table.eq(self._next_table(m)),
                header_left.eq(most if slot is None else Mux(new.wide, 0, most)),
            ]  # fmt: skip
        return headers, header_valid

    def _headers(self, m: Module, word: Value, step: _HeaderStep) -> list[Signal]:
        """Bytes of the headers: of one group three words; of two one and a half; of four or more one."""
        groups, share = self.config.groups, self.config.block_groups
        headers = [Signal(_SCALE + _MINIMUM, name=f"header_{b}", reset_less=True) for b in range(groups // share)]
        for number, header in enumerate(headers):
            part = [word[8 * g :][:8] for g in range(number * share, (number + 1) * share)]
            found, only_high = Cat(part[:3]), Const(0, 1)
            if share == 1:
                found = Cat(header[8:], part[0])
            elif share == 2:
                kept = Signal(8, name=f"kept_{number}", reset_less=True)
                only_high = step.end & ~step.second & ~step.wide
                found = Cat(part, Mux(only_high, part[0], kept))
                with m.If(step.by_word & only_high):
                    m.d.sync += kept.eq(part[1])
            if step.slot is not None:
                place = 8 * _SLOT * (number * share // self.config.wide_block_groups)
                found = Mux(step.wide, step.slot[place:][: len(header)], found)
            # One condition for each bit, so that it is the register's enable and no multiplexer.
            with m.If(step.taken):
                m.d.sync += header[16:].eq(found[16:])
                with m.If(~only_high):
                    m.d.sync += header[:16].eq(found)
        return headers

    def _slots(
        self, m: Module, word: Value, new: data.View, begin: Signal, header_word: Signal, header_slot: Signal
    ) -> tuple[Value, Value | None, Value]:
        """Headers of wide blocks: a word has as many, one behind the other, as a block that is not wide has groups.

        Parameters
        ----------
        begin, header_word, header_slot : Signal
            A product begins, whose order is `new`; a word of headers is taken; a header is taken of those that wait.

        Returns
        -------
        wide, slot, waits
            Whether the product's blocks are wide; the next header of all of them (None on hardware without); whether it
            is of those that wait, so that no word is taken for it.
        """
        share = self.config.block_groups
        if not self.config.wide_block_groups:
            return Const(0), None, Const(0)
        bits = 8 * self.config.groups // share
        wide, left = Signal(), Signal(range(share + 1))
        rest = Signal(bits * (share - 1), reset_less=True)
        slot = Signal(bits)
        m.d.comb += slot.eq(Mux(left != 0, rest[:bits], word[:bits]))
        with m.If(begin):
            m.d.sync += [wide.eq(new.wide), left.eq(0)]
        with m.Elif(header_word & wide):
            m.d.sync += [rest.eq(word[bits:]), left.eq(share - 1)]
        with m.Elif(header_slot):
            m.d.sync += [rest.eq(rest[bits:]), left.eq(left - 1)]
        return wide, slot, left != 0

    def _next_table(self, m: Module) -> Signal:
        """The table that is filled next."""
        if not hasattr(self, "_fills"):
            self._fills = Signal(name="fills")
        return self._fills

    def _fill(self, m, headers, header_valid, start, abandon, full, emptied) -> list[list[Value]]:
        """Compute each block's levels; returns the write side of every group's tables: even levels and odd ones."""
        cfg = self.config
        fills = self._next_table(m)
        filling, target = Signal(), Signal()
        place = Signal(range(_STEPS))
        at_end = Signal()
        m.d.comb += [
            at_end.eq(place == _STEPS - 1),
            start.eq(
                header_valid
                & (~filling | at_end)
                & ~abandon
                & (~full.bit_select(fills, 1) | emptied.bit_select(fills, 1))
            ),
        ]
        for i in range(2):
            with m.If(emptied[i]):
                m.d.sync += full[i].eq(0)
        with m.If(filling):
            m.d.sync += place.eq(place + 1)
            with m.If(at_end):
                m.d.sync += filling.eq(0)
                for i in range(2):
                    with m.If(target == i):
                        m.d.sync += full[i].eq(1)
        with m.If(start):
            m.d.sync += [filling.eq(1), place.eq(0), target.eq(fills), fills.eq(~fills)]
        # What was begun for the header that is none: its table is the one that the last run has not.
        with m.If(abandon):
            with m.If((fills == self._last_table) & ~self._taken_header):
                m.d.sync += filling.eq(0)
                for i in range(2):
                    with m.If(self._last_table != i):
                        m.d.sync += full[i].eq(0)
            m.d.sync += fills.eq(~self._last_table)
        bits = _FRACTION + 8
        sides = []
        for number, header in enumerate(headers):
            scale = Signal(_SCALE, name=f"scale_{number}", reset_less=True)
            level = Signal(bits, name=f"level_{number}", reset_less=True)
            with m.If(start):
                m.d.sync += scale.eq(header[:_SCALE])
            m.d.sync += level.eq(Mux(start, Cat(Const(0, _FINER), header[_SCALE:]), level + (scale << 1)))
            odd = Signal(bits, name=f"odd_{number}")
            m.d.comb += odd.eq(level + scale)
            sides.append([level[_FRACTION:], odd[_FRACTION:]])
        found = []
        for g in range(cfg.groups):
            tables = []
            for which, value in zip(("even", "odd"), sides[g // cfg.block_groups], strict=True):
                table = m.submodules[f"{which}_levels_{g}"] = memory.Memory(
                    shape=unsigned(8), depth=2 * _STEPS, init=[], attrs={"no_rw_check": 1}
                )
                write = table.write_port()
                m.d.comb += [write.addr.eq(Cat(place, target)), write.data.eq(value), write.en.eq(filling)]
                tables.append(table.read_port(domain="comb"))
            found.append(tables)
        return found

    def _give(self, m, tables, full, emptied, following, current, moves) -> None:
        """Look up the values of a word's two beats, one after the other."""
        next_word, next_valid = following
        word, valid = current
        phase, word_end, give = Signal(), Signal(), Signal()
        out = self.values
        m.d.comb += [
            word_end.eq(~word.blocks | phase | word.single),
            give.eq(valid & (~word.blocks | full.bit_select(word.table, 1)) & (~out.valid | out.ready)),
            moves.eq(next_valid & (~valid | (give & word_end))),
        ]
        done = give & word_end
        m.d.comb += [emptied[i].eq(done & word.blocks & word.run_end & (word.table == i)) for i in range(2)]
        with m.If(moves):
            m.d.sync += [word.eq(next_word), valid.eq(1)]
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


@dataclass(frozen=True)
class _HeaderStep:
    """A step of the headers.

    Attributes
    ----------
    taken, by_word : Value
        There is one; a word was taken for it, and not one of those that wait.
    end, second : Value
        The headers are complete with it; they share their words with those before.
    wide, slot : Value, Value or None
        As `Expander._slots` gives them.
    """

    taken: Value
    by_word: Value
    end: Value
    second: Value
    wide: Value
    slot: Value | None
