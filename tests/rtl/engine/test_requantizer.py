"""The requantizer, one result per cycle, against the reference; and the reference against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from support import port_widths

from sta_hw.reference.requantizer import quantize_factor, requantize
from sta_hw.rtl.engine.requantizer import Requantizer


def simulate(cases: list[tuple[int, int, int, int, int]], expected: list[int], kind: str) -> None:
    """Each result is looked at as it comes."""
    m = Module()
    m.submodules.dut = dut = Requantizer(kind)

    async def bench(ctx) -> None:
        for cycle in range(len(cases) + Requantizer.latency):
            if cycle < len(cases):
                for port, value in zip(
                    (dut.sum, dut.bias, dut.multiplier, dut.shift, dut.wide), cases[cycle], strict=True
                ):
                    ctx.set(port, value)
            if (number := cycle - Requantizer.latency) >= 0:
                assert ctx.get(dut.result) == expected[number], cases[number]
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("kind", ["auto", "lut"])
def test_equal_to_the_reference(kind: str) -> None:
    rng = np.random.default_rng(0)
    ends = (-(2**31), 2**31 - 1, -1, 0, 1)
    cases = [
        (s, b, m, shift, wide)
        for s in ends for b in (*ends[:2], 0) for m in (0, 1, 65535) for shift in (0, 3, 4, 7) for wide in (0, 1)
    ]  # fmt: skip
    for _ in range(2500):
        shift = int(rng.integers(8))
        multiplier = int(rng.integers(1, 65536))
        # Around the limits of saturation and the ties of rounding, where mistakes live.
        limit = int(rng.choice([127, 32767, 1, 0, 128, 126]))
        target = int(limit * 2 ** (12 + 4 * shift) / multiplier) + int(rng.integers(-3, 4))
        total = int(np.clip(target * int(rng.choice([-1, 1])), -(2**31), 2**31 - 1))
        cases.append((total, int(rng.integers(-2, 3)), multiplier, shift, int(rng.integers(2))))
    for _ in range(2500):
        total, bias = rng.integers(-(2**31), 2**31, 2) >> rng.integers(0, 31, 2)
        cases.append((int(total), int(bias), int(rng.integers(65536)), int(rng.integers(8)), int(rng.integers(2))))
    expected = [int(requantize(s, b, m, shift, wide=bool(w))) for s, b, m, shift, w in cases]
    order = rng.permutation(len(cases)).tolist()  # of all kinds from the start
    simulate([cases[i] for i in order], [expected[i] for i in order], kind)


@settings(deadline=None)  # a slow machine is no fault
@given(
    st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 65535), st.integers(0, 7),
    st.booleans(),
)  # fmt: skip
def test_the_reference_is_exact(total: int, bias: int, multiplier: int, shift: int, wide: bool) -> None:
    exact = floor(Fraction((total + bias) * multiplier, 2 ** (12 + 4 * shift)) + Fraction(1, 2))
    limit = 32767 if wide else 127
    assert int(requantize(total, bias, multiplier, shift, wide=wide)) == max(-limit, min(limit, exact))


def test_factors() -> None:
    factors = np.array([1.5, 0.01, 3e-5, 15.9, 0.0, 1e-7])
    multiplier, shift = quantize_factor(factors)
    np.testing.assert_allclose(multiplier / 2.0 ** (12 + 4 * shift), factors, rtol=2**-12, atol=2**-41)
    for wrong in (-0.1, 16.0, np.nan):
        with pytest.raises(ValueError, match="requantization factors"):
            quantize_factor(wrong)


def test_ports() -> None:
    widths = {"sum": 32, "bias": 32, "multiplier": 16, "shift": 3, "wide": 1, "result": 16}
    assert port_widths(Requantizer("auto")) == widths
