"""Programs for SoCs: compiled with the C driver against the headers that LiteX makes of a SoC."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sta_hw.errors import InputError, ToolError
from sta_hw.process import run_tool

__all__ = ["COMPILERS", "compile_firmware", "find_compiler", "soc_headers"]

DRIVER = Path(__file__).parents[1] / "drivers" / "c"
COMPILERS = ("riscv64-unknown-elf-gcc", "riscv32-unknown-elf-gcc")
_SOURCES = ("sta_hw.c", "sta_hw_mapped.c", "example/litex/main.c", "example/litex/image.S")
_OPTIONS = (
    "-std=gnu99", "-Os", "-ffreestanding", "-fno-builtin", "-ffunction-sections",
    "-fno-tree-loop-distribute-patterns",  # else memset becomes a call of memset
)  # fmt: skip


def find_compiler() -> str:
    """The RISC-V compiler there is.

    Raises
    ------
    ToolError
        If there is none; the message names a package.
    """
    for name in COMPILERS:
        if shutil.which(name):
            return name
    raise ToolError(
        f"there is no C compiler for RISC-V ({' or '.join(COMPILERS)}): apt-get install gcc-riscv64-unknown-elf."
    )


def soc_headers(soc: Any) -> dict[str, str]:
    """Headers and linker scripts of a finalized SoC as LiteX's builder has them, by name in ``generated``."""
    from litex.soc.integration import export

    found = {
        "output_format.ld": export.get_linker_output_format(soc.cpu),
        "regions.ld": export.get_linker_regions(soc.bus.regions),
        "mem.h": export.get_mem_header(soc.bus.regions),
        "soc.h": export.get_soc_header(soc.constants),
        "csr.h": export.get_csr_header(soc.csr.regions, soc.constants, soc.bus.regions["csr"].origin),
    }
    if hasattr(soc, "sdram"):
        from litedram.init import get_sdram_phy_c_header

        settings = soc.sdram.controller.settings
        found["sdram_phy.h"] = get_sdram_phy_c_header(settings.phy, settings.timing, settings.geom)
    return found


def compile_firmware(soc: Any, image: Mapping[str, bytes | str], folder: Path) -> NDArray[np.uint32]:
    """Compile drivers/c/example/litex for a finalized SoC; return the words of its ROM.

    Parameters
    ----------
    image : mapping
        ``image.bin``, ``image.h`` and ``image.inputs``, as `raw_files` and `inputs_file` give them for a model that is
        called ``image``.
    folder : Path
        Is given the headers, the image, and ``firmware.elf`` and ``.bin``.

    Raises
    ------
    InputError
        If the program does not fit into the ROM.
    ToolError
        If there is no compiler, or it fails.
    """
    import litex.soc

    folder = folder.absolute()  # The compiler runs in it, and its options name it.
    compiler = find_compiler()
    if not DRIVER.is_dir():
        raise ToolError(f"the C driver's sources are not at {DRIVER}: run from a clone, not from an installed package.")
    (folder / "generated").mkdir(parents=True, exist_ok=True)
    for name, text in soc_headers(soc).items():
        if name == "regions.ld":  # whether it fits is looked at below: the linker would say it in many lines
            text = re.sub(r"(\brom : .*LENGTH = )\w+", r"\g<1>0x1000000", text)
        (folder / "generated" / name).write_text(text, encoding="utf-8")
    for name, content in image.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    cpu = Path(inspect.getfile(type(soc.cpu))).parent
    flags = soc.cpu.gcc_flags.split()
    include = Path(litex.soc.__path__[0]) / "software" / "include"
    # LiteX names versions of extensions (rv32i2p0_m), which GCC's libraries are not found by.
    plain = [re.sub(r"2p0_?", "", flag) for flag in flags if flag.startswith(("-march", "-mabi"))]
    library = run_tool([compiler, *plain, "-print-libgcc-file-name"]).strip()
    run_tool(
        [compiler, *flags, *_OPTIONS, "-Wall", "-Wextra", "-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none",
         f"-I{DRIVER}", f"-I{folder}", "-isystem", str(include), "-isystem", str(cpu),
         '-DMODEL_HEADER="image.h"', "-DMODEL=IMAGE",
         f"-L{folder}", f"-T{DRIVER / 'example/litex/linker.ld'}", str(cpu / "crt0.S"),
         *(str(DRIVER / name) for name in _SOURCES), library, "-o", "firmware.elf"],
        folder=folder,
    )  # fmt: skip
    run_tool([compiler.replace("gcc", "objcopy"), "-O", "binary", "firmware.elf", "firmware.bin"], folder=folder)
    data = (folder / "firmware.bin").read_bytes()
    size = soc.bus.regions["rom"].size
    if len(data) > size:
        raise InputError(f"program and image take {len(data):,} bytes, and the SoC's ROM has {size:,}.")
    return np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
