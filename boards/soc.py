"""LiteX SoCs with the accelerator: one for simulation, one for a ULX3S; a CPU, LiteDRAM, a serial line, ROM and RAM."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.files import working_folder
from sta_hw.fpga.fit import require_fit
from sta_hw.fpga.parts import PARTS
from sta_hw.fpga.routing import Pins, pack, place_and_route
from sta_hw.fpga.synthesis import synthesize
from sta_hw.spec.config import Config
from sta_hw.spec.presets import preset

from .example import example
from .firmware import compile_firmware
from .registry import board

__all__ = ["BUSES", "MEMORIES", "ROM_BYTES", "SIZES", "build_ulx3s", "missing", "simulated_soc", "told", "ulx3s_soc"]

SIZES = ("12F", "25F", "45F", "85F")
"""Of the ULX3S."""
BUSES = ("wishbone", "axi-lite", "axi")
"""Standards that LiteX's SoCs have for their bus."""
MEMORIES = ("native", "bus", "ram")
"""SDRAM at a port of the accelerator's own, SDRAM through the SoC's bus, block RAM through the SoC's bus."""

ROM_BYTES = 1 << 17
"""Of the ROM that has the program, with its image in it."""
_RAM_BYTES = 1 << 13


def missing(error: ImportError) -> str:
    """The sentence for a module of LiteX, or a CPU's sources, that are not there."""
    name = error.name or re.search(r"pythondata-[\w-]+", str(error)) or "a module"
    name = name if isinstance(name, str) else name[0]
    return f"LiteX is not complete ({name} is missing); pip install 'sta-hw[fpga]' brings it, of CPUs VexRiscv alone."


def _quietly() -> None:
    """LiteX reports what it makes to the log, in hundreds of lines, where nobody else has set the log up."""
    logging.basicConfig(level=logging.ERROR)


def _variant(cpu: str, variant: str | None) -> str:
    """The variant of a CPU, the one asked for or the smallest that has an ordinary name."""
    from litex.soc.cores.cpu import CPUS

    known = {name: found.variants for name, found in sorted(CPUS.items()) if getattr(found, "family", "") == "riscv"}
    if cpu not in known:
        near = get_close_matches(cpu, known, n=1, cutoff=0)[0]
        raise InputError(f"LiteX has no RISC-V called {cpu!r}; there are {', '.join(known)}; the nearest is {near}.")
    variants = list(known[cpu])
    if variant is None:
        return next((name for name in ("minimal", "standard") if name in variants), variants[0])
    if variant not in variants:
        near = get_close_matches(variant, variants, n=1, cutoff=0)[0]
        raise InputError(f"{cpu} has no variant {variant!r}; it has {', '.join(variants)}; the nearest is {near}.")
    return variant


