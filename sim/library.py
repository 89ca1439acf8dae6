"""A Verilog module compiled into a shared library by Verilator and the C++ compiler, kept in a cache by its content."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sta_hw.cache import cache_folder, keep, kept, made_once
from sta_hw.process import run_tool
from sta_hw.rtl.names import MODELS

from . import verilator

__all__ = [
    "BLOCK_MEMORY",
    "COVERAGE",
    "PRIMITIVES",
    "compile_library",
    "primitive_models",
    "require_compiler",
    "runtime_compiler",
]

PRIMITIVES = Path(__file__).with_name("primitives.v")
"""Models of the vendor primitives that Verilog for ECP5 and iCE40 may instantiate."""
BLOCK_MEMORY = Path(__file__).with_name("dp16kd.v")
"""Model of ECP5 block RAM, which synthesized netlists have."""

COVERAGE = "STA_HW_COVERAGE"
"""The environment's name of a folder: models count their points of coverage (`sim.coverage`), and each writes
them there when it ends."""

_FST = Path(__file__).with_name("fst")
_COVERAGE_INCLUDE = '#include "coverage.h"\n'
_COVERAGE_HEADER = Path(__file__).parent / "coverage" / "coverage.h"
_FLAGS = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-lint"]


_FAST = "-O1"
"""For what is simulated: with -O2 an accelerator's model takes 2.7 times as long to compile; the smallest one then runs
4 % faster, the reference one no faster."""
_SMALL = 1 << 20
"""Bytes of C++ up to which a model is compiled in one piece."""
_PIECES = 2


def primitive_models(multiplier: str) -> list[Path]:
    """The models that Verilog with multipliers of a kind wants beside: of Nexus and Gowin they are called alike."""
    return [Path(__file__).with_name(MODELS[multiplier][1])] if multiplier in MODELS else []


def compile_library(
    verilog: str, name: str, header: str, harness: Path, *, extra: Sequence[Path] = (), trace: str = "",
    fast: bool = True,
) -> Path:  # fmt: skip
    """Compile a module into a shared library, or find it in the cache; return its path.

    Parameters
    ----------
    verilog : str
        Text of a file with the module `name`.
    header : str
        The text of `model.h`, which the harness includes.
    harness : Path
        The C++ file of the functions that Python calls.
    extra : sequence of Path
        More Verilog files.
    trace : str
        Able to write waveforms of this format, ``fst`` or ``vcd``; slower. Empty for none.
    fast : bool
        Compiled for speed of the simulation; otherwise for speed of the compiler, which netlists keep busy.

    Raises
    ------
    ToolError
        If Verilator or the C++ compiler is missing or fails, with the line of its output that says why.
    """
    flags = _FLAGS + ([f"--trace-{trace}"] if trace else [])
    covered = bool(os.environ.get(COVERAGE)) and "cover@" in verilog
    if covered:
        flags = [f for f in flags if f != "--noassert"]  # which leaves covers out, too
        flags += ["--coverage-user", "--coverage-toggle", "--coverage-max-width", "1024"]
        header = header.replace(f"using Model = V{name};", f"{_COVERAGE_INCLUDE}using Model = Covered<V{name}>;")
    optimize = _FAST if fast and not covered else "-O0"
    texts = [
        verilog,
        name,
        header,
        harness.read_text(encoding="utf-8"),
        *(p.read_text(encoding="utf-8") for p in extra),
        *([_COVERAGE_HEADER.read_text(encoding="utf-8")] if covered else []),
        str(flags),
        optimize,
    ]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
    target = cache_folder() / f"{name}-{digest}.so"
    with made_once(target):
        if kept(target) is not None:  # half a library would end the process that loads it
            return target
        folder = Path(tempfile.mkdtemp(prefix="sta_hw_"))
        try:
            (folder / f"{name}.v").write_text(verilog)
            (folder / "model.h").write_text(header)
            shutil.copy(harness, folder)
            if covered:
                shutil.copy(_COVERAGE_HEADER, folder)
            for path in extra:
                shutil.copy(path, folder)
            verilate = [
                str(verilator.root() / "bin" / "verilator_bin"), *flags, "--top-module", name, "--Mdir", "obj",
                f"{name}.v", *(p.name for p in extra),
            ]  # fmt: skip
            _run(verilate, folder)
            macros = ["-DVM_COVERAGE=1"] if covered else []
            objects = [*_runtime_objects(trace, folder, macros), *_compile(folder, name, optimize)]
            include = verilator.root() / "include"
            _run([*_compiler("-O2"), *macros, "-shared", "-Iobj", "-I.", f"-I{include}", f"-I{include}/vltstd",
                  harness.name, *map(str, objects), "-lpthread", "-o", "model.so"], folder)  # fmt: skip
            keep(target, (folder / "model.so").read_bytes())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def _compiler(optimize: str) -> list[str]:
    return [os.environ.get("CXX", "g++"), optimize, "-fPIC", "-std=c++17"]


def _compile(folder: Path, name: str, optimize: str) -> list[Path]:
    """Compile what Verilator wrote, in few large pieces: each begins with the same headers, which take two seconds.

    What runs once, at the start, is not optimized.
    """
    sources = sorted((folder / "obj").glob("*.cpp"))
    once = [s for s in sources if s.stem.endswith("__Slow")]
    often = [s for s in sources if s not in once and s.name != f"V{name}__ALL.cpp"]
    small = sum(s.stat().st_size for s in sources) < _SMALL
    pieces = [(often[i::_PIECES], optimize) for i in range(_PIECES)] + [(once, "-O0")]
    if small:
        pieces = [(often + once, optimize)]
    include = verilator.root() / "include"
    objects, commands = [], []
    for number, (group, level) in enumerate(pieces):
        if group:
            piece = folder / f"piece_{number}.cpp"
            piece.write_text("".join(f'#include "{source}"\n' for source in group))
            objects.append(piece.with_suffix(".o"))
            commands.append(
                [*_compiler(level), f"-I{include}", f"-I{include}/vltstd", "-Iobj", "-I.", "-c", piece.name]
            )
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda command: _run(command, folder), commands))
    return objects


def require_compiler() -> None:
    """Try the C++ compiler on nothing: said before the minutes that the Verilog takes which it would compile.

    Raises
    ------
    ToolError
        If it is missing or fails.
    """
    _run([*_compiler("-O0"), "-fsyntax-only", "-x", "c++", os.devnull], Path.cwd())


def runtime_compiler() -> list[str]:
    """The C++ compiler with its options for Verilator's runtime.

    The FST writer's compression comes from `sim/fst`, so that it takes no package of the system. The runtime's
    assertions, with which clang asks for a library of atomic operations, are left out.
    """
    include = verilator.root() / "include"
    return [*_compiler("-O2"), "-DNDEBUG", f"-I{_FST}", f"-I{include}", f"-I{include}/vltstd"]


def _runtime_objects(trace: str, folder: Path, macros: Sequence[str]) -> list[Path]:
    """Verilator's own runtime, compiled in `folder` once and kept: it is the same for every model."""
    include = verilator.root() / "include"
    command = [*runtime_compiler(), *macros]
    compression = b"".join(p.read_bytes() for p in sorted(_FST.glob("*.h")))
    objects = []
    more = [*([f"verilated_{trace}_c"] if trace else []), *(["verilated_cov"] if macros else [])]
    for source in ("verilated", "verilated_threads", *more):
        text = (include / f"{source}.cpp").read_bytes() + (include / "verilated.h").read_bytes()
        text += compression if trace == "fst" else b""
        digest = hashlib.sha256(text + str(command).encode()).hexdigest()[:24]
        target = cache_folder() / f"{source}-{digest}.o"
        if kept(target) is None:
            made = folder / f"{source}.o"
            _run([*command, "-c", str(include / f"{source}.cpp"), "-o", str(made)], folder)
            keep(target, made.read_bytes())
        objects.append(target)
    return objects


def _run(command: Sequence[str], folder: Path) -> None:
    run_tool(command, folder=folder, environment=verilator.environment())
