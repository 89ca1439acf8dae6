"""Figures and tables of a run on hardware."""

from __future__ import annotations

from typing import Any

from ..compiler.model import CompiledModel
from .terminal import print_table

__all__ = ["print_layers", "run_figures"]


def run_figures(model: CompiledModel, run: Any) -> dict[str, Any]:
    """Figures of a run on hardware, as JSON types."""
    ideal = model.info.ideal_cycles
    return {"cycles": run.cycles, "ideal_cycles": ideal, "fraction_of_ideal": ideal / run.cycles, **run.counters}


def print_layers(title: str, rows: list[dict[str, Any]]) -> None:
    """Print what `by_layer` tells, as a table."""
    cells = []
    for row in rows:
        ideal = (f"{row['ideal']:,.0f}", f"{row['fraction']:.3f}") if row["ideal"] else ("", "")
        cells.append((row["layer"], row["shape"], row["used"], row["encoding"], f"{row['cycles']:,}", *ideal))
    print_table(title, ("layer", "shape", "N:M", "encoding", "cycles", "ideal", "fraction"), cells, left=4)
