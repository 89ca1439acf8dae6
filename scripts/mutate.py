"""Mutants of the sources, one change each, against the tests of their module: what no test sees.

    python scripts/mutate.py --sample 6 sta_hw/rtl/primitives/queue.py
    python scripts/mutate.py --seconds 3600 --log scripts/results/mutation.json

Operators, comparisons, constants, conditions, arms of Mux and statements are changed in the text that Python's own
parser finds, in a copy of the project; the module's tests run in it until one fails. A mutant of RTL that lives is
equivalent if the accelerator's Verilog is the same. Those that cannot be elaborated at all are left out of the score.
Results are kept in the log, and what is there is not run again while the module and its tests are as they were.
"""

from __future__ import annotations

import argparse
import ast
import copy
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sta_hw.errors import InputError
from sta_hw.files import write_text

ROOT = Path(__file__).parents[1]
NEXT_LEVEL = {
    "sta_hw/rtl/units/loader.py": ["tests/rtl/test_malformed.py"],
    "sta_hw/rtl/units/feeds.py": ["tests/rtl/test_malformed.py"],
    "sta_hw/rtl/control/decode.py": ["tests/rtl/control/test_fetch.py"],
    "sta_hw/rtl/control/legality.py": ["tests/rtl/control/test_fetch.py"],
    "sta_hw/rtl/control/dispatch.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_waits.py"],
    "sta_hw/rtl/core.py": ["tests/rtl/test_malformed.py", "tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/control/registers.py": ["tests/rtl/test_accelerator_control.py"],
    "sta_hw/rtl/bus/dma.py": ["tests/rtl/bus/test_dma.py"],
    "sta_hw/rtl/engine/loops.py": ["tests/rtl/engine/test_loop_units.py"],
    "sta_hw/rtl/units/result_arithmetic.py": ["tests/rtl/units/test_results.py"],
    "sta_hw/rtl/units/result_packing.py": ["tests/rtl/units/test_results.py"],
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
_SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add,), ast.FloorDiv: (ast.Mult,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,), ast.BitXor: (ast.BitOr,), ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
    ast.Mod: (ast.FloorDiv,), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_BROKEN = re.compile(r"^E\s+(\w*(?:TypeError|SyntaxError|NameError|AttributeError|IndexError|ValueError|DriverConflict"
                     r"|ConfigError|InputError|ToolError|KeyError|ElaborationError|UnboundLocalError))\b")  # fmt: skip
_MOST = 900.0
"""Seconds of a mutant's tests, after which it counts as found: it does not end."""


@dataclass(frozen=True)
class Mutant:
    """A change of one module's text.

    Attributes
    ----------
    line : int
    start, end : int
        Of the text that is replaced, in bytes of UTF-8.
    """

    line: int
    start: int
    end: int
    old: str
    new: str


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Other nodes for a node."""

    def with_(**fields: Any) -> ast.AST:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    if isinstance(node, ast.BinOp | ast.BoolOp):
        yield from (with_(op=op()) for op in _SWAPS.get(type(node.op), ()))
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from (with_(ops=[op()]) for op in _SWAPS.get(type(node.ops[0]), ()))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert | ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
        if node.value > 1:
            yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "Mux" and len(node.args) == 3:
            yield with_(args=[node.args[0], node.args[2], node.args[1]])
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("If", "Elif") and len(node.args) == 1:
            yield with_(args=[ast.UnaryOp(ast.Invert(), ast.Call(ast.Attribute(node.args[0], "bool"), [], []))])
    elif isinstance(node, ast.IfExp):
        yield with_(body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):  # m.d.sync += ...
        yield ast.Pass()


def mutants(source: str) -> list[Mutant]:
    """All of a module, in the order of its text."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    tree = ast.parse(source)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        apart: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = (*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs)
            apart = [node.returns, *(a.annotation for a in every), *node.decorator_list]
        elif isinstance(node, ast.AnnAssign):
            apart = [node.annotation]
        elif isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):  # what errors say
            apart = [node]
        for part in apart:
            left_out |= {id(n) for n in ast.walk(part)} if part is not None else set()
    found, raw = [], source.encode()
    for node in ast.walk(tree):
        if id(node) in left_out or not hasattr(node, "end_col_offset"):
            continue
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[node.end_lineno - 1] + node.end_col_offset
        for other in _replacements(node):
            text = ast.unparse(ast.fix_missing_locations(other))
            if not isinstance(node, ast.stmt | ast.Constant):
                text = f"({text})"
            found.append(Mutant(node.lineno, start, end, raw[start:end].decode(), text))
    return sorted(found, key=lambda m: (m.start, m.end, m.new))


