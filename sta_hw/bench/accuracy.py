"""Benchmark of accuracy: quantized embeddings against fp32, on the reference backend, which the RTL equals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..model.minilm import evaluation_sentences
from ..report.accuracy import compared_outputs, cosines
from ..spec.presets import PRESETS
from ..tasks.embedder import Embedder
from ..tasks.patterns import read_patterns
from .report import Figure, Report

__all__ = ["run"]

CASES = {"dense": (100, 0.985), "8:16": (20, 0.92), "2:4": (20, 0.80)}
"""Sentences, and the bar of the mean cosine with dense fp32, by N:M; what is not dense is pruned in one shot, as
`compile` and `demo` do. A sentence takes the reference two seconds."""


def _tell(report: Callable[[str], None], nm: str, text: str) -> None:
    report(f"{nm}: {text}")


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Sentences that were not used for calibration or pruning; every stored tensor quantized."""
    config = PRESETS["reference"]
    sentences = evaluation_sentences()
    report("loading the model")
    embedder = Embedder.load()
    rows: list[dict[str, Any]] = []
    figures = []
    for nm, (count, bar) in CASES.items():
        patterns = read_patterns(nm, None, embedder.linears)
        sparse = embedder.pruned(patterns, report=report)
        inputs = [embedder.read(sentence, None) for sentence in sentences[:count]]
        found, exact = compared_outputs(
            embedder, sparse, patterns, config, inputs,
            report=partial(_tell, report, nm),
        )  # fmt: skip
        upper = np.triu_indices(count, 1)
        each = cosines(found, exact)
        similarity = [(e @ e.T)[upper] for e in (found, exact)]
        ranks = [np.argsort(np.argsort(s)) for s in similarity]
        spearman = float(np.asarray(np.corrcoef(ranks))[0, 1])
        mean = float(each.mean())
        rows.append({"nm": nm, "sentences": count, "cosine": mean, "smallest": float(each.min()), "spearman": spearman})
        figures.append(Figure(f"INT8 {nm}: mean cosine with dense fp32", mean, "1", f">= {bar}"))
        if nm == "dense":
            figures.append(Figure("INT8 dense: Spearman of similarities", spearman, "1", f">= {bar}"))
    return Report("accuracy", config, rows, figures)
