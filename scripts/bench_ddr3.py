"""What a board's DDR3 gives, LiteDRAM's controller between: bytes a cycle of reads, of writes and of both at a time.

Controller, PHY, the cells at the pins and a model of the chip are simulated, with bursts as the accelerator's DMA has
them. From this come the share and the latency of `sta_hw.fpga.litedram`. A minute.

With ``--token`` instead: cycles of a token of SmolLM2-135M-Instruct with weights of 4 bits on the board's accelerator,
in RTL, whose memory gives reads and writes together what the controller gives reads, after as long. Some minutes.
With ``--pins`` the same token on the whole board, from the pins in, controller, PHY and chip among it: half an hour.

    python scripts/bench_ddr3.py --board ecpix5-85f
    python scripts/bench_ddr3.py --board ecpix5-85f --token
    python scripts/bench_ddr3.py --board ecpix5-85f --pins
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from boards import Board, board
from sim.accelerator import MemoryModel
from sim.library import compile_library
from sim.pins import HERE
from sta_hw.bench.decode_blocks import token_rows
from sta_hw.cli.app import script
from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.fpga.litedram import Sdram, generate_controller
from sta_hw.run.board import connect
from sta_hw.run.machines import BoardMachine, RtlMachine

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
    target, sdram = _board_with_ddr3(name)
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


def measure_token(name: str, report: Callable[[str], None], *, pins: bool = False) -> list[dict[str, Any]]:
    """Cycles, bytes and tokens a second of a board's clock, at each context; with `pins`, of the whole board.

    Raises
    ------
    InputError
        If the board has no DDR3.
    CheckError
        If a byte of the whole board's image is another than that of the accelerator alone.
    ToolError
        If the chip's data sheet would forbid what the controller does.
    """
    target, sdram = _board_with_ddr3(name)
    config = target.config
    memory = MemoryModel(sdram.latency, sdram.bytes_per_cycle / config.bus_bytes, shared=True)
    alone = RtlMachine(config, memory=memory)
    rows = token_rows(_WholeBoard(target, alone, report) if pins else alone, {8: frozenset()}, report)
    return [row | {"tokens_per_second": target.frequency / row["cycles"]} for row in rows]


class _WholeBoard(BoardMachine):
    """A board from its pins in. Images go into its chip past the pins, for they take hours over its serial line.

    After each program the whole image is compared with that of the accelerator `alone`, byte for byte.
    """

    def __init__(self, target: Board, alone: RtlMachine, report: Callable[[str], None]) -> None:
        assert target.sdram is not None
        report("the board's model is made, and its memory started")
        link = connect(target, "sim")
        super().__init__(target.config, link, target.sdram.size)
        self._alone, self._port, self._report = alone, link.port, report

    def load(self, image: NDArray[np.uint8]) -> None:
        self.link.set_register("control", 0b10)
        self._alone.load(image)
        self._port.put(0, image.tobytes())
        self._bytes = len(image)

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        before = self._alone.read(0, self._bytes).copy()
        cycles, _ = self._alone.run(program, length, position, labels)
        self._report(f"position {position}: {cycles:,} cycles with a memory of the controller's rate")
        found = super().run(program, length, position, labels)
        self._report(f"position {position}: {found[0]:,} cycles on the whole board")
        if self._port.violations:
            raise ToolError(f"{self._port.violations} commands or data that the chip's data sheet forbids.")
        expected = self._alone.read(0, self._bytes)
        changed = np.flatnonzero(before != expected)
        there = np.frombuffer(self._port.get(0, self._bytes), np.uint8)
        if len(wrong := np.flatnonzero(there != expected)):
            raise CheckError(f"{len(wrong):,} bytes differ from the accelerator's alone, the first at {wrong[0]:,}.")
        if not len(changed):
            raise CheckError(f"the program at position {position} changes no byte: nothing was compared.")
        self._report(f"position {position}: all {len(changed):,} bytes that it changes are those of the RTL alone")
        return found


def _board_with_ddr3(name: str) -> tuple[Board, Sdram]:
    target = board(name)
    if target.sdram is None or target.sdram.kind != "DDR3":
        raise InputError(f"board {name} has no DDR3; ecpix5-85f has.")
    return target, target.sdram


def main(
    name: Annotated[str, typer.Option("--board", help="A board with DDR3.")] = "ecpix5-85f",
    token: Annotated[bool, typer.Option("--token", help="A token's cycles, in place of the memory's.")] = False,
    pins: Annotated[bool, typer.Option("--pins", help="The same with the whole board, from its pins in.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure, and print a line for each kind of traffic, or each context of a token."""
    if token and pins:
        raise InputError("--token has a memory in the place of what --pins simulates; choose one.")
    if token or pins:
        rows = measure_token(name, lambda text: print(text, file=sys.stderr, flush=True), pins=pins)
        lines = [
            f"context {row['context']:.0f}: {row['cycles']:,.0f} cycles, "
            f"{row['read_bytes'] + row['written_bytes']:,.0f} bytes, {row['tokens_per_second']:.2f} tokens a second"
            for row in rows
        ]
    else:
        rows = measure(name)
        after = [f", the first beat after {row['latency']} cycles" if row["latency"] else "" for row in rows]
        lines = [
            f"{row['traffic']}: {row['bytes_per_cycle']:.3f} bytes a cycle{first}; {row['violations']} violations"
            for row, first in zip(rows, after, strict=True)
        ]
    typer.echo(json.dumps(rows, indent=1) if as_json else "\n".join(lines))


if __name__ == "__main__":
    script(main)