def mutated(source: str, mutant: Mutant) -> str:
    """The module with the change."""
    raw = source.encode()
    return (raw[: mutant.start] + mutant.new.encode() + raw[mutant.end :]).decode()


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
        self.environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        self.verilog = ""

    def _run(self, command: list[str], cache: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"STA_HW_CACHE": cache} if cache else {})
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=_MOST,
            check=False,
        )  # fmt: skip

    def tested(self, tests: list[str]) -> tuple[str, str]:
        """``lives``, ``found`` or ``broken``, and the last word of the tests."""
        with tempfile.TemporaryDirectory(prefix="sta_hw_mutant_") as cache:  # models of mutants are used once
            try:
                done = self._run(["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests], cache)
            except subprocess.TimeoutExpired:
                return "found", f"no end within {_MOST:.0f} seconds"
        if done.returncode == 0:
            return "lives", ""
        said = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
        word = said[0][1:].strip()[:160] if said else done.stdout.strip()[-160:]
        broken = any(_BROKEN.match(line) for line in said[:1]) or "error" in done.stdout.splitlines()[-1].split()[:2]
        return ("broken" if broken else "found"), word

    def netlist(self) -> str:
        """The small accelerator's Verilog, with all features, without its remarks."""
        text = (
            "import dataclasses\nfrom sta_hw.rtl.emit import emit_verilog\nfrom sta_hw.rtl.tops import component\n"
            "from sta_hw.spec.presets import PRESETS\n"
            "config = dataclasses.replace(PRESETS['ci'], features=('decoder',))\n"
            "print(emit_verilog(component('accelerator', config), 'accelerator'))\n"
        )
        done = self._run(["-c", text], "")
        return "\n".join(line for line in done.stdout.splitlines() if not line.lstrip().startswith("//"))

    def outcome(self, module: str, source: str, mutant: Mutant) -> tuple[str, str]:
        """What becomes of a mutant."""
        path = self.folder / module
        path.write_text(mutated(source, mutant), encoding="utf-8")
        try:
            ended, word = self.tested(tests_of(module))
            is_rtl = module.startswith("sta_hw/rtl/")
            if ended == "broken" and not is_rtl:
                ended = "found"  # software that raises what it should not
            if ended == "lives" and is_rtl:
                changed = self.netlist()
                path.write_text(source, encoding="utf-8")
                self.verilog = self.verilog or self.netlist()
                if changed == self.verilog:
                    return "equivalent", "the same Verilog"
            return ended, word
        finally:
            path.write_text(source, encoding="utf-8")


def _key(module: str) -> str:
    """Of what a module's results depend on: itself and its tests."""
    digest = hashlib.sha256((ROOT / module).read_bytes())
    for test in tests_of(module):
        for path in sorted((ROOT / test).rglob("*.py")) if (ROOT / test).is_dir() else [ROOT / test]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def table(log: dict[str, Any]) -> str:
    """The results as a Markdown table, and the mutants that live."""
    lines = ["| module | mutants | tried | found | live | equivalent | broken |", "|---|---|---|---|---|---|---|"]
    total: Counter[str] = Counter()
    lives = []
    for module, row in sorted(log.items()):
        counts = Counter(m["ended"] for m in row["mutants"])
        total += counts
        lines.append(
            f"| {module.removeprefix('sta_hw/')} | {row['all']} | {len(row['mutants'])} | {counts['found']} | "
            f"{counts['lives']} | {counts['equivalent']} | {counts['broken']} |"
        )
        lives += [(module, m) for m in row["mutants"] if m["ended"] == "lives"]
    score = total["found"] / max(total["found"] + total["lives"], 1)
    lines += ["", f"{total['found']} of {total['found'] + total['lives']} found: {100 * score:.0f} %.", ""]
    for module, m in lives:
        old, new = (" ".join(m[k].split())[:60] for k in ("old", "new"))
        lines.append(
            f"- `{module.removeprefix('sta_hw/')}` {m['line']}: `{old}` became `{new}`. {m.get('why', '')}".rstrip()
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="files below sta_hw; all that have tests by default")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of each module at random; all by default")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other mutant after so many")
    parser.add_argument("--seed", type=int, default=1, help="of samples and of the order")
    parser.add_argument("--log", type=Path, metavar="FILE", help="read what was tried, and add to it")
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
    log = json.loads(given.log.read_text()) if given.log and given.log.exists() else {}
    if given.table:
        print(table(log))
        return 0
    begin, chosen = time.monotonic(), []
    for module in modules:
        source = (ROOT / module).read_text(encoding="utf-8")
        every = mutants(source)
        if log.get(module, {}).get("key") != _key(module):
            log[module] = {"key": _key(module), "tests": tests_of(module), "all": len(every), "mutants": []}
        tried = {(m["line"], m["start"], m["new"]) for m in log[module]["mutants"]}
        left = random.Random(f"{given.seed} {module}").sample(every, len(every))
        left = left[: given.sample or len(left)]
        chosen += [(n, module, source, m) for n, m in enumerate(left) if (m.line, m.start, m.new) not in tried]
    chosen.sort(key=lambda c: c[:2])  # one of each module, then another of each: a run may end at any time
    with tempfile.TemporaryDirectory(prefix="sta_hw_mutants_") as folder:
        place = Workplace(Path(folder))
        for number, (_, module, source, mutant) in enumerate(chosen):
            if time.monotonic() - begin > given.seconds:
                break
            ended, word = place.outcome(module, source, mutant)
            found = {"line": mutant.line, "start": mutant.start, "old": mutant.old, "new": mutant.new}
            log[module]["mutants"].append(found | {"ended": ended, "said": word})
            print(f"{number + 1} of {len(chosen)}: {module} {mutant.line}: {ended}", file=sys.stderr, flush=True)
            if given.log:
                write_text(given.log, json.dumps(log, indent=1) + "\n")
    log = {module: row for module, row in log.items() if row["mutants"]}
    if given.log:
        write_text(given.log, json.dumps(log, indent=1) + "\n")
    print(json.dumps(log) if given.json else table(log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
