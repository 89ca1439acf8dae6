"""Benchmark of the whole accelerator: all layers of all-MiniLM-L6-v2, 128 tokens, several N:M, on RTL."""

from __future__ import annotations

from collections.abc import Callable

from ..run.backends import ReferenceBackend, RtlBackend
from ..run.outcome import compare
from ..spec.presets import PRESETS
from ..tasks.embedder import Embedder
from ..tasks.patterns import read_patterns
from .report import Figure, Report

__all__ = ["run"]

TOKENS = 128
BARS = {"dense": 0.92, "2:4": 0.92, "4:16": 0.88, "2:16": 0.80}
SPEED_UP_BARS = {"2:4": 1.80, "4:16": 3.2, "2:16": 5.0}
TEXT = " ".join(["An accelerator that skips zeros is worth its name only if it loses no time over them."] * 8)


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Cycles counted in RTL; memory of 8 bytes a cycle in each direction, 50 cycles of latency.

    The memory after each run is compared with the reference's, byte for byte.
    """
    from sim.accelerator import MemoryModel

    config = PRESETS["reference"]
    report("loading the model")
    embedder = Embedder.load()
    ids = embedder.token_ids(TEXT)[:TOKENS]
    embedded = embedder.part.embed("ids", ids)
    report("compiling the RTL")
    hardware = RtlBackend(config)
    reference = ReferenceBackend(config)
    rows, figures = [], []
    cycles = {}
    for name, bar in BARS.items():
        report(f"{name}: compiling")
        model = embedder.compile(read_patterns(name, None, embedder.linears), config, TOKENS)
        expected = reference.run(model, embedded)
        for shared in (False, True):
            report(f"{name}: running on RTL{', one bandwidth for both directions' if shared else ''}")
            hardware.memory = MemoryModel(latency=50, beats_per_cycle=1.0, shared=shared)
            outcome = hardware.run(model, embedded)
            compare(model, outcome.image, expected.image, expected.trail)
            counters = outcome.run.counters
            total, ideal = counters["cycles"], model.info.ideal_cycles
            waits = {k: v / total for k, v in counters.items() if k.startswith("engine_wait")}
            rows.append(
                {
                    "nm": name, "memory": "shared" if shared else "duplex", "cycles": total, "ideal": ideal,
                    "fraction": ideal / total, **waits, "read": counters["read_beats"] / total,
                    "write": counters["write_beats"] / total,
                }
            )  # fmt: skip
            if shared:
                continue
            cycles[name] = total
            figures.append(Figure(f"{name}: fraction of ideal", ideal / total, "1", f">= {bar}"))
            vector = waits["engine_wait_softmax"] + waits["engine_wait_norm"]
            figures.append(Figure(f"{name}: waits for softmax, LayerNorm or GELU", vector, "1", "<= 0.02"))
            if name in SPEED_UP_BARS:
                speed_up = cycles["dense"] / total
                figures.append(Figure(f"{name}: speed-up over dense", speed_up, "1", f">= {SPEED_UP_BARS[name]}"))
    return Report("encoder", config, rows, figures)
