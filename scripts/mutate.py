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
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sim.equivalence import are_equal, modules_of
from sim.forked import ForkedPytest
from sim.mutants import Mutant, mutants, mutated
from sta_hw.errors import CheckError, InputError
from sta_hw.files import write_text

ROOT = Path(__file__).parents[1]
NEXT_LEVEL = {
    "sta_hw/rtl/control/decode.py": ["tests/rtl/control/test_fetch.py"],
    "sta_hw/rtl/control/legality.py": ["tests/rtl/control/test_fetch.py"],
    "sta_hw/rtl/control/dispatch.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_waits.py"],
    "sta_hw/rtl/core.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/control/registers.py": ["tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/bus/runs.py": ["tests/rtl/bus/test_dma.py"],
    "sta_hw/rtl/engine/loops.py": ["tests/rtl/engine/test_loop_units.py"],
    "sta_hw/rtl/units/result_arithmetic.py": ["tests/rtl/units/test_results.py"],
    "sta_hw/rtl/units/norm_statistics.py": ["tests/rtl/units/test_norm.py"],
    "sta_hw/formats/tiling.py": ["tests/formats"],
    "sta_hw/spec/isa/encoding.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/isa/instruction.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/isa/opcodes.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/isa/program.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/records.py": ["tests/spec/test_isa.py"],
    "sta_hw/spec/assembly.py": ["tests/spec/test_isa.py"],
    "sta_hw/reference/instructions.py": ["tests/spec/test_expansion.py", "tests/independent"],
    "sta_hw/reference/memories.py": ["tests/independent"],
    "sta_hw/reference/results.py": ["tests/independent"],
    "sta_hw/reference/machine.py": ["tests/independent"],
    "sta_hw/reference/program.py": ["tests/independent"],
    "sta_hw/reference/softmax.py": ["tests/independent"],
    "sta_hw/reference/vector.py": ["tests/independent"],
    "sta_hw/reference/requantizer.py": ["tests/independent"],
    "sta_hw/reference/engine.py": ["tests/independent"],
    "sta_hw/compiler/liveness.py": ["tests/compiler/test_liveness.py"],
    "sta_hw/compiler/untimed.py": ["tests/compiler/test_liveness.py"],
    "sta_hw/compiler/packing.py": ["tests/compiler/test_packing.py"],
    "sta_hw/compiler/roll.py": ["tests/compiler/test_roll.py"],
    "sta_hw/compiler/runs.py": ["tests/compiler/test_runs.py"],
    "sta_hw/compiler/schedule.py": ["tests/compiler/test_compiler.py"],
}
"""Tests of modules that have no test of their own name."""
_BROKEN = re.compile(r"^E\s+(\w*(?:TypeError|SyntaxError|NameError|AttributeError|IndexError|ValueError|DriverConflict"
                     r"|ConfigError|InputError|ToolError|KeyError|ElaborationError|UnboundLocalError))\b")  # fmt: skip
