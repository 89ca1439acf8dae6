"""The accumulators: columns over passes, the shift for a second byte plane, the closest spacing allowed."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from sta_hw.rtl.engine.accumulator import HAZARD_CYCLES, Accumulator
from sta_hw.spec.config import Config


@pytest.mark.parametrize(("rows", "delay", "digits"), [(1, 3, False), (2, 4, False), (3, 7, False), (2, 4, True)])
def test_sums(rows: int, delay: int, digits: bool) -> None:
    """With digits, as in the accelerator, stored sums shift by 7 places instead of 8."""
    config = Config(rows=rows, columns=16, features=("digits",) if digits else ())
    places = 7 if digits else 8
    top = Module()
    top.submodules.dut = dut = Accumulator(config, 19, delay, plain=digits)
    rng = np.random.default_rng(rows)
    schedule: list[tuple[dict[str, int], list[int]]] = []
    expected: list[list[int]] = []
    for _ in range(30):
        columns, beats, passes = (int(rng.integers(1, high)) for high in (12, 4, 4))
        widen_at = int(rng.integers(0, passes))
        sums = rng.integers(-(1 << 18), 1 << 18, (passes, columns, beats, rows))
        sums[:, 0] = rng.choice([-(1 << 18), (1 << 18) - 1])
        total = np.zeros((columns, rows), np.int64)
        for step in range(passes):
            widen = widen_at > 0 and step == widen_at
            total = (total << places if widen else total) + sums[step].sum(1)
            for column in range(columns):
                for beat in range(beats):
                    last = beat == beats - 1
                    flags = {
                        "valid": 1, "first": beat == 0, "last": last, "first_pass": step == 0,
                        "final_pass": step == passes - 1, "pass_end": last and column == columns - 1, "widen": widen,
                    }  # fmt: skip
                    schedule.append(({k: int(v) for k, v in flags.items()}, sums[step, column, beat].tolist()))
                    if rng.random() < 0.2:
                        schedule.append(({"valid": 0}, [0] * rows))
            if columns < HAZARD_CYCLES:
                schedule += [({"valid": 0}, [0] * rows)] * HAZARD_CYCLES
        wrapped = (total + 2**31) % 2**32 - 2**31
        expected += wrapped.tolist()
    found: list[list[int]] = []

    async def drive(ctx) -> None:  # type: ignore[no-untyped-def]
        for cycle in range(len(schedule) + delay + 4):
            flags = schedule[cycle][0] if cycle < len(schedule) else {"valid": 0}
            for name, value in flags.items():
                ctx.set(dut.flags[name], value)
            if delay <= cycle < len(schedule) + delay:
                for r, value in enumerate(schedule[cycle - delay][1]):
                    ctx.set(dut.sums[r], value)
            await ctx.tick()

    async def drain(ctx) -> None:  # type: ignore[no-untyped-def]
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
