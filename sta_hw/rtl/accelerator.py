"""The whole accelerator: AXI4 master for data, AXI4-Lite slave for control, an interrupt."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ..spec.config import Config
from ..spec.registers import COMPLETIONS, COUNTERS
from .bus.axi import lite_ports, master_ports
from .control.registers import Registers
from .core import WATCHDOG_BITS, Core

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """Runs programs from memory (sta_hw/spec/isa/); sta_hw/spec/registers.py lists its registers.

    Parameters
    ----------
    config : Config
    watchdog_bits : int
        Less than all accelerators have, for simulations of many programs that wait for ever.

    Members
    -------
    m_axi_* : AXI4 master, ``8 * lanes`` bits of data, INCR bursts of up to `burst` beats
    s_axi_* : AXI4-Lite slave, 32 bits
    irq : Out(1)
        Level, until cleared.
    busy, failed : Out(1)
        The status register's bits, for lamps.
    activity : Out(23)
        What the units do in this cycle, in the order of the counters, and what they completed
        (`Core`): for a logic analyser or a simulation's timeline.

    Raises
    ------
    ConfigError
        If this configuration has no accelerator; the message says why.
    """

    def __init__(self, config: Config, watchdog_bits: int = WATCHDOG_BITS) -> None:
        config.require_accelerator()
        self.config, self.watchdog_bits = config, watchdog_bits
        super().__init__(
            master_ports(config.bus_bytes)
            | lite_ports()
            | {"irq": Out(1), "activity": Out(len(COUNTERS) - 1 + COMPLETIONS.width), "busy": Out(1), "failed": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        registers = m.submodules.registers = Registers(cfg)
        core = Core(cfg, self.watchdog_bits)
        # The core's reset comes straight from a register: it goes to thousands of others.
        core_reset, late_reset = Signal(), Signal(init=1)
        m.domains.core = ClockDomain(local=True)
        m.d.sync += late_reset.eq(core_reset)
        m.d.comb += [ClockSignal("core").eq(ClockSignal()), ResetSignal("core").eq(late_reset)]
        m.submodules.core = DomainRenamer("core")(core)

        for name, member in lite_ports().items():
            inner, outer = getattr(registers, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        for name in ("araddr", "arlen", "arvalid", "rready", "awaddr", "awlen", "awvalid", "wdata", "wstrb", "wlast",
                     "wvalid", "bready"):  # fmt: skip
            m.d.comb += getattr(self, f"m_axi_{name}").eq(getattr(core, name))
        for name in ("arready", "rdata", "rresp", "rlast", "rvalid", "awready", "wready", "bresp", "bvalid"):
            m.d.comb += getattr(core, name).eq(getattr(self, f"m_axi_{name}"))
        for channel in ("aw", "ar"):
            m.d.comb += [
                getattr(self, f"m_axi_{channel}size").eq(cfg.bus_bytes.bit_length() - 1),
                getattr(self, f"m_axi_{channel}burst").eq(1),  # INCR
            ]

        m.d.comb += [
            core_reset.eq(registers.core_reset),
            core.start.eq(registers.core_start),
            core.stop.eq(registers.core_stop),
            registers.core_idle.eq(core.idle),
            registers.core_finished.eq(core.finished),
            registers.core_failed.eq(core.failed),
            *(
                getattr(core, n).eq(getattr(registers, n))
                for n in ("image_address", "image_size", "program_address", "length", "position")
                if n != "position" or n in cfg.features
            ),
            *(getattr(registers, n).eq(getattr(core, n)) for n in ("error", "instruction", "stalled", "events")),
            self.irq.eq(registers.irq),
            self.busy.eq(registers.busy),
            self.failed.eq(registers.last_failed),
            self.activity.eq(Mux(registers.running, Cat(core.events, core.completed), 0)),
        ]
        return m
