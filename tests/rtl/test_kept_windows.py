"""Windows that stay on chip: programs of products that keep them and take them, RTL against the reference, byte for
byte over the whole memory; what is asked for and was not kept is refused, and the next program runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from test_decoder_features import ALL, Program, memories

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.errors import InputError
from sta_hw.reference.program import ProgramError, run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode, Target, assemble
from sta_hw.spec.presets import PRESETS
from tests.rtl.illegal import check_illegal

CONFIGS = {
    "4x2": dataclasses.replace(PRESETS["ci"], window_words=256, loads_ahead=1),
    "16x4": Config(
        rows=16, groups=4, window=8, lanes=8, drain_lanes=4, columns=64, weight_words=1024, parameter_words=256,
        norm_columns=32, features=("causal", "position"), window_words=256,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CONFIGS))
def hardware(request: pytest.FixtureRequest) -> AcceleratorModel:
    """Built once."""
    return AcceleratorModel(CONFIGS[request.param])


def taking(program: Program, address: int, beats: int, opcode: Opcode = Opcode.PRODUCT, **fields: int) -> None:
    """A product of one pass on windows from an address, with weights of its own."""
    cfg = program.config
    depth = beats * cfg.bus_bytes // (cfg.rows * cfg.groups)
    columns = cfg.groups * 2
    fields = program.weights(columns, 1, depth) | fields
    program.load(Target.PARAMETERS, program.parameters(columns, 5000 * depth, wide=False), 16 * columns)
    result = {} if opcode == Opcode.SCORES else {"result_address": program.noise(columns * cfg.rows)}
    program.add(
        opcode, window_address=address, window_beats=beats, parameters_step=1, **{**fields, **result}
    )  # fmt: skip


def outcome(image: NDArray[np.uint8], at: int, config: Config) -> tuple[Error, int, NDArray[np.uint8] | None]:
    try:
        return Error.NONE, 0, run_counted(image, at, config).image
    except ProgramError as error:
        return error.error, error.instruction, None


def check(hardware: AcceleratorModel, program: Program) -> Error:
    """RTL ends as the reference does, at the same instruction; what it leaves in memory is the same."""
    image, at = program.image()
    error, number, expected = outcome(image, at, program.config)
    for memory in memories():
        run = hardware.run(image, at, memory=memory, patience=50_000)
        assert (run.error, run.error_instruction if error else 0) == (error, number)
        if expected is not None:
            np.testing.assert_array_equal(run.image, expected)
    return error


def test_taken_as_they_were_kept(hardware: AcceleratorModel) -> None:
    """Also a part of them, after other products, and after memory has changed; and reads of the bus are fewer."""
    cfg = hardware.config
    beat, unit = cfg.bus_bytes, cfg.rows * cfg.groups // cfg.bus_bytes
    program = Program(cfg, 1)
    start = program.noise(8 * unit * beat)
    taking(program, start, 3 * unit, keep=1)
    taking(program, start, 3 * unit, kept=1)
    taking(program, start + unit * beat, 2 * unit, kept=1)
    other = program.noise(4 * unit * beat)
    taking(program, other, 4 * unit)  # read, and not kept
    # Memory gets other bytes, what is kept stays.
    taking(program, other, unit, result_address=start, columns=2 * cfg.groups)
    program.instructions[-1] = Instruction(Opcode.PRODUCT, {**program.instructions[-1].fields, "result_address": start})
    taking(program, start, 3 * unit, kept=1)
    taking(program, start + 3 * unit * beat, unit, keep=1)  # what follows is kept, too
    taking(program, start, 4 * unit, kept=1)
    taking(program, start + 2 * unit * beat, 2 * unit, keep=1)  # once more, as it is now
    taking(program, start, 4 * unit, kept=1)
    assert check(hardware, program) == Error.NONE
    image, at = program.image()
    read = hardware.run(image, at).counters["read_beats"]
    program.instructions = [
        Instruction(i.opcode, {n: v for n, v in i.fields.items() if n != "kept"}) for i in program.instructions
    ]
    image, at = program.image()
    assert hardware.run(image, at).counters["read_beats"] - read == (3 + 2 + 3 + 4 + 4) * unit


def test_all_places_and_the_ways_around_them(hardware: AcceleratorModel) -> None:
    """As many words as there are, from addresses whose places go around; others take their room."""
    cfg = hardware.config
    beat, unit = cfg.bus_bytes, cfg.rows * cfg.groups // cfg.bus_bytes
    pieces = cfg.window_words // unit
    for shift in (0, 1, unit + 3):
        program = Program(cfg, 2)
        start = program.noise((2 * pieces + 4) * unit * beat) + shift * beat
        depth = min(cfg.window, pieces)
        for piece in range(0, pieces, depth):
            taking(program, start + piece * unit * beat, min(depth, pieces - piece) * unit, keep=1)
        for piece in range(pieces - 1, -1, -2):
            taking(program, start + piece * unit * beat, unit, kept=1)
        taking(program, start + pieces * unit * beat, unit, keep=1)  # no room for all: it alone is kept
        taking(program, start + pieces * unit * beat, unit, kept=1)
        assert check(hardware, program) == Error.NONE
        taking(program, start + (pieces - 1) * unit * beat, unit, kept=1)
        assert check(hardware, program) == Error.OPCODE


def test_many_without_waiting(hardware: AcceleratorModel) -> None:
    """Products one behind the other as fast as they go, kept and taken by turns, random ones."""
    cfg = hardware.config
    beat, unit = cfg.bus_bytes, cfg.rows * cfg.groups // cfg.bus_bytes
    rng = np.random.default_rng(5)
    program = Program(cfg, 3)
    start = program.noise(16 * unit * beat)
    fields = program.weights(4, 1, 1)
    program.load(Target.PARAMETERS, program.parameters(4, 5000, wide=False), 64)
    there = 0
    for number in range(40):
        piece = int(rng.integers(there + 1)) if there < 8 else int(rng.integers(there))
        flag = "keep" if piece == there else ("", "kept", "kept", "keep")[rng.integers(4)]
        there = max(there, piece + (flag == "keep"))
        more = {flag: 1} if flag else {}
        first = {"wait_loads": 1} if number == 0 else {}
        program.instructions.append(
            Instruction(Opcode.PRODUCT, {
                **fields, **more, **first, "window_address": start + piece * unit * beat, "window_beats": unit,
                "parameters_step": 1, "result_address": program.noise(4 * cfg.rows),
            })
        )  # fmt: skip
    assert check(hardware, program) == Error.NONE


def test_scores_take_kept_queries(hardware: AcceleratorModel) -> None:
    cfg = hardware.config
    beat, unit = cfg.bus_bytes, cfg.rows * cfg.groups // cfg.bus_bytes
    program = Program(cfg, 4)
    start = program.noise(2 * unit * beat)
    result = program.noise(cfg.rows * 4)
    for flag in ("keep", "kept"):
        taking(program, start, 2 * unit, Opcode.SCORES, keys=5, row_first=1, row_last=1, wide=1, **{flag: 1})
        program.product(Opcode.CONTEXT, columns=4, depth=2, result_address=result)
        result = program.noise(cfg.rows * 4)
    assert check(hardware, program) == Error.NONE


def test_what_was_not_kept(hardware: AcceleratorModel) -> None:
    """Never, not all of it, no longer, in the program before, at an address between words; and more than fits."""
    cfg = hardware.config
    beat, unit = cfg.bus_bytes, cfg.rows * cfg.groups // cfg.bus_bytes

    def ends(*asked: tuple[int, int, str]) -> Error:
        program = Program(cfg, 6)
        start = program.noise((cfg.window_words + 64) * beat)
        for first, beats, flag in asked:
            program.add(Opcode.PRODUCT, window_address=start + first, window_beats=beats, **{flag: 1})
            program.instructions[-1] = Instruction(
                Opcode.PRODUCT,
                {**program.instructions[-1].fields, "passes": 1, "depth": 1, "n": 1, "columns": 1, "count0": 1,
                 "count1": 1, "count2": 1, "count3": 1},
            )  # fmt: skip
        image, at = program.image()
        error, number, _ = outcome(image, at, cfg)
        run = hardware.run(image, at, patience=50_000)
        assert (run.error, run.error_instruction) == (error, number)
        assert number == (len(asked) - 1 if error else 0)
        hardware.write("control", 0b10)
        return error

    whole = (0, unit, "keep")
    assert ends((0, unit, "kept")) == Error.OPCODE
    assert ends(whole, (unit * beat, unit, "kept")) == Error.OPCODE
    assert ends(whole, (beat, unit, "kept")) == Error.OPCODE
    assert ends(whole, (0, unit + 1, "kept")) == Error.OPCODE
    assert ends(whole, (1, unit - 1, "kept")) == Error.OPCODE
    assert ends(whole, ((unit + 1) * beat, unit, "keep"), (0, unit, "kept")) == Error.OPCODE
    assert ends((0, cfg.window_words + 1, "keep")) == Error.OPCODE
    assert ends(whole) == Error.NONE
    assert ends((0, unit, "kept")) == Error.OPCODE  # of another program


def test_both_or_in_context_or_without_the_memory(hardware: AcceleratorModel) -> None:
    """Refused by name in Python; by hardware and reference with OPCODE, at their number."""
    for opcode, fields in ((Opcode.PRODUCT, {"keep": 1, "kept": 1}), (Opcode.CONTEXT, {"keep": 1}),
                           (Opcode.CONTEXT, {"kept": 1})):  # fmt: skip
        with pytest.raises(InputError, match="goes with PRODUCT and SCORES"):
            Instruction(opcode, fields)
        check_illegal(hardware, opcode, fields)
    with pytest.raises(InputError, match=r"instruction 0 \(PRODUCT\): keep = 1 needs hardware with window_words of"):
        assemble([Instruction(Opcode.PRODUCT, {"keep": 1})], PRESETS["ci"])


@pytest.mark.parametrize("features", [(), ("decoder",)], ids=["", "decoder"])
def test_hardware_without_the_memory(features: tuple[str, ...]) -> None:
    config = dataclasses.replace(PRESETS["ci"], features=features)
    hardware = AcceleratorModel(config)
    for flag in ("keep", "kept"):
        check_illegal(hardware, Opcode.PRODUCT, {flag: 1})


def test_a_memory_that_is_slow(hardware: AcceleratorModel) -> None:
    """Kept windows come as fast as they are taken, whatever memory does."""
    cfg = hardware.config
    beat, unit = cfg.bus_bytes, cfg.rows * cfg.groups // cfg.bus_bytes
    cycles = {}
    for flag in ("", "kept"):
        program = Program(cfg, 8)
        start = program.noise(4 * unit * beat)
        fields = program.weights(4, 1, 4)
        program.load(Target.PARAMETERS, program.parameters(4, 5000, wide=False), 64)
        for number in range(20):
            more = {"keep": 1, **ALL} if number == 0 else {flag: 1} if flag else {}
            program.instructions.append(
                Instruction(Opcode.PRODUCT, {
                    **fields, **more, "window_address": start, "window_beats": 4 * unit, "parameters_step": 1,
                    "result_address": program.noise(4 * cfg.rows),
                })
            )  # fmt: skip
        image, at = program.image()
        cycles[flag] = hardware.run(image, at, memory=MemoryModel(latency=30, beats_per_cycle=0.25)).cycles
    assert cycles["kept"] < 0.8 * cycles[""], cycles
