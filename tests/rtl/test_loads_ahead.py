"""LOADs that memory is asked for while others come: any of them, RTL against the reference; and no latency between."""

from __future__ import annotations

import dataclasses

import numpy as np
from test_decoder_features import Program, memories

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.reference.program import run_counted
from sta_hw.spec.isa import Error, Instruction, Opcode, Target, assemble, disassemble
from sta_hw.spec.presets import PRESETS

CONFIG = dataclasses.replace(PRESETS["ci"], window_words=256, loads_ahead=1)


def test_any_loads() -> None:
    """Of every memory, in one run or several, some of nothing, behind one another without a wait; what they brought is
    seen by products, and by LOADs that overwrite it only when it was."""
    hardware = AcceleratorModel(CONFIG)
    for seed in range(4):
        program = Program(CONFIG, seed)
        rng, bus = program.rng, CONFIG.bus_bytes
        for turn in range(8):
            words = 48
            size = words * CONFIG.groups
            place = program.noise(4 * size)
            loads = [{"target": int(Target.VALUES), "beats": size // bus, "rows": 1, "address": place}]
            for number in range(int(rng.integers(12))):
                beats = int(rng.choice([0, 1, 2, 7, 40]))
                loads.append({
                    "target": int(rng.choice([Target.VALUES, Target.POSITIONS, Target.PARAMETERS])),
                    "beats": beats, "rows": int(rng.integers(4)), "stride": bus * int(rng.integers(30)),
                    "address": place + bus * int(rng.integers(8)), "destination": int(rng.integers(64, 128)),
                    **({"wait_matrix": 1} if number % 5 == 4 else {}),
                })  # fmt: skip
            loads[0] |= {"wait_matrix": 1, "wait_products": 1}
            program.instructions += [Instruction(Opcode.LOAD, {"wait_products": 1, **fields}) for fields in loads]
            program.load(Target.PARAMETERS, program.parameters(6, 20000, wide=False), 16 * 6)
            windows = CONFIG.rows * CONFIG.groups * 8
            program.instructions.append(
                Instruction(Opcode.PRODUCT, {
                    "wait_loads": 1, "window_address": program.noise(windows), "window_beats": windows // bus,
                    "count0": 48, "stride0": 1, "count1": 1, "count2": 1, "count3": 1, "columns": 6, "passes": 1,
                    "n": 1, "depth": 8, "parameters_step": 1, "result_address": program.noise(6 * CONFIG.rows),
                })
            )  # fmt: skip
            assert turn < 8
        image, at = program.image()
        wanted = run_counted(image, at, CONFIG).image
        for memory in memories():
            run = hardware.run(image, at, memory=memory, patience=50_000)
            assert run.error == Error.NONE
            np.testing.assert_array_equal(run.image, wanted)


def test_no_latency_between() -> None:
    """As many LOADs as a unit's queues hold, of 8 beats each, from a memory of 50 cycles; the cycle model agrees."""
    cycles = {}
    for ahead, config in enumerate((PRESETS["ci"], CONFIG)):
        loads = [Instruction(Opcode.LOAD, {"address": 64 * n, "rows": 1, "beats": 8}) for n in range(32)]
        program = assemble([*loads, Instruction(Opcode.HALT)], config)
        image = np.concatenate([np.frombuffer(program, np.uint8), np.zeros(-len(program) % 64 + 4096, np.uint8)])
        image = np.concatenate([image, np.zeros(-len(image) % 64, np.uint8)])
        run = AcceleratorModel(config).run(image, 0, memory=MemoryModel(latency=50))
        assert run.error == Error.NONE
        estimate = estimate_cycles(disassemble(program, config), config, MachineTiming(latency=50))
        assert abs(estimate - run.cycles) <= 0.05 * run.cycles, (ahead, estimate, run.cycles)
        cycles[ahead] = run.cycles
    assert cycles[0] - cycles[1] > 31 * 50
