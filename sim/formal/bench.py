"""A bench around a block: free inputs, properties and lemmas, and the signals within, as RTLIL for Yosys."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Array, Assert, Assume, ClockDomain, Cover, Fragment, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

from sta_hw.errors import CheckError

__all__ = ["Bench", "Edit", "Inside", "changed"]

_CHECK = re.compile(r"  cell \$check \$\d+\n(    parameter \\FORMAT \"([\w-]+)\")")


@dataclass(frozen=True)
class Edit:
    """A change of one place of a module's source: `old`, which is there once, becomes `new`."""

    module: str
    old: str
    new: str


_LOADED = count()
"""Numbers of modules that were loaded for proofs."""
_PARSING = Lock()
"""Python 3.11 counts how deep all threads' parsers are with one number, and raises SystemError where they meet."""


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
    # Dataclasses look for their module while they are made; several proofs may load one of the same name at a time.
    module.__name__ = f"{name}, for proof {next(_LOADED)}"
    sys.modules[module.__name__] = module
    try:
        with _PARSING:
            code = compile(_named(ast.parse(source)), f"<{name}, for a proof>", "exec")
        exec(code, module.__dict__)
    finally:
        del sys.modules[module.__name__]
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

    def begun(self, cycles: int) -> Any:
        """Whether what went in with the first cycle is `cycles` behind: before, nothing has come through a pipeline."""
        return self.past(self.past(1), cycles)

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
