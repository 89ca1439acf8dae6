"""Multipliers and the requantizer, on all operands, against what they are in numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.formal import Bench, Edit, Proof, Property

PRIMITIVES = Path(__file__).parent.parent.parent / "sim" / "primitives.v"
PAIR, MAC16 = "primitives/multiplier_pair.py", "primitives/mac16.py"
MULTIPLIER, REQUANTIZER = "primitives/multiplier.py", "engine/requantizer.py"


def edit(module: str, old: str, new: str) -> Edit:
    return Edit(f"sta_hw.rtl.{module[:-3].replace('/', '.')}", old, new)


class Product(wiring.Component):
    """In a multiplier's place: its operands are looked at, its product is the bench's to say."""

    latency = 2
    made: ClassVar[list[Product]] = []
    """Those of the block that was made last."""

    def __init__(self, a_width: int, b_width: int, kind: str) -> None:
        super().__init__({"a": In(signed(a_width)), "b": In(signed(b_width)), "p": Out(signed(a_width + b_width))})
        self.made.append(self)

    def elaborate(self, platform: object) -> Module:
        return Module()


def with_products(bench: Bench, module: str, make: Callable[[Any], Any]) -> tuple[Any, list[Product]]:
    """A block, whose multipliers' products are free, and they."""
    Product.made.clear()
    loaded = bench.load(module, Multiplier=Product)
    dut = make(loaded)
    bench.block(dut)
    for i, product in enumerate(Product.made):
        bench.m.d.comb += product.p.eq(bench.free(product.p.shape(), f"product_{i}"))
    return dut, list(Product.made)


def shared_multiplier(bench: Bench) -> None:
    """By the distributive law (a1 * 512 + a0) * b is x1 * 512 + x0, with x0 = a0 * b and x1 = a1 * b."""
    dut, (multiplier,) = with_products(bench, "primitives.multiplier_pair", lambda m: m.MultiplierPair("auto"))
    for operand in (dut.a0, dut.a1):
        bench.assume(operand >= -128)
    late_a0, late_a1 = bench.past(dut.a0), bench.past(dut.a1)
    bench.holds("operands", (multiplier.a == late_a1 * 512 + late_a0) & (multiplier.b == bench.past(dut.b)))
    # Any two products of that size, of which the second has the low bits that a1 * b has.
    exact = [bench.free(signed(16), f"exact_{i}") for i in range(2)]
    low = (dut.a1[:7] * dut.b[:7])[:7]
    bench.assume(exact[1][:7] == low)
    for x in exact:
        bench.assume((x >= -32640) & (x <= 32385))
    summed = Signal(signed(26))
    bench.m.d.comb += summed.eq(bench.past(exact[1], 3) * 512 + bench.past(exact[0], 3))
    bench.assume(multiplier.p == summed)
    for i in range(2):
        bench.holds(f"p{i}", getattr(dut, f"p{i}") == bench.past(exact[i], 5))
    bench.reaches("ends", (dut.p0 == -32640) & (dut.p1 == 16384))


def requantizer(bench: Bench) -> None:
    """By the distributive law (high * 2^16 + low) * factor is the sum of the two multipliers' products, shifted."""
    dut, (low, high) = with_products(bench, "engine.requantizer", lambda m: m.Requantizer("auto"))
    factor = bench.past(dut.multiplier)
    biased = bench.past(dut.sum + dut.bias)
    operands = ((high.a << 16) + low.a == biased) & (low.a >= 0) & (low.b == factor) & (high.b == factor)
    bench.holds("operands", operands)
    # Any two products of that size, two cycles behind the operands.
    most = 65535 * 65535
    bench.assume((low.p >= 0) & (low.p <= most) & (high.p >= -65536 * 65535) & (high.p <= most))
    exact = Signal(signed(52))
    bench.m.d.comb += exact.eq((high.p << 16) + low.p)
    late = bench.past(exact, dut.latency - 3)
    shift, wide = bench.past(dut.shift, dut.latency), bench.past(dut.wide, dut.latency)
    rounded: Value = Value.cast(0)
    for i in range(8):
        places = 12 + 4 * i
        rounded = Mux(shift == i, (late + (1 << (places - 1))) >> places, rounded)
    most_result = Mux(wide, 32767, 127)
    expected = Mux(rounded > most_result, most_result, Mux(rounded < -most_result, -most_result, rounded))
    begun = bench.begun(dut.latency)
    bench.holds("result", ~begun | (dut.result == expected))
    bench.reaches("saturated", begun & (dut.result == -32767))
    bench.reaches("rounded-up", begun & (dut.result == 1) & ((late >> 12) == 0))


