"""SDRAM controllers: LiteDRAM's standalone generator, its output ready for our flow and for simulation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import ToolError
from ..process import failure

__all__ = ["SDRAM_LATENCY", "SDRAM_SHARE", "MemoryController", "Sdram", "generate_controller"]


SDRAM_LATENCY = 15
"""Cycles from an address to its first beat, controller and chip. Where bandwidth is short it hardly matters."""
SDRAM_SHARE = 0.65
"""Of its peak, what an SDR SDRAM gives the accelerator: between reads, writes and rows lie cycles without data.
Measured from the pins in, ``scripts/bench_board_memory.py``."""


@dataclass(frozen=True)
class Sdram:
    """An SDR SDRAM on a board: LiteDRAM's name of the chip, 16-bit chips' byte lanes, and its size in bytes."""

    module: str = "MT48LC16M16"
    byte_lanes: int = 2
    size: int = 1 << 25

    @property
    def bytes_per_cycle(self) -> float:
        """Read and written together, where the accelerator waits for it; a word of the chip a cycle is the peak."""
        return SDRAM_SHARE * self.byte_lanes


@dataclass(frozen=True)
class MemoryController:
    """A LiteDRAM core.

    Attributes
    ----------
    verilog : str
        Module ``litedram_core``: AXI4 port ``user_port_data_*``, Wishbone ports ``user_port_host_*`` (memory) and
        ``wb_ctrl_*`` (its registers).
    start_up : tuple of (word address, data, cycles to wait afterwards)
        Writes to ``wb_ctrl`` that start the memory.
    """

    verilog: str
    start_up: tuple[tuple[int, int, int], ...]


@cache
def generate_controller(sdram: Sdram, frequency: float, bus_bytes: int) -> MemoryController:
    """Run LiteDRAM's generator for one memory, clock (Hz) and accelerator bus.

    Raises
    ------
    ToolError
        If LiteDRAM is not installed, or fails.
    """
    settings = {
        "speedgrade": 6, "device": "LFE5U-85F-6BG381C", "cpu": "None", "memtype": "SDR", "uart": "fifo",
        "sdram_module": sdram.module, "sdram_module_nb": sdram.byte_lanes, "sdram_rank_nb": 1,
        "sdram_phy": "GENSDRPHY", "input_clk_freq": frequency, "sys_clk_freq": frequency,
        "init_clk_freq": frequency, "cmd_buffer_depth": 8, "with_auto_precharge": True,
        "user_ports": {
            "data": {"type": "axi", "id_width": 1, "data_width": 8 * bus_bytes},
            "host": {"type": "wishbone", "data_width": 32},
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sta_hw_") as name:
        folder = Path(name)
        (folder / "memory.yml").write_text(json.dumps(settings))
        run = subprocess.run(
            [sys.executable, "-m", "litedram.gen", "--output-dir", "out", "--no-compile", "memory.yml"],
            cwd=folder, capture_output=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        verilog_path = folder / "out/gateware/litedram_core.v"
        if "No module named" in run.stderr:
            raise ToolError("LiteDRAM is not installed; pip install -r requirements.txt brings it.")
        if run.returncode or not verilog_path.exists():
            raise ToolError(f"LiteDRAM refuses {sdram.module}: {failure(run.stderr)}.")
        verilog = verilog_path.read_text(encoding="utf-8")
        header = (folder / "out/software/include/generated/sdram_phy.h").read_text(encoding="utf-8")
        registers = (folder / "out/csr.csv").read_text(encoding="utf-8")
    # The generator declares the data pins, which it drives, as inputs; the header says when it ran.
    verilog = re.sub(r"input(\s+wire\s+\[\d+:0\]\s+sdram_dq)", r"inout\1", verilog)
    verilog = "\n".join(line for line in verilog.splitlines() if not line.startswith("// Date")) + "\n"
    return MemoryController(verilog, _start_up(header, registers))


def _start_up(header: str, registers: str) -> tuple[tuple[int, int, int], ...]:
    """The initialization that LiteDRAM gives as C, as register writes."""
    constants = {name: int(value, 16) for name, value in re.findall(r"#define (DFII_\w+) (0x\w+)", header)}
    addresses = {name: int(value, 16) >> 2 for name, value in re.findall(r"csr_register,(\w+),(0x\w+)", registers)}
    writes: list[list[int]] = []

    def value(text: str) -> int:
        return sum(constants[word] if word in constants else int(word, 0) for word in text.split("|"))

    body = header[header.index("init_sequence") :]
    for name, argument in re.findall(r"(\w+)\(([\w|]+)\);", body):
        if name == "cdelay":
            writes[-1][2] = int(argument)
        elif name == "command_p0":
            writes.append([addresses["sdram_dfii_pi0_command"], value(argument), 0])
            writes.append([addresses["sdram_dfii_pi0_command_issue"], 1, 0])
        else:
            writes.append([addresses[name.removesuffix("_write")], value(argument), 0])
    writes.append([addresses["sdram_dfii_control"], constants["DFII_CONTROL_SEL"], 0])
    writes.append([addresses["ddrctrl_init_done"], 1, 0])  # lets the ports in
    return tuple((a, d, w) for a, d, w in writes)
