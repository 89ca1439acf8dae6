"""What a run was of and what it gave, for whoever reads its report first."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..compiler.model import CompiledModel

__all__ = ["pattern_words", "summary"]


def pattern_words(model: CompiledModel) -> str:
    """The N:M that the linear layers run with: one, or each with its number of layers, the commonest first."""
    used = Counter(row.used for row in model.info.layers if row.bytes)
    if len(used) == 1:
        return next(iter(used))
    return ", ".join(f"{nm} ({count} layers)" for nm, count in used.most_common())


def summary(
    model: CompiledModel,
    run: Any,
    *,
    megahertz: float,
    dense_cycles: float | None,
    name: str,
    cosine: float,
    whose: str,
) -> dict[str, Any]:
    """Figures by name, as JSON types.

    Parameters
    ----------
    run : ProgramRun
    megahertz : float
        The clock that milliseconds are told for.
    dense_cycles : float or None
        Of the same shape with dense weights, by the cycle model; None where those do not fit the hardware.
    name : str
        The model's.
    cosine : float
        Of this run's result with that of `whose` fp32.
    """
    bus, ideal = model.config.bus_bytes, model.info.ideal_cycles
    speedup = None if dense_cycles is None else dense_cycles / run.cycles
    return {
        "model": name, "nm": pattern_words(model), "tokens": model.tokens, "cycles": run.cycles,
        "fraction_of_ideal": ideal / run.cycles, "speedup_over_dense": speedup,
        "megahertz": megahertz, "milliseconds": run.cycles / megahertz / 1000,
        "image_bytes": len(model.image), "bytes_read": run.counters["read_beats"] * bus,
        "bytes_written": run.counters["write_beats"] * bus, "cosine": cosine, "compared_with": whose,
    }  # fmt: skip
