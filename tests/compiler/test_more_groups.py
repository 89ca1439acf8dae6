"""Hardware with more groups than rows: values of several row tiles side by side, whole encoders and decoders on RTL."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import embed, in_fp32
from test_decoder_features import Program, memories
from test_decoder_program import check, quantized

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.decoder.integers import Rules
from sta_hw.compiler.decoder.program import compile_decoder
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import ProgramError, run_counted, run_program
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode, Result, assemble
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS

TWICE = Config(
    rows=4, groups=8, window=4, columns=64, drain_lanes=2, weight_words=2048, norm_columns=64, window_words=128,
    loads_ahead=1, features=("decoder",),
)  # fmt: skip
FOUR_TIMES = dataclasses.replace(TWICE, groups=16, features=(), window_words=0)
EIGHT_ROWS = dataclasses.replace(TWICE, rows=8, groups=16, lanes=4, features=("position",))


@pytest.mark.parametrize(
    "config",
    [pytest.param(TWICE, id="4x8"), pytest.param(FOUR_TIMES, id="4x16", marks=pytest.mark.slow),
     pytest.param(EIGHT_ROWS, id="8x16", marks=pytest.mark.slow)],
)  # fmt: skip
def test_columns_apart(config: Config) -> None:
    """Between other results, from every part of a place, all rows or some: what lies between stays as it is."""
    hardware, program = AcceleratorModel(config), Program(config, 5)
    rows, groups = config.rows, config.groups
    for part in range(groups // rows):
        for before, after in ((0, 0), (1, 0), (0, rows - 1), (2, 1)):
            for columns in (1, 2 * groups):
                program.product(
                    columns=columns, depth=2, apart=1, rows_before=before, rows_after=after,
                    result_address=program.noise((columns + 1) * groups) + part * rows,
                )  # fmt: skip
            kind = (Result.STORE8, Result.TRANSPOSE, Result.STORE16)[before % 3]
            program.product(
                columns=groups, depth=1, result=int(kind), wide=int(kind == Result.STORE16),
                result_address=program.noise(2 * groups * rows),
            )  # fmt: skip
    image, at = program.image()
    wanted = run_counted(image, at, config)
    for memory in memories():
        run = hardware.run(image, at, memory=memory, patience=50_000)
        np.testing.assert_array_equal(run.image, wanted.image)
        assert {name: run.counters[name] for name in wanted.saturated} == wanted.saturated
    # By hand: of the first product, one column from the first part on, the rows' bytes alone are others.
    first = next(i for i in program.instructions if i.opcode == Opcode.PRODUCT)["result_address"]
    changed = np.flatnonzero(wanted.image[first : first + 2 * groups] != image[first : first + 2 * groups])
    assert changed.size and changed.max() < rows


def test_refused() -> None:
    """Where groups are no more than rows, and for other results: in Python by name, by hardware with OPCODE."""
    with pytest.raises(InputError, match="apart = 1 goes with PRODUCT and result STORE8 alone"):
        Instruction(Opcode.PRODUCT, {"apart": 1, "result": int(Result.STORE16)})
    apart = Instruction(Opcode.PRODUCT, {"apart": 1})
    with pytest.raises(InputError, match="apart = 1 needs hardware with more groups than rows"):
        assemble([apart], PRESETS["ci"])
    for config, byte in ((PRESETS["ci"], 0), (TWICE, 1), (TWICE, 4)):
        # `result` is in the upper half of the second word.
        data = bytearray(assemble([Instruction(Opcode.LOAD), apart, Instruction(Opcode.HALT)], TWICE))
        data[16:24] = bytes.fromhex(config.program_hash)[::-1]
        data[64 + 24 + 15] |= byte
        image = np.concatenate([np.frombuffer(bytes(data), np.uint8), np.zeros(-len(data) % 1024, np.uint8)])
        with pytest.raises(ProgramError) as refused:
            run_counted(image, 0, config)
        assert (refused.value.error, refused.value.instruction) == (Error.OPCODE, 1)
        run = AcceleratorModel(config).run(image, 0, patience=50_000)
        assert (run.error, run.error_instruction) == (Error.OPCODE, 1)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [pytest.param(TWICE, [19], id="4x8"), pytest.param(TWICE, [3], id="one tile"),
     pytest.param(TWICE, [5, 9, 2], id="a batch"), pytest.param(FOUR_TIMES, [50], id="4x16", marks=pytest.mark.slow),
     pytest.param(EIGHT_ROWS, [70], id="8x16", marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_encoder(config: Config, tokens: list[int]) -> None:
    """Blocks of keys that go on beyond the last row tile; every tensor is the integers' own, every byte RTL's."""
    model = random_model(4, hidden=64, heads=2, intermediate=72 if config.groups == 8 else 96)
    patterns = mixed_patterns([parse_nm("dense")])
    of = quantize(model, [random_ids(i, 24) for i in range(3)], patterns)
    compiled = compile_encoder(of, config, tokens)
    ids = [random_ids(60 + i, n) for i, n in enumerate(tokens)]
    texts = [embed(model, i) for i in ids]
    image = compiled.with_input(texts)
    wanted = run_program(image, compiled.program_address, config, length=compiled.length)
    hardware = AcceleratorModel(config)
    for memory in (MemoryModel(), MemoryModel(latency=20, stall=0.3, seed=1)):
        run = hardware.run(image, compiled.program_address, length=compiled.length, memory=memory)
        np.testing.assert_array_equal(run.image, wanted)
    for number, text in enumerate(ids):
        found, exact = compiled.output(wanted, number).reshape(-1), in_fp32(model, text).reshape(-1)
        assert found @ exact > 0.98 * np.linalg.norm(found) * np.linalg.norm(exact)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_decoder(family: str, tmp_path: Path) -> None:
    """Tokens alone and together, row tiles too, from both halves of places of values on; logits are the integers'."""
    of = quantized(tmp_path, family, rules=Rules(block=TWICE.groups * TWICE.window, groups=TWICE.groups))
    lengths = [2, 4, 1, 1, 2, 4, 3, 1, 4, 1, 3, 16, 3, 12, 6, 1, 8, 4, 2, 9]
    compiled = compile_decoder(of, TWICE, 2 + sum(lengths))
    model = AcceleratorModel(TWICE)

    def run(image: NDArray[np.uint8], program: int, length: int, position: int) -> NDArray[np.uint8]:
        wanted = run_program(image, program, TWICE, length=length, position=position)
        memory = MemoryModel(stall=0.2, seed=position)
        found = model.run(image, program, length=length, position=position, memory=memory)
        np.testing.assert_array_equal(found.image, wanted)
        return wanted

    check(of, compiled, run, np.random.default_rng(8).integers(0, 96, sum(lengths)).tolist(), lengths)
