"""Rolled programs: they expand to the flat ones, are small, and take no longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import embed

import sta_hw.compiler.roll as rolling
from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.outline import shape_program
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.roll import roll
from sta_hw.compiler.schedule import NEVER, Scheduled
from sta_hw.compiler.shorter import shortened
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.errors import CheckError, InputError
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


def load(address: int, label: str = "load", **fields: int) -> Scheduled:
    return Scheduled(Opcode.LOAD, {"rows": 1, "address": address, **fields}, label, 1.0)


HALT = Scheduled(Opcode.HALT, {}, "halt", 1.0)


def test_a_loop_by_hand() -> None:
    """Ten loads, each 64 bytes behind the one before, and behind the loop another."""
    flat = [*(load(1000 + 64 * n, stride=8) for n in range(10)), load(7), HALT]
    rolled, labels = roll(flat)
    assert [i.opcode.name for i in rolled] == ["LOOP", "LOAD", "SET", "NEXT", "LOAD", "HALT"]
    loop, body, step = rolled[:3]
    assert loop["count"] == 10 and step["value"] == 64 and body["address"] == 1000
    assert body["address_register"] == step["destination"] == step["value_register"]
    assert labels[1] == "load" and labels[4:] == ["load", "halt"]
    require_same(rolled, labels, flat, CI)


@pytest.mark.parametrize("body", [1, 3])
def test_two_turns_are_a_loop(body: int) -> None:
    flat = [Scheduled(Opcode.SCORES, {"keys": 1 + n}, f"{n}", 1.0) for n in range(body)] * 2
    rolled, labels = roll([*flat, HALT])
    require_same(rolled, labels, [*flat, HALT], CI)
    assert [i.opcode for i in rolled] == [Opcode.LOOP, *[Opcode.SCORES] * body, Opcode.NEXT, Opcode.HALT]


@pytest.mark.parametrize(("step", "rolls"), [(0, True), (64, False)])
def test_what_a_loop_must_save(step: int, rolls: bool) -> None:
    """Three words: of two NORMs that is what LOOP and NEXT leave, but not a SET besides."""
    flat = [Scheduled(Opcode.NORM, {"input_address": 64 + step * n}, "norm", 1.0) for n in range(2)]
    rolled, labels = roll([*flat, HALT])
    require_same(rolled, labels, [*flat, HALT], CI)
    assert (rolled[0].opcode == Opcode.LOOP) == rolls


def test_a_loop_of_many_turns_in_another() -> None:
    flat = [*(load(1000 * outer + 64 * turn) for outer in range(5) for turn in range(200)), HALT]
    rolled, labels = roll(flat)
    require_same(rolled, labels, flat, CI)
    assert [i["count"] for i in rolled if i.opcode == Opcode.LOOP] == [5, 200] and len(rolled) == 8


CI = preset("ci")
WAITED = tuple(f"wait_{name}" for name in WAITS)


@pytest.mark.parametrize("first", [-100, -5, 100])
def test_a_register_that_goes_on_in_the_next_loop(first: int) -> None:
    """The second of two loops begins where the first one ended: its instruction has so much less, be it negative."""
    flat = [
        Scheduled(Opcode.SCORES, {"key_start": first + 20 * outer + 2 * turn, "keys": 3}, "ab"[turn // 5], 1.0)
        for outer in range(6)
        for turn in range(10)
    ]
    rolled, labels = roll([*flat, HALT])
    require_same(rolled, labels, [*flat, HALT], CI)
    scores = [i for i in rolled if i.opcode == Opcode.SCORES]
    assert [i["key_start"] for i in scores] == [first] * 2 and [i["keys"] for i in scores] == [3] * 2
    assert scores[0]["key_start_register"] == scores[1]["key_start_register"]


NUMBERS = {
    Opcode.LOAD: ("address", "stride"), Opcode.NORM: ("input_address", "wide_address"),
    Opcode.SCORES: ("window_address", "key_start", "values_base"),
}  # fmt: skip
STEPS = [0, 0, 64, 7, -2]


def random_loop(rng: np.random.Generator, depth: int, at: tuple[int, ...], seed: int) -> list[Scheduled]:
    """What a loop's body is at one turn of the loops around it: alike at each turn, for it is drawn from a seed."""
    own = np.random.default_rng(seed)
    found: list[Scheduled] = []
    for number in range(int(own.integers(1, 4))):
        count, inner = int(own.integers(3, 7)), seed * 5 + number + 1
        if depth and own.random() < 0.6:
            for turn in range(count):
                found += random_loop(rng, depth - 1, (*at, turn), inner)
            continue
        opcode = list(NUMBERS)[int(own.integers(3))]
        least = tuple(int(n) if own.random() < 0.3 else NEVER for n in own.integers(1, 4, len(WAITS)))
        fields = {n: v + int(rng.integers(3)) for n, v in zip(WAITED, least, strict=True) if v != NEVER}
        for name in NUMBERS[opcode]:
            steps = own.choice(STEPS, len(at)) // (4 if name == "key_start" else 1)
            fields[name] = (-9 if name == "key_start" else 500) + sum(
                s * i for s, i in zip(steps.tolist(), at, strict=True)
            )
        found.append(Scheduled(opcode, fields, str(inner), 1.0, least))
    return found


