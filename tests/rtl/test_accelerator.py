"""The whole accelerator in RTL against the reference: byte for byte over the whole memory."""

from __future__ import annotations

import numpy as np
import pytest
from small_programs import CONFIGS, PATTERNS, built, compiled, reassembled
from support import embed

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.shorter import shortened
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.outcome import compare
from sta_hw.spec.expansion import expand
from sta_hw.spec.isa import FORMATS, Error, Instruction, Opcode, Result, assemble
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.records import Record


@pytest.fixture(scope="module")
def hardware():
    return built()


@pytest.mark.parametrize("name", [name for name in CONFIGS if "ring" not in name])
def test_equal_for_any_number_of_tokens_and_any_memory(name: str, hardware) -> None:
    model = hardware(name)
    for number, tokens in enumerate((1, 3, 15, 16, 17, 40, 128)):
        program, image = compiled(name, tokens, seed=number)
        expected = run_program(image, program.program_address, program.config, length=program.length)
        for memory in (
            MemoryModel(),
            MemoryModel(latency=7, stall=0.4, seed=number + 1, shared=True),
            MemoryModel(latency=120, beats_per_cycle=0.3, stall=0.7, seed=number + 9),
        ):
            run = model.run(image, program.program_address, memory=memory, patience=50_000, length=program.length)
            assert run.error == Error.NONE
            compare(program, run.image, expected)


@pytest.mark.parametrize("name", ["ci", "ci, half the ring"])
def test_keys_and_values_that_do_not_fit_twice(name: str, hardware) -> None:
    """Scores run ahead of contexts while the on-chip weights hold one head's, or one block's, keys and values only."""
    for seed, tokens in ((0, 33), (1, 70)):
        program, image = compiled(name, tokens, seed, hidden=64, heads=2, intermediate=64)
        expected = run_program(image, program.program_address, program.config, length=program.length)
        for memory in (MemoryModel(), MemoryModel(latency=90, beats_per_cycle=0.5, stall=0.4, seed=tokens)):
            run = hardware(name).run(
                image, program.program_address, memory=memory, patience=50_000, length=program.length
            )
            assert run.error == Error.NONE
            compare(program, run.image, expected)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_batch_of_texts(name: str, dense: bool, hardware) -> None:
    """Of any lengths, among them more texts than a row tile has rows, and keys that do not fit the chip together."""
    lengths = [5, 1, 16, 33, 4, 3, 2, 20, 7]
    model = random_model(7, hidden=32, heads=2, intermediate=48)
    patterns = mixed_patterns([parse_nm(p) for p in PATTERNS[name]])
    packing = (Packing.dense if dense else Packing.aligned)(lengths, CONFIGS[name].rows)
    program = compile_encoder(quantize(model, [random_ids(i, 12) for i in range(3)], patterns), CONFIGS[name], packing)
    image = program.with_input([embed(model, random_ids(i, n)) for i, n in enumerate(lengths)])
    expected = run_program(image, program.program_address, program.config, length=program.length)
    for memory in (MemoryModel(), MemoryModel(latency=90, beats_per_cycle=0.4, stall=0.5, seed=3, shared=True)):
        run = hardware(name).run(image, program.program_address, memory=memory, patience=50_000, length=program.length)
        assert run.error == Error.NONE
        compare(program, run.image, expected)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_shorter_text(name: str, hardware) -> None:
    """In a program of 128 tokens: some blocks have no key that is valid."""
    model = random_model(2, hidden=32, heads=2, intermediate=48)
    patterns = mixed_patterns([parse_nm(p) for p in PATTERNS[name]])
    program = compile_encoder(quantize(model, [random_ids(i, 12) for i in range(3)], patterns), CONFIGS[name], 128)
    for tokens in (3, 70):
        shorter = shortened(program, tokens)
        image = shorter.with_input(embed(model, random_ids(tokens, tokens)))
        run = hardware(name).run(
            image, program.program_address, memory=MemoryModel(latency=20, stall=0.3, seed=1), length=program.length
        )
        assert run.error == Error.NONE
        compare(program, run.image, run_program(image, program.program_address, program.config, length=program.length))


def test_parameters_stay_until_the_drain_has_read_them(hardware) -> None:
    """A slow bus keeps results of several products in the array's ring, their columns' parameters still to be read."""
    name = "ci, half the ring"
    for tokens in (17, 33, 100):
        program, image = compiled(name, tokens, hidden=32, heads=2, intermediate=32)
        expected = run_program(image, program.program_address, program.config, length=program.length)
        for seed in range(3):
            memory = MemoryModel(latency=90, beats_per_cycle=0.3, stall=0.3 * seed, seed=seed + 1, shared=True)
            run = hardware(name).run(
                image, program.program_address, memory=memory, patience=50_000, length=program.length
            )
            assert run.error == Error.NONE
            compare(program, run.image, expected)


def test_two_layers_and_relu(hardware) -> None:
    program, image = compiled("ci", 9, hidden=48, heads=3, layers=2, intermediate=80, activation="relu")
    run = hardware("ci").run(image, program.program_address, patience=50_000, length=program.length)
    compare(program, run.image, run_program(image, program.program_address, program.config, length=program.length))


def test_layer_norm_wider_than_its_memory(hardware) -> None:
    """norm_columns is 64: such a tile is read twice."""
    program, image = compiled("ci", 6, hidden=72, heads=4, intermediate=16)
    run = hardware("ci").run(image, program.program_address, patience=50_000, length=program.length)
    compare(program, run.image, run_program(image, program.program_address, program.config, length=program.length))


