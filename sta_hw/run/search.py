"""One run of the RTL, every write recorded, against the reference's instructions; a waveform of where it went wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..errors import CheckError, InputError
from ..files import replacing, require_room
from ..reference.program import run_counted
from ..spec.isa import Error
from .bisect import Bisection, bisect
from .trail import Trail

__all__ = ["MOST_CYCLES", "Search", "search", "write_window"]

MOST_CYCLES = 20_000
"""Of a waveform of where a result went wrong: the last ones, where the instructions ran longer."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes
    ----------
    bisection : Bisection
    stopped : str
        Why the RTL did not end as it should; empty if it did.
    """

    bisection: Bisection
    stopped: str

    @property
    def equal(self) -> bool:
        """The RTL ended, and wrote what the reference wrote and no more."""
        return not self.stopped and self.bisection.wrong is None and not self.bisection.strays

    def text(self) -> str:
        """In sentences."""
        found = self.bisection
        said = []
        if found.wrong:
            said.append(found.wrong.text())
        if self.stopped:
            said.append(f"the accelerator stopped: {self.stopped}.")
        if found.strays and not self.stopped:
            said.append(f"{found.strays} bus words were written that no instruction writes, the first: {found.stray}.")
        if not said:
            said.append(
                f"each of the {found.words:,} bus words that {found.instructions:,} instructions write equals the "
                "reference's."
            )
        return "\n".join(said)


def search(
    model: CompiledModel, image: NDArray[np.uint8], hardware: Any, *, memory: Any = None,
    progress: Progress | None = None, report: Callable[[str], None] = lambda _: None,
) -> Search:  # fmt: skip
    """Run reference and RTL, compare each write.

    Parameters
    ----------
    image : uint8 array
        With the input in place (`CompiledModel.with_input`).
    hardware : sim.accelerator.AcceleratorModel
        Fresh from its reset, if a waveform of the same cycles is to be written afterwards.
    memory : sim.accelerator.MemoryModel or None
    """
    from sim.accelerator import Recording

    report("running the reference")
    trail = Trail(model, keep=True)
    run_counted(image, model.program_address, model.config, progress, trail, length=model.length)
    report("running the RTL")
    recording = Recording()
    expected = int(model.info.ideal_cycles * 1.15)
    stopped = ""
    try:
        run = hardware.run(
            image, model.program_address, memory=memory, length=model.length, record=recording,
            progress=(lambda cycles: progress(cycles, expected)) if progress else None,
        )  # fmt: skip
        if run.error != Error.NONE:
            stopped = f"{run.error.name} {model.at_error(run.error_instruction)}"
    except CheckError as error:
        stopped = str(error)
    return Search(bisect(model, trail, recording), stopped)


def write_window(
    model: CompiledModel, image: NDArray[np.uint8], hardware: Any, path: Path, first: int, last: int, *,
    memory: Any = None,
) -> int:  # fmt: skip
    """Run again, and write the clock cycles from `first` up to, but not, `last` as a waveform.

    Parameters
    ----------
    hardware : sim.accelerator.AcceleratorModel
        Built for waveforms of the path's format, fresh from its reset; closed afterwards.

    Returns
    -------
    int
        The cycle in which the run ended, or was left: a run that hangs, or breaks the protocol, is to be seen too.

    Raises
    ------
    InputError
        If the run ends before the first cycle.
    """
    with replacing(path) as partial:
        hardware.trace(partial, first, last)
        with suppress(CheckError):
            hardware.run(image, model.program_address, memory=memory, length=model.length, most=last)
        end = int(hardware.cycle)
        hardware.close()
        require_room(partial)  # the writers of waveforms are silent about a full disk
        if end <= first:
            raise InputError(f"the first cycle is {first}, and the program ends after {end}; the nearest is {end - 1}.")
    return end
