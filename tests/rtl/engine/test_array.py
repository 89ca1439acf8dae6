"""The adder tree and the array of multipliers, cycle by cycle."""

from __future__ import annotations

import collections
import re
from typing import Any

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.sim import Simulator
from support import port_widths

from sta_hw.rtl.engine.array import AdderTree, ProcessingArray
from sta_hw.spec.config import Config


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13])
def test_adder_tree(count: int) -> None:
    m = Module()
    m.submodules.dut = dut = AdderTree(count, 6)
    rng = np.random.default_rng(count)
    terms = rng.integers(-32, 32, (40, count))
    terms[0], terms[1] = -32, 31

    async def bench(ctx) -> None:
        for cycle in range(len(terms) + dut.latency):
            if cycle < len(terms):
                for i in range(count):
                    ctx.set(dut.terms[i], int(terms[cycle, i]))
            if cycle >= dut.latency:
                assert ctx.get(dut.sum) == terms[cycle - dut.latency].sum()
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("rows", "groups", "more"),
    [
        (1, 1, {}), (2, 3, {}), (3, 8, {"multiplier": "lut"}), (2, 2, {"array_multipliers": 3}),
        (3, 2, {"multiplier": "pair"}), (4, 5, {"multiplier": "pair"}),
        (4, 2, {"multiplier": "pair", "array_multipliers": 1}),
    ],
)  # fmt: skip
def test_sums(rows: int, groups: int, more: dict[str, Any]) -> None:
    m = Module()
    m.submodules.dut = dut = ProcessingArray(Config(rows=rows, groups=groups, **more))
    rng = np.random.default_rng(rows)
    beats = 60
    weights = rng.integers(-128, 128, (beats, groups))
    operands = rng.integers(0, 256, (beats, groups, rows))
    unsigned = rng.integers(0, 2, beats)
    weights[:2], operands[:2] = -128, 255
    operands[2:4], weights[2:4] = 128, -128
    values = np.where(unsigned[:, None, None], operands, operands - (operands >= 128) * 256)
    expected = (weights[:, :, None] * values).sum(1)

    async def bench(ctx) -> None:
        for cycle in range(beats + dut.latency):
            if cycle < beats:
                ctx.set(dut.unsigned, int(unsigned[cycle]))
                for g in range(groups):
                    ctx.set(dut.values[g], int(weights[cycle, g]))
            if 1 <= cycle <= beats:
                for g in range(groups):
                    for r in range(rows):
                        ctx.set(dut.operands[g][r], int(operands[cycle - 1, g, r]))
            if cycle >= dut.latency:
                got = [ctx.get(dut.sums[r]) for r in range(rows)]
                assert got == expected[cycle - dut.latency].tolist()
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_ports() -> None:
    assert port_widths(AdderTree(5, 6)) == {"terms": 5 * 6, "sum": 6 + 3}
    widths = port_widths(ProcessingArray(Config(rows=2, groups=3)))
    assert widths == {"values": 3 * 8, "operands": 3 * 2 * 8, "unsigned": 1, "sums": 2 * 18}


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"multiplier": "dsp"}, {"MULT18X18D": 6}), ({"multiplier": "dsp", "array_multipliers": 4}, {"MULT18X18D": 4}),
        ({"multiplier": "dsp-pair", "array_multipliers": 2}, {"MULT18X18D": 2}), ({"multiplier": "lut"}, {}),
        ({"multiplier": "mac16"}, {"SB_MAC16": 2}),
        ({"multiplier": "mac16", "array_multipliers": 1}, {"SB_MAC16": 1}),
    ],
)  # fmt: skip
def test_as_many_multipliers_as_there_may_be(changes: dict[str, Any], cells: dict[str, int]) -> None:
    """3 rows by 2 groups: cells as far as they go, or pairs of rows; the rest is made of logic."""
    text = rtlil.convert(
        ProcessingArray(Config(rows=3, groups=2, lanes=1, columns=16, drain_lanes=1, **changes)), emit_src=False
    )
    found = collections.Counter(re.findall(r"^  cell \\(MULT\w+|SB_MAC16) ", text, re.M))
    assert found == cells
