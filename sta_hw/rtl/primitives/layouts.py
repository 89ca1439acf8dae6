"""Records that cross module boundaries: the layout of every stream payload of the engine.

Field order is bit order, least significant first, as `amaranth.lib.data` packs it.
"""

from __future__ import annotations

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

from ...spec.config import Config
from ...spec.records import Record

__all__ = [
    "CLASS_BITS",
    "COUNT_BITS",
    "GROWTH_BITS",
    "LENGTH_BITS",
    "UNDER_WAY_BITS",
    "Encoding",
    "Fault",
    "beat_layout",
    "command_layout",
    "drain_command_layout",
    "growth_layout",
    "parameter_layout",
    "positions_layout",
    "record_layout",
    "result_layout",
    "row_parameter_layout",
    "values_layout",
    "windows_command_layout",
]


COUNT_BITS = 16
"""Bits of instruction numbers: they count modulo 2^16."""
CLASS_BITS = 8
"""Bits of the counts of instructions issued and finished, modulo 2^8: no more than 62 of a class are under way, and
what waits is at most `MOST_AGE` (`spec.expansion`) instructions old, so that a difference of two counts lies between
-63 and 126."""
UNDER_WAY_BITS = 6
"""Bits of how many instructions of a class are under way: no more than 62."""
LENGTH_BITS = 16
"""Bits of register LENGTH."""
GROWTH_BITS = 5
"""Bits of a row's rescaling shift: 31 places leave nothing of a sum but its sign."""


class Encoding(enum.Enum, shape=unsigned(2)):
    """How the positions of a matrix's non-zeros are stored."""

    DENSE = 0
    INDEX = 1
    BITMAP = 2


class Fault(enum.Flag, shape=unsigned(6)):
    """What was wrong with the weight streams of a product."""

    VALUES_SHORT = 1
    VALUES_LONG = 2
    POSITIONS_SHORT = 4
    POSITIONS_LONG = 8
    POSITIONS_WRONG = 16
    COMMAND = 32


def record_layout(record: Record) -> data.FlexibleLayout:
    """A record's named fields, each at its place."""
    fields = {
        name: data.Field(signed(f.width) if f.signed else unsigned(f.width), at)
        for name, (at, f) in record.places.items()
    }
    return data.FlexibleLayout(record.width, fields)


def command_layout(config: Config) -> data.StructLayout:
    """One matrix product.

    ==================  ====  =====================================================================
    field               bits  meaning
    ==================  ====  =====================================================================
    encoding            2     `Encoding`
    n                   6     non-zeros per group, 1 to M; 1 when dense
    m_log2              3     log2 M; 0 when dense
    depth               6     window positions per tap, 1 to `window`, a multiple of M
    taps                6     taps per window, 1 to `window`; ``taps * depth <= window``
    columns             16    results per row, taps included; at most ``Config.columns`` if passes > 1
    passes              16    windows streamed through one after the other, at least 1
    unsigned            1     activations are unsigned (probabilities)
    widen_at            16    pass before which the sums shift left by 8 (low bytes follow); 0 never
    per_row             1     requantization parameters per (tap, row) instead of per column
    wide_result         1     results saturate to 16 bits instead of 8
    continues           1     the first pass adds to the sums the last unfinished product left
    unfinished          1     the last pass leaves its sums for a product that continues; no results
    rescale             1     continues: those sums first shift right, per row, by one beat of `growth`
    lift                1     feature digits; continues: those sums count 128 times
    ==================  ====  =====================================================================
    """
    more = {"lift": unsigned(1)} if "digits" in config.features else {}
    return data.StructLayout(
        {
            "encoding": Encoding,
            "n": unsigned(6),
            "m_log2": unsigned(3),
            "depth": unsigned(6),
            "taps": unsigned(6),
            "columns": unsigned(16),
            "passes": unsigned(16),
            "unsigned": unsigned(1),
            "widen_at": unsigned(16),
            "per_row": unsigned(1),
            "wide_result": unsigned(1),
            "continues": unsigned(1),
            "unfinished": unsigned(1),
            "rescale": unsigned(1),
            **more,
        }
    )


def windows_command_layout() -> data.StructLayout:
    """The part of a command that the window loader keeps."""
    return data.StructLayout({"depth": unsigned(6), "taps": unsigned(6), "passes": unsigned(16)})


def drain_command_layout() -> data.StructLayout:
    """The part of a command that the drain keeps."""
    return data.StructLayout(
        {"taps": unsigned(6), "columns": unsigned(16), "per_row": unsigned(1), "wide_result": unsigned(1)}
    )


def row_parameter_layout() -> data.StructLayout:
    """Requantization of one row: that of a column without its bias."""
    return data.StructLayout({"multiplier": unsigned(16), "shift": unsigned(3)})


def values_layout(config: Config) -> data.StructLayout:
    """One beat of weight values: one INT8 value per group, and whether it is the matrix's last."""
    return data.StructLayout({"values": data.ArrayLayout(signed(8), config.groups), "last": unsigned(1)})


def positions_layout(config: Config) -> data.StructLayout:
    """One beat of weight metadata: one word of `window` bits per group, and the last flag."""
    words = data.ArrayLayout(unsigned(config.window), config.groups)
    return data.StructLayout({"words": words, "last": unsigned(1)})


def beat_layout(config: Config) -> data.StructLayout:
    """One decoded beat: a value and a window address per group, and where in the loops it stands."""
    return data.StructLayout(
        {
            "values": data.ArrayLayout(signed(8), config.groups),
            "addresses": data.ArrayLayout(unsigned(config.address_width), config.groups),
            "first": unsigned(1),  # first beat of a column
            "last": unsigned(1),  # last beat of a column
            "first_pass": unsigned(1),
            "final_pass": unsigned(1),
            "pass_end": unsigned(1),  # last beat of a pass
            "widen": unsigned(1),  # shift the stored sum left before adding
            "unsigned": unsigned(1),
            "rescale": unsigned(1),  # first beat of a product whose sums are rescaled before it
            "gives": unsigned(1),  # a result is complete: last beat of a column in the final pass
        }
    )


def growth_layout(config: Config) -> data.ArrayLayout:
    """Places by which each row's sums shift right."""
    return data.ArrayLayout(unsigned(GROWTH_BITS), config.rows)


def parameter_layout() -> data.StructLayout:
    """Requantization of one column, or of one row: ``(sum + bias) * multiplier >> (12 + 4 * shift)``."""
    return data.StructLayout({"bias": signed(32), "multiplier": unsigned(16), "shift": unsigned(3)})


def result_layout(config: Config) -> data.StructLayout:
    """One beat of results: `drain_lanes` rows of one column, 16 bits each, and the product's last flag."""
    return data.StructLayout({"values": data.ArrayLayout(signed(16), config.drain_lanes), "last": unsigned(1)})
