"""Graphs: all problems at once, in sentences; a text form that does not change unnoticed."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.errors import InputError
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.operations import (
    TOKENS,
    Add,
    Attention,
    Convolution,
    Embed,
    Input,
    Linear,
    Mean,
    Norm,
    Operation,
    Output,
    Prepend,
    Select,
)


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8).astype(np.float32)


def small() -> list[Operation]:
    return [
        Input("ids", (), (TOKENS,)),
        Embed("word", ("ids",), ramp(6, 4)),
        Norm("norm", ("word",), ramp(4), ramp(4), 1e-5),
        *(Linear(n, ("norm",), ramp(4, 4), ramp(4)) for n in ("query", "key", "value")),
        Attention("context", ("query", "key", "value"), 2, True),
        Add("sum", ("context", "word")),
        Mean("mean", ("sum",)),
        Output("embedding", ("mean",)),
    ]


GOLDEN = """\
graph small
  ids (tokens) = input given=('tokens',)
  word (tokens, 4) = embed ids table=6x4#ae7641b7 rows=token offset=0 padding=None
  norm (tokens, 4) = norm word weight=4#6cdd3582 bias=4#6cdd3582 epsilon=1e-05
  query (tokens, 4) = linear norm weight=4x4#806e458e bias=4#6cdd3582
  key (tokens, 4) = linear norm weight=4x4#806e458e bias=4#6cdd3582
  value (tokens, 4) = linear norm weight=4x4#806e458e bias=4#6cdd3582
  context (tokens, 4) = attention query key value heads=2 causal=True shared=1
  sum (tokens, 4) = add context word
  mean (4) = mean sum first=0
  embedding (4) = output mean
"""


def test_text_form() -> None:
    assert str(Graph("small", tuple(small())).verify()) == GOLDEN


def test_all_problems_at_once() -> None:
    operations = small()
    operations[1] = Embed("word", ("ids",), ramp(6, 5))  # Neither the norm nor the sum fit it.
    operations[6] = Attention("context", ("query", "key", "nothing"), 2)
    operations.insert(5, Linear("alone", ("norm",), ramp(4, 4), ramp(3)))
    operations.append(Output("embedding", ("mean",)))
    with pytest.raises(InputError) as caught:
        Graph("small", tuple(operations)).verify()
    assert str(caught.value).split("\n") == [
        "small: Norm norm has 4 parameters for a width of 5.",
        "small: Nothing takes alone, and it is no output.",
        "small: Nothing takes value, and it is no output.",
        "small: Attention context takes nothing, which no operation before it gives.",
        "small: Value embedding is given twice.",
    ]


@pytest.mark.parametrize(
    ("operation", "problem"),
    [
        (Linear("x", ("word",), ramp(3, 5), ramp(3)), "takes a width of 5, not 4"),
        (Linear("x", ("word",), ramp(3, 4), ramp(4)), "3 rows of weights and a bias of shape"),
        (Attention("x", ("word", "word", "word"), 3), "3 heads, which do not divide a width of 4"),
        (Attention("x", ("word", "word"), 2), "has 2 inputs; it takes 3"),
        (Add("x", ("word", "ids")), "adds values of shapes"),
        (Embed("x", ("word",), ramp(3, 4)), "takes token ids"),
        (Select("x", ("ids",), 0), "takes tokens, not a value of shape"),
        (Prepend("x", ("word",), ramp(1, 4)), "takes a fixed number of tokens"),
        (Convolution("x", ("word",), ramp(2, 3, 3), ramp(2), (1,), (1,)), "takes 3 channels, not 4"),
        (Convolution("x", ("word",), ramp(2, 4, 3, 3), ramp(2), (1, 1), (1, 1)), "a kernel of 2 dimensions"),
    ],
)
def test_problems(operation: Operation, problem: str) -> None:
    operations = [Input("ids", (), (TOKENS,)), Embed("word", ("ids",), ramp(6, 4)), operation, Output("y", ("x",))]
    with pytest.raises(InputError, match=problem):
        Graph("g", tuple(operations)).verify()


def test_values_may_be_given_anywhere() -> None:
    graph = Graph("small", tuple(small())).verify()
    whole = evaluate(graph, {"ids": [1, 5, 3]})
    part = evaluate(graph, {"word": whole["word"]})
    assert set(whole) - set(part) == {"ids"}
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name])
    assert set(evaluate(graph, {"mean": whole["mean"]})) == {"mean", "embedding"}
    with pytest.raises(InputError, match=r"word has shape \(tokens, 4\), and what is given \(3, 5\)"):
        evaluate(graph, {"word": np.zeros((3, 5))})


def test_replaced() -> None:
    graph = Graph("small", tuple(small()))
    other = graph.replaced({"key": Linear("key", ("norm",), 2 * ramp(4, 4), ramp(4))})
    assert [o.name for o in other.operations] == [o.name for o in graph.operations]
    changed = [a != b for a, b in zip(str(graph).split("\n"), str(other).split("\n"), strict=True)]
    assert sum(changed) == 1
    assert [o.name for o in graph.takers("norm")] == ["query", "key", "value"]
