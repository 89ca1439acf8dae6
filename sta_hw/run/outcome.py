"""What a run gives, and how two runs are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..errors import CheckError

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
    """

    image: NDArray[np.uint8]
    embedding: NDArray[np.float64]
    run: Any = None
    saturated: dict[str, int] = field(default_factory=dict)


def compare(model: CompiledModel, got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Check two images for equality.

    Raises
    ------
    CheckError
        At the first byte that differs: the value that was stored there last, buffer, tile, column, row, expected, got.
    """
    wrong = np.flatnonzero(got != expected)
    if not len(wrong):
        return
    first = int(wrong[0])
    place = f"byte {first}"
    rows = model.config.rows
    for name, (address, width, size) in model.info["buffers"].items():
        offset = first - address
        if 0 <= offset < model.packing.tiles * rows * width * size:
            column, row = offset // (rows * size) % width, offset // size % rows
            held = [v["value"] for v in model.info.get("values", {}).values() if name in v["buffers"]]
            what = f"{held[-1]} (buffer {name})" if held else f"buffer {name}"
            place = f"{what}, tile {offset // (rows * size * width)}, row {row}, column {column}"
    raise CheckError(f"{place}: expected {expected[first]}, got {got[first]} ({len(wrong)} bytes differ)")
