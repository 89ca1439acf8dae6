"""The executor in C, which is written from the documents alone, against the reference: equal to the bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import embed

from sim.soak.programs import RandomProgram
from sta_hw.compiler.contract import describe
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import quantize
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import Executed, ProgramError, run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Opcode, disassemble
from sta_hw.spec.patterns import Pattern, parse_nm
from sta_hw.spec.presets import PRESETS, preset
from sta_hw.spec.registers import capabilities

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow", "-Wstrict-prototypes"]
CHECKED = ["-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all"]


def built(folder: Path, changes: dict[str, str] | None = None, options: tuple[str, ...] = ("-O2",)) -> Path:
    """The executor; with changed lines, a mutant."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "the executor in C needs a C compiler: apt-get install gcc"
    folder.mkdir(exist_ok=True)
    changes = dict(changes or {})
    for source in SOURCES:
        text = source.read_text()
        for old in [old for old in changes if old in text]:
            assert text.count(old) == 1, old
            text = text.replace(old, changes.pop(old))
        (folder / source.name).write_text(text)
    assert not changes, changes
    program = folder / "executor"
    files = [s.name for s in SOURCES if s.suffix == ".c"]
    subprocess.run([compiler, *WARNINGS, *options, *files, "-lm", "-o", program], cwd=folder, check=True)
    return program


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With every access and every overflow checked."""
    return built(tmp_path_factory.mktemp("executor"), options=tuple(CHECKED))


@dataclass(frozen=True)
class InC:
    """What the executor says: how it ended, its counters, the image, and of each instruction opcode and stores."""

    said: str
    counters: dict[str, int]
    image: NDArray[np.uint8]
    executed: list[tuple[int, dict[int, int]]]


def run_in_c(executor: Path, image: NDArray[np.uint8], about: dict, length: int = 0) -> InC:
    folder = executor.parent
    (folder / "image.json").write_text(json.dumps(about))
    (folder / "image.bin").write_bytes(image.tobytes())
    command = [executor, "image.json", "image.bin", "after", "trace", str(length)]
    checks = dict.fromkeys(("ASAN_OPTIONS", "UBSAN_OPTIONS"), "exitcode=99:detect_leaks=0")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | checks)
    assert done.returncode in (0, 1), done.stderr
    counters = {} if done.returncode else {n: int(v) for n, v in (line.split() for line in done.stdout.splitlines())}
    trace, at, executed = (folder / "trace").read_bytes(), 0, []

    def word() -> int:
        nonlocal at
        at += 4
        return int.from_bytes(trace[at - 4 : at], "little")

    while at < len(trace):
        number, opcode, stores = word(), word(), {}
        assert number == len(executed)
        for _ in range(word()):
            address, size = word(), word()
            stores |= dict(enumerate(trace[at : at + size], address))
            at += size
        executed.append((opcode, stores))
    return InC(done.stdout.strip(), counters, np.fromfile(folder / "after", np.uint8), executed)


def differences(
    executor: Path, image: NDArray[np.uint8], about: dict, config: Config, length: int = 0
) -> tuple[list[str], list[Executed]]:
    """In which instructions' results the executor and the reference differ, and the instructions."""
    executed: list[Executed] = []
    expected = run_counted(image, about["program"]["offset"], config, observe=executed.append, length=length)
    found = run_in_c(executor, image, about, length)
    assert [opcode for opcode, _ in found.executed] == [e.instruction.opcode for e in executed]
    wrong = []
    for (_, stores), e in zip(found.executed, executed, strict=True):
        wanted = {a + i: int(b) for a, data in e.stores for i, b in enumerate(np.asarray(data).ravel())}
        if stores != wanted:
            wrong.append(f"{e.number} {e.instruction}")
    if found.counters != expected.saturated:
        wrong.append(f"{found.counters} instead of {expected.saturated}")
    if not wrong:
        np.testing.assert_array_equal(found.image, expected.image)
    return wrong, executed


