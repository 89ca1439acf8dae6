"""The activation windows: double-buffered RAM that the weights' indices address.

One memory per group holds the windows of all its rows side by side, because rows share the index:
the selector of N:M sparsity is the address decoder of that memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.layouts import windows_command_layout

__all__ = ["Windows"]


class Windows(wiring.Component):
    """Load windows from a stream, read them at one address per group.

    Loading takes ``groups * depth * taps * rows / lanes`` cycles per pass and overlaps reading the
    other bank. Reading takes one cycle; block RAM wants a plain register behind it.

    Parameters
    ----------
    config : Config
        `rows`, `groups`, `window`, `lanes`.

    Members
    -------
    command : In(stream of windows_command_layout)
        One per product; its fields count the beats it takes.
    activations : In(stream of `lanes` x 8 bits)
        `lanes` rows at a time of one position of the reduction dimension. Order: pass, tap, group,
        window position, row.
    addresses : In(groups x log2 window bits), bank : In(1)
        What to read.
    operands : Out(groups x rows x 8 bits)
        The activations found there, one cycle later.
    full : Out(2)
        Which banks hold a whole pass.
    full_next : Out(2)
        The same, a cycle ahead.
    release : In(2)
        Give a bank back to the loader.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "command": In(stream.Signature(windows_command_layout())),
                "activations": In(stream.Signature(data.ArrayLayout(unsigned(8), config.lanes))),
                "addresses": In(data.ArrayLayout(unsigned(config.address_width), config.groups)),
                "bank": In(1),
                "operands": Out(data.ArrayLayout(data.ArrayLayout(unsigned(8), config.rows), config.groups)),
                "full": Out(2),
                "full_next": Out(2),
                "release": In(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        at = _at(self.config)
        take = Signal()
        room = Signal()  # busy, and the bank is free
        finishing, begin = Signal(), Signal()
        m.d.comb += [
            take.eq(room & self.activations.valid),
            self.activations.ready.eq(room),
        ]
        write = self._write(m, at, take)
        self._next(m, at, take, finishing, write.filled)
        m.d.comb += self.full_next.eq((self.full | write.filled) & ~self.release)
        m.d.sync += self.full.eq(self.full_next)
        going_on = (at.busy & ~(finishing & at.passes_last)) | begin
        m.d.sync += room.eq(going_on & ~self.full_next.bit_select(at.bank ^ finishing, 1))
        self._begin(m, at, begin)
        self._memories(m, write)
        return m

    def _write(self, m: Module, at: _At, take: Value) -> _Write:
        """One register between the stream and the memories, so that their pins are the fabric's business."""
        cfg = self.config
        write_data = Signal(8 * cfg.lanes, reset_less=True)
        write_part = Signal(cfg.rows // cfg.lanes)
        write_group = Signal(cfg.groups)
        write_address = Signal(cfg.address_width + 1, reset_less=True)
        filled = Signal(2)
        m.d.sync += [
            write_group.eq(Mux(take, at.group, 0)),
            write_data.eq(self.activations.payload.as_value()),
            write_part.eq(1 << at.part),
            write_address.eq(Cat((at.base + at.position)[: cfg.address_width], at.bank)),
            filled.eq(0),
        ]
        return _Write(write_data, write_part, write_group, write_address, filled)

    def _next(self, m: Module, at: _At, take: Value, finishing: Signal, filled: Signal) -> None:
        """Go on with each beat: part, window position, group, tap, pass; `finishing`: it is a pass's last one."""
        part, position, group = at.part, at.position, at.group
        part_end = part == self.config.rows // self.config.lanes - 1
        with m.If(take):
            m.d.sync += part.eq(Mux(part_end, 0, part + 1))
            with m.If(part_end):
                m.d.sync += [
                    position.eq(Mux(at.position_end, 0, position + 1)),
                    at.position_end.eq(Mux(at.position_end, at.depth_last == 0, position + 1 == at.depth_last)),
                ]
                with m.If(at.position_end):
                    m.d.sync += group.eq(group.rotate_left(1))
                    with m.If(group[-1]):
                        m.d.sync += [
                            at.taps_left.eq(at.taps_left - 1),
                            at.taps_last.eq(at.taps_left == 1),
                            at.base.eq(at.base + at.depth),
                        ]
                        with m.If(at.taps_last):
                            m.d.comb += finishing.eq(1)
                            m.d.sync += [
                                at.taps_left.eq(at.taps - 1),
                                at.taps_last.eq(at.taps == 1),
                                at.base.eq(0),
                                filled.eq(1 << at.bank),
                                at.bank.eq(~at.bank),
                                at.passes_left.eq(at.passes_left - 1),
                                at.passes_last.eq(at.passes_left == 1),
                            ]
                            with m.If(at.passes_last):
                                m.d.sync += at.busy.eq(0)

    def _begin(self, m: Module, at: _At, begin: Signal) -> None:
        """Take the next product's command."""
        new = self.command.payload
        m.d.comb += self.command.ready.eq(~at.busy)
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [
                at.busy.eq(1),
                at.depth.eq(new.depth),
                at.depth_last.eq(new.depth - 1),
                at.position_end.eq(new.depth == 1),
                at.taps.eq(new.taps),
                at.taps_left.eq(new.taps - 1),
                at.taps_last.eq(new.taps == 1),
                at.passes_left.eq(new.passes - 1),
                at.passes_last.eq(new.passes == 1),
            ]
            m.d.comb += begin.eq(1)

    def _memories(self, m: Module, register: _Write) -> None:
        """A memory of two banks for each group, written from the register, read at the group's own address."""
        cfg = self.config
        for g in range(cfg.groups):
            window = memory.Memory(
                shape=unsigned(8 * cfg.rows),
                depth=2 * cfg.window,
                init=[],
                # A bank is never written while it is read.
                attrs={"no_rw_check": 1, "ram_style": cfg.window_memory},
            )
            m.submodules[f"window_{g}"] = window
            write = window.write_port(granularity=8 * cfg.lanes)
            read = window.read_port()
            m.d.comb += [
                write.addr.eq(register.address),
                write.data.eq(register.data.replicate(len(register.part))),
                write.en.eq(Mux(register.group[g], register.part, 0)),
                read.addr.eq(Cat(self.addresses[g], self.bank)),
                read.en.eq(1),
                self.operands[g].eq(read.data),
            ]


@dataclass(frozen=True)
class _At:
    """The product whose windows are loaded, and where in them the next beat goes.

    Attributes
    ----------
    busy : Signal
        There is one.
    depth, depth_last, taps : Signal
        As it has them; `depth_last` is one less.
    taps_left, taps_last, passes_left, passes_last : Signal
        How many are left behind this one; it is the last one.
    bank, base : Signal
        Where the pass's windows are; where the tap begins in them.
    part, position, group : Signal
        Which of a position's rows; the window position in the tap; the group, one-hot.
    position_end : Signal
        ``position == depth_last``
    """

    busy: Signal
    depth: Signal
    depth_last: Signal
    taps: Signal
    taps_left: Signal
    taps_last: Signal
    passes_left: Signal
    passes_last: Signal
    bank: Signal
    base: Signal
    part: Signal
    position: Signal
    group: Signal
    position_end: Signal


def _at(config: Config) -> _At:
    """No product at first."""
    busy = Signal()
    depth, depth_last = Signal(6), Signal(6)
    taps_left = Signal(6)
    taps = Signal(6)
    passes_left = Signal(16)
    bank = Signal()
    part = Signal(range(config.rows // config.lanes))
    position = Signal(6)
    group = Signal(config.groups, init=1)
    base = Signal(config.address_width + 1)
    taps_last, passes_last = Signal(), Signal()
    position_end = Signal()
    return _At(
        busy, depth, depth_last, taps, taps_left, taps_last, passes_left, passes_last, bank, base, part, position,
        group, position_end,
    )  # fmt: skip


@dataclass(frozen=True)
class _Write:
    """A beat on its way to a memory.

    Attributes
    ----------
    data, address : Signal
    part, group : Signal
        Which rows of which group's memory, one-hot; no group if there is no beat.
    filled : Signal
        The bank whose last write it is, one-hot.
    """

    data: Signal
    part: Signal
    group: Signal
    address: Signal
    filled: Signal
