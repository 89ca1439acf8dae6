"""The accelerator in a LiteX SoC: registers on its bus, memory through LiteDRAM or the bus, an interrupt."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib.wiring import Out
from litedram.frontend.axi import LiteDRAMAXI2Native
from litex.gen import ClockSignal, Instance, LiteXModule, ResetSignal, Signal
from litex.soc.integration.soc import SoC, SoCError, SoCRegion
from litex.soc.interconnect.axi import AXIInterface, AXILiteInterface

from ..arguments import text_of, whole
from ..cache import cache_folder, keep, kept
from ..errors import InputError
from ..rtl.bus.axi import lite_ports, master_ports
from ..rtl.emit import emit_verilog
from ..rtl.tops import component
from ..spec.config import Config
from ..spec.presets import configured

__all__ = ["REGISTER_BYTES", "STAHW", "add_sta_hw", "module_name"]

REGISTER_BYTES = 4096
"""Bytes of addresses that the registers take on the SoC's bus."""
_REACH = 1 << 32
"""The accelerator's own addresses have 32 bits."""
_ADDRESS_BITS = (32, 64)
_LONGEST_NAME = 64
_LONGEST_BURST = 256
"""Beats of AXI4."""


def module_name(config: Config) -> str:
    """The Verilog module of a configuration: one SoC may have accelerators of several."""
    return f"sta_hw_{config.hash}"


class _Interrupt(LiteXModule):
    """What a SoC looks for in a module that interrupts. LiteX's event managers have registers of their own for what
    the accelerator's registers do already: enable, look, clear."""

    def __init__(self) -> None:
        self.irq = Signal()


class STAHW(LiteXModule):
    """An accelerator as a LiteX module, in the clock domain ``sys``.

    Parameters
    ----------
    platform : LiteX platform
        Is given the Verilog as a source.
    config : Config or str
        Or the name of a preset.
    address_width : int
        Of both buses, 32 or 64; the accelerator's own addresses have 32 bits, what is above is 0.
    verilog : str, optional
        The Verilog of the module `module_name`, where it was emitted already; emission takes seconds to a minute.

    Members
    -------
    bus : AXILiteInterface
        Slave: the registers, `REGISTER_BYTES` of addresses.
    axi : AXIInterface
        Master: memory, ``config.bus_bytes`` wide, INCR bursts.
    ev : module
        ``ev.irq`` is the interrupt, a level until it is cleared in the accelerator's register.

    Raises
    ------
    ConfigError
        If the preset is unknown, or this configuration has no accelerator.
    InputError
        If the platform is none, takes no addresses of such a width, or the Verilog is another module's.
    """

    def __init__(
        self, platform: Any, config: Config | str, *, address_width: int = 32, verilog: str | None = None
    ) -> None:
        self.config = config = _configuration(config)
        if not hasattr(platform, "add_source"):
            raise InputError(f"a platform is LiteX's, as soc.platform is, and not {str(platform)[:40]!r}.")
        address_width = whole(address_width, "address_width")
        if not _ADDRESS_BITS[0] <= address_width <= _ADDRESS_BITS[1]:
            nearest = min(max(address_width, _ADDRESS_BITS[0]), _ADDRESS_BITS[1])
            raise InputError(f"address_width = {address_width} is not 32 to 64 bits; the nearest is {nearest}.")
        source = _source(config, verilog)
        self.bus = bus = AXILiteInterface(data_width=32, address_width=address_width)
        self.axi = axi = AXIInterface(data_width=8 * config.bus_bytes, address_width=address_width, bursting=True)
        self.ev = _Interrupt()
        ports: dict[str, Any] = {"i_clk": ClockSignal("sys"), "i_rst": ResetSignal("sys"), "o_irq": self.ev.irq}
        for interface, members in ((axi, master_ports(config.bus_bytes)), (bus, lite_ports())):
            for name, member in members.items():
                signal = name.split("_")[-1]
                channel = signal[: 2 if signal.startswith("a") else 1]
                found = getattr(getattr(interface, channel), signal.removeprefix(channel))
                found = found[: _width(member)] if signal.endswith("addr") else found
                ports[f"{'o' if member.flow is Out else 'i'}_{name}"] = found
        # What AXI has and the accelerator leaves constant: accesses may be merged and buffered.
        self.comb += [axi.aw.cache.eq(0b0011), axi.ar.cache.eq(0b0011)]
        self.specials += Instance(module_name(config), **ports)
        platform.add_source(str(source), copy=True)


