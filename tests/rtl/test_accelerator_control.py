"""The whole accelerator's control: writes while a program runs, resets at any time, addresses that are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support import embed

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import CheckError, InputError
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import ProgramError, run_program
from sta_hw.run.outcome import compare
from sta_hw.spec.expansion import needs_length
from sta_hw.spec.isa import Error, Instruction, Opcode, Result, assemble
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.registers import REGISTERS

CONFIG = PRESETS["ci"]
LONGEST = CONFIG.burst * CONFIG.bus_bytes
PLACES = ("image_address", "image_size", "program_address")
BUSY, DONE, FAILED, REFUSED = 1, 2, 4, 8


@pytest.fixture(scope="module")
def model() -> AcceleratorModel:
    return AcceleratorModel(CONFIG)


@pytest.fixture(scope="module")
def program() -> tuple[CompiledModel, np.ndarray, np.ndarray]:
    """A small encoder, its image with an input, and the image after it ran."""
    patterns = mixed_patterns([parse_nm(p) for p in ("2:4", "dense", "1:8")])
    quantized = quantize(random_model(3), [random_ids(i, 12) for i in range(3)], patterns)
    compiled = compile_encoder(quantized, CONFIG, 7, loops=False)
    image = compiled.with_input(embed(random_model(3), random_ids(1, 7)))
    return compiled, image, run_program(image, compiled.program_address, CONFIG, length=compiled.length)


def write(model: AcceleratorModel, name: str, value: int) -> None:
    """A write that may be answered with an error."""
    try:
        model.write(name, value)
    except CheckError as error:
        assert "the bus answers 2" in str(error)


def settled(model: AcceleratorModel, most: int = 1000) -> int:
    """The status when nothing is under way any more; bursts that were begun have been completed then."""
    for _ in range(most):
        status = model.read("status")
        if not status & BUSY:
            assert model.under_way == 0
            assert model.transfers[2] == 0
            return status
    raise AssertionError("busy for ever")


@pytest.mark.parametrize("memory", [MemoryModel(), MemoryModel(latency=60, stall=0.4, seed=5)], ids=["fast", "slow"])
def test_no_write_changes_the_program_that_runs(model, program, memory: MemoryModel) -> None:
    compiled, image, expected = program
    rng = np.random.default_rng(1)
    # Nothing that resets: each register, often those that say where the program is.
    names = [r.name for r in REGISTERS] + 9 * [*PLACES, "control"]
    after = model.start(image, compiled.program_address, memory=memory, length=compiled.length)
    writes = 0
    while model.read("status") & BUSY:
        name = str(rng.choice(names))
        value = int(rng.integers(1 << 32)) if rng.random() < 0.5 else int(rng.integers(64)) * LONGEST
        if name == "control":  # starts, but not when the program may just have ended
            value = value & ~3 | (writes < 60)
        write(model, name, value)
        model.advance(int(rng.integers(20)))
        writes += 1
    assert writes > 100
    assert settled(model) & ~(1 << 16) == DONE | REFUSED
    compare(compiled, after, expected)


def test_a_reset_at_any_time_stops_and_the_next_program_runs(model, program) -> None:
    compiled, image, expected = program
    at = compiled.program_address
    model.run(image, at, length=compiled.length)
    total = model.read("counter_cycles")
    rng = np.random.default_rng(2)
    ended = 0
    for number in range(250):
        memory = MemoryModel(latency=int(rng.integers(1, 90)), stall=rng.choice([0.0, 0.5]), seed=number + 1)
        # Right behind the start, anywhere, and around the end.
        cycles = (number % 25, int(rng.integers(total)), total + int(rng.integers(-40, 40)))[number % 3]
        calm = dataclasses.replace(memory, latency=50, stall=0.0)
        model.start(image, at, memory=calm if number % 3 == 2 else memory, length=compiled.length)
        if cycles:
            model.advance(cycles)
        ended += bool(model.read("status") & DONE)
        model.write("control", 0b010 if number % 5 else 0b111)
        assert settled(model) & ~REFUSED == 0, (number, cycles)
        beats = model.transfers
        model.advance(200)
        assert model.transfers == beats, "the bus moves after a reset"
        if number % 10 == 0:
            compare(compiled, model.run(image, at, memory=memory, length=compiled.length).image, expected)
    assert 10 < ended < 150


def test_a_start_behind_a_reset_is_taken(model, program) -> None:
    """Without waiting for the reset, whose bursts a slow memory still has."""
    compiled, image, expected = program
    for cycles in (0, 3, 40, 100):
        after = model.start(image, compiled.program_address, memory=MemoryModel(latency=100), length=compiled.length)
        if cycles:
            model.advance(cycles)
        model.write("control", 0b010)
        assert model.transfers[1] == 0  # nothing was written that the next run reads
        model.write("control", 0b101)
        for _ in range(1000):
            if model.read("status") & (DONE | FAILED):
                break
            model.advance(1000)
        assert settled(model) & 0xFFFF == DONE
        compare(compiled, after, expected)


@pytest.mark.parametrize(
    ("base", "limit"),
    [
        (0x8000_0000 + CONFIG.bus_bytes, None), (0x8000_0000 + LONGEST // 2, None), (0x8000_0001, None),
        (0x8000_0000, LONGEST // 2), (0x8000_0000, 40 * LONGEST + 1), (0x8000_0000, LONGEST - CONFIG.bus_bytes),
        (0xFFFF_F000, 0x2000), (LONGEST, -LONGEST + LONGEST // 2), (2 * LONGEST, -LONGEST), (0x8000_0000, 0),
    ],
)  # fmt: skip
def test_an_image_that_is_none_ends_as_address_unread(model, program, base: int, limit: int | None) -> None:
    compiled, image, expected = program
    size = None if limit is None else limit % (1 << 32)
    for _ in range(2):  # again behind a failure
        run = model.run(image, compiled.program_address, base=base, limit=size, length=compiled.length)
        assert (run.error, run.error_instruction) == (Error.ADDRESS, 0)
        assert model.transfers == (0, 0, 0)
        np.testing.assert_array_equal(run.image, image)
    compare(compiled, model.run(image, compiled.program_address, length=compiled.length).image, expected)


def test_images_at_both_ends_of_the_address_space(model, program) -> None:
    compiled, image, expected = program
    assert len(image) % LONGEST == 0
    for base in (0, (1 << 32) - len(image)):
        run = model.run(image, compiled.program_address, base=base, length=compiled.length)
        assert run.error == Error.NONE
        compare(compiled, run.image, expected)


def test_every_address_is_aligned_and_inside_or_ends_as_address(model, program) -> None:
    compiled, image, _ = program
    bus = CONFIG.bus_bytes
    for address in (compiled.program_address + 1, compiled.program_address + bus // 2, len(image), 0xFFFF_FFC0):
        run = model.run(image, address)
        assert (run.error, run.error_instruction) == (Error.ADDRESS, 0), address
    fields = {
        Opcode.LOAD: ("address", "stride"),
        Opcode.PRODUCT: ("window_address", "result_address", "residual_address"),
        Opcode.SCORES: ("window_address",),
        Opcode.CONTEXT: ("result_address",),
        Opcode.NORM: ("input_address", "wide_address", "narrow_address", "parameters_address"),
    }
    tried = 0
    for opcode, names in fields.items():
        for name in names:
            number = next(
                n
                for n, i in enumerate(compiled.instructions)
                if i.opcode == opcode
                and (name != "stride" or i["rows"] > 1)
                and (name != "residual_address" or i["result"] == Result.RESIDUAL)
            )
            old = compiled.instructions[number]
            for value in (old[name] + 1, old[name] + bus - 1, old[name] + bus // 2, (1 << 32) - bus, len(image)):
                changed = list(compiled.instructions)
                changed[number] = Instruction(opcode, dict(old.fields) | {name: value})
                bad = image.copy()
                code = np.frombuffer(assemble(changed, CONFIG), np.uint8)
                bad[compiled.program_address :][: len(code)] = code
                run = model.run(
                    bad,
                    compiled.program_address,
                    memory=MemoryModel(stall=0.2),
                    patience=50_000,
                    length=compiled.length,
                )
                if name == "stride" and value == (1 << 32) - bus:
                    # Backwards, to another place in the image.
                    assert run.error != Error.ADDRESS
                    continue
                assert (run.error, run.error_instruction) == (Error.ADDRESS, number), (opcode, name, value)
                with pytest.raises(ProgramError, match=r"multiple of|outside") as caught:
                    run_program(bad, compiled.program_address, CONFIG, length=compiled.length)
                assert (caught.value.error, caught.value.instruction) == (Error.ADDRESS, number)
                tried += 1
    assert tried > 45


def test_a_length_that_is_needed_is_asked_for(model, program) -> None:
    """A program that depends on register LENGTH does not run with one that nobody gave; others need none."""
    compiled, image, _ = program
    with pytest.raises(InputError, match="LENGTH; give length"):
        run_program(image, compiled.program_address, CONFIG)
    with pytest.raises(InputError, match="LENGTH; give length"):
        model.run(image, compiled.program_address)
    halt = np.zeros(1 << 12, np.uint8)
    data = np.frombuffer(assemble([Instruction(Opcode.HALT)], CONFIG), np.uint8)
    halt[: len(data)] = data
    assert np.array_equal(run_program(halt, 0, CONFIG), halt)
    assert model.run(halt, 0).error == Error.NONE
    for use in ("register", "rows", "mask"):
        fields = {"register": {"result_address_register": 15}, "rows": {"place": 1}, "mask": {"mask": 1}}[use]
        opcode = Opcode.SCORES if use == "mask" else Opcode.PRODUCT
        assert needs_length([Instruction(opcode, fields)])
    by_register = Instruction(Opcode.PRODUCT, {"result_address_register": 15})
    assert not needs_length([Instruction(Opcode.SET, {"destination": 15}), by_register])
