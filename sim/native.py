"""A generated module of streams in this process: a C++ clock, and numpy arrays at the ends."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sta_hw.errors import CheckError
from sta_hw.rtl.emit import StreamPort

from .library import compile_library

__all__ = ["NativeModel", "RunResult", "StalledError", "build"]


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