def beside(bench: Bench) -> None:
    dut = bench.load("primitives.mac16").Mac16Pair()
    bench.block(dut)
    begun = bench.begun(dut.latency)
    for i in range(2):
        operand = getattr(dut, f"a{i}")
        bench.assume(operand >= -128)
        late = bench.past(operand, dut.latency) * bench.past(dut.b, dut.latency)
        # -128..255 times -128..127 fits 16 bits.
        bench.holds(f"p{i}", ~begun | (getattr(dut, f"p{i}") == late[:16].as_signed()))
    bench.reaches("ends", (dut.p0 == -32640) & (dut.p1 == 16384))


def single(a_width: int, b_width: int, kind: str) -> Callable[[Bench], None]:
    def fill(bench: Bench) -> None:
        dut = bench.load("primitives.multiplier").Multiplier(a_width, b_width, kind)
        bench.block(dut)
        product = bench.past(dut.a, 2) * bench.past(dut.b, 2)
        begun = bench.begun(2)
        bench.holds("product", ~begun | (dut.p == product))
        bench.reaches("ends", dut.p == 1 << (a_width + b_width - 2))

    return fill


EXACT = "The product is exact, 2 cycles behind its operands, for all of them."
PIPELINE = "all operands; nothing is kept for longer than the pipeline is"

PROOFS = (
    Proof(
        "multiplier-pair", PAIR, shared_multiplier, 7, {
            "operands": Property(
                "The one multiplier is given a1 * 512 + a0 and b, for all of -128..255 and -128..127.",
                edit(PAIR, "Mux(self.a0[-1], 1, 0)", "0"),
            ),
            "p0": Property(
                "With that product of theirs a0 * b comes out exactly, 5 cycles behind its operands.",
                edit(PAIR, "low.eq(p)", "low.eq(p + 1)"),
            ),
            "p1": Property(
                "So does a1 * b, whatever a0 * b is.", edit(PAIR, "(top + negative - borrow)", "(top - borrow)")
            ),
        }, setting="all operands", quick="prove",
    ),
    Proof(
        "mac16-pair", MAC16, beside, 5, {
            "p0": Property(
                "The first product is exact, 3 cycles behind its operands, for all of -128..255 and -128..127.",
                edit(MAC16, "Mux(signs[i], b, 0)", "Mux(signs[i], b, 1)"),
            ),
            "p1": Property(
                "So is the second, whatever the first one is.", edit(MAC16, "Mux(signs[i], b, 0)", "Mux(signs[0], b, 0)")
            ),
        }, setting="all operands; the primitive as in sim/primitives.v", sources=(PRIMITIVES,), method="bounded",
        bound=PIPELINE,
    ),
    Proof(
        "multiplier-lut", MULTIPLIER, single(9, 8, "lut"), 4, {
            "product": Property(EXACT, edit(MULTIPLIER, "-(a << (self.b_width - 1)), 0", "(a << (self.b_width - 1)), 0")),
        }, setting="9 x 8 bits of adders, as in the array", method="bounded", bound=PIPELINE,
    ),
    Proof(
        "multiplier-dsp", MULTIPLIER, single(18, 18, "dsp"), 4, {
            "product": Property(EXACT, edit(MULTIPLIER, "i_SIGNEDB=Const(1)", "i_SIGNEDB=Const(0)")),
        }, setting="18 x 18 bits; the primitive as in sim/primitives.v", sources=(PRIMITIVES,), method="bounded",
        bound=PIPELINE,
    ),
    Proof(
        "requantizer", REQUANTIZER, requantizer, 9, {
            "operands": Property(
                "The two multipliers are given the upper and the lower part of sum + bias and the multiplier.",
                edit(REQUANTIZER, "biased[16:].as_signed()", "biased[16:32].as_signed()"),
            ),
            "result": Property(
                "With their products p the result is p / 2^(12 + 4 shift), rounded half up, saturated symmetrically, "
                "for every product, shift and width.",
                edit(REQUANTIZER, "wide_edge = Mux(sign, ~upper.any(), upper.all()) & edge", "wide_edge = ~edge & edge"),
            ),
        }, setting="all operands", quick="prove",
    ),
)  # fmt: skip
