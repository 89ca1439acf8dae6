"""Runs of bus words, which units ask the DMA for: what one is, and which rows' bytes of it are written."""

from __future__ import annotations

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data, enum

from ...spec.config import Config
from ..primitives.layouts import COUNT_BITS
from .axi import ADDRESS_BITS

__all__ = ["APART", "BEATS_BITS", "Kind", "row_range", "run_layout", "store_layout"]

BEATS_BITS = 20
"""Of the number of a run's beats."""


def run_layout() -> data.StructLayout:
    """A run of consecutive bus words: byte address in the image, beats, and the instruction it belongs to."""
    return data.StructLayout(
        {"address": unsigned(ADDRESS_BITS), "beats": unsigned(BEATS_BITS), "instruction": unsigned(COUNT_BITS)}
    )


class Kind(enum.Enum, shape=unsigned(2)):
    """How a run's bytes belong to rows: columns of 8 bits a row, of 16, or blocks of `groups` columns row after row."""

    NARROW = 0
    WIDE = 1
    TRANSPOSED = 2


APART = 3
"""The kind that hardware with more groups than rows alone has: columns of 8 bits a row in places of `groups` bytes, of
which they have a part."""


def row_range(config: Config) -> dict[str, Shape]:
    """Fields that say which rows of a tile are written: how many before and after them are not."""
    return dict.fromkeys(("rows_before", "rows_after"), unsigned(config.rows.bit_length() - 1))


def store_layout(config: Config) -> data.StructLayout:
    """A run to be written, and which rows of it. A column, or a block of them, begins at a multiple of its bytes."""
    parts = max(1, config.groups // config.rows).bit_length() - 1
    part = {"part": unsigned(parts)} if parts else {}
    return data.StructLayout({**run_layout().members, "kind": Kind, **row_range(config), **part})
