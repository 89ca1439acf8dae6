"""Time and memory to emit the Verilog of growing arrays, 8 x 4 to 64 x 32.

Each size runs in a process of its own, whose peak memory counts Yosys as well.

Example: python scripts/bench_verilog.py -o scripts/results/verilog.json
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sta_hw.bench import Figure, Report
from sta_hw.cli.app import script
from sta_hw.cli.main import show_report
from sta_hw.files import write_text
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

SIZES = ((8, 4), (16, 8), (32, 16), (64, 32))


def measure(rows: int, groups: int) -> dict[str, Any]:
    """Emit once in a fresh process."""
    run = subprocess.run(
        [sys.executable, __file__, "--only", f"{rows}x{groups}"], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def emit_only(size: str) -> None:
    """The measured process: times the emission and prints what it took."""
    import time

    from sta_hw.generate.generator import component
    from sta_hw.rtl.emit import emit_verilog

    rows, groups = map(int, size.split("x"))
    start = time.perf_counter()
    text = emit_verilog(component("engine", Config(rows=rows, groups=groups)), "engine")
    seconds = time.perf_counter() - start
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found = {
        "rows": rows, "groups": groups, "macs": rows * groups, "seconds": seconds,
        "peak_mb": (own + children) / 1024, "bytes": len(text),
    }  # fmt: skip
    print(json.dumps(found))


def main(
    output: Annotated[Path | None, typer.Option("-o", help="Write the JSON here too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    only: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure all sizes; growth is the time per MAC of the largest against the smallest."""
    if only:
        emit_only(only)
        return
    progress = Console(stderr=True)
    measure(8, 4)  # the first run of a machine also compiles Yosys
    rows = []
    for size in SIZES:
        progress.print(f"{size[0]} x {size[1]}")
        rows.append(measure(*size))
    largest, smallest = rows[-1], rows[0]
    growth = (largest["seconds"] / smallest["seconds"]) / (largest["macs"] / smallest["macs"])
    figures = [
        Figure("Verilog of 64 x 32", largest["seconds"], "s", "<= 60"),
        Figure("Verilog of 64 x 32, peak memory", largest["peak_mb"], "MB", "<= 2000"),
        Figure("growth of time over growth of MACs, 8 x 4 to 64 x 32", growth, "1", "<= 1.0"),
    ]
    result = Report("verilog", PRESETS["huge"], rows, figures)
    if output:
        write_text(output, json.dumps(result.as_dict(), indent=2) + "\n")
    show_report(result, as_json)
    if not result.ok:
        raise typer.Exit(1)


if __name__ == "__main__":
    script(main)
