"""How far `sta-hw fit` is from synthesis: a dozen configurations, synthesized and estimated; and the fit itself.

Example: python scripts/bench_fit.py  (about 40 minutes)
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from sta_hw.bench import Figure, Report
from sta_hw.cli import show_report
from sta_hw.config import Config, preset
from sta_hw.fpga.fit import estimate, logic_counts
from sta_hw.fpga.flow import synthesize_top
from sta_hw.fpga.parts import PARTS

OUTPUT = Path(__file__).parent / "results" / "fpga-fit.json"
_REFERENCE = dataclasses.replace(preset("reference"), multiplier="dsp")
CASES: list[tuple[str, Config]] = [
    ("engine", dataclasses.replace(_REFERENCE, drain_lanes=8)),
    ("engine", preset("ecp5-85f-256")),
    ("engine", dataclasses.replace(preset("small"), multiplier="dsp")),
    ("engine", dataclasses.replace(preset("small"), multiplier="lut", drain_lanes=8)),
    ("engine", dataclasses.replace(preset("small"), multiplier="dsp-pair", array_multipliers=20)),
    ("engine", dataclasses.replace(preset("tiny"), multiplier="dsp", drain_lanes=1)),
    ("accelerator", _REFERENCE),
    ("accelerator", preset("ecp5-45f")),
    ("accelerator", preset("ecp5-25f")),
    ("accelerator", dataclasses.replace(preset("small"), multiplier="dsp")),
    ("accelerator", dataclasses.replace(preset("ci"), multiplier="dsp")),
    ("accelerator", dataclasses.replace(preset("tiny"), multiplier="dsp-pair")),
]


def main(
    only_fit: Annotated[bool, typer.Option("--only-fit", help="Fit again to what was synthesized before.")] = False,
    output: Annotated[Path, typer.Option("-o", help="The JSON.")] = OUTPUT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Synthesize all, compare with the estimate, print the coefficients that would fit best."""
    progress = Console(stderr=True)
    rows: list[dict[str, Any]] = json.loads(output.read_text())["rows"] if only_fit else []
    for number, (top, config) in enumerate(CASES):
        if not only_fit:
            progress.print(f"{number + 1} of {len(CASES)}: {top}, {config.rows} x {config.groups}, {config.multiplier}")
            with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder:
                cells = synthesize_top(top, config, PARTS["lfe5u-85f"], Path(folder), [], 0.0, 0.0)["cells"]
            rows.append(
                {"top": top, "configuration": config.as_dict(), "logic": cells["lut4_equivalents"],
                 "multipliers": cells["MULT18X18D"], "memories": cells["DP16KD"]}
            )  # fmt: skip
        found = estimate(top, config)
        rows[number] |= {f"estimated_{k}": v for k, v in found.items()}
        rows[number]["error"] = found["logic"] / rows[number]["logic"] - 1
    counts = [logic_counts(top, config) for top, config in CASES]
    measured = np.array([row["logic"] for row in rows], float)
    matrix = np.array([list(c.values()) for c in counts], float)
    best = np.linalg.lstsq(matrix / measured[:, None], np.ones(len(rows)))[0]  # smallest relative errors
    progress.print({name: round(value, 1) for name, value in zip(counts[0], best.tolist(), strict=True)})
    wrong = sum(row["multipliers"] != row["estimated_multipliers"] for row in rows)
    figures = [
        Figure("largest error of the logic", max(abs(row["error"]) for row in rows), "1", "<= 0.08"),
        Figure("multipliers that differ", wrong, "1", "<= 0"),
    ]
    report = Report("fit", _REFERENCE, rows, figures)
    output.write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    show_report(report, as_json)
    if not report.ok:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
