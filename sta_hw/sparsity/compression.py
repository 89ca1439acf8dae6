"""What sparse weights take in memory, against the information limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..formats.nm import best_encoding, bits_per_weight
from ..spec.patterns import Pattern

__all__ = ["Compression", "compression"]


@dataclass(frozen=True)
class Compression:
    """One layer, or all: bits per weight of the dense matrix, INT8 values and positions.

    Attributes
    ----------
    limit : float
        With log2 C(M, N) bits for the positions of a group.
    bytes : int
        In the smaller of both encodings.
    """

    layer: str
    pattern: str
    weights: int
    index: float
    bitmap: float
    limit: float
    bytes: int


def compression(
    shapes: Mapping[str, tuple[int, ...]], patterns: Mapping[str, Pattern], window: int = 16
) -> list[Compression]:
    """Every linear layer, and as the last one the whole.

    Parameters
    ----------
    shapes : (columns, reduction) of linear layers, by name
    patterns : their N:M; dense if not there
    window : int
        Bits of a position word.
    """
    rows = []
    dense = Pattern(1, 1)
    for key, (columns, reduction) in shapes.items():
        pattern = patterns.get(key, dense)
        bits = {e: bits_per_weight(pattern, e, window) for e in ("index", "bitmap", "limit")}
        count = columns * reduction
        size = round(count * bits_per_weight(pattern, best_encoding(pattern, window), window) / 8)
        rows.append(Compression(key, str(pattern), count, **bits, bytes=size))
    count = sum(r.weights for r in rows)

    def mean(name: str) -> float:
        return sum(getattr(r, name) * r.weights for r in rows) / count

    kinds = {r.pattern for r in rows}
    whole = kinds.pop() if len(kinds) == 1 else "mixed"
    return [
        *rows,
        Compression("all", whole, count, mean("index"), mean("bitmap"), mean("limit"), sum(r.bytes for r in rows)),
    ]
