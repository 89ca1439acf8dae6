"""Which part of a graph the accelerator runs: the encoder's layers, in the form that the compiler takes.

What lies before (embeddings, convolutions, CLIP's first LayerNorm) and behind (poolers, classifiers, poolings other
than the mean and the first token) is the host's, in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .bert import PROJECTION, BertModel
from .fp32 import evaluate
from .graph import Graph
from .operations import Activate, Attention, Embed, Linear, Mean, Norm, Select

__all__ = ["EncoderPart", "encoder_part"]


@dataclass(frozen=True)
class EncoderPart:
    """The accelerator's part of a graph.

    Attributes
    ----------
    graph : Graph
    begins : str
        The value that the host computes and the accelerator takes: (tokens, width).
    ends : str
        The value that the host goes on with: pooled, of shape (width,), or every token's output.
    model : BertModel
        What is between, as the compiler takes it.
    """

    graph: Graph
    begins: str
    ends: str
    model: BertModel

    @property
    def pooled(self) -> bool:
        """Whether the accelerator pools; else the host does, from every token's output."""
        return len(self.graph.shapes[self.ends]) == 1

    @property
    def tokens(self) -> int | None:
        """The number of tokens where it is fixed, as an image's is."""
        count = self.graph.shapes[self.begins][0]
        return count if isinstance(count, int) else None

    def embed(self, name: str, value: Any) -> NDArray[np.float32]:
        """What the accelerator takes, for an input of the graph.

        Raises
        ------
        InputError
            If the input's shape is not the graph's, or a token has no row in a table.
        """
        return evaluate(self.graph, {name: value}, until=self.begins)[self.begins]

    def result(self, value: NDArray) -> tuple[str, NDArray]:
        """The graph's output and its name, from the value at `ends`."""
        found = evaluate(self.graph, {self.ends: value})
        name = "logits" if "logits" in found else "embedding"
        return name, found[name]


def encoder_part(graph: Graph) -> EncoderPart:
    """Find the part.

    Raises
    ------
    InputError
        If there is something between the layers that the accelerator cannot do; all of it is named.
    """
    problems = []
    attentions = [o for o in graph.operations if isinstance(o, Attention)]
    layers, by_name = len(attentions), graph.by_name
    if any(a.causal for a in attentions):
        problems.append("attention to earlier tokens alone (a decoder's) is not supported by the accelerator.")
    norm_first = "0.input" in by_name
    tensors: dict[str, NDArray] = {}
    epsilons = set()

    def put(name: str, value: str) -> None:
        operation = by_name[value]
        assert isinstance(operation, Linear | Norm)
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = operation.weight, operation.bias
        if isinstance(operation, Norm):
            epsilons.add(operation.epsilon)

    first = by_name["0.attention.self.query"].inputs[0]
    last = f"{layers - 1}.output"
    if norm_first:
        norms = {"input": "attention.output.LayerNorm", "normed": "output.LayerNorm"}
        behind = [o.name for o in graph.takers(f"{layers - 1}.sum2") if isinstance(o, Norm)]
        if len(behind) != 1:
            problems.append("the layers end without a LayerNorm, which the accelerator cannot do.")
            behind = ["0.input"]
        last = behind[0]
        put("embeddings.LayerNorm", last)
    else:
        norms = {"normed": "attention.output.LayerNorm", "output": "output.LayerNorm"}
        if isinstance(by_name[first], Linear):
            put(PROJECTION, first)
            first = by_name[first].inputs[0]
        put("embeddings.LayerNorm", first)
    for number in range(layers):
        for name in [n.partition(".")[2] for n in by_name if n.startswith(f"{number}.")]:
            operation = by_name[f"{number}.{name}"]
            if isinstance(operation, Linear):
                put(f"encoder.layer.{number}.{name}", operation.name)
            elif isinstance(operation, Norm):
                put(f"encoder.layer.{number}.{norms[name]}", operation.name)
    if len(epsilons) > 1:
        problems.append(f"LayerNorms have different epsilons ({', '.join(map(str, sorted(epsilons)))}).")
    if problems:
        raise InputError("\n".join(f"{graph.name}: {p}" for p in problems))
    tensors |= _tables(graph)
    pooling, ends = "first", last
    takers = graph.takers(last)
    if len(takers) == 1 and isinstance(takers[0], Mean) and takers[0].first == 0:
        pooling, ends = "mean", takers[0].name
    elif len(takers) == 1 and isinstance(takers[0], Select) and takers[0].token == 0:
        ends = takers[0].name
    intermediate, width = tensors["encoder.layer.0.intermediate.dense.weight"].shape
    activation = by_name["0.activated"]
    assert isinstance(activation, Activate)
    model = BertModel(
        tensors, width, attentions[0].heads, layers, intermediate, activation.function, norm_first, pooling,
        epsilons.pop(),
    )  # fmt: skip
    return EncoderPart(graph, by_name[first].inputs[0], ends, model)


def _tables(graph: Graph) -> dict[str, NDArray]:
    """A text encoder's tables as BERT has them: position 0 in row 0, and zeros where there are no token types."""
    found = {}
    for o in graph.operations:
        if isinstance(o, Embed) and graph.shapes[o.inputs[0]] == ("tokens",):
            first = o.padding + 1 if o.padding is not None else 0
            found[f"embeddings.{o.name}_embeddings.weight"] = o.table[first:]
    if found and "embeddings.token_type_embeddings.weight" not in found:
        width = found["embeddings.word_embeddings.weight"].shape[1]
        found["embeddings.token_type_embeddings.weight"] = np.zeros((1, width), np.float32)
    return found
