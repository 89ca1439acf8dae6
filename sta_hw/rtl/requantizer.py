"""Requantization: a 32-bit sum becomes an 8- or 16-bit result. One per lane, one result per cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .multiplier import Multiplier

__all__ = ["Requantizer"]

_COARSE_WIDTH = 30
"""Bits kept after the coarse shift: enough that what saturates there saturates at the end too."""


class Requantizer(wiring.Component):
    """``saturate((sum + bias) * multiplier / 2 ** (12 + 4 * shift))``, rounded half up.

    Saturation is symmetric: to -127..127, or -32767..32767 when `wide`. It never stalls.

    Members
    -------
    sum : In(signed(32)); bias : In(signed(32)); multiplier : In(16); shift : In(3); wide : In(1)
        `sum` and `bias` enter together; the others belong to the same result.
    result : Out(signed(16))
        `latency` cycles later.
    """

    latency = 1 + Multiplier.latency + 4

    def __init__(self, multiplier_kind: str) -> None:
        self.kind = multiplier_kind
        super().__init__(
            {
                "sum": In(signed(32)),
                "bias": In(signed(32)),
                "multiplier": In(unsigned(16)),
                "shift": In(unsigned(3)),
                "wide": In(1),
                "result": Out(signed(16)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def delayed(value: Signal, cycles: int) -> Signal:
            for i in range(cycles):
                stage = Signal.like(value, name=f"{value.name}_{i + 1}")
                m.d.sync += stage.eq(value)
                value = stage
            return value

        biased = Signal(signed(33))
        m.d.sync += biased.eq(self.sum + self.bias)
        factor = delayed(self.multiplier, 1)

        # 33 x 16 bits from two multipliers of at most 18 x 18.
        low = m.submodules.low = Multiplier(17, 17, self.kind)
        high = m.submodules.high = Multiplier(17, 17, self.kind)
        m.d.comb += [
            low.a.eq(biased[:16]),
            low.b.eq(factor),
            high.a.eq(biased[16:].as_signed()),
            high.b.eq(factor),
        ]
        product = Signal(signed(50))
        m.d.sync += product.eq((high.p << 16) + low.p)
        shift = delayed(self.shift, 2 + Multiplier.latency)

        # Shift by 11 or 27 (one guard bit stays for rounding), saturating to what can still matter.
        shifted = Signal(signed(39))
        coarse = Signal(signed(_COARSE_WIDTH))
        m.d.comb += shifted.eq(Mux(shift[2], product >> 27, product >> 11))
        m.d.sync += coarse.eq(_saturated(shifted, _COARSE_WIDTH))
        fine = delayed(shift, 1)

        # Shift by another 0, 4, 8 or 12: 18 bits hold a saturated 16-bit result and its guard bit.
        guarded = Signal(signed(18))
        with m.Switch(fine[:2]):
            for i in range(4):
                with m.Case(i):
                    narrowed = (coarse >> (4 * i))[: _COARSE_WIDTH - 4 * i].as_signed()
                    m.d.sync += guarded.eq(_saturated(narrowed, 18))

        wide = delayed(self.wide, 4 + Multiplier.latency)
        rounded = Signal(signed(18))
        limit = Signal(signed(17))
        m.d.comb += [
            rounded.eq((guarded + 1) >> 1),
            limit.eq(Mux(wide, 32767, 127)),
        ]
        m.d.sync += self.result.eq(Mux(rounded > limit, limit, Mux(rounded < -limit, -limit, rounded)))
        return m


def _saturated(value: Signal, width: int):
    """`value` clipped to `width` signed bits."""
    if len(value) <= width:
        return value
    sign = value[-1]
    fits = (value[width - 1 :] == 0) | value[width - 1 :].all()
    clipped = Mux(sign, -(1 << (width - 1)), (1 << (width - 1)) - 1)
    return Mux(fits, value[:width].as_signed(), clipped)
