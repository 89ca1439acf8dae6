"""Top level of ECP5 boards: clocks, pins, board core, and LiteDRAM where the whole accelerator is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In

from sta_hw.errors import InputError
from sta_hw.rtl.bus.axi import master_ports
from sta_hw.spec.config import Config

from .description import Board

__all__ = ["Ecp5Top", "Pll", "pll"]


@dataclass(frozen=True)
class Pll:
    """Dividers of an EHXPLLL with feedback from its first output."""

    input: int
    feedback: int
    output: int

    def frequency(self, source: float) -> float:
        """Hz out for Hz in."""
        return source / self.input * self.feedback


def pll(source: float, target: float) -> Pll:
    """Dividers for exactly `target` Hz from `source` Hz; the oscillator runs near 600 MHz (400 to 800).

    Raises
    ------
    InputError
        If no dividers give it.
    """
    for divide in range(1, 9):
        feedback = target * divide / source
        output = round(600e6 / target)
        steps_of_quarter = output % 4 == 0  # so that a quarter period can be told off
        if feedback == int(feedback) and 1 <= feedback <= 128 and source / divide >= 3.125e6:
            while output * target > 800e6 or not steps_of_quarter:
                output += 1 if output * target < 600e6 else -1
                steps_of_quarter = output % 4 == 0
            if 400e6 <= output * target <= 800e6:
                return Pll(divide, int(feedback), output)
    raise InputError(f"no PLL setting gives {target / 1e6:g} MHz from {source / 1e6:g} MHz; try 80 MHz.")


class Ecp5Top(Elaboratable):
    """Pins to `board_core` and, if the board has SDRAM, `litedram_core`, which are Verilog files beside.

    Parameters
    ----------
    board : Board
    config : Config
        Of the board core.
    """

    def __init__(self, board: Board, config: Config) -> None:
        self.board, self.config = board, config

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = ClockDomain(reset_less=False)
        ddr3 = self.board.sdram is not None and self.board.sdram.kind == "DDR3"
        if not ddr3:
            self._clocks(m, platform)
        core = self._core(m)
        self._serial(m, platform, core)
        if ddr3:
            self._ddr3(m, platform, core)
        elif self.board.sdram is not None:
            self._sdr(m, platform, core)
        lamps = {"ready": core["ready"], "busy": core["busy"], "failed": core["failed"]}
        if ("led", 0) in platform.resources:
            for i, signal in enumerate(lamps.values()):
                port = platform.request("led", i, dir="-")
                m.submodules[f"led_{i}"] = buffer = io.Buffer("o", port)
                m.d.comb += buffer.o.eq(signal)
        else:
            ports = platform.request("rgb_led", 0, dir="-")
            for name, signal in zip("gbr", lamps.values(), strict=True):
                m.submodules[f"led_{name}"] = buffer = io.Buffer("o", getattr(ports, name))
                m.d.comb += buffer.o.eq(signal)
        return m

    def _clocks(self, m: Module, platform: Any) -> None:
        """The oscillator, multiplied; and a quarter of a period later for the SDRAM."""
        port = platform.request(platform.default_clk, dir="-")
        m.submodules.clock_buffer = buffer = io.Buffer("i", port)
        dividers = pll(platform.default_clk_frequency, self.board.frequency)
        locked, clock = Signal(), Signal()
        self._shifted = Signal()
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=dividers.input, p_CLKFB_DIV=dividers.feedback,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=dividers.output, p_CLKOP_CPHASE=dividers.output - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED", p_CLKOS_DIV=dividers.output,
            p_CLKOS_CPHASE=dividers.output - 1 + dividers.output // 4, p_CLKOS_FPHASE=0,
            i_CLKI=buffer.i, i_CLKFB=clock, i_RST=Const(0), i_STDBY=Const(0), i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0), i_PHASEDIR=Const(0), i_PHASESTEP=Const(0), i_PHASELOADREG=Const(0),
            i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0),
            o_CLKOP=clock, o_CLKOS=self._shifted, o_LOCK=locked,
        )  # fmt: skip
        m.d.comb += ClockSignal().eq(clock)
        m.submodules.reset = ResetSynchronizer(~locked)

    def _core(self, m: Module) -> dict[str, Signal]:
        """The board core, its ports as signals by name."""
        members: dict[str, tuple[int, bool]] = {}
        if self.board.sdram is not None:
            ports_of_bus = master_ports(self.board.sdram.port_bytes(self.config.bus_bytes))
            members = {n: (len_of(member), member.flow is In) for n, member in ports_of_bus.items()}
            for bus in ("host", "control"):
                for name, width in (("adr", 30), ("dat_w", 32), ("sel", 4), ("cyc", 1), ("stb", 1), ("we", 1)):
                    members[f"{bus}_{name}"] = (width, False)
                members |= {f"{bus}_dat_r": (32, True), f"{bus}_ack": (1, True)}
        members |= {"rx": (1, True), "tx": (1, False), "ready": (1, False), "busy": (1, False), "failed": (1, False)}
        signals = {name: Signal(width, name=name) for name, (width, _) in members.items()}
        ports = {f"{'i' if inward else 'o'}_{name}": signals[name] for name, (_, inward) in members.items()}
        m.submodules.core = Instance("board_core", i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
        return signals

    def _serial(self, m: Module, platform: Any, core: dict[str, Signal]) -> None:
        ports = platform.request("uart", dir="-")
        m.submodules.rx_buffer = rx = io.Buffer("i", ports.rx)
        m.submodules.tx_buffer = tx = io.Buffer("o", ports.tx)
        m.d.comb += [core["rx"].eq(rx.i), tx.o.eq(core["tx"])]

    def _sdr(self, m: Module, platform: Any, core: dict[str, Signal]) -> None:
        """LiteDRAM between the board core and an SDR SDRAM."""
        pins = platform.request("sdram", dir="-")
        names = {"a": "a", "ba": "ba", "cas": "cas_n", "clk_en": "cke", "cs": "cs_n", "dqm": "dm", "ras": "ras_n",
                 "we": "we_n"}  # fmt: skip
        ports: dict[str, Any] = _outputs(m, pins, names, "sdram")
        m.submodules.clk_buffer = buffer = io.Buffer("o", pins.clk)
        m.submodules.clk_output = Instance(
            "ODDRX1F", i_SCLK=self._shifted, i_RST=Const(0), i_D0=Const(1), i_D1=Const(0), o_Q=buffer.o
        )
        ports |= {"i_clk": ClockSignal(), "i_rst": ResetSignal(), "io_sdram_dq": pins.dq.io}
        m.submodules.memory = self._controller(m, core, ports)

    def _ddr3(self, m: Module, platform: Any, core: dict[str, Signal]) -> None:
        """LiteDRAM between the board core and a DDR3 SDRAM; its clock for the board core comes from there."""
        pins = platform.request("ddr3", dir="-")
        names = {"a": "a", "ba": "ba", "cas": "cas_n", "clk": "clk_p", "clk_en": "cke", "dm": "dm", "odt": "odt",
                 "ras": "ras_n", "we": "we_n"}  # fmt: skip
        ports: dict[str, Any] = _outputs(m, pins, names, "ddram")
        m.submodules.clock_buffer = buffer = io.Buffer("i", platform.request(platform.default_clk, dir="-"))
        ports |= {
            "i_clk": buffer.i, "i_rst": Const(0), "o_user_clk": ClockSignal(), "o_user_rst": ResetSignal(),
            "io_ddram_dq": pins.dq.io, "io_ddram_dqs_p": pins.dqs.p,
        }  # fmt: skip
        m.submodules.memory = self._controller(m, core, ports)

    def _controller(self, m: Module, core: dict[str, Signal], ports: dict[str, Any]) -> Instance:
        """LiteDRAM with `ports` to its chip, and those to the board core."""
        sdram = self.board.sdram
        assert sdram is not None
        address_bits = sdram.size.bit_length() - 1
        data: dict[str, Any] = {}
        for name, member in master_ports(sdram.port_bytes(self.config.bus_bytes)).items():
            short = name.removeprefix("m_axi_")
            signal = core[name]
            if short.endswith("addr"):
                signal = signal[:address_bits]
            elif short.endswith("size"):
                widened = Signal(4, name=f"{short}_widened")
                m.d.comb += widened.eq(signal)
                signal = widened
            data[f"{'o' if member.flow is In else 'i'}_user_port_data_{short}"] = signal
        return Instance(
            "litedram_core", **ports, **data,
            i_user_port_host_adr=core["host_adr"][: address_bits - 2],
            **{f"i_user_port_host_{n}": core[f"host_{n}"] for n in ("dat_w", "sel", "cyc", "stb", "we")},
            **{f"o_user_port_host_{n}": core[f"host_{n}"] for n in ("dat_r", "ack")},
            **{f"i_wb_ctrl_{n}": core[f"control_{n}"] for n in ("adr", "dat_w", "sel", "cyc", "stb", "we")},
            **{f"o_wb_ctrl_{n}": core[f"control_{n}"] for n in ("dat_r", "ack")},
            i_wb_ctrl_bte=Const(0, 2), i_wb_ctrl_cti=Const(0, 3),
        )  # fmt: skip


def _outputs(m: Module, pins: Any, names: dict[str, str], prefix: str) -> dict[str, Any]:
    """Output pins by LiteDRAM's names for them; of differential ones the cell that drives both is at the first."""
    found: dict[str, Any] = {}
    for pin, name in names.items():
        # LiteDRAM's outputs have the pins' own polarity.
        given = getattr(pins, pin)
        port = io.SingleEndedPort(given.p if isinstance(given, io.DifferentialPort) else given.io, direction="o")
        m.submodules[f"{pin}_buffer"] = buffer = io.Buffer("o", port)
        found[f"o_{prefix}_{name}"] = buffer.o
    return found


def len_of(member: Any) -> int:
    """Width of a port member in bits."""
    return Signal(member.shape).shape().width