def test_random_loops() -> None:
    """Of loads, norms and scores, within one another: numbers step, negative ones too, and waits leave some room."""
    flat_bytes, rolled_bytes = 0, 0
    for seed in range(16):
        flat = [*random_loop(np.random.default_rng(seed), 2, (), seed), HALT]
        rolled, labels = roll(flat)
        require_same(rolled, labels, flat, CI)
        assert program_bytes(rolled) <= program_bytes(plain(flat))
        flat_bytes, rolled_bytes = flat_bytes + program_bytes(plain(flat)), rolled_bytes + program_bytes(rolled)
    assert rolled_bytes < 0.4 * flat_bytes


def test_a_number_that_does_not_fit_is_refused() -> None:
    never = (NEVER,) * len(WAITS)
    program = [Scheduled(Opcode.LOAD, {"rows": 1 << 16}, "load", 1.0, never), Scheduled(Opcode.HALT, {}, "halt", 1.0)]
    with pytest.raises(InputError, match="rows = 65536 is out of range"):
        roll(program)


def test_a_number_that_steps_out_of_its_range_is_refused() -> None:
    """Though no instruction of the rolled program would have it."""
    flat = [*(load(2**32 - 320 + 64 * n) for n in range(6)), HALT]
    with pytest.raises(InputError, match=f"address = {2**32} is out of range"):
        roll(flat)


@pytest.mark.parametrize(("scores", "rolls"), [(62, True), (64, False)])
def test_bodies_that_lines_hold(scores: int, rolls: bool) -> None:
    """A body has 63 lines of 64 bytes at most, which touch 64 wherever they begin."""
    body = [Scheduled(Opcode.SCORES, {"keys": 1 + n}, f"{n}", 1.0) for n in range(scores)]
    flat = [*body * 4, HALT]
    rolled, labels = roll(flat)
    require_same(rolled, labels, flat, CI)
    assert (len(rolled) == scores + 3) == rolls


def test_thirteen_registers() -> None:
    """Each of so many loads in a loop has a step of its own; the registers behind begin with sizes."""
    flat = [*(load(64 * n + (n + 8) * turn, f"{n}") for turn in range(6) for n in range(13)), HALT]
    rolled, labels = roll(flat)
    require_same(rolled, labels, flat, CI)
    assert len(rolled) == 2 * 13 + 3 and {i["address_register"] for i in rolled[1:14]} == set(range(1, 14))


@pytest.mark.parametrize("wrong", ["address", "target", "label", "wait_products", "one less"])
def test_what_loops_give_is_compared(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the flat program: numbers, other fields, labels, waits and how many there are."""
    least = (2,) * len(WAITS)
    flat = [Scheduled(Opcode.LOAD, {"rows": 1, "address": 64 * n, "wait_products": 3}, "load", 1.0, least)
            for n in range(10)]  # fmt: skip
    emit = rolling.emit

    def emitted(*given: Any) -> list[Any]:
        found = list(emit(*given))
        at = next(n for n, e in enumerate(found) if e.instruction.opcode == Opcode.LOAD)
        i = found[at].instruction
        if wrong == "one less":
            assert found[at - 1].instruction["count"] == 10
            found[at - 1] = replace(found[at - 1], instruction=Instruction(Opcode.LOOP, {"count": 9}))
        elif wrong == "label":
            found[at] = replace(found[at], flat=10)
        else:
            value = 1 if wrong != "address" else 8
            found[at] = replace(found[at], instruction=Instruction(i.opcode, {**i.fields, wrong: value}))
        return found

    monkeypatch.setattr(rolling, "emit", emitted)
    said = (
        "loops give 10 instructions, and the flat program has 11" if wrong == "one less" else "another instruction 0 "
    )
    with pytest.raises(CheckError, match=said):
        roll([*flat, HALT])


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
