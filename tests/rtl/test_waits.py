"""What waits for all but the last few of a class: the others are finished, in whatever time memory answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_malformed import AT, CONTEXT, DEPTH, HALT, LOADS, image_of, multiplied, scores

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.reference.program import run_program
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Instruction, Opcode, Result
from sta_hw.spec.presets import PRESETS

CONFIGS = {"scores": PRESETS["ci"], "lists": dataclasses.replace(PRESETS["ci"], features=("decoder",))}
MEMORIES = [MemoryModel(latency=n, beats_per_cycle=b) for n in (1, 20, 100) for b in (1.0, 0.4, 0.1)]
MEMORIES += [MemoryModel(latency=n, stall=0.6, seed=n) for n in (5, 50)]


@pytest.mark.parametrize("what", CONFIGS)
def test_what_stores_nothing_does_not_overtake_what_does(what: str) -> None:
    """A product's results are read when all but one product are finished; the one stays on chip, and is quicker.

    Found by random programs: scores were counted while stores before them were still on their way.
    """
    config: Config = CONFIGS[what]
    large = multiplied(
        Opcode.PRODUCT, columns=48, count0=48 * DEPTH, result=Result.STORE16, wide=1, result_address=0x2800
    )
    quick = scores() if what == "scores" else multiplied(Opcode.PRODUCT, result=Result.BEST, wide=1, row_first=1)
    reads = {"window_address": 0x2800 + 2 * 44 * config.rows, "result_address": 0x3000}
    model = AcceleratorModel(config)
    for between in (1,) if what == "scores" else (1, 2, 5):
        program = [*LOADS, large, *between * [quick], multiplied(Opcode.PRODUCT, wait_products=between + 1, **reads)]
        program += [Instruction(CONTEXT.opcode, CONTEXT.fields)] if what == "scores" else []
        image = image_of([*program, HALT], config)
        expected = run_program(image, AT, config)
        for memory in MEMORIES:
            run = model.run(image, AT, memory=memory)
            assert run.error == Error.NONE
            np.testing.assert_array_equal(run.image, expected, err_msg=str(memory))
