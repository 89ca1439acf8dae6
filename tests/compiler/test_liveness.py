"""Programs that wait for themselves are refused, and those that are not end: on the cycle model, and on RTL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from liveness_programs import IMAGE, Generator, halted, image_of, load, norm, product

import sta_hw.compiler.encoder as encoder
from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.liveness import check_liveness
from sta_hw.compiler.lower.attention import Step
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.schedule import Load, order, schedule
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.errors import CheckError, InputError
from sta_hw.model.random import random_ids, random_model
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Opcode, Target
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
Program = list[Instruction]


def refused(program: Sequence[Instruction], config: Config = CONFIG) -> str:
    """The sentence, or "" if the program is accepted."""
    try:
        check_liveness(program, config)
    except InputError as error:
        return str(error)
    return ""


def ends_in_the_model(program: Sequence[Instruction], config: Config, latency: int = 50) -> bool:
    try:
        return estimate_cycles(program, config, MachineTiming(latency=latency)) > 0
    except RuntimeError as error:
        assert "stands still" in str(error)
        return False


def ends_on_rtl(program: Program, memory: MemoryModel | None = None) -> bool:
    """Whether it does. What waits for itself does not go on however long one waits: it is given 10,000 cycles."""
    try:
        AcceleratorModel(CONFIG).run(image_of(program, CONFIG), IMAGE, memory=memory, patience=10_000)
    except CheckError as error:
        assert "no progress" in str(error)
        return False
    return True


def random_program(config: Config, seed: int, longest: int) -> Program:
    rng = np.random.default_rng(seed)
    made = Generator(config, rng, int(rng.integers(0, 8)), float(rng.choice([0, 0.1, 0.4])))
    return made.make(int(rng.integers(8, longest)))


@pytest.mark.parametrize("name", ["ci", "tiny", "one group"])
def test_random_programs_end_if_they_are_accepted(name: str) -> None:
    """And nearly all of those that are refused do not: what the check does not know is a place of slack or two."""
    config = PRESETS.get(name) or Config(rows=4, groups=1, window=8, lanes=4, drain_lanes=1, columns=32)
    refusals = stuck = 0
    for seed in range(80):
        program = random_program(config, seed, 100)
        ends = ends_in_the_model(program, config, (1, 50, 700)[seed % 3])
        if sentence := refused(program, config):
            assert "waits" in sentence and sentence.endswith("."), sentence
            refusals, stuck = refusals + 1, stuck + (not ends)
        else:
            assert ends, seed
    assert 10 < refusals < 70 and stuck > 0.7 * refusals, (refusals, stuck)


def test_random_mistakes() -> None:
    """Blocks that begin, end, continue or finish where they should not: a sentence for each that is refused."""
    sentences = set()
    for seed in range(300):
        rng, program = np.random.default_rng([seed, 7]), random_program(CONFIG, seed, 40)
        for at in rng.integers(0, len(program), 3):
            i = program[at]
            names = {Opcode.SCORES: ("row_first", "row_last"), Opcode.CONTEXT: ("continues", "unfinished")}.get(
                i.opcode
            )
            if names:
                name = names[rng.integers(2)]
                program[at] = Instruction(i.opcode, {**i.fields, name: 1 - i[name]})
        if sentence := refused(program):
            sentences.add(re.sub(r"\d+", "N", sentence).partition(" (")[2][:60])
            assert re.search(r"instruction \d+ \(.*(would do|put |columns = )", sentence), sentence
    assert len(sentences) > 3, sentences


def test_random_programs_on_rtl() -> None:
    found = {(True, True): 0, (False, False): 0, (False, True): 0}
    for seed in range(1000, 1040):
        program = random_program(CONFIG, seed, 60)
        memory = MemoryModel(latency=int(seed % 3 * 40 + 1), stall=seed % 2 * 0.3, seed=seed)
        found[not refused(program), ends_on_rtl(program, memory)] += 1
    assert found[True, True] > 8 and found[False, False] > 8 and found[False, True] < 4, found


# -- what is known to wait for itself ------------------------------------------------------------------


def scores(first: int = 1, last: int = 1, **more: int) -> Instruction:
    return product(CONFIG, Opcode.SCORES, columns=32, wide=1, keys=99, row_first=first, row_last=last, **more)


def context(continues: int = 0, unfinished: int = 0, depth: int = 16, **more: int) -> Instruction:
    return product(
        CONFIG, Opcode.CONTEXT, columns=2, depth=depth, continues=continues, unfinished=unfinished, **more
    )  # fmt: skip


def large(columns: int) -> Instruction:
    return product(CONFIG, Opcode.PRODUCT, columns=columns)


S, C, L = scores(), context(), large(4)
LOADS = [load(CONFIG, wait_products=1)] * 18
NORMS = [norm(CONFIG)] * 70
DEADLOCKS: dict[str, tuple[Program, str, Program]] = {
    "scores that nothing takes": (
        [S, S, S], r"instruction 2 \(SCORES\) waits for the softmax, .* there is none; put it behind instruction 0 "
        r"\(SCORES\)\.$", [S, S, S, C],
    ),
    "scores too far ahead of contexts": (
        [*[S] * 40, *[C] * 40], r"instruction 2 .* instruction 40 \(CONTEXT\), .*put instruction 40 \(CONTEXT\) before",
        [S, *[S, C] * 39, C],
    ),
    "LOADs that wait for products ahead of them": (
        [S, S, S, *LOADS, C, C, C], r"instruction 21 \(CONTEXT\), which is not issued, .* queue for loads",
        [S, S, C, S, *LOADS, C, C],
    ),
    "weights that wait for scores": (
        [S, S, S, LOADS[0], product(CONFIG, Opcode.PRODUCT, columns=2, wait_loads=1), C, C, C],
        r"that is instruction 5 \(CONTEXT\), behind instruction 4 \(PRODUCT\) in the array",
        [S, S, C, S, LOADS[0], product(CONFIG, Opcode.PRODUCT, columns=2, wait_loads=1), C, C],
    ),
    "more products than the engine takes": (
        [S, S, S, *[large(1)] * 12, C, C, C], r"that is instruction 15 \(CONTEXT\), behind instruction \d+ \(PRODUCT\)",
        [S, S, S, *[large(1)] * 3, C, C, C],
    ),
    "a LOAD that grows old": (
        [S, S, S, LOADS[0], *NORMS, C, C, C], "which is not issued, .* more than 63 instructions old",
        [S, S, C, S, LOADS[0], *NORMS, C, C],
    ),
    "LayerNorms that wait for scores": (
        [S, S, S, *[norm(CONFIG, wait_products=1)] * 18, C, C, C], "queue for norms",
        [S, S, S, *[norm(CONFIG, wait_products=1)] * 16, C, C, C],
    ),
    "results without room": (
        [S, S, S, large(70), L, C, C, C], r"behind instruction 3 \(PRODUCT\), whose results find no room: with them "
        r"102 columns wait, and there is room for 63; put .*; or columns = 128\.", [S, S, S, large(20), L, C, C, C],
    ),
    "a context that does not scale": (
        [scores(1, 0), context(0, 1), scores(0, 0), context(0, 1), scores(0, 1), context(1, 0), S, C],
        r"instruction 7 \(CONTEXT\) waits for the block of instruction 6 .* instruction 3 .* to scale what is stored; "
        "continues = 1",
        [scores(1, 0), context(0, 1), scores(0, 0), context(1, 1), scores(0, 1), context(1, 0), S, C],
    ),
    "a context that scales the first block": (
        [S, context(1)], r"instruction 1 \(CONTEXT\) continues .* continues = 0", [S, C],
    ),
    "a context before its row's end": (
        [scores(1, 0), C, scores(0, 1)], r"instruction 1 \(CONTEXT\) waits for its row's sum, .* unfinished = 1",
        [scores(1, 0), context(0, 1), scores(0, 1), context(1)],
    ),
    "a context without scores": ([C, S], r"instruction 0 \(CONTEXT\) waits for a block of scores", [S, C]),
    "a context of more keys": (
        [product(CONFIG, Opcode.SCORES, columns=16, wide=1, row_first=1, row_last=1), C],
        r"instruction 1 \(CONTEXT\) multiplies 32 .* 16 keys", [S, C],
    ),
    "other windows than are multiplied": (
        [replace(large(4), fields={**large(4).fields, "window_beats": 1})], "window_beats = 2 would do", [large(4)],
    ),
}  # fmt: skip
"""A program that waits for itself, what is said of it, and a program that does what was said."""


@pytest.mark.parametrize("name", DEADLOCKS)
def test_a_deadlock_is_refused(name: str) -> None:
    program, words, mended = DEADLOCKS[name]
    with pytest.raises(InputError, match=words):
        check_liveness(halted(program), CONFIG)
    check_liveness(halted(mended), CONFIG)
    assert not ends_on_rtl(halted(program)) and ends_on_rtl(halted(mended))


def test_contexts_that_leave_their_rows_sums() -> None:
    """Of four rows, none of which is finished: the fourth one's sums find no room."""
    program = halted([S, context(0, 1)] * 4)
    said = r"instruction 6 \(SCORES\), which waits for instruction 1 \(CONTEXT\) to take its rows' sums; unfinished = 0"
    with pytest.raises(InputError, match=rf"instruction 7 \(CONTEXT\) waits for the block of {said} there would do"):
        check_liveness(program, CONFIG)


