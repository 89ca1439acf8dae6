"""Benchmark of accuracy: quantized embeddings against fp32, on the reference backend, which the RTL equals."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

from ..compiler.encoder import compile_encoder
from ..run.backends import ReferenceBackend
from ..spec.presets import PRESETS
from ..tasks.embedder import Embedder, read_patterns
from .report import Figure, Report

__all__ = ["run"]

CASES = {"dense": (100, 0.985), "8:16": (20, 0.92), "2:4": (20, 0.80)}
"""Sentences, and the bar of the mean cosine with dense fp32, by N:M; what is not dense is pruned in one shot, as
`compile` and `demo` do. A sentence takes the reference two seconds."""


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Sentences that were not used for calibration or pruning; every stored tensor quantized."""
    config = PRESETS["reference"]
    text = resources.files("sta_hw.model").joinpath("data", "evaluation-sentences.txt").read_text("utf-8")
    sentences = [line for line in text.splitlines() if line.strip()]
    report("loading the model")
    embedder = Embedder.load()
    reference = ReferenceBackend(config)
    rows: list[dict[str, Any]] = []
    figures = []
    for nm, (count, bar) in CASES.items():
        patterns = read_patterns(nm, None, embedder.linears)
        quantized = embedder.pruned(patterns, report=report).quantize(patterns)
        found, exact = [], []
        for number, sentence in enumerate(sentences[:count]):
            report(f"{nm}, sentence {number + 1} of {count}")
            ids = embedder.token_ids(sentence)
            model = compile_encoder(quantized, config, len(ids))
            found.append(reference.run(model, embedder.part.embed("ids", ids)).embedding)
            exact.append(embedder.fp32(ids))
        upper = np.triu_indices(count, 1)
        cosines = [float(f @ e) for f, e in zip(found, exact, strict=True)]
        similarity = [(np.stack(e) @ np.stack(e).T)[upper] for e in (found, exact)]
        ranks = [np.argsort(np.argsort(s)) for s in similarity]
        spearman = float(np.asarray(np.corrcoef(ranks))[0, 1])
        mean = float(np.mean(cosines))
        rows.append({"nm": nm, "sentences": count, "cosine": mean, "smallest": min(cosines), "spearman": spearman})
        figures.append(Figure(f"INT8 {nm}: mean cosine with dense fp32", mean, "1", f">= {bar}"))
        if nm == "dense":
            figures.append(Figure("INT8 dense: Spearman of similarities", spearman, "1", f">= {bar}"))
    return Report("accuracy", config, rows, figures)
