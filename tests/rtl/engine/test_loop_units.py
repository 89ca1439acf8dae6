"""The loop counters against nested Python loops."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from support import port_widths

from sta_hw.rtl.engine.loops import Loops
from sta_hw.spec.config import Config

FLAGS = (
    "first", "column_end", "pass_end", "matrix_end", "first_pass", "final_pass", "widen", "rescale", "base", "offset",
)  # fmt: skip


def expected(
    n: int, m: int, depth: int, taps: int, columns: int, passes: int, widen_at: int,
    continues: int, unfinished: int, rescale: int, lift: int,
) -> list[tuple[int, ...]]:  # fmt: skip
    found: list[tuple[int, ...]] = []
    for step in range(passes):
        for column in range(columns):
            for group in range(depth // m):
                for entry in range(n):
                    column_end = group == depth // m - 1 and entry == n - 1
                    pass_end = column_end and column == columns - 1
                    found.append(
                        (
                            group == 0 and entry == 0, column_end, pass_end, pass_end and step == passes - 1,
                            step == 0 and not continues, step == passes - 1 and not unfinished,
                            (widen_at > 0 and step == widen_at) or (step == 0 and continues and lift),
                            not found and continues and rescale, column % taps * depth + group * m, group * m,
                        )
                    )  # fmt: skip
    return [tuple(int(v) for v in row) for row in found]


@pytest.mark.parametrize(("window", "features"), [(4, ()), (16, ("digits",)), (32, ())])
def test_loops(window: int, features: tuple[str, ...]) -> None:
    top = Module()
    top.submodules.dut = dut = Loops(Config(window=window, features=features))
    rng = np.random.default_rng(window)

    async def bench(ctx) -> None:
        for _ in range(40):
            m = 1 << int(rng.integers(0, window.bit_length()))
            depth = m * int(rng.choice([window // m, rng.integers(1, window // m + 1)]))
            case = {
                "n": int(rng.integers(1, m + 1)), "depth": depth, "taps": int(rng.integers(1, window // depth + 1)),
                "columns": int(rng.integers(1, 8)),
                "passes": int(rng.integers(1, 4)), "widen_at": int(rng.integers(0, 3)),
                "continues": int(rng.integers(2)), "unfinished": int(rng.integers(2)), "rescale": int(rng.integers(2)),
                "lift": int(rng.integers(2)) if features else 0,
            }  # fmt: skip
            for field, value in (case | {"m_log2": m.bit_length() - 1}).items():
                if field == "lift" and not features:
                    continue
                ctx.set(dut.command[field], value)
            ctx.set(dut.load, 1)
            ctx.set(dut.step, 0)
            await ctx.tick()
            ctx.set(dut.load, 0)
            for row in expected(m=m, **case):
                while rng.random() < 0.3:  # stalls change nothing
                    ctx.set(dut.step, 0)
                    await ctx.tick()
                ctx.set(dut.step, 1)
                assert tuple(ctx.get(getattr(dut, flag)) for flag in FLAGS) == row, case
                await ctx.tick()

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("window", [4, 32])
def test_ports(window: int) -> None:
    """Flags are bits, addresses those of a window."""
    widths = port_widths(Loops(Config(window=window)))
    del widths["command"]
    bits = window.bit_length() - 1
    flags = {"load", "step", *FLAGS} - {"base", "offset"}
    assert widths == dict.fromkeys(flags, 1) | {"base": bits, "offset": bits}
