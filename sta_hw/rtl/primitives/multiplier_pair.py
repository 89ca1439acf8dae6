"""Two exact products with one multiplier: rows that share a weight, packed into one operand.

``A = a1 * 2**9 + a0``, ``P = A * b = a1 * b * 2**9 + a0 * b``. The low 9 bits of P are those of ``a0 * b``; where the
products overlap, ``a1 * b`` modulo 128 from a small triangle of adders tells them apart. Nine bits for the lower
operand, and not ten, leave no value out: -128..255 each, so that A fits 18 bits.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .multiplier import Multiplier

__all__ = ["MultiplierPair"]

_SHIFT = 9
_OVERLAP = 7
_PRODUCT = 16


class MultiplierPair(wiring.Component):
    """``p0 = a0 * b`` and ``p1 = a1 * b``, 5 cycles later, one pair per cycle.

    Parameters
    ----------
    kind : str
        Of the one multiplier inside (18 x 8 bits), as `Multiplier` has it.

    Members
    -------
    a0, a1 : In(signed(9))
        -128..255; the nine bits' other values are not exact.
    b : In(signed(8))
    p0, p1 : Out(signed(16))
    """

    latency = 5

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(
            {
                "a0": In(signed(9)), "a1": In(signed(9)), "b": In(signed(8)),
                "p0": Out(signed(_PRODUCT)), "p1": Out(signed(_PRODUCT)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Cycle 1: both operands in one. A negative a0 borrows from a1.
        upper = Signal(signed(9), reset_less=True)
        lower, low_a1 = Signal(_SHIFT, reset_less=True), Signal(_OVERLAP, reset_less=True)
        b = Signal(signed(8), reset_less=True)
        m.d.sync += [
            upper.eq(self.a1 - Mux(self.a0[-1], 1, 0)),
            lower.eq(self.a0),
            low_a1.eq(self.a1),
            b.eq(self.b),
        ]
        # Cycles 2 and 3: the product, and a1 * b modulo 128.
        multiplier = m.submodules.multiplier = Multiplier(18, 8, self.kind)
        m.d.comb += [multiplier.a.eq(Cat(lower, upper).as_signed()), multiplier.b.eq(b)]
        partial = []
        for bit in range(0, _OVERLAP, 2):
            width = _OVERLAP - bit
            sum_of_two = Signal(width, name=f"partial_{bit}", reset_less=True)
            even = Mux(b[bit], low_a1[:width], 0)
            odd = Mux(b[bit + 1], low_a1[: width - 1], 0) if width > 1 else 0
            m.d.sync += sum_of_two.eq(even + (odd << 1))
            partial.append(sum_of_two << bit)
        triangle = Signal(_OVERLAP, reset_less=True)
        m.d.sync += triangle.eq(sum(partial[1:], partial[0]))
        # Cycle 4: a0 * b is known.
        p = multiplier.p
        difference = Signal(_OVERLAP + 1, reset_less=True)  # with its borrow
        low = Signal(_SHIFT, reset_less=True)
        top = Signal(_PRODUCT - _OVERLAP, reset_less=True)
        triangle_late = Signal(_OVERLAP, reset_less=True)
        m.d.sync += [
            low.eq(p),
            difference.eq(p[_SHIFT : _SHIFT + _OVERLAP] - triangle),
            top.eq(p[_SHIFT + _OVERLAP :]),
            triangle_late.eq(triangle),
        ]
        # Cycle 5: what a0 * b added to the upper part is taken off.
        negative, borrow = difference[_OVERLAP - 1], difference[_OVERLAP]
        products = [Signal(signed(_PRODUCT), name=f"product_{i}", reset_less=True) for i in range(2)]
        m.d.sync += [
            products[0].eq(Cat(low, difference[:_OVERLAP]).as_signed()),
            products[1].eq(Cat(triangle_late, (top + negative - borrow)[: _PRODUCT - _OVERLAP]).as_signed()),
        ]
        m.d.comb += [self.p0.eq(products[0]), self.p1.eq(products[1])]
        return m
