"""What a board's SDRAM gives, from its pins in: a random encoder layer on the simulated board, against the cycle model.

The pins, LiteDRAM's controller and a model of the chip are simulated (`sim.pins`). From the bytes that were moved and
the cycles they took follows how many bytes a cycle the memory gives where it is what holds the accelerator up:
`Sdram.bytes_per_cycle`. With these the cycle model should come near the cycles counted. Minutes a board.

    python scripts/bench_board_memory.py --board ulx3s-25f
"""

from __future__ import annotations

from typing import Annotated

import typer

from boards import board
from sta_hw.cli.app import script
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.errors import InputError
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.run.board import BoardBackend, connect
from sta_hw.spec.patterns import parse_nm

CASES = ((128, 4, 256, 16, "2:4"), (128, 4, 256, 32, "dense"), (64, 2, 512, 64, "2:8"))
"""Hidden and heads, intermediate size, tokens, N:M."""


def main(
    name: Annotated[str, typer.Option("--board", help="A board with SDRAM.")] = "ulx3s-25f",
    cases: Annotated[int, typer.Option(help="How many of the shapes.", min=1, max=len(CASES))] = len(CASES),
) -> None:
    """Run the shapes on the simulated board; print bytes a cycle, and how near the cycle model comes."""
    target = board(name)
    config, sdram = target.config, target.sdram
    if sdram is None:
        raise InputError(f"--board {name} has no SDRAM, whose traffic is measured.")
    backend = BoardBackend(config, connect(target, "sim"))
    timing = MachineTiming(sdram.latency, sdram.bytes_per_cycle / config.bus_bytes, shared=True)
    for hidden, heads, intermediate, tokens, nm in CASES[:cases]:
        model = random_model(1, hidden=hidden, heads=heads, intermediate=intermediate)
        patterns = mixed_patterns([parse_nm(nm)])
        program = compile_encoder(quantize(model, [random_ids(0, 12)], patterns), config, tokens)
        run = backend.run(program, accelerator_part(model).embed("ids", random_ids(1, tokens))).run
        moved = (run.counters["read_beats"] + run.counters["write_beats"]) * config.bus_bytes
        estimated = estimate_cycles(program.instructions, config, timing)
        print(
            f"{name}: {hidden} x {intermediate}, {tokens} tokens, {nm}: {run.cycles:,} cycles, "
            f"{moved / run.cycles:.3f} bytes a cycle; the cycle model: {estimated / run.cycles:.3f} of the cycles",
            flush=True,
        )


if __name__ == "__main__":
    script(main)
