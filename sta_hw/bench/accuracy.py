"""Benchmark of accuracy: quantized embeddings against fp32, on the reference backend, which the RTL equals."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import numpy as np

from ..compiler.encoder import compile_encoder
from ..model.embedder import Embedder, read_patterns
from ..presets import PRESETS
from ..runtime.backends import ReferenceBackend
from .report import Figure, Report

__all__ = ["run"]

SENTENCES = 100
BAR = 0.985


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """100 sentences, none of them used for calibration; every stored tensor quantized; dense weights."""
    config = PRESETS["reference"]
    text = resources.files("sta_hw.model").joinpath("data", "evaluation-sentences.txt").read_text("utf-8")
    sentences = [line for line in text.splitlines() if line.strip()][:SENTENCES]
    report("loading the model")
    embedder = Embedder.load()
    reference = ReferenceBackend(config)
    quantized = embedder.quantize(read_patterns("dense", None, embedder.model.layers))
    found, exact, rows = [], [], []
    for number, sentence in enumerate(sentences):
        report(f"sentence {number + 1} of {len(sentences)}")
        ids = embedder.token_ids(sentence)
        model = compile_encoder(quantized, config, len(ids))
        found.append(reference.run(model, embedder.model.embed(ids)).embedding)
        exact.append(embedder.fp32(ids))
        rows.append({"sentence": number, "tokens": len(ids), "cosine": float(found[-1] @ exact[-1])})
    upper = np.triu_indices(len(found), 1)
    similarity = [(np.stack(e) @ np.stack(e).T)[upper] for e in (found, exact)]
    ranks = [np.argsort(np.argsort(s)) for s in similarity]
    spearman = float(np.asarray(np.corrcoef(ranks))[0, 1])
    mean = float(np.mean([r["cosine"] for r in rows]))
    figures = [
        Figure("INT8 dense: mean cosine with fp32", mean, "1", f">= {BAR}"),
        Figure("INT8 dense: Spearman correlation of pairwise similarities", spearman, "1", f">= {BAR}"),
    ]
    return Report("accuracy", config, rows, figures)