_LEAST_PATIENCE, _PATIENCE = 60.0, 4.0
"""A mutant whose tests take so many times as long as the module's own, and at least so many seconds, counts as found:
it does not end."""
_CONFIGURATIONS = (
    "dataclasses.replace(PRESETS['ci'], features=('decoder',))",
    "dataclasses.replace(PRESETS['ci'], groups=8, features=('decoder',), window_words=64, loads_ahead=1)",
    "dataclasses.replace(BOARD_PRESETS['ecp5-25f'], rows=4)",
    "BOARD_PRESETS['up5k']",
)
"""Accelerators that have together what the generator can give: an equivalent mutant changes none."""
_CLIENTS = "{'a': 64, 'b': 512, 'c': 128}"
_BLOCKS = {
    "sta_hw/rtl/bus/bursts.py": "bursts.Bursts(config, 512, runs.run_layout())",
    "sta_hw/rtl/bus/dma.py": f"dma.ReadMaster(config, {_CLIENTS}); dma.WriteMaster(config, {_CLIENTS})",
    "sta_hw/rtl/control/controller.py": "controller.Controller()",
    "sta_hw/rtl/control/counters.py": "counters.Counters(count=9); counters.Counters(count=24)",
    "sta_hw/rtl/engine/accumulator.py": "accumulator.Accumulator(config)",
    "sta_hw/rtl/engine/array.py": "array.ProcessingArray(config)",
    "sta_hw/rtl/engine/decoder.py": "decoder.Decoder(config)",
    "sta_hw/rtl/engine/drain.py": "drain.Drain(config)",
    "sta_hw/rtl/engine/loops.py": "loops.Loops(config)",
    "sta_hw/rtl/engine/requantizer.py": "requantizer.Requantizer(config.vector_multiplier)",
    "sta_hw/rtl/engine/windows.py": "windows.Windows(config)",
    "sta_hw/rtl/primitives/queue.py": "queue.Queue(width=3, depth=4); queue.Queue(width=3, depth=128); "
    "queue.RegisterSlice(3)",
    "sta_hw/rtl/primitives/sequencer.py": "sequencer.Gearbox(32, 8); sequencer.Gearbox(8, 32); "
    "sequencer.StreamedMemory(8, 64, 4)",
    "sta_hw/rtl/units/loader.py": "loader.Loader(config)",
}
"""Blocks as accelerators have them: a mutant with which each is equal, whatever comes in, changes no accelerator."""
_MOST_MODULES = 12
"""Modules that a mutant changes, at most, for them to be compared."""


def tests_of(module: str) -> list[str]:
    """The module's own test, or those of the next level; none if it has neither."""
    if module in NEXT_LEVEL:
        return NEXT_LEVEL[module]
    own = ROOT / "tests" / Path(*Path(module).parts[1:]).parent / f"test_{Path(module).stem}.py"
    return [str(own.relative_to(ROOT))] if own.is_file() else []


def all_modules() -> list[str]:
    """Those that have tests, of RTL, formats, spec, reference and compiler."""
    folders = ("rtl", "formats", "spec", "reference", "compiler")
    found = sorted(p.relative_to(ROOT).as_posix() for f in folders for p in (ROOT / "sta_hw" / f).rglob("*.py"))
    return [m for m in found if not m.endswith("__init__.py") and "/board/" not in m and tests_of(m)]


