"""Points of coverage in a design: which statements and which branches of its source take effect, cycle by cycle.

What is counted are Amaranth's statements and not the Verilog that Yosys makes of them, which has neither: each
assignment under its conditions, each arm of an If, a Switch, a state or a Mux, and that none of them was taken. A point
is a cover statement in the clock domain. `marked` has the simulator name each point, and each signal, by the source.

The classes of statements are in a module that Amaranth keeps to itself; the pinned version has them as they are here.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cover, Fragment, Value
from amaranth.hdl._ast import Assign, Const, Signal, Switch, SwitchValue
from amaranth.lib import wiring

import sta_hw
from sta_hw.errors import ToolError
from sta_hw.rtl.emit import YOSYS_SCRIPT, run_yosys

__all__ = ["Point", "covered", "emit_with_points", "marked"]

_CHECK = re.compile(r"""^  attribute \\src "([^"]+):0"\n  cell \$check .*?PRIORITY 32'([01]+).*?^  end$""", re.M | re.S)
_MODULE = re.compile(r'^(?:attribute .*\n)*?attribute \\src "([^"]+):\d+"\n(?:attribute .*\n)*module \\(\S+)$', re.M)
_COVER = re.compile(r"^ +cover \(", re.M)
_DECLARATION = re.compile(r"^  (?:(?:in|out)put |wire |reg )(?:\[[\d:]+\] )?(\\\S+ |\w+)( \[[\d:]+\])?[^\n;]*;$", re.M)
_ROOT = Path(sta_hw.__file__).parents[1]
_MARK = "cover"
_SEPARATOR = "@"


@dataclass(frozen=True)
class Point:
    """A statement, or an arm of a branch, of the source.

    Attributes
    ----------
    file : str
        Relative to the project, like ``sta_hw/rtl/core.py``.
    line : int
    kind : str
        ``line`` for an assignment, ``branch`` for an arm of a statement, ``choice`` for one of a Mux, ``signal`` for
        one whose bits change.
    arm : str
        Of a branch: its number, and ``else`` for that none of them is taken. Of a Mux: which of its line's, and how it
        is. Of a signal: its name, bit and direction.
    """

    file: str
    line: int
    kind: str
    arm: str = ""

    def __str__(self) -> str:
        return _SEPARATOR.join((_MARK, self.file, str(self.line), self.kind, self.arm))

    @classmethod
    def read(cls, text: str) -> Point | None:
        """What an attribute names, if it is a point's."""
        words = text.split(_SEPARATOR)
        if len(words) != 5 or words[0] != _MARK:
            return None
        return cls(words[1], int(words[2]), words[3], words[4])

    @property
    def directive(self) -> str:
        """For Verilator, which counts the next line of Verilog as this place."""
        return f'`line {self.line or 1} "{self}" 0\n'


def _place(src_loc: tuple[str, int] | None) -> tuple[str, int] | None:
    """File, relative to the project, and line; None for what is not of the generator's RTL."""
    if src_loc is None:
        return None
    path = Path(src_loc[0])
    if not path.is_relative_to(_ROOT / "sta_hw" / "rtl"):
        return None
    return path.relative_to(_ROOT).as_posix(), src_loc[1]


def _is_exhaustive(switch: Switch) -> bool:
    """Whether one of the patterns matches, always."""
    patterns = [
        p for pattern, _, _ in switch.cases for p in (pattern if pattern is not None else ["-" * len(switch.test)])
    ]
    if any(set(p) <= {"-"} for p in patterns):
        return True
    # States have an encoding for each, and no others are reached.
    if isinstance(switch.test, Signal) and switch.test.name.endswith("_state"):
        return True
    if any("-" in p for p in patterns):
        return False
    return len(set(patterns)) == 1 << len(switch.test)


def _choices(value: Value) -> Iterator[SwitchValue]:
    """Every Mux in a value."""
    if isinstance(value, SwitchValue):
        yield value
        yield from _choices(value.test)
        for _, inner in value.cases:
            yield from _choices(inner)
        return
    for name in ("operands", "parts"):
        for inner in getattr(value, name, ()):
            yield from _choices(inner)
    for name in ("value", "offset"):
        inner = getattr(value, name, None)
        if isinstance(inner, Value):
            yield from _choices(inner)


class _Body:
    """The points of one list of statements, each once; those of a loop in the source are as many as its turns."""

    def __init__(self) -> None:
        self.statements: list[Any] = []
        self.seen: set[tuple[Point, int]] = set()

    def add(self, point: Point, of: Value | None = None, test: Value | int = 1) -> None:
        if (point, id(of)) not in self.seen:
            self.seen.add((point, id(of)))
            cover = Cover(test)
            cover._MustUse__used = True  # those of an arm that the design turns out not to have, too
            cover.src_loc = (str(point), 0)
            self.statements.append(cover)


