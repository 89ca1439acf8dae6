"""What a run gives, and how two runs are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..errors import CheckError
from .trail import Trail, element_at, value_at

__all__ = ["Outcome", "compare"]


@dataclass(frozen=True)
class Outcome:
    """What a backend gives.

    Attributes
    ----------
    image : uint8 array
        Memory after the run.
    embedding : float64 array, shape (hidden,)
        Of length 1; a batch's first text's.
    run : ProgramRun, BoardRun or None
        Cycles and counters where there is hardware; the timeline too where it is simulated.
    saturated : dict of int
        How often values were at an end of their range (`sta_hw.host.saturation.counted`).
    trail : Trail or None
        Of the reference: what each instruction wrote.
    """

    image: NDArray[np.uint8]
    embedding: NDArray[np.float64]
    run: Any = None
    saturated: dict[str, int] = field(default_factory=dict)
    trail: Trail | None = None


def compare(
    model: CompiledModel, got: NDArray[np.uint8], expected: NDArray[np.uint8], trail: Trail | None = None
) -> None:
    """Check two images for equality.

    Parameters
    ----------
    trail : Trail or None
        The reference's. Buffers are shared by all layers: with it, the difference that is named is of the first
        instruction, in the order of the program, whose bytes are still there and wrong; without, of the lowest address.

    Raises
    ------
    CheckError
        Layer, value, token and channel, expected, got.
    """
    wrong = np.flatnonzero(got != expected)
    if not len(wrong):
        return
    byte, whose, element = int(wrong[0]), "", None
    if trail is not None:
        owners = trail.writers(len(expected))[wrong // model.config.bus_bytes]
        if (owners >= 0).any():
            number = int(owners[owners >= 0].min())
            byte = int(wrong[owners == number][0])
            whose = f"{trail.label(number)}: "
            element = element_at(model, byte, trail.executed[number].instruction, trail.layer(number))
    place = element or element_at(model, byte)
    raise CheckError(
        f"{whose}{place.words()}: expected {value_at(expected, place)}, got {value_at(got, place)} "
        f"({len(wrong)} bytes of memory differ after the run)"
    )
