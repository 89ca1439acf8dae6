"""Mutants of a module of Python: one change each, in its own text."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutant", "mutants", "mutated"]

_SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add,), ast.FloorDiv: (ast.Mult,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,), ast.BitXor: (ast.BitOr,), ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
    ast.Mod: (ast.FloorDiv,), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_UNSEEN = ("reset_less", "attrs")
"""Arguments that no simulation from reset on sees: which registers a reset leaves alone, attributes for synthesis."""


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
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute) and node.targets[0].attr == "next":
        yield ast.Pass()  # m.next = ...


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
        elif isinstance(node, ast.keyword) and node.arg in _UNSEEN:
            apart = [node.value]
        for part in apart:
            left_out |= {id(n) for n in ast.walk(part)} if part is not None else set()
    found, raw = [], source.encode()
    for node in ast.walk(tree):
        if id(node) in left_out or not isinstance(node, ast.stmt | ast.expr):
            continue
        assert node.end_lineno is not None and node.end_col_offset is not None
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