# -- whole layers -------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[str, dict, list[str], list[int], str]] = {
    "2:4": ("ci", {}, ["2:4"], [7], ""),
    "a token": ("tiny", {}, ["4:8", "1:4"], [1], ""),
    "every encoding": ("small", {}, ["2:16", "8:16", "dense", "4:4", "1:2", "3:8"], [33], ""),
    "blocks of keys": ("ci", {"heads": 4}, ["2:4"], [70], ""),
    "a batch": ("tiny", {}, ["2:8", "dense"], [5, 17, 2], ""),
    "loops": ("ci", {"layers": 2}, ["2:4"], [40], "loops"),
    "ViT's order": ("small", {"norm_first": True, "pooling": "first"}, ["4:16"], [19], ""),
    "up5k": ("up5k", {"hidden": 16, "intermediate": 24}, ["2:4"], [9], ""),
    "saturated": ("ci", {}, ["2:4", "dense"], [11], "large inputs"),
    "wide": ("large", {"hidden": 96, "heads": 3, "intermediate": 160}, ["7:16", "dense"], [45], "loops"),
}


def layer(name: str) -> tuple[CompiledModel, NDArray[np.uint8]]:
    """A random layer compiled, and its image with inputs."""
    hardware, shape, patterns, lengths, how = LAYERS[name]
    seed, config = sorted(LAYERS).index(name), preset(hardware)
    model = random_model(seed, **{"hidden": 32, "heads": 2, "intermediate": 72, **shape})
    table = mixed_patterns([parse_nm(p) for p in patterns])
    for number in range(1, shape.get("layers", 1)):
        table |= {f"{number}.{n}": table[f"0.{n}"] for n in LINEAR.values()}
    quantized = quantize(model, [random_ids(seed + i, 24) for i in range(3)], table)
    compiled = compile_encoder(quantized, config, lengths, loops=how == "loops")
    texts = [embed(model, random_ids(seed + 50 + i, n)) for i, n in enumerate(lengths)]
    image = compiled.with_input(texts)
    if how == "large inputs":
        # At the ends of the residual stream, which no calibration saw: what follows saturates.
        place = describe(compiled, "layer")["input"]
        at, size = place["offset"], place["bytes"] // 2
        extremes = np.random.default_rng(seed).choice([-32767, 32767, 0], size).astype("<i2")
        image[at : at + 2 * size] = extremes.view(np.uint8)
        # Multipliers, and LayerNorm's scales and shifts, are larger than any that would be compiled.
        for label, start, count in compiled.info.places:
            if label.endswith("parameters"):
                image[start + 5 : start + count : 16] = 0xFF
                image[start + 6 : start + count : 16] = seed % 2
            elif label.endswith("LayerNorm"):
                image[start : start + count].view("<u8")[::2] |= np.uint64(0x1FFFF | 0x7FFF << 18)
                image[start : start + count].view("<u8")[::2] &= ~np.uint64(1 << 17 | 1 << 33)
    return compiled, image


@pytest.mark.parametrize("name", LAYERS)
def test_a_random_layer(name: str, executor: Path) -> None:
    """Each instruction's results, so each tensor between; the saturation counters; all of memory."""
    compiled, image = layer(name)
    wrong, executed = differences(executor, image, describe(compiled, "layer"), compiled.config, compiled.length)
    assert not wrong, wrong[:3]
    assert {e.instruction.opcode for e in executed} >= {
        Opcode.LOAD, Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT, Opcode.NORM,
    }  # fmt: skip
    if name == "saturated":
        counters = run_in_c(executor, image, describe(compiled, "layer"), compiled.length).counters
        assert all(counters.values()), counters


def test_the_raw_files_are_enough(executor: Path, tmp_path: Path) -> None:
    """The executor reads the JSON as `sta-hw compile` writes it, whatever else is in it."""
    compiled, image = layer("2:4")
    about = describe(compiled, 'a {name} with \\ and "quotes"')
    found = [run_in_c(executor, image, a, compiled.length) for a in (about, describe(compiled, "layer"))]
    assert found[0].counters == found[1].counters


