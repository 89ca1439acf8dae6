"""Registers and controller against their model: random writes, reads and core behaviour, in every state and cycle."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from sim.control import run_control
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

PHASES = ("idle", "quieting", "resetting", "clean", "starting", "running")
ENDS = ("complete", "failures", "misplaced")
NO_BURSTS = Config(
    rows=4, groups=2, window=8, lanes=4, drain_lanes=1, columns=32, weight_words=512, parameter_words=64,
    norm_columns=16, burst=1, outstanding=2,
)  # fmt: skip


def test_a_million_cycles_of_random_registers() -> None:
    run = run_control(PRESETS["ci"], 1_000_000, seed=1)
    assert run.cycles == 1_000_000
    # What happens when was all met, each write in each phase and in the very cycle of each end.
    met: Counter[str] = run.coincidences
    for write, phase in itertools.product(("start", "reset", "clear", "enable"), PHASES):
        assert met[f"{write} when {phase}"] > 20, (write, phase)
    for write, end in itertools.product(("start", "reset", "clear", "enable"), ENDS):
        assert met[f"{write} with {end}"] > 20, (write, end)
    for phase in PHASES[1:]:
        assert met[f"place written when {phase}"] > 20, phase
    assert met["start with reset"] > 20
    assert met["image to the end of addresses"] > 10
    assert min(run.ended[end] for end in (*ENDS, "abandoned")) > 1000
    assert run.counter_reads > 10_000


@pytest.mark.parametrize("seed", [2, 3])
def test_the_interrupt_rises_once_for_each_job_that_ends(seed: int) -> None:
    run = run_control(PRESETS["ci"], 100_000, seed, enabled=True)
    assert run.rises == sum(run.ended[end] for end in ENDS) > 1000
    assert run.ended["abandoned"] > 200


def test_other_hardware() -> None:
    for number, config in enumerate((NO_BURSTS, PRESETS["reference"])):
        assert min(run_control(config, 50_000, seed=number).ended.values()) > 100