def _width(member: Any) -> int:
    """Bits of a port member of Amaranth's."""
    return Shape.cast(member.shape).width


def _configuration(config: Config | str) -> Config:
    found = configured(config)
    found.require_accelerator()
    return found


def _source(config: Config, verilog: str | None) -> Path:
    """The Verilog as a file that stays: LiteX reads sources when the SoC is built."""
    name = module_name(config)
    text = text_of(verilog, "verilog") if verilog is not None else emit_verilog(component("accelerator", config), name)
    if not re.search(rf"^module {name}\b", text, re.M):
        raise InputError(f"the Verilog given has no module {name}; leave it out, and it is made.")
    path = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.v"
    if kept(path) is None:
        keep(path, text.encode())
    return path


def add_sta_hw(
    soc: Any, config: Config | str, *, name: str = "sta_hw", origin: int | None = None, memory: str = "auto",
    verilog: str | None = None,
) -> STAHW:  # fmt: skip
    """Add an accelerator to a SoC, as LiteX's own ``add_...`` do; call it behind ``add_sdram``.

    Registers are the region `name` of the SoC's bus (Wishbone, AXI-Lite or AXI), the interrupt is `name` too, so that
    LiteX's headers have ``STA_HW_BASE`` and ``STA_HW_INTERRUPT``. Addresses in memory are those of the SoC's bus.

    Parameters
    ----------
    soc : LiteX SoC
    config : Config or str
        Or the name of a preset.
    name : str
        Of the module, its region and its interrupt.
    origin : int, optional
        Where the registers begin, a multiple of `REGISTER_BYTES`; LiteX chooses if not given.
    memory : str
        ``native``: a port of LiteDRAM of its own, as wide as the accelerator's bus. ``bus``: LiteX's adapters to the
        SoC's bus (or to the CPU's coherent DMA bus, if it has one). ``auto``: ``native`` where the SoC has LiteDRAM
        and no coherent DMA bus.
    verilog : str, optional
        As in `STAHW`.

    Raises
    ------
    ConfigError
        As `STAHW`.
    InputError
        If what is given is no SoC, or one whose hardware is made already, the name is no identifier, or taken; if
        the SoC has no memory, none that the accelerator reaches or that a cache would hide from it, one of another
        width than LiteX adapts, or no room for the registers.
    """
    config = _configuration(config)
    if not isinstance(soc, SoC):
        raise InputError(f"a SoC is one of LiteX's, such as a SoCCore, and not {str(soc)[:40]!r}.")
    if soc.finalized:
        raise InputError("the SoC's hardware is made already (finalize); add the accelerator before that.")
    _check_name(name)
    region = _main_memory(soc)
    memory = _way(soc, memory)
    if hasattr(soc, name):
        raise InputError(f"the SoC has something called {name} already; give this accelerator another name.")
    width = soc.bus.address_width
    if memory == "native":
        _check_native(soc, region)
    else:
        _check_bus(soc, config)
    accelerator = STAHW(soc.platform, config, address_width=width, verilog=verilog)
    _add_registers(soc, name, origin, accelerator)
    soc.add_module(name, accelerator)
    if memory == "native":
        port = soc.sdram.crossbar.get_port(mode="both", data_width=8 * config.bus_bytes)
        # The region lies at a multiple of the memory's size: what is above that falls away.
        accelerator.native = LiteDRAMAXI2Native(accelerator.axi, port)
    else:
        getattr(soc, "dma_bus", soc.bus).add_master(name, accelerator.axi)
    return accelerator


def _check_name(name: str) -> None:
    """LiteX makes names of signals and of C macros out of it."""
    if re.fullmatch(rf"[a-zA-Z]\w{{0,{_LONGEST_NAME - 1}}}", text_of(name, "name"), re.ASCII):
        return
    near = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_")[:_LONGEST_NAME] or "sta_hw"
    near = near if near[0].isalpha() else f"sta_hw_{near}"[:_LONGEST_NAME]
    raise InputError(
        f"name = {name[:80]!r} is none for C and Verilog: a letter, then letters, digits and underscores, "
        f"{_LONGEST_NAME} at most; the nearest is {near}."
    )


