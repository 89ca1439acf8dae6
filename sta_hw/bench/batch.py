"""Benchmark of batches: many sentences through the same weights, all-MiniLM-L6-v2 at 2:4, on RTL."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice

import numpy as np

from ..model.minilm import calibration_sentences
from ..run.backends import RtlBackend
from ..spec.presets import PRESETS
from ..tasks.batch import Batcher
from ..tasks.embedder import Embedder
from ..tasks.patterns import read_patterns
from .report import Figure, Report

__all__ = ["CASES", "run", "sentences"]

CASES: dict[str, tuple[list[int], float]] = {
    "8 sentences of 16 tokens": ([16] * 8, 0.90),
    "8 sentences of 4 to 60 tokens": ([int(n) for n in np.linspace(4, 60, 8).round()], 0.80),
    "100 sentences of 4 to 60 tokens": ([int(n) for n in np.linspace(4, 60, 100).round()], 0.80),
}
"""Lengths, and the bar for the fraction of ideal."""


def sentences(embedder: Embedder, lengths: list[int]) -> list[list[int]]:
    """Token ids of so many texts of these lengths, in an order that does not help: running text with marks around."""
    assert embedder.tokenizer is not None
    marked = [embedder.tokenizer.token_ids(s) for s in calibration_sentences()]
    words = cycle(token for ids in marked for token in ids[1:-1])
    order = np.random.default_rng(0).permutation(len(lengths))
    return [[marked[0][0], *islice(words, lengths[i] - 2), marked[0][-1]] for i in order]


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Cycles counted in RTL; memory of 8 bytes a cycle in each direction, 50 cycles of latency.

    The ideal are the multiply-accumulates of the sentences' own tokens. Memory is compared with the reference's after
    every run, byte for byte.
    """
    from sim.accelerator import MemoryModel

    config = PRESETS["reference"]
    report("loading the model")
    embedder = Embedder.load()
    patterns = read_patterns("2:4", None, embedder.linears)
    batcher = Batcher(embedder, patterns, config)
    report("compiling the RTL")
    hardware = RtlBackend(config, MemoryModel(latency=50, beats_per_cycle=1.0))
    rows, figures = [], []
    for name, (lengths, bar) in CASES.items():
        embedded = [embedder.part.embed("ids", ids) for ids in sentences(embedder, lengths)]
        found = batcher.run(
            embedded, hardware, check=True, progress=lambda what, *_, name=name: report(f"{name}: {what}")
        )
        assert found.cycles is not None and found.fraction is not None
        rows.append(
            {
                "case": name, "tokens": found.tokens, "programs": found.programs, "cycles": found.cycles,
                "ideal": found.ideal_cycles, "fraction": found.fraction,
            }
        )  # fmt: skip
        figures.append(Figure(f"{name}: fraction of ideal", found.fraction, "1", f">= {bar}"))
    return Report("batch", config, rows, figures)
