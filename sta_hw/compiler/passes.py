"""The passes from a graph to a program, by name, and the callback between them."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["PASSES", "After", "nothing"]

PASSES = ("prune", "calibrate", "quantize", "lower", "schedule")
"""In the order they run; each gives something whose text says what it is."""

After = Callable[[str, object], None]
"""Called behind a pass with its name and what it gave."""


def nothing(name: str, result: object) -> None:
    """The callback of those who do not look."""
