"""What is changed of a module's text, and what is not."""

from __future__ import annotations

import ast
from pathlib import Path

from sim.mutation.mutants import mutants, mutated

ROOT = Path(__file__).parents[3]


def test_each_kind_of_change() -> None:
    source = (
        "def f(a: int = 3) -> int:\n    m.d.sync += a.eq(1)\n    with m.If(a & b):\n        pass\n"
        "    if not a < 2:\n        raise ValueError('7' + str(8))\n    return Mux(a, b, c) if ~a else True\n"
    )
    found = {(m.old, m.new) for m in mutants(source)}
    assert {
        ("3", "4"), ("3", "2"), ("m.d.sync += a.eq(1)", "pass"), ("m.If(a & b)", "(m.If(~(a & b).bool()))"),
        ("a < 2", "(a <= 2)"), ("not a < 2", "(a < 2)"), ("Mux(a, b, c)", "(Mux(a, c, b))"), ("~a", "(a)"),
        ("True", "False"), ("a & b", "(a | b)"),
    } <= found  # fmt: skip
    assert not any("8" in old for old, _ in found), "what errors say is left alone"


def test_every_mutant_is_python() -> None:
    for module in ("sta_hw/rtl/primitives/queue.py", "sta_hw/spec/records.py", "sta_hw/rtl/units/results.py"):
        source = (ROOT / module).read_text(encoding="utf-8")
        for mutant in mutants(source):
            ast.parse(mutated(source, mutant))
