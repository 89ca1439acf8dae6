"""Fetch a program: its header, checked, then its instructions in order."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.isa import HEADER_BYTES, INSTRUCTION_BYTES, MAGIC, VERSION, Error, most_instructions
from ..bus.axi import ADDRESS_BITS
from ..bus.dma import run_layout
from ..primitives.layouts import COUNT_BITS
from ..primitives.sequencer import Gearbox

__all__ = ["Fetch", "instruction_layout"]


def instruction_layout() -> data.StructLayout:
    """An instruction's bits and its number."""
    return data.StructLayout({"bits": unsigned(8 * INSTRUCTION_BYTES), "number": unsigned(COUNT_BITS)})


class Fetch(wiring.Component):
    """From the program's address to a stream of instructions.

    Members
    -------
    start : In(1), address : In(32)
    run : Out(stream of run_layout), words : In(stream of bus words)
    instructions : Out(stream of instruction_layout)
    ended : Out(1)
        All instructions were given.
    error : Out(4)
        isa.Error of the header, until reset.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(ADDRESS_BITS),
                "run": Out(stream.Signature(run_layout())),
                "words": In(stream.Signature(unsigned(8 * config.bus_bytes))),
                "instructions": Out(stream.Signature(instruction_layout())),
                "ended": Out(1),
                "error": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        beats = INSTRUCTION_BYTES // cfg.bus_bytes
        gear = m.submodules.gear = Gearbox(8 * cfg.bus_bytes, 8 * INSTRUCTION_BYTES)
        header = data.View(
            data.StructLayout({"magic": 32, "version": 32, "count": 32, "pad": 32, "hash": 64}),
            gear.target.payload[:192],
        )
        number = Signal(COUNT_BITS)
        count = Signal(COUNT_BITS)
        m.d.comb += [
            gear.source.payload.eq(self.words.payload),
            gear.source.valid.eq(self.words.valid),
            self.words.ready.eq(gear.source.ready),
            self.run.payload.address.eq(self.address),
            self.run.payload.beats.eq(beats),
            self.instructions.payload.bits.eq(gear.target.payload),
            self.instructions.payload.number.eq(number),
        ]
        with m.FSM(name="fetch"):
            with m.State("IDLE"), m.If(self.start):
                m.next = "ASK_HEADER"
            with m.State("ASK_HEADER"):
                m.d.comb += self.run.valid.eq(1)
                with m.If(self.run.ready):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += gear.target.ready.eq(1)
                m.d.sync += [count.eq(header.count), number.eq(0)]
                with m.If(gear.target.valid):
                    m.next = "ASK"
                    too_many = header.count[most_instructions(cfg).bit_length() :].any()
                    with m.If((header.magic != MAGIC) | (header.version != VERSION) | too_many):
                        m.d.sync += self.error.eq(Error.HEADER)
                        m.next = "FAILED"
                    with m.Elif(header.hash != int(cfg.hash, 16)):
                        m.d.sync += self.error.eq(Error.HARDWARE)
                        m.next = "FAILED"
            with m.State("ASK"):
                m.d.comb += [
                    self.run.valid.eq(1),
                    self.run.payload.address.eq(self.address + HEADER_BYTES),
                    self.run.payload.beats.eq(count * beats),
                ]
                with m.If(self.run.ready):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [
                    self.instructions.valid.eq(gear.target.valid),
                    gear.target.ready.eq(self.instructions.ready),
                    self.ended.eq(number == count),
                ]
                with m.If(self.instructions.valid & self.instructions.ready):
                    m.d.sync += number.eq(number + 1)
            with m.State("FAILED"):
                pass
        return m
