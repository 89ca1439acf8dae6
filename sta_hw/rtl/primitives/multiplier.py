"""Signed multipliers with an input and an output register: latency 2 cycles, one product per cycle."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier"]

_PRIMITIVES = {"dsp": "MULT18X18D", "nexus": "MULT18X18", "gowin": "MULT18X18"}
"""The widest primitive of each kind that has one."""
_GOWIN_REGISTERS = ("AREG", "BREG", "OUT_REG", "PIPE_REG", "ASIGN_REG", "BSIGN_REG", "SOA_REG")


class Multiplier(wiring.Component):
    """``p = a * b``, two's complement, 2 cycles later.

    Parameters
    ----------
    a_width, b_width : int
        Operand widths in bits, signs included; at most 18 each for a primitive.
    kind : str
        ``auto``: the ``*`` operator between registers, which every tool maps as it sees fit.
        ``dsp``: an ECP5 MULT18X18D with its own input and output registers (Yosys infers the
        primitive but leaves those registers in the fabric).
        ``nexus``, ``gowin``: the same of Lattice Nexus (CrossLink-NX, Certus-NX) and of Gowin's GW1N and GW2A, which
        call theirs alike: a MULT9X9 where both operands have at most 9 bits, else a MULT18X18.
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
        if kind in _PRIMITIVES and max(a_width, b_width) > 18:
            raise ValueError(f"{_PRIMITIVES[kind]} operands have at most 18 bits, not {max(a_width, b_width)}")
        self.kind = kind
        self.a_width, self.b_width = a_width, b_width
        super().__init__({"a": In(signed(a_width)), "b": In(signed(b_width)), "p": Out(signed(a_width + b_width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.kind == "dsp":
            self._ecp5(m)
            return m
        if self.kind in _PRIMITIVES:
            self._narrow_or_wide(m)
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

    def _ecp5(self, m: Module) -> None:
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

    def _narrow_or_wide(self, m: Module) -> None:
        """A MULT9X9 or MULT18X18, with registers before and behind that nothing stops or clears."""
        width = 9 if max(self.a_width, self.b_width) <= 9 else 18
        a, b, p = Signal(signed(width)), Signal(signed(width)), Signal(signed(2 * width))
        m.d.comb += [a.eq(self.a), b.eq(self.b), self.p.eq(p)]
        if self.kind == "nexus":
            settings: dict[str, object] = {f"p_REG{port}": "REGISTER" for port in ("INPUTA", "INPUTB", "OUTPUT")}
            settings |= {"p_GSR": "DISABLED", "p_RESETMODE": "SYNC", "o_Z": p}
            ones: tuple[str, ...] = ("SIGNEDA", "SIGNEDB", "CEA", "CEB", "CEOUT")
            zeros = {"RSTA": 1, "RSTB": 1, "RSTOUT": 1}
        else:
            settings = {f"p_{name}": Const(name in ("AREG", "BREG", "OUT_REG"), 1) for name in _GOWIN_REGISTERS}
            settings |= {"p_MULT_RESET_MODE": "SYNC", "o_DOUT": p}
            ones = ("ASIGN", "BSIGN", "CE")
            zeros = {"ASEL": 1, "BSEL": 1, "RESET": 1, "SIA": width, "SIB": width}
        m.submodules.mult = Instance(
            f"MULT{width}X{width}",
            **settings,
            i_A=a,
            i_B=b,
            i_CLK=ClockSignal(),
            **{f"i_{name}": Const(1) for name in ones},
            **{f"i_{name}": Const(0, bits) for name, bits in zeros.items()},
        )
