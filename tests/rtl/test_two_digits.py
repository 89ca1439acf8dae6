"""Products of 15-bit activations on the whole accelerator: two digits over the same weights, RTL against the reference
byte for byte, and the reference against the product of the activations themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.accelerator import AcceleratorModel
from sta_hw.reference.program import run_counted
from sta_hw.reference.requantizer import requantize
from sta_hw.spec.isa import (
    Digit,
    Instruction,
    Opcode,
    Result,
    Target,
)  # fmt: skip
from sta_hw.spec.presets import PRESETS
from tests.rtl.illegal import check_illegal
from tests.rtl.test_decoder_features import CONFIGS, Program, check

ALONE = dataclasses.replace(CONFIGS["4x2"], features=("digits",), window_words=1024)


@pytest.fixture(scope="module", params=[*CONFIGS, pytest.param("alone", marks=pytest.mark.slow)])
def hardware(request: pytest.FixtureRequest) -> AcceleratorModel:
    """Built once; with all features, and with this one alone and windows kept from high digits to low ones."""
    return AcceleratorModel(CONFIGS.get(request.param, ALONE))


def activations(program: Program, positions: int) -> NDArray[np.int16]:
    """Windows in 16 bits, shape (positions, rows): of every size, the ends among them, and more than 15 bits."""
    rng, rows = program.rng, program.config.rows
    values = rng.integers(-32768, 32768, (positions, rows)) >> rng.integers(0, 16, (positions, rows))
    ends = [-32768, -16385, -16384, -16383, -129, -128, -127, -1, 0, 1, 126, 127, 128, 16382, 16383, 16384, 32767]
    return np.where(rng.integers(0, 3, values.shape) == 0, rng.choice(ends, values.shape), values).astype("<i2")


def two_digits(
    program: Program, *, columns: int, passes: int, depth: int, parts: int = 1, **fields: int
) -> NDArray[np.int32]:
    """A product of 15-bit windows, of which each part is as many positions, over the same weights; its sums.

    All high digits go first, then the low ones; what is kept in between counts 128 times once.
    """
    cfg = program.config
    x = [activations(program, passes * cfg.groups * depth) for _ in range(parts)]
    weights = program.weights(columns, passes, depth)
    places = [program.put(part) for part in x]
    fields = {"parameters_step": 1, **fields}
    for digit in (Digit.HIGH, Digit.LOW):
        for number, place in enumerate(places):
            low = digit == Digit.LOW
            last = low and number == parts - 1
            keeps = "kept" if low else "keep"  # 16 bits, of which the second product takes the other digit
            program.add(
                Opcode.PRODUCT, **weights, digit=int(digit), window_address=place,
                window_beats=x[0].nbytes // cfg.bus_bytes, continues=int(low or number > 0), unfinished=int(not last),
                lift=int(low and number == 0), **(fields if last else {}),
                **({keeps: 1} if cfg.window_words and parts == 1 else {}),
            )  # fmt: skip
    # Weights as they lie in memory: value word w of column c and pass p, position w of group g.
    load = next(i for i in reversed(program.instructions) if i.opcode == Opcode.LOAD and not i["target"])
    raw = program.image()[0][load["address"] :][: columns * passes * depth * cfg.groups].view(np.int8)
    words = raw.reshape(passes, columns, depth, cfg.groups).transpose(1, 0, 3, 2).reshape(columns, -1).astype(np.int64)
    taken = [(part.astype(np.int64) + (1 << 14)) % (1 << 15) - (1 << 14) for part in x]
    return (words @ np.sum(taken, axis=0)).astype(np.int32)


def with_parameters(program: Program, columns: int, size: int, *, wide: bool) -> tuple[NDArray, ...]:
    """Columns' parameters, loaded; bias, multiplier and shift."""
    address = program.parameters(columns, size, wide=wide)
    program.load(Target.PARAMETERS, address, 16 * columns)
    raw = program.image()[0][address : address + 16 * columns].reshape(columns, 16)
    return (
        raw[:, :4].copy().view("<i4")[:, 0].astype(np.int64), raw[:, 4:6].copy().view("<u2")[:, 0].astype(np.int64),
        raw[:, 6].astype(np.int64) & 7,
    )  # fmt: skip


