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

__all__ = ["Stored", "Traffic", "least_traffic", "least_work", "stored_sizes"]


_HEADER_BITS = 24
"""Of a block's scale and minimum."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of a pass over the weights.

    Attributes
    ----------
    weights, parameters, cache_read, cache_written, tokens : int
        Weights, with their positions and blocks' scales (`Stored`); parameters of columns and norms; keys and
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


@dataclass(frozen=True)
class Stored:
    """What of a product lies in memory: by default of dense INT8.

    Attributes
    ----------
    bits : float
        Of a weight of the dense matrix, with its share of positions and blocks' scales.
    column_bytes : int
        Of a column's parameters.
    """

    bits: float = 8.0
    column_bytes: int = COLUMN_BYTES


def stored_sizes(linears: Mapping[str, LinearParameters], config: Config) -> dict[str, Stored]:
    """What products take in memory, by name.

    Of N:M, those that are kept and their positions in the smaller encoding; of 4 bits, 3 bytes more for each block.
    Hardware without feature blocks4 has INT8 in their place.
    """
    found = {}
    for name, p in linears.items():
        bits = 8.0
        if not p.pattern.dense:
            bits = bits_per_weight(p.pattern, best_encoding(p.pattern, config.window, config.encodings), config.window)
        if (blocks := p.blocks_on(config)) is not None:
            bits += _HEADER_BITS * blocks.headers / blocks.codes.shape[1] - 4 * p.pattern.density
        found[name] = Stored(bits, p.record_on(config).width // 8)
    return found


def least_traffic(
    graph: Graph, position: int, tokens: int = 1, *, logits: int | None = None,
    stored: Mapping[str, Stored] | None = None, best: bool = False,
) -> Traffic:  # fmt: skip
    """What `tokens` new tokens from `position` on take: everything that is needed once, nothing twice.

    Behind so many of them `logits` are given, all if not said; without any, the head is left out. With `best` each of
    these gives its 8 largest, 8 bytes each. Products that `stored` does not name (`stored_sizes`) are dense INT8.
    """
    logits = tokens if logits is None else logits
    head = graph.linear(graph.by_name[NEXT].inputs[0])
    linears = [o for o in graph.operations if isinstance(o, Linear) and (logits or o is not head)]
    lies = [(stored or {}).get(o.name, Stored()) for o in linears]
    norms = [o for o in graph.operations if isinstance(o, Norm | RmsNorm)]
    cached = sum(
        int(graph.shapes[name][-1]) for o in graph.operations if isinstance(o, Attention) for name in o.inputs[1:]
    )  # fmt: skip
    given = 8 * LISTED if best else 2 * int(graph.shapes[NEXT][-1])
    return Traffic(
        sum(math.ceil(o.weight.size * of.bits / 8) for o, of in zip(linears, lies, strict=True)),
        sum(len(o.weight) * of.column_bytes for o, of in zip(linears, lies, strict=True))
        + NORM_COLUMN_BYTES * sum(len(o.weight) for o in norms),
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
