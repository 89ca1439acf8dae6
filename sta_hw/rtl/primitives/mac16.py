"""Two exact products in one iCE40 SB_MAC16: rows that share a weight, side by side."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Mac16Pair"]


class Mac16Pair(wiring.Component):
    """``p0 = a0 * b`` and ``p1 = a1 * b``, 3 cycles later, one pair per cycle.

    The primitive's two 8 x 8 multipliers take the low 8 bits of a0 and a1 as unsigned; the sign costs one
    subtraction of b, 2**8 up.

    Members
    -------
    a0, a1 : In(signed(9))
    b : In(signed(8))
    p0, p1 : Out(signed(16))
        Exact where the product fits 16 bits: for -128..255.
    """

    latency = 3

    def __init__(self) -> None:
        super().__init__(
            {"a0": In(signed(9)), "a1": In(signed(9)), "b": In(signed(8)), "p0": Out(signed(16)), "p1": Out(signed(16))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = Signal(32)
        zeros = (
            "C", "D", "AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT", "OLOADTOP",
            "OLOADBOT", "ADDSUBTOP", "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT", "CI", "ACCUMCI", "SIGNEXTIN",
        )  # fmt: skip
        m.submodules.mac = Instance(
            "SB_MAC16",
            p_NEG_TRIGGER=Const(0, 1), p_A_REG=Const(1, 1), p_B_REG=Const(1, 1), p_C_REG=Const(0, 1),
            p_D_REG=Const(0, 1), p_TOP_8x8_MULT_REG=Const(1, 1), p_BOT_8x8_MULT_REG=Const(1, 1),
            p_PIPELINE_16x16_MULT_REG1=Const(0, 1), p_PIPELINE_16x16_MULT_REG2=Const(0, 1),
            p_TOPOUTPUT_SELECT=Const(2, 2), p_TOPADDSUB_LOWERINPUT=Const(0, 2), p_TOPADDSUB_UPPERINPUT=Const(0, 1),
            p_TOPADDSUB_CARRYSELECT=Const(0, 2), p_BOTOUTPUT_SELECT=Const(2, 2), p_BOTADDSUB_LOWERINPUT=Const(0, 2),
            p_BOTADDSUB_UPPERINPUT=Const(0, 1), p_BOTADDSUB_CARRYSELECT=Const(0, 2), p_MODE_8x8=Const(1, 1),
            p_A_SIGNED=Const(0, 1), p_B_SIGNED=Const(1, 1),
            i_CLK=ClockSignal(), i_CE=Const(1, 1), i_A=Cat(self.a0[:8], self.a1[:8]), i_B=Cat(self.b, self.b),
            **{f"i_{name}": Const(0, 16 if name in "CD" else 1) for name in zeros},
            o_O=products,
        )  # fmt: skip
        signs = Cat(self.a0[8], self.a1[8])
        b = self.b
        for cycle in range(2):
            signs_late = Signal(2, name=f"signs_{cycle}", reset_less=True)
            b_late = Signal(8, name=f"b_{cycle}", reset_less=True)
            m.d.sync += [signs_late.eq(signs), b_late.eq(b)]
            signs, b = signs_late, b_late
        for i, p in enumerate((self.p0, self.p1)):
            product = products[16 * i :][:16]
            corrected = Signal(signed(16), name=f"product_{i}", reset_less=True)
            m.d.sync += corrected.eq(Cat(product[:8], product[8:] - Mux(signs[i], b, 0)).as_signed())
            m.d.comb += p.eq(corrected)
        return m
