"""Benchmark of exploration: 500 points on two processes, and once more while one of them is killed."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from ..explore.explore import explore
from ..explore.front import Found
from ..explore.pool import Pool
from ..explore.store import Store
from ..explore.subjects import of_shape
from ..explore.sweep import Hardware, Memory, Point, sweep
from ..fpga.parts import PARTS
from ..spec.presets import PRESETS
from .report import Figure, Report

__all__ = ["points", "run", "undisturbed_and_killed"]

_MINILM = {"hidden": 384, "heads": 12, "layers": 6, "intermediate": 1536}
_TOKENS = (8, 16, 24, 32, 48)
_NM = "dense,8:16,2:4,4:16,2:16"
_WORKERS = 2
_POINTS, _SECONDS = 500, 600


def points() -> list[Point]:
    """20 configurations x 5 N:M x 5 numbers of tokens of all-MiniLM-L6-v2; all are valid."""
    base = replace(PRESETS["small"], lanes=8, drain_lanes=2)
    hardware = [
        Hardware(f"{rows} x {groups}, {bursts} bursts", replace(base, rows=rows, groups=groups, outstanding=bursts))
        for rows, groups, bursts in product((8, 16), (4, 8), (2, 4, 8, 12, 16))
    ]
    found, _ = sweep(hardware, [of_shape(_MINILM, _NM, _TOKENS)], PARTS["lfe5u-85f"], Memory())
    return found


def undisturbed_and_killed(
    asked: list[Point], workers: int, report: Callable[[str], None] = lambda _: None
) -> tuple[list[dict[str, Any]], list[list[Found]]]:
    """Explore into an empty store, twice; half-way through the second time, one worker is killed.

    Returns what each run took and how many it killed, and its points with their figures.
    """
    rows: list[dict[str, Any]] = []
    results: list[list[Found]] = []
    for name, kill in (("undisturbed", False), ("a worker killed", True)):
        killed: list[int] = []

        with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder, Pool(workers) as pool:

            def progress(
                done: int, total: int, pool: Pool = pool, killed: list[int] = killed, name: str = name,
                kill: bool = kill,
            ) -> None:  # fmt: skip
                report(f"{name}: {done} of {total}")
                if kill and not killed and 2 * done >= total:
                    killed.append(pool.processes()[0])
                    os.kill(killed[0], signal.SIGKILL)

            begin = time.monotonic()
            with Store(Path(folder) / "explore.sqlite") as store:
                explored = explore(asked, store, pool, 80.0, progress)
                kept = len(store)
            seconds = time.monotonic() - begin
        valid = sum(not row.problems for row in explored.rows)
        rows.append({"run": name, "points": kept, "valid": valid, "seconds": seconds, "killed": len(killed)})
        results.append(explored.rows)
    return rows, results


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Time of the undisturbed run, starting the processes included; points that the other one gives otherwise."""
    rows, (one, other) = undisturbed_and_killed(points(), _WORKERS, report)
    different = max(len(one), len(other)) - sum(a == b for a, b in zip(one, other, strict=False))
    figures = [
        Figure("points with cycles and size", rows[0]["valid"], "1", f">= {_POINTS}"),
        Figure("time of an undisturbed run", rows[0]["seconds"], "s", f"<= {_SECONDS}"),
        Figure("workers killed in the other", rows[1]["killed"], "1", ">= 1"),
        Figure("points that differ", different, "1", "<= 0"),
    ]
    return Report("explore", PRESETS["small"], rows, figures)
