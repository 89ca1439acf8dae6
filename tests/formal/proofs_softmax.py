"""The softmax: rounding that keeps a row's sum, and exponents that no logit is above."""

from __future__ import annotations

from amaranth.hdl import Mux, Value, signed
from amaranth.lib import data

from sim.formal import Bench, Edit, Proof, Property
from sta_hw.spec.config import Config

BLOCK = "units/softmax.py"
LANES = 2
LEVELS = (LANES - 1).bit_length()
CONFIG = Config(
    rows=4, groups=2, lanes=2, window=4, nm=("dense",), columns=8, weight_words=8, parameter_words=8, norm_columns=8,
    softmax_lanes=LANES, softmax_block=4,
)  # fmt: skip
FINE, ROUNDED = 3, 3 + LEVELS + 2
"""Stages behind a beat's start at which its exponentials are known exactly, and rounded."""


def edit(old: str, new: str) -> Edit:
    return Edit("sta_hw.rtl.units.softmax", old, new)


def rounding(bench: Bench) -> None:
    m = bench.m
    dut = bench.load("units.softmax").Softmax(CONFIG)
    inside = bench.block(dut)
    side = inside[f"side_{ROUNDED}"]
    valid, row_first = side[0], side[6]  # behind last, wide and gain
    exact: Value = Value.cast(0)
    given: Value = Value.cast(0)
    for i in range(LANES):
        exact = exact + bench.past(inside[f"fine_{i}"], ROUNDED - FINE)
        given = given + inside[f"probability_{i}"]
    # The row's rounded sum less the exact one, in units of 2^-16.
    error = bench.register(signed(22), "error")
    with m.If(valid):
        m.d.sync += error.eq(Mux(row_first, 0, error) + (given << 16) - exact)
    begun = bench.register(1, "begun")
    with m.If(valid & row_first):
        m.d.sync += begun.eq(1)
    late = bench.past(inside["carry"], 2)
    bench.lemma(~begun | (error == (1 << 15) - late))
    bench.holds("half-a-unit", ~begun | ((error <= 1 << 15) & (error > -(1 << 15))))
    bench.reaches("rounded-up", begun & (error == 1 << 15))
    bench.reaches("rounded-down", begun & (error < -30000))


def exponents(bench: Bench) -> None:
    module = bench.load("units.softmax")
    dut = module.Softmax(CONFIG)
    inside = bench.block(dut)
    waits = bench.past(dut.logits.valid & ~dut.logits.ready)
    payload = Value.cast(dut.logits.payload)
    bench.assume(~waits | (dut.logits.valid & (payload == bench.past(payload))))
    layout = {
        "valid": 1, "beat": module.logits_layout(CONFIG), "exponent": module._EXPONENT_BITS, "rescale": 6, "row_first": 1
    }  # fmt: skip
    started = data.View(data.StructLayout(layout), inside["started"])
    above: Value = Value.cast(0)
    for i in range(LANES):
        above |= started.valid & started.beat.mask[i] & (inside[f"gap_{i}"] < 0)
    bench.holds("below-its-exponent", ~above)
    bench.reaches("second-block", started.valid & ~started.row_first & (started.rescale == 3))


PROOFS = (
    Proof(
        "softmax-rounding", BLOCK, rounding, 9, {
            "half-a-unit": Property(
                "From a row's begin to any beat of it, the sum of the rounded probabilities is within half a unit of that of the exact ones.",
                edit("start.eq(Mux(at.row_first, 1 << 15, carry))", "start.eq(1 << 15)"),
            ),
        }, setting=f"{LANES} lanes, blocks of 4", reach_depth=24,
    ),
    Proof(
        "softmax-exponents", BLOCK, exponents, 10, {
            "below-its-exponent": Property(
                "No logit that counts is at or above 2^exponent of its block, so that no probability exceeds its bits.",
                edit("Mux(pair[0] > pair[-1], pair[0], pair[-1])", "pair[0]"),
            ),
        }, method="bounded", bound="any logits and masks; the first two blocks of a row",
        setting=f"{LANES} lanes, blocks of 4", reach_depth=20,
    ),
)  # fmt: skip