# -- instruction by instruction -----------------------------------------------------------------------

CONFIGS = {
    "ci": PRESETS["ci"],
    "tiny": PRESETS["tiny"],
    "one group": Config(rows=4, groups=1, window=8, lanes=4, drain_lanes=1, columns=64, weight_words=1024),
    "window of 32": Config(rows=8, groups=4, window=32, lanes=8, drain_lanes=4, columns=128, parameter_words=256),
    "window of 4": Config(rows=8, groups=8, window=4, lanes=4, drain_lanes=2, columns=128, encodings=("index",)),
    "digits": Config(
        rows=8,
        groups=4,
        window=8,
        lanes=4,
        drain_lanes=2,
        columns=64,
        weight_words=1024,
        window_words=512,
        features=("digits",),
    ),
    "kept windows": Config(rows=8, groups=4, window=8, lanes=4, drain_lanes=2, columns=128, window_words=512),
    "more groups than rows": Config(rows=4, groups=16, window=8, drain_lanes=2, columns=128, window_words=128),
    "blocks": Config(rows=8, groups=16, window=16, lanes=8, drain_lanes=4, columns=128, features=("blocks4",)),
    "blocks of 32": Config(
        rows=8, groups=8, window=32, lanes=8, drain_lanes=4, columns=128, features=("blocks4",), encodings=("bitmap",)
    ),
    "blocks of 8": Config(rows=8, groups=8, window=8, lanes=4, drain_lanes=2, columns=128, features=("blocks4",)),
    "wide bus": Config(rows=32, groups=2, window=16, lanes=32, drain_lanes=8, columns=128, encodings=("bitmap",)),
}


def random_program(name: str, seed: int, count: int = 12) -> tuple[NDArray[np.uint8], dict, int]:
    config, rng = CONFIGS[name], np.random.default_rng([seed, sorted(CONFIGS).index(name)])
    length = int(rng.integers(0, 60))
    image, address = RandomProgram(config, rng).image(count, length, waits=False)
    about = {
        "hardware": {**capabilities(config), "configuration": config.as_dict()}, "program": {"offset": address},
    }  # fmt: skip
    return image, about, length


@pytest.mark.parametrize("name", CONFIGS)
def test_random_instructions(name: str, executor: Path) -> None:
    for seed in range(8):
        image, about, length = random_program(name, seed)
        wrong, _ = differences(executor, image, about, CONFIGS[name], length)
        assert not wrong, (seed, wrong[:3])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("digits", {"digit", "lift", "bits15", "keep", "kept"}),
        ("kept windows", {"keep", "kept", "continues", "count_register"}),
        ("more groups than rows", {"apart", "keep", "kept", "window_address_register"}),
        ("blocks", {"value_format", "run", "value_register"}),
    ],
)
def test_what_the_programs_have(name: str, fields: set[str]) -> None:
    """What a configuration has comes up in them."""
    config, seen = CONFIGS[name], set()
    for seed in range(8):
        image, about, _ = random_program(name, seed)
        for i in disassemble(image[about["program"]["offset"] :].tobytes(), config):
            seen |= i.fields.keys()
    assert fields <= seen


def test_windows_that_do_not_stay(executor: Path) -> None:
    """Refused by both at the same instruction; where they do, taken by both."""
    config, ends = CONFIGS["kept windows"], set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        program = RandomProgram(config, rng)
        start, taken = program.put(program.noise(4096)), 0
        for number in range(8):
            fields = program.weights(Pattern(1, 1), "dense", 1, 4, 1)
            taken = int(rng.integers(2)) if number else 0
            program.add(
                Opcode.PRODUCT, **fields, window_address=start + 32 * int(rng.integers(4)), window_beats=8,
                result_address=program.put(program.noise(32)), **{("keep", "kept")[taken]: 1},
            )  # fmt: skip
        image, address = program.image(0, 0, waits=False)
        about = {"hardware": {**capabilities(config), "configuration": config.as_dict()},
                 "program": {"offset": address}}  # fmt: skip
        said = ""
        try:
            run_counted(image, address, config, length=0)
        except ProgramError as error:
            said = f"{error.error.name} at instruction {error.instruction}"
        found = run_in_c(executor, image, about)
        assert said == ("" if found.counters else found.said)
        ends.add(said.partition(" ")[0])
    assert ends == {"OPCODE", ""}


