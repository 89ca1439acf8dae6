"""Parameters of columns as they lie in memory: what follows a product's sums, and a norm's statistics."""

from __future__ import annotations

from .records import Field, Record

__all__ = ["COLUMN", "COLUMN_BYTES", "NORM_COLUMN", "NORM_COLUMN_BYTES", "SHORT_COLUMN"]

_BIAS = "added to the sum"
_SHIFT = Field("shift", 3, text="in steps of 4 bits ([numerics.md](numerics.md))")
_SECOND = Field("second", 16, text="behind the activation or the residual stream; 0 where there is none")
COLUMN = Record(
    "column",
    (
        Field("bias", 32, signed=True, text=_BIAS),
        Field("multiplier", 16),
        _SHIFT,
        Field("", 13),
        _SECOND,
        Field("", 48),
    ),
)
"""A column of a product: ``(sum + bias) * multiplier >> (12 + 4 * shift)``."""
SHORT_COLUMN = Record(
    "short column",
    (
        Field("bias", 24, signed=True, text=_BIAS),
        Field("multiplier", 16),
        _SHIFT,
        Field("", 5),
        _SECOND,
    ),
)
"""The same in half as many bytes, for biases of 24 bits: hardware with feature blocks4 spreads it to a `COLUMN`."""
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
