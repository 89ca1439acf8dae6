"""Products with weights of 4 bits on the whole accelerator: RTL against the reference, byte for byte of the memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_decoder_features import CONFIGS, Program, check

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.errors import InputError
from sta_hw.formats.block_words import encode_blocks
from sta_hw.formats.blocks import BlockedWeights
from sta_hw.formats.nm import keep_mask
from sta_hw.reference.program import ProgramError, run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode, Result, Target, assemble
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS


@pytest.fixture(scope="module", params=list(CONFIGS))
def hardware(request: pytest.FixtureRequest) -> AcceleratorModel:
    return AcceleratorModel(CONFIGS[request.param])


def weights(
    program: Program, columns: int, passes: int, depth: int, name: str, encoding: str, wide_blocks: bool = False
) -> dict[str, int]:
    """Random weights of 4 bits, loaded; the fields of a product with them."""
    cfg, rng = program.config, program.rng
    share = cfg.wide_block_groups if wide_blocks else cfg.block_groups
    size, pattern = share * depth, parse_nm(name)
    shape = columns, passes * cfg.groups // share
    codes = rng.integers(0, 16, (columns, passes * cfg.groups * depth), np.uint8)
    kept = None if pattern.dense else keep_mask(rng.random(codes.shape), pattern)
    # Any bits: sums of a level may lie beyond 8 bits, of which the lower 8 count.
    blocks = BlockedWeights(size, codes, rng.integers(0, 4096, shape), rng.integers(-2048, 2048, shape), kept)
    found = encode_blocks(blocks, pattern, groups=cfg.groups, window=cfg.window, depth=depth, encoding=encoding,
                          wide=wide_blocks)  # fmt: skip
    assert len(found.words) <= cfg.weight_words
    program.load(Target.VALUES, program.put(found.words), found.words.size)
    positions = found.matrix.positions
    if len(positions):
        bits = (positions[:, :, None] >> np.arange(cfg.window, dtype=np.uint32) & 1).astype(np.uint8)
        packed = np.packbits(bits.reshape(len(positions), -1), axis=1, bitorder="little")
        program.load(Target.POSITIONS, program.put(packed), packed.size)
    return {
        "count0": len(found.words), "stride0": 1, "count1": 1, "count2": 1, "count3": 1, "columns": columns,
        "passes": passes, "n": pattern.n, "m_log2": pattern.m.bit_length() - 1, "depth": depth,
        "encoding": {"dense": 0, "index": 1, "bitmap": 2}[found.matrix.encoding],
        "positions_count": len(positions), "value_format": 1 + wide_blocks, "run": found.run,
    }  # fmt: skip


def product(
    program: Program, columns: int, passes: int, depth: int, name: str, encoding: str,
    wide_blocks: bool = False, **fields: int,
) -> None:  # fmt: skip
    cfg = program.config
    size = passes * cfg.rows * cfg.groups * depth
    fields = weights(program, columns, passes, depth, name, encoding, wide_blocks) | fields
    if not fields.get("unfinished"):
        address = program.parameters(columns, 5000 * depth * passes, wide=bool(fields.get("wide")))
        program.load(Target.PARAMETERS, address, 16 * columns)
    program.add(
        Opcode.PRODUCT, **fields, window_address=program.noise(size), window_beats=size // cfg.bus_bytes,
        parameters_step=1, result_address=program.noise(2 * columns * cfg.rows),
    )  # fmt: skip


def everything(config: Config) -> Program:
    """Dense and N:M, products of INT8 between them, sums that are kept."""
    program, window = Program(config, 5), config.window
    product(program, 6, 1, window, "dense", "dense")
    program.product(columns=4, depth=3, result_address=program.noise(4 * config.rows))
    product(program, 5, 2, window, "2:4", "index", result=int(Result.STORE16), wide=1)
    product(program, 4, 3, window // 2, "dense", "dense")
    product(program, 7, 2, window, "3:4", "bitmap")
    product(program, 3, 1, window, f"{window // 2}:{window}", "bitmap", unfinished=1)
    product(program, 3, 1, window // 2, "1:2", "index", continues=1, result=int(Result.STORE16), wide=1)
    product(program, 1, 1, window // 2, "2:8" if window > 8 else "2:4", "index")
    program.product(columns=3, depth=1, result_address=program.noise(4 * config.rows))
    return program


def test_products_in_blocks(hardware: AcceleratorModel) -> None:
    check(hardware, everything(hardware.config))


def test_wide_blocks() -> None:
    """Beside other blocks and INT8, on hardware that has groups enough."""
    hardware = AcceleratorModel(CONFIGS["8x8"])
    program, window = Program(hardware.config, 9), hardware.config.window
    product(program, 6, 1, window, "dense", "dense", wide_blocks=True)
    product(program, 5, 2, window, "2:4", "index", wide_blocks=True, result=int(Result.STORE16), wide=1)
    product(program, 4, 3, window // 2, "dense", "dense")
    product(program, 3, 1, window, f"{window // 2}:{window}", "bitmap", wide_blocks=True, unfinished=1)
    product(program, 3, 1, 4, "1:2", "index", wide_blocks=True, continues=1, result=int(Result.STORE16), wide=1)
    program.product(columns=3, depth=1, result_address=program.noise(4 * hardware.config.rows))
    product(program, 1, 2, 2, "dense", "dense", wide_blocks=True)
    check(hardware, program)


def test_without_waiting(hardware: AcceleratorModel) -> None:
    """Products one behind the other, whose weights are all there: one's first header beside another's last values."""
    cfg = hardware.config
    program = Program(cfg, 6)
    product(program, 9, 1, cfg.window, "dense", "dense")
    (*_, last) = program.instructions
    for number in range(12):
        fields = {k: v for k, v in last.fields.items() if not k.startswith("wait_")}
        fields["result_address"] = program.noise(2 * 9 * cfg.rows)
        if number % 3 == 2:  # the same words as INT8, as far as they go
            fields |= {"value_format": 0, "columns": 2, "count0": 2 * cfg.window}
        program.instructions.append(Instruction(Opcode.PRODUCT, fields))
    check(hardware, program)


def test_short_records(hardware: AcceleratorModel) -> None:
    """Of columns' parameters: the least and the greatest of each field, beside long ones, round the ring's end."""
    cfg = hardware.config
    program, columns = Program(cfg, 9), 12
    product(program, columns, 1, cfg.window, "dense", "dense")
    last = program.instructions.pop()
    for number in range(6):
        bias = program.rng.choice([-(1 << 23), (1 << 23) - 1, -1, 0, 3000, -3000], columns)
        bias[0] = (-(1 << 23), (1 << 23) - 1)[number % 2]
        # Biases of all 24 bits leave some bits in results of 16, the others by large multipliers.
        shift = np.where(abs(bias) > 1 << 20, 5 + number % 3, program.rng.integers(0, 3, columns))
        records = (bias & 0xFFFFFF).astype(np.uint64) | shift.astype(np.uint64) << np.uint64(40)
        records |= program.rng.choice([1, 30000, 65535], columns).astype(np.uint64) << np.uint64(24)
        records |= program.rng.integers(0, 32, columns).astype(np.uint64) << np.uint64(43)
        records |= program.rng.choice([0, 1, 65535], columns).astype(np.uint64) << np.uint64(48)
        base = cfg.parameter_words - 5 + number
        short = columns if number % 2 else columns - 4
        place = {"rows": 1, "address": program.put(records), "beats": -(-8 * short // cfg.bus_bytes)}
        program.add(Opcode.LOAD, **place, target=int(Target.SHORT_PARAMETERS), destination=base % cfg.parameter_words)
        if short < columns:  # the others' come in long records
            long = {"rows": 1, "address": program.parameters(4, 30000, wide=True), "beats": 64 // cfg.bus_bytes}
            to = (base + short) % cfg.parameter_words
            program.add(Opcode.LOAD, **long, target=int(Target.PARAMETERS), destination=to)
        results = {"result": int((Result.STORE16, Result.RESIDUAL)[number % 2]), "wide": 1}
        places = {n: program.noise(2 * columns * cfg.rows) for n in ("result_address", "residual_address")}
        places["parameters_base"] = base % cfg.parameter_words
        program.add(Opcode.PRODUCT, **{**last.fields, **results, **places})
    image = check(hardware, program)
    where = [i for i in program.instructions if i.opcode == Opcode.PRODUCT]
    stored = np.stack([image[i["result_address"] :][: 2 * columns * cfg.rows].view("<i2") for i in where])
    assert len(np.unique(stored[:, : cfg.rows])) > 2  # of the greatest biases not only saturated ones


@pytest.mark.parametrize("change", [-1, 1, -9])
def test_more_or_fewer_words(hardware: AcceleratorModel, change: int) -> None:
    """The engine reports it, whatever the words are that are missing; nothing waits for ever."""
    program = Program(hardware.config, 7)
    product(program, 4, 2, hardware.config.window, "dense", "dense")
    last = program.instructions[-1]
    program.instructions[-1] = Instruction(Opcode.PRODUCT, {**last.fields, "count0": last["count0"] + change})
    image, at = program.image()
    with pytest.raises(ProgramError) as refused:
        run_counted(image, at, program.config)
    run = hardware.run(image, at, memory=MemoryModel(), patience=50_000)
    assert (run.error, run.error_instruction) == (refused.value.error, refused.value.instruction)
    assert run.error == Error.ENGINE


def test_what_hardware_refuses(hardware: AcceleratorModel) -> None:
    """Codes that are none, runs too short; and all of it on hardware without the feature."""
    with pytest.raises(InputError, match="goes with run >= 2"):
        Instruction(Opcode.PRODUCT, {"value_format": 1, "run": 1})
    with pytest.raises(InputError, match="value_format = 3 is unknown"):
        Instruction(Opcode.PRODUCT, {"value_format": 3, "run": 4})
    with pytest.raises(InputError, match="value_format = 2 needs hardware with feature blocks4 and 8 times the groups"):
        assemble([Instruction(Opcode.PRODUCT, {"value_format": 2, "run": 2})], CONFIGS["4x2"])
    with pytest.raises(InputError, match="needs the feature blocks4"):
        assemble([Instruction(Opcode.PRODUCT, {"value_format": 1, "run": 2})], PRESETS["ci"])
    program = Program(hardware.config, 8)
    product(program, 4, 1, hardware.config.window, "dense", "dense")
    image, at = program.image()
    place = at + 64 + sum(len(i.pack()) for i in program.instructions) - 8
    word = int(image[place : place + 8].view("<u8")[0])
    short = word & ~(0x3F << 40) | 1 << 40
    wide = [short ^ 3 << 38] if hardware.config.wide_block_groups else [word ^ 3 << 38]  # value_format 2
    for bits in (word & ~(0x3F << 40), short, *wide, word | 3 << 38, word | 1 << 46):
        changed = image.copy()
        changed[place : place + 8] = np.array([bits], "<u8").view(np.uint8)
        with pytest.raises(ProgramError) as refused:
            run_counted(changed, at, hardware.config)
        run = hardware.run(changed, at, memory=MemoryModel(), patience=50_000)
        assert (run.error, run.error_instruction) == (Error.OPCODE, refused.value.instruction)
    lacking = dataclasses.replace(hardware.config, features=())
    assert "blocks4" not in lacking.features
