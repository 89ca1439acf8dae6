"""Benchmark of the cycle model: its cycles against RTL, on three configurations and four memories."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..compiler.encoder import compile_encoder
from ..compiler.shapes import shape_graph
from ..cycles.machine import estimate_cycles
from ..cycles.timing import MachineTiming
from ..model.families.layers import LINEAR
from ..spec.config import Config
from ..spec.isa import Error
from ..spec.patterns import parse_nm
from ..spec.presets import PRESETS, preset
from .report import Figure, Report

__all__ = ["BAR", "CONFIGURATIONS", "MEMORIES", "SHAPES", "Shape", "compare", "run"]

BAR = 0.03

Shape = tuple[int, int, int, int, int, str]
"""Hidden size, heads, feed-forward size, layers, tokens, N:M."""

CONFIGURATIONS: dict[str, Config] = {
    "reference": PRESETS["reference"],
    "ecp5-25f": preset("ecp5-25f"),
    # A wide bus of long bursts, of which few may be under way.
    "wide": dataclasses.replace(PRESETS["medium"], lanes=16, drain_lanes=8, burst=32, outstanding=5),
}
"""16 x 8 with a bus of 8 bytes, 8 x 4 with 4, 16 x 16 with 16."""

SHAPES: dict[str, tuple[Shape, ...]] = {
    "reference": (
        (48, 2, 96, 2, 5, "dense"), (96, 3, 192, 1, 16, "2:4"), (96, 6, 384, 2, 31, "1:4"),
        (192, 3, 768, 1, 48, "4:8"), (192, 6, 768, 1, 100, "2:16"), (320, 10, 640, 1, 17, "dense"),
        (384, 12, 1536, 1, 16, "2:4"), (384, 6, 1536, 1, 128, "4:16"), (64, 4, 256, 1, 200, "dense"),
        (128, 4, 512, 1, 300, "2:4"),
    ),
    "ecp5-25f": (
        (32, 2, 64, 2, 1, "dense"), (32, 1, 128, 1, 9, "2:4"), (64, 4, 256, 1, 16, "dense"),
        (96, 3, 384, 1, 33, "1:4"), (128, 4, 512, 1, 24, "2:4"), (128, 8, 256, 2, 40, "4:16"),
        (64, 2, 256, 2, 70, "8:16"), (192, 6, 384, 1, 16, "2:16"), (48, 4, 96, 1, 130, "1:8"),
        (256, 8, 1024, 1, 8, "1:4"),
    ),
    "wide": (
        (64, 2, 128, 2, 1, "dense"), (96, 3, 192, 1, 16, "2:4"), (128, 8, 512, 1, 31, "1:4"),
        (192, 6, 768, 1, 48, "4:8"), (256, 8, 1024, 1, 64, "2:4"), (256, 4, 512, 2, 17, "dense"),
        (384, 12, 1536, 1, 16, "2:16"), (384, 6, 1536, 1, 128, "4:16"), (64, 4, 256, 1, 300, "dense"),
        (384, 12, 768, 1, 96, "12:16"),
    ),
}  # fmt: skip

MEMORIES: dict[str, dict[str, Any]] = {
    "full": {},
    "shared": {"shared": True},
    "half": {"beats_per_cycle": 0.5},
    "half, shared": {"beats_per_cycle": 0.5, "shared": True},
}
"""One beat a cycle in each direction; in both together; half a beat."""


def compare(
    hardware: Any, config: Config, shape: Shape, memories: Mapping[str, Mapping[str, Any]] = MEMORIES
) -> list[dict[str, Any]]:
    """Cycles of a shape on RTL and in the model, with each memory. Weights are zero: cycles do not depend on them."""
    from sim.accelerator import MemoryModel

    hidden, heads, intermediate, layers, tokens, nm = shape
    patterns = {f"{layer}.{name}": parse_nm(nm) for layer in range(layers) for name in LINEAR.values()}
    program = compile_encoder(shape_graph(hidden, heads, layers, intermediate, patterns), config, tokens)
    rows = []
    for name, memory in memories.items():
        run = hardware.run(program.image, program.program_address, memory=MemoryModel(**memory), length=program.length)
        assert run.error == Error.NONE
        found = estimate_cycles(program.instructions, config, MachineTiming(**memory))
        rows.append(
            {
                "shape": f"{layers} x {hidden}/{heads}/{intermediate}, {tokens} tokens, {nm}", "memory": name,
                "rtl": run.cycles, "model": round(found), "error": found / run.cycles - 1,
            }
        )  # fmt: skip
    return rows


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Every shape with every memory; each one's difference has a bar."""
    from sim.accelerator import AcceleratorModel

    rows, figures = [], []
    for name, config in CONFIGURATIONS.items():
        report(f"{name}: compiling the RTL")
        hardware = AcceleratorModel(config)
        for number, shape in enumerate(SHAPES[name]):
            report(f"{name}: shape {number + 1} of {len(SHAPES[name])}")
            for row in compare(hardware, config, shape):
                rows.append({"configuration": name, **row})
                label = f"{name}, {row['memory']}: {row['shape']}: difference from RTL"
                figures.append(Figure(label, abs(row["error"]), "1", f"<= {BAR}"))
        hardware.close()
    return Report("model", CONFIGURATIONS["reference"], rows, figures)
