"""A run in slices is one run: its samples and completions do not depend on where the simulation pauses."""

from __future__ import annotations

import numpy as np
import pytest
from support import embed

from sim import accelerator
from sim.accelerator import AcceleratorModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.model.random import random_ids, random_model
from sta_hw.spec.presets import PRESETS


@pytest.mark.parametrize(("wanted", "period"), [(1, 64), (500, 64), (300, 1000)])
def test_slices_change_nothing(wanted: int, period: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(0, hidden=32, heads=2, layers=1, intermediate=64)
    program = compile_encoder(quantize(model, [random_ids(0, 12)], {}), PRESETS["ci"], 5)
    image = program.with_input(embed(model, random_ids(1, 5)))
    hardware, runs = AcceleratorModel(PRESETS["ci"]), []
    for cycles in (1 << 20, wanted):
        monkeypatch.setattr(accelerator, "_SLICE", cycles)
        runs.append(hardware.run(image, program.program_address, length=program.length, period=period))
    whole, sliced = runs
    assert whole.cycles > 4 * max(wanted, period)
    assert whole.cycles == sliced.cycles and whole.counters == sliced.counters
    assert len(whole.samples) == whole.cycles // period and np.array_equal(whole.samples, sliced.samples)
    assert whole.completed.keys() == sliced.completed.keys()
    for name, times in whole.completed.items():
        assert len(times) and np.array_equal(times, sliced.completed[name]), name