def _points(statements: Any) -> list[Any]:
    """Cover statements, under the conditions of what they are about."""
    body = _Body()
    for statement in statements:
        place = _place(statement.src_loc)
        if isinstance(statement, Assign):
            if place is not None:
                body.add(Point(*place, "line"))
            numbers: Counter[tuple[str, int]] = Counter()  # of the Muxes of a line
            for choice in _choices(statement.rhs):
                where = _place(choice.src_loc)
                if where is not None and not isinstance(choice.test, Const):
                    numbers[where] += 1
                    _add_choice(body, choice, where, numbers[where])
        elif isinstance(statement, Switch) and not isinstance(statement.test, Const):
            cases = []
            for number, (pattern, inner, src_loc) in enumerate(statement.cases):
                arm = _Body()
                where = _place(src_loc) or place
                if where is not None:
                    arm.add(Point(*where, "branch", str(number)))
                cases.append((pattern, [*arm.statements, *_points(inner)], src_loc))
            if place is not None and not _is_exhaustive(statement):
                none = _Body()
                none.add(Point(*place, "branch", "else"))
                cases.append((None, none.statements, statement.src_loc))
            body.statements.append(Switch(statement.test, cases, src_loc=statement.src_loc))
    return body.statements


def _add_choice(body: _Body, choice: SwitchValue, where: tuple[str, int], number: int) -> None:
    """The arms of a Mux; what else chooses a value, as a list's element by a Value does, has no points."""
    if len(choice.cases) == 2 and choice.cases[1][0] is None:
        body.add(Point(*where, "choice", f"{number} false"), choice, choice.test == 0)
        body.add(Point(*where, "choice", f"{number} true"), choice, choice.test != 0)


def _watch(fragment: Fragment) -> None:
    found = [(domain, _points(statements)) for domain, statements in fragment.statements.items()]
    for domain, points in found:  # in a clock domain: a cover without a clock would count glitches
        fragment.add_statements("sync" if domain == "comb" else domain, *points)
    for inner, _, _ in fragment.subfragments:
        _watch(inner)


def covered(component: wiring.Component) -> wiring.Component:
    """The component, which has points of coverage from now on when it is elaborated."""
    elaborate = component.elaborate

    def with_points(platform: object) -> Fragment:
        fragment = Fragment.get(elaborate(platform), platform)
        _watch(fragment)
        return fragment

    component.elaborate = with_points
    return component


def marked(verilog: str, design: str) -> str:
    """The Verilog of a design with points, flattened by Yosys, in which Verilator counts them by their own names.

    Parameters
    ----------
    verilog : str
    design : str
        RTLIL that Amaranth wrote, sources included: it has the points, in the order of their priority, and
        the source of each module.

    Raises
    ------
    ValueError
        If the two do not have the same points.
    """
    checks = sorted(((int(priority, 2), src) for src, priority in _CHECK.findall(design)), reverse=True)
    points = iter([Point.read(src) for _, src in checks])
    found = len(_COVER.findall(verilog))
    if found != len(checks):
        raise ValueError(f"{found} points in Verilog, {len(checks)} in the design")

    def of_point(match: re.Match[str]) -> str:
        point = next(points)
        assert point is not None
        return point.directive + match[0]

    files = {name.partition(".")[2]: _place((src, 0)) for src, name in _MODULE.findall(design)}

    def of_signal(match: re.Match[str]) -> str:
        path, _, name = match[1].strip().lstrip("\\").rpartition(".")
        while path and path not in files:
            path = path.rpartition(".")[0]
        file, name = files.get(path), re.sub(r"\$\d+", "", name)
        if match[2] or file is None or not name or name.startswith(("$", "_")):
            return Point("nothing", 0, "signal").directive + match[0]
        return Point(file[0], 0, "signal", name).directive + match[0]

    return _DECLARATION.sub(of_signal, _COVER.sub(of_point, verilog))


def emit_with_points(component: wiring.Component, name: str, *, hierarchy: bool = False) -> str:
    """What `sta_hw.rtl.emit.emit_verilog` gives, with points, and always in one module; for Verilator alone.

    Parameters
    ----------
    component : Component
    name : str
        Of the module.
    hierarchy : bool
        Is asked for by models that write waveforms, and makes no difference.

    Raises
    ------
    ToolError
        If Yosys fails.
    """
    text = rtlil.convert(covered(component), name=name)
    with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder:
        (Path(folder) / "design.il").write_text(text, encoding="utf-8")
        run_yosys(YOSYS_SCRIPT.format(source="design.il", target="design.v"), Path(folder))
        target = Path(folder) / "design.v"
        if not target.exists():
            raise ToolError("Yosys ended without a message and wrote no Verilog.")
        return marked(target.read_text(encoding="utf-8"), text)