@pytest.mark.parametrize(("columns", "passes", "depth", "parts"), [
    (1, 1, 1, 1), (3, 2, 2, 1), (16, 3, 4, 1), (6, 1, 3, 2), (4, 2, 4, 3),
])  # fmt: skip
def test_products(hardware: AcceleratorModel, columns: int, passes: int, depth: int, parts: int) -> None:
    """In 16 bits and 8: what the activations times the weights are, requantized."""
    cfg = hardware.config
    program = Program(cfg, columns)
    for result in (Result.STORE16, Result.STORE8):
        wide = result == Result.STORE16
        where = program.noise(2 * columns * cfg.rows)
        bias, multiplier, shift = with_parameters(program, columns, 1 << 23, wide=wide)
        sums = two_digits(
            program, columns=columns, passes=passes, depth=depth, parts=parts, result=int(result), wide=int(wide),
            result_address=where,
        )  # fmt: skip
        after = run_counted(*program.image(), cfg).image
        found = after[where:].view("<i2" if wide else np.int8)[: sums.size].reshape(columns, cfg.rows)
        np.testing.assert_array_equal(
            found, requantize(sums, bias[:, None], multiplier[:, None], shift[:, None], wide=wide)
        )
        # A single column's bias may be larger than all of its sums.
        assert columns == 1 or len(np.unique(found)) > 2
    check(hardware, program)


def test_beside_other_products(hardware: AcceleratorModel) -> None:
    """Windows of bytes and of digits by turns, a single digit, results of every kind, through the table to 16 bits."""
    cfg = hardware.config
    program = Program(cfg, 7)
    columns = 2 * cfg.groups
    size = 4 * columns * cfg.rows
    program.load(Target.TABLE, program.noise(512), 512)
    kinds: list[dict[str, int]] = [
        {"result": int(Result.ACTIVATE), "bits15": 1}, {"result": int(Result.TRANSPOSE)},
        {"result": int(Result.RESIDUAL), "wide": 1}, {"result": int(Result.ACTIVATE)},
    ]  # fmt: skip
    if "gate" in cfg.features:
        kinds += [{"result": int(r), "wide": 1, "multiply": 1} for r in (Result.STORE16, Result.ACTIVATE)]
        kinds += [{"result": int(Result.STORE8), "wide": 1, "rotate": 1}]
    kinds += [{"result": int(Result.STORE16), "wide": 1, "bits15": 1, **more} for more in ({}, {"multiply": 1})
              if not more or "gate" in cfg.features]  # fmt: skip
    for number, kind in enumerate(kinds):
        places = {"residual_address": program.noise(size), "result_address": program.noise(size)}
        with_parameters(program, columns, 1 << 22, wide=bool(kind.get("wide")))
        two_digits(program, columns=columns, passes=1 + number % 2, depth=2, **places, **kind)
        program.product(columns=columns, depth=3, result_address=program.noise(size), bits15=number % 2,
                        result=int(Result.ACTIVATE))  # fmt: skip
        x = activations(program, 2 * cfg.groups)
        program.product(
            columns=columns, depth=2, digit=1 + number % 2, result=int(Result.STORE16), wide=1,
            window_address=program.put(x), window_beats=x.nbytes // cfg.bus_bytes, result_address=program.noise(size),
        )  # fmt: skip
    check(hardware, program)


