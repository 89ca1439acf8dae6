"""Small random encoders: for the self-test of boards, and for tests."""

from __future__ import annotations

import numpy as np

from ..spec.patterns import Pattern
from .bert import LINEAR_NAMES, BertModel

__all__ = ["mixed_patterns", "random_ids", "random_model"]

VOCABULARY = 50


def random_model(
    seed: int, *, hidden: int = 32, heads: int = 2, layers: int = 1, intermediate: int = 64, activation: str = "gelu"
) -> BertModel:
    """An encoder with random weights."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}

    def norm(name: str) -> None:
        tensors[f"{name}.LayerNorm.weight"] = rng.normal(1, 0.2, hidden).astype(np.float32)
        tensors[f"{name}.LayerNorm.bias"] = rng.normal(0, 0.2, hidden).astype(np.float32)

    for name, count in (("word", VOCABULARY), ("position", 4096), ("token_type", 2)):
        tensors[f"embeddings.{name}_embeddings.weight"] = rng.normal(size=(count, hidden)).astype(np.float32)
    norm("embeddings")
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        for name in LINEAR_NAMES:
            columns = intermediate if name.startswith("intermediate") else hidden
            reduction = intermediate if name == "output.dense" else hidden
            weights = rng.normal(size=(columns, reduction)) / np.sqrt(reduction) * 1.5
            tensors[f"{prefix}.{name}.weight"] = weights.astype(np.float32)
            tensors[f"{prefix}.{name}.bias"] = (rng.normal(size=columns) * 0.2).astype(np.float32)
        norm(f"{prefix}.attention.output")
        norm(f"{prefix}.output")
    return BertModel(tensors, hidden, heads, layers, intermediate, activation)


def random_ids(seed: int, tokens: int) -> list[int]:
    """Random token ids."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, tokens).tolist()


def mixed_patterns(patterns: list[Pattern]) -> dict[tuple[int, str], Pattern]:
    """Another pattern for each linear layer of layer 0."""
    return {(0, name): patterns[i % len(patterns)] for i, name in enumerate(LINEAR_NAMES)}
