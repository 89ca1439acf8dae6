"""One-shot pruning of decoders through their own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_decoder_program import FAMILIES
from test_families import saved

from sta_hw.compiler.prune import InputStatistics, prune_model
from sta_hw.formats.nm import satisfies
from sta_hw.model.families import load_network
from sta_hw.model.families.decoders import NEXT
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Linear
from sta_hw.spec.patterns import Pattern, parse_nm

TEXTS = [[1, *np.random.default_rng(i).integers(0, 96, 50).tolist()] for i in range(24)]


def error(graph: Graph, dense: Graph, texts: list[list[int]]) -> float:
    """Of the logits behind all but the first token, relative to their size."""
    found, wanted = (
        np.concatenate([evaluate(g, {"ids": t}, keep=(NEXT,))[NEXT][1:] for t in texts]) for g in (graph, dense)
    )
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_nearer_than_magnitudes(family: str, tmp_path: Path) -> None:
    """Every product of the layers is N:M, the head is not; biases that are none stay so; other texts gain too."""
    name, sizes = FAMILIES[family]
    saved(tmp_path, name, sizes)
    graph = load_network(tmp_path).graph
    patterns = dict.fromkeys(graph.linears, parse_nm("2:4"))
    pruned, plain = (prune_model(graph, patterns, TEXTS, method=m) for m in ("sparsegpt", "magnitude"))
    for o in (o for o in pruned.operations if isinstance(o, Linear)):
        own = graph.linear(o.name)
        assert satisfies(o.weight, parse_nm("2:4")) == (o.name in patterns)
        assert own.bias.any() or not o.bias.any()
    others = [[1, *np.random.default_rng(100 + i).integers(0, 96, 50).tolist()] for i in range(8)]
    for texts in (TEXTS, others):
        assert error(pruned, graph, texts) < 0.9 * error(plain, graph, texts)
    # What is pruned already stays as it is.
    again = prune_model(pruned, patterns, TEXTS)
    assert all(again.tensors[n] is t for n, t in pruned.tensors.items())


def test_a_single_layer_and_the_head(tmp_path: Path) -> None:
    """Those that have a pattern alone change, and the head is one that may have one."""
    name, sizes = FAMILIES["llama"]
    saved(tmp_path, name, sizes | {"tie_word_embeddings": False})
    graph = load_network(tmp_path).graph
    patterns = {"1.mlp.down_proj": Pattern(1, 4), "head": Pattern(8, 16)}
    pruned = prune_model(graph, patterns, TEXTS)
    changed = {n for n, t in pruned.tensors.items() if not np.array_equal(t, graph.tensors[n])}
    assert changed == {graph.sources["1.mlp.down_proj.weight"], graph.sources["head.weight"]}
    assert all(satisfies(pruned.linear(n).weight, p) for n, p in patterns.items())


def test_one_token_does_not_outweigh_all_others() -> None:
    """Of rows that are far longer than the median no more counts than of rows of that many times its length."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 8)).astype(np.float32)
    long = inputs.copy()
    long[0] *= 1000
    usual = float(np.median(np.sqrt((long.astype(np.float64) ** 2).mean(1))))
    found = InputStatistics.of(long, long, 4.0)
    wanted = long.copy()
    wanted[0] *= 4 * usual / np.sqrt((long[0] ** 2).mean())
    np.testing.assert_allclose(found.gram, wanted.T @ wanted / 200, rtol=1e-4, atol=1e-6)
    exact = InputStatistics.of(long, long)
    assert np.trace(exact.gram) > 100 * np.trace(found.gram)
    assert not found.cross.any()