class Workplace:
    """A copy of the project in which one mutant after the other is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        skipped = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=skipped, dirs_exist_ok=True)
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        # CI: Hypothesis then draws the same cases each time, however slow the machine is.
        self.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "CI": "true"}
        self.caches: dict[str, Path] = {}
        self.patience: dict[str, float] = {}
        self.modules: dict[str, dict[str, str]] = {}
        self.blocks: dict[str, list[dict[str, str]]] = {}
        self.forked: ForkedPytest | None = None

    def _run(self, command: list[str], most: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=most, check=False,
        )  # fmt: skip

    def _pytest(self, tests: list[str], cache: Path, most: float) -> subprocess.CompletedProcess[str]:
        if self.forked is None:
            self.forked = ForkedPytest(self.folder, self.environment)
        arguments = ["-x", "-q", "-p", "no:cacheprovider", *tests]
        return self.forked.run(arguments, {"STA_HW_CACHE": str(cache)}, most)

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        if self.forked is not None:
            self.forked.close()
            self.forked = None

    def prepare(self, module: str) -> None:
        """Run the tests of a module as it is: how long they take, and the models that mutants may leave as they are.

        Raises
        ------
        CheckError
            If one fails without any mutant.
        """
        tests = tests_of(module)
        cache = self.caches[module] = self.folder / "build" / "caches" / module.replace("/", "-")
        begin = time.monotonic()
        done = self._pytest(tests, cache, 3600)
        if done.returncode:
            raise CheckError(f"{' '.join(tests)} fail without a mutant: {done.stdout.strip()[-300:]}")
        self.patience[module] = max(_LEAST_PATIENCE, _PATIENCE * (time.monotonic() - begin))

    def tested(self, module: str) -> tuple[str, str]:
        """``lives``, ``found`` or ``broken``, and the last word of the tests."""
        if module not in self.caches:
            self.prepare(module)
        cache = self.caches[module]
        before = set(cache.glob("*")) if cache.exists() else set()
        try:
            done = self._pytest(tests_of(module), cache, self.patience[module])
        except subprocess.TimeoutExpired:
            return "found", f"no end within {self.patience[module]:.0f} seconds"
        finally:
            for path in set(cache.glob("*")) - before:  # a mutant's models are used once
                path.unlink()
        if done.returncode == 0:
            return "lives", ""
        said = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
        word = said[0][1:].strip()[:160] if said else done.stdout.strip()[-160:]
        broken = any(_BROKEN.match(line) for line in said[:1]) or "error" in done.stdout.splitlines()[-1].split()[:2]
        raised = re.findall(r"^(\S+\.py):\d+: \w+$", done.stdout, re.M)  # where a test fails by an error of its own
        broken = broken and not (raised and raised[-1].startswith("tests/"))
        return ("broken" if broken else "found"), word

    def _emitted(self, config: str) -> dict[str, str]:
        """The modules of an accelerator, as Amaranth writes them."""
        text = (
            "import dataclasses\nfrom amaranth.back import rtlil\n"
            "from sta_hw.rtl.tops import component\nfrom sta_hw.spec.presets import BOARD_PRESETS, PRESETS\n"
            f"config = {config}\n"
            "print(rtlil.convert(component('accelerator', config), name='accelerator', emit_src=False))\n"
        )
        done = self._run(["-c", text], 900)
        return modules_of(done.stdout)

    def _emitted_blocks(self, module: str) -> list[dict[str, str]]:
        """A block's modules in each configuration and way in which it is used; none if it cannot be elaborated."""
        name = Path(module).stem
        ways = ", ".join(f"lambda: {way.strip()}" for way in _BLOCKS[module].split(";"))
        text = (
            "import dataclasses, importlib\nfrom amaranth.back import rtlil\nfrom sta_hw.rtl.bus import runs\n"
            "from sta_hw.spec.presets import BOARD_PRESETS, PRESETS\n"
            f"{name} = importlib.import_module({module.removesuffix('.py').replace('/', '.')!r})\n"
            f"for config in ({', '.join(_CONFIGURATIONS)}):\n"
            f"    for block in ({ways},):\n"
            "        print(rtlil.convert(block(), name='block', emit_src=False), end='\\0')\n"
        )
        done = self._run(["-c", text], 300)
        return [modules_of(part) for part in done.stdout.split("\0")[:-1]] if done.returncode == 0 else []

    def _is_equal_block(self, module: str, source: str, changed: str) -> bool:
        """Whether the block alone is proved equal in all that accelerators use of it."""
        if module not in _BLOCKS:
            return False
        path = self.folder / module
        if module not in self.blocks:
            path.write_text(source, encoding="utf-8")
            self.blocks[module] = self._emitted_blocks(module)
            if not self.blocks[module]:
                raise CheckError(f"{module} is not emitted without a mutant: its entry in _BLOCKS is no more right.")
        path.write_text(changed, encoding="utf-8")
        after = self._emitted_blocks(module)
        if len(after) != len(self.blocks[module]):
            return False
        return all(b == a or (b.keys() == a.keys() and are_equal(b, a, "block"))
                   for b, a in zip(self.blocks[module], after, strict=True))  # fmt: skip

    def _is_equivalent(self, path: Path, source: str, changed: str) -> bool:
        """Whether no accelerator differs; `changed` is the mutant's text, and `source` is what is left in `path`."""
        for config in _CONFIGURATIONS:
            if config not in self.modules:
                path.write_text(source, encoding="utf-8")
                self.modules[config] = self._emitted(config)
                if not self.modules[config]:  # with nothing to compare every mutant would count as equivalent
                    raise CheckError(f"no accelerator is emitted without a mutant: {config}.")
            before = self.modules[config]
            path.write_text(changed, encoding="utf-8")
            after = self._emitted(config)
            path.write_text(source, encoding="utf-8")
            if before.keys() != after.keys():
                return False
            differ = [name for name, body in before.items() if body != after[name]]
            if len(differ) > _MOST_MODULES or not all(are_equal(before, after, name) for name in differ):
                return False
        return True

    def outcome(self, module: str, source: str, mutant: Mutant) -> tuple[str, str]:
        """What becomes of a mutant."""
        path = self.folder / module
        if module not in self.caches:
            self.prepare(module)
        changed = mutated(source, mutant)
        path.write_text(changed, encoding="utf-8")
        try:
            ended, word = self.tested(module)
            is_rtl = module.startswith("sta_hw/rtl/")
            if ended == "broken" and not is_rtl:
                ended = "found"  # software that raises what it should not
            return ended, word
        finally:
            path.write_text(source, encoding="utf-8")

    def is_equivalent(self, module: str, source: str, mutant: Mutant, *, alone: bool = False) -> bool:
        """Whether no accelerator differs with a mutant of RTL.

        The block alone is compared first, and unless it is to be `alone`, whole accelerators: modules that Amaranth
        writes otherwise are given to Yosys, which proves them equal, or does not.
        """
        path, changed = self.folder / module, mutated(source, mutant)
        try:
            if self._is_equal_block(module, source, changed):
                return True
            return not alone and self._is_equivalent(path, source, changed)
        finally:
            path.write_text(source, encoding="utf-8")


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _keys(module: str) -> tuple[str, str]:
    """Of what a module's results depend on: itself, and its tests."""
    tests = [ROOT / test for test in tests_of(module)]
    return _digest([ROOT / module]), _digest(
        [p for t in tests for p in (sorted(t.rglob("*.py")) if t.is_dir() else [t])]
    )


