"""Benchmark of the cycle model: its cycles against RTL on 20 shapes."""

from __future__ import annotations

from collections.abc import Callable

from ..compiler.encoder import compile_encoder
from ..compiler.quantize import shape_encoder
from ..isa import Error
from ..model.bert import LINEAR_NAMES
from ..patterns import parse_nm
from ..perf.model import estimate_cycles
from ..perf.state import MachineTiming
from ..presets import PRESETS
from .report import Figure, Report

__all__ = ["SHAPES", "run"]

BAR = 0.03
SHAPES = (
    # hidden, heads, intermediate, layers, tokens, N:M, latency
    (48, 2, 96, 2, 5, "dense", 50), (96, 3, 192, 1, 16, "2:4", 50), (96, 6, 384, 2, 31, "1:4", 50),
    (192, 6, 384, 1, 16, "dense", 50), (192, 3, 768, 1, 48, "4:8", 50), (192, 6, 768, 1, 100, "2:16", 50),
    (240, 5, 480, 1, 64, "8:16", 50), (320, 10, 640, 1, 17, "dense", 50), (320, 5, 1280, 1, 80, "2:4", 50),
    (384, 12, 1536, 1, 16, "2:4", 50), (384, 12, 1536, 1, 64, "dense", 50), (384, 6, 1536, 1, 128, "4:16", 50),
    (384, 12, 1536, 1, 96, "1:8", 50), (384, 12, 768, 2, 40, "12:16", 50), (512, 8, 1024, 1, 33, "3:8", 50),
    (512, 16, 2048, 1, 64, "2:8", 50), (512, 8, 2048, 1, 128, "2:4", 100), (64, 4, 256, 1, 200, "dense", 50),
    (128, 4, 512, 1, 300, "2:4", 50), (768, 12, 3072, 1, 48, "4:16", 20),
)  # fmt: skip
"""Never used to choose a constant of the model."""


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Weights are zero: cycles do not depend on them."""
    from sim.accelerator import AcceleratorModel, MemoryModel

    config = PRESETS["reference"]
    report("compiling the RTL")
    hardware = AcceleratorModel(config)
    rows, figures = [], []
    for number, (hidden, heads, intermediate, layers, tokens, nm, latency) in enumerate(SHAPES):
        report(f"shape {number + 1} of {len(SHAPES)}")
        patterns = {(layer, name): parse_nm(nm) for layer in range(layers) for name in LINEAR_NAMES}
        program = compile_encoder(shape_encoder(hidden, heads, layers, intermediate, patterns), config, tokens)
        run = hardware.run(program.image, program.program_address, memory=MemoryModel(latency=latency))
        assert run.error == Error.NONE
        found = estimate_cycles(program.instructions, config, MachineTiming(latency=latency))
        error = found / run.cycles - 1
        name = f"{layers} x {hidden}/{heads}/{intermediate}, {tokens} tokens, {nm}"
        rows.append({"shape": name, "latency": latency, "rtl": run.cycles, "model": round(found), "error": error})
        figures.append(Figure(f"{name}: difference from RTL", abs(error), "1", f"<= {BAR}"))
    return Report("model", config, rows, figures)
