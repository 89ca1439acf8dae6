"""How far `sta-hw fit` is from synthesis: two dozen configurations, synthesized and estimated; and the fit itself.

Example: python scripts/bench_fit.py  (about 45 minutes)
         python scripts/bench_fit.py --case 24 --case 25  (these alone, the others as they were)
"""

from __future__ import annotations

import datetime
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from boards import BOARDS, board
from sta_hw.bench import Figure, Report
from sta_hw.cli.app import Unused, script
from sta_hw.cli.main import show_report
from sta_hw.errors import InputError
from sta_hw.files import read_json, write_text
from sta_hw.fpga.build import prepare_board
from sta_hw.fpga.fit import ESTIMATE_ERROR, LOGIC, estimate, features_logic, logic_counts
from sta_hw.fpga.flow import synthesize_top
from sta_hw.fpga.parts import PARTS
from sta_hw.fpga.routing import Tries, packed_logic
from sta_hw.fpga.synthesis import synthesize
from sta_hw.spec.config import Config
from sta_hw.spec.presets import preset

RESULTS = Path(__file__).parent / "results"
OUTPUT = RESULTS / "fpga-fit.json"
HISTORY = RESULTS / "fpga-history.json"
_REFERENCE = replace(preset("reference"), multiplier="dsp")
_UP5K = preset("up5k")
CASES: list[tuple[str, str, Config]] = [
    ("ecp5", "engine", replace(_REFERENCE, drain_lanes=8)),
    ("ecp5", "engine", preset("ecp5-85f-256")),
    ("ecp5", "engine", replace(preset("small"), multiplier="dsp")),
    ("ecp5", "engine", replace(preset("small"), multiplier="lut", drain_lanes=8)),
    ("ecp5", "engine", replace(preset("small"), multiplier="dsp-pair", array_multipliers=20)),
    ("ecp5", "engine", replace(preset("tiny"), multiplier="dsp", drain_lanes=1)),
    ("ecp5", "accelerator", _REFERENCE),
    ("ecp5", "accelerator", preset("ecp5-45f")),
    ("ecp5", "accelerator", preset("ecp5-25f")),
    ("ecp5", "accelerator", replace(preset("small"), multiplier="dsp")),
    ("ecp5", "accelerator", replace(preset("ci"), multiplier="dsp")),
    ("ecp5", "accelerator", replace(preset("tiny"), multiplier="dsp-pair")),
    ("ice40", "board", _UP5K),
    ("ice40", "board", replace(_UP5K, nm=Config().nm)),
    ("ice40", "board", replace(_UP5K, encodings=Config().encodings)),
    ("ice40", "board", replace(_UP5K, rows=8)),
    ("ice40", "board", replace(_UP5K, rows=2, lanes=2)),
    ("ice40", "board", replace(_UP5K, groups=4)),
    ("ice40", "board", replace(_UP5K, drain_lanes=2)),
    ("ice40", "board", replace(_UP5K, window=8)),
    ("ice40", "board", replace(_UP5K, multiplier="lut")),
    ("ice40", "board", replace(preset("ci"), multiplier="mac16")),
    ("ice40", "board", replace(preset("ci"), multiplier="lut")),
    ("ice40", "board", replace(preset("tiny"), multiplier="mac16", array_multipliers=8)),
    ("ecp5", "accelerator", replace(preset("ci"), multiplier="dsp", features=("decoder",))),
    ("ecp5", "accelerator", preset("ecp5-85f-decoder-sdram")),
]


def measure(family: str, kind: str, config: Config, folder: Path) -> dict[str, int]:
    """Logic as nextpnr packs it, multipliers and memories."""
    if family == "ecp5":
        chosen = PARTS["lfe5u-85f"]
        cells = synthesize_top(kind, config, chosen, folder, Tries())["cells"]
        logic = packed_logic(kind, chosen, folder)
        return {"logic": logic, "multipliers": cells["MULT18X18D"], "memories": cells["DP16KD"]}
    target = board("icebreaker")
    cells = synthesize(prepare_board(target, config, folder), "top", family, folder, lambda _: None, pins=True)
    logic = packed_logic("top", target.chip, folder, "top.pcf")
    return {"logic": logic, "multipliers": cells["SB_MAC16"], "memories": cells["SB_RAM40_4K"]}


