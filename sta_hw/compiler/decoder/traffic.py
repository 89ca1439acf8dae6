"""What a decoder must move between memory and chip for tokens, whatever runs it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ...formats.nm import best_encoding, bits_per_weight
from ...model.families.decoders import NEXT
from ...model.graph import Graph
from ...model.operations import Attention, Linear, Norm, RmsNorm
from ...spec.config import Config
from ...spec.parameters import COLUMN_BYTES, NORM_COLUMN_BYTES
from ..parameters import LinearParameters
from .likeliest import LISTED

__all__ = ["Traffic", "least_traffic", "least_work", "weight_bits"]


_HEADER_BITS = 24 / 32
"""Of scale and minimum, for each weight of a block in memory."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of a pass over the weights.

    Attributes
    ----------
    weights, parameters, cache_read, cache_written, tokens : int
        Weights, with their positions and blocks' scales (`weight_bits`); parameters of columns and norms; keys and
        values of the tokens before, and of the new ones; what the new tokens take (their 16-bit stream) and give
        (16-bit logits, if any).
    """

    weights: int
    parameters: int
    cache_read: int
    cache_written: int
    tokens: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.parameters + self.cache_read + self.cache_written + self.tokens


def weight_bits(linears: Mapping[str, LinearParameters], config: Config) -> dict[str, float]:
    """Bits that a weight of the dense matrix takes in memory, by product, where they are not 8.

    Of N:M, those that are kept and their positions in the smaller encoding; of 4 bits, 3 bytes more for each 32.
    Hardware without feature blocks4 has INT8 in their place.
    """
    found = {}
    for name, p in linears.items():
        bits = 8.0
        if not p.pattern.dense:
            bits = bits_per_weight(p.pattern, best_encoding(p.pattern, config.window, config.encodings), config.window)
        if p.blocks is not None and "blocks4" in config.features:
            bits += _HEADER_BITS - 4 * p.pattern.density
        if bits != 8:
            found[name] = bits
    return found


def least_traffic(
    graph: Graph, position: int, tokens: int = 1, *, logits: int | None = None, bits: Mapping[str, float] | None = None,
    best: bool = False,
) -> Traffic:  # fmt: skip
    """What `tokens` new tokens from `position` on take: everything that is needed once, nothing twice.

    Behind so many of them `logits` are given, all if not said; without any, the head is left out. With `best` each of
    these gives its 8 largest, 8 bytes each. `bits` of a weight are 8 where nothing else is said (`weight_bits`).
    """
    bits, logits = bits or {}, tokens if logits is None else logits
    head = graph.linear(graph.by_name[NEXT].inputs[0])
    linears = [o for o in graph.operations if isinstance(o, Linear) and (logits or o is not head)]
    norms = [o for o in graph.operations if isinstance(o, Norm | RmsNorm)]
    cached = sum(
        int(graph.shapes[name][-1]) for o in graph.operations if isinstance(o, Attention) for name in o.inputs[1:]
    )  # fmt: skip
    given = 8 * LISTED if best else 2 * int(graph.shapes[NEXT][-1])
    return Traffic(
        sum(math.ceil(o.weight.size * bits.get(o.name, 8) / 8) for o in linears),
        COLUMN_BYTES * sum(len(o.weight) for o in linears) + NORM_COLUMN_BYTES * sum(len(o.weight) for o in norms),
        position * cached, tokens * cached, 2 * tokens * len(norms[-1].weight) + logits * given,
    )  # fmt: skip


def least_work(graph: Graph, position: int, tokens: int, *, wide: Collection[str] = ()) -> int:
    """Multiplications of a prompt's next tokens: all products, of which the head is the last token's alone.

    Each token attends to itself and to those before it. The products `wide` multiply two digits.
    """
    head = graph.linear(graph.by_name[NEXT].inputs[0])
    sizes = {o.name: o.weight.size * (1 + (o.name in wide)) for o in graph.operations if isinstance(o, Linear)}
    last = sizes.pop(head.name)
    layers = sum(sizes.values())
    widths = sum(int(graph.shapes[o.name][-1]) for o in graph.operations if isinstance(o, Attention))
    keys = sum(range(position + 1, position + tokens + 1))
    return tokens * layers + last + 2 * keys * widths
