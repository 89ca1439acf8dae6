"""Coverage of the RTL by benches and whole runs: statements, branches and bits that change; and what programs had.

    python scripts/cover.py run        # builds with counters, runs benches and random programs, adds up: minutes
    python scripts/cover.py table      # of what was added up before
    python scripts/cover.py gaps sta_hw/rtl/units/results.py

Verilator counts (`sim/coverage/points.py` has them); a point counts as covered when any model of any
configuration met it, as with `verilator_coverage`, and points of all models built are counted. What is left is in
`scripts/results/coverage.json`, with the reason of what is not covered and cannot be, from `cover_waivers.json`.
Python's coverage is that of the same runs, by coverage.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from sim.coverage.points import Point
from sta_hw.cli.app import end
from sta_hw.errors import InputError
from sta_hw.files import read_json, write_text

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "coverage"
RESULTS = ROOT / "scripts" / "results" / "coverage.json"
WAIVERS = ROOT / "scripts" / "cover_waivers.json"
KINDS = {"line": "lines", "branch": "branches", "choice": "branches", "signal": "toggles"}
BENCHES = [
    "tests/rtl/units", "tests/rtl/control", "tests/rtl/primitives", "tests/rtl/engine/test_engine.py",
    "tests/rtl/test_malformed.py", "tests/rtl/test_accelerator_control.py", "tests/rtl/test_decoder_features.py",
    "tests/rtl/test_two_digits.py", "tests/rtl/test_kept_windows.py", "tests/rtl/test_block_products.py",
    "tests/rtl/test_loads_ahead.py", "tests/rtl/test_waits.py", "tests/rtl/test_accelerator.py",
    "tests/rtl/test_accelerator_errors.py",
]  # fmt: skip
"""Those whose models Verilator runs, without cocotb's and Icarus's."""
SOAKED = ("ci, decoder", "4 x 8, decoder")
PYTHON = ["tests/formats", "tests/spec", "tests/reference", "tests/cycles", "tests/compiler"]
"""More tests whose Python is counted."""
_TOGGLE = re.compile(rb"(\[\d+\])?:(0->1|1->0)$")
_BIT = r"(\[\d+\])?:\d->\d$"


def read(folder: Path) -> dict[Point, int]:
    """How often each point was met, over all models; bits of signals are points of their own, each direction.

    What models wrote is added up in one file of the folder, and removed.
    """
    sums = folder / "points.json"
    found: Counter[str] = Counter(json.loads(sums.read_text(encoding="utf-8")) if sums.exists() else {})
    head = b"C '\x01f\x02cover@"
    raw = [path for path in sorted(folder.iterdir()) if path.suffix != ".json"]
    for path in raw:
        for line in path.read_bytes().split(b"\n")[:-1]:
            if line.startswith(head) and not line.startswith(b"nothing@", len(head)):
                key = line[len(head) - 6 : line.index(b"\x01l\x02")]
                if b"@signal@" in key:
                    start = line.index(b"\x01o\x02") + 3
                    bit = _TOGGLE.search(line[start : line.index(b"\x01h\x02", start)])
                    if bit is None:
                        continue
                    key += bit[0]
                found[key.decode()] += int(line[line.rindex(b" ") :])
    if raw:
        write_text(sums, json.dumps(found))
        for path in raw:
            path.unlink()
    points = {Point.read(key): count for key, count in found.items()}
    return {p: count for p, count in points.items() if p is not None and not p.arm.startswith(("clk", "rst"))}


def waived(point: Point, waivers: dict[str, Any]) -> str:
    """Why a point need not be met; empty if it must."""
    for entry in waivers["points"]:
        if re.fullmatch(entry["file"], point.file) and point.kind in entry["kinds"]:
            source = _line(point) if point.line else point.arm
            if re.search(entry["where"], source) and re.fullmatch(entry.get("arm", ".*"), point.arm):
                return str(entry["why"])
    return ""


def _line(point: Point) -> str:
    lines = (ROOT / point.file).read_text(encoding="utf-8").splitlines()
    return lines[point.line - 1] if 0 < point.line <= len(lines) else ""


def summary(points: dict[Point, int], waivers: dict[str, Any]) -> dict[str, Any]:
    """By block: points and those met, of lines, branches and toggles; and what is not met."""
    blocks: dict[str, dict[str, Any]] = defaultdict(lambda: {k: [0, 0] for k in ("lines", "branches", "toggles")})
    missing, reasons = defaultdict(list), Counter()
    for point, count in points.items():
        why = "" if count else waived(point, waivers)
        if why:
            reasons[why] += 1
            continue
        cell = blocks[point.file][KINDS[point.kind]]
        cell[1] += 1
        cell[0] += bool(count)
        if not count:
            missing[point.file].append(point)
    return {
        "blocks": {f: blocks[f] for f in sorted(blocks)},
        "missing": {
            f: sorted(
                {f"{p.line} {p.kind} {p.arm}".strip() if p.line else f"{re.sub(_BIT, '', p.arm)}" for p in missing[f]}
            )
            for f in sorted(missing)
        },
        "waived": dict(sorted(reasons.items())),
    }  # fmt: skip


def programs(folder: Path) -> dict[str, Any]:
    """What programs had: for each table how much of what can be, and how often each came."""
    counts: Counter[tuple[str, ...]] = Counter()
    possible: set[tuple[str, ...]] = set()
    for path in sorted(folder.glob("programs-*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        counts.update({tuple(row[:-1]): row[-1] for row in kept["counts"]})
        possible |= {tuple(row) for row in kept["possible"]}
    tables = sorted({cross[0] for cross in possible} | {cross[0] for cross in counts})
    return {
        name: {
            "possible": sum(c[0] == name for c in possible) or None,
            "met": sum(c[0] == name and (c in possible or not any(p[0] == name for p in possible)) for c in counts),
            "missing": sorted(" / ".join(c[1:]) for c in possible if c[0] == name and not counts[c]),
            "counts": {" / ".join(c[1:]): n for c, n in sorted(counts.items()) if c[0] == name},
        }
        for name in tables
    }


def run(given: argparse.Namespace) -> bool:
    """Run benches and random programs with counters; whether all of them passed."""
    counters = FOLDER / "counters"
    counters.mkdir(parents=True, exist_ok=True)
    if not given.go_on:
        for path in (*counters.iterdir(), *FOLDER.glob("python.data*")):
            path.unlink()
    environment = os.environ | {
        "STA_HW_COVERAGE": str(counters), "STA_HW_CACHE": str(FOLDER / "cache"), "OMP_NUM_THREADS": "1",
        "COVERAGE_FILE": str(FOLDER / "python.data"),
    }  # fmt: skip
    measured = [sys.executable, "-m", "coverage", "run", "-p", "--source=sta_hw,sim"]
    soak = (
        "import sys\nfrom sim.coverage.plugin import install\ninstall()\nfrom sim.soak.__main__ import main\n"
        f"sys.argv[1:] = ['--seconds', '{given.seconds}', *{[w for n in SOAKED for w in ('--hardware', n)]}]\n"
        "sys.exit(main())\n"
    )
    script = FOLDER / "soaked.py"
    script.write_text(soak, encoding="utf-8")
    plain = {k: v for k, v in environment.items() if k != "STA_HW_COVERAGE"}
    steps = [
        ([*measured, "-m", "pytest", "-q", "-p", "sim.coverage.plugin", "-k", "not cocotb and not icarus", *BENCHES],
         environment),
        ([*measured, str(script)], environment),
        ([*measured, "-m", "pytest", "-q", *PYTHON], plain),
    ]  # fmt: skip
    passed = True
    for command, its in steps:
        done = subprocess.run(command, cwd=ROOT, env=its, check=False)
        if done.returncode:
            passed = False
            print(f"exit status {done.returncode}: {' '.join(command[4:])[:200]}", file=sys.stderr)
    return passed


def python_coverage() -> dict[str, list[int]]:
    """Statements run, and all, of each folder."""
    import coverage

    data = coverage.Coverage(data_file=str(FOLDER / "python.data"), source=["sta_hw", "sim"])
    data.combine([str(FOLDER)], keep=True)
    folders: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file in sorted(data.get_data().measured_files()):
        path = Path(file).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            continue
        _, statements, _, missing, _ = data.analysis2(file)
        folder = "/".join(path.relative_to(ROOT).parts[:2]) if path.parent != ROOT / "sim" else "sim"
        folders[folder][0] += len(statements) - len(missing)
        folders[folder][1] += len(statements)
    return dict(sorted(folders.items()))


def share(met: int, of: int) -> str:
    """As a table has it."""
    return f"{met} of {of} ({100 * met / of:.1f} %)" if of else "none"


def table(result: dict[str, Any]) -> str:
    """Markdown: by block, in all, programs."""
    lines = ["| block | lines | branches | toggles |", "|---|---|---|---|"]
    total = {k: [0, 0] for k in ("lines", "branches", "toggles")}
    for file, row in result["blocks"].items():
        lines.append(f"| {file.removeprefix('sta_hw/rtl/')} | " + " | ".join(share(*row[k]) for k in total) + " |")
        for k, cell in row.items():
            total[k] = [a + b for a, b in zip(total[k], cell, strict=True)]
    lines.append("| all | " + " | ".join(share(*total[k]) for k in total) + " |")
    lines += ["", "| table | met |", "|---|---|"]
    for name, row in result["programs"].items():
        lines.append(
            f"| {name} | {share(row['met'], row['possible'])} |" if row["possible"] else f"| {name} | {row['met']} |"
        )
    if result.get("python"):
        lines += ["", "| folder | statements |", "|---|---|"]
        lines += [f"| {folder} | {share(*cell)} |" for folder, cell in result["python"].items()]
    return "\n".join(lines)


OPTIONS = {"run": {"seconds", "go_on", "json"}, "add-up": {"counters", "json"}, "table": {"json"}, "gaps": {"files"}}
"""What each task looks at; others would be ignored."""


def options() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "add-up", "table", "gaps"], help="add-up: of counters that are there")
    parser.add_argument("files", nargs="*", help="gaps: of these files; all by default")
    parser.add_argument("--seconds", type=int, default=240, help="run: of random programs")
    parser.add_argument("--go-on", action="store_true", help="run: add to the counters that are there")
    parser.add_argument("--counters", type=Path, default=FOLDER / "counters", help="add-up: another folder of counters")
    parser.add_argument("--json", action="store_true")
    return parser


def main(given: argparse.Namespace) -> int:
    """Exit with 1 if lines or branches are below 98 %, or toggles below 90 %, or if a bench or a program fails."""
    default = options().parse_args([given.what])
    seen = {"what", *OPTIONS[given.what]}
    if ignored := [n for n, v in vars(given).items() if v != getattr(default, n) and n not in seen]:
        said = ", ".join(n if n == "files" else f"--{n.replace('_', '-')}" for n in ignored)
        raise InputError(f"{given.what} does not look at {said}; leave that out.")
    passed = run(given) if given.what == "run" else True
    if given.what in ("run", "add-up"):
        points = read(given.counters)
        if not points:
            raise InputError(f"{given.counters} has no counters; `python scripts/cover.py run` makes them.")
        result = summary(points, json.loads(WAIVERS.read_text(encoding="utf-8"))) | {
            "programs": programs(given.counters)
        }
        if list(FOLDER.glob("python.data*")):
            result["python"] = python_coverage()
        write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    if not RESULTS.exists():
        raise InputError(f"{RESULTS} is not there; `python scripts/cover.py run` makes it.")
    result = read_json(RESULTS, "results")
    if given.what == "gaps":
        for file, rows in result["missing"].items():
            if not given.files or file in given.files:
                print(file, *(f"  {row}" for row in rows), sep="\n")
        return 0
    print(json.dumps(result) if given.json else table(result))
    sums = {
        k: [sum(row[k][i] for row in result["blocks"].values()) for i in (0, 1)]
        for k in ("lines", "branches", "toggles")
    }
    short = [
        k for k, least in (("lines", 98), ("branches", 98), ("toggles", 90)) if 100 * sums[k][0] < least * sums[k][1]
    ]
    if short:
        print(f"below what it must be: {', '.join(short)}", file=sys.stderr)
    return int(bool(short) or not passed)


if __name__ == "__main__":
    given_options = options().parse_args()
    sys.exit(end(lambda: main(given_options)))
