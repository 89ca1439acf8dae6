"""How many groups share the scale and the minimum of a block of 4-bit weights (docs/format.md)."""

from __future__ import annotations

__all__ = ["LEAST_GROUPS_OF_WIDE", "block_groups", "wide_block_groups"]

_WEIGHTS = 32
"""Of a block, where a window has no more."""
_WIDE = 4
"""As many times as many groups share those of a wide block."""
LEAST_GROUPS_OF_WIDE = 2 * _WIDE
"""Times the groups of a block that is not wide: with fewer, wide blocks would spare little, and the expander of 8
groups with windows of 16 would take a quarter more cells."""


def block_groups(window: int, groups: int) -> int:
    """Groups that a block is spread over, of hardware with `groups` groups and windows of `window`: 32 weights."""
    return min(max(1, _WEIGHTS // window), groups)


def wide_block_groups(window: int, groups: int) -> int:
    """The same of a wide block: 128 weights; 0 where there are too few groups (`LEAST_GROUPS_OF_WIDE`)."""
    own = block_groups(window, groups)
    return _WIDE * own if LEAST_GROUPS_OF_WIDE * own <= groups else 0
