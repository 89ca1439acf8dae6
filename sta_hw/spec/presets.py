"""Configurations by name: sizes, and what fills the boards' parts."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches

from ..errors import ConfigError
from .config import Config

__all__ = ["BOARD_PRESETS", "PRESETS", "configured", "preset"]

PRESETS: dict[str, Config] = {
    "ci": Config(
        rows=4, groups=2, window=16, columns=64, softmax_lanes=2, drain_lanes=2, weight_words=2048, norm_columns=64
    ),
    "tiny": Config(rows=4, groups=4, window=16, columns=256, softmax_lanes=4, drain_lanes=2),
    "small": Config(rows=8, groups=8, window=16, softmax_lanes=8, drain_lanes=4),
    "reference": Config(
        rows=16, groups=8, window=16, softmax_lanes=8, softmax_block=128, drain_lanes=4, weight_words=16384
    ),
    # The reference's multipliers, for language models: 16 weights a cycle, twice what 8 bytes a cycle bring.
    "decoder": Config(
        rows=8,
        groups=16,
        window=16,
        softmax_lanes=8,
        softmax_block=256,
        drain_lanes=4,
        weight_words=8192,
        features=("decoder",),
        window_words=4096,
        loads_ahead=1,
    ),
    "medium": Config(rows=16, groups=16, window=16, softmax_lanes=16, softmax_block=256, drain_lanes=4),
    "large": Config(rows=32, groups=32, window=16, lanes=16, softmax_lanes=16, softmax_block=512, drain_lanes=8),
    "huge": Config(rows=64, groups=32, window=16, lanes=32, softmax_lanes=32, softmax_block=512, drain_lanes=16),
}
"""Named configurations, from a size for continuous integration to 64 x 32."""

_ECP5 = Config(
    rows=16, groups=8, window=16, softmax_lanes=8, softmax_block=128, drain_lanes=4, weight_words=8192,
    parameter_words=1024, multiplier="dsp",
)  # fmt: skip
BOARD_PRESETS: dict[str, Config] = {
    # Its SDRAM gives two bytes a cycle: as many lanes as the reference would only be in the router's way.
    "ecp5-85f": dataclasses.replace(_ECP5, lanes=4, drain_lanes=2, softmax_lanes=4),
    "ecp5-45f": dataclasses.replace(
        _ECP5, groups=4, multiplier="dsp-pair", columns=256, weight_words=4096, parameter_words=512
    ),
    "ecp5-25f": Config(
        rows=8, groups=4, window=16, lanes=4, drain_lanes=2, columns=128, softmax_lanes=4, softmax_block=64,
        weight_words=2048, parameter_words=512, norm_columns=256, multiplier="dsp-pair", array_multipliers=14,
    ),
    # The multipliers as language models want them, and all that a DDR3 brings: 8 bytes a cycle.
    "ecp5-85f-decoder": dataclasses.replace(
        PRESETS["decoder"], multiplier="dsp", drain_lanes=2, softmax_lanes=4, weight_words=4096, parameter_words=1024
    ),
    # The same behind an SDRAM that gives two bytes a cycle.
    "ecp5-85f-decoder-sdram": dataclasses.replace(
        PRESETS["decoder"], multiplier="dsp", lanes=4, drain_lanes=2, softmax_lanes=4, weight_words=4096,
        parameter_words=1024,
    ),
    "ecp5-85f-256": dataclasses.replace(_ECP5, groups=16, multiplier="dsp-pair", weight_words=4096),
    "up5k": Config(
        rows=4, groups=2, window=16, lanes=4, drain_lanes=1, columns=64, encodings=("index",), nm=("2:4",),
        multiplier="mac16", weight_words=512, parameter_words=64,
    ),
}  # fmt: skip
"""Configurations that fill a part; sta_hw/fpga/parts.py has the parts."""


def preset(name: str) -> Config:
    """The preset called `name`.

    Raises
    ------
    ConfigError
        When there is none of that name; the message lists them and the nearest.
    """
    known = PRESETS | BOARD_PRESETS
    if not isinstance(name, str) or name not in known:
        near = get_close_matches(str(name), known, n=1, cutoff=0) or ["reference"]
        raise ConfigError([f"preset {name!r} is unknown; there are {', '.join(known)}; the nearest is {near[0]}."])
    return known[name]


def configured(hardware: str | Config) -> Config:
    """A configuration, given as one or by the name of a preset.

    Raises
    ------
    ConfigError
        If it is neither; see `preset`.
    """
    found = preset(hardware) if isinstance(hardware, str) else hardware
    if not isinstance(found, Config):
        raise ConfigError(
            [f"a configuration is a sta_hw.spec.config.Config or the name of a preset, not {hardware!r}."]
        )
    return found
