"""The shared library of accelerator and memory (memory_harness.cpp): compiled, loaded, and its structures."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sta_hw.spec.config import Config

from .library import BLOCK_MEMORY, PRIMITIVES, compile_library, primitive_models
from .verilog import module_verilog

__all__ = [
    "MEMORY_BYTES",
    "STORED",
    "Memory",
    "Record",
    "SlicedTimeline",
    "Timeline",
    "accelerator_library",
    "loaded_library",
]

_FORMATS = ("", "fst", "vcd")


class Memory(ctypes.Structure):
    """The memory's bytes and behaviour, and the beats it has seen; the rest as `sim.accelerator.MemoryModel` has it."""

    _fields_ = (
        ("bytes", ctypes.c_void_p), ("base", ctypes.c_uint64), ("size", ctypes.c_uint64),
        ("latency", ctypes.c_int64), ("beats_per_256", ctypes.c_uint32), ("shared", ctypes.c_uint32),
        ("stall", ctypes.c_uint32),
        ("error_low", ctypes.c_uint64), ("error_high", ctypes.c_uint64), ("seed", ctypes.c_uint64),
        ("protocol_errors", ctypes.c_int64), ("reads_done", ctypes.c_int64), ("writes_done", ctypes.c_int64),
    )  # fmt: skip


MEMORY_BYTES = ctypes.sizeof(Memory)
"""Of the harness's description of a memory, which the C driver has, too."""


class Record(ctypes.Structure):
    """The beat that is stored wrongly, -1 for none, and room for `capacity` beats written, of which `count` are."""

    _fields_ = (
        ("flipped_beat", ctypes.c_int64), ("flipped_bit", ctypes.c_int64), ("stores", ctypes.c_void_p),
        ("stored", ctypes.c_void_p), ("capacity", ctypes.c_int64), ("count", ctypes.c_int64),
    )  # fmt: skip


class Timeline(ctypes.Structure):
    """Room for samples, a row each `period` cycles, and for completions: their cycle, and a bit for each kind."""

    _fields_ = (
        ("samples", ctypes.c_void_p), ("capacity", ctypes.c_int64), ("period", ctypes.c_int64),
        ("bits", ctypes.c_int32), ("count", ctypes.c_int64), ("events", ctypes.c_void_p),
        ("event_capacity", ctypes.c_int64), ("event_count", ctypes.c_int64), ("event_shift", ctypes.c_int32),
    )  # fmt: skip


class SlicedTimeline:
    """Samples and completions of a run of any length, of which the simulation fills one slice at a time.

    Attributes
    ----------
    slice : int
        Cycles of a slice, at least `wanted`: whole samples, with room for a completion each cycle.
    timeline : Timeline
        What the simulation is given.
    """

    def __init__(self, wanted: int, period: int, bits: int, shift: int) -> None:
        rows = -(-wanted // period)
        self.slice = rows * period
        self._samples = np.zeros((rows, bits), np.uint16)
        self._events = np.zeros((self.slice, 2), np.int64)
        self.timeline = Timeline(
            self._samples.ctypes.data, rows, period, bits, 0, self._events.ctypes.data, self.slice, 0, shift
        )
        self._taken = [self._samples[:0]]
        self._found = [self._events[:0]]

    def take(self, before: int) -> None:
        """Keep what a slice gave, behind so many cycles, and make room for the next one's."""
        timeline = self.timeline
        self._taken.append(self._samples[: timeline.count].copy())
        self._found.append(self._events[: timeline.event_count] + np.array([before, 0]))
        timeline.count = timeline.event_count = 0

    def samples(self) -> NDArray[np.uint16]:
        """Shape (samples, bits): in how many cycles of each period a bit was set."""
        return np.concatenate(self._taken)

    def completed(self, bit: int) -> NDArray[np.int64]:
        """The cycles of one kind of completion."""
        events = np.concatenate(self._found)
        return events[events[:, 1] >> bit & 1 == 1, 0]


STORED = np.dtype([("cycle", np.int64), ("offset", np.uint64), ("strobe", np.uint64)])
"""What a `Record` says of each beat written."""


def accelerator_library(
    config: Config, *, trace: str = "", netlist: str | None = None, watchdog_bits: int | None = None
) -> Path:
    """The shared library, compiled or found in the cache; the C driver's tests load it, too.

    Parameters
    ----------
    config : Config
    trace : str
        Able to write waveforms of this format, ``fst`` or ``vcd``; empty for none.
    netlist : str or None
        Verilog of the synthesized netlist, to take the RTL's place.
    watchdog_bits : int or None
        Of the core (`sta_hw.rtl.core`), if not as all accelerators have them.

    Raises
    ------
    ToolError
        If it does not compile.
    """
    name = "accelerator"
    header = (
        f'#pragma once\n#define TRACE {_FORMATS.index(trace)}\n#include "V{name}.h"\nusing Model = V{name};\n'
        f"constexpr int BUS_BYTES = {config.bus_bytes};\n"
    )
    extra = primitive_models(config.multiplier)
    if netlist is not None:
        extra = [PRIMITIVES, BLOCK_MEMORY]
    options = {} if watchdog_bits is None else {"watchdog_bits": watchdog_bits}
    return compile_library(
        netlist or module_verilog(name, config, hierarchy=bool(trace), **options), name, header,
        Path(__file__).with_name("memory_harness.cpp"), extra=extra, trace=trace, fast=netlist is None,
    )  # fmt: skip


def loaded_library(
    config: Config, *, trace: str = "", netlist: str | None = None, watchdog_bits: int | None = None
) -> ctypes.CDLL:
    """`accelerator_library`, loaded, the types of its functions' arguments declared."""
    library = accelerator_library(config, trace=trace, netlist=netlist, watchdog_bits=watchdog_bits)
    lib = ctypes.CDLL(str(library))
    pointer, memory = ctypes.c_void_p, ctypes.POINTER(Memory)
    lib.accelerator_open.restype = pointer
    lib.accelerator_close.argtypes = [pointer]
    lib.accelerator_reset.argtypes = [pointer, memory]
    lib.accelerator_write.argtypes = [pointer, memory, ctypes.c_uint32, ctypes.c_uint32]
    lib.accelerator_write.restype = ctypes.c_uint32
    lib.accelerator_read.argtypes = [pointer, memory, ctypes.c_uint32]
    lib.accelerator_read.restype = ctypes.c_uint64
    lib.accelerator_run.argtypes = [
        pointer, memory, ctypes.POINTER(Timeline), ctypes.c_int64, ctypes.c_int64,
    ]  # fmt: skip
    lib.accelerator_run.restype = ctypes.c_int64
    lib.accelerator_cycle.argtypes = [pointer]
    lib.accelerator_cycle.restype = ctypes.c_int64
    lib.accelerator_record.argtypes = [pointer, ctypes.POINTER(Record)]
    lib.accelerator_record.restype = None
    lib.accelerator_under_way.argtypes = [pointer]
    lib.accelerator_under_way.restype = ctypes.c_int64
    if trace:
        lib.accelerator_trace.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64]
    return lib
