"""Programs whose words are well-formed and make no sense: RTL and reference stop alike, and RTL never for ever."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.errors import CheckError
from sta_hw.reference.program import ProgramError, run_program
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode, Positions, Result, Target, assemble, codes, formats
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]  # rows 4, groups 2, window 16, bus of 4 bytes
AT = 1 << 14
HALT, NEXT = Instruction(Opcode.HALT), Instruction(Opcode.NEXT)
DEPTH = 4


@pytest.fixture(scope="module")
def model() -> AcceleratorModel:
    return AcceleratorModel(CONFIG)


def image_of(program: Sequence[Instruction], config: Config = CONFIG) -> np.ndarray:
    image = np.random.default_rng(1).integers(0, 256, 1 << 15, np.uint8)
    data = np.frombuffer(assemble(program, config), np.uint8)
    image[AT:] = 0
    image[AT:][: len(data)] = data
    return image


def multiplied(opcode: Opcode, **fields: int) -> Instruction:
    """A dense product of 8 columns and `DEPTH` positions."""
    columns, passes = fields.get("columns", 8), fields.get("passes", 1)
    size = CONFIG.groups * DEPTH * CONFIG.rows // CONFIG.bus_bytes
    given = {
        "window_beats": size * passes, "result_address": 0x2000, "residual_address": 0x1000, "columns": columns,
        "passes": passes, "n": 1, "depth": DEPTH, "count0": passes * columns * DEPTH, "stride0": 1, "count1": 1,
        "count2": 1, "count3": 1, "parameters_step": 1, "wait_loads": 1, "keys": columns,
    }  # fmt: skip
    return Instruction(opcode, given | fields)


def scores(**fields: int) -> Instruction:
    return multiplied(Opcode.SCORES, **{"row_first": 1, "row_last": 1, "wide": 1} | fields)


LOADS = [
    Instruction(Opcode.LOAD, {"target": target, "beats": 256, "rows": 1})
    for target in (Target.VALUES, Target.PARAMETERS)
]
CONTEXT = multiplied(Opcode.CONTEXT)


def both(model: AcceleratorModel, program: Sequence[Instruction], stall: float = 0.0) -> None:
    """The same error at the same instruction, or the same bytes."""
    image = image_of([*program, HALT])
    run = model.run(image, AT, memory=MemoryModel(stall=stall, seed=3))
    try:
        expected = run_program(image, AT, CONFIG)
    except ProgramError as error:
        found = run.error_instruction if error.error != Error.TIMEOUT else error.instruction
        assert (run.error, found) == (error.error, error.instruction), error
    else:
        assert run.error == Error.NONE
        np.testing.assert_array_equal(run.image, expected)
    model.write("control", 0b10)


def test_what_is_attended_to_runs(model: AcceleratorModel) -> None:
    """What the other tests change is right as it is."""
    chain = [scores(row_last=0), multiplied(Opcode.CONTEXT, unfinished=1), scores(row_first=0)]
    for program in ([scores(), CONTEXT], [*chain, multiplied(Opcode.CONTEXT, continues=1)]):
        assert run_program(image_of([*LOADS, *program, HALT]), AT, CONFIG) is not None
        both(model, [*LOADS, *program], 0.3)


@pytest.mark.parametrize("columns", [2, 6, 7, 32, 33, 34, 63, 64])
def test_columns_that_are_no_blocks(model: AcceleratorModel, columns: int) -> None:
    """Of SCORES and of what is transposed, also with a register in their word."""
    for opcode, fields in (
        (Opcode.PRODUCT, {"result": Result.TRANSPOSE}),
        (Opcode.PRODUCT, {"result": Result.STORE8}),
        (Opcode.SCORES, {"row_first": 1, "row_last": 1}),
    ):
        one = multiplied(opcode, columns=columns, **fields)
        register = Instruction(Opcode.SET, {"destination": 3, "value": 5})
        moved = dict(one.fields) | {"columns": columns - 5 & 0xFFFF, "parameters_base_register": 3}
        if columns < 5:
            moved |= {"parameters_base": 0xFFFF}
        other = [register, Instruction(opcode, moved)]
        expected = (opcode == Opcode.SCORES and columns > 32) or (bool(columns % 2) and "row_first" in fields)
        expected = expected or bool(columns % 2 and fields.get("result") == Result.TRANSPOSE)
        for program in ([*LOADS, one], [*LOADS, *other]):
            if expected:
                with pytest.raises(ProgramError) as caught:
                    run_program(image_of([*program, HALT]), AT, CONFIG)
                assert (caught.value.error, caught.value.instruction) == (Error.OPCODE, 2)
            both(model, program)


def test_loads_of_nothing_and_of_parts_of_words(model: AcceleratorModel) -> None:
    """What is left of a word is not the beginning of the next LOAD's first."""
    for target in codes("target", CONFIG.features):
        for beats, rows in ((0, 3), (3, 0), (1, 1), (3, 1), (5, 3), (7, 1)):
            odd = Instruction(Opcode.LOAD, {"target": target, "beats": beats, "rows": rows, "stride": 64})
            table = Instruction(Opcode.LOAD, {"target": Target.TABLE, "beats": 128, "rows": 1, "address": 2048})
            product = multiplied(Opcode.PRODUCT, result=Result.ACTIVATE, encoding=Positions.DENSE)
            wait = {"wait_loads": 1}
            both(model, [table, odd, *LOADS, odd, odd, Instruction(product.opcode, dict(product.fields) | wait)], 0.2)


