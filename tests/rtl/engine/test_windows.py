"""The window loader: what is written where, when banks are full, and that none is overwritten."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from sta_hw.rtl.engine.windows import Windows
from sta_hw.spec.config import Config

CASES = [
    (Config(rows=1, groups=1, window=4, columns=16), 4, 1, 3),
    (Config(rows=6, groups=3, window=8, lanes=2, columns=16), 3, 2, 4),
    (Config(rows=4, groups=2, window=16, lanes=4, columns=16, window_memory="distributed"), 5, 3, 2),
]


@pytest.mark.parametrize(("config", "depth", "taps", "passes"), CASES)
def test_windows(config: Config, depth: int, taps: int, passes: int) -> None:
    top = Module()
    top.submodules.dut = dut = Windows(config)
    rng = np.random.default_rng(depth)
    data = rng.integers(0, 256, (passes, taps, config.groups, depth, config.rows))
    beats = data.reshape(-1, config.lanes)

    async def load(ctx) -> None:  # type: ignore[no-untyped-def]
        for field, value in (("depth", depth), ("taps", taps), ("passes", passes)):
            ctx.set(dut.command.payload[field], value)
        ctx.set(dut.command.valid, 1)
        await ctx.tick().until(dut.command.ready)
        ctx.set(dut.command.valid, 0)
        for beat in beats:
            while rng.random() < 0.3:
                await ctx.tick()
            for lane, value in enumerate(beat):
                ctx.set(dut.activations.payload[lane], int(value))
            ctx.set(dut.activations.valid, 1)
            await ctx.tick().until(dut.activations.ready)
            ctx.set(dut.activations.valid, 0)
        # Everything was taken; the loader asks for a command and no more activations.
        await ctx.tick()
        assert ctx.get(dut.command.ready) and not ctx.get(dut.activations.ready)

    async def read(ctx) -> None:  # type: ignore[no-untyped-def]
        for step in range(passes):
            bank = step % 2
            while not ctx.get(dut.full) >> bank & 1:
                await ctx.tick()
            for _ in range(40):  # let the loader run into the other bank
                await ctx.tick()
            ctx.set(dut.bank, bank)
            for position in rng.permutation(depth * taps):
                for g in range(config.groups):
                    ctx.set(dut.addresses[g], int(position))
                await ctx.tick()
                for g in range(config.groups):
                    got = [ctx.get(dut.operands[g][r]) for r in range(config.rows)]
                    assert got == data[step, position // depth, g, position % depth].tolist()
            ctx.set(dut.release, 1 << bank)
            await ctx.tick()
            ctx.set(dut.release, 0)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(load)
    simulator.add_testbench(read)
    simulator.run()