def test_counters_add_up(hardware) -> None:
    program, image = compiled("ci", 16)
    run = hardware("ci").run(image, program.program_address, length=program.length)
    engine = [v for k, v in run.counters.items() if k.startswith("engine")]
    # The reasons are registered once: the first and last cycle may be missing.
    assert 0 <= run.cycles - sum(engine) <= 3
    kinds = {"loads": Opcode.LOAD, "norms": Opcode.NORM}
    for name, opcode in kinds.items():
        assert len(run.completed[name]) == sum(i.opcode == opcode for i in program.expanded())
    assert run.counters["read_beats"] > 0 and run.counters["write_beats"] > 0


@pytest.mark.slow
def test_attention_of_4096_tokens() -> None:
    """One head of 8 dimensions on the reference configuration: 32 blocks of keys, rescaled as maxima grow."""
    config = PRESETS["reference"]
    model = random_model(3, hidden=8, heads=1, intermediate=8)
    program = compile_encoder(quantize(model, [random_ids(i, 40) for i in range(3)]), config, 4096)
    image = program.with_input(embed(model, random_ids(1, 4096)))
    run = AcceleratorModel(config).run(image, program.program_address, length=program.length)
    assert run.error == Error.NONE and run.counters["engine_wait_rescale"] > 0
    compare(program, run.image, run_program(image, program.program_address, config, length=program.length))


def test_result_kinds_are_all_used() -> None:
    program, _ = compiled("ci", 4)
    assert {i["result"] for i in program.expanded() if i.opcode == Opcode.PRODUCT} == {int(r) for r in Result} - {
        int(Result.BEST)
    }


def disguised(instructions: list[Instruction], rng: np.random.Generator) -> list[Instruction]:
    """The same program with registers in its words, and loops of one turn around parts of it."""
    found: list[Instruction] = []
    depth = 0
    for i in instructions:
        inside = found and depth
        if inside and (rng.random() < 0.3 or i.opcode == Opcode.HALT):
            found += [Instruction(Opcode.NEXT)] * depth
            depth = 0
        if i.opcode != Opcode.HALT and depth < 3 and not inside and rng.random() < 0.3:
            depth = int(rng.integers(1, 4))
            found += [Instruction(Opcode.LOOP, {"count": 1})] * depth
        fields = dict(i.fields)
        for word in FORMATS[i.opcode]:
            if rng.random() < 0.6 or i.opcode == Opcode.HALT or not word.low:
                continue
            low = Record("low", word.low)
            register, value = int(rng.integers(1, 16)), int(rng.integers(1 << 32))
            less = low.unpack(low.pack({f.name: fields.get(f.name, 0) for f in word.low}) - value & 0xFFFFFFFF)
            if low.width < 32:  # what is added would reach beyond the fields
                continue
            found.append(Instruction(Opcode.SET, {"destination": register, "value": value}))
            fields |= less | {word.register: register}
            break
        found.append(Instruction(i.opcode, fields))
    return found


def test_loops_and_registers_change_nothing(hardware) -> None:
    program, image = compiled("ci", 9, seed=3, loops=False)
    expected = run_program(image, program.program_address, program.config, length=program.length)
    rng = np.random.default_rng(5)
    for stall in (0.0, 0.5):
        other = disguised(program.instructions, rng)
        assert expand(other, program.config) == expand(program.instructions, program.config)
        at, longer = len(image), np.concatenate([image, np.zeros(1 << 14, np.uint8)])
        data = np.frombuffer(assemble(other, program.config), np.uint8)
        longer[at:][: len(data)] = data
        memory = MemoryModel(stall=stall, seed=7)
        run = hardware("ci").run(longer, at, memory=memory, patience=50_000, length=program.length)
        assert run.error == Error.NONE
        compare(program, run.image[: len(image)], expected)
        np.testing.assert_array_equal(run.image[at:], longer[at:])


@pytest.mark.parametrize("name", ["ci", "8x8 bitmap", "16x4"])
def test_rows_and_keys_at_random(name: str, hardware) -> None:
    """Some rows stored, keys numbered from anywhere, some of them valid or none; with LENGTH or without."""
    rng = np.random.default_rng(len(name))
    config = CONFIGS[name]
    for seed, tokens in enumerate((5, 33, 20)):
        program, image = compiled(name, tokens, seed, loops=False)
        length = int(rng.integers(tokens + 1))
        changed = []
        for i in program.instructions:
            fields = dict(i.fields)
            if i.opcode in (Opcode.PRODUCT, Opcode.CONTEXT, Opcode.NORM) and rng.random() < 0.7:
                # Of all 8 bits the low ones count; the range may be empty.
                fields |= {n: int(rng.integers(256)) for n in ("rows_before", "rows_after")}
                if rng.random() < 0.5:
                    fields["rows_after"] = int(rng.integers(config.rows)) // 4
            if i.opcode == Opcode.SCORES and rng.random() < 0.7:
                # Of the keys that were valid, which alone are on chip: the last one's number is below the limit.
                fields["mask"] = int(rng.integers(2))
                limit = length if fields["mask"] else int(rng.integers(40))
                here = min(i["columns"], tokens - i["key_start"])
                fields |= {"keys": limit, "key_start": limit - here + int(rng.integers(20))}
            changed.append(Instruction(i.opcode, fields))
        bad = reassembled(program, image, changed)
        expected = run_program(bad, program.program_address, config, length=length)
        memory = MemoryModel(stall=0.3 * seed, seed=seed + 1)
        run = hardware(name).run(bad, program.program_address, memory=memory, length=length, patience=50_000)
        assert run.error == Error.NONE
        compare(program, run.image, expected)