def test_what_waits_for_ever_times_out(model: AcceleratorModel) -> None:
    with pytest.raises(ProgramError, match="next block in the softmax") as caught:
        run_program(image_of([*LOADS, CONTEXT, HALT]), AT, CONFIG)
    assert caught.value.error == Error.TIMEOUT
    both(model, [*LOADS, CONTEXT])


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ([scores(row_last=0), CONTEXT], "unfinished = 0, and its block's SCORES has row_last = 0"),
        ([scores(), multiplied(Opcode.CONTEXT, continues=1)], "continues = 1, and its block's SCORES has row_first"),
        ([scores(), multiplied(Opcode.CONTEXT, window_beats=3)], "its windows have 12 bytes"),
        ([scores(), multiplied(Opcode.CONTEXT, result=Result.RESIDUAL)], "result RESIDUAL takes second multipliers"),
        ([multiplied(Opcode.PRODUCT, continues=1)], "continues sums of 8 columns, and there are none"),
        (
            [multiplied(Opcode.PRODUCT, columns=6, unfinished=1), multiplied(Opcode.PRODUCT, continues=1)],
            "continues sums of 8 columns, and there are those of 6",
        ),
        ([multiplied(Opcode.PRODUCT, window_beats=3)], "windows of 3 positions"),
        ([multiplied(Opcode.PRODUCT, window_beats=1 << 18)], "other bytes than the 32 of the product, and bytes 0 to"),
        (
            [
                multiplied(Opcode.PRODUCT, unfinished=1),
                multiplied(Opcode.PRODUCT, passes=2),
                multiplied(Opcode.PRODUCT, continues=1),
            ],
            "there are none: instruction 3, of several passes, has overwritten them",
        ),
        (
            [
                scores(row_last=0),
                multiplied(Opcode.CONTEXT, unfinished=1),
                scores(row_first=0, passes=2),
                multiplied(Opcode.CONTEXT, continues=1),
            ],
            "there are none: instruction 4, of several passes, has overwritten them",
        ),
        (
            [multiplied(Opcode.PRODUCT, unfinished=1), *2 * [multiplied(Opcode.PRODUCT, continues=1)]],
            "there are none: instruction 3 continued the last ones",
        ),
        ([Instruction(Opcode.NORM, {"width": 0})], "width = 0; it is 2 or more"),
        ([Instruction(Opcode.NORM, {"width": 1, "wide_address": 64})], "width = 1; it is 2 or more"),
        ([Instruction(Opcode.NORM, {"width": 2, "inverse": 1, "wide_address": 64})], "a width of 2 it is 4294967296"),
        ([scores(row_first=0)], "it has no row_first, and there are no rows that an earlier block began"),
        (
            [scores(row_last=0), multiplied(Opcode.CONTEXT, unfinished=1), scores(row_first=0, coarse=1)],
            "coarse = 1, and its rows' first block has 0",
        ),
    ],
)
def test_what_is_not_defined_is_named(model: AcceleratorModel, program: list[Instruction], text: str) -> None:
    """The hardware ends, by itself; the next program runs."""
    image = image_of([*LOADS, *program, HALT])
    with pytest.raises(CheckError, match=text):
        run_program(image, AT, CONFIG)
    assert model.run(image, AT).error in (Error.NONE, Error.TIMEOUT)
    model.write("control", 0b10)
    both(model, [*LOADS, scores(), CONTEXT])