def is_argued(found: dict[str, Any]) -> bool:
    """Whether a mutant that lives has a reason for which no test can see it."""
    return found["ended"] == "lives" and str(found.get("why", "")).startswith("Equivalent: ")


def table(log: dict[str, Any]) -> str:
    """The results as a Markdown table, and the mutants that live, each with its reason."""
    heads = ("module", "mutants", "tried", "found", "live", "equivalent", "argued", "broken", "found, %")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]

    def line(name: str, every: int, found: list[dict[str, Any]]) -> str:
        counts = Counter("argued" if is_argued(m) else m["ended"] for m in found)
        score = 100 * counts["found"] / max(counts["found"] + counts["lives"], 1)
        kinds = " | ".join(str(counts[k]) for k in ("found", "lives", "equivalent", "argued", "broken"))
        return f"| {name} | {every} | {len(found)} | {kinds} | {score:.1f} |"

    rows = sorted(log.items())
    lines += [line(module.removeprefix("sta_hw/"), row["all"], row["mutants"]) for module, row in rows]
    lines += [line("all of these", sum(r["all"] for _, r in rows), [m for _, r in rows for m in r["mutants"]]), ""]
    for module, row in rows:
        for m in row["mutants"]:
            if m["ended"] == "lives":
                old, new = (" ".join(m[k].split())[:60] for k in ("old", "new"))
                place = f"`{module.removeprefix('sta_hw/')}` {m['line']}"
                lines.append(f"- {place}: `{old}` became `{new}`. {m.get('why', '')}".rstrip())
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="files below sta_hw; all that have tests by default")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of each module at random; all by default")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other mutant after so many")
    parser.add_argument("--seed", type=int, default=1, help="of samples and of the order")
    parser.add_argument("--log", type=Path, metavar="FILE", help="read what was tried, and add to it")
    parser.add_argument("--later", action="store_true", help="leave it to a later run to compare those that live")
    parser.add_argument("--alone", action="store_true", help="compare blocks alone, and no whole accelerators: fast")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--table", action="store_true", help="print the log's table, and run nothing")
    given = parser.parse_args()
    try:
        modules = [m.rstrip("/") for m in given.modules] or all_modules()
        for module in modules:
            if not (ROOT / module).is_file() or not tests_of(module):
                raise InputError(f"{module} is no module below sta_hw that has tests.")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return run(given, modules)
    except CheckError as error:
        print(error, file=sys.stderr)
        return 1


