"""The accumulators: columns over passes, the shift for a second byte plane, the closest spacing allowed."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from support import port_widths

from sta_hw.rtl.engine.accumulator import HAZARD_CYCLES, Accumulator, Flags
from sta_hw.spec.config import Config

SPACING = 5
"""Cycles from a column's last beat to the next pass' first one, at least."""


@pytest.mark.parametrize(
    ("rows", "delay", "digits", "plain"),
    [(1, 3, False, False), (2, 4, False, False), (3, 7, False, False), (2, 4, True, True), (2, 5, False, True)],
)
def test_sums(rows: int, delay: int, digits: bool, plain: bool) -> None:
    """Products that continue what others left, some with their sums halved; with digits, as in the accelerator, stored
    sums shift by 7 places instead of 8, and without by none."""
    config = Config(rows=rows, columns=16, features=("digits",) if digits else ())
    places = 7 if digits else 8
    top = Module()
    top.submodules.dut = dut = Accumulator(config, 19, delay, **({"plain": True} if plain else {}))
    rng = np.random.default_rng(rows)
    schedule: list[tuple[dict[str, int], list[int]]] = []
    expected: list[list[int]] = []
    halves: list[int] = []  # of the beats of the schedule
    kept: np.ndarray | None = None
    for _ in range(40):
        columns, beats, passes = (int(rng.choice(high)) for high in ([1, 2, 4, 5, 11, 16], [1, 2, 3], [1, 2, 3]))
        columns = columns if kept is None else len(kept)
        widen_at = 0 if plain and not digits else int(rng.integers(0, passes))
        unfinished = rng.random() < 0.4
        rescales = kept is not None and rng.random() < 0.7
        lifts = digits and kept is not None and not rescales and rng.random() < 0.5
        mask = int(rng.integers(1 << rows))
        sums = rng.integers(-(1 << 18), 1 << 18, (passes, columns, beats, rows))
        sums[:, 0] = rng.choice([-(1 << 18), (1 << 18) - 1])
        total = np.zeros((columns, rows), np.int64) if kept is None else kept
        if rescales:
            total = total >> np.array([mask >> r & 1 for r in range(rows)])
        for step in range(passes):
            widen = (widen_at > 0 and step == widen_at) or (lifts and step == 0)
            total = (total << places if widen else total) + sums[step].sum(1)
            total = (total + 2**31) % 2**32 - 2**31
            for column in range(columns):
                for beat in range(beats):
                    last = beat == beats - 1
                    flags = {
                        "valid": 1, "first": beat == 0, "last": last, "first_pass": step == 0 and kept is None,
                        "final_pass": step == passes - 1 and not unfinished,
                        "pass_end": last and column == columns - 1, "widen": widen,
                        "rescale": rescales and step == 0,
                    }  # fmt: skip
                    schedule.append(({k: int(v) for k, v in flags.items()}, sums[step, column, beat].tolist()))
                    if rng.random() < 0.2:
                        schedule.append(({"valid": 0}, [0] * rows))
            if columns < SPACING:
                schedule += [({"valid": 0}, [0] * rows)] * SPACING
            halves += [mask] * (len(schedule) - len(halves))
        kept = total if unfinished else None
        expected += [] if unfinished else total.tolist()
    found: list[list[int]] = []

    async def drive(ctx) -> None:
        for cycle in range(len(schedule) + delay + 4):
            flags = schedule[cycle][0] if cycle < len(schedule) else {"valid": 0}
            for name, value in flags.items():
                ctx.set(dut.flags[name], value)
            if delay - 2 <= cycle < len(schedule) + delay - 2:
                ctx.set(dut.halve, halves[cycle - delay + 2])
            if delay <= cycle < len(schedule) + delay:
                for r, value in enumerate(schedule[cycle - delay][1]):
                    ctx.set(dut.sums[r], value)
            await ctx.tick()

    async def drain(ctx) -> None:
        """Read each column as soon as it may be read: the cycle after it was written."""
        pending: list[int] = []
        address = 0
        for cycle in range(len(schedule) + delay + 10):
            written = ctx.get(dut.written)
            if pending and pending[0] + 2 == cycle:
                pending.pop(0)
                found.append([ctx.get(dut.read_data[r]) for r in range(rows)])
            await ctx.tick()
            if written:
                ctx.set(dut.read_address, address % config.columns)
                address += 1
                pending.append(cycle + 1)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.add_testbench(drain)
    simulator.run()
    assert found == expected


def test_too_short_a_delay() -> None:
    with pytest.raises(ValueError, match="delay must be at least 3 cycles, not 2"):
        Accumulator(Config(), 16, 2)


def test_ports() -> None:
    widths = port_widths(Accumulator(Config(rows=3, columns=16), 19, 3))
    own = {"flags": 8, "sums": 3 * 19, "halve": 3, "written": 1, "read_address": 4, "read_data": 3 * 32}
    assert widths == own and all(field.width == 1 for _, field in Flags)
    assert HAZARD_CYCLES == SPACING
