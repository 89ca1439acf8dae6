"""The picture of an exploration: cells against milliseconds, accuracy as colour, the front as a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..fpga.parts import Part
from ..report.page import svg
from .explore import Confirmed
from .front import Found

__all__ = ["MOST_PANELS", "picture"]

MOST_PANELS = 12
"""Models and numbers of tokens that are drawn; a picture of more could not be read."""


def picture(rows: Sequence[Found], chosen: Part, confirmed: Sequence[Confirmed] = ()) -> str:
    """SVG with a panel for each model and number of tokens, `MOST_PANELS` at most.

    Each valid point is a dot in the colour of its N:M, whose cosine is in the legend; those of the front are full, and
    joined for each N:M. A cross is where synthesis has a configuration.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    panels = list(dict.fromkeys((row.model, row.tokens) for row in rows if not row.problems))
    left_out, panels = len(panels) - MOST_PANELS, panels[:MOST_PANELS]
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    with matplotlib.rc_context({"svg.hashsalt": "sta-hw"}):  # the same figures are the same bytes
        canvas = Canvas(figsize=(max(6, 4.2 * across), 3.8 * down + 0.3), layout="constrained")
        grid = canvas.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (model, tokens) in zip(grid.flat, panels, strict=False):
            here = [r for r in rows if not r.problems and (r.model, r.tokens) == (model, tokens)]
            _panel(axes, here, [c for c in confirmed if (c.row.model, c.row.tokens) == (model, tokens)])
            if chosen.logic:
                axes.axvline(chosen.logic, color="0.6", linestyle=":", linewidth=1)
            axes.set_title(f"{model}, {tokens} tokens".replace("$", r"\$"), fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel(f"logic cells (dotted: all of {chosen.name})", fontsize=8)
        for axes in grid[:, 0]:
            axes.set_ylabel("milliseconds", fontsize=8)
        if left_out > 0:
            canvas.suptitle(f"{MOST_PANELS} of {MOST_PANELS + left_out} panels; --json has all points", fontsize=9)
        return svg(canvas)


def _panel(axes: Any, rows: Sequence[Found], confirmed: Sequence[Confirmed]) -> None:
    import matplotlib

    names = list(dict.fromkeys(row.nm for row in rows))
    colours = matplotlib.colormaps["viridis_r"]
    for number, nm in enumerate(names):
        colour = colours(0.15 + 0.85 * number / max(1, len(names) - 1))
        mine = [row for row in rows if row.nm == nm]
        cosine = mine[0].cosine
        label = nm if cosine is None else f"{nm}, cosine {cosine:.3f}"
        front = sorted((r.logic, r.milliseconds) for r in mine if r.front)
        others = [(r.logic, r.milliseconds) for r in mine if not r.front]
        if others:
            axes.scatter(*zip(*others, strict=True), s=14, facecolors="none", edgecolors=[colour], linewidths=0.8)
        if front:
            axes.plot(*zip(*front, strict=True), marker="o", markersize=5, color=colour, linewidth=1, label=label)
        else:
            axes.plot([], [], marker="o", markersize=5, markerfacecolor="none", color=colour, linewidth=0, label=label)
    if confirmed:
        points = [(c.logic, c.row.milliseconds) for c in confirmed]
        axes.scatter(*zip(*points, strict=True), marker="x", s=40, color="#b2182b", zorder=3, label="synthesized")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.tick_params(labelsize=7, which="both")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
