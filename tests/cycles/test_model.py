"""The cycle model: its parts, against RTL instruction by instruction, on whole programs, and in outline."""

from __future__ import annotations

from collections.abc import Sequence

import measured
import numpy as np
import pytest

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.bench.model import BAR, CONFIGURATIONS, SHAPES, compare
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.outline import outline_encoder
from sta_hw.compiler.shapes import shape_graph
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.model.families.layers import LINEAR
from sta_hw.spec.config import Config
from sta_hw.spec.isa import WORD_BYTES, Error, Instruction, Opcode, Target, assemble, codes
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import preset

HALT = Instruction(Opcode.HALT)
NAMES = [pytest.param(n, marks=pytest.mark.slow if n in ("wide", "ecp5-25f") else ()) for n in CONFIGURATIONS]
"""A model of the widest takes minutes to compile, and that of a board the better part of one."""


def load(target: int, beats: int, rows: int = 1) -> Instruction:
    return Instruction(Opcode.LOAD, {"target": target, "beats": beats, "rows": rows, "stride": 1024})


def product(config: Config, columns: int, passes: int, depth: int, result: int) -> Instruction:
    window = config.groups * depth * config.rows // config.bus_bytes
    fields = {
        "window_beats": passes * window, "n": 1, "depth": depth, "columns": columns, "passes": passes,
        "wide": int(result in (1, 3)), "count0": passes * columns * depth, "stride0": 1, "count1": 1, "count2": 1,
        "count3": 1, "parameters_step": 1, "result": result, "result_address": 0x20000, "residual_address": 0x40000,
    }  # fmt: skip
    return Instruction(Opcode.PRODUCT, fields)


def norm(width: int) -> Instruction:
    fields = {
        "wide_address": 0x20000, "narrow_address": 0x40000, "parameters_address": 0x60000, "width": width,
        "inverse": round(2**33 / width) & 0xFFFFFFFF,
    }  # fmt: skip
    return Instruction(Opcode.NORM, fields)