def _main_memory(soc: Any) -> Any:
    """The region that the accelerator works in."""
    region = soc.bus.regions.get("main_ram")
    if region is None:
        raise InputError(
            "the SoC has no region main_ram for the accelerator to work in; call add_sdram first, or give SoCCore an "
            "integrated_main_ram_size."
        )
    if region.origin + region.size > _REACH:
        raise InputError(
            f"the accelerator's addresses have 32 bits, and main_ram ends at 0x{region.origin + region.size:x}; the "
            f"nearest end is 0x{_REACH:x}."
        )
    return region


def _way(soc: Any, memory: str) -> str:
    """``native`` or ``bus``."""
    if memory not in ("auto", "native", "bus"):
        raise InputError(f"memory = {memory!r} is unknown; it is auto, native or bus.")
    litedram = hasattr(getattr(soc, "sdram", None), "crossbar")
    if memory == "native" and not litedram:
        raise InputError("memory = native needs LiteDRAM, and this SoC has none; call add_sdram first, or give bus.")
    if memory == "auto":
        return "native" if litedram and not hasattr(soc, "dma_bus") else "bus"
    return memory


def _check_native(soc: Any, region: Any) -> None:
    if hasattr(soc, "l2_cache"):
        raise InputError(
            "main_ram is behind LiteX's L2 cache, which a port of LiteDRAM goes round, so the CPU would not see the "
            "accelerator's writes; give add_sdram l2_cache_size=0, or memory=bus."
        )
    controller = soc.sdram.crossbar.controller
    if controller.data_width & (controller.data_width - 1):
        raise InputError(
            f"LiteDRAM's words have {controller.data_width} bits here, and the accelerator's port needs a power of "
            f"two; the nearest below is {1 << (controller.data_width.bit_length() - 1)}."
        )
    geometry = soc.sdram.crossbar
    size = controller.data_width // 8 << (geometry.rca_bits + geometry.bank_bits - geometry.rank_bits)
    if region.origin % size:
        raise InputError(
            f"main_ram begins at 0x{region.origin:x}, which is no multiple of the SDRAM's {size:,} bytes; the nearest "
            f"is 0x{round(region.origin / size) * size:x}."
        )


def _check_bus(soc: Any, config: Config) -> None:
    """LiteX's adapter to a wider bus merges whole wide words alone, that to a narrower one multiplies the beats."""
    bus = getattr(soc, "dma_bus", soc.bus)
    own = 8 * config.bus_bytes
    if bus.data_width > own:
        raise InputError(
            f"the SoC's bus is {bus.data_width} bits wide, and LiteX does not adapt the accelerator's bursts of "
            f"{own} bits to a wider one; give bus_data_width={own}, a configuration with lanes = "
            f"{bus.data_width // 8}, or memory=native."
        )
    beats = config.burst * own // bus.data_width
    if beats > _LONGEST_BURST:
        raise InputError(
            f"bursts of {config.burst} beats of {own} bits are {beats} of {bus.data_width} bits, and AXI has at most "
            f"{_LONGEST_BURST}; the nearest burst is {_LONGEST_BURST * bus.data_width // own}."
        )


def _add_registers(soc: Any, name: str, origin: int | None, accelerator: STAHW) -> None:
    """Registers and interrupt; LiteX's errors are lines in its log, and it takes sys.stderr away with them."""
    origin = None if origin is None else whole(origin, "origin")
    if origin is not None and (origin % REGISTER_BYTES or not 0 <= origin < _REACH):
        nearest = min(max(round(origin / REGISTER_BYTES) * REGISTER_BYTES, 0), _REACH - REGISTER_BYTES)
        raise InputError(
            f"origin = 0x{origin:x} is no multiple of {REGISTER_BYTES} below 4 GiB; the nearest is 0x{nearest:x}."
        )
    stderr, reserved = sys.stderr, dict(soc.irq.locs)
    try:
        if soc.irq.enabled:
            soc.irq.add(name, use_loc_if_exists=True)
    except SoCError:
        sys.stderr = stderr
        raise InputError(
            "the SoC has no interrupt left for the accelerator; take another peripheral away, or give irq_n_irqs."
        ) from None
    try:
        soc.bus.add_slave(name, accelerator.bus, SoCRegion(origin=origin, size=REGISTER_BYTES, cached=False))
    except SoCError:
        sys.stderr = stderr
        soc.bus.regions.pop(name, None)  # the SoC is as it was
        soc.irq.locs = reserved
        raise InputError(
            f"the SoC has no {REGISTER_BYTES:,} bytes of addresses for the accelerator's registers"
            f"{'' if origin is None else f' at 0x{origin:x}'}, outside of other regions and where its CPU does not "
            "cache; give another origin."
        ) from None
