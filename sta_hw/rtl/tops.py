"""The components that can be generated as a top level, by name."""

from __future__ import annotations

from typing import Any

from amaranth.lib import wiring

from ..errors import InputError
from ..spec.config import Config
from .accelerator import Accelerator
from .engine.decoder import Decoder
from .engine.engine import Engine
from .units.softmax import Softmax

__all__ = ["TOPS", "component"]

TOPS: dict[str, Any] = {"engine": Engine, "softmax": Softmax, "decoder": Decoder, "accelerator": Accelerator}
"""Components that can be generated as a top level."""


def component(top: str, config: Config, **options: int) -> wiring.Component:
    """The component called `top`, with more of its own parameters as `options`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if top not in TOPS:
        raise InputError(f"top {top!r} is unknown; it is {', '.join(TOPS)}.")
    return TOPS[top](config, **options)
