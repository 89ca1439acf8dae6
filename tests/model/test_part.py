"""Which part of a graph the accelerator runs, and what is refused because it cannot, by operation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sta_hw.errors import InputError
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Activate, Add, Attention, Linear, Maximum, Mean, Operation, Output, Select
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import random_ids, random_model

IDS = random_ids(0, 7)
GRAPH = random_model(0, intermediate=32)


@pytest.mark.parametrize(
    ("kind", "begins", "ends", "count"),
    [
        ({}, "embedded", "mean", 26), ({"norm_first": True, "pooling": "first"}, "embedded", "first", 26),
        ({"embedding": 16}, "embedded", "mean", 27),
    ],
)  # fmt: skip
def test_the_part_computes_what_the_whole_does(kind: dict, begins: str, ends: str, count: int) -> None:
    graph = random_model(0, layers=2, **kind)
    part = accelerator_part(graph)
    assert (part.begins, part.ends, part.pooled, part.tokens) == (begins, ends, True, None)
    inner = part.inner.verify()
    assert len(inner.operations) == count + 2 and inner.layers == 2
    whole = evaluate(graph, {"ids": IDS})
    np.testing.assert_array_equal(part.run(part.embed("ids", IDS)), whole[ends])
    np.testing.assert_array_equal(part.result(whole[ends])[1], whole["embedding"])
    changed = inner.with_weights({"1.output.dense": np.zeros_like(inner.linear("1.output.dense").weight)})
    assert not part.with_inner(changed).graph.linear("1.output.dense").weight.any()
    assert str(part.with_inner(inner).graph) == str(graph)


def test_the_host_pools_where_the_accelerator_cannot() -> None:
    graph = random_model(0)
    part = accelerator_part(graph.replaced({"mean": Maximum("mean", ("0.output",))}))
    assert part.ends == "0.output" and not part.pooled
    for other in (Mean("mean", ("0.output",), 1), Select("mean", ("0.output",), -1)):
        assert accelerator_part(graph.replaced({"mean": other})).ends == "0.output"


def changed(*put: Operation, behind: tuple[Operation, ...] = ()) -> Graph:
    graph = GRAPH.replaced({o.name: o for o in put})
    return Graph(graph.name, (*graph.operations[:-1], *behind, graph.operations[-1]))


def square(name: str, source: str) -> Linear:
    return Linear(name, (source,), np.eye(32, dtype=np.float32), np.zeros(32, np.float32))


Q, K, V = (f"0.attention.self.{n}" for n in ("query", "key", "value"))
REFUSED = {
    "causal": (changed(replace(GRAPH.by_name["0.context"], causal=True)), "0.context attends to earlier tokens alone"),
    "an activation of keys": (changed(Activate(K, ("embeddings",), "relu")), "attention 0.context takes others than"),
    "keys of another value": (changed(square(K, "embedded")), "takes others than three linear operations of one value"),
    "a sum of no product": (changed(Add("0.sum2", ("0.normed", "embeddings"))), "add 0.sum2 is not the sum"),
    "an activation alone": (changed(Activate("0.activated", ("0.normed",), "relu")), "0.activated is not behind"),
    "a product of a product": (changed(square("0.output.dense", "0.attention.output.dense")), "0.attention.output"),
    "a tap": (changed(behind=(Mean("tap", ("0.sum1",)), Output("other", ("tap",)))), "takes 0.sum1 from between"),
    "no LayerNorm first": (
        changed(*(square(n, "embedded") for n in (Q, K, V))), "embedded, which 0.context follows from, is no LayerNorm"
    ),
    "no residual sums": (
        changed(square("0.sum1", "0.context"), square("0.sum2", "0.activated")), "no residual sum follows 0.context"
    ),
    "no attention": (changed(Maximum("0.context", (V,))), "no attention"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    graph, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        accelerator_part(graph)


def test_everything_is_named_at_once() -> None:
    attention = GRAPH.by_name["0.context"]
    assert isinstance(attention, Attention)
    graph = changed(replace(attention, causal=True), Activate("0.activated", ("0.normed",), "relu"))
    with pytest.raises(InputError) as caught:
        accelerator_part(graph)
    assert {"0.context", "0.activated"} <= {word for line in str(caught.value).split("\n") for word in line.split()}
