"""Signed multipliers with an input and an output register: latency 2 cycles, one product per cycle."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier"]


class Multiplier(wiring.Component):
    """``p = a * b``, two's complement, 2 cycles later.

    Parameters
    ----------
    a_width, b_width : int
        Operand widths in bits, signs included; at most 18 each for ``dsp``.
    kind : str
        ``auto``: the ``*`` operator between registers, which every tool maps as it sees fit.
        ``dsp``: an ECP5 MULT18X18D with its own input and output registers (Yosys infers the
        primitive but leaves those registers in the fabric).
        ``lut``: partial products in two adder stages, which no tool turns into a hard multiplier.

    Members
    -------
    a : In(signed(a_width))
    b : In(signed(b_width))
    p : Out(signed(a_width + b_width))

    Raises
    ------
    ValueError
        If an operand is wider than the primitive.
    """

    latency = 2

    def __init__(self, a_width: int, b_width: int, kind: str) -> None:
        if kind == "dsp" and max(a_width, b_width) > 18:
            raise ValueError(f"MULT18X18D operands have at most 18 bits, not {max(a_width, b_width)}")
        self.kind = kind
        self.a_width, self.b_width = a_width, b_width
        super().__init__({"a": In(signed(a_width)), "b": In(signed(b_width)), "p": Out(signed(a_width + b_width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.kind == "dsp":
            self._primitive(m)
            return m
        a = Signal(signed(self.a_width), reset_less=True)
        b = Signal(signed(self.b_width), reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b)]
        product = Signal(signed(self.a_width + self.b_width), reset_less=True)
        m.d.comb += self.p.eq(product)
        m.d.sync += product.eq(a * b if self.kind == "auto" else self._adders(a, b))
        return m

    def _adders(self, a: Signal, b: Signal) -> Value:
        """The sum of the shifted multiplicand over the bits of b; the sign bit counts negative."""
        width = self.a_width + self.b_width
        terms = [Mux(b[i], a << i, 0) for i in range(self.b_width - 1)]
        terms.append(Mux(b[self.b_width - 1], -(a << (self.b_width - 1)), 0))
        while len(terms) > 1:
            pairs = [terms[i] + terms[i + 1] for i in range(0, len(terms) - 1, 2)]
            terms = pairs + ([terms[-1]] if len(terms) % 2 else [])
        return terms[0][:width].as_signed()

    def _primitive(self, m: Module) -> None:
        a = Signal(signed(18))
        b = Signal(signed(18))
        p = Signal(signed(36))
        m.d.comb += [a.eq(self.a), b.eq(self.b), self.p.eq(p)]
        registers: dict[str, str] = {}
        for port in ("INPUTA", "INPUTB", "OUTPUT"):
            registers |= {f"p_REG_{port}_CLK": "CLK0", f"p_REG_{port}_CE": "CE0", f"p_REG_{port}_RST": "RST0"}
        m.submodules.mult = Instance(
            "MULT18X18D",
            **registers,
            p_REG_PIPELINE_CLK="NONE",
            p_GSR="DISABLED",
            p_RESETMODE="SYNC",
            **{f"i_A{i}": a[i] for i in range(18)},
            **{f"i_B{i}": b[i] for i in range(18)},
            **{f"o_P{i}": p[i] for i in range(36)},
            i_SIGNEDA=Const(1),
            i_SIGNEDB=Const(1),
            i_SOURCEA=Const(0),
            i_SOURCEB=Const(0),
            i_CLK0=ClockSignal(),
            i_CE0=Const(1),
            i_RST0=Const(0),
        )
