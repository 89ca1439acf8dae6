"""The C driver: compiled by every compiler there is, run on the simulated accelerator, with sanitizers and coverage."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from test_golden import small_encoder

from sim.memory_harness import MEMORY_BYTES, accelerator_library
from sta_hw.compiler.contract import inputs_file, raw_files
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.shorter import shortened
from sta_hw.files import write_all
from sta_hw.reference.program import run_program
from sta_hw.spec.c_header import configuration_header, registers_header
from sta_hw.spec.presets import PRESETS

DRIVER = Path(__file__).parents[2] / "drivers" / "c"
CONFIG = PRESETS["ci"]
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow", "-Wstrict-prototypes",
            "-Wcast-align", "-Wundef", "-Wmissing-prototypes"]  # fmt: skip
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
CORE = ["sta_hw.c", "sta_hw_mapped.c"]
HOSTED = ["sta_hw_file.c", "sta_hw_linux.c", "sta_hw_verilated.c"]
WRAPPED = ("open64", "close", "mmap64", "munmap", "poll", "read", "write")
LEAST_COVERAGE = 95.0


LENGTHS = (5, 3)
STEPS = (4321, 1234)
"""What makes the inputs of two runs."""


def given(step: int) -> list[np.ndarray]:
    """A run's texts; each token's value is an integer, which no scale changes."""
    return [(np.arange(8 * n).reshape(n, 8) * (step + n) % 30000 - 15000).astype(np.float32) for n in LENGTHS]


@dataclass(frozen=True)
class Case:
    """A compiled model in a folder, with inputs and what the reference gives for the first."""

    folder: Path
    model: CompiledModel

    def arguments(self, library: str) -> list[str]:
        files = ("small.bin", "inputs", "tokens", "pooled", "outputs", "tree")
        return [library, *(str(self.folder / name) for name in files)]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("driver")
    model = compile_encoder(small_encoder(), CONFIG, LENGTHS)
    floats = [given(step) for step in STEPS]
    expected = run_program(model.with_input(floats[0]), model.program_address, CONFIG, length=model.length)
    # Tiles of `rows` tokens: the first text has two of them, the second one.
    address, rows = model.info.buffers[model.info.outputs][0], CONFIG.rows
    tiles = (
        expected[address : address + 16 * 3 * rows].view("<i2").reshape(3, 8, rows).transpose(0, 2, 1).reshape(-1, 8)
    )
    outputs = tiles[[*range(LENGTHS[0]), *range(2 * rows, 2 * rows + LENGTHS[1])]]
    pooled = expected[model.output_address :][: 16 * rows].view("<i2").reshape(8, rows)[:, :2].T
    write_all(
        raw_files(model, folder / "small.npz")
        | {
            folder / "inputs": inputs_file(model, floats),
            folder / "tokens": np.concatenate(floats[0]).astype("<i2").tobytes(),
            folder / "pooled": np.ascontiguousarray(pooled).tobytes(),
            folder / "outputs": np.ascontiguousarray(outputs).tobytes(),
        }
    )
    for name in ("dev", "sys/class/uio/uio0/maps/map0", "sys/class/uio/uio0/maps/map1"):
        (folder / "tree" / name).mkdir(parents=True)
    return Case(folder, model)


def compiler(name: str, *options: str) -> list[str]:
    """The compiler with options that it can link a program with; or skip the test, saying what is missing."""
    if not shutil.which(name):
        pytest.skip(f"there is no {name} here")
    probe = subprocess.run(
        [name, *options, "-x", "c", "-", "-o", "/dev/null"], input="int main(void){return 0;}", capture_output=True,
        text=True, check=False, cwd=tempfile.gettempdir(),
    )  # fmt: skip
    if probe.returncode:
        pytest.skip(f"{name} {' '.join(options)} links no program here: {probe.stderr.splitlines()[-1]}")
    return [name, *options]


def run(command: list[str], folder: Path, **more: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=None, **more)
    assert done.returncode == 0, f"{' '.join(command[:3])}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def build_test(case: Case, folder: Path, command: list[str]) -> Path:
    sources = [str(DRIVER / name) for name in (*CORE, *HOSTED, "test/test_driver.c")]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    run(
        [*command, *WARNINGS, "-g", f"-I{DRIVER}", f"-I{case.folder}", '-DMODEL_HEADER="small.h"', "-DMODEL=SMALL",
         *sources, *wraps, "-ldl", "-o", "test_driver"], folder,
    )  # fmt: skip
    return folder / "test_driver"


def test_every_line_runs_without_a_report(case: Case, tmp_path: Path) -> None:
    """With gcc, sanitizers and coverage, the simulated accelerator and all of its errors included."""
    command = compiler("gcc", *SANITIZERS, "--coverage")
    program = build_test(case, tmp_path, command)
    said = run([str(program), *case.arguments(str(accelerator_library(CONFIG)))], tmp_path)
    checks, size = map(int, re.findall(r"(\d+) checks, sizeof memory (\d+)", said)[0])
    assert checks > 1000 and size == MEMORY_BYTES
    lines: dict[str, float] = {}
    for data in tmp_path.glob("*.gcda"):
        found = run(["gcov", "-n", data.name], tmp_path)
        lines |= {
            Path(name).name: float(share)
            for name, share in re.findall(r"File '([^']+)'\nLines executed:([\d.]+)%", found)
        }
    assert {n: s for n, s in lines.items() if n in (*CORE, *HOSTED) and s < LEAST_COVERAGE} == {}, lines
    assert {*CORE, *HOSTED} <= lines.keys()


def test_another_compiler_and_its_sanitizers(case: Case, tmp_path: Path) -> None:
    program = build_test(case, tmp_path, compiler("clang", *SANITIZERS))
    run([str(program), *case.arguments(str(accelerator_library(CONFIG)))], tmp_path)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_32_bits(case: Case, tmp_path: Path, name: str) -> None:
    """All but the simulated accelerator, which is a library of 64 bits."""
    program = build_test(case, tmp_path, compiler(name, "-m32", "-O2"))
    run([str(program), *case.arguments("none")], tmp_path)


@pytest.mark.parametrize(
    "name, options",
    [
        ("gcc", ["-m32"]), ("gcc", ["-m64"]), ("clang", ["-m32"]), ("clang", ["-m64"]),
        ("clang", ["--target=armv7m-none-eabi"]), ("clang", ["--target=aarch64-none-elf"]),
        ("riscv64-unknown-elf-gcc", ["-march=rv32im", "-mabi=ilp32"]),
        ("riscv64-unknown-elf-gcc", ["-march=rv64imac", "-mabi=lp64"]),
    ],
)  # fmt: skip
def test_the_core_needs_nothing(tmp_path: Path, name: str, options: list[str]) -> None:
    """It compiles without a C library's headers, and calls none of its functions but what compilers call themselves."""
    if not shutil.which(name):
        pytest.skip(f"there is no {name} here")
    for source in CORE:
        for level in ("-O0", "-Os", "-O3"):
            run([name, *options, *WARNINGS, level, "-ffreestanding", "-nostdlib", "-c", str(DRIVER / source), "-o",
                 "core.o"], tmp_path)  # fmt: skip
            tool = "nm" if name != "riscv64-unknown-elf-gcc" else "riscv64-unknown-elf-nm"
            if "--target" in " ".join(options):
                continue  # no nm of theirs is here; the compiler is what is tried
            missing = {line.split()[-1] for line in run([tool, "-u", "core.o"], tmp_path).splitlines()}
            assert missing <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}, missing


