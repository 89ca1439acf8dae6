"""`sta-hw run --bisect`: the first instruction whose result differs on the RTL, and a waveform of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..errors import InputError
from ..run.backends import RtlBackend
from ..run.search import MOST_CYCLES, Search, search, write_window
from .terminal import Watch

__all__ = ["WAVEFORM", "find_wrong", "search_figures", "waveform_format"]

WAVEFORM = Path("build/bisect.fst")
"""Where the waveform goes if the user does not say."""


def waveform_format(path: Path) -> str:
    """The format that a waveform's name asks for, ``fst`` or ``vcd``.

    Raises
    ------
    InputError
        If it has neither ending.
    """
    if path.suffix not in (".fst", ".vcd"):
        raise InputError(
            f"output file {path} is no waveform by its name; it ends in .fst or .vcd, the nearest is "
            f"{path.with_name(path.name + '.fst')}."
        )
    return path.suffix[1:]


def find_wrong(compiled: CompiledModel, embedded: NDArray, waveform: Path, watch: Watch) -> tuple[Search, Any]:
    """What a search finds, and the cycles of the waveform that was written of it, or None where nothing differs."""
    image = compiled.with_input(embedded)
    watch.step("compiling the RTL")
    hardware = RtlBackend(compiled.config)
    found = search(compiled, image, hardware.model, memory=hardware.memory, progress=watch, report=watch.step)
    wrong = found.bisection.wrong
    if wrong is None or wrong.window is None:
        return found, None
    first, last = wrong.window
    watch.step("compiling the RTL with waveforms (kept for the next time)")
    traced = RtlBackend(compiled.config, trace=waveform_format(waveform))
    watch.step("writing the waveform")
    first = max(first, last + 1 - MOST_CYCLES)
    end = write_window(compiled, image, traced.model, waveform, first, last + 1, memory=traced.memory)
    return found, (first, min(last + 1, end))


def search_figures(found: Search, waveform: Path, cycles: Any) -> dict[str, Any]:
    """What was found, as JSON types."""
    bisection = found.bisection
    figures: dict[str, Any] = {
        "equal": found.equal, "bus_words": bisection.words, "instructions": bisection.instructions,
        "stopped": found.stopped, "stray_bus_words": bisection.strays, "first_stray": bisection.stray, "wrong": None,
        "waveform": str(waveform) if cycles else None, "waveform_cycles": list(cycles) if cycles else None,
    }  # fmt: skip
    if wrong := bisection.wrong:
        figures["wrong"] = {
            **asdict(wrong.ran), **asdict(wrong.at), "expected": wrong.expected, "got": wrong.got,
            "bus_words_wrong": wrong.values, "bus_words": wrong.of, "instructions_wrong": wrong.instructions,
            "on_chip": [asdict(r) for r in wrong.sources],
        }  # fmt: skip
    return figures
