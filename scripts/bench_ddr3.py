"""What a board's DDR3 gives, LiteDRAM's controller between: bytes a cycle of reads, of writes and of both at a time.

Controller, PHY, the cells at the pins and a model of the chip are simulated, with bursts as the accelerator's DMA has
them. From this come the share and the latency of `sta_hw.fpga.litedram`. A minute.

    python scripts/bench_ddr3.py --board ecpix5-85f
"""

from __future__ import annotations

import ctypes
import json
from typing import Annotated, Any

import typer

from boards import board
from sim.library import compile_library
from sim.pins import HERE
from sta_hw.cli.app import script
from sta_hw.errors import InputError, ToolError
from sta_hw.fpga.litedram import generate_controller

TRAFFIC = (("reads, one burst at a time", 1, 1, 0), ("reads", 8, 1, 0), ("writes", 8, 0, 1), ("both", 8, 1, 1))
_WINDOW = 100_000
_BEAT = 16


def measure(name: str) -> list[dict[str, Any]]:
    """Bytes a cycle of each kind of traffic, cycles from an address to its first beat, and the chip's complaints.

    Raises
    ------
    InputError
        If the board has no DDR3.
    ToolError
        If the controller does not start, or the chip's data sheet would forbid what it does.
    """
    target = board(name)
    sdram = target.sdram
    if sdram is None or sdram.kind != "DDR3":
        raise InputError(f"board {name} has no DDR3; ecpix5-85f has.")
    oscillator = float(target.make_platform().default_clk_frequency)
    controller = generate_controller(sdram, target.frequency, _BEAT, oscillator)
    entries = [f"{n}: entry = 64'h{a << 48 | d << 16 | w:x};" for n, (a, d, w) in enumerate(controller.start_up)]
    traffic = (HERE / "ddr3_traffic.v").read_text(encoding="utf-8")
    traffic = traffic.replace("START_UP", "\n".join(entries)).replace("COUNT", str(len(entries)))
    library = ctypes.CDLL(
        str(
            compile_library(
                controller.verilog + traffic, "board",
                '#pragma once\n#include "Vboard.h"\nusing Model = Vboard;\n', HERE / "ddr3_traffic.cpp",
                extra=[HERE / f for f in ("ecp5_ddr3.v", "sdram_cells.v", "ddr3.v")],
            )
        )
    )  # fmt: skip
    library.traffic.restype = ctypes.c_int64
    rows = []
    for title, outstanding, reads, writes in TRAFFIC:
        latency, violations = ctypes.c_int64(), ctypes.c_int64()
        beats = library.traffic(outstanding, reads, writes, ctypes.byref(latency), ctypes.byref(violations))
        if beats < 0 or violations.value:
            raise ToolError(
                f"{title}: the controller does not start." if beats < 0 else
                f"{title}: {violations.value} commands or data that the chip's data sheet forbids."
            )  # fmt: skip
        rows.append({
            "traffic": title, "bytes_per_cycle": beats * _BEAT / _WINDOW, "latency": latency.value,
            "violations": violations.value,
        })  # fmt: skip
    return rows


def main(
    name: Annotated[str, typer.Option("--board", help="A board with DDR3.")] = "ecpix5-85f",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure, and print a line for each kind of traffic."""
    rows = measure(name)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        after = f", the first beat after {row['latency']} cycles" if row["latency"] else ""
        typer.echo(
            f"{row['traffic']}: {row['bytes_per_cycle']:.3f} bytes a cycle{after}; {row['violations']} violations"
        )


if __name__ == "__main__":
    script(main)
