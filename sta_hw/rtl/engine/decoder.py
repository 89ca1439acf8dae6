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
from .positions import (
    Arriving,
    FirstStage,
    Matrix,
    Words,
    check_positions,
    early_layout,
    fill_addresses,
    finish_addresses,
    held_words,
    matrix_at_hand,
    use_words,
)

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
    words : Arriving
        Those that the stream of positions has.
    """

    step: Signal
    running: Signal
    word_ready: Signal
    values_over: Signal
    positions_over: Signal
    words: Arriving


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
        matrix = matrix_at_hand(m, cfg, self.command.payload, loops.load)
        words = held_words(m, cfg, matrix, loops.column_end)
        step = Signal()
        first = self._output(m, step)
        flow = self._flow(m, matrix, words, step, first.space)

        # What is there goes into the first stage whenever that has room; `step` says whether it counts.
        with m.If(first.space):
            fill_addresses(m, cfg, first.early, matrix, words, loops)
        self._rest_of_beat(m, first, matrix, loops, flow.values_over)
        faults = Signal(6)
        self._end_values(m, flow, loops.matrix_end, faults)
        checking = Signal()  # the last beat's positions are still being looked at
        wrong: Value = Const(0, 1)
        if cfg.sparse:
            use_words(m, cfg, matrix, words, flow.words, step)
            self._end_positions(m, matrix, words, flow, loops.matrix_end, faults)
            counts = step & words.full
            wrong = check_positions(m, cfg, first, matrix, words, counts, loops.column_end, checking)
            with m.If(wrong):
                m.d.sync += faults[4].eq(1)

        m.d.comb += [loops.command.eq(self.command.payload), loops.step.eq(step)]
        self._sequence(m, matrix, words, flow, loops, _Findings(faults, checking, wrong))
        return m

    def _flow(self, m: Module, matrix: Matrix, words: Words, step: Signal, space: Value) -> _Flow:
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
        arriving = Arriving(self.positions.payload.words, positions_wanted, take_word)
        return _Flow(step, running, word_ready, values_over, positions_over, arriving)

    def _rest_of_beat(self, m: Module, first: FirstStage, matrix: Matrix, loops: Loops, values_over: Value) -> None:
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
        self, m: Module, matrix: Matrix, words: Words, flow: _Flow, matrix_end: Value, faults: Signal
    ) -> None:
        """See the mark of the last word of positions, and whether there was one too many, or one too few."""
        with m.If(flow.words.taken & self.positions.payload.last):
            m.d.sync += flow.positions_over.eq(1)
        with m.If(flow.words.taken & flow.step & matrix_end):  # one too many
            m.d.sync += faults[3].eq(1)
        with m.If(flow.step & matrix.sparse & ~words.full):  # stepping on without a word: the stream ended early
            m.d.sync += faults[2].eq(1)

    def _sequence(self, m: Module, matrix: Matrix, words: Words, flow: _Flow, loops: Loops, found: _Findings) -> None:
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

    def _output(self, m: Module, step: Value) -> FirstStage:
        """The stages behind `step`: what it fills (see `early_layout`), and whether there is room for it.

        A spare register behind them takes what comes while the beat before waits, so that `space`, and with it
        everything that steps, does not depend on the beats' `ready`.
        """
        cfg = self.config
        early = Signal(early_layout(cfg), reset_less=True)
        early_valid, spare_valid = Signal(), Signal()
        space = Signal(init=1)  # not both are valid; from a register, for all that steps depends on it
        free = ~self.beats.valid | self.beats.ready
        spare = Signal(beat_layout(cfg), reset_less=True)
        decoded = Signal(beat_layout(cfg))
        m.d.comb += decoded.eq(early.beat)
        positions = finish_addresses(m, cfg, early, decoded)
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
        return FirstStage(early, space, positions)