MUTANTS = {
    "rounding of requantization": ("(int64_t)1 << (places - 1)), places), wide", "0), places), wide"),
    "saturation at -128": ("value < -limit ? -limit : value", "value < -limit - 1 ? -limit - 1 : value"),
    "where error diffusion begins": ("row->remainder = 1u << 15", "row->remainder = 0"),
    "the softmax's table": ("* 32768.0)", "* 32767.0)"),
    "the reciprocal's table": ("((double)index + 0.5) / 1024.0", "(double)index / 1024.0"),
    "the sum's growth": ("row->sum >>= growth", "row->sum >>= growth ? growth - 1 : 0"),
    "the stored sums' growth": ("floor_shift(*sum, block->growth[r])", "(*sum >> block->growth[r]) + 1"),
    "the scores' order": ("groups * (c % depth) + c / depth", "c + 0 * depth"),
    "LayerNorm's root": ("(double)fraction + 0.5) / 512.0", "(double)fraction) / 512.0"),
    "LayerNorm's mean": ("size * inverse + (1ull << 31)", "size * inverse"),
    "LayerNorm's fraction bits": ("131071)", "131000)"),
    "the residual's rounding": ("(int64_t)multiplier + (1 << 15), 16)", "(int64_t)multiplier, 16)"),
    "bits of a word of positions": ("hardware->window / w->m_log2 ", "(hardware->window - 1) / w->m_log2 "),
    "low digits": ("at[0] & 127 :", "at[0] & 63 :"),
    "high digits": ("at[0] >> 7 | at[1] << 1", "at[1] << 1"),
    "what high digits count": ("p->lift ? 128u", "p->lift ? 127u"),
    "saturation to 15 bits": ("p->bits15 ? 16383", "p->bits15 ? 16384"),
    "LayerNorm's 15 bits": ("? 16383 : 32767; /* bits15 */", "? 16384 : 32767; /* bits15 */"),
    "scales of blocks": ("(h[1] & 15) << 8", "(h[1] & 7) << 8"),
    "the sign of short biases": ("byte & 0x80 ? 0xFF : 0", "0"),
    "the byte that two headers share": ("kept[block] = own[groups + 1]", "kept[block] = own[groups]"),
    "headers of one word": ("number % share * (groups / share)", "number % share * (groups / share) * 0"),
    "windows as they were kept": ("p->kept ? m->windows : m->image", "m->image"),
    "the lower 8 bits of 16": ("low > 127 ? low - 256 : low", "low"),
    "coarse scores": ("p->coarse ? 8 : 1", "p->coarse ? 4 : 1"),
}  # fmt: skip
"""Of each a constant or a step of docs/numerics.md or docs/format.md: text of the executor, and what is wrong."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str, executor: Path, tmp_path: Path) -> None:
    """The comparison sees one constant that is not what it should be, in a program where it sees nothing else."""
    mutant = built(tmp_path / "mutant", dict([MUTANTS[name]]), ("-O1",))
    for seed in range(40):
        for hardware in ("tiny", "one group", "digits", "blocks"):
            image, about, length = random_program(hardware, seed)
            try:
                wrong = bool(differences(mutant, image, about, CONFIGS[hardware], length)[0])
            except AssertionError:  # it took weights for illegal
                wrong = True
            if wrong:
                assert not differences(executor, image, about, CONFIGS[hardware], length)[0]
                return
    pytest.fail("no program shows it")
