"""How many positions of a window are used: counted by hand, and against every depth there is."""

from __future__ import annotations

import pytest

from sta_hw.formats.tiling import best_depth
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import parse_nm


@pytest.mark.parametrize(
    ("groups", "window", "reduction", "nm", "depth"),
    [
        (2, 8, 32, "2:4", 8),  # 2 passes of 8, or 4 of 4: as many, and fewer passes
        (2, 8, 24, "2:4", 4),  # 3 passes of 4, where 2 of 8 would be 16
        (2, 16, 24, "2:4", 12),  # one pass of 12
        (2, 16, 1, "2:4", 4),
        (2, 16, 1, "dense", 1),
        (2, 16, 3, "dense", 2),
        (2, 16, 33, "dense", 1),  # 17 passes of 1, where 9 of 2 are 18 and 2 of 16 are 32
        (8, 16, 16, "8:16", 16),
        (8, 32, 1000, "8:16", 32),  # 4 passes of 32 are as many as 8 of 16
    ],
)
def test_fewest_cycles_then_fewest_passes(groups: int, window: int, reduction: int, nm: str, depth: int) -> None:
    assert best_depth(Config(groups=groups, window=window), reduction, parse_nm(nm)) == depth
