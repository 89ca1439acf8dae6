"""Parameters of columns as they lie in memory: what follows a product's sums, and a norm's statistics."""

from __future__ import annotations

from .records import Field, Record

__all__ = ["COLUMN", "COLUMN_BYTES", "NORM_COLUMN", "NORM_COLUMN_BYTES"]

COLUMN = Record(
    "column",
    (
        Field("bias", 32, signed=True, text="added to the sum"),
        Field("multiplier", 16),
        Field("shift", 3, text="in steps of 4 bits ([numerics.md](numerics.md))"),
        Field("", 13),
        Field("second", 16, text="behind the activation or the residual stream; 0 where there is none"),
        Field("", 48),
    ),
)
"""A column of a product: ``(sum + bias) * multiplier >> (12 + 4 * shift)``."""
NORM_COLUMN = Record(
    "column of a norm",
    (
        Field("scale", 18, signed=True),
        Field("shift", 16, signed=True),
        Field("multiplier", 16, text="of the 8-bit result"),
        Field("", 14),
    ),
)
"""A column of LayerNorm or RMSNorm."""
COLUMN_BYTES = COLUMN.width // 8
NORM_COLUMN_BYTES = NORM_COLUMN.width // 8
