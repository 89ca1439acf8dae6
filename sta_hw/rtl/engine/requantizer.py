"""Requantization: a 32-bit sum becomes an 8- or 16-bit result. One per lane, one result per cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..primitives.multiplier import Multiplier

__all__ = ["Requantizer"]

_GUARDED_WIDTH = 17
"""Bits of a 16-bit result and the guard bit below it."""
_COARSE_WIDTH = _GUARDED_WIDTH + 12
"""Bits kept after the coarse shift: the fine shift drops up to 12."""


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

        def delayed(value: Value, cycles: int) -> Value:
            for i in range(cycles):
                stage = Signal(value.shape(), name=f"stage_{i + 1}", reset_less=True)
                m.d.sync += stage.eq(value)
                value = stage
            return value

        biased = Signal(signed(33), reset_less=True)
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
        product = Signal(signed(50), reset_less=True)
        m.d.sync += product.eq((high.p << 16) + low.p)

        # Shift by 11 or 27 (one guard bit stays for rounding), noting what no longer fits.
        shift = delayed(self.shift, 2 + Multiplier.latency)
        coarse = Signal(_COARSE_WIDTH, reset_less=True)
        overflow = Signal(reset_less=True)
        m.d.sync += [
            coarse.eq(Mux(shift[2], product >> 27, product >> 11)),
            overflow.eq(~shift[2] & _differs(product[_COARSE_WIDTH + 10 :])),
        ]
        fine = delayed(shift, 1)
        negative = delayed(product[-1], 1)

        # Shift by another 0, 4, 8 or 12: 16 bits of result and the guard bit are left.
        guarded = Signal(_GUARDED_WIDTH, reset_less=True)
        too_wide = Signal(reset_less=True)
        with m.Switch(fine[:2]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += [
                        guarded.eq(Cat(coarse, negative.replicate(12))[4 * i :][:_GUARDED_WIDTH]),
                        too_wide.eq(overflow | _differs(Cat(coarse[4 * i + _GUARDED_WIDTH - 1 :], negative))),
                    ]
        sign = delayed(negative, 1)

        # Round half up; the two largest magnitudes that fit the bits would round out of range.
        wide = delayed(self.wide, 4 + Multiplier.latency)
        narrow_part = guarded[:8]
        edge = Mux(sign, ~narrow_part.any(), narrow_part.all())
        upper = guarded[8:-1]
        wide_edge = Mux(sign, ~upper.any(), upper.all()) & edge
        saturate = too_wide | Mux(wide, wide_edge, _differs(Cat(upper, sign)) | edge)
        rounded = (guarded[1:].as_signed() + guarded[0])[:16].as_signed()
        limit = Mux(wide, 32767, 127)
        result = Signal(signed(16), reset_less=True)
        m.d.sync += result.eq(Mux(saturate, Mux(sign, -limit, limit), rounded))
        m.d.comb += self.result.eq(result)
        return m


def _differs(bits: Value) -> Value:
    """Condition, one bit: `bits` are not all equal."""
    return bits.any() & ~bits.all()
