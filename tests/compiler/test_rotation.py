"""Rotations: the same network in fp32, easier to quantize, and what must not be rotated is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decoder_files import SIZES
from test_decoder_integers import FAMILIES, network

from sta_hw.compiler.decoder.integers import WIDE, Rules
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.rotation import orthogonal, with_rotations
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.prune import prune_model_once
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Add, Attention, Embed, Linear, Operation, RmsNorm
from sta_hw.spec.patterns import Pattern

PREFIX = [1, 5]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 12, 15, 64, 576])
def test_matrices_are_orthogonal_and_flat(size: int) -> None:
    found = orthogonal(size)
    np.testing.assert_allclose(found @ found.T, np.eye(size), atol=1e-12)
    assert np.abs(found).max() <= np.sqrt(2 / size) + 1e-12
    np.testing.assert_array_equal(found, orthogonal(size))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_function(family: str, tmp_path: Path) -> None:
    """Norms and biases of random size: every logit is the same within fp32's rounding, by matrices that differ."""
    graph = network(tmp_path, family)
    rng = np.random.default_rng(3)
    operations = [
        replace(o, weight=rng.uniform(-2, 2, o.weight.shape).astype(np.float32)) if isinstance(o, RmsNorm)
        else replace(o, bias=rng.normal(0, 0.5, o.bias.shape).astype(np.float32)) if isinstance(o, Linear) else o
        for o in graph.operations
    ]  # fmt: skip
    graph = replace(graph, operations=tuple(operations))
    found = with_rotations(graph)
    ids = rng.integers(0, 320, 60).tolist()
    exact, other = (evaluate(g, {"ids": ids})["next_token"] for g in (graph, found))
    np.testing.assert_allclose(other, exact, atol=2e-4 * float(np.abs(exact).max()))
    changed = {a.name for a, b in zip(graph.operations, found.operations, strict=True) if a is not b}
    attentions = [o for o in graph.operations if isinstance(o, Attention)]
    values = {n for o in attentions for n in (o.inputs[2], graph.takers(o.name)[0].name)}
    assert values <= changed
    if family == "gpt2":  # LayerNorm reads its stream
        assert changed == values
        return
    stream = [o for o in found.operations if isinstance(o, RmsNorm) and len(o.weight) == SIZES["hidden_size"]]
    assert len(stream) == 5 and all((o.weight == 1).all() for o in stream)
    assert all(o.name in changed for o in graph.operations if isinstance(o, Linear | Embed))


def _loud(graph: Graph) -> Graph:
    """With channels of the residual stream that reach much further than the others, and that norms have little weight
    for, as trained models have them."""
    loud = [3, 20]

    def changed(o: Operation) -> Operation:
        if isinstance(o, Embed):
            table = o.table.copy()
            table[:, loud] *= 2000
            return replace(o, table=table)
        if isinstance(o, RmsNorm):
            weight = o.weight.copy()
            weight[loud] /= 2000
            return replace(o, weight=weight)
        return o

    return replace(graph, operations=tuple(changed(o) for o in graph.operations))


def test_loud_channels_cost_less(tmp_path: Path) -> None:
    graph = _loud(network(tmp_path, "llama"))
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 320, 60).tolist() for _ in range(4)]
    ids = [*PREFIX, *rng.integers(0, 320, 90).tolist()]
    exact = evaluate(graph, {"ids": ids})["next_token"][2:].astype(np.float64)
    errors = []
    for rotate in (False, True):
        quantized = quantize_decoder(graph, texts, PREFIX, Rules(WIDE, block=32, rotate=rotate))
        found = IntegerDecoder(quantized, 92).logits(ids)
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
    assert errors[1] < 0.7 * errors[0]


def test_what_is_sparse_or_in_blocks_stays_as_it_is(tmp_path: Path) -> None:
    graph = network(tmp_path, "llama")
    texts = [list(range(40))]
    sparse = {n: Pattern(2, 4) for n in graph.linears if n != "head"}
    pruned = prune_model_once(graph, sparse, [{"ids": np.array(texts[0])}], method="magnitude")
    for given, rules, patterns in (
        (pruned, Rules(block=32), sparse),
        (graph, Rules(block=32, blocks=frozenset({"gate"}), block_size=32), None),
        (graph, Rules(block=32, rotate=False), None),
    ):
        found = quantize_decoder(given, texts, PREFIX, rules, patterns=patterns).graph
        assert all(a is b for a, b in zip(found.operations, given.operations, strict=True))


def test_values_that_something_else_takes_are_not_rotated(tmp_path: Path) -> None:
    """Here keys are values, too."""
    graph = network(tmp_path, "gpt2")
    shared = replace(
        graph,
        operations=tuple(
            replace(o, inputs=(*o.inputs[:2], o.inputs[1])) if isinstance(o, Attention) else o for o in graph.operations
        ),
    )
    found = with_rotations(shared)
    assert all(a is b for a, b in zip(found.operations, shared.operations, strict=True))
    exact, other = (evaluate(g, {"ids": list(range(30))})["next_token"] for g in (shared, found))
    np.testing.assert_array_equal(other, exact)


def test_what_stands_between_attention_and_its_product_is_not_passed_over(tmp_path: Path) -> None:
    """A result that two products take, or that a sum takes, is as it was."""
    graph = network(tmp_path, "gpt2")
    attention = next(o for o in graph.operations if isinstance(o, Attention))
    (output,) = graph.takers(attention.name)
    for more in (replace(output, name="again"), Add("again", (attention.name, attention.name))):
        twice = replace(graph, operations=(*graph.operations, more))
        changed = {
            a.name for a, b in zip(twice.operations, with_rotations(twice).operations, strict=True) if a is not b
        }
        assert output.name not in changed and attention.inputs[2] not in changed
        assert len(changed) == 2 * (sum(isinstance(o, Attention) for o in graph.operations) - 1)
