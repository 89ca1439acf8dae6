"""Benchmark of accuracy: quantized embeddings against fp32, on the reference backend, which the RTL equals."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

from ..compiler.encoder import compile_encoder
from ..model.embedder import Embedder, read_patterns
from ..presets import PRESETS
from ..runtime.backends import ReferenceBackend
from .report import Figure, Report

__all__ = ["run"]

SENTENCES = 100
BARS = {"dense": 0.985, "8:16": 0.92, "2:4": 0.80}
"""Mean cosine with dense fp32 by N:M; what is not dense is pruned in one shot, as `compile` and `demo` do."""


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """100 sentences, none of them used for calibration or pruning; every stored tensor quantized."""
    config = PRESETS["reference"]
    text = resources.files("sta_hw.model").joinpath("data", "evaluation-sentences.txt").read_text("utf-8")
    sentences = [line for line in text.splitlines() if line.strip()][:SENTENCES]
    report("loading the model")
    embedder = Embedder.load()
    reference = ReferenceBackend(config)
    exact = [embedder.fp32(embedder.token_ids(s)) for s in sentences]
    upper = np.triu_indices(len(exact), 1)
    rows: list[dict[str, Any]] = []
    figures = []
    for nm, bar in BARS.items():
        patterns = read_patterns(nm, None, embedder.model.layers)
        quantized = embedder.pruned(patterns, report=report).quantize(patterns)
        found = []
        for number, sentence in enumerate(sentences):
            report(f"{nm}, sentence {number + 1} of {len(sentences)}")
            ids = embedder.token_ids(sentence)
            model = compile_encoder(quantized, config, len(ids))
            found.append(reference.run(model, embedder.model.embed(ids)).embedding)
        cosines = [float(f @ e) for f, e in zip(found, exact, strict=True)]
        similarity = [(np.stack(e) @ np.stack(e).T)[upper] for e in (found, exact)]
        ranks = [np.argsort(np.argsort(s)) for s in similarity]
        spearman = float(np.asarray(np.corrcoef(ranks))[0, 1])
        mean = float(np.mean(cosines))
        rows.append({"nm": nm, "cosine": mean, "smallest": min(cosines), "spearman": spearman})
        figures.append(Figure(f"INT8 {nm}: mean cosine with dense fp32", mean, "1", f">= {bar}"))
        if nm == "dense":
            figures.append(Figure("INT8 dense: Spearman of similarities", spearman, "1", f">= {bar}"))
    return Report("accuracy", config, rows, figures)
