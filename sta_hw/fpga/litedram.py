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

from ..errors import InputError, ToolError
from ..process import failure

__all__ = ["LEVELING_REGISTERS", "MemoryController", "Sdram", "generate_controller"]

_LATENCY = {"SDR": 15, "DDR3": 26}
"""Cycles from an address to its first beat, controller and chip. Where bandwidth is short it hardly matters. DDR3's are
23 that ``scripts/bench_ddr3.py`` counts at the controller, and 3 of the registers between it and the accelerator."""
_SHARE = {"SDR": 0.65, "DDR3": 0.79}
"""Of its peak, what the memory gives the accelerator: between reads, writes and rows lie cycles without data.
Measured from the pins in, ``scripts/bench_board_memory.py``; DDR3's is that of reads alone, ``scripts/bench_ddr3.py``:
of writes as many as of reads go at a little more than half of it."""
_TRANSFERS = {"SDR": 1, "DDR3": 4}
"""Of each data pin in a cycle of the accelerator's clock; DDR3 runs at twice that clock, and takes both its edges."""
LEVELING_REGISTERS = {
    "ddrphy_dly_sel": 0x200, "ddrphy_rdly_dq_rst": 0x201, "ddrphy_rdly_dq_inc": 0x202,
    "ddrphy_rdly_dq_bitslip_rst": 0x203, "ddrphy_rdly_dq_bitslip": 0x204, "ddrphy_burstdet_clr": 0x205,
    "ddrphy_burstdet_seen": 0x206, "sdram_dfii_pi0_wrdata": 0x405,
    "sdram_dfii_pi1_wrdata": 0x40D,
}  # fmt: skip
"""Word addresses, among the DDR3 controller's registers, of what the host levels reads with
(`sta_hw.host.leveling`), and of two that nothing else needs once the memory has started; the generator's own list is
compared."""


@dataclass(frozen=True)
class Sdram:
    """A memory on a board.

    Attributes
    ----------
    module : str
        LiteDRAM's name of the chip.
    byte_lanes : int
        Of the data pins.
    size : int
        Bytes.
    kind : str
        ``SDR``, or ``DDR3`` behind an ECP5's own cells for it, whose reads are leveled before use.
    """

    module: str = "MT48LC16M16"
    byte_lanes: int = 2
    size: int = 1 << 25
    kind: str = "SDR"

    @property
    def peak(self) -> int:
        """Bytes a cycle that its pins carry, at most."""
        return _TRANSFERS[self.kind] * self.byte_lanes

    @property
    def bytes_per_cycle(self) -> float:
        """Read and written together, where the accelerator waits for it."""
        return _SHARE[self.kind] * self.peak

    def port_bytes(self, bus_bytes: int) -> int:
        """Of the controller's port for a bus: a DDR3's word is a whole burst, which LiteDRAM shares out one by one."""
        return bus_bytes if self.kind == "SDR" else max(bus_bytes, 8 * self.byte_lanes)

    @property
    def latency(self) -> int:
        """Cycles from an address to its first beat, controller and chip."""
        return _LATENCY[self.kind]


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
def generate_controller(
    sdram: Sdram, frequency: float, bus_bytes: int, oscillator: float | None = None
) -> MemoryController:
    """Run LiteDRAM's generator for one memory, clock (Hz) and accelerator bus.

    A DDR3's controller makes the clock itself, from the board's `oscillator` (Hz): module ``litedram_core`` then gives
    ``user_clk`` and ``user_rst``.

    Raises
    ------
    InputError
        If a DDR3 comes without its oscillator.
    ToolError
        If LiteDRAM is not installed, or fails.
    """
    phy: dict[str, str | float] = {"sdram_phy": "GENSDRPHY", "input_clk_freq": frequency, "init_clk_freq": frequency}
    if sdram.kind == "DDR3":
        if oscillator is None:
            raise InputError(
                f"{sdram.module}: a controller of DDR3 makes its clocks; name the board's oscillator in Hz."
            )
        # Terminations as LiteDRAM's example for this cell has them.
        phy = {"sdram_phy": "ECP5DDRPHY", "input_clk_freq": oscillator, "init_clk_freq": 25e6,
               "rtt_nom": "60ohm", "rtt_wr": "60ohm", "ron": "34ohm"}  # fmt: skip
    settings = {
        "speedgrade": 6, "device": "LFE5U-85F-6BG381C", "cpu": "None", "memtype": sdram.kind, "uart": "fifo",
        "sdram_module": sdram.module, "sdram_module_nb": sdram.byte_lanes, "sdram_rank_nb": 1,
        "sys_clk_freq": frequency, "cmd_buffer_depth": 8, "with_auto_precharge": True, **phy,
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
    verilog = re.sub(r"input(\s+wire\s+\[\d+:0\]\s+\w+_(?:dq|dqs_p)\b)", r"inout\1", verilog)
    verilog = "\n".join(line for line in verilog.splitlines() if not line.startswith("// Date")) + "\n"
    addresses = {name: int(value, 16) >> 2 for name, value in re.findall(r"csr_register,(\w+),(0x\w+)", registers)}
    if sdram.kind == "DDR3" and not LEVELING_REGISTERS.items() <= addresses.items():
        raise ToolError("this LiteDRAM has the registers for leveling elsewhere; requirements.txt names one that fits.")
    return MemoryController(verilog, _start_up(header, addresses))


def _start_up(header: str, addresses: dict[str, int]) -> tuple[tuple[int, int, int], ...]:
    """The initialization that LiteDRAM gives as C, as register writes."""
    constants = {name: int(value, 16) for name, value in re.findall(r"#define (DFII_\w+) (0x\w+)", header)}
    writes: list[list[int]] = []

    def value(text: str) -> int:
        return sum(constants[word] if word in constants else int(word, 0) for word in text.split("|"))

    body = header[header.index("void init_sequence") :]
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
