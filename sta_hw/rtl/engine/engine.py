"""The matrix engine: N:M sparse-dense and dense-dense products on the same multipliers."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...spec.config import Config
from ..primitives.layouts import (
    GROWTH_BITS,
    command_layout,
    growth_layout,
    parameter_layout,
    positions_layout,
    result_layout,
    values_layout,
)
from ..primitives.queue import Queue
from .accumulator import HAZARD_CYCLES, Accumulator
from .array import ProcessingArray
from .decoder import Decoder, refused
from .drain import Drain
from .windows import Windows

__all__ = ["Engine"]

_COMMANDS_AHEAD = 4


class Engine(wiring.Component):
    """``results = requantize(activations @ weights.T)``, product after product without a gap.

    Loading windows, computing and draining run ahead of one another over up to 4 products.
    Rate: ``rows * groups`` multiply-accumulates per cycle. Latency from a weight beat to its
    column's result: `Engine.latency` cycles when nothing waits.

    Parameters
    ----------
    config : Config
    plain : bool
        Leave out what the accelerator does not use: several taps (`taps` counts as 1) and 16-bit
        activations (`widen_at` counts as 0).
    ahead : bool
        Take commands while earlier ones are worked on. Without, a command stays in its stream until its decoder,
        windows and drain have all come to it: smaller, and slower between products.

    Members
    -------
    command : In(stream of command_layout)
        One per product (`layouts.command_layout` lists the fields).
    activations : In(stream of `lanes` x signed(8))
        Windows, in the order of `Windows`.
    values, positions : In(streams)
        Weights, in the order of `Decoder`.
    parameters : In(stream of parameter_layout)
        Requantization, in the order of `Drain`.
    growth : In(stream of growth_layout)
        One beat per product that rescales: by how much each row's unfinished sums shift right,
        rounding down, before it continues them. Costs ``columns + 20`` cycles per place of the
        largest shift.
    results : Out(stream of result_layout)
        Columns in order (tap fastest), `drain_lanes` rows per beat.
    status : Out(stream of 6 bits)
        One `Fault` word per product, once its weights are through. A product refused for its command
        (`Fault.COMMAND`) takes nothing from the other streams and gives no results.
    busy, holds_beat : Out(1)
        A beat enters the array; a decoded beat is there.
    wait_windows, wait_results, wait_rescale : Out(1)
        What a decoded beat waits for: its windows, room in the result ring, the rescaling.
    """

    def __init__(self, config: Config, *, plain: bool = False, ahead: bool = True) -> None:
        self.config, self.plain, self.ahead = config, plain, ahead
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(config))),
                "activations": In(stream.Signature(data.ArrayLayout(unsigned(8), config.lanes))),
                "values": In(stream.Signature(values_layout(config))),
                "positions": In(stream.Signature(positions_layout(config))),
                "parameters": In(stream.Signature(parameter_layout())),
                "growth": In(stream.Signature(growth_layout(config))),
                "results": Out(stream.Signature(result_layout(config))),
                "status": Out(stream.Signature(unsigned(6))),
                "busy": Out(1),
                "holds_beat": Out(1),
                "wait_windows": Out(1),
                "wait_results": Out(1),
                "wait_rescale": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from the last weight beat of a column to its first result beat, nothing waiting."""
        issue, write = 1, 2
        array = ProcessingArray(self.config)
        array._MustUse__silence = True  # asked for its latency alone
        return Decoder.latency + issue + array.latency + write + Drain.latency

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        decoder = m.submodules.decoder = Decoder(cfg)
        windows = m.submodules.windows = Windows(cfg)
        array = m.submodules.array = ProcessingArray(cfg)
        accumulator = m.submodules.accumulator = Accumulator(cfg, array.sum_width, array.latency, plain=self.plain)
        drain = m.submodules.drain = Drain(cfg)

        connect(m, flipped(self.values), decoder.values)
        connect(m, flipped(self.positions), decoder.positions)
        connect(m, flipped(self.parameters), drain.parameters)
        connect(m, flipped(self.results), drain.results)
        connect(m, decoder.faults, flipped(self.status))
        connect(m, flipped(self.activations), windows.activations)
        self._broadcast(m, decoder, windows, drain)
        self._issue(m, _Parts(decoder, windows, array, accumulator, drain))
        m.d.comb += [
            accumulator.sums.eq(array.sums),
            accumulator.read_address.eq(drain.read_address),
            drain.read_data.eq(accumulator.read_data),
            drain.written.eq(accumulator.written),
        ]
        return m

    def _broadcast(self, m: Module, decoder: Decoder, windows: Windows, drain: Drain) -> None:
        """Give each command to decoder, loader and drain, which take it when they come to it."""
        fixed = {"taps": 1, "widen_at": 0} if self.plain else {"lift": 0} if "digits" in self.config.features else {}
        if not self.ahead:
            self._broadcast_in_place(m, decoder, windows, drain, fixed)
            return
        # Taken into a register and judged there: nothing of it is on the way of a cycle.
        held = Signal.like(self.command.payload, name="held_command", reset_less=True)
        waiting, judged, bad = Signal(), Signal(), Signal()
        m.d.comb += self.command.ready.eq(~waiting)
        with m.If(self.command.valid & ~waiting):
            m.d.sync += [held.eq(self.command.payload), waiting.eq(1)]
        m.d.sync += [bad.eq(refused(self.config, held)), judged.eq(waiting)]
        queues = []
        for name, unit in (("decoder", decoder), ("windows", windows), ("drain", drain)):
            wanted = unit.command.payload
            kept = [field for field, _ in wanted.shape() if field not in fixed]
            widths = [len(Value.cast(wanted[field])) for field in kept]
            queue = m.submodules[f"{name}_commands"] = Queue(width=sum(widths), depth=_COMMANDS_AHEAD)
            m.d.comb += [
                Cat(Value.cast(wanted[field]) for field in kept).eq(queue.r_data),
                *(wanted[field].eq(value) for field, value in fixed.items() if field in dict(wanted.shape())),
                unit.command.valid.eq(queue.r_rdy),
                queue.r_en.eq(unit.command.ready),
                queue.w_data.eq(Cat(Value.cast(held[field]) for field in kept)),
            ]
            queues.append(queue)
        accepted = judged & Cat(q.w_rdy for q in queues).all()
        with m.If(accepted):
            m.d.sync += [waiting.eq(0), judged.eq(0)]
        m.d.comb += [
            queues[0].w_en.eq(accepted),
            queues[1].w_en.eq(accepted & ~bad),
            queues[2].w_en.eq(accepted & ~bad & ~held.unfinished),
        ]

    def _broadcast_in_place(
        self, m: Module, decoder: Decoder, windows: Windows, drain: Drain, fixed: dict[str, int]
    ) -> None:
        """The same without a place for commands: each waits in its stream until all have taken it."""
        # With what is fixed in place: decoder and refusal must agree, or a refused product would never end.
        given = Signal.like(self.command.payload, name="given_command")
        m.d.comb += given.eq(self.command.payload)
        m.d.comb += [given[field].eq(value) for field, value in fixed.items()]
        judged, bad = Signal(), Signal()
        m.d.sync += [bad.eq(refused(self.config, given)), judged.eq(self.command.valid & ~self.command.ready)]
        done = []
        for name, unit, skip in (("decoder", decoder, 0), ("windows", windows, bad),
                                 ("drain", drain, bad | given.unfinished)):  # fmt: skip
            wanted = unit.command.payload
            fields = dict(wanted.shape())
            taken = Signal(name=f"{name}_taken")
            m.d.comb += [
                *(Value.cast(wanted[field]).eq(Value.cast(given[field])) for field in fields),
                unit.command.valid.eq(judged & ~taken & ~skip),
            ]
            with m.If(self.command.ready):
                m.d.sync += taken.eq(0)
            with m.Elif(unit.command.valid & unit.command.ready):
                m.d.sync += taken.eq(1)
            done.append(taken | skip | unit.command.ready)
        m.d.comb += self.command.ready.eq(judged & Cat(done).all())

    def _issue(self, m: Module, parts: _Parts) -> None:
        """Let a decoded beat into the array when its window is there and its result has a place."""
        cfg = self.config
        beats, windows = parts.decoder.beats, parts.windows
        beat = beats.payload
        # Columns on their way to the ring or in it.
        reserved = Signal(range(cfg.columns + 1))
        reserve = Signal()
        issue = Signal()
        ring_full = Signal()  # one cycle old, hence the margin
        m.d.sync += ring_full.eq(reserved >= cfg.columns - 1)
        place = ~(beat.gives & ring_full)
        pace = _pace(cfg)
        wanted = beats.valid & beat.rescale
        sweep = self._rescale(m, parts.accumulator, parts.array, wanted, pace)
        allowed = pace.gate & place & ~(beat.rescale & ~pace.rescaled)
        m.d.comb += [
            beats.ready.eq(allowed),
            issue.eq(beats.valid & allowed),
            self.busy.eq(issue),
            self.holds_beat.eq(beats.valid),
            self.wait_windows.eq(beats.valid & ~windows.full.bit_select(pace.bank, 1)),
            self.wait_results.eq(beats.valid & ~place),
            self.wait_rescale.eq(beats.valid & beat.rescale & ~pace.rescaled),
            reserve.eq(issue & beat.gives),
        ]
        taken = Signal()
        m.d.sync += [taken.eq(parts.drain.taken), reserved.eq(reserved + reserve - taken)]
        self._send(m, parts, issue, sweep, pace.bank)
        self._keep_pace(m, parts, pace, issue, sweep.done)

    def _send(self, m: Module, parts: _Parts, issue: Value, sweep: data.View, bank: Value) -> None:
        """To the array goes the beat that is issued, or a sweep's empty one, with what the accumulator does with it."""
        cfg = self.config
        windows, array, beat = parts.windows, parts.array, parts.decoder.beats.payload
        flags = Signal.like(parts.accumulator.flags, name="issued")
        release = Signal()
        m.d.sync += [
            flags.valid.eq(issue | sweep.valid),
            flags.first.eq(beat.first | sweep.valid),
            flags.last.eq(beat.last | sweep.valid),
            flags.first_pass.eq(beat.first_pass & ~sweep.valid),
            flags.final_pass.eq(beat.final_pass & ~sweep.valid),
            flags.pass_end.eq(Mux(sweep.valid, sweep.last, beat.pass_end)),
            flags.widen.eq(beat.widen & ~sweep.valid),
            flags.rescale.eq(sweep.valid),
            release.eq(issue & beat.pass_end),
            array.unsigned.eq(beat.unsigned),
            windows.bank.eq(bank),
            # Without a beat the sums are zero, which is what a sweep over the stored sums adds.
            *(array.values[g].eq(Mux(issue, beat.values[g], 0)) for g in range(cfg.groups)),
            *(windows.addresses[g].eq(beat.addresses[g]) for g in range(cfg.groups)),
        ]
        m.d.comb += [
            parts.accumulator.flags.eq(flags),
            windows.release.eq(Mux(release, Const(1, 2) << windows.bank, 0)),
            *(array.operands[g].eq(windows.operands[g]) for g in range(cfg.groups)),
        ]

    def _keep_pace(self, m: Module, parts: _Parts, pace: _Pace, issue: Value, swept: Value) -> None:
        """Know a cycle ahead what the next beat waits for.

        A short pass must not read back its partial sums before they are stored.
        """
        cfg = self.config
        windows, beat, bank = parts.windows, parts.decoder.beats.payload, pace.bank
        pause = Signal(range(HAZARD_CYCLES + 1))
        columns_in_pass = Signal(range(HAZARD_CYCLES + 1))
        short = Signal(init=1)  # of fewer columns than a sum takes to be stored
        must_pause = Signal()
        turn = Signal()
        m.d.comb += [
            turn.eq(issue & beat.pass_end),
            must_pause.eq(turn & ~beat.final_pass & short),
        ]
        pausing = Signal()
        calm = ~pausing & (pause <= 1)
        stays = windows.full_next.bit_select(bank, 1) & calm
        turns = windows.full_next.bit_select(~bank, 1) & calm & (beat.final_pass | ~short)
        m.d.sync += [pausing.eq(must_pause), pace.gate.eq(Mux(turn, turns, stays))]
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.If(issue):
            m.d.sync += pace.rescaled.eq(0)
        with m.Elif(swept):
            m.d.sync += pace.rescaled.eq(1)
        column = Signal(range(cfg.columns + 1))
        with m.If(issue & beat.last):
            m.d.sync += column.eq(Mux(beat.pass_end, 0, column + 1))
            with m.If(beat.pass_end & ~beat.final_pass):
                m.d.sync += pace.stored_columns.eq(column + 1)
        enough = columns_in_pass == HAZARD_CYCLES
        with m.If(issue & beat.last):
            m.d.sync += [
                columns_in_pass.eq(Mux(enough, HAZARD_CYCLES, columns_in_pass + 1)),
                short.eq(columns_in_pass < HAZARD_CYCLES - 1),
            ]
            with m.If(beat.pass_end):
                m.d.sync += [bank.eq(~bank), columns_in_pass.eq(0), short.eq(1)]
        with m.If(pausing):
            m.d.sync += pause.eq(HAZARD_CYCLES - 1)

    def _rescale(
        self, m: Module, accumulator: Accumulator, array: ProcessingArray, wanted: Value, pace: _Pace
    ) -> data.View:
        """Shift the stored sums right before a product continues them, one place per sweep.

        A sweep sends one empty beat per stored column through the array. Returns (valid, last, done).
        """
        cfg = self.config
        sweep = Signal(data.StructLayout({"valid": 1, "last": 1, "done": 1}), name="sweep")
        settle_cycles = array.latency + 2 * HAZARD_CYCLES
        settle = Signal(range(settle_cycles + 1))
        column = Signal(range(cfg.columns + 1))
        left = [Signal(GROWTH_BITS, name=f"growth_{r}", reset_less=True) for r in range(cfg.rows)]
        any_left = Signal()
        m.d.sync += [
            any_left.eq(Cat(g != 0 for g in left).any()),
            *(accumulator.halve[r].eq(g != 0) for r, g in enumerate(left)),
        ]
        with m.If(settle != 0):
            m.d.sync += settle.eq(settle - 1)
        with m.FSM(name="rescale"):
            with m.State("IDLE"):
                m.d.sync += settle.eq(settle_cycles)
                with m.If(wanted & ~pace.rescaled & self.growth.valid):
                    m.d.comb += self.growth.ready.eq(1)
                    m.d.sync += [g.eq(self.growth.payload[r]) for r, g in enumerate(left)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # what is under way is stored; the shifts are known
                m.d.sync += column.eq(pace.stored_columns)
                with m.If(settle == 0):
                    m.d.comb += sweep.done.eq(~any_left)
                    m.next = "SWEEP"
                    with m.If(~any_left):
                        m.next = "IDLE"
            with m.State("SWEEP"):
                m.d.comb += [sweep.valid.eq(1), sweep.last.eq(column == 1)]
                m.d.sync += column.eq(column - 1)
                with m.If(column == 1):
                    m.d.sync += settle.eq(settle_cycles)
                    m.next = "NEXT"
            with m.State("NEXT"), m.If(settle == 0):
                m.d.sync += [*(g.eq(Mux(g != 0, g - 1, 0)) for g in left), settle.eq(3)]
                m.next = "SETTLE"
        return sweep


@dataclass(frozen=True)
class _Parts:
    """What the engine is made of."""

    decoder: Decoder
    windows: Windows
    array: ProcessingArray
    accumulator: Accumulator
    drain: Drain


@dataclass(frozen=True)
class _Pace:
    """What is known of the next beat before it comes.

    Attributes
    ----------
    bank : Signal
        Where its windows are.
    gate : Signal
        They are there and no pause is on: known a cycle ahead, for what follows from it is on the longest way.
    rescaled : Signal
        Sums that it continues are rescaled.
    stored_columns : Signal
        Of the pass before.
    """

    bank: Signal
    gate: Signal
    rescaled: Signal
    stored_columns: Signal


def _pace(config: Config) -> _Pace:
    """Before the first beat."""
    bank = Signal()
    gate = Signal()
    rescaled = Signal()
    stored_columns = Signal(range(config.columns + 1))
    return _Pace(bank, gate, rescaled, stored_columns)
