"""Three clients of a DMA master, each with a region of the image to itself."""

from __future__ import annotations

from sta_hw.spec.config import Config

CONFIG = Config(rows=4, groups=2, lanes=4, drain_lanes=2, burst=4, outstanding=3)
NAMES = ("first", "second", "third")
REGION = 0x1000
"""Bytes of the image that are a client's."""
BASE = 0x123000
"""Where the image begins on the bus."""
