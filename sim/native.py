"""A generated module as a shared library: Verilator, a C++ clock, and numpy arrays at the ends.

The library is built once for each Verilog text and kept in a cache folder, named by its content.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sta_hw.cache import cache_folder, keep, kept
from sta_hw.errors import CheckError
from sta_hw.process import run_tool
from sta_hw.rtl.emit import StreamPort
from sta_hw.rtl.names import MODELS

from . import verilator

__all__ = [
    "BLOCK_MEMORY",
    "COVERAGE",
    "PRIMITIVES",
    "NativeModel",
    "RunResult",
    "StalledError",
    "build",
    "primitive_models",
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


_SMALL = 1 << 20
"""Bytes of C++ up to which a model is compiled in one piece."""
_PIECES = 4


def primitive_models(multiplier: str) -> list[Path]:
    """The models that Verilog with multipliers of a kind wants beside: of Nexus and Gowin they are called alike."""
    return [Path(__file__).with_name(MODELS[multiplier][1])] if multiplier in MODELS else []


class StalledError(CheckError):
    """The simulation made no progress; the message names the streams that wait."""


class _Job(ctypes.Structure):
    _fields_ = (
        ("words", ctypes.c_void_p),
        ("cycles", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("done", ctypes.c_int64),
        ("surplus", ctypes.c_int64),
        ("stall", ctypes.c_uint32),
        ("waiting", ctypes.c_uint32),
    )


@dataclass
class RunResult:
    """What one run gave.

    Attributes
    ----------
    outputs : dict of uint32 arrays, shape (beats, words per beat)
    cycles : dict of int64 arrays
        Per stream, inputs too, the cycle each beat was transferred in (0 is the run's first).
    total : int
        Cycles of the run.
    """

    outputs: dict[str, NDArray[np.uint32]]
    cycles: dict[str, NDArray[np.int64]]
    total: int


def _header(name: str, streams: Sequence[StreamPort]) -> str:
    """The C++ header that tells the harness about one module."""

    def port(stream: StreamPort, part: str) -> str:
        return f"model.{stream.name}___05F{part}"

    def switch(result: str, signature: str, body: dict[int, str]) -> str:
        cases = "".join(f"case {i}: {text} break; " for i, text in body.items())
        return f"static inline {result} {signature} {{ switch (s) {{ {cases}default: break; }}"

    words = [(s.width + 31) // 32 for s in streams]
    inputs = [i for i, s in enumerate(streams) if s.direction == "input"]
    outputs = [i for i, s in enumerate(streams) if s.direction == "output"]
    offers = {i: f"{port(s, 'valid' if s.direction == 'input' else 'ready')} = on;" for i, s in enumerate(streams)}
    lines = [
        "#pragma once",
        "#include <cstdint>",
        f'#include "V{name}.h"',
        f"using Model = V{name};",
        f"constexpr int STREAMS = {len(streams)};",
        f"constexpr int WORDS[] = {{{', '.join(map(str, words))}}};",
        f"constexpr bool INPUT[] = {{{', '.join(str(s.direction == 'input').lower() for s in streams)}}};",
        "namespace { template <typename T> void set_payload(T&, const uint32_t*, int);",
        "template <std::size_t N> void set_payload(VlWide<N>&, const uint32_t*, int);",
        "template <typename T> void get_payload(const T&, uint32_t*, int);",
        "template <std::size_t N> void get_payload(const VlWide<N>&, uint32_t*, int); }",
        switch(
            "void",
            "drive(Model& model, int s, const uint32_t* words)",
            {i: f"set_payload({port(streams[i], 'payload')}, words, {words[i]});" for i in inputs},
        )
        + " }",
        switch(
            "void",
            "sample(Model& model, int s, uint32_t* words)",
            {i: f"get_payload({port(streams[i], 'payload')}, words, {words[i]});" for i in outputs},
        )
        + " }",
        switch("void", "offer(Model& model, int s, bool on)", offers) + " }",
    ]
    for part in ("valid", "ready"):
        body = {i: f"return {port(s, part)};" for i, s in enumerate(streams)}
        lines.append(switch("bool", f"{part}_of(Model& model, int s)", body) + " return false; }")
    quiet = " ".join(text.replace("on;", "0;") for text in offers.values())
    lines.append(f"static inline void quiet_streams(Model& model) {{ {quiet} }}")
    return "\n".join(lines) + "\n"


def build(
    verilog: str, name: str, streams: Sequence[StreamPort], *, extra: Sequence[Path] = (), fast: bool = True
) -> Path:  # fmt: skip
    """Compile a module of streams into a shared library, or find it in the cache; return its path.

    Parameters
    ----------
    verilog : str
        Text of a file with the module `name`.
    streams : sequence of StreamPort
        All its streams.
    extra : sequence of Path
        More Verilog files, such as models of vendor primitives.
    fast : bool
        As in `compile_library`.
    """
    harness = Path(__file__).with_name("harness.cpp")
    return compile_library(verilog, name, _header(name, streams), harness, extra=extra, fast=fast)


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
    optimize = "-O2" if fast and not covered else "-O0"
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
    """Compile what Verilator wrote, in few large pieces: each begins with the same headers, which take seconds.

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


def runtime_compiler() -> list[str]:
    """The C++ compiler with its options for Verilator's runtime.

    The FST writer's compression comes from `sim/fst`, so that it takes no package of the system.
    """
    include = verilator.root() / "include"
    return [*_compiler("-O2"), f"-I{_FST}", f"-I{include}", f"-I{include}/vltstd"]


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


class NativeModel:
    """A module running in this process.

    Parameters
    ----------
    library : Path
        What `build` returned.
    streams : sequence of StreamPort
        The streams it was built for.
    """

    def __init__(self, library: Path, streams: Sequence[StreamPort]) -> None:
        self.streams = tuple(streams)
        self._library = ctypes.CDLL(str(library))
        self._library.sta_open.restype = ctypes.c_void_p
        for function in (self._library.sta_close, self._library.sta_reset):
            function.argtypes = [ctypes.c_void_p]
        self._library.sta_run.restype = ctypes.c_int64
        self._library.sta_run.argtypes = [
            ctypes.c_void_p, ctypes.POINTER(_Job), ctypes.c_uint64, ctypes.c_int64, ctypes.c_int64,
        ]  # fmt: skip
        self._handle = self._library.sta_open()
        self.reset()

    def close(self) -> None:
        """Free the model; it cannot be used afterwards."""
        if self._handle:
            self._library.sta_close(self._handle)
            self._handle = None

    def reset(self) -> None:
        """Hold reset for four cycles."""
        self._library.sta_reset(self._handle)

    def run(
        self,
        inputs: Mapping[str, NDArray[np.uint32]],
        expected: Mapping[str, int],
        *,
        stall: float | Mapping[str, float] = 0.0,
        seed: int = 1,
        patience: int = 20_000,
        linger: int = 0,
    ) -> RunResult:
        """Send all `inputs`, take `expected` beats from each output.

        Parameters
        ----------
        inputs : dict of uint32 arrays, shape (beats, words per beat)
            Streams left out send nothing.
        expected : dict of int
            Beats to take from each output; streams left out should give none.
        stall : float, or dict of float
            Share of cycles, 0 to 1, in which a stream is idle although it could move.
        patience : int
            Cycles without any transfer after which the run is given up.
        linger : int
            Cycles to go on after the last beat, watching for beats too many.

        Raises
        ------
        StalledError
            When nothing moves, or an output gives more beats than expected.
        """
        jobs = (_Job * len(self.streams))()
        arrays: dict[str, NDArray[np.uint32]] = {}
        cycles: dict[str, NDArray[np.int64]] = {}
        for job, stream in zip(jobs, self.streams, strict=True):
            words = (stream.width + 31) // 32
            if stream.direction == "input":
                array = inputs.get(stream.name)
                if array is None:
                    array = np.zeros((0, words), np.uint32)
                if array.ndim != 2 or array.shape[1] != words or array.dtype != np.uint32:
                    raise ValueError(f"stream {stream.name} takes uint32 beats of {words} words, not {array.shape}")
                array = np.ascontiguousarray(array)
            else:
                array = np.zeros((expected.get(stream.name, 0), words), np.uint32)
            arrays[stream.name] = array
            cycles[stream.name] = np.zeros(len(array), np.int64)
            job.words, job.cycles, job.count = array.ctypes.data, cycles[stream.name].ctypes.data, len(array)
            share = stall if isinstance(stall, float | int) else stall.get(stream.name, 0.0)
            job.stall = round(share * 256)
        total = self._library.sta_run(self._handle, jobs, seed, patience, linger)
        if total < 0:
            raise StalledError(f"no progress after {-total} cycles; {self._waiting(jobs)}")
        for job, stream in zip(jobs, self.streams, strict=True):
            if job.surplus:
                raise StalledError(f"stream {stream.name} gave {job.surplus} beats more than the {job.count} expected")
        outputs = {s.name: arrays[s.name] for s in self.streams if s.direction == "output"}
        return RunResult(outputs, cycles, total)

    def _waiting(self, jobs: ctypes.Array[_Job]) -> str:
        parts = []
        for job, stream in zip(jobs, self.streams, strict=True):
            if job.done < job.count:
                why = {0: "neither valid nor ready", 1: "valid, not ready", 2: "ready, not valid"}[job.waiting]
                parts.append(f"{stream.name} at beat {job.done} of {job.count} ({why})")
        return "waiting: " + "; ".join(parts)
