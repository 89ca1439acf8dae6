"""Rotations that leave a network what it is and make its values easier to quantize.

RMSNorm does not see a rotation of its input: ``norm(x Q) = norm(x) Q`` for any orthogonal ``Q``. So whatever writes to
the residual stream may write it rotated, if whatever reads it turns it back, and both are matrices that absorb the
rotation (SliceGPT, arXiv 2401.15024, section 3.2; QuaRot, arXiv 2404.00456, section 4). What single channels carried
is spread over all of them: one scale serves the 16-bit stream and the products' inputs, and rows of weights have no
outliers. In the same way each head's values may be rotated, and attention's output turned back.

Nothing of it is left for the hardware to do. Zeros of N:M and the levels of a file's 4-bit blocks do not survive it,
so networks that have them are not rotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...model.graph import Graph
from ...model.operations import Add, Attention, Embed, Linear, RmsNorm
from ...spec.patterns import Pattern
from .integers import Floats, Rules

__all__ = ["as_rules_say", "orthogonal", "with_rotations"]


def orthogonal(size: int) -> Floats:
    """An orthogonal matrix, shape (size, size), of small elements, at most ``sqrt(2 / size)``; the same everywhere.

    The product of Sylvester's Hadamard matrix for the power of two in `size` and Hartley's for what is odd of it, whose
    rows have signs drawn with a constant seed: a row of equal elements would give one channel what all have in common.
    """
    power = size & -size
    odd = size // power
    hadamard = np.ones((1, 1))
    while len(hadamard) < power:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    angles = 2 * np.pi * np.outer(np.arange(odd), np.arange(odd)) / odd
    hartley = np.cos(angles) + np.sin(angles)
    signs = 2 * np.random.default_rng(0).integers(0, 2, size) - 1
    return np.kron(hartley, hadamard) * signs[:, None] / np.sqrt(size)


def as_rules_say(graph: Graph, rules: Rules, patterns: Mapping[str, Pattern]) -> Graph:
    """The graph that is quantized: rotated where the rules ask for it, no weights have blocks and none are pruned."""
    pruned = any(not p.dense for p in patterns.values())
    return with_rotations(graph) if rules.rotate and not rules.blocks and not pruned else graph


def with_rotations(graph: Graph) -> Graph:
    """The same function, with the residual stream rotated where all that touches it allows it, and heads' values.

    Not rotated is a stream that a LayerNorm reads, which takes the mean of its channels; or one that anything but
    embeddings, products and RMSNorms touches.
    """
    changed = _Changed(graph)
    changed.rotate_stream()
    for o in graph.operations:
        if isinstance(o, Attention):
            changed.rotate_values(o)
    return replace(graph, operations=tuple(changed.operations.values()))


class _Changed:
    """A graph's operations by name, while they change."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.operations = graph, dict(graph.by_name)

    def linear(self, name: str) -> Linear | None:
        """The operation as it is now, if it is a product."""
        found = self.operations[name]
        return found if isinstance(found, Linear) else None

    def set(self, o: Linear, weight: NDArray, bias: NDArray) -> None:
        """Give a product other weights."""
        self.operations[o.name] = replace(o, weight=weight.astype(np.float32), bias=bias.astype(np.float32))

    def rotate_stream(self) -> None:
        """From the embeddings to the last norm, or not at all."""
        embeddings = [o for o in self.graph.operations if isinstance(o, Embed)]
        if len(embeddings) != 1:  # with one of positions a LayerNorm follows
            return
        (embedding,) = embeddings
        stream, norms, writers = [embedding.name], [], []
        for name in stream:  # which grows meanwhile
            for taker in self.graph.takers(name):
                if isinstance(taker, RmsNorm) and taker.heads == 1:
                    norms.append(taker)
                elif isinstance(taker, Add) and taker.inputs[1] == name and taker.inputs[0] != name:
                    writers.append(taker.inputs[0])
                    stream.append(taker.name)
                else:
                    return
        readers = [(norm, taker.name) for norm in norms for taker in self.graph.takers(norm.name)]
        if any(len(self.graph.takers(name)) != 1 for name in writers):
            return
        if not all(self.linear(name) for name in [*writers, *(name for _, name in readers)]):
            return
        turn = orthogonal(embedding.table.shape[1])
        self.operations[embedding.name] = replace(embedding, table=(embedding.table @ turn).astype(np.float32))
        for name in writers:
            if o := self.linear(name):
                self.set(o, turn.T @ o.weight, o.bias @ turn)
        for norm, name in readers:
            if o := self.linear(name):
                self.set(o, (o.weight * norm.weight.astype(np.float64)) @ turn, o.bias)
        for norm in norms:
            self.operations[norm.name] = replace(norm, weight=np.ones_like(norm.weight))

    def rotate_values(self, attention: Attention) -> None:
        """Of each head of an attention, and back in the product that takes its result."""
        value, takers = self.linear(attention.inputs[2]), self.graph.takers(attention.name)
        output = self.linear(takers[0].name)
        if value is None or output is None or len(takers) != 1 or len(self.graph.takers(value.name)) != 1:
            return
        if value.name in attention.inputs[:2]:  # queries or keys, too
            return
        heads = attention.heads // attention.shared
        width = len(value.weight) // heads
        turn = orthogonal(width)
        weight = np.einsum("hwi,wx->hxi", value.weight.reshape(heads, width, -1), turn)
        bias = value.bias.reshape(heads, width) @ turn
        self.set(value, weight.reshape(value.weight.shape), bias.reshape(-1))
        back = output.weight.reshape(-1, attention.heads, width) @ turn
        self.set(output, back.reshape(output.weight.shape), output.bias)
