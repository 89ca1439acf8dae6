"""Whole accelerators as boards have them, and buses of every width: RTL against the reference, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from support import embed

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.outcome import compare
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error
from sta_hw.spec.presets import BOARD_PRESETS

BUSES = {
    "32 bytes": Config(rows=32, groups=2, window=16, lanes=32, drain_lanes=4, columns=64, weight_words=2048),
    "32 bytes, half the rows": Config(rows=64, groups=4, window=16, lanes=32, drain_lanes=16, columns=64, burst=128),
    "64 bytes": Config(rows=64, groups=2, window=32, lanes=64, drain_lanes=8, columns=64, weight_words=2048, burst=64),
    "64 bytes, widest drain, shortest bursts": Config(
        rows=64, groups=2, window=32, lanes=64, drain_lanes=32, columns=64, norm_columns=16, outstanding=2, burst=2
    ),
}


def run_equal(config: Config, tokens: tuple[int, ...], **shape: int) -> None:
    """Random encoders of mixed N:M on the RTL, in a quiet and in a stalling memory, equal to the reference."""
    model = AcceleratorModel(config)
    patterns = mixed_patterns(list(config.patterns))
    for number, count in enumerate(tokens):
        network = random_model(number, **{"hidden": 32, "heads": 2, "intermediate": 64} | shape)
        quantized = quantize(network, [random_ids(i, 12) for i in range(3)], patterns)
        program = compile_encoder(quantized, config, count)
        image = program.with_input(embed(network, random_ids(number, count)))
        expected = run_program(image, program.program_address, config, length=program.length)
        for memory in (MemoryModel(), MemoryModel(latency=30, beats_per_cycle=0.6, stall=0.4, seed=count, shared=True)):
            run = model.run(image, program.program_address, memory=memory, patience=50_000, length=program.length)
            assert run.error == Error.NONE
            compare(program, run.image, expected)


SLOW = (
    "ecp5-45f",
    "ecp5-85f",
    "ecp5-85f-256",
    "ecp5-85f-decoder",
    "ecp5-85f-decoder-sdram",
    "64 bytes",
    "32 bytes, half the rows",
    "64 bytes, widest drain, shortest bursts",
)
"""What takes minutes to build: ``pytest -m slow tests/spec/test_presets.py``."""


def chosen(names: Iterable[str]) -> list[Any]:
    """Parameters, the slow ones marked."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@pytest.mark.parametrize("name", chosen(BOARD_PRESETS))
def test_a_boards_accelerator(name: str) -> None:
    config = BOARD_PRESETS[name]
    run_equal(config, (1, config.rows + 3))


@pytest.mark.parametrize("name", chosen(BUSES))
def test_a_wide_bus(name: str) -> None:
    run_equal(BUSES[name], (1, 70))