def simulated_soc(
    config: Config | str, *, cpu: str = "vexriscv", variant: str | None = None, bus: str = "wishbone",
    memory: str = "native", sdram_bits: int = 16, verilog: str | None = None,
) -> Any:  # fmt: skip
    """A SoC on LiteX's simulation platform.

    Parameters
    ----------
    config : Config or str
        Of the accelerator, or the name of a preset.
    cpu, variant : str
        A RISC-V as LiteX calls it; of its variants ``minimal`` or ``standard`` if not said.
    bus : str
        Its standard: wishbone, axi-lite or axi.
    memory : str
        ``native``, LiteDRAM with its model of an SDRAM of 32 MiB; ``bus``, the same memory through the SoC's bus;
        ``ram``, 64 KiB of block RAM on the SoC's bus, and no SDRAM.
    sdram_bits : int
        Width of the SDRAM.
    verilog : str, optional
        The accelerator's, if emitted already.

    Raises
    ------
    InputError
        If there is no such CPU or variant; besides, as `add_sta_hw`.
    """
    from litedram.modules import MT48LC16M16
    from litedram.phy.model import SDRAMPHYModel
    from litex.build.generic_platform import Pins, Subsignal
    from litex.build.io import CRG
    from litex.build.sim import SimPlatform
    from litex.soc.integration.soc_core import SoCCore

    from sta_hw.fpga.litex import add_sta_hw

    _quietly()
    variant = _variant(cpu, variant)
    # As LiteX's simulator has them: its serial line is bytes, not bits.
    line = [Subsignal(f"{end}_{name}", Pins(bits)) for end in ("source", "sink")
            for name, bits in (("valid", 1), ("ready", 1), ("data", 8))]  # fmt: skip
    platform = SimPlatform("SIM", [("sys_clk", 0, Pins(1)), ("serial", 0, *line)])
    soc = SoCCore(
        platform, int(1e6), cpu_type=cpu, cpu_variant=variant, bus_standard=bus, uart_name="sim",
        integrated_rom_size=ROM_BYTES, integrated_sram_size=_RAM_BYTES, with_timer=False,
        integrated_main_ram_size=1 << 16 if memory == "ram" else 0,
    )  # fmt: skip
    soc.crg = CRG(platform.request("sys_clk"))
    if memory != "ram":
        module = MT48LC16M16(100e6, "1:1")
        soc.sdrphy = SDRAMPHYModel(module, data_width=sdram_bits, clk_freq=100e6)
        soc.add_sdram("sdram", phy=soc.sdrphy, module=module, l2_cache_size=0)
    add_sta_hw(soc, config, memory="native" if memory == "native" else "bus", verilog=verilog)
    soc.comb += platform.trace.eq(1)
    return soc


_SLOWEST, _FASTEST = 3.125, 400
"""MHz of an ECP5 PLL's outputs."""


def ulx3s_soc(size: str, config: Config | str, *, frequency: float = 50e6, verilog: str | None = None) -> Any:
    """A SoC for a ULX3S: LiteX-Boards' own, with LiteDRAM, a serial line of 115,200 bits a second, the accelerator.

    Parameters
    ----------
    size : str
        12F, 25F, 45F or 85F.
    config : Config or str
        Of the accelerator, or the name of a preset.
    frequency : float
        Of all of it, Hz.
    verilog : str, optional
        The accelerator's, if emitted already.

    Raises
    ------
    InputError
        If there is no such size, or the part's PLL or the SDRAM cannot have the frequency.
    """
    from litex_boards.targets.radiona_ulx3s import BaseSoC

    from sta_hw.fpga.litex import add_sta_hw

    if size.upper() not in SIZES:
        raise InputError(f"ULX3S {size!r} is unknown; there are {', '.join(SIZES)}.")
    if not _SLOWEST <= frequency / 1e6 <= _FASTEST:
        raise InputError(
            f"{frequency / 1e6:g} MHz are out of range; the part's PLL gives {_SLOWEST} to {_FASTEST}, and the boards' "
            "targets take 50."
        )
    _quietly()
    try:
        soc = BaseSoC(
            device=f"LFE5U-{size.upper()}", sys_clk_freq=frequency, cpu_type="vexriscv", cpu_variant="minimal",
            l2_size=0, integrated_rom_size=ROM_BYTES // 2, integrated_sram_size=_RAM_BYTES, with_led_chaser=False,
            with_timer=False,
        )  # fmt: skip
    except (AssertionError, ValueError) as error:  # of LiteX, whose PLLs and SDRAM timings look for themselves
        why = str(error).strip(" .") or "no divider of the PLL gives them"
        raise InputError(f"{frequency / 1e6:g} MHz cannot be had: {why}; 50 can.") from error
    add_sta_hw(soc, config, verilog=verilog)
    return soc


