"""From `pip install .` in a fresh environment to Verilog: megabytes by package, seconds; exit status 1 if over a bar.

    python scripts/bench_install.py --json

The bars are 100 MB and 60 s. Yosys, wasmtime that runs it, numpy and Amaranth alone are 184 MB
(scripts/results/install.json).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_MEGABYTES, MOST_SECONDS = 100, 60


def megabytes(folder: Path) -> float:
    """As the files are long, without what a file system adds."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) / 1e6


def measured(place: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Install into `place` and generate the smallest preset's accelerator: what both took, and megabytes by package."""
    source, environment = place / "source", place / "environment"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "__pycache__"))  # pip builds in place
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", source], check=True)
    installed = time.monotonic()
    command = [environment / "bin" / "sta-hw", "generate", "--top", "accelerator", "--preset", "ci"]
    subprocess.run([*command, "-o", place / "made"], check=True, stdout=subprocess.DEVNULL, env={"HOME": str(place)})
    ended = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    (packages,) = environment.glob("lib/python*/site-packages")
    parts = {p.name: round(megabytes(p), 1) for p in packages.iterdir() if p.is_dir()}
    figures = {
        "megabytes": round(megabytes(environment), 1), "seconds": round(ended - begun, 1),
        "install_seconds": round(installed - begun, 1), "generate_seconds": round(ended - installed, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
    }  # fmt: skip
    return figures, dict(sorted(((n, m) for n, m in parts.items() if m >= 1), key=lambda part: -part[1]))


def main() -> int:
    """Install, count and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sta_hw_") as place:
        found, packages = measured(Path(place))
    if given.json:
        print(json.dumps(found | {"packages": packages}, indent=1))
    else:
        print(f"{found['megabytes']} MB (bar {MOST_MEGABYTES}), {found['seconds']} s (bar {MOST_SECONDS})")
        print(json.dumps(packages, indent=1))
    return int(found["megabytes"] > MOST_MEGABYTES or found["seconds"] > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
