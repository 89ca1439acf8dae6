"""What a decoder must move between memory and chip for tokens, whatever runs it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...model.families.decoders import NEXT
from ...model.graph import Graph
from ...model.operations import Attention, Linear, Norm, RmsNorm
from ...spec.parameters import COLUMN_BYTES, NORM_COLUMN_BYTES

__all__ = ["Traffic", "least_traffic", "least_work"]


@dataclass(frozen=True)
class Traffic:
    """Bytes of a pass over the weights.

    Attributes
    ----------
    weights, parameters, cache_read, cache_written, tokens : int
        Weights of 8 bits, or of 4 with 3 bytes for each block of 32; parameters of columns and norms; keys and values
        of the tokens before, and of the new ones; what the new tokens take (their 16-bit stream) and give (16-bit
        logits, if any).
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


def least_traffic(
    graph: Graph, position: int, tokens: int = 1, *, logits: bool = True, blocked: Collection[str] = ()
) -> Traffic:
    """What `tokens` new tokens from `position` on take: everything that is needed once, nothing twice.

    Without `logits`, the head is left out; the weights of the products `blocked` have 4 bits in blocks.
    """
    head = graph.linear(graph.by_name[NEXT].inputs[0])
    linears = [o for o in graph.operations if isinstance(o, Linear) and (logits or o is not head)]
    norms = [o for o in graph.operations if isinstance(o, Norm | RmsNorm)]
    cached = sum(
        int(graph.shapes[name][-1]) for o in graph.operations if isinstance(o, Attention) for name in o.inputs[1:]
    )  # fmt: skip
    return Traffic(
        sum(o.weight.size * (19 if o.name in blocked else 32) // 32 for o in linears),
        COLUMN_BYTES * sum(len(o.weight) for o in linears) + NORM_COLUMN_BYTES * sum(len(o.weight) for o in norms),
        position * cached, tokens * cached, 2 * tokens * (len(norms[-1].weight) + logits * int(graph.shapes[NEXT][-1])),
    )  # fmt: skip


def least_work(graph: Graph, position: int, tokens: int) -> int:
    """Multiplications of a prompt's next tokens: all products, of which the head is the last token's alone.

    Each token attends to itself and to those before it.
    """
    head = graph.linear(graph.by_name[NEXT].inputs[0])
    layers = sum(o.weight.size for o in graph.operations if isinstance(o, Linear) and o is not head)
    widths = sum(int(graph.shapes[o.name][-1]) for o in graph.operations if isinstance(o, Attention))
    keys = sum(range(position + 1, position + tokens + 1))
    return tokens * layers + head.weight.size + 2 * keys * widths