def programs(config: Config) -> list[tuple[list[Instruction], int]]:
    """Programs of one unit each, and by how many cycles the model may miss them."""
    g = config.groups
    found: list[tuple[list[Instruction], int]] = [([], 0)]
    found += [([load(target, beats)], 1) for target in codes("target", config.features) for beats in (1, 16, 256)]
    found += [([load(Target.VALUES, 64)] * 4, 5), ([load(Target.VALUES, 8, rows=16)], 4)]
    found += [([product(config, 4 * g, 1, 16, result)], 2) for result in range(5)]
    found += [([product(config, 2 * g, 4, 16, 0)], 2), ([product(config, 2, 4, 16, 0)], 2)]
    found += [([norm(16)], 8), ([norm(64)] * 4, 30)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_single_units_are_followed_to_the_cycle(name: str) -> None:
    config = CONFIGURATIONS[name]
    hardware = AcceleratorModel(config)

    def cycles(instructions: Sequence[Instruction], latency: int) -> int:
        image = np.zeros(1 << 20, np.uint8)
        program = np.frombuffer(assemble(instructions, config), np.uint8)
        image[1 << 19 :][: len(program)] = program
        run = hardware.run(image, 1 << 19, memory=MemoryModel(latency=latency))
        assert run.error == Error.NONE
        return run.cycles

    # Of a beat with several of the program's words, when each is at hand is known to two cycles.
    slack = 2 if config.bus_bytes > WORD_BYTES else 0
    for instructions, most in programs(config):
        for latency in (20, 50):
            program = [*instructions, HALT]
            difference = round(estimate_cycles(program, config, MachineTiming(latency))) - cycles(program, latency)
            assert abs(difference) <= most + slack, (instructions[:1], len(instructions), latency, difference)
    hardware.close()


@pytest.mark.parametrize("name", NAMES)
def test_whole_programs_are_followed(name: str) -> None:
    """A sample of `sta-hw bench model`."""
    config = CONFIGURATIONS[name]
    hardware = AcceleratorModel(config)
    for shape in SHAPES[name][:5]:
        for row in compare(hardware, config, shape):
            assert abs(row["error"]) <= BAR, row
    hardware.close()


SHAPES_IN_OUTLINE = [
    ("reference", 384, 12, 1536, 2, 16, "2:4"), ("reference", 128, 4, 512, 3, 300, "4:16"),
    ("ecp5-25f", 64, 2, 256, 2, 33, "dense"), ("small", 96, 3, 384, 1, 70, "1:4"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "hidden", "heads", "intermediate", "layers", "tokens", "nm"), SHAPES_IN_OUTLINE)
def test_a_whole_outline_is_the_compiled_program(
    name: str, hidden: int, heads: int, intermediate: int, layers: int, tokens: int, nm: str
) -> None:
    patterns = {f"{layer}.{linear}": parse_nm(nm) for layer in range(layers) for linear in LINEAR.values()}
    config = preset(name)
    compiled = compile_encoder(shape_graph(hidden, heads, layers, intermediate, patterns), config, tokens, loops=False)
    outline = outline_encoder(hidden, heads, layers, intermediate, patterns, config, tokens, whole=True)
    assert [(i.opcode, i.fields) for i in outline.instructions] == [(i.opcode, i.fields) for i in compiled.instructions]
    assert set(outline.weights) == {1.0} and not outline.problems
    assert outline.ideal_cycles == compiled.info.ideal_cycles


@pytest.mark.parametrize(
    ("name", "hidden", "heads", "intermediate", "layers", "tokens", "nm", "memory"),
    [
        # Tiles and layers are cut; LayerNorm is the slowest; blocks are cut; chunks are cut.
        pytest.param("reference", 128, 2, 256, 3, 1700, "2:4", MachineTiming(), marks=pytest.mark.slow),
        ("small", 128, 4, 512, 1, 900, "1:4", MachineTiming()),
        pytest.param("ecp5-25f", 64, 2, 256, 2, 700, "dense", MachineTiming(shared=True), marks=pytest.mark.slow),
        pytest.param("ci", 32, 4, 1024, 1, 400, "4:16", MachineTiming(beats_per_cycle=0.5), marks=pytest.mark.slow),
    ],
)
def test_outlines_take_as_long_as_whole_programs(
    name: str, hidden: int, heads: int, intermediate: int, layers: int, tokens: int, nm: str, memory: MachineTiming
) -> None:
    patterns = {f"0.{linear}": parse_nm(nm) for linear in LINEAR.values()}
    config = preset(name)
    cycles, kept, totals = [], [], []
    for whole in (False, True):
        outline = outline_encoder(
            hidden, heads, layers, intermediate, patterns, config, tokens, alike=True, whole=whole
        )  # fmt: skip
        cycles.append(estimate_cycles(outline.instructions, config, memory, outline.weights))
        kept.append(len(outline.instructions))
        totals.append(sum(outline.weights))
    assert kept[0] < 0.4 * kept[1] and totals[0] == pytest.approx(totals[1], rel=0.001)
    assert cycles[0] == pytest.approx(cycles[1], rel=0.002)


def test_outlines_say_what_could_not_be_compiled() -> None:
    patterns = {f"0.{linear}": parse_nm("2:4") for linear in LINEAR.values()}
    outline = outline_encoder(384, 12, 6, 1536, patterns, preset("reference"), 100_000, alike=True)
    problems = "\n".join(outline.problems)
    assert "pooling 100000 tokens" in problems and "bytes, and the hardware takes 8,388,544" in problems
    assert "addresses reach 4,294,967,296" in problems and len(outline.instructions) < 30_000


@pytest.mark.parametrize("name", measured.CONFIGS)
def test_what_was_measured_is_what_the_rtl_takes(name: str) -> None:
    """The numbers of measured.py, to the cycle."""
    hardware = AcceleratorModel(measured.CONFIGS[name])
    runs = {key: (measured.in_memory(program, hardware.config), 1 << 19, 0)
            for key, program in measured.programs().items() if key[0] == name}  # fmt: skip
    for encoder in measured.ENCODERS if name == "encoder" else ():
        compiled = measured.encoder(encoder)
        found = compiled.image, compiled.program_address, compiled.length
        runs[name, f"an encoder of {encoder}"] = found
    assert runs.keys() == {key for key in measured.MEASURED if key[0] == name}
    for key, (image, address, length) in runs.items():
        cycles = []
        for timing in measured.MEMORIES.values():
            memory = MemoryModel(timing.latency, timing.beats_per_cycle, timing.shared)
            run = hardware.run(image, address, memory=memory, length=length)
            assert run.error == Error.NONE
            cycles.append(run.cycles)
        assert cycles == [rtl for rtl, _ in measured.MEASURED[key]], key
    hardware.close()
