"""FuseSoC's lint and simulation targets of generated cores, for presets and top levels; exit status 1 if one fails.

    python scripts/check_cores.py --preset reference --preset ecp5-25f --top engine
    python scripts/check_cores.py --hierarchy --target lint

Without options: every preset and top level, lint and both simulators, which takes hours for the largest ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sim import verilator
from sta_hw.cli.app import end
from sta_hw.errors import ConfigError
from sta_hw.generate.generator import TOPS, generate
from sta_hw.spec.presets import BOARD_PRESETS, PRESETS

KNOWN = PRESETS | BOARD_PRESETS


def options() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", choices=KNOWN)
    parser.add_argument("--top", action="append", choices=TOPS)
    parser.add_argument("--target", action="append", choices=("lint", "sim", "sim_icarus"))
    parser.add_argument("--hierarchy", action="store_true")
    return parser


def main(given: argparse.Namespace) -> int:
    """Generate each, and run its targets."""
    failed = 0
    for name in given.preset or KNOWN:
        for top in given.top or TOPS:
            if top == "accelerator":
                try:
                    KNOWN[name].require_accelerator()
                except ConfigError:
                    print(f"{name} {top}: no accelerator has this shape", flush=True)
                    continue
            with tempfile.TemporaryDirectory(prefix="sta_hw_") as place:
                folder = Path(place)
                generate(top, KNOWN[name], folder / "cores", hierarchy=given.hierarchy)
                for target in given.target or ("lint", "sim", "sim_icarus"):
                    begun = time.monotonic()
                    run = subprocess.run(
                        [sys.executable, "-W", "ignore", "-c", "from fusesoc.main import main; main()",
                         "--cores-root", "cores", "run", "--work-root", f"work_{target}", "--target", target, top],
                        cwd=folder, capture_output=True, text=True,
                        env=verilator.environment() | {"HOME": place, "XDG_CONFIG_HOME": place},
                    )  # fmt: skip
                    printed = run.stdout + run.stderr
                    good = run.returncode == 0 and "%Warning" not in printed
                    good = good and (target == "lint" or f"PASS: {top}, " in printed)
                    failed += not good
                    seconds = time.monotonic() - begun
                    print(f"{name} {top} {target}: {'ok' if good else 'FAILED'} in {seconds:.0f} s", flush=True)
                    if not good:
                        print(printed[-2000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    given_options = options().parse_args()
    sys.exit(end(lambda: main(given_options)))
