"""The window loader: what is written where, when banks are full, and that none is overwritten."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from support import port_widths, simulate

from sta_hw.rtl.engine.windows import Windows
from sta_hw.spec.config import Config

CASES = [
    (Config(rows=1, groups=1, window=32, columns=16), 1, 32, 2),
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

    async def load(ctx) -> None:
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

    async def read(ctx) -> None:
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

    simulate(top, load, read, limit=8000)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        Config(rows=1, groups=1, window=4, columns=16),
        Config(rows=4, groups=3, window=8, lanes=2, columns=16),
        Config(rows=4, groups=2, window=16, lanes=4, columns=16, window_memory="distributed"),
    ],
)
def test_products_in_a_row(config: Config, at_once: bool) -> None:
    """Of any shapes, one behind the other, into two banks in turn. A beat is taken a cycle as long as a bank is free;
    a bank is full two cycles after its last beat, and known to be a cycle ahead; it stays as it is until released."""
    top = Module()
    top.submodules.dut = dut = Windows(config)
    rng = np.random.default_rng(config.groups)
    products = []
    for depth in (1, 2, 3, config.window, 1, config.window // 2, 4, 1):
        taps, passes = int(rng.integers(1, config.window // depth + 1)), int(rng.choice([1, 2, 3]))
        products.append(rng.integers(0, 256, (passes, taps, config.groups, depth, config.rows)))
    windows = [window for product in products for window in product]
    taken: list[int] = []  # beats, up to the cycle
    lasts = [0, *np.cumsum([w.size // config.lanes for w in windows]).tolist()]

    async def load(ctx) -> None:
        for product in products:
            for field, axis in (("passes", 0), ("taps", 1), ("depth", 3)):
                ctx.set(dut.command.payload[field], product.shape[axis])
            ctx.set(dut.command.valid, 1)
            await ctx.tick().until(dut.command.ready)
            ctx.set(dut.command.valid, 0)
            for beat in product.reshape(-1, config.lanes):
                while not at_once and rng.random() < 0.3:
                    await ctx.tick()
                ctx.set(dut.activations.payload, beat.tolist())
                ctx.set(dut.activations.valid, 1)
                await ctx.tick().until(dut.activations.ready)
                ctx.set(dut.activations.valid, 0)

    async def read(ctx) -> None:
        for number, window in enumerate(windows):
            bank = number % 2
            ctx.set(dut.bank, bank)
            while not ctx.get(dut.full) >> bank & 1:
                await ctx.tick()
            for _ in range(int(rng.choice([0, 0, 40]))):
                await ctx.tick()
            for tap, position in np.ndindex(window.shape[0], window.shape[2]):
                ctx.set(dut.addresses, [tap * window.shape[2] + position] * config.groups)
                await ctx.tick()
                got = [list(operands) for operands in ctx.get(dut.operands)]
                assert got == window[tap, :, position].tolist()
            ctx.set(dut.release, 1 << bank)
            await ctx.tick()
            ctx.set(dut.release, 0)

    async def watch(ctx) -> None:
        beats, filled, released = 0, 0, 0  # beats taken; windows whose last one was taken, and that were given back
        shown = 0
        begun = -1  # products
        ahead = None
        while released < len(windows):
            full = ctx.get(dut.full)
            assert ahead in (None, full)
            ahead = ctx.get(dut.full_next)
            assert full == sum(1 << n % 2 for n in range(released, shown))
            if ctx.get(dut.command.valid) and ctx.get(dut.command.ready):
                begun += 1
            ready = ctx.get(dut.activations.ready)
            if ready:
                assert filled - released < 2, "a window goes where another one is"
            elif at_once and ctx.get(dut.activations.valid):
                assert filled - released == 2, "a free bank is not used"
            shown = filled
            if ready and ctx.get(dut.activations.valid):
                beats += 1
                filled += beats == lasts[filled + 1]
            released += bool(ctx.get(dut.release))
            taken.append(beats)
            await ctx.tick()
        assert begun == len(products) - 1 and beats == lasts[-1]

    simulate(top, load, read, watch, limit=8000)


def test_many_passes_do_not_end() -> None:
    """As many as 16 bits count; what 15 bits hold of them would end with the second."""
    dut = Windows(Config(rows=1, groups=1, window=4, columns=16))

    async def bench(ctx) -> None:
        ctx.set(dut.command.payload, {"depth": 1, "taps": 1, "passes": 32770})
        ctx.set(dut.command.valid, 1)
        ctx.set(dut.activations.valid, 1)
        ctx.set(dut.release, 3)
        taken = 0
        for cycle in range(20):
            assert ctx.get(dut.command.ready) == (cycle == 0)
            taken += ctx.get(dut.activations.ready)
            await ctx.tick()
        assert taken > 2

    simulate(dut, bench, limit=40)


def test_ports() -> None:
    widths = port_widths(Windows(Config(rows=4, groups=2, window=16, lanes=4)))
    own = {"addresses": 2 * 4, "bank": 1, "operands": 2 * 4 * 8, "full": 2, "full_next": 2, "release": 2}
    streams = {"command.payload": 6 + 6 + 16, "activations.payload": 32}
    streams |= {f"{s}.{p}": 1 for s in ("command", "activations") for p in ("valid", "ready")}
    assert widths == own | streams
