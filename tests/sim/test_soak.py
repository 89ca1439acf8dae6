"""Random programs on RTL and reference: a sample of what `make soak` runs for hours."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sim.soak.__main__ import HARDWARE, soak
from sim.soak.damage import KINDS, damaged
from sim.soak.hazards import Accesses, UnorderedError, accesses, needed_waits
from sim.soak.programs import RandomProgram, with_waits
from sim.soak.trial import DifferenceError, Hardware, Subject
from sta_hw.compiler.kept import KeptWindows
from sta_hw.reference.program import run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import unroll
from sta_hw.spec.isa import Digit, Instruction, Opcode, Result, Target, disassemble

NAME, NEWER = "ci, decoder", "4 x 8, decoder"
CONFIG = HARDWARE[NAME]


@pytest.mark.parametrize("name", [NAME, pytest.param(NEWER, marks=pytest.mark.slow)])
def test_a_sample_shows_no_difference(name: str) -> None:
    result = soak(11, 600, names=[name], legal=20, damaged=60)
    assert not result["differences"], result["differences"][:2]
    assert result["legal"] == 20 and result["damaged"] == 60
    row = result["hardware"][name]
    assert row["legal, equal"] > 5 and result["cycles"] > 100_000
    assert sum(row.get(f"damaged: {kind}", 0) for kind in KINDS) == 60
    assert row["damaged, equal"] and row["damaged, OPCODE"], row


def test_every_instruction_and_feature_comes_up() -> None:
    """In few programs, all results, masks and flags among them."""
    programs = some_programs(CONFIG)
    seen = {
        (i.opcode.name, name, value)
        for program in programs for i in program for name, value in i.fields.items()
        if name in ("result", "mask", "kind", "multiply", "rotate", "place", "continues", "unfinished", "encoding")
    }  # fmt: skip
    assert {i.opcode for program in programs for i in program} == set(Opcode)
    assert {("PRODUCT", "result", int(r)) for r in Result if r} <= seen
    assert {("SCORES", "mask", 1), ("SCORES", "mask", 2), ("NORM", "kind", 1), ("SCORES", "continues", 1)} <= seen
    assert {("PRODUCT", f, 1) for f in ("multiply", "rotate", "place", "continues", "unfinished", "encoding")} <= seen


def some_programs(config: Config) -> list[list[Instruction]]:
    """Random ones of an image of random bytes each, as they are written."""
    found = []
    for seed in range(30):
        try:
            image, at = RandomProgram(config, np.random.default_rng(seed)).image(8, 20, 33)
        except UnorderedError:
            continue
        found.append(disassemble(image[at:].tobytes(), config))
    return found


def test_what_hardware_gained_comes_up() -> None:
    """Windows kept, one behind the other, and taken, also in loops; rows apart, weights of 4 bits, digits."""
    config = HARDWARE[NEWER]
    seen: Counter[tuple[str, str, int]] = Counter()
    joined = looped = lows = 0
    for program in some_programs(config):
        on_chip, depth = KeptWindows(config), 0
        for i in program:
            depth += (i.opcode == Opcode.LOOP) - (i.opcode == Opcode.NEXT)
            for name in ("keep", "kept", "apart", "value_format", "digit", "lift", "bits15"):
                seen[i.opcode.name, name, i.fields.get(name, 0)] += 1
            looped += depth > 0 and bool(i.fields.get("kept"))
            lows += i.fields.get("digit") == Digit.LOW and bool(i.fields.get("kept"))
        for f in unroll(program, config, 20, 33):
            i = f.instruction
            if i.fields.get("keep"):
                before = on_chip.end
                assert on_chip.keep(i["window_address"], i["window_beats"])
                joined += i["window_address"] == before * config.bus_bytes
    for opcode, name, value in (
        ("PRODUCT", "keep", 1), ("PRODUCT", "kept", 1), ("SCORES", "keep", 1), ("SCORES", "kept", 1),
        ("PRODUCT", "apart", 1), ("PRODUCT", "value_format", 1), ("SCORES", "value_format", 1),
        ("CONTEXT", "value_format", 1), ("PRODUCT", "digit", 1), ("PRODUCT", "digit", 2), ("PRODUCT", "lift", 1),
        ("PRODUCT", "bits15", 1), ("CONTEXT", "bits15", 1), ("NORM", "bits15", 1),
    ):  # fmt: skip
        assert seen[opcode, name, value] > 2, (opcode, name, value)
    assert joined > 5 and looped > 5 and lows > 5, (joined, looped, lows)


def test_what_is_kept_or_lies_apart_is_found() -> None:
    """What kept windows, rows apart and digits touch, by hand; and the waits that come of it."""
    config = HARDWARE[NEWER]
    product = {
        "window_address": 0, "window_beats": 16, "result_address": 1024, "columns": 8, "passes": 1, "n": 1, "depth": 2,
        "count0": 16, "count1": 1, "count2": 1, "count3": 1, "stride0": 1,
    }  # fmt: skip

    def touched(**more: int) -> Accesses:
        return accesses(Opcode.PRODUCT, product | more, config)

    def waits(first: dict[str, int], second: tuple[Opcode, dict[str, int]]) -> dict[str, int]:
        return needed_waits([(Opcode.PRODUCT, product | first), second], config, 1 << 14)[-1][1]

    assert touched().reads == touched(keep=1).reads == [(0, 64)] and touched(kept=1).reads == []
    assert touched(digit=1, window_beats=32).reads == [(0, 128)]
    assert touched().writes == touched(kept=1).writes == [(1024, 1024 + 8 * 4)]
    assert touched(apart=1).writes == [(1024, 1024 + 8 * 8)]
    assert touched(bits15=1, result=int(Result.STORE16)).writes == [(1024, 1024 + 2 * 8 * 4)]
    reader = product | {"window_address": 1024 + 32, "result_address": 4096, "window_beats": 4}
    assert waits({}, (Opcode.PRODUCT, reader)) == {}
    assert waits({"apart": 1}, (Opcode.PRODUCT, reader)) == {"products": 1}
    assert waits({"apart": 1}, (Opcode.PRODUCT, reader | {"kept": 1})) == {}
    norm = {"input_address": 2048, "wide_address": 0, "narrow_address": 4096, "parameters_address": 640, "width": 2}
    assert waits({"keep": 1}, (Opcode.NORM, norm)) == {"products": 1}
    assert waits({"kept": 1}, (Opcode.NORM, norm)) == {}


def test_waits_are_needed() -> None:
    """Without them hardware and reference differ, and with them they do not."""
    hardware = Hardware(CONFIG)
    subject = Subject.random(CONFIG, np.random.default_rng(5), 6)
    program = disassemble(subject.image[subject.address :].tobytes(), CONFIG)
    assert sum(1 for i in program for name, value in i.fields.items() if name.startswith("wait_") and value) > 5
    image = subject.image.copy()
    for at, i in zip(np.cumsum([0, *(len(i.pack()) for i in program)]).tolist(), program, strict=False):
        bare = Instruction(i.opcode, {n: v for n, v in i.fields.items() if not n.startswith("wait_")})
        image[subject.address + 64 + at :][: len(bare.pack())] = np.frombuffer(bare.pack(), np.uint8)
    run_counted(image, subject.address, CONFIG, length=subject.length, position=subject.position)
    expected = hardware._reference(subject)
    hardware._compare(hardware.model, subject, expected)
    with pytest.raises(DifferenceError):
        hardware._compare(hardware.model, subject.with_image(image), expected)


def test_what_must_wait_is_found() -> None:
    """One of each kind, by hand."""
    product = {
        "window_address": 0, "window_beats": 4, "result_address": 1024, "columns": 4, "passes": 1, "n": 1, "depth": 2,
        "count0": 8, "count1": 1, "count2": 1, "count3": 1, "stride0": 1, "values_base": 8,
    }  # fmt: skip
    load = {"address": 512, "rows": 1, "beats": 8, "target": int(Target.VALUES), "destination": 0}
    norm = {"input_address": 1024, "wide_address": 2048, "narrow_address": 4096, "parameters_address": 640, "width": 2}

    def waits(*program: tuple[Opcode, dict[str, int]]) -> dict[str, int]:
        return needed_waits(program, CONFIG, 1 << 14)[-1][1]

    loading, multiplying, norming = (Opcode.LOAD, load), (Opcode.PRODUCT, product), (Opcode.NORM, norm)
    assert waits(loading, multiplying) == {"loads": 1}
    assert waits(loading, (Opcode.LOAD, load | {"destination": 64}), multiplying) == {"loads": 2}
    assert waits(multiplying, loading) == {"matrix": 1}
    for target in (Target.PARAMETERS, Target.SHORT_PARAMETERS):
        assert waits(multiplying, (Opcode.LOAD, load | {"target": int(target)})) == {"products": 1}
        # Of as many bytes, twice as many short records.
        count = 8 * CONFIG.bus_bytes // (8 if target == Target.SHORT_PARAMETERS else 16)
        for base in (count - 1, count):
            taken = (Opcode.PRODUCT, product | {"parameters_base": base})
            given = (Opcode.LOAD, load | {"target": int(target)})
            assert waits(given, taken) == ({"loads": 1} if base < count else {})
    assert waits(multiplying, (Opcode.LOAD, load | {"target": int(Target.TABLE)})) == {}
    assert waits(multiplying, (Opcode.LOAD, load | {"address": 1024, "destination": 64})) == {"products": 1}
    assert waits(multiplying, norming) == {"products": 1}
    assert waits(norming, (Opcode.PRODUCT, product | {"window_address": 4096})) == {"norms": 1}
    assert waits(norming, multiplying) == {"norms": 1}
    assert waits(multiplying, (Opcode.NORM, norm | {"input_address": 8192, "narrow_address": 0})) == {"products": 1}
    with pytest.raises(UnorderedError, match="what a LOAD reads"):
        waits(loading, (Opcode.NORM, norm | {"narrow_address": 512}))
    with pytest.raises(UnorderedError, match="leaves its sums unfinished"):
        waits((Opcode.PRODUCT, product | {"unfinished": 1}), (Opcode.NORM, norm | {"narrow_address": 0}))


def test_waits_hold_in_every_turn_of_a_loop() -> None:
    """What a later turn needs is in the instruction, too."""
    rng = np.random.default_rng(3)
    generator = RandomProgram(CONFIG, rng)
    generator.loop()
    program = with_waits([*generator.instructions, Instruction(Opcode.HALT)], CONFIG, generator.size, 1, 0)
    flat = [f.instruction for f in unroll(program, CONFIG, 1, 0) if f.instruction.opcode != Opcode.HALT]
    for i, (_, waits) in zip(
        flat, needed_waits([(i.opcode, i.fields) for i in flat], CONFIG, generator.size), strict=True
    ):
        assert all(0 < i[f"wait_{name}"] <= distance for name, distance in waits.items())


def test_a_difference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reference that computes something else, with what repeats it."""
    real = run_counted

    def other(*arguments, **named):
        run = real(*arguments, **named)
        run.image[np.flatnonzero(run.image != arguments[0])[:1]] ^= 1
        return run

    monkeypatch.setattr("sim.soak.trial.run_counted", other)
    result = soak(1, 60, names=[NAME], legal=3, damaged=0)
    assert result["differences"] and "1 bytes differ, the first at" in result["differences"][0]["what"]
    assert {"hardware", "kind", "number", "turn"} <= result["differences"][0].keys()


def test_damage_changes_one_thing_and_says_what() -> None:
    subject = Subject.random(CONFIG, np.random.default_rng(2), 2, anywhere=False)
    rng, kinds = np.random.default_rng(1), set()
    for _ in range(60):
        image, kind, what = damaged(subject.image, subject.address, rng)
        kinds.add(kind)
        assert what and image.shape == subject.image.shape
        if kind == "header":
            changed = np.flatnonzero(image != subject.image)
            assert ((changed >= subject.address) & (changed < subject.address + 24)).all()
    assert kinds == set(KINDS)
