"""A plan as one HTML page that stands alone: a picture of accuracy over time, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from .page import page, svg, table
from .plan import Choice

__all__ = ["plan_page", "plan_svg"]


def plan_svg(rows: Sequence[Choice]) -> str:
    """Cosine with the dense model over milliseconds, a line for each target; speed-up, where no cosine is known.

    What does not fit is hollow.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 4.5), layout="constrained")
    axes = canvas.subplots()
    known = any(row.cosine is not None for row in rows)
    for name in dict.fromkeys(row.target for row in rows):
        points = [
            (row.milliseconds, y, row)
            for row in rows
            if row.target == name and row.milliseconds and (y := row.cosine if known else row.speedup) is not None
        ]
        if not points:
            continue
        (line,) = axes.plot([x for x, _, _ in points], [y for _, y, _ in points], label=name.replace("$", r"\$"))
        for x, y, row in points:
            face = line.get_color() if row.fits else "white"
            axes.plot([x], [y], marker="o", color=line.get_color(), markerfacecolor=face)
            axes.annotate(row.nm.replace("$", r"\$"), (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("mean cosine with dense fp32" if known else "speed-up over dense")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=7)
    return svg(canvas)


def plan_page(title: str, about: str, rows: Sequence[Choice], cells: Sequence[dict[str, Any]]) -> str:
    """The page's text.

    Parameters
    ----------
    about : str
        A sentence or two on what the figures are.
    cells : sequence of dict
        The table, a row for each choice.
    """
    problems = dict.fromkeys(f"{row.target}, {row.nm}: {p}" for row in rows for p in row.problems)
    listed = "".join(f"<li>{escape(p)}" for p in problems)
    body = f"<p>{escape(about)}</p>{plan_svg(rows)}{table(list(cells))}"
    return page(title, body + (f"<h2>What does not fit</h2><ul>{listed}</ul>" if listed else ""))
