"""Rolled programs: they expand to the flat ones, are small, and take no longer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support import embed

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.outline import shape_program
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.roll import roll
from sta_hw.compiler.schedule import NEVER, Scheduled
from sta_hw.compiler.shorter import shortened
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.errors import InputError
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.outcome import compare
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import expand
from sta_hw.spec.isa import WAITS, Error, Instruction, Opcode, assemble, disassemble, program_bytes
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import BOARD_PRESETS, PRESETS, preset

Shape = tuple[int, int, int, int]
"""Hidden size, heads, layers, tokens; four times as wide between."""


def flat_program(shape: Shape, config: Config, nm: str) -> list[Scheduled]:
    hidden, heads, layers, tokens = shape
    patterns = {f"{layer}.{name}": parse_nm(nm) for layer in range(layers) for name in LINEAR.values()}
    return shape_program(hidden, heads, layers, 4 * hidden, patterns, config, tokens)


def plain(flat: Sequence[Scheduled]) -> list[Instruction]:
    """The flat program with the longest waits that will do."""
    return [Instruction(i.opcode, i.fields) for i in flat]


def require_same(
    rolled: Sequence[Instruction], labels: Sequence[str], flat: Sequence[Scheduled], config: Config
) -> None:
    """By the instruction set's own expansion of what is read from its bytes."""
    read = disassemble(assemble(rolled, config), config)
    assert read == list(rolled) and len(labels) == len(rolled)
    names = tuple(f"wait_{name}" for name in WAITS)
    for found, wanted in zip(expand(read, config), flat, strict=True):
        fields = {n: v for n, v in found.fields.items() if n not in names}
        assert (found.opcode, fields) == (
            wanted.opcode,
            {n: v for n, v in wanted.fields.items() if v and n not in names},
        )
        for name, least in zip(names, wanted.least, strict=True):
            assert least <= (found.fields.get(name) or NEVER) <= (wanted.fields.get(name) or NEVER)


SMALL: dict[str, tuple[Shape, str]] = {
    "ci": ((64, 2, 1, 70), "2:4"), "tiny": ((64, 4, 2, 33), "2:4"), "small": ((128, 4, 2, 100), "2:16"),
    "reference": ((128, 4, 2, 128), "4:16"), "medium": ((256, 4, 1, 200), "2:16"), "large": ((256, 4, 1, 200), "2:4"),
    "huge": ((256, 4, 1, 500), "2:4"), "ecp5-85f": ((64, 2, 1, 70), "dense"), "ecp5-45f": ((128, 4, 1, 100), "2:4"),
    "ecp5-25f": ((64, 2, 1, 70), "2:4"), "ecp5-85f-256": ((128, 2, 1, 70), "8:16"), "up5k": ((8, 2, 1, 20), "2:4"),
    "decoder": ((128, 2, 1, 70), "2:4"), "ecp5-85f-decoder": ((128, 2, 1, 70), "8:16"),
    "ecp5-85f-decoder-sdram": ((128, 2, 1, 70), "2:4"),
}  # fmt: skip


def test_there_is_a_shape_for_each_preset() -> None:
    assert SMALL.keys() == PRESETS.keys() | BOARD_PRESETS.keys()


@pytest.mark.parametrize("name", SMALL)
def test_every_preset(name: str) -> None:
    """Whatever the memory, loops take no cycles; where units are nearly balanced a figure moves by two thousandths."""
    shape, nm = SMALL[name]
    config = preset(name)
    flat = flat_program(shape, config, nm)
    rolled, labels = roll(flat)
    require_same(rolled, labels, flat, config)
    assert program_bytes(rolled) < 0.75 * program_bytes(plain(flat))
    for memory in (MachineTiming(50), MachineTiming(50, 0.5, True)):
        cycles = [estimate_cycles(program, config, memory) for program in (plain(flat), rolled)]
        assert cycles[1] <= 1.0025 * cycles[0], (name, memory, cycles)


@pytest.mark.parametrize(("tokens", "most"), [(16, 32_000), (128, 48_000)])
def test_minilm(tokens: int, most: int) -> None:
    config = preset("reference")
    flat = flat_program((384, 12, 6, tokens), config, "2:4")
    rolled, labels = roll(flat)
    require_same(rolled, labels, flat, config)
    assert program_bytes(rolled) <= most


def test_a_large_program_is_small() -> None:
    """12 layers, 768 wide, 12 heads, 512 tokens: 36,864 attention instructions, 2.4 MB of them; in 200 kB."""
    config = preset("reference")
    flat = flat_program((768, 12, 12, 512), config, "2:4")
    assert sum(i.opcode in (Opcode.SCORES, Opcode.CONTEXT) for i in flat) == 36_864
    rolled, _ = roll(flat)
    assert program_bytes(rolled) <= 200_000


def test_more_heads_and_tokens_take_no_more_bytes() -> None:
    config = preset("reference")
    sizes = [
        program_bytes(roll(flat_program((64 * heads, heads, 1, tokens), config, "2:4"))[0])
        for heads, tokens in ((4, 128), (8, 512))
    ]
    assert sizes[1] < 2 * sizes[0]


def test_a_number_that_does_not_fit_is_refused() -> None:
    never = (NEVER,) * len(WAITS)
    program = [Scheduled(Opcode.LOAD, {"rows": 1 << 16}, "load", 1.0, never), Scheduled(Opcode.HALT, {}, "halt", 1.0)]
    with pytest.raises(InputError, match="rows = 65536 is out of range"):
        roll(program)


def test_an_empty_program() -> None:
    assert roll([Scheduled(Opcode.HALT, {}, "halt", 1.0)]) == ([Instruction(Opcode.HALT)], ["halt"])


@pytest.mark.parametrize("tokens", [5, 40])
def test_a_program_with_loops_on_rtl(tokens: int) -> None:
    """Its memory is that of the flat program, on the reference and on RTL; of a shorter text, too."""
    config = preset("ci")
    network = random_model(3, hidden=32, heads=2, intermediate=64)
    quantized = quantize(network, [random_ids(i, 12) for i in range(3)], mixed_patterns(list(config.patterns)))
    flat, rolled = (compile_encoder(quantized, config, tokens, loops=loops) for loops in (False, True))
    assert any(i.opcode == Opcode.LOOP for i in rolled.instructions)
    assert rolled.issued() == flat.issued()
    embedded = embed(network, random_ids(1, tokens))
    images = [p.with_input(embedded) for p in (flat, rolled)]
    expected = [run_program(i, flat.program_address, config, length=flat.length) for i in images]
    ends = flat.program_address
    assert rolled.program_address == ends and np.array_equal(expected[0][:ends], expected[1][:ends])
    hardware, memory = AcceleratorModel(config), MemoryModel(latency=30, stall=0.3, seed=tokens)
    run = hardware.run(images[1], ends, memory=memory, length=tokens)
    assert run.error == Error.NONE
    compare(rolled, run.image, expected[1])
    assert shortened(rolled, tokens) is rolled
    few = embed(network, random_ids(2, 3))
    shorter = [shortened(p, 3) for p in (flat, rolled)]
    images = [p.with_input(few) for p in shorter]
    expected = [run_program(i, ends, config, length=3) for i in images]
    assert np.array_equal(expected[0][:ends], expected[1][:ends])
    run = hardware.run(images[1], ends, memory=memory, length=3)
    assert run.error == Error.NONE
    compare(shorter[1], run.image, expected[1])
