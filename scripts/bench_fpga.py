"""Size and speed on FPGAs, kept: a fixed set of designs, a history of every run, and a picture of it.

Example: python scripts/bench_fpga.py --case engine --case ulx3s-85f
Example: python scripts/bench_fpga.py  (all; some hours on two cores)
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from boards import BOARDS, board
from sta_hw.bench import tool_versions
from sta_hw.bench.engine import fraction_of_ideal
from sta_hw.cli.app import Unused, script
from sta_hw.cli.terminal import Watch, watched
from sta_hw.errors import CheckError, InputError
from sta_hw.files import replacing, write_text
from sta_hw.fpga.build import build_board
from sta_hw.fpga.flow import synthesize_top
from sta_hw.fpga.parts import PARTS
from sta_hw.fpga.routing import UNTIMED, Tries
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import preset

HISTORY = Path(__file__).parent / "results" / "fpga-history.json"
PICTURE = Path(__file__).parent.parent / "docs" / "fpga-history.png"
_REFERENCE = dataclasses.replace(preset("reference"), multiplier="dsp")
_SMALLEST: dict[str, Any] = {"nm": ("2:4",), "encodings": ("index",), "window": 8, "drain_lanes": 1, "outstanding": 2,
                             "norm_columns": 16}  # fmt: skip
"""Of preset ci: what an accelerator has at least."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One design on one part, out of context: what, target in MHz (0: synthesis only), bars of its figures."""

    top: str
    config: Config
    part: str
    target: float
    bars: dict[str, str] = dataclasses.field(default_factory=dict)


CASES = {
    # As `sta-hw bench engine` measures it.
    "engine": Case("engine", dataclasses.replace(_REFERENCE, drain_lanes=8), "lfe5u-85f", 130.0,
                   {"fmax": ">= 125", "logic_per_mac": "<= 80"}),
    "engine-256": Case("engine", preset("ecp5-85f-256"), "lfe5u-85f", 85.0, {"fmax": ">= 80", "macs": ">= 256"}),
    "accelerator": Case("accelerator", _REFERENCE, "lfe5u-85f", 0.0,
                        {"lut4_equivalents": "<= 26000", "MULT18X18D": "<= 156"}),
    "softmax-16": Case("softmax", dataclasses.replace(preset("reference"), softmax_lanes=16), "lfe5u-85f", 0.0),
    # Families that are placed and routed out of context alone.
    "engine-nexus": Case("engine", Config(rows=8, groups=4, drain_lanes=1, multiplier="nexus"), "lifcl-40", 100.0,
                         {"fmax": ">= 100", "macs": ">= 32"}),
    "engine-nexus-64": Case("engine", dataclasses.replace(preset("small"), multiplier="nexus"), "lifcl-40", 150.0,
                            {"fmax": ">= 100", "macs": ">= 64"}),
    "engine-gowin": Case("engine", dataclasses.replace(preset("ci"), multiplier="gowin"), "gw2ar-18", 100.0),
    "accelerator-nexus": Case("accelerator", dataclasses.replace(preset("ci"), multiplier="nexus"), "lifcl-40", 100.0),
    # Preset ci takes 15,805 of 15,552 registers.
    "accelerator-gowin": Case("accelerator", dataclasses.replace(preset("ci"), multiplier="gowin", **_SMALLEST),
                              "gw2ar-18", 80.0),
    "engine-xcup": Case("engine", dataclasses.replace(preset("reference"), drain_lanes=8), "ultrascale+", 0.0),
    "accelerator-xcup": Case("accelerator", preset("reference"), "ultrascale+", 0.0),
}  # fmt: skip
BOARD_BARS: dict[str, dict[str, str]] = {
    "ulx3s-85f": {"fmax": ">= 80", "logic_share": "<= 0.60", "seconds": "<= 1200"},
    "ulx3s-45f": {"fmax": ">= 80"},
    "ulx3s-25f": {"fmax": ">= 80", "macs": ">= 32"},
    "ecpix5-85f": {"fmax": ">= 75"},
    "ulx3s-25f-engine": {"fmax": ">= 80"},
    "icesugar-pro": {"fmax": ">= 80"},
    "icebreaker": {"fmax": ">= 20", "macs": ">= 8"},
}
OURS = {"STA-HW, whole, any N:M": "accelerator", "STA-HW's softmax, 16 lanes": "softmax-16"}
PEERS = (
    {"design": "ITA, dense INT8", "MACs": 128, "LUT4": 29682, "CCU2C": 3166,
     "multipliers": 249, "registers": 9522},
    {"design": "ITA's softmax, 16 lanes", "LUT4": 7636, "CCU2C": 313},
)  # fmt: skip
"""Beside each of ours: ITA (pulp-platform), N = 16, M = 8, synthesized for ECP5 by the same Yosys 0.70."""
ARRAYS = (
    ("CFU-Playground hps_accel, systolic", 32, "59.5", "1.00", "109-117"),
    ("Gemmini, generated tiles, 8 x 8", 64, "46.5", "1.00", "55"),
    ("axis-systolic-array, 8 x 8", 64, "98", "1.00", "88"),
    ("systars (Amaranth), 4 x 4", 16, "140", "1.00", "78"),
    ("open sparse array by multiplexers, 4 x 4", 32, "203", "1.00", "51"),
    ("ITA, whole core", 128, "281", "1.95", "does not fit"),
)
"""Peers placed and routed for the LFE5U-85F: design, INT8 MACs, logic cells and multipliers a MAC, MHz."""


