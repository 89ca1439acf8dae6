"""Encoders' windows that stay on chip: fewer reads, the same results; what never stayed is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import embed

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.kept import KeptWindows
from sta_hw.compiler.liveness import check_liveness
from sta_hw.compiler.quantize import quantize
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.errors import InputError
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.spec.expansion import unroll
from sta_hw.spec.isa import Instruction, Opcode
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS

PLAIN = PRESETS["ci"]
KEPT = replace(PLAIN, window_words=256, loads_ahead=1)


@pytest.mark.parametrize("tokens", [[3], [19], [5, 9]])
def test_an_encoder(tokens: list[int]) -> None:
    """Several chunks of columns, several layers that take the same values; one tile, several, several texts."""
    model = random_model(3, hidden=32, heads=2, intermediate=72)
    quantized = quantize(model, [random_ids(i, 24) for i in range(3)], mixed_patterns([parse_nm("2:4")]))
    texts = [embed(model, random_ids(60 + i, n)) for i, n in enumerate(tokens)]
    read, products = {}, {}
    for config in (PLAIN, KEPT):
        words = config.window_words
        compiled = compile_encoder(quantized, config, tokens)
        image = compiled.with_input(texts)
        hardware = AcceleratorModel(config)
        wanted = run_program(image, compiled.program_address, config, length=compiled.length)
        for memory in (MemoryModel(), MemoryModel(latency=20, stall=0.3, seed=1)):
            run = hardware.run(image, compiled.program_address, length=compiled.length, memory=memory)
            np.testing.assert_array_equal(run.image, wanted)
            if not memory.stall:
                estimate = estimate_cycles(
                    compiled.instructions, config, MachineTiming(latency=memory.latency, beats_per_cycle=1.0)
                )
                assert abs(estimate - run.cycles) <= 0.03 * run.cycles
                read[words] = run.counters["read_beats"]
        flat = [f.instruction for f in unroll(compiled.instructions, config) if f.instruction.opcode == Opcode.PRODUCT]
        products[words] = sum(i["kept"] for i in flat) / len(flat)
    assert read[256] < read[0] and products[256] > products[0] == 0


def test_what_stays() -> None:
    """As hardware has it: what joins, what stands alone, what has no room."""
    on_chip = KeptWindows(replace(PLAIN, window_words=64))
    bus = PLAIN.bus_bytes
    assert not on_chip.keep(0, 65) and not on_chip.there(0, 1)
    assert on_chip.keep(bus * 10, 40) and on_chip.there(bus * 49, 1) and not on_chip.there(bus * 9, 2)
    assert on_chip.keep(bus * 50, 24) and on_chip.there(bus * 10, 64)
    assert on_chip.keep(bus * 74, 1) and not on_chip.there(bus * 10, 1) and on_chip.there(bus * 74, 1)
    assert on_chip.keep(bus * 76, 1) and not on_chip.there(bus * 74, 1)
    assert not on_chip.there(bus * 76 + 1, 0)
    assert on_chip.keep(0, 64) and on_chip.there(0, 64)


def test_programs_that_hardware_would_refuse() -> None:
    config = replace(PLAIN, window_words=64)
    fields = {"passes": 1, "depth": 1, "n": 1, "columns": 2, "count0": 2, "count1": 1, "count2": 1, "count3": 1,
              "window_beats": 2}  # fmt: skip
    first, halt = Instruction(Opcode.PRODUCT, {**fields, "keep": 1}), Instruction(Opcode.HALT)
    check_liveness([first, Instruction(Opcode.PRODUCT, {**fields, "kept": 1}), halt], config)
    with pytest.raises(InputError, match=r"instruction 1 \(PRODUCT\) takes kept windows from address 8, and not all"):
        check_liveness([first, Instruction(Opcode.PRODUCT, {**fields, "kept": 1, "window_address": 8}), halt], config)
    more = {**fields, "passes": 40, "window_beats": 80, "keep": 1}
    with pytest.raises(InputError, match="keeps 80 words of windows, more than window_words = 64; 128 would do"):
        check_liveness([Instruction(Opcode.PRODUCT, more), halt], config)
