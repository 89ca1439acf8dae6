"""The activation windows: double-buffered RAM that the weights' indices address.

One memory per group holds the windows of all its rows side by side, because rows share the index:
the selector of N:M sparsity is the address decoder of that memory.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
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
        cfg = self.config
        m = Module()
        parts = cfg.rows // cfg.lanes

        busy = Signal()
        depth, depth_last = Signal(6), Signal(6)
        taps_left = Signal(6)
        taps = Signal(6)
        passes_left = Signal(16)
        bank = Signal()
        part = Signal(range(parts))
        position = Signal(6)
        group = Signal(cfg.groups, init=1)  # one-hot
        base = Signal(cfg.address_width + 1)

        # One register between the stream and the memories, so that their pins are the fabric's business.
        write_data = Signal(8 * cfg.lanes, reset_less=True)
        write_part = Signal(parts)
        write_group = Signal(cfg.groups)
        write_address = Signal(cfg.address_width + 1, reset_less=True)
        filled = Signal(2)  # a bank whose last write is in that register

        take = Signal()
        room = Signal()  # busy, and the bank is free
        taps_last, passes_last = Signal(), Signal()
        finishing, begin = Signal(), Signal()
        m.d.comb += [
            take.eq(room & self.activations.valid),
            self.activations.ready.eq(room),
        ]
        m.d.sync += [
            write_group.eq(Mux(take, group, 0)),
            write_data.eq(self.activations.payload.as_value()),
            write_part.eq(1 << part),
            write_address.eq(Cat((base + position)[: cfg.address_width], bank)),
            filled.eq(0),
        ]
        part_end = part == parts - 1
        position_end = Signal()  # position == depth_last
        with m.If(take):
            m.d.sync += part.eq(Mux(part_end, 0, part + 1))
            with m.If(part_end):
                m.d.sync += [
                    position.eq(Mux(position_end, 0, position + 1)),
                    position_end.eq(Mux(position_end, depth_last == 0, position + 1 == depth_last)),
                ]
                with m.If(position_end):
                    m.d.sync += group.eq(group.rotate_left(1))
                    with m.If(group[-1]):
                        m.d.sync += [
                            taps_left.eq(taps_left - 1),
                            taps_last.eq(taps_left == 1),
                            base.eq(base + depth),
                        ]
                        with m.If(taps_last):
                            m.d.comb += finishing.eq(1)
                            m.d.sync += [
                                taps_left.eq(taps - 1),
                                taps_last.eq(taps == 1),
                                base.eq(0),
                                filled.eq(1 << bank),
                                bank.eq(~bank),
                                passes_left.eq(passes_left - 1),
                                passes_last.eq(passes_left == 1),
                            ]
                            with m.If(passes_last):
                                m.d.sync += busy.eq(0)
        m.d.comb += self.full_next.eq((self.full | filled) & ~self.release)
        m.d.sync += self.full.eq(self.full_next)
        going_on = (busy & ~(finishing & passes_last)) | begin
        m.d.sync += room.eq(going_on & ~self.full_next.bit_select(bank ^ finishing, 1))

        new = self.command.payload
        m.d.comb += self.command.ready.eq(~busy)
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [
                busy.eq(1),
                depth.eq(new.depth),
                depth_last.eq(new.depth - 1),
                position_end.eq(new.depth == 1),
                taps.eq(new.taps),
                taps_left.eq(new.taps - 1),
                taps_last.eq(new.taps == 1),
                passes_left.eq(new.passes - 1),
                passes_last.eq(new.passes == 1),
            ]
            m.d.comb += begin.eq(1)

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
                write.addr.eq(write_address),
                write.data.eq(write_data.replicate(parts)),
                write.en.eq(Mux(write_group[g], write_part, 0)),
                read.addr.eq(Cat(self.addresses[g], self.bank)),
                read.en.eq(1),
                self.operands[g].eq(read.data),
            ]
        return m
