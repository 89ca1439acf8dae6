"""Mutants of the sources, one change each, against the tests of their module: what no test sees.

    python scripts/mutate.py --sample 6 sta_hw/rtl/primitives/queue.py
    python scripts/mutate.py --seconds 3600 --log scripts/results/mutation.json

Operators, comparisons, constants, conditions, arms of Mux and statements are changed in the text that Python's own
parser finds, in a copy of the project; the module's tests run in it until one fails. A mutant of RTL that lives is
equivalent if Yosys proves accelerators equal with and without it, of configurations that have all blocks together.
Those that cannot be elaborated at all are left out of the score.
Results are kept in the log, and what is there is not run again while the module is as it was. When its tests change,
what lived is tried again, and what was found counts as found; without the log all is tried.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path

from sim.mutation.comparison import Comparison
from sim.mutation.log import Log, table
from sim.mutation.mutants import Mutant, mutants
from sim.mutation.targets import ROOT, all_modules, named
from sim.mutation.workplace import Workplace
from sta_hw.cli.app import end
from sta_hw.errors import InputError


def at_least_one(text: str) -> int:
    """A number of mutants."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of mutants from 1 on.")
    return int(text)


def seconds(text: str) -> float:
    """A time, which may be without end."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if math.isnan(found) or found < 0:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds.")
    return found


def options() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="files below sta_hw; all that have tests by default")
    parser.add_argument("--sample", type=at_least_one, metavar="N", help="N of each module at random; all by default")
    parser.add_argument("--seconds", type=seconds, help="begin no other mutant after so many")
    parser.add_argument("--seed", type=int, help="of samples and of the order; 1 by default")
    parser.add_argument("--log", type=Path, metavar="FILE", help="read what was tried, and add to it")
    parser.add_argument("--later", action="store_true", help="leave it to a later run to compare those that live")
    parser.add_argument("--alone", action="store_true", help="compare blocks alone, and no whole accelerators: fast")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--table", action="store_true", help="print the log's table, and run nothing")
    return parser


def run(given: argparse.Namespace) -> None:
    """Try mutants of modules, and print what became of them; or print what is known."""
    if given.later and given.alone:
        raise InputError("--later leaves the comparison to another run, so there is nothing for --alone to hasten.")
    if given.table:
        runs = ("modules", "sample", "seconds", "seed", "later", "alone", "json")
        default = options().parse_args([])
        ignored = [name for name in runs if getattr(given, name) != getattr(default, name)]
        if ignored:
            said = ", ".join(name if name == "modules" else f"--{name}" for name in ignored)
            raise InputError(f"--table runs nothing and prints a table: leave out {said}.")
        if given.log is None:
            raise InputError("--table prints the table of a log: name it with --log.")
        print(table(Log.read(given.log).rows))
        return
    modules = list(dict.fromkeys(map(named, given.modules))) or all_modules()
    log = Log.read(given.log) if given.log is not None and given.log.exists() else Log(given.log)
    until = time.monotonic() + (math.inf if given.seconds is None else given.seconds)
    sources = {module: (ROOT / module).read_text(encoding="utf-8") for module in modules}
    chosen: list[tuple[int, str, Mutant]] = []
    for module, source in sources.items():
        every = mutants(source)
        log.begin(module, len(every))
        seed = 1 if given.seed is None else given.seed
        left = random.Random(f"{seed} {module}").sample(every, len(every))[: given.sample]
        chosen += [(n, module, m) for n, m in enumerate(log.to_try(module, left))]
    chosen.sort(key=lambda c: c[0])  # one of each module, then another of each: a run may end at any time
    log.save()
    with tempfile.TemporaryDirectory(prefix="sta_hw_mutants_") as folder, Workplace(Path(folder)) as place:
        for number, (_, module, mutant) in enumerate(chosen):
            if time.monotonic() > until:
                break
            ended, word = place.outcome(module, sources[module], mutant)
            log.add(module, mutant, ended, word)
            log.save()
            print(f"{number + 1} of {len(chosen)}: {module} {mutant.line}: {ended}", file=sys.stderr, flush=True)
        if not given.later:
            compare(given, sources, log, Comparison(place), until)
    print(json.dumps(log.tried()) if given.json else table(log.tried()))


def compare(given: argparse.Namespace, sources: dict[str, str], log: Log, comparison: Comparison, until: float) -> None:
    """Look whether those of RTL that live change any accelerator."""
    for module, source in sources.items():
        for mutant in list(log.uncompared(module, alone=given.alone)) if "/rtl/" in module else []:
            if time.monotonic() > until:
                return
            equivalent = comparison.is_equivalent(module, source, mutant, alone=given.alone)
            log.compared(module, mutant, alone=given.alone, equivalent=equivalent)
            log.save()
            result = "equivalent" if equivalent else "lives"
            print(f"{module} {mutant.line}: {result}, compared", file=sys.stderr, flush=True)


if __name__ == "__main__":
    given_options = options().parse_args()
    sys.exit(end(lambda: run(given_options)))