def test_more_columns_would_do() -> None:
    program, _, _ = DEADLOCKS["results without room"]
    check_liveness(halted(program), replace(CONFIG, columns=128))


def test_loops_are_run_through() -> None:
    """Scores run further ahead with each turn."""

    def looped(turns: int) -> Program:
        turn = [Instruction(Opcode.LOOP, {"count": turns}), S, S, C, Instruction(Opcode.NEXT)]
        return halted([*turn, *[C] * turns])

    check_liveness(looped(2), CONFIG)
    assert "waits for the softmax" in refused(looped(30))


# -- the compiler ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loops", [False, True])
def test_every_compilation_is_checked(monkeypatch: pytest.MonkeyPatch, loops: bool) -> None:
    quantized = quantize(random_model(0, hidden=64, heads=4), [random_ids(0, 9)])
    compile_encoder(quantized, CONFIG, 30, loops=loops)

    def ahead(*given: Any) -> tuple[list[Instruction], list[str]]:
        """All scores before all contexts."""
        program = [Instruction(i.opcode, i.fields) for i in (given[0] if loops else schedule(*given)[0])]
        last = max(n for n, i in enumerate(program) if i.opcode == Opcode.SCORES)
        contexts = [n for n in range(last) if program[n].opcode == Opcode.CONTEXT]
        moved = [n for n in range(last + 1) if n not in contexts] + contexts + [*range(last + 1, len(program))]
        return [program[n] for n in moved], [""] * len(program)

    monkeypatch.setattr(encoder, "roll" if loops else "schedule", ahead)
    with pytest.raises(InputError, match=r"the program waits for itself: .* waits for the softmax"):
        compile_encoder(quantized, CONFIG, 30, loops=loops)


@pytest.mark.parametrize("uses, right", [((0, 1), True), (None, False)])
def test_a_ring_too_small_for_two_heads(uses: tuple[int, int] | None, right: bool) -> None:
    """Scores that run ahead of a context may not wait for values that overwrite its own: first found by accident."""
    keys, values = (Load(Target.VALUES, CONFIG.weight_words * 45 // 100 + n, 0, 8, base=f"{n}") for n in (0, 1))
    steps = []
    for head in range(3):
        fields = {"columns": 8, "passes": 1, "depth": 4, "n": 1}
        steps.append(Step(Opcode.SCORES, fields, head, uses=uses, label="scores"))
        if head:
            steps.append(Step(Opcode.CONTEXT, fields, head - 1, uses=(1, 2), label="context"))
    wrong = pytest.raises(InputError, match=r"SCORES of scores waits for .* loads, .* a later one")
    with nullcontext() if right else wrong:
        order(steps, [[keys, values]] * 3, CONFIG)