def build_ulx3s(
    size: str, config: Config, folder: Path, *, frequency: float = 50e6, route: bool = False, seed: int = 1,
    minutes: float = 60.0, step: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Compile the example's program, synthesize the SoC and, if `route`, place and route it into ``soc.bit``.

    Returns cells, what the serial line must say, and with `route` the frequency reached, as JSON types.

    Raises
    ------
    CheckError
        If it is not routed in `minutes`, or misses `frequency`; the bitstream is kept.
    InputError
        If it does not fit.
    ToolError
        If a tool is missing or fails.
    """
    with working_folder(folder) as work:
        found = _built(size, config, work, frequency, seed if route else None, minutes, step)
    if route and found["routed"]["fmax"] < frequency / 1e6:
        raise CheckError(
            f"the SoC reaches {found['routed']['fmax']:.1f} MHz (seed {seed}), not {frequency / 1e6:g}; try another "
            f"--seed. The bitstream is in {folder / found['bitstream']}."
        )
    return found


def _built(
    size: str, config: Config, folder: Path, frequency: float, seed: int | None, minutes: float,
    step: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """All of `build_ulx3s` in a folder of its own; routed if there is a seed."""
    step("elaborating")
    small = example(config)
    soc = ulx3s_soc(size, config, frequency=frequency)
    soc.finalize()
    step("compiling the program")
    rom = compile_firmware(soc, small.files, folder)
    soc.init_rom("rom", [int(word) for word in rom], auto_size=False)
    sources = [Path(name) for name, *_ in soc.platform.sources if Path(name).suffix == ".v"]
    soc.build(build_dir=str(folder), build_name="soc", run=False)
    for source in sources:
        shutil.copy(source, folder)
    chip = PARTS[f"lfe5u-{size.lower()}"]
    cells = synthesize(["soc.v", *(s.name for s in sources)], "soc", chip.family, folder, step, pins=True)
    require_fit(cells, chip)
    found: dict[str, Any] = {
        "board": f"ulx3s-{size.lower()}", "configuration": config.as_dict(), "hash": config.hash,
        "frequency_mhz": frequency / 1e6, "program_bytes": 4 * len(rom), "cells": cells,
        "expected": [{"result": f"0x{r:08x}", "memory": f"0x{m:08x}"} for r, m in small.checksums],
    }  # fmt: skip
    if seed is not None:
        options = list(chip.options)
        options[options.index("--package") + 1] = "CABGA381"
        routed = place_and_route(
            "soc", chip, folder, seed=seed, frequency=frequency / 1e6, minutes=minutes, pins=Pins("soc.lpf", options),
            step=step,
        )  # fmt: skip
        if routed is None:
            raise CheckError(f"seed {seed} was not routed within {minutes:g} minutes; try another.")
        found |= {"routed": asdict(routed), "bitstream": pack("soc", chip.family, folder).name}
    return found


def told(error: Exception) -> int:
    """Say on stderr why a command ends; its exit status is given back."""
    print(missing(error) if isinstance(error, ImportError) else error, file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1 if isinstance(error, CheckError) else 3


def main() -> int:
    """Build a ULX3S's LiteX SoC with the accelerator; its program runs a small encoder and says the checksums."""
    parser = argparse.ArgumentParser(
        prog="python -m boards.soc", description=main.__doc__,
        epilog="example: python -m boards.soc --size 85F --route -o build/ulx3s-soc",
    )  # fmt: skip
    parser.add_argument("--size", default="85F", choices=SIZES, help="the board's (default: 85F)")
    parser.add_argument("--preset", help="the accelerator (default: the preset of that size)")
    parser.add_argument("--frequency", type=float, default=50.0, help="MHz (default: 50)")
    parser.add_argument("--route", action="store_true", help="place and route too, and write the bitstream")
    parser.add_argument("--seed", type=int, help="of place and route (default: 1)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/ulx3s-soc"), help="the folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    try:
        if given.seed is not None and not given.route:
            raise InputError("--seed is not used without --route; leave it out.")
        config = preset(given.preset or board(f"ulx3s-{given.size.lower()}").preset)
        found = build_ulx3s(
            given.size, config, given.output, frequency=given.frequency * 1e6, route=given.route,
            seed=1 if given.seed is None else given.seed, step=lambda text: print(text, file=sys.stderr),
        )  # fmt: skip
    except (ImportError, InputError, CheckError, ToolError) as error:
        return told(error)
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, count in found["cells"].items():
        print(f"{name:<20}{count:>10,}")
    if given.route:
        print(f"{found['routed']['fmax']:.1f} MHz, {given.output / found['bitstream']}")
    for number, run in enumerate(found["expected"]):
        print(f"run {number} says result {run['result']}, memory {run['memory']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