def test_the_registers_are_those_of_the_generator() -> None:
    text = (DRIVER / "sta_hw_registers.h").read_text()
    assert text == registers_header(), "`python -m sta_hw.spec.c_header` writes drivers/c/sta_hw_registers.h"


def test_a_code_is_no_offset(tmp_path: Path) -> None:
    """Taking an error or a counter for a register, or one for the other, does not compile."""
    source = """#include "sta_hw.h"
    static unsigned read(enum sta_hw_register r) { return r; }
    int main(void) { const char *text = sta_hw_fault_sentence(STA_HW_FAULT_HEADER);
                     return (int)read(STA_HW_REG_STATUS) + *text; }
    """
    command = [*compiler("gcc"), *WARNINGS, f"-I{DRIVER}", "-fsyntax-only", "-x", "c"]
    for right, wrong in (
        ("", ""), ("STA_HW_REG_STATUS", "STA_HW_FAULT_HEADER"), ("STA_HW_REG_STATUS", "STA_HW_COUNTER_CYCLES"),
        ("STA_HW_FAULT_HEADER", "STA_HW_REG_ERROR_INSTRUCTION"), ("STA_HW_FAULT_HEADER", "STA_HW_FAILED"),
    ):  # fmt: skip
        (tmp_path / "wrong.c").write_text(source.replace(right, wrong) if right else source)
        done = subprocess.run([*command, "wrong.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == bool(wrong), done.stderr


def test_headers_of_one_name_are_not_mixed_up(case: Case, tmp_path: Path) -> None:
    """Of two configurations, or models, whose macros begin alike the second is not left out in silence."""
    for folder, name, config in (("one", "core", CONFIG), ("two", "Core", PRESETS["tiny"])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "core.h").write_text(configuration_header(config, name))
    model = (case.folder / "small.h").read_text()
    (tmp_path / "one" / "small.h").write_text(model)
    (tmp_path / "two" / "small.h").write_text(
        raw_files(compile_encoder(small_encoder(), CONFIG, 7), tmp_path / "small.npz")[tmp_path / "small.h"]
    )
    for file, first in (("core.h", "CORE"), ("small.h", "SMALL")):
        for folders in (("one", "one"), ("one", "two")):
            (tmp_path / "both.c").write_text("".join(f'#include "{folder}/{file}"\n' for folder in folders))
            command = [*compiler("gcc"), *WARNINGS, "-Wno-pedantic", "-fsyntax-only", "both.c"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert (f'"{first}_' in done.stderr and "redefined" in done.stderr) == (folders == ("one", "two"))


@pytest.mark.parametrize("name", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++98", "c++20"])
def test_headers_are_for_cpp_too(case: Case, tmp_path: Path, name: str, standard: str) -> None:
    """A program in C++ calls the driver, which is in C, and initializes an image from the model's header."""
    headers = "".join(f'#include "{file.name}"\n' for file in sorted(DRIVER.glob("*.h")))
    (tmp_path / "program.cpp").write_text(
        f'{headers}#include "small.h"\n'
        "static const struct sta_hw_text texts[] = SMALL_TEXTS;\n"
        "static const struct sta_hw_image image = SMALL_IMAGE_OF(texts);\n"
        "int main() { static struct sta_hw dev; static struct sta_hw_bus bus;\n"
        "    return sta_hw_open(&dev, &bus, image.hash) != STA_HW_BAD_ARGUMENT; }\n"
    )
    folders = [f"-I{DRIVER}", f"-I{case.folder}"]
    command = [*compiler(name), f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Wno-long-long", "-Werror"]
    run([*compiler("gcc"), *folders, "-c", str(DRIVER / "sta_hw.c")], tmp_path)
    run([*command, *folders, "program.cpp", "sta_hw.o", "-o", "program"], tmp_path)
    run([str(tmp_path / "program")], tmp_path)


def test_the_documents_program(case: Case, tmp_path: Path) -> None:
    """docs/driver.md's program compiles without a warning; where there are no registers, it says so."""
    text = (DRIVER.parents[1] / "docs" / "driver.md").read_text()
    (program,) = re.findall(r"```c\n(.*?)```", text, re.S)
    write_all(raw_files(case.model, tmp_path / "minilm.npz"))
    for address, name in (("(volatile uint32_t *)0x40000000", "nothing"), ("(volatile uint8_t *)0x80000000", "memory")):
        assert address in program
        program = program.replace(address, name)
    (tmp_path / "program.c").write_text(
        "#include <stdint.h>\n#include <stdio.h>\nstatic uint32_t nothing[1024];\nstatic uint8_t memory[4096];\n"
        + program.replace("\nint embed", "\nstatic int embed")
        + 'int main(void) { static int16_t vector[MINILM_POOLED_CHANNELS]; char why[200] = "";\n'
        "int right = embed(memory, memory, 5, vector, why, sizeof why); puts(why); return right; }\n"
    )
    sources = [str(DRIVER / name) for name in CORE]
    run([*compiler("gcc"), *WARNINGS, f"-I{DRIVER}", "-I.", "program.c", *sources, "-o", "program"], tmp_path)
    assert "no STA-HW accelerator: expected 0x48415453, found 0x0." in run([str(tmp_path / "program")], tmp_path)


def test_the_example_embeds(case: Case, tmp_path: Path) -> None:
    """It compiles as docs/driver.md says, and gives both inputs' embeddings as the reference does."""
    sources = [str(DRIVER / name) for name in (*CORE, *HOSTED, "example/embed.c")]
    run(
        [*compiler("gcc", *SANITIZERS), *WARNINGS, f"-I{DRIVER}", f"-I{case.folder}", '-DMODEL_HEADER="small.h"',
         "-DMODEL=SMALL", *sources, "-ldl", "-lm", "-o", "embed"], tmp_path,
    )  # fmt: skip
    library = str(accelerator_library(CONFIG))
    files = [str(case.folder / "small.bin"), str(case.folder / "inputs")]
    run([str(tmp_path / "embed"), "--verilated", library, *files, "out"], tmp_path)
    found = np.fromfile(tmp_path / "out", "<f4").reshape(2, 2, 8)
    for embeddings, step in zip(found, STEPS, strict=True):
        image = run_program(
            case.model.with_input(given(step)), case.model.program_address, CONFIG, length=case.model.length
        )
        for text, embedding in enumerate(embeddings):
            assert np.abs(embedding - case.model.output(image, text)).max() < 1e-6
    # What cannot be: a sentence, and no crash.
    (tmp_path / "short").write_bytes((case.folder / "inputs").read_bytes()[:40])
    (tmp_path / "longer").write_bytes((case.folder / "inputs").read_bytes() + b"x")
    (tmp_path / "other").write_bytes(bytes(200))
    for arguments, words in (
        (["--verilated", "none.so", *files, "out"], "none.so"),
        (["--uio", "none", *files, "out"], "registers: No such file"),
        (["--verilated", library, "none", files[1], "out"], "cannot be read"),
        (["--verilated", library, files[0], "none", "out"], "none cannot be opened"),
        (["--verilated", library, files[0], "short", "out"], "ends before input 0"),
        (["--verilated", library, files[0], "longer", "out"], "goes on behind its 2 inputs"),
        (["--verilated", library, files[0], "other", "out"], "does not begin as one"),
        (["--verilated", library, files[1], files[1], "out"], "expected"),
        (["--other"], "usage"),
    ):
        done = subprocess.run(
            [str(tmp_path / "embed"), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode in (1, 2) and words in done.stderr, (arguments, done.stderr)


def test_the_example_embeds_shorter_texts(tmp_path: Path) -> None:
    """One image for texts of any length up to its own, one after the other: the reference's pooled values."""
    model = compile_encoder(small_encoder(), CONFIG, 11)
    texts = [(np.arange(8 * n).reshape(n, 8) * (77 + n) % 30000 - 15000).astype(np.float32) for n in (4, 11, 1, 6, 11)]
    write_all(raw_files(model, tmp_path / "one.npz") | {tmp_path / "inputs": inputs_file(model, texts)})
    sources = [str(DRIVER / name) for name in (*CORE, *HOSTED, "example/embed.c")]
    run(
        [*compiler("gcc", *SANITIZERS), *WARNINGS, f"-I{DRIVER}", "-I.", '-DMODEL_HEADER="one.h"', "-DMODEL=ONE",
         *sources, "-ldl", "-lm", "-o", "embed"], tmp_path,
    )  # fmt: skip
    files = ["one.bin", "inputs", "out"]
    run([str(tmp_path / "embed"), "--verilated", str(accelerator_library(CONFIG)), *files], tmp_path)
    found = np.fromfile(tmp_path / "out", "<f4").reshape(len(texts), 8)
    for text, embedding in zip(texts, found, strict=True):
        short = shortened(model, len(text))
        image = run_program(short.with_input(text), short.program_address, CONFIG, length=short.length)
        assert np.abs(embedding - short.output(image)).max() < 1e-6
    assert np.array_equal(found[1], found[4]) and len({e.tobytes() for e in found}) > 2