def measure(name: str, folder: Path, seeds: list[int], minutes: float, step: Callable[[str], None]) -> dict[str, Any]:
    """One entry of the history.

    Raises
    ------
    CheckError
        If no seed of a board routes in time.
    """
    if name in CASES:
        case = CASES[name]
        tries = Tries(seeds if case.target else [], case.target, minutes)
        found = synthesize_top(case.top, case.config, PARTS[case.part], folder, tries, step)
        return entry(name, found["cells"], found["seeds"])
    target = board(name)
    (folder / "manifest.json").unlink(missing_ok=True)  # an earlier run's
    try:
        build_board(target, folder, seeds=seeds, minutes=minutes, step=step)
    except CheckError as error:  # too slow: the manifest says by how much
        if not (folder / "manifest.json").exists():
            raise
        step(str(error))
    manifest = json.loads((folder / "manifest.json").read_text())
    routed = manifest["routed"]
    logic = routed["used"].get("TRELLIS_COMB", routed["used"].get("ICESTORM_LC", 0))
    return entry(name, manifest["cells"], [routed | {"logic": logic}])


def entry(name: str, cells: dict[str, int], seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """An entry of the history from what was measured: cells, and of each seed fmax, logic, seconds, path."""
    case = CASES.get(name)
    config, bars, chosen = (
        (case.config, case.bars, PARTS[case.part]) if case
        else (board(name).config, BOARD_BARS.get(name, {}), board(name).chip)
    )  # fmt: skip
    best = max((r for r in seeds if r["fmax"]), key=lambda r: r["fmax"], default=None)
    found: dict[str, Any] = {
        "case": name, "date": datetime.date.today().isoformat(), "part": chosen.name, "hash": config.hash,
        "tools": tool_versions(), "macs": config.macs, "cells": cells,
    }  # fmt: skip
    values: dict[str, float] = {"macs": config.macs, **cells}
    if best:
        found |= {"fmax": round(best["fmax"], 2), "seeds": {str(r["seed"]): r["fmax"] for r in seeds},
                  "logic": best["logic"], "logic_per_mac": round(best["logic"] / config.macs, 1),
                  "logic_share": round(best["logic"] / chosen.logic, 3), "seconds": round(best["seconds"]),
                  "path": best["path"][:6]}  # fmt: skip
        if name != "softmax-16":
            for pattern in (parse_nm(p) for p in ("2:4", "2:16") if parse_nm(p) in config.patterns):
                share = fraction_of_ideal(dataclasses.replace(config, multiplier="auto", array_multipliers=0), pattern)
                found[f"gmacs_{pattern}"] = round(best["fmax"] * config.macs * share / pattern.density / 1e3, 2)
        values |= {k: found[k] for k in ("fmax", "logic_per_mac", "logic_share", "seconds")}
        if chosen.family in UNTIMED:
            found["untimed"] = UNTIMED[chosen.family]
    met = {">=": float.__ge__, "<=": float.__le__}
    found["bars"] = {
        key: {"bar": bar, "ok": met[bar.split()[0]](float(values.get(key, 0)), float(bar.split()[1]))}
        for key, bar in bars.items()
    }
    return found


def draw(history: list[dict[str, Any]], path: Path) -> None:
    """The newest entry of each case as a bar, earlier ones as rings on it; and cells beside a peer's."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = {"fmax": "Fmax, MHz", "logic_per_mac": "logic cells per MAC", "macs": "MACs",
              "gmacs_2:4": "effective GMAC/s at 2:4", "gmacs_2:16": "effective GMAC/s at 2:16"}  # fmt: skip
    routed = [e for e in history if "fmax" in e]
    names = list(dict.fromkeys(e["case"] for e in routed))
    figure, axes = pyplot.subplots(3, 2, figsize=(11, 9), layout="constrained")
    for axis, (key, title) in zip(axes.flat, panels.items(), strict=False):
        for row, name in enumerate(names):
            values = [e[key] for e in routed if e["case"] == name and key in e]
            if values:
                bar = axis.barh(row, values[-1], color="#2166ac")
                axis.bar_label(bar, fmt="{:,.4g}", padding=9, fontsize=8)
                axis.plot(values[:-1], [row] * (len(values) - 1), "o", markerfacecolor="none", color="#d6604d")
        axis.set_yticks(range(len(names)), names)
        axis.set_title(title, loc="left", fontsize=10)
        axis.margins(x=0.15)
        axis.invert_yaxis()
    _draw_peers(axes.flat[-1], history)
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _draw_peers(axis: Any, history: list[dict[str, Any]]) -> None:
    """LUT4 equivalents of designs, stacked from their kinds of cells; multipliers as text."""
    rows = [r for r in side_by_side(history) if "LUT4" in r]
    left = [0.0] * len(rows)
    kinds = (("LUT4", 1, "#2166ac"), ("CCU2C", 2, "#67a9cf"), ("TRELLIS_DPR16X4", 4, "#d1e5f0"))
    for kind, luts, color in kinds:
        widths = [luts * r.get(kind, 0) for r in rows]
        bars = axis.barh([r["design"] for r in rows], widths, left=left, color=color, label=f"{kind}, {luts} LUT4 each")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    labels = [f"{v:,.0f}" + (f", {r['multipliers']} multipliers" if r.get("multipliers") else "") for r, v in
              zip(rows, left, strict=True)]  # fmt: skip
    axis.bar_label(bars, labels, padding=3, fontsize=8)
    axis.set_title("cells after Yosys, in LUT4 equivalents", loc="left", fontsize=10)
    axis.set_xlim(0, 1.7 * max(left, default=1))
    axis.legend(fontsize=7, loc="lower right")
    axis.invert_yaxis()


def side_by_side(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Peers, and the newest of ours that compare with them, by cells."""
    newest = {e["case"]: e for e in history}
    rows: list[dict[str, Any]] = []
    for title, name, peer in zip(OURS, OURS.values(), PEERS, strict=True):
        if name in newest:
            cells = newest[name]["cells"]
            rows.append({"design": title, "MACs": newest[name]["macs"] if name == "accelerator" else "",
                         "multipliers": cells["MULT18X18D"], "registers": cells["TRELLIS_FF"], **cells})  # fmt: skip
        rows.append(peer)
    return rows


def show(history: list[dict[str, Any]]) -> None:
    """The newest entry of each case, and the peers."""
    out = Console()
    table = Table(title="newest of each", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("case", "MACs", "MHz", "logic", "a MAC", "share", "route, s", "2:4", "2:16", "bars"):
        table.add_column(column, justify="left" if column in ("case", "bars") else "right", no_wrap=column == "case")
    for e in {e["case"]: e for e in history}.values():
        size = e.get("logic") or e["cells"].get("lut4_equivalents") or e["cells"].get("LUT", 0)
        missed = ", ".join(f"{k} {b['bar']}" for k, b in e["bars"].items() if not b["ok"])
        table.add_row(
            e["case"], str(e["macs"]), str(e.get("fmax", "")), f"{size:,}", str(e.get("logic_per_mac", "")),
            f"{e['logic_share']:.0%}" if "logic_share" in e else "", str(e.get("seconds", "")),
            *(str(e.get(f"gmacs_{nm}", "")) for nm in ("2:4", "2:16")),
            f"missed: {missed}" if missed else "met" if e["bars"] else "",
        )  # fmt: skip
    table.caption = "2:4, 2:16: effective GMAC/s"
    out.print(table)
    table = Table(title="side by side, cells after Yosys for ECP5")
    for column in ("design", "MACs", "LUT4", "CCU2C", "multipliers", "registers"):
        table.add_column(column)
    for row in side_by_side(history):
        table.add_row(*(str(row.get(c, "")) for c in ("design", "MACs", "LUT4", "CCU2C", "multipliers", "registers")))
    out.print(table)
    table = Table(title="arrays side by side, placed and routed for the LFE5U-85F")
    for column in ("design", "MACs", "logic a MAC", "multipliers a MAC", "MHz"):
        table.add_column(column)
    newest = {e["case"]: e for e in history if "fmax" in e}
    ours = [(f"STA-HW, {n}", e["macs"], str(e["logic_per_mac"]), f"{e['cells']['MULT18X18D'] / e['macs']:.2f}",
             f"{e['fmax']:.0f}") for n, e in newest.items() if n in ("engine", "engine-256")]  # fmt: skip
    for row in (*ours, *ARRAYS):
        table.add_row(*map(str, row))
    out.print(table)


def entries_of(history: Path) -> list[dict[str, Any]]:
    """The entries of a file, none if it is not there.

    Raises
    ------
    InputError
        If it is no history.
    """
    try:
        found = json.loads(history.read_text(encoding="utf-8")) if history.exists() else []
    except (OSError, ValueError) as error:
        raise InputError(f"history {history} cannot be read: {error}.") from None
    if not isinstance(found, list) or not all(isinstance(e, dict) and "case" in e for e in found):
        raise InputError(f"history {history} is no list of entries with their cases.")
    return found


def is_placed(name: str) -> bool:
    """Whether a case is placed and routed; others are synthesized."""
    return name not in CASES or bool(CASES[name].target)


def _measured(name: str, folder: Path, seeds: list[int], minutes: float, watch: Watch) -> dict[str, Any]:
    watch.step(name)
    return measure(name, folder, seeds, minutes, lambda text: watch.describe(f"{name}: {text}"))


def main(
    case: Annotated[list[str] | None, typer.Option(help="May be repeated; all if not given.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="nextpnr seed; may be repeated.")] = None,
    minutes: Annotated[float, typer.Option(help="Give a seed up that has not routed by then.")] = 60.0,
    folder: Annotated[Path | None, typer.Option(help="Keep netlists and logs here.")] = None,
    history: Annotated[Path, typer.Option(help="The JSON that entries are appended to.")] = HISTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the new entries.")] = False,
) -> None:
    """Measure, append to the history, draw it, show the newest of each case."""
    progress = Console(stderr=True)
    known = [*CASES, *(n for n in BOARDS if n != "ulx3s-12f")]  # the 12F is the 25F's die
    for name in case or []:
        if name not in known:
            raise InputError(f"--case {name!r} is unknown; there are {', '.join(known)}.")
    entries_of(history)  # refused before the work
    new, unrouted = [], False
    for name in case or known:
        with tempfile.TemporaryDirectory(prefix="sta_hw_") as place:
            where = folder / name if folder else Path(place)
            try:
                new.append(watched(name, "", partial(_measured, name, where, seed or [1], minutes)))
            except CheckError as error:  # the others are measured all the same
                progress.print(f"{name}: {error}")
                unrouted = True
                continue
        write_text(history, json.dumps([*entries_of(history), new[-1]], indent=1) + "\n")
    entries = entries_of(history)
    if history == HISTORY:
        draw(entries, PICTURE)
    if as_json:
        typer.echo(json.dumps(new, indent=1))
    else:
        show(entries)
    if unrouted or not all(bar["ok"] for entry in new for bar in entry["bars"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    unplaced = "with cases that are not placed"
    script(main, [Unused(("seed", "minutes"), lambda o: o["case"] and not any(map(is_placed, o["case"])), unplaced)])
