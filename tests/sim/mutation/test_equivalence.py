"""Yosys proves versions of a module equal that are, and of others nothing."""

from __future__ import annotations

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.mutation.equivalence import are_equal, modules_of


class Sum(wiring.Component):
    """A sum of two, in a register, which `how` writes."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__({"a": In(4), "b": In(4), "p": Out(4)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(4)
        sums: dict[str, Value] = {
            "sum": self.a + self.b, "turned": self.b + self.a, "difference": self.a - (~self.b) - 1,
            "without a carry": self.a ^ self.b, "one more": self.a + self.b + 1,
        }  # fmt: skip
        m.d.sync += total.eq(sums[self.how])
        m.d.comb += self.p.eq(total)
        return m


def version(how: str) -> dict[str, str]:
    return modules_of(rtlil.convert(Sum(how), name="sum", emit_src=False))


@pytest.mark.parametrize(
    ("how", "equal"),
    [("sum", True), ("turned", True), ("difference", True), ("without a carry", False), ("one more", False)],
)
def test_what_is_proved(how: str, equal: bool) -> None:
    before, after = version("sum"), version(how)
    assert list(before) == ["sum"] and (before == after) == (how == "sum")
    assert are_equal(before, after, "sum") == equal
