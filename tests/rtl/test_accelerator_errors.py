"""The whole accelerator where something is wrong: errors as the reference has them, recovery, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from small_programs import CONFIGS, built, compiled, find, reassembled, with_fields

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import CheckError, ConfigError, InputError
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import ProgramError, run_program
from sta_hw.run.outcome import compare
from sta_hw.spec.config import Config
from sta_hw.spec.isa import HEADER_BYTES, MOST_LINES, Error, Opcode, Target, instruction_bytes
from sta_hw.spec.patterns import parse_nm


@pytest.fixture(scope="module")
def hardware():
    return built()


def test_every_error_stops_cleanly_and_the_next_program_runs(hardware) -> None:
    model = hardware("ci")
    program, image = compiled("ci", 16, loops=False)
    expected = run_program(image, program.program_address, program.config, length=program.length)
    code = program.instructions
    at = program.program_address
    product = find(program, Opcode.PRODUCT)
    norm = find(program, Opcode.NORM)
    load = find(program, Opcode.LOAD)
    base = 0x8000_0000
    illegal = image.copy()
    illegal[at + HEADER_BYTES + sum(instruction_bytes(i.opcode) for i in code[:3]) + 4] |= 0xF0
    version, other = image.copy(), image.copy()
    version[at + 4] = 9
    other[at + 16] ^= 1
    longer = image.copy()
    longer[at + 8 : at + 12] = np.array([MOST_LINES + 1], "<u4").view(np.uint8)
    outside = len(image) + 4096
    bus = program.config.bus_bytes
    weights = code[load]["address"]
    results = code[product]["result_address"]
    cases = [
        (version, {}, Error.HEADER, 0),
        (longer, {}, Error.HEADER, 0),
        (other, {}, Error.HARDWARE, 0),
        (illegal, {}, Error.OPCODE, 3),
        (reassembled(program, image, with_fields(code, load, address=outside)), {}, Error.ADDRESS, load),
        (reassembled(program, image, with_fields(code, load, address=bus + 1)), {}, Error.ADDRESS, load),
        (reassembled(program, image, with_fields(code, product, window_address=outside)), {}, Error.ADDRESS, product),
        (reassembled(program, image, with_fields(code, product, result_address=outside)), {}, Error.ADDRESS, product),
        (reassembled(program, image, with_fields(code, norm, wide_address=outside)), {}, Error.ADDRESS, norm),
        (reassembled(program, image, with_fields(code, product, columns=0)), {}, Error.ENGINE, product),
        (reassembled(program, image, with_fields(code, product, count0=5)), {}, Error.ENGINE, product),
        *(
            (reassembled(program, image, with_fields(code, product, **fields)), {}, Error.ENGINE, product)
            for fields in ({"encoding": 0, "n": 2, "m_log2": 1}, {"encoding": 1, "n": 1, "m_log2": 0})
        ),
        (image, {"memory": MemoryModel(error=(base + weights, base + weights + 1))}, Error.READ, load),
        (image, {"memory": MemoryModel(error=(base + results, base + results + 1))}, Error.WRITE, product),
        (image, {"limit": weights}, Error.ADDRESS, None),
    ]
    for number, (bad, options, error, instruction) in enumerate(cases):
        for stall in (0.0, 0.5):
            memory = options.get("memory", MemoryModel())
            memory = MemoryModel(stall=stall, seed=number + 1, error=memory.error)
            run = model.run(bad, at, memory=memory, limit=options.get("limit"), patience=50_000, length=program.length)
            assert run.error == error, (number, run.error)
            if instruction is not None:
                assert run.error_instruction == instruction, (number, run.error_instruction)
            if error == Error.ENGINE:
                with pytest.raises(ProgramError) as refused:
                    run_program(bad, at, program.config, length=program.length)
                assert (refused.value.error, refused.value.instruction) == (error, instruction)
            model.write("control", 0b10)
            good = model.run(image, at, patience=50_000, length=program.length)
            assert good.error == Error.NONE
            compare(program, good.image, expected)


@pytest.mark.parametrize("name", ["ci", "8x8 bitmap", "16x4"])
def test_positions_that_are_no_pattern_stop_hardware_and_reference_alike(name: str, hardware) -> None:
    """Bits of positions flipped in memory: the same error at the same instruction, or the same bytes."""
    model, rng, stopped = hardware(name), np.random.default_rng(len(name)), []
    program, image = compiled(name, 5)
    loads = [i for i in program.expanded() if i.opcode == Opcode.LOAD and i["target"] == Target.POSITIONS]
    for number in range(40):
        bad = image.copy()
        load = loads[rng.integers(len(loads))]
        size = load["beats"] * program.config.bus_bytes * load["rows"]
        bad[load["address"] + rng.integers(size)] ^= 1 << int(rng.integers(8))
        stall = float(rng.choice([0.0, 0.5]))
        run = model.run(
            bad,
            program.program_address,
            memory=MemoryModel(stall=stall, seed=number + 1),
            patience=50_000,
            length=program.length,
        )
        try:
            expected = run_program(bad, program.program_address, program.config, length=program.length)
        except ProgramError as error:
            stopped.append((error.error, error.instruction))
            assert (run.error, run.error_instruction) == stopped[-1]
        else:
            assert run.error == Error.NONE
            compare(program, run.image, expected)
        model.write("control", 0b10)
    assert len(stopped) > 4 and {error for error, _ in stopped} == {Error.ENGINE}


def test_a_product_without_windows_is_named_as_stalled(hardware) -> None:
    program, image = compiled("ci", 4, loops=False)
    product = find(program, Opcode.PRODUCT)
    bad = reassembled(program, image, with_fields(program.instructions, product, window_beats=1))
    model = AcceleratorModel(CONFIGS["ci"])
    with pytest.raises(CheckError, match=r"no progress after \d+ cycles; waiting: .*weight values"):
        model.run(bad, program.program_address, patience=5000, length=program.length)
    model.write("control", 0b10)
    run = model.run(image, program.program_address, patience=5000, length=program.length)
    compare(program, run.image, run_program(image, program.program_address, program.config, length=program.length))


def test_a_product_that_waits_for_ever_ends_in_a_timeout(hardware) -> None:
    program, image = compiled("ci", 4, loops=False)
    few = with_fields(program.instructions, find(program, Opcode.PRODUCT), window_beats=1)
    bad = reassembled(program, image, few)
    run = hardware("ci").run(bad, program.program_address, length=program.length)
    assert run.error == Error.TIMEOUT


def test_registers_say_what_hardware_it_is(hardware) -> None:
    from sta_hw.spec.registers import capabilities

    model = hardware("ci")
    for name, value in capabilities(CONFIGS["ci"]).items():
        assert model.read(name) == value
    model.write("image_size", 0x12345678)
    assert model.read("image_size") == 0x12345678
    with pytest.raises(CheckError, match="writing register shape"):
        model.write("shape", 1)
    with pytest.raises(CheckError, match="reading register interrupt_clear"):
        model.read("interrupt_clear")


def test_shapes_without_an_accelerator_are_refused() -> None:
    for changes, text in (
        ({"rows": 12, "lanes": 4}, "needs rows a power of two, and rows = 12; the nearest is 8"),
        ({"rows": 2}, "lanes = 2 bytes"),
        ({"drain_lanes": 8}, "drain_lanes at most lanes = 8"),
        ({"rows": 8, "groups": 12}, "needs groups a power of two, and groups = 12"),
        ({"rows": 64, "groups": 4, "window": 8}, "rows at most groups x window"),
        ({"rows": 4, "groups": 1, "window": 4, "nm": ("2:4",)}, "1 x 4 is 4; the nearest is groups = 2"),
        ({"burst": 256, "lanes": 32, "rows": 32}, "exceed AXI's 4,096 bytes"),
    ):
        with pytest.raises(ConfigError, match=text):
            Config(**{"drain_lanes": 1} | changes).require_accelerator()


def test_what_does_not_fit_is_said_with_what_would() -> None:
    quantized = quantize(random_model(0), [random_ids(0, 5)])
    with pytest.raises(InputError, match=r"weight_words = 16; \d+ would do"):
        compile_encoder(quantized, Config(rows=4, groups=2, columns=64, drain_lanes=2, weight_words=16), 4)
    with pytest.raises(InputError, match="head dimension 16 does not fit"):
        compile_encoder(quantized, Config(rows=32, groups=32, columns=64, drain_lanes=2), 4)
    with pytest.raises(InputError, match="N:M pattern 2:8 is not built into this hardware"):
        sparse = quantize(random_model(0), [random_ids(0, 5)], mixed_patterns([parse_nm("2:8")]))
        compile_encoder(sparse, CONFIGS["8x8 bitmap"], 4)
