"""`python -m sim.soak`: random programs through RTL and reference for as long as one likes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.files import write_text
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

from .trial import Hardware

__all__ = ["HARDWARE", "main", "soak"]

HARDWARE: dict[str, Config] = {
    "ci": PRESETS["ci"],
    "ci, decoder": replace(PRESETS["ci"], features=("decoder",)),
    "16 x 4, decoder": Config(
        rows=16, groups=4, window=8, lanes=8, drain_lanes=4, columns=64, weight_words=1024, parameter_words=256,
        norm_columns=32, features=("decoder",),
    ),
    "one group": Config(rows=4, groups=1, window=8, lanes=4, drain_lanes=1, columns=64, weight_words=1024),
    "window of 4": Config(
        rows=8, groups=8, window=4, lanes=4, drain_lanes=2, columns=128, weight_words=2048, encodings=("index",),
    ),
    "4 x 8, decoder": Config(
        rows=4, groups=8, window=8, lanes=4, drain_lanes=2, columns=64, weight_words=1024, parameter_words=256,
        norm_columns=32, features=("decoder",), window_words=64, loads_ahead=1,
    ),
}  # fmt: skip
"""Small ones of every kind: cycles are what counts."""
_REPORTS = 10.0
"""Seconds between lines of progress."""
_MOST_DIFFERENCES = 20


def soak(
    seed: int, seconds: float, *, names: list[str], legal: int = 1 << 62, damaged: int = 1 << 62, say: Any = None
) -> dict[str, Any]:
    """Run programs of both kinds by turns, one configuration after the other, until time or both counts are over.

    Each program comes of (seed, configuration, kind, number) alone, damaged ones of twelve at a time.

    Returns
    -------
    dict
        Counts by configuration, and of each difference found the seed's numbers and what it is.
    """
    begin = last = time.monotonic()
    found: list[dict[str, Any]] = []
    table: dict[str, Counter[str]] = {name: Counter() for name in names}
    hardware = {name: Hardware(HARDWARE[name]) for name in names}
    begin, counts, number = time.monotonic(), Counter[str](), 0
    while time.monotonic() - begin < seconds and len(found) < _MOST_DIFFERENCES:
        if counts["legal"] >= legal and counts["damaged"] >= damaged:
            break
        for name in names:
            tried = hardware[name]
            for kind, most, times in (("legal", legal, 1), ("damaged", damaged, 12)):
                rng = np.random.default_rng([seed, list(HARDWARE).index(name), kind == "damaged", number])
                for turn in range(times):
                    if counts[kind] >= most:
                        break
                    counts[kind] += 1
                    try:
                        if kind == "legal":
                            ended = tried.legal(rng)
                        else:
                            of, ended = tried.damaged(rng, fresh=turn == 0)
                            table[name][f"damaged: {of}"] += 1
                        table[name][f"{kind}, {ended}"] += 1
                    except CheckError as error:
                        found.append(
                            {"hardware": name, "kind": kind, "number": number, "turn": turn, "what": str(error)}
                        )
                        if say:
                            say(f"DIFFERENCE {found[-1]}")
                        tried.restart()
        number += 1
        if say and time.monotonic() - last > _REPORTS:
            last = time.monotonic()
            cycles = sum(h.cycles for h in hardware.values())
            say(f"{last - begin:6.0f} s, {counts['legal']} legal, {counts['damaged']} damaged, {cycles:,} cycles")
    return {
        "seed": seed, "seconds": round(time.monotonic() - begin, 1), "legal": counts["legal"],
        "damaged": counts["damaged"], "cycles": sum(h.cycles for h in hardware.values()),
        "instructions": sum(h.instructions for h in hardware.values()),
        "hardware": {
            name: {"cycles": hardware[name].cycles, **dict(sorted(table[name].items()))} for name in names
        },
        "differences": found,
    }  # fmt: skip


def _table(result: dict[str, Any]) -> str:
    lines = []
    for name, row in result["hardware"].items():
        lines.append(f"{name}: {row['cycles']:,} cycles")
        lines += [f"  {what:44} {count:10,}" for what, count in row.items() if what != "cycles"]
    lines.append(
        f"{result['legal']:,} legal and {result['damaged']:,} damaged programs, {result['cycles']:,} cycles, "
        f"{len(result['differences'])} differences, seed {result['seed']}"
    )
    return "\n".join(lines)


def main() -> int:
    """Run it; exit status 1 if there are differences."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.soak", description="Random programs, legal and damaged ones, on RTL and reference.",
        epilog="example: python -m sim.soak --hours 1 --seed 7 --log soak.json",
    )  # fmt: skip
    parser.add_argument("--hours", type=float, help="how long; half a minute by default")
    parser.add_argument("--seconds", type=float, default=30.0, help="the same, in seconds")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random; 1 by default")
    parser.add_argument("--legal", type=int, default=1 << 62, metavar="N", help="at most so many legal programs")
    parser.add_argument("--damaged", type=int, default=1 << 62, metavar="N", help="at most so many damaged ones")
    parser.add_argument("--hardware", action="append", choices=list(HARDWARE), help="one of them; may be repeated")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    seconds = options.seconds if options.hours is None else 3600 * options.hours
    try:
        result = soak(
            options.seed, seconds, names=options.hardware or list(HARDWARE), legal=options.legal,
            damaged=options.damaged, say=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        if options.log:
            write_text(options.log, json.dumps(result, indent=1) + "\n")
    except (InputError, ToolError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 3
    print(json.dumps(result) if options.json else _table(result))
    return 1 if result["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
