"""One self-contained HTML page about a run: tables, roofline, timeline."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np

from ..compiler.model import CompiledModel
from ..spec.registers import COUNTERS
from .tables import by_layer, counters_table
from .timeline import chrome_trace

__all__ = ["html_page", "page", "roofline_svg", "svg", "table", "timeline_svg"]

_UNITS = ("engine_busy", "softmax_busy", "norm_busy", "load_busy", "read_beats", "write_beats")


def svg(figure: Any) -> str:
    """A figure of matplotlib's as an element of a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def roofline_svg(model: CompiledModel, rows: list[dict[str, Any]], beats_per_cycle: float = 1.0) -> str:
    """Multiply-accumulates per cycle over multiply-accumulates per weight byte, with the two roofs."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7, 4))
    axes = canvas.subplots()
    peak = model.config.macs
    bandwidth = model.config.bus_bytes * beats_per_cycle
    x = np.geomspace(1, 4096, 100)
    axes.plot(x, np.minimum(peak, x * bandwidth), color="black", label=f"roof: {peak} MAC, {bandwidth:g} bytes a cycle")
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["weight_bytes"]:
            name = row["layer"].partition(".")[2]
            work = row["ideal"] * peak
            groups.setdefault(name, []).append((work / row["weight_bytes"], work / row["cycles"]))
    for name, points in groups.items():
        plain = name.replace("$", r"\$")  # which would begin a formula
        axes.scatter([p[0] for p in points], [p[1] for p in points], label=plain, s=18)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("multiply-accumulates per byte of weights")
    axes.set_ylabel("multiply-accumulates per cycle")
    axes.legend(fontsize=7)
    return svg(canvas)


def timeline_svg(run: Any) -> str:
    """Share of busy cycles of each unit over the run."""
    from matplotlib.figure import Figure as Canvas

    names = [c.name for c in COUNTERS[1:]]
    canvas = Canvas(figsize=(10, 4.5))
    rows = canvas.subplots(len(_UNITS), 1, sharex=True)
    count = len(run.samples)
    step = max(1, count // 800)
    for axes, unit in zip(rows, _UNITS, strict=True):
        values = run.samples[: count // step * step, names.index(unit)].reshape(-1, step).mean(1) / run.period
        axes.fill_between(np.arange(len(values)) * step * run.period, values, step="post")
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        axes.set_ylabel(unit.replace("_", " "), rotation=0, ha="right", fontsize=8)
    rows[-1].set_xlabel("cycle")
    return svg(canvas)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as a table; numbers to the right."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"<td class=n>{value:,.4g}</td>" if value < 100 else f"<td class=n>{value:,.0f}</td>"
        return f"<td class=n>{value:,}</td>" if isinstance(value, int) else f"<td>{escape(str(value))}</td>"

    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{''.join(map(cell, r.values()))}</tr>" for r in rows) + "</table>"


def page(title: str, body: str) -> str:
    """A page that loads nothing from anywhere.

    Parameters
    ----------
    title : str
        Shown as it is.
    body : str
        HTML.
    """
    title = escape(title)
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><title>{title}</title>
<style>body{{font:14px sans-serif;margin:2em;max-width:75em}}table{{border-collapse:collapse;margin:1em 0}}
td,th{{border:1px solid #ccc;padding:2px 8px;text-align:left}}td.n{{text-align:right}}
svg{{max-width:100%;height:auto}}</style>
<h1>{title}</h1>
{body}
</html>
"""


def html_page(model: CompiledModel, run: Any, title: str, figures: dict[str, Any] | None = None) -> str:
    """The page of a run; it shows what the title, the figures and the model say as it is.

    Parameters
    ----------
    figures : dict
        Of the run as a whole (`summary`), for the top of the page.
    """
    rows = by_layer(model, run)
    trace = base64.b64encode(chrome_trace(model, run).encode()).decode()
    ideal = model.info.ideal_cycles
    parameters = [{"parameter": k, "value": str(v)} for k, v in model.config.as_dict().items()]
    named = [{"figure": k.replace("_", " "), "value": v} for k, v in (figures or {}).items() if v is not None]
    return page(
        title,
        f"""<p>{model.tokens} tokens, {run.cycles:,} cycles counted in RTL, ideal {ideal:,.0f}:
<b>{ideal / run.cycles:.3f}</b> of ideal. Hardware {model.config.hash}.</p>
{table(named) if named else ""}<h2>Layers</h2>{table(rows)}
<h2>Units over time</h2>{timeline_svg(run)}
<p><a download="timeline.json" href="data:application/json;base64,{trace}">timeline.json</a> opens in Perfetto
(ui.perfetto.dev); a microsecond there is a cycle.</p>
<h2>Roofline</h2>{roofline_svg(model, rows)}
<h2>Counters</h2>{table(counters_table(run))}
<h2>Configuration</h2>{table(parameters)}""",
    )
