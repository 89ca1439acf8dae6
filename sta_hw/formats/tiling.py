"""How a reduction is cut into windows."""

from __future__ import annotations

import math

from ..spec.config import Config
from ..spec.patterns import Pattern

__all__ = ["best_depth"]


def best_depth(config: Config, reduction: int, pattern: Pattern) -> int:
    """Window positions per tap that waste the fewest cycles: a multiple of M, at most `window`."""

    def cost(depth: int) -> tuple[int, int]:
        return math.ceil(reduction / (config.groups * depth)) * depth, -depth

    return min(range(pattern.m, config.window + 1, pattern.m), key=cost)
