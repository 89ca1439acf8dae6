"""One top level on one part: Verilog, synthesis, place and route of several seeds, a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import working_folder
from ..rtl.emit import emit_verilog
from ..rtl.tops import component
from ..spec.config import Config
from .parts import Part
from .routing import LOGIC_CELLS, UNTIMED, Tries, place_and_route
from .synthesis import synthesize

__all__ = ["synthesize_top"]


def synthesize_top(
    top: str, config: Config, chosen: Part, folder: Path, tries: Tries, step: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Cells, and Fmax with its critical path for each seed, as JSON types; ``utilization.png`` in `folder`.

    Raises
    ------
    ToolError
        If a tool fails; its log is in `folder`.
    """
    with working_folder(folder) as work:
        return _synthesized(top, config, chosen, work, tries, step)


def _synthesized(
    top: str, config: Config, chosen: Part, folder: Path, tries: Tries, step: Callable[[str], None]
) -> dict[str, Any]:
    """The same, in a folder of its own."""
    step("generating")
    (folder / f"{top}.v").write_text(emit_verilog(component(top, config), top))
    cells = synthesize([f"{top}.v"], top, chosen.family, folder, step)
    capacity = _capacity(chosen)
    rows: list[dict[str, Any]] = []
    for seed in tries.seeds:
        routed = place_and_route(
            top, chosen, folder, seed=seed, frequency=tries.frequency, minutes=tries.minutes, step=step
        )
        if routed is None:
            rows.append({"seed": seed, "fmax": None, "logic": 0, "seconds": 60 * tries.minutes, "path": []})
            continue
        rows.append(
            {"seed": seed, "fmax": routed.fmax, "logic": routed.used.get(LOGIC_CELLS[chosen.family], 0),
             "used": routed.used, "seconds": routed.seconds, "path": routed.path}
        )  # fmt: skip
    picture = "utilization.png"
    _draw(folder / picture, cells, capacity, f"{top} on {chosen.name}")
    return {
        "top": top, "part": chosen.name, "configuration": config.as_dict(), "cells": cells, "capacity": capacity,
        "seeds": rows, "picture": picture,
    } | ({"untimed": UNTIMED[chosen.family]} if rows and chosen.family in UNTIMED else {})  # fmt: skip


def _capacity(chosen: Part) -> dict[str, int]:
    names = {
        "ecp5": ("lut4_equivalents", "MULT18X18D", "DP16KD"),
        "ice40": ("SB_LUT4", "SB_MAC16", "SB_RAM40_4K"),
        "nexus": ("lut4_equivalents", "multipliers_9x9", "block_memories"),
        "gowin": ("lut4_equivalents", "multipliers_9x9", "block_memories"),
        "xcup": (),
    }[chosen.family]
    return dict(zip(names, (chosen.logic, chosen.multipliers, chosen.memories), strict=False))


def _draw(path: Path, cells: dict[str, int], capacity: dict[str, int], title: str) -> None:
    """Bars of what is used of a part, or of the cells where no part in particular is meant."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    values = {n: 100 * cells[n] / c for n, c in capacity.items() if c and n in cells} or dict(cells)
    figure, axes = pyplot.subplots(figsize=(6, 0.6 * len(values) + 1.4), layout="constrained")
    over = [bool(capacity) and value > 100 for value in values.values()]
    bars = axes.barh(list(values), list(values.values()), color=["#b2182b" if o else "#2166ac" for o in over])
    axes.bar_label(bars, [f"{cells[n]:,}" for n in values], padding=3)
    axes.margins(x=0.15)
    if capacity:
        axes.axvline(100, color="black", linewidth=0.8)
    axes.set_xlabel("% of the part" if capacity else "cells")
    axes.set_title(title)
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)  # into the working folder
    pyplot.close(figure)