def run(given: argparse.Namespace, modules: list[str]) -> int:
    """Try mutants of modules, and print what became of them."""
    log = json.loads(given.log.read_text()) if given.log and given.log.exists() else {}
    if given.table:
        print(table(log))
        return 0
    begin, chosen = time.monotonic(), []
    reasons: dict[tuple[str, int, str], str] = {}
    for module in modules:
        source = (ROOT / module).read_text(encoding="utf-8")
        every = mutants(source)
        key, tests_key = _keys(module)
        if log.get(module, {}).get("key") != key:
            log[module] = {
                "key": key,
                "tests_key": tests_key,
                "tests": tests_of(module),
                "all": len(every),
                "mutants": [],
            }
        if log[module]["tests_key"] != tests_key:
            log[module] |= {"tests_key": tests_key, "tests": tests_of(module)}
            lived = [m for m in log[module]["mutants"] if m["ended"] == "lives"]
            reasons |= {(module, m["start"], m["new"]): m["why"] for m in lived if "why" in m}
            log[module]["mutants"] = [m for m in log[module]["mutants"] if m not in lived]
        tried = {(m["line"], m["start"], m["new"]) for m in log[module]["mutants"]}
        left = random.Random(f"{given.seed} {module}").sample(every, len(every))
        left = left[: given.sample or len(left)]
        chosen += [(n, module, source, m) for n, m in enumerate(left) if (m.line, m.start, m.new) not in tried]
    chosen.sort(key=lambda c: c[:2])  # one of each module, then another of each: a run may end at any time
    with tempfile.TemporaryDirectory(prefix="sta_hw_mutants_") as folder, Workplace(Path(folder)) as place:
        for number, (_, module, source, mutant) in enumerate(chosen):
            if time.monotonic() - begin > given.seconds:
                break
            ended, word = place.outcome(module, source, mutant)
            found = {
                "line": mutant.line,
                "start": mutant.start,
                "end": mutant.end,
                "old": mutant.old,
                "new": mutant.new,
            }
            found |= {"ended": ended, "said": word}
            if ended == "lives" and (why := reasons.get((module, mutant.start, mutant.new))):
                found["why"] = why
            log[module]["mutants"].append(found)
            print(f"{number + 1} of {len(chosen)}: {module} {mutant.line}: {ended}", file=sys.stderr, flush=True)
            if given.log:
                write_text(given.log, json.dumps(log, indent=1) + "\n")
        for module in [] if given.later else modules:
            source = (ROOT / module).read_text(encoding="utf-8")
            for found in log[module]["mutants"]:
                if "/rtl/" not in module or found["ended"] != "lives":
                    continue
                if found.get("compared") in ("whole", "alone" if given.alone else "whole"):
                    continue
                if time.monotonic() - begin > given.seconds:
                    break
                mutant = Mutant(*(found[k] for k in ("line", "start", "end", "old", "new")))
                found["compared"] = "alone" if given.alone else "whole"
                if place.is_equivalent(module, source, mutant, alone=given.alone):
                    found |= {"ended": "equivalent", "said": "no accelerator differs"}
                print(f"{module} {mutant.line}: {found['ended']}, compared", file=sys.stderr, flush=True)
                if given.log:
                    write_text(given.log, json.dumps(log, indent=1) + "\n")
    log = {module: row for module, row in log.items() if row["mutants"]}
    if given.log:
        write_text(given.log, json.dumps(log, indent=1) + "\n")
    print(json.dumps(log) if given.json else table(log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
