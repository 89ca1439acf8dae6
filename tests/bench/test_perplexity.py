"""Parts of the benchmark of perplexity: likelihoods, and the network with the integers' weights alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from decoder_files import SIZES
from test_families import saved

from sta_hw.bench.perplexity import negative_log_likelihood, with_integer_weights
from sta_hw.compiler.decoder.integers import Rules
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import evaluate
from sta_hw.model.operations import Linear


def test_likelihoods() -> None:
    """By hand, also of logits whose exponentials overflow."""
    logits = np.array([[0.0, math.log(3)], [1000.0, 1000.0], [-5.0, 800.0]], np.float32)
    np.testing.assert_allclose(
        negative_log_likelihood(logits, [1, 0, 0]), [math.log(4 / 3), math.log(2), 805.0], rtol=1e-6
    )


def test_integer_weights_alone(tmp_path: Path) -> None:
    """What each weight means is a whole number of its column's steps; norms and embeddings are the graph's."""
    texts = [np.random.default_rng(n).integers(0, 320, 60).tolist() for n in range(3)]
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    of = quantize_decoder(load_network(tmp_path).graph, texts, [1, 5], Rules(block=32))
    alone = with_integer_weights(of)
    for before, after in zip(of.graph.operations, alone.operations, strict=True):
        if not isinstance(after, Linear):
            assert before is after
            continue
        p = of.linears[after.name]
        steps = after.weight.astype(np.float64) * p.input_scale / p.steps[:, None]
        np.testing.assert_allclose(steps, p.weights, atol=1e-4)
    exact, found = (evaluate(g, {"ids": texts[0]})["next_token"] for g in (of.graph, alone))
    assert 0 < np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)
