"""The two layers that encoders are made of, written once: LayerNorm behind the sums, or ahead of the products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..graph import Graph
from ..operations import Activate, Add, Array, Attention, Convolution, Embed, Input, Linear, Norm, Operation
from ..tensors import Tensors

__all__ = ["LINEAR", "Builder", "Layer"]

LINEAR = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "projection": "attention.output.dense", "expand": "intermediate.dense", "contract": "output.dense",
}  # fmt: skip
"""A layer's linear layers: their role, and the name that N:M tables know them by in every family."""


@dataclass(frozen=True)
class Layer:
    """What a layer is made of.

    Attributes
    ----------
    width, intermediate, heads : int
    function : str
        The feed-forward's, of `fp32.FUNCTIONS`.
    epsilon : float
        Of both LayerNorms.
    names : dict
        The checkpoint's names within a layer, by role: those of `LINEAR`, ``norm1`` and ``norm2``.
    unbiased : set of roles without a bias
    causal : bool
    """

    width: int
    intermediate: int
    heads: int
    function: str
    epsilon: float
    names: Mapping[str, str]
    unbiased: frozenset[str] = frozenset()
    causal: bool = False


@dataclass
class Builder:
    """A graph under construction; every method adds operations and returns the last one's name.

    Attributes
    ----------
    width : int
        Of the encoder's values.
    sources : dict
        What the checkpoint calls the operations' arrays; see `Graph`.
    """

    tensors: Tensors
    operations: list[Operation] = field(default_factory=list)
    width: int = 0
    sources: dict[str, str] = field(default_factory=dict)

    def add(self, operation: Operation) -> str:
        """Any operation."""
        self.operations.append(operation)
        return operation.name

    def take(self, place: str, tensor: str, *shape: int) -> Array:
        """A tensor that becomes an operation's array: `place` is the operation's name and the field's."""
        self.sources[place] = tensor
        return self.tensors.take(tensor, *shape)

    def linear(self, name: str, source: str, tensor: str, out: int, into: int, *, bias: bool = True) -> str:
        """A linear layer with the tensors ``tensor.weight`` and, if it has one, ``tensor.bias``."""
        weight = self.take(f"{name}.weight", f"{tensor}.weight", out, into)
        shift = self.take(f"{name}.bias", f"{tensor}.bias", out) if bias else np.zeros(out, np.float32)
        return self.add(Linear(name, (source,), weight, shift))

    def norm(self, name: str, source: str, tensor: str, width: int, epsilon: float) -> str:
        """A LayerNorm."""
        weight, bias = (self.take(f"{name}.{p}", f"{tensor}.{p}", width) for p in ("weight", "bias"))
        return self.add(Norm(name, (source,), weight, bias, epsilon))

    def patches(self, tensor: str, image: tuple[int, int], patch: tuple[int, int], channels: int, width: int, *,
                bias: bool = True) -> str:  # fmt: skip
        """The image, and its patches as tokens."""
        self.add(Input("pixels", (), (*image, channels)))
        weight = self.take("patches.weight", f"{tensor}.weight", width, channels, *patch)
        shift = self.take("patches.bias", f"{tensor}.bias", width) if bias else np.zeros(width, np.float32)
        return self.add(Convolution("patches", ("pixels",), weight, shift, patch, (0, 0)))

    def _role(self, number: int, role: str, source: str, prefix: str, of: Layer) -> str:
        out, into = {"expand": (of.intermediate, of.width), "contract": (of.width, of.intermediate)}.get(
            role, (of.width, of.width)
        )
        return self.linear(
            f"{number}.{LINEAR[role]}", source, prefix + of.names[role], out, into, bias=role not in of.unbiased
        )

    def _attention(self, number: int, x: str, prefix: str, of: Layer) -> str:
        inputs = tuple(self._role(number, r, x, prefix, of) for r in ("query", "key", "value"))
        context = self.add(Attention(f"{number}.context", inputs, of.heads, of.causal))
        return self._role(number, "projection", context, prefix, of)

    def _feed_forward(self, number: int, x: str, prefix: str, of: Layer) -> str:
        wide = self._role(number, "expand", x, prefix, of)
        activated = self.add(Activate(f"{number}.activated", (wide,), of.function))
        return self._role(number, "contract", activated, prefix, of)

    def post_norm(self, number: int, x: str, prefix: str, of: Layer) -> str:
        """A layer whose LayerNorms follow its sums, which is what the next layer and the sums take."""
        attended = self._attention(number, x, prefix, of)
        total = self.add(Add(f"{number}.sum1", (attended, x)))
        normed = self.norm(f"{number}.normed", total, prefix + of.names["norm1"], of.width, of.epsilon)
        total = self.add(Add(f"{number}.sum2", (self._feed_forward(number, normed, prefix, of), normed)))
        return self.norm(f"{number}.output", total, prefix + of.names["norm2"], of.width, of.epsilon)

    def pre_norm(self, number: int, stream: str, prefix: str, of: Layer) -> str:
        """A layer whose LayerNorms are on the way to its products; the sums go on as they are."""
        x = self.norm(f"{number}.input", stream, prefix + of.names["norm1"], of.width, of.epsilon)
        stream = self.add(Add(f"{number}.sum1", (self._attention(number, x, prefix, of), stream)))
        x = self.norm(f"{number}.normed", stream, prefix + of.names["norm2"], of.width, of.epsilon)
        return self.add(Add(f"{number}.sum2", (self._feed_forward(number, x, prefix, of), stream)))

    def embedded(self, source: str, positions: Array) -> str:
        """The sum of tokens and what is learnt for their positions."""
        table = self.add(Embed("positions", (source,), positions, "position"))
        return self.add(Add("embedded", (source, table)))

    def graph(self, name: str) -> Graph:
        """What was built."""
        return Graph(name, tuple(self.operations), self.sources)
