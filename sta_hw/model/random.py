"""Small random encoders: for the self-test of boards, and for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.patterns import Pattern
from .families.layers import LINEAR, Builder, Layer
from .fp32 import EPSILON
from .graph import Graph, layer_of
from .operations import TOKENS, Add, Array, Embed, Input, Mean, Output, Select
from .tensors import Tensors

__all__ = [
    "VOCABULARY", "Draw", "Drawn", "drawn", "encoder_graph", "mixed_patterns", "nothing", "random_ids", "random_model",
]  # fmt: skip

VOCABULARY = 50
_POSITIONS = 4096

Draw = Callable[[str, tuple[int, ...]], Array]
"""Makes a tensor, by the name that BERT's checkpoints have for it, and its shape."""


class Drawn(Tensors):
    """Tensors that are made when they are taken; a family's importer builds a network of them."""

    def __init__(self, draw: Draw) -> None:
        super().__init__({}, Path())
        self.draw = draw

    def take(self, name: str, *shape: int) -> Array:
        """A tensor, drawn when it is asked for: float32 of this shape."""
        return self.draw(name, shape)

    def take_off_prefix(self, anchor: str) -> None:
        """Nothing: drawn tensors have no prefix."""

    def layers(self, wanted: int) -> range:
        """As many as the configuration wants."""
        return range(wanted)


def nothing(name: str, shape: tuple[int, ...]) -> Array:
    """Zeros that take no memory, whatever their shape."""
    return np.broadcast_to(np.float32(0), shape)


def encoder_graph(
    draw: Draw, *, hidden: int, heads: int, layers: int, intermediate: int, activation: str = "gelu",
    norm_first: bool = False, pooling: str = "mean", epsilon: float = EPSILON, embedding: int = 0,
) -> Graph:  # fmt: skip
    """A text encoder with BERT's embeddings, and its layers or, if `norm_first`, ViT's; pooling: mean or first.

    Embeddings of another width, `embedding`, are projected, as in ELECTRA.
    """
    b = Builder(Drawn(draw), width=hidden)
    names = LINEAR | {"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
    of = Layer(hidden, intermediate, heads, activation, epsilon, names)
    width = embedding or hidden
    b.add(Input("ids", (), (TOKENS,)))
    tables = {"word": ("token", VOCABULARY), "position": ("position", _POSITIONS), "token_type": ("first", 2)}
    for name, (rows, count) in tables.items():
        table = b.take(f"{name}.table", f"embeddings.{name}_embeddings.weight", count, width)
        b.add(Embed(name, ("ids",), table, rows))
    x = b.add(Add("embedded", (b.add(Add("word+position", ("word", "position"))), "token_type")))
    if not norm_first:
        x = b.norm("embeddings", x, "embeddings.LayerNorm", width, epsilon)
    if embedding:
        x = b.linear("embeddings_project", x, "embeddings_project", hidden, width)
    for number in range(layers):
        x = (b.pre_norm if norm_first else b.post_norm)(number, x, f"encoder.layer.{number}.", of)
    if norm_first:
        x = b.norm("layernorm", x, "embeddings.LayerNorm", hidden, epsilon)
    pooled = b.add(Mean("mean", (x,)) if pooling == "mean" else Select("first", (x,), 0))
    b.add(Output("embedding", (pooled,)))
    return b.graph("random").verify()


def drawn(make: Callable[[Draw], Graph], draw: Draw, order: Callable[[str], Any]) -> Graph:
    """The network that `make` builds, with tensors drawn in an `order` that does not depend on how it is built."""
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, shape: tuple[int, ...]) -> Array:
        shapes[name] = shape
        return nothing(name, shape)

    make(look)
    tensors = {name: draw(name, shapes[name]) for name in sorted(shapes, key=order)}
    return make(lambda name, shape: tensors[name])


def _order(name: str) -> tuple[int, bool]:
    """Tensors are drawn layer by layer, LayerNorms last; so the same seed gives the same whatever runs first."""
    layer = layer_of(name.removeprefix("encoder.layer."))
    return (-1 if layer is None else layer, "LayerNorm" in name)


def random_model(
    seed: int, *, hidden: int = 32, heads: int = 2, layers: int = 1, intermediate: int = 64, activation: str = "gelu",
    norm_first: bool = False, pooling: str = "mean", embedding: int = 0,
) -> Graph:  # fmt: skip
    """An encoder with random weights; see `encoder_graph`."""
    rng = np.random.default_rng(seed)

    def make(draw: Draw) -> Graph:
        return encoder_graph(
            draw, hidden=hidden, heads=heads, layers=layers, intermediate=intermediate, activation=activation,
            norm_first=norm_first, pooling=pooling, embedding=embedding,
        )  # fmt: skip

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if "LayerNorm" in name:
            values = rng.normal(1 if name.endswith("weight") else 0, 0.2, shape)
        elif name.startswith("embeddings."):
            values = rng.normal(size=shape)
        elif name.endswith("weight"):
            values = rng.normal(size=shape) / np.sqrt(shape[1]) * 1.5
        else:
            values = rng.normal(size=shape) * 0.2
        return values.astype(np.float32)

    return drawn(make, draw, _order)


def random_ids(seed: int, tokens: int) -> list[int]:
    """Random token ids."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, tokens).tolist()


def mixed_patterns(patterns: Sequence[Pattern]) -> dict[str, Pattern]:
    """Another pattern for each linear operation of layer 0."""
    return {f"0.{name}": patterns[i % len(patterns)] for i, name in enumerate(LINEAR.values())}
