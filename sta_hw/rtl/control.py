"""AXI4-Lite registers and counters of the accelerator."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..registers import COUNTER_BASE, COUNTERS, REGISTERS, capabilities
from .axi import LITE_ADDRESS_BITS, RESPONSE_OKAY, SLAVE_ERROR, lite_ports
from .counters import Counters
from .layouts import COUNT_BITS

__all__ = ["Registers"]


class Registers(wiring.Component):
    """The register file behind AXI4-Lite; a register that does not exist answers with an error.

    Members
    -------
    s_axi_* : the bus
    interrupt : Out(1)
    start, reset : Out(1)
        One cycle each.
    last_failed : Out(1)
        As in the status register.
    image_address, image_size, program_address : Out(32)
    running : In(1)
    finished, failed : In(1)
        One cycle each; `error` and `instruction` are taken with `failed`.
    error : In(8), instruction : In(20)
    stalled : In(7)
    events : In(len(COUNTERS))
        Each counter's increment in this cycle.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            lite_ports()
            | {
                "interrupt": Out(1), "start": Out(1), "reset": Out(1), "last_failed": Out(1),
                "image_address": Out(32), "image_size": Out(32), "program_address": Out(32),
                "running": In(1), "finished": In(1), "failed": In(1),
                "error": In(8), "instruction": In(COUNT_BITS),
                "stalled": In(7), "events": In(len(COUNTERS)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values: dict[str, object] = {n: Const(v, 32) for n, v in capabilities(self.config).items()}
        enabled, pending, done, failed = Signal(), Signal(), Signal(), Signal()
        error, instruction = Signal(8), Signal(COUNT_BITS)
        values["control"] = Cat(Const(0, 2), enabled)
        values["status"] = Cat(self.running, done, failed, Const(0, 5), error, pending)
        values["error_instruction"] = instruction
        values["stalled"] = self.stalled
        writable = {}
        for name in ("image_address", "image_size", "program_address"):
            writable[name] = values[name] = getattr(self, name)
        m.submodules.counters = counters = Counters(count=len(COUNTERS))
        m.d.comb += [counters.events.eq(self.events), counters.clear.eq(self.start)]
        m.d.comb += [self.interrupt.eq(pending & enabled), self.last_failed.eq(failed)]

        # Writes: address and data may come in either order.
        address, word, strobes = Signal(LITE_ADDRESS_BITS), Signal(32), Signal(4)
        have_address, have_word = Signal(), Signal()
        write = Signal()
        m.d.comb += [
            self.s_axi_awready.eq(~have_address),
            self.s_axi_wready.eq(~have_word),
            write.eq(have_address & have_word & (~self.s_axi_bvalid | self.s_axi_bready)),
        ]
        with m.If(self.s_axi_awvalid & self.s_axi_awready):
            m.d.sync += [address.eq(self.s_axi_awaddr), have_address.eq(1)]
        with m.If(self.s_axi_wvalid & self.s_axi_wready):
            m.d.sync += [word.eq(self.s_axi_wdata), strobes.eq(self.s_axi_wstrb), have_word.eq(1)]
        with m.If(self.s_axi_bready):
            m.d.sync += self.s_axi_bvalid.eq(0)
        m.d.sync += [self.start.eq(0), self.reset.eq(0)]
        mask = Cat(s.replicate(8) for s in strobes)
        with m.If(write):
            m.d.sync += [
                have_address.eq(0),
                have_word.eq(0),
                self.s_axi_bvalid.eq(1),
                self.s_axi_bresp.eq(SLAVE_ERROR),
            ]
            with m.Switch(address[2:]):
                for r in REGISTERS:
                    with m.Case(r.offset >> 2):
                        if r.access != "ro":
                            m.d.sync += self.s_axi_bresp.eq(RESPONSE_OKAY)
                        if r.name in writable:
                            target = writable[r.name]
                            m.d.sync += target.eq((target & ~mask) | (word & mask))
                        elif r.name == "control":
                            with m.If(strobes[0]):
                                m.d.sync += [
                                    self.start.eq(word[0] & ~self.running & ~word[1]),
                                    self.reset.eq(word[1]),
                                    enabled.eq(word[2]),
                                ]
                        elif r.name == "interrupt_clear":
                            m.d.sync += pending.eq(0)
        with m.If(self.start | self.reset):
            m.d.sync += [done.eq(0), failed.eq(0), error.eq(0), instruction.eq(0), pending.eq(0)]
        with m.If(self.finished):
            m.d.sync += [done.eq(1), pending.eq(1)]
        with m.If(self.failed):
            m.d.sync += [failed.eq(1), pending.eq(1), error.eq(self.error), instruction.eq(self.instruction)]

        # Reads: the address, then what is there, in two cycles; a counter when its turn comes.
        reading = Signal()
        read_address = Signal(LITE_ADDRESS_BITS - 2)
        counter = Signal()
        ready = Signal()
        first_counter = COUNTER_BASE >> 2
        m.d.comb += [
            self.s_axi_arready.eq(~reading & ~self.s_axi_rvalid),
            counter.eq((read_address >= first_counter) & (read_address < first_counter + len(COUNTERS))),
            counters.select.eq(read_address - first_counter),
            ready.eq(~counter | counters.ready),
        ]
        with m.If(~reading | ready):
            m.d.sync += reading.eq(self.s_axi_arvalid & self.s_axi_arready)
        with m.If(self.s_axi_arready):
            m.d.sync += read_address.eq(self.s_axi_araddr[2:])
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(reading & ready):
            m.d.sync += [self.s_axi_rvalid.eq(1), self.s_axi_rdata.eq(0), self.s_axi_rresp.eq(SLAVE_ERROR)]
            with m.If(counter):
                m.d.sync += [self.s_axi_rdata.eq(counters.value), self.s_axi_rresp.eq(RESPONSE_OKAY)]
            with m.Switch(read_address):
                for r in REGISTERS:
                    if r.name in values and r.access != "wo":
                        with m.Case(r.offset >> 2):
                            m.d.sync += [self.s_axi_rdata.eq(values[r.name]), self.s_axi_rresp.eq(RESPONSE_OKAY)]
        return m
