"""Small accelerators and programs for them, with mixed N:M, and programs with other instructions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from support import embed

from sim.accelerator import AcceleratorModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import quantize
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Opcode, assemble
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS

CONFIGS = {
    "ci": PRESETS["ci"],
    "ci, half the ring": dataclasses.replace(
        PRESETS["ci"], weight_words=1024, parameter_words=64, columns=128, burst=32
    ),
    "8x8 bitmap": Config(
        rows=8, groups=8, window=8, lanes=8, drain_lanes=2, columns=128, encodings=("bitmap",),
        nm=("2:4", "1:4", "3:8"), weight_words=1024, parameter_words=512, norm_columns=16, burst=4, outstanding=3,
    ),
    "16x4": Config(
        rows=16, groups=4, window=32, lanes=16, drain_lanes=8, columns=64, weight_words=2048, parameter_words=256,
        norm_columns=32, burst=32, outstanding=8, multiplier="dsp",
    ),
}  # fmt: skip
PATTERNS = {
    "ci": ["2:4", "dense", "4:16", "1:8", "12:16", "1:2"],
    "ci, half the ring": ["2:4", "dense"],
    "8x8 bitmap": ["2:4", "1:4", "dense", "3:8"],
    "16x4": ["2:16", "8:16", "2:32", "dense", "1:4"],
}


def built() -> Callable[[str], AcceleratorModel]:
    """What gives the model of a configuration, made when it is asked for first."""
    models: dict[str, AcceleratorModel] = {}

    def get(name: str) -> AcceleratorModel:
        if name not in models:
            models[name] = AcceleratorModel(CONFIGS[name])
        return models[name]

    return get


def compiled(
    name: str, tokens: int, seed: int = 0, loops: bool = True, **shape: int
) -> tuple[CompiledModel, np.ndarray]:  # fmt: skip
    """A small model with mixed N:M and its image with an input."""
    model = random_model(seed, **shape)
    patterns = mixed_patterns([parse_nm(p) for p in PATTERNS[name]])
    quantized = quantize(model, [random_ids(i, 12) for i in range(3)], patterns)
    program = compile_encoder(quantized, CONFIGS[name], tokens, loops=loops)
    return program, program.with_input(embed(model, random_ids(seed, tokens)))


def reassembled(program: CompiledModel, image: np.ndarray, instructions: list[Instruction]) -> np.ndarray:
    """The image with other instructions."""
    changed = image.copy()
    data = np.frombuffer(assemble(instructions, program.config), np.uint8)
    changed[program.program_address :][: len(data)] = data
    return changed


def with_fields(instructions: list[Instruction], number: int, **fields: int) -> list[Instruction]:
    """One instruction's fields replaced."""
    changed = list(instructions)
    changed[number] = Instruction(changed[number].opcode, dict(changed[number].fields) | fields)
    return changed


def find(program: CompiledModel, opcode: Opcode, skip: int = 0) -> int:
    """Number of an instruction."""
    return [n for n, i in enumerate(program.instructions) if i.opcode == opcode][skip]