def test_sums_wrap(hardware: AcceleratorModel) -> None:
    """Sums that a compiler would refuse: modulo 2^32, in RTL as in the reference."""
    cfg = hardware.config
    program = Program(cfg, 5)
    columns = 2
    x = np.full((cfg.groups * cfg.window * 8, cfg.rows), 16383, "<i2")
    place = program.put(x)
    weights = program.weights(columns, 8, cfg.window)
    program.load(Target.VALUES, program.put(np.full(columns * 8 * cfg.window * cfg.groups, 127, np.int8)),
                 columns * 8 * cfg.window * cfg.groups)  # fmt: skip
    where = program.noise(2 * columns * cfg.rows)
    with_parameters(program, columns, 1 << 30, wide=True)
    windows = {"window_address": place, "window_beats": x.nbytes // cfg.bus_bytes}
    program.add(Opcode.PRODUCT, **weights, **windows, digit=1, unfinished=1)
    for lift in range(3):  # 128 times again and again
        program.add(Opcode.PRODUCT, **weights, **windows, digit=2, unfinished=int(lift < 2), continues=1, lift=1,
                    parameters_step=1, result=1, wide=1, result_address=where)  # fmt: skip
    check(hardware, program)


def test_what_does_not_go_together_is_refused(hardware: AcceleratorModel) -> None:
    """By hardware and reference with OPCODE, at its number."""
    cases = [
        (Opcode.PRODUCT, {"digit": 3}), (Opcode.PRODUCT, {"lift": 1}), (Opcode.PRODUCT, {"bits15": 1}),
        (Opcode.PRODUCT, {"bits15": 1, "result": 3}), (Opcode.PRODUCT, {"digit": 2, "lift": 1}),
        (Opcode.SCORES, {"digit": 1}), (Opcode.CONTEXT, {"digit": 2}), (Opcode.CONTEXT, {"continues": 1, "lift": 1}),
        (Opcode.SCORES, {"continues": 1, "lift": 1}), (Opcode.CONTEXT, {"bits15": 1, "result": 2}),
        (Opcode.PRODUCT, {"bits15": 1, "result": 2, "multiply": 1}), (Opcode.SCORES, {"bits15": 1, "result": 1}),
    ]  # fmt: skip
    for opcode, bad in cases:
        check_illegal(hardware, opcode, bad)


def test_norms(hardware: AcceleratorModel) -> None:
    """Wide results of 15 bits, by turns with 16, some of them beyond; tiles so narrow that one follows the other."""
    cfg = hardware.config
    program = Program(cfg, 3)
    for number in range(12):
        width = (2, 3, 9, 40)[number % 4]
        x = program.rng.integers(-3000, 3001, (width, cfg.rows)).astype("<i2")
        inverse = round(2**33 / width)
        program.instructions.append(
            Instruction(
                Opcode.NORM,
                {
                    "input_address": program.put(x), "wide_address": program.noise(x.nbytes),
                    "narrow_address": program.noise(x.size), "parameters_address": program.noise(8 * width),
                    "width": width, "inverse": inverse & 0xFFFFFFFF, "inverse_high": inverse >> 32,
                    "bits15": int(number % 3 > 0),
                },
            )
        )  # fmt: skip
    check(hardware, program)


def test_a_context_of_15_bits(hardware: AcceleratorModel) -> None:
    cfg = hardware.config
    program = Program(cfg, 4)
    result = program.noise(2 * 4 * cfg.rows)
    program.product(Opcode.SCORES, columns=2 * cfg.groups, depth=1, wide=1, keys=3, row_first=1, row_last=1, gain=7)
    program.product(Opcode.CONTEXT, columns=4, depth=2, result=1, wide=1, bits15=1, result_address=result)
    assert np.abs(check(hardware, program)[result:].view("<i2")[: 4 * cfg.rows]).max() <= 16383


def test_hardware_without_the_feature_refuses_it() -> None:
    """With OPCODE, as the reference does: also where what lies beside it is there."""
    for config in (PRESETS["ci"], dataclasses.replace(PRESETS["ci"], features=("rms", "gate"))):
        model = AcceleratorModel(config)
        for opcode, bad in (
            (Opcode.PRODUCT, {"digit": 1}), (Opcode.PRODUCT, {"continues": 1, "lift": 1}),
            (Opcode.PRODUCT, {"bits15": 1, "result": 1}), (Opcode.NORM, {"bits15": 1}),
        ):  # fmt: skip
            check_illegal(model, opcode, bad)