@pytest.mark.parametrize(("turns", "error"), [(5, Error.NONE), (6, Error.TIMEOUT)])
def test_loops_without_an_instruction(model: AcceleratorModel, turns: int, error: Error) -> None:
    """65,535 turns of a loop around nothing take 3 cycles each."""
    program = [
        *LOADS, Instruction(Opcode.LOOP, {"count": turns}), Instruction(Opcode.LOOP, {"count": 65535}), NEXT, NEXT, HALT
    ]  # fmt: skip
    image = image_of(program)
    run = model.run(image, AT)
    assert run.error == error
    if error:
        assert run.error_instruction == 2
        with pytest.raises(ProgramError) as caught:
            run_program(image, AT, CONFIG)
        assert (caught.value.error, caught.value.instruction) == (error, 2)
    else:
        run_program(image, AT, CONFIG)
    model.write("control", 0b10)


def test_headers(model: AcceleratorModel) -> None:
    """The same errors in both, also of more than one at once."""
    waits = [Instruction(Opcode.LOOP, {"count": 300}), NEXT]  # until all lines were asked for
    good = image_of([*LOADS, *waits, HALT])
    cases = [
        ({0: 1}, AT, Error.HEADER), ({4: 9}, AT, Error.HEADER), ({8: 0}, AT, Error.HEADER), ({10: 2}, AT, Error.HEADER),
        ({16: good[AT + 16] ^ 1}, AT, Error.HARDWARE), ({16: good[AT + 16] ^ 1, 8: 0}, AT, Error.HEADER),
        ({}, AT + 1, Error.ADDRESS), ({}, len(good), Error.ADDRESS), ({}, len(good) - 32, Error.ADDRESS),
        ({8: 17}, len(good) - 1024, Error.ADDRESS),
    ]  # fmt: skip
    for changes, address, error in cases:
        image = good.copy()
        for at, value in changes.items():
            image[AT + at] = value
        if AT + 1 < address < len(good):
            image[address:] = image[AT:][: len(good) - address]
        with pytest.raises(ProgramError) as caught:
            run_program(image, address, CONFIG)
        run = model.run(image, address, memory=MemoryModel(stall=0.2, seed=2))
        assert (caught.value.error, caught.value.instruction) == (error, 0), changes
        assert (run.error, run.error_instruction) == (error, 0), (changes, address)
        model.write("control", 0b10)


def test_encoding_3_is_refused_by_the_engine(model: AcceleratorModel) -> None:
    image = image_of([*LOADS, multiplied(Opcode.PRODUCT), HALT])
    place, field = formats(Opcode.PRODUCT).places["encoding"]
    first = AT + 64 + 2 * 24 + place // 8
    assert field.width == 2 and place % 8 == 4
    image[first] |= 3 << 4
    with pytest.raises(ProgramError) as caught:
        run_program(image, AT, CONFIG)
    assert (caught.value.error, caught.value.instruction) == (Error.ENGINE, 2)
    run = model.run(image, AT)
    assert (run.error, run.error_instruction) == (Error.ENGINE, 2)
    model.write("control", 0b10)
