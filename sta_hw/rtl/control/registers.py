"""AXI4-Lite registers and counters of the accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ...spec.isa import Error
from ...spec.registers import COUNTER_BASE, COUNTERS, capabilities, there
from ..bus.axi import LITE_ADDRESS_BITS, RESPONSE_OKAY, SLAVE_ERROR, lite_ports
from ..primitives.layouts import COUNT_BITS, LENGTH_BITS
from .controller import Controller
from .counters import Counters

__all__ = ["Registers"]


class Registers(wiring.Component):
    """The register file behind AXI4-Lite, and the controller that it commands.

    A register that does not exist answers with an error. A write acts in the cycle before its answer; a read gives the
    state of the cycle before its own.

    Members
    -------
    s_axi_* : the bus
    irq : Out(1)
    busy, last_failed : Out(1)
        As in the status register.
    image_address, image_size, program_address : Out(32); length, and with feature position `position` : Out(16)
        Of the job under way: what the registers held when it was started. The image's are whole bursts.
    core_start, core_stop, core_reset : Out(1); core_idle, core_finished, core_failed : In(1)
        As in `Controller`.
    error : In(8), instruction : In(16)
        Taken with `core_failed`.
    running : Out(1)
        The core runs a job: its events count.
    stalled : In(7)
    events : In(len(COUNTERS) - 1)
        Each counter's increment in this cycle, but that of the first, which counts cycles.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            lite_ports()
            | {
                "irq": Out(1), "busy": Out(1), "last_failed": Out(1),
                "image_address": Out(32), "image_size": Out(32), "program_address": Out(32),
                "length": Out(LENGTH_BITS),
                "core_start": Out(1), "core_stop": Out(1), "core_reset": Out(1),
                "core_idle": In(1), "core_finished": In(1), "core_failed": In(1),
                "error": In(8), "instruction": In(COUNT_BITS),
                "running": Out(1), "stalled": In(7), "events": In(len(COUNTERS) - 1),
                **({"position": Out(LENGTH_BITS)} if "position" in config.features else {}),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        controller = m.submodules.controller = Controller()
        m.d.comb += [
            *(getattr(self, n).eq(getattr(controller, n)) for n in ("core_start", "core_stop", "core_reset")),
            *(getattr(controller, n).eq(getattr(self, n)) for n in ("core_idle", "core_finished", "core_failed")),
            self.busy.eq(controller.busy),
            self.running.eq(controller.running),
        ]
        job = _job()
        writable = {n: Signal(32, name=n) for n in ("image_address", "image_size", "program_address")}
        writable["length"] = Signal(LENGTH_BITS, name="written_length")
        if "position" in self.config.features:
            writable["position"] = Signal(LENGTH_BITS, name="written_position")
        m.d.comb += controller.sound.eq(self._place(m, writable, controller.accepted))
        m.submodules.counters = counters = Counters(count=len(COUNTERS))
        m.d.comb += [
            counters.events.eq(Mux(controller.running, Cat(1, self.events), 0)),
            counters.clear.eq(controller.accepted),
        ]
        m.d.comb += [self.irq.eq(job.pending & job.enabled), self.last_failed.eq(job.failed)]
        self._write(m, controller, job, writable)
        self._read(m, counters, self._values(job) | writable)
        return m

    def _values(self, job: _Job) -> dict[str, Value]:
        """What is read of registers that cannot be written, or not as they are read."""
        values: dict[str, Value] = {n: Const(v, 32) for n, v in capabilities(self.config).items()}
        status = Cat(self.busy, job.done, job.failed, job.refused, Const(0, 4), job.error, job.pending)
        return values | {
            "control": Cat(Const(0, 2), job.enabled),
            "status": status,
            "error_instruction": job.instruction,
            "stalled": self.stalled,
        }

    def _write(self, m: Module, controller: Controller, job: _Job, writable: Mapping[str, Signal]) -> None:
        """Writes, of which address and data may come in either order; what becomes of the job that one starts."""
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
        mask = Cat(s.replicate(8) for s in strobes)
        with m.If(write):
            m.d.sync += [
                have_address.eq(0),
                have_word.eq(0),
                self.s_axi_bvalid.eq(1),
                self.s_axi_bresp.eq(SLAVE_ERROR),
            ]
            with m.Switch(address[2:]):
                for r in there(self.config):
                    with m.Case(r.offset >> 2):
                        if r.access != "ro":
                            m.d.sync += self.s_axi_bresp.eq(RESPONSE_OKAY)
                        if r.name in writable:
                            target = writable[r.name]
                            m.d.sync += target.eq((target & ~mask) | (word & mask))
                        elif r.name == "control":
                            with m.If(strobes[0]):
                                m.d.comb += [controller.start.eq(word[0]), controller.reset.eq(word[1])]
                                m.d.sync += job.enabled.eq(word[2])
                        elif r.name == "interrupt_clear":
                            with m.If(strobes.any()):
                                m.d.sync += job.pending.eq(0)
        # What the last job left goes in the cycle that may enable the interrupt; a job that ends while the interrupt is
        # cleared raises it.
        pending, done, failed, error = job.pending, job.done, job.failed, job.error
        with m.If(controller.accepted | controller.reset):
            m.d.sync += [
                done.eq(0), failed.eq(0), job.refused.eq(0), error.eq(0), job.instruction.eq(0), pending.eq(0),
            ]  # fmt: skip
        with m.If(controller.start & ~controller.accepted):
            m.d.sync += job.refused.eq(1)
        with m.If(controller.finished):
            m.d.sync += [done.eq(1), pending.eq(1)]
        with m.If(controller.failed):
            m.d.sync += [failed.eq(1), pending.eq(1), error.eq(self.error), job.instruction.eq(self.instruction)]
        with m.If(controller.misplaced):
            m.d.sync += [failed.eq(1), pending.eq(1), error.eq(Error.ADDRESS)]

    def _read(self, m: Module, counters: Counters, values: Mapping[str, Value]) -> None:
        """Reads: the address, then what is there, in two cycles; a counter when its turn comes."""
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
                for r in there(self.config):
                    if r.name in values and r.access != "wo":
                        with m.Case(r.offset >> 2):
                            m.d.sync += [self.s_axi_rdata.eq(values[r.name]), self.s_axi_rresp.eq(RESPONSE_OKAY)]

    def _place(self, m: Module, written: Mapping[str, Signal], accepted: Value) -> Value:
        """Keep image and program of the job that is accepted; return whether the image is one."""
        low = (self.config.burst * self.config.bus_bytes).bit_length() - 1
        kept = {n: Signal(32 - low, name=f"{n}_kept") for n in ("image_address", "image_size")}
        program = Signal(32, name="program_address_kept")
        length = Signal(LENGTH_BITS, name="length_kept")
        aligned = Signal()
        with m.If(accepted):
            m.d.sync += [
                *(k.eq(written[n][low:]) for n, k in kept.items()),
                program.eq(written["program_address"]),
                length.eq(written["length"]),
                aligned.eq(~Cat(written[n][:low] for n in kept).any()),
            ]
        m.d.comb += [getattr(self, n).eq(Cat(Const(0, low), k)) for n, k in kept.items()]
        m.d.comb += [self.program_address.eq(program), self.length.eq(length)]
        if "position" in self.config.features:
            position = Signal(LENGTH_BITS, name="position_kept")
            with m.If(accepted):
                m.d.sync += position.eq(written["position"])
            m.d.comb += self.position.eq(position)
        # It may reach to the end of the address space, and no further.
        end = Signal(33 - low)
        m.d.comb += end.eq(kept["image_address"] + kept["image_size"])
        return aligned & ~(end[-1] & end[:-1].any())


@dataclass(frozen=True)
class _Job:
    """What is known of the last job.

    Attributes
    ----------
    enabled, pending : Signal
        The interrupt: whether it is passed on; whether there is one.
    done, failed, refused : Signal
        How it ended; `refused`: one was started while it ran.
    error, instruction : Signal
        What failed, and where.
    """

    enabled: Signal
    pending: Signal
    done: Signal
    failed: Signal
    refused: Signal
    error: Signal
    instruction: Signal


def _job() -> _Job:
    """None at first."""
    enabled, pending, done, failed, refused = Signal(), Signal(), Signal(), Signal(), Signal()
    error, instruction = Signal(8), Signal(COUNT_BITS)
    return _Job(enabled, pending, done, failed, refused, error, instruction)
