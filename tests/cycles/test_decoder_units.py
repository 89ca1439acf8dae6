"""The cycle model on what decoders add to the result path: products of each kind alone, against RTL."""

from __future__ import annotations

import numpy as np
import pytest
from test_decoder_features import CONFIGS

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.formats.block_words import block_words
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode, Result, Target, ValueFormat, assemble

HALT = Instruction(Opcode.HALT)


def product(config: Config, columns: int, passes: int, **fields: int) -> Instruction:
    depth = config.window
    window = config.groups * depth * config.rows // config.bus_bytes
    shape = {
        "window_beats": passes * window, "n": 1, "depth": depth, "columns": columns, "passes": passes, "wide": 1,
        "count0": passes * columns * depth, "stride0": 1, "count1": 1, "count2": 1, "count3": 1, "parameters_step": 1,
        "result_address": 0x20000, "residual_address": 0x40000,
    }  # fmt: skip
    if fields.get("value_format"):
        wide = fields["value_format"] == ValueFormat.WIDE_BLOCKS4
        shape["count0"] = block_words(config.block_groups, fields["run"], passes * columns, wide=wide)
    return Instruction(Opcode.PRODUCT, shape | fields)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_products_of_pairs_and_lists_are_followed(name: str) -> None:
    config = CONFIGS[name]
    hardware = AcceleratorModel(config)
    kinds: list[dict[str, int]] = [
        {"result": Result.ACTIVATE, "multiply": 1}, {"result": Result.STORE16, "multiply": 1},
        {"result": Result.STORE8, "rotate": 1}, {"result": Result.TRANSPOSE, "rotate": 1},
        {"result": Result.BEST, "row_first": 1}, {"result": Result.BEST, "row_last": 1},
        {"result": Result.BEST, "row_first": 1, "row_last": 1},
        {"result": Result.STORE16, "value_format": 1, "run": config.window},
    ]  # fmt: skip
    if config.wide_block_groups:
        kinds.append({"result": Result.STORE16, "value_format": 2, "run": config.window})
    for fields in kinds:
        for columns, passes in ((4 * config.groups, 1), (4 * config.groups, 3)):
            program = [product(config, columns, passes, **fields), HALT]
            image = np.zeros(1 << 20, np.uint8)
            data = np.frombuffer(assemble(program, config), np.uint8)
            image[1 << 19 :][: len(data)] = data
            run = hardware.run(image, 1 << 19, memory=MemoryModel(latency=20))
            assert run.error == Error.NONE
            difference = round(estimate_cycles(program, config, MachineTiming(20))) - run.cycles
            assert abs(difference) <= 4, (fields, columns, passes, run.cycles, difference)
    hardware.close()


@pytest.mark.slow  # a model of its own
def test_loads_of_columns_are_followed() -> None:
    """Long records as fast as a bus of 16 bytes has them, short ones half as fast."""
    config = Config(
        rows=16, groups=4, window=8, lanes=16, drain_lanes=4, columns=64, weight_words=1024, parameter_words=256,
        norm_columns=32, features=("blocks4",),
    )  # fmt: skip
    hardware, found = AcceleratorModel(config), {}
    for target in (Target.PARAMETERS, Target.SHORT_PARAMETERS):
        for beats, latency in ((1, 20), (16, 20), (128, 20), (128, 50)):
            program = [Instruction(Opcode.LOAD, {"target": target, "beats": beats, "rows": 1}), HALT]
            image = np.zeros(1 << 20, np.uint8)
            data = np.frombuffer(assemble(program, config), np.uint8)
            image[1 << 19 :][: len(data)] = data
            run = hardware.run(image, 1 << 19, memory=MemoryModel(latency=latency))
            assert run.error == Error.NONE
            difference = round(estimate_cycles(program, config, MachineTiming(latency))) - run.cycles
            assert abs(difference) <= 3, (target, beats, latency, run.cycles, difference)
            found[target, beats, latency] = run.cycles
    hardware.close()
    assert found[Target.SHORT_PARAMETERS, 128, 20] > found[Target.PARAMETERS, 128, 20] + 100


@pytest.mark.parametrize("name", list(CONFIGS))
def test_products_of_two_digits_are_followed(name: str) -> None:
    """High digits, then low ones that continue: windows of 16 bits twice, kept sums in between."""
    config = CONFIGS[name]
    hardware = AcceleratorModel(config)
    for columns, passes in ((4 * config.groups, 1), (4 * config.groups, 3), (1, 2)):
        for result in (Result.STORE16, Result.ACTIVATE):
            both = product(config, columns, passes, result=result, bits15=1)
            both = both.fields | {"window_beats": 2 * both["window_beats"]}
            program = [
                Instruction(Opcode.PRODUCT, {**both, "digit": 1, "unfinished": 1}),
                Instruction(Opcode.PRODUCT, {**both, "digit": 2, "continues": 1, "lift": 1}), HALT,
            ]  # fmt: skip
            image = np.zeros(1 << 20, np.uint8)
            data = np.frombuffer(assemble(program, config), np.uint8)
            image[1 << 19 :][: len(data)] = data
            run = hardware.run(image, 1 << 19, memory=MemoryModel(latency=20))
            assert run.error == Error.NONE
            difference = round(estimate_cycles(program, config, MachineTiming(20))) - run.cycles
            assert abs(difference) <= max(4, run.cycles // 100), (result, columns, passes, run.cycles, difference)
    hardware.close()
