"""The index decoders: from the stored weight streams to values and window addresses.

One decoder per group, all in lockstep, shared by all rows of the array. Rate: one beat per cycle.
Latency: 2 cycles from a value beat to the decoded beat.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import Encoding, Fault, beat_layout, command_layout, positions_layout, values_layout
from .loops import Loops

__all__ = ["Decoder", "refused"]


def refused(config: Config, command: data.View) -> Value:
    """Condition, one bit: `command` is out of range for this hardware, and is not run."""
    width = max(config.index_widths, default=0)
    group_size = (1 << command.m_log2)[: width + 2]
    bad = (command.columns == 0) | (command.passes == 0) | (command.taps == 0) | (command.depth == 0)
    bad |= (command.n == 0) | (command.m_log2 > width) | (command.n > group_size)
    bad |= (command.depth & (group_size - 1)[:6]).any()
    stored = (command.passes > 1) | command.continues | command.unfinished
    bad |= stored & (command.columns > config.columns)
    most_taps = Array(Const(config.window // d if 0 < d <= config.window else 0, 6) for d in range(64))
    bad |= command.taps > most_taps[command.depth]
    known_widths = [(command.m_log2 == w) for w in config.index_widths]
    allowed = (command.encoding == Encoding.DENSE) & (command.m_log2 == 0)
    for name in config.encodings if config.sparse else ():
        allowed |= (command.encoding == Encoding[name.upper()]) & Cat(*known_widths).any()
    return bad | ~allowed


class Decoder(wiring.Component):
    """Decode one matrix after the other.

    Parameters
    ----------
    config : Config
        `groups`, `window`, the patterns and the encodings shape the decoder.

    Members
    -------
    command : In(stream of command_layout)
        One per matrix; taken when the previous matrix is through.
    values : In(stream of values_layout)
        ``passes * columns * depth / M * N`` beats per matrix, the last one marked.
    positions : In(stream of positions_layout)
        ``index``: words of ``floor(window / log2 M)`` indices, running on over columns and passes;
        ``bitmap``: one word per column and pass; dense: none.
    beats : Out(stream of beat_layout)
        Decoded beats, in the order pass, column, sub-group, non-zero.
    faults : Out(stream of 6 bits)
        One `Fault` word per matrix, after its last beat. A stream that ends early is completed with
        zeros, one that runs on is swallowed up to its last beat: the decoder never waits for what
        will not come, as long as the stream marks its end. A command out of range
        (`Fault.COMMAND`) is refused: it takes nothing from any stream and yields no beat.
    """

    latency = 2
    """Cycles from a value beat to the decoded beat."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(config))),
                "values": In(stream.Signature(values_layout(config))),
                "positions": In(stream.Signature(positions_layout(config))),
                "beats": Out(stream.Signature(beat_layout(config))),
                "faults": Out(stream.Signature(unsigned(6))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        loops = m.submodules.loops = Loops(cfg)
        matrix = self._matrix(m, loops.load)
        words = self._words(m, matrix, loops.column_end)
        if "bitmap" in cfg.encodings and cfg.sparse:
            self._find_lowest(m, words.words)
        step = Signal()
        first = self._output(m, step)
        flow = self._flow(m, matrix, words, step, first.space)

        # What is there goes into the first stage whenever that has room; `step` says whether it counts.
        self._addresses(m, first, matrix, words, loops)
        self._rest_of_beat(m, first, matrix, loops, flow.values_over)
        faults = Signal(6)
        self._end_values(m, flow, loops.matrix_end, faults)
        checking = Signal()  # the last beat's positions are still being looked at
        wrong: Value = Const(0, 1)
        if cfg.sparse:
            self._use_words(m, matrix, words, flow)
            self._end_positions(m, matrix, words, flow, loops.matrix_end, faults)
            counts = step & words.full
            wrong = self._check_positions(m, first.early, matrix, words, counts, loops.column_end, checking)
            with m.If(wrong):
                m.d.sync += faults[4].eq(1)

        m.d.comb += [loops.command.eq(self.command.payload), loops.step.eq(step)]
        self._sequence(m, matrix, words, flow, loops, _Findings(faults, checking, wrong))
        return m

    def _matrix(self, m: Module, load: Value) -> _Matrix:
        """The matrix at hand; what its positions are is decoded from the next one's command while that is `load`-ed."""
        cfg = self.config
        command = Signal(command_layout(cfg), reset_less=True)
        sparse = Signal()
        uses_bitmap = Signal()
        new = self.command.payload
        group_mask = Signal(cfg.address_width, reset_less=True)
        index_mask = Signal(cfg.address_width, reset_less=True)
        new_mask = ((1 << new.m_log2) - 1)[: cfg.address_width]
        with m.If(load):
            m.d.sync += [
                uses_bitmap.eq(new.encoding == Encoding.BITMAP),
                sparse.eq(new.encoding != Encoding.DENSE if cfg.sparse else 0),
                group_mask.eq(new_mask),
                index_mask.eq(Mux(new.encoding == Encoding.INDEX, new_mask, 0)),
            ]
        return _Matrix(command, sparse, uses_bitmap, group_mask, index_mask)

    def _words(self, m: Module, matrix: _Matrix, column_end: Value) -> _Words:
        """A word per group, for `_use_words` to move on; it ends with a bitmap's column, or with its last index."""
        cfg = self.config
        words = [Signal(cfg.window, name=f"word_{g}", reset_less=True) for g in range(cfg.groups)]
        word_full = Signal()
        slot = Signal(range(cfg.window))
        slot_end = Signal()
        word_end = Signal()
        m.d.comb += word_end.eq(Mux(matrix.uses_bitmap, column_end, slot_end))
        return _Words(words, word_full, slot, slot_end, word_end)

    def _flow(self, m: Module, matrix: _Matrix, words: _Words, step: Signal, space: Value) -> _Flow:
        """When a beat is made and a word of positions is taken: when what they need is there, or will not come."""
        values_over = Signal()
        positions_over = Signal()
        running = Signal()
        word_ready = Signal()
        m.d.comb += step.eq(running & space & (self.values.valid | values_over) & word_ready)
        positions_wanted = Signal()
        used_up = step & words.end
        m.d.comb += [
            positions_wanted.eq(running & matrix.sparse & ~positions_over & (~words.full | used_up)),
            self.values.ready.eq(step & ~values_over),
            self.positions.ready.eq(positions_wanted),
        ]
        take_word = positions_wanted & self.positions.valid
        m.d.sync += word_ready.eq(~matrix.sparse | positions_over | take_word | (words.full & ~used_up))
        return _Flow(step, running, word_ready, values_over, positions_over, positions_wanted, take_word)

    def _rest_of_beat(self, m: Module, first: _FirstStage, matrix: _Matrix, loops: Loops, values_over: Value) -> None:
        """What the first stage holds beside addresses: where in the loops it is, and values, zeros for missing ones."""
        beat = first.early.beat
        with m.If(first.space):
            m.d.sync += [
                beat.first.eq(loops.first),
                beat.last.eq(loops.column_end),
                beat.first_pass.eq(loops.first_pass),
                beat.final_pass.eq(loops.final_pass),
                beat.pass_end.eq(loops.pass_end),
                beat.gives.eq(loops.final_pass & loops.column_end),
                beat.widen.eq(loops.widen),
                beat.rescale.eq(loops.rescale),
                beat.unsigned.eq(matrix.command.unsigned),
            ]
            for g in range(self.config.groups):
                m.d.sync += beat.values[g].eq(Mux(values_over, 0, self.values.payload.values[g]))

    def _end_values(self, m: Module, flow: _Flow, matrix_end: Value, faults: Signal) -> None:
        """See the mark of the last values, which is a fault before the matrix is through."""
        with m.If(flow.step):
            m.d.sync += flow.values_over.eq(flow.values_over | self.values.payload.last)
            with m.If(~flow.values_over & self.values.payload.last & ~matrix_end):
                m.d.sync += faults[0].eq(1)

    def _end_positions(
        self, m: Module, matrix: _Matrix, words: _Words, flow: _Flow, matrix_end: Value, faults: Signal
    ) -> None:
        """See the mark of the last word of positions, and whether there was one too many, or one too few."""
        with m.If(flow.take_word & self.positions.payload.last):
            m.d.sync += flow.positions_over.eq(1)
        with m.If(flow.take_word & flow.step & matrix_end):  # one too many
            m.d.sync += faults[3].eq(1)
        with m.If(flow.step & matrix.sparse & ~words.full):  # stepping on without a word: the stream ended early
            m.d.sync += faults[2].eq(1)

    def _sequence(self, m: Module, matrix: _Matrix, words: _Words, flow: _Flow, loops: Loops, found: _Findings) -> None:
        """Take a command, run it, and close: swallow what streams have too much, and say what was wrong."""
        step, matrix_end, faults = flow.step, loops.matrix_end, found.faults
        values_over, positions_over = flow.values_over, flow.positions_over
        # The next command is judged while it waits, a cycle before it can be taken.
        judged, bad_command = Signal(), Signal()
        m.d.sync += [
            judged.eq(self.command.valid & ~self.command.ready),
            bad_command.eq(refused(self.config, self.command.payload)),
        ]
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += [self.command.ready.eq(judged), loops.load.eq(1)]
                m.d.sync += [
                    matrix.command.eq(self.command.payload),
                    words.full.eq(0),
                    flow.word_ready.eq(self.command.payload.encoding == Encoding.DENSE),
                    values_over.eq(0),
                    positions_over.eq(0),
                    faults.eq(Mux(bad_command, Fault.COMMAND.value, 0)),
                ]
                with m.If(judged & ~bad_command):
                    m.d.sync += flow.running.eq(1)
                    m.next = "RUN"
                with m.If(judged & bad_command):
                    m.d.sync += [values_over.eq(1), positions_over.eq(1)]
                    m.next = "CLOSE"
            with m.State("RUN"), m.If(step & matrix_end):
                # The usual end, both streams marked where they should be, costs no cycle but this one.
                m.d.sync += flow.running.eq(0)
                m.next = "CLOSE"
            with m.State("CLOSE"):
                values_done = Signal()
                positions_done = Signal()
                m.d.comb += [
                    values_done.eq(values_over),
                    positions_done.eq(positions_over | ~matrix.sparse),
                    self.values.ready.eq(~values_over),
                    self.positions.ready.eq(~positions_done),
                    self.faults.payload.eq(faults | found.wrong << 4),
                    self.faults.valid.eq(values_done & positions_done & ~found.checking),
                ]
                with m.If(~values_over & self.values.valid):
                    m.d.sync += [faults[1].eq(1), values_over.eq(self.values.payload.last)]
                with m.If(~positions_done & self.positions.valid):
                    m.d.sync += [faults[3].eq(1), positions_over.eq(self.positions.payload.last)]
                with m.If(self.faults.valid & self.faults.ready):
                    m.next = "IDLE"

    def _output(self, m: Module, step: Value) -> _FirstStage:
        """The stages behind `step`: what it fills (see `_early_layout`), and whether there is room for it.

        A spare register behind them takes what comes while the beat before waits, so that `space`, and with it
        everything that steps, does not depend on the beats' `ready`.
        """
        cfg = self.config
        early = Signal(_early_layout(cfg), reset_less=True)
        early_valid, spare_valid = Signal(), Signal()
        space = Signal(init=1)  # not both are valid; from a register, for all that steps depends on it
        free = ~self.beats.valid | self.beats.ready
        spare = Signal(beat_layout(cfg), reset_less=True)
        decoded = Signal(beat_layout(cfg))
        m.d.comb += decoded.eq(early.beat)
        self._position = []
        for g in range(cfg.groups):
            position = Signal(cfg.address_width, name=f"position_{g}")
            for bit in range(cfg.address_width):
                m.d.comb += position[bit].eq(Cat(early.lowest[g][i] for i in range(cfg.window) if i >> bit & 1).any())
            self._position.append(position)
            m.d.comb += decoded.addresses[g].eq(early.beat.addresses[g] | (position & early.mask))
        m.d.sync += space.eq(free | (~early_valid & ~spare_valid) | (space & ~step))
        with m.If(space):
            m.d.sync += early_valid.eq(step)
        with m.If(~spare_valid):
            m.d.sync += spare.eq(decoded)
        with m.If(free):
            m.d.sync += [
                self.beats.valid.eq(early_valid | spare_valid),
                self.beats.payload.eq(Mux(spare_valid, spare, decoded)),
                spare_valid.eq(0),
            ]
        with m.Else():
            m.d.sync += spare_valid.eq(early_valid | spare_valid)
        return _FirstStage(early, space)

    def _addresses(self, m: Module, first: _FirstStage, matrix: _Matrix, words: _Words, loops: Loops) -> None:
        """The window address of each group's current non-zero: whole for indices, the lowest set bit for bitmaps."""
        cfg, early = self.config, first.early
        with m.If(first.space):
            for g, word in enumerate(words.words):
                # Tap and sub-group begin at multiples of M, so the index within the group is OR-ed in.
                has_indices = "index" in cfg.encodings and cfg.sparse
                within = word[: cfg.address_width] & matrix.index_mask if has_indices else 0
                m.d.sync += early.beat.addresses[g].eq(loops.base | within)
                if "bitmap" in cfg.encodings and cfg.sparse:
                    lowest = word & ~self._seen[g][: cfg.window]
                    m.d.sync += early.lowest[g].eq(Mux(matrix.uses_bitmap, lowest, 0))
            if "bitmap" in cfg.encodings and cfg.sparse:
                m.d.sync += [early.mask.eq(matrix.group_mask), early.offset.eq(loops.offset)]

    def _use_words(self, m: Module, matrix: _Matrix, words: _Words, flow: _Flow) -> None:
        """Load metadata words; shift their indices out, or clear their lowest set bit."""
        cfg, m_log2 = self.config, matrix.command.m_log2
        widths = cfg.index_widths if "index" in cfg.encodings else ()
        for g, word in enumerate(words.words):
            rest = Signal(cfg.window, name=f"rest_{g}")
            m.d.comb += rest.eq(word)
            with m.Switch(m_log2):
                for width in widths:
                    with m.Case(width):
                        m.d.comb += rest.eq(word >> width)
            if "bitmap" in cfg.encodings:
                with m.If(matrix.uses_bitmap):
                    m.d.comb += rest.eq(word & self._seen[g][: cfg.window])
            # Whatever is there, valid or not: the word that was is used up.
            with m.If(flow.positions_wanted | flow.step):
                m.d.sync += word.eq(Mux(flow.positions_wanted, self.positions.payload.words[g], rest))
        last_slot = Signal(range(cfg.window))
        with m.Switch(m_log2):
            for width in cfg.index_widths:
                with m.Case(width):
                    m.d.comb += last_slot.eq(cfg.window // width - 1)
        slot, slot_end = words.slot, words.slot_end
        with m.If(flow.step):
            m.d.sync += [slot.eq(slot + 1), slot_end.eq(slot + 1 == last_slot)]
            with m.If(words.end):
                m.d.sync += words.full.eq(0)
        with m.If(flow.take_word | ~words.full):
            m.d.sync += [slot.eq(0), slot_end.eq(last_slot == 0)]
        with m.If(flow.take_word):
            m.d.sync += words.full.eq(1)

    def _find_lowest(self, m: Module, words: list[Signal]) -> None:
        """For each bit of each word, whether a lower one is set; above the top bit, whether any is."""
        cfg = self.config
        self._seen = []
        for g, word in enumerate(words):
            seen = Signal(cfg.window + 1, name=f"seen_{g}")
            # By fours, which are single LUTs: a carry chain would take longer to enter and leave.
            some = [word[i : i + 4].any() for i in range(0, cfg.window, 4)]
            for i in range(cfg.window + 1):
                m.d.comb += seen[i].eq(Cat(*some[: i // 4], word[i // 4 * 4 : i]).any())
            self._seen.append(seen)

    def _check_positions(
        self,
        m: Module,
        early: data.View,
        matrix: _Matrix,
        words: _Words,
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
        cfg = self.config
        wrong = Signal(cfg.groups)
        first, second = Signal(), Signal()
        m.d.sync += [first.eq(counts), second.eq(first)]
        m.d.comb += checking.eq(first)
        for g, word in enumerate(words.words):
            found: Value = Const(0, 1)
            if "index" in cfg.encodings:
                # The first stage also holds what never counted; what it held for the last step is kept here.
                before = Signal(cfg.address_width, name=f"before_{g}", reset_less=True)
                with m.If(first):
                    m.d.sync += before.eq(early.beat.addresses[g])
                found = ~early.beat.first & (early.beat.addresses[g] <= before)
            if "bitmap" in cfg.encodings:
                rest = word & self._seen[g][: cfg.window]
                elsewhere = ((self._position[g] ^ early.offset) & ~early.mask).any()
                count_wrong = Signal(name=f"count_wrong_{g}")
                m.d.sync += count_wrong.eq(~self._seen[g][-1] | (column_end & rest.any()))
                found = Mux(matrix.uses_bitmap, count_wrong | elsewhere, found)
            m.d.sync += wrong[g].eq(found)
        return second & wrong.any()


def _early_layout(config: Config) -> data.StructLayout:
    """A beat on its way: its addresses lack what a bitmap adds."""
    return data.StructLayout(
        {
            "beat": beat_layout(config),
            "lowest": data.ArrayLayout(unsigned(config.window), config.groups),  # one bit set, or none
            "mask": unsigned(config.address_width),  # bits of an index within its group
            "offset": unsigned(config.address_width),  # the sub-group
        }
    )


@dataclass(frozen=True)
class _Matrix:
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
class _Words:
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
    """

    words: list[Signal]
    full: Signal
    slot: Signal
    slot_end: Signal
    end: Signal


@dataclass(frozen=True)
class _FirstStage:
    """The register that a step fills.

    Attributes
    ----------
    early : view of _early_layout
    space : Signal
        There is room for another beat.
    """

    early: data.View
    space: Signal


@dataclass(frozen=True)
class _Flow:
    """What moves in a cycle, and what each stream still owes.

    Attributes
    ----------
    step, running : Signal
        A beat is made; there may be one.
    word_ready : Signal
        There is a word of positions, or none is needed, or none will come.
    values_over, positions_over : Signal
        The stream has marked its last beat.
    positions_wanted : Signal
        A word of positions is taken if there is one.
    take_word : Value
        One is taken.
    """

    step: Signal
    running: Signal
    word_ready: Signal
    values_over: Signal
    positions_over: Signal
    positions_wanted: Signal
    take_word: Value


@dataclass(frozen=True)
class _Findings:
    """What was wrong with a matrix.

    Attributes
    ----------
    faults : Signal
        As `Fault` has them, so far.
    checking : Signal
        Positions are still being looked at.
    wrong : Value
        Some of them were found wrong in this cycle.
    """

    faults: Signal
    checking: Signal
    wrong: Value