def boards() -> list[dict[str, Any]]:
    """The newest of each ECP5 board in the history of `bench_fpga.py`."""
    newest = {e["case"]: e for e in json.loads(HISTORY.read_text())}
    return [
        {"family": "ecp5", "kind": "board", "preset": board(name).preset, "macs": board(name).config.macs,
         "logic": e["logic"], "multipliers": e["cells"]["MULT18X18D"],
         "memories": e["cells"]["DP16KD"]}
        for name, e in newest.items()
        # The estimate has the cells of a controller for SDR SDRAM.
        if name in BOARDS and (sdram := board(name).sdram) is not None and sdram.kind == "SDR"
    ]  # fmt: skip


def main(
    only_fit: Annotated[bool, typer.Option("--only-fit", help="Fit again to what was synthesized before.")] = False,
    case: Annotated[list[int] | None, typer.Option(help="Synthesize this one, from 0; others stay.")] = None,
    output: Annotated[Path, typer.Option("-o", help="The JSON.")] = OUTPUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Synthesize all, compare with the estimate, print the coefficients that would fit best."""
    progress = Console(stderr=True)
    chosen = set() if only_fit else set(case or range(len(CASES)))
    if beyond := sorted(chosen - set(range(len(CASES)))):
        raise InputError(f"--case {beyond[0]} is out of range; it is 0 to {len(CASES) - 1}.")
    kept = read_json(output, "result of bench_fit") if output.exists() else {"rows": []}
    before = [r for r in kept["rows"] if "configuration" in r]
    rows: list[dict[str, Any]] = before + [{}] * (len(CASES) - len(before))
    if lacking := [n for n, row in enumerate(rows) if not row and n not in chosen]:
        raise InputError(f"cases {', '.join(map(str, lacking))} were not synthesized before; --case does it.")
    for number, (family, kind, config) in enumerate(CASES):
        if number in chosen:
            progress.print(f"{number + 1} of {len(CASES)}: {kind} on {family}, {config.rows} x {config.groups}")
            with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder:
                measured = measure(family, kind, config, Path(folder))
            changed = {k: v for k, v in config.as_dict().items() if v != Config().as_dict()[k]}
            rows[number] = {
                "family": family, "kind": kind, "macs": config.macs, **measured, "configuration": changed,
                "date": datetime.date.today().isoformat(),
            }  # fmt: skip
        rows[number] |= {f"estimated_{k}": v for k, v in estimate(kind, config, family).items()}
    for family in LOGIC:
        known = [(c, r["logic"]) for c, r in zip(CASES, rows, strict=True) if c[0] == family]
        counts = [logic_counts("engine" if c[1] == "board" else c[1], c[2]) for c, _ in known]
        measured_logic = np.array([logic - features_logic(c[1], c[2]) for c, logic in known], float)
        matrix = np.array([[c[name] for name in LOGIC[family]] for c in counts], float)
        best = np.linalg.lstsq(matrix / measured_logic[:, None], np.ones(len(known)))[0]  # smallest relative errors
        progress.print(family, {n: round(v, 1) for n, v in zip(LOGIC[family], best.tolist(), strict=True)})
    for row in boards():
        rows.append(row | {f"estimated_{k}": v for k, v in estimate("board", preset(row["preset"])).items()})
    for row in rows:
        row["error"] = round(row["estimated_logic"] / row["logic"] - 1, 4)
    own = [row for row in rows if "date" in row]  # others, boards among them, are of older RTL
    figures = [
        Figure("largest error of the logic", max(abs(row["error"]) for row in rows), "1", f"<= {ESTIMATE_ERROR}"),
        *(
            Figure(f"{name} that differ", sum(r[name] != r[f"estimated_{name}"] for r in own), "1", "<= 0")
            for name in ("multipliers", "memories")
        ),
    ]
    report = Report("fit", _REFERENCE, rows, figures)
    write_text(output, json.dumps(report.as_dict(), indent=1) + "\n")
    show_report(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


if __name__ == "__main__":
    script(main, [Unused(("case",), lambda o: o["only_fit"], "with --only-fit")])
