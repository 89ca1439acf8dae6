"""The whole accelerator as a shared library: clock, memory and bus in C++, numpy at the ends."""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import needs_length
from sta_hw.spec.isa import Error, disassemble
from sta_hw.spec.presets import preset
from sta_hw.spec.registers import COMPLETIONS, COUNTERS, register

from .memory_harness import STORED, Memory, Record, SlicedTimeline, accelerator_library, loaded_library

__all__ = [
    "AcceleratorModel",
    "MemoryModel",
    "ProgramRun",
    "Recording",
    "UnendedError",
]

_EVENT_BITS = len(COUNTERS) - 1
_SLICE = 200 * 1024
_COMPLETED = {name: at for name, (at, _) in COMPLETIONS.places.items()}
"""Completion pulses, and the bit of each."""


@dataclass(frozen=True)
class MemoryModel:
    """How the simulated memory behaves.

    Attributes
    ----------
    latency : int
        Cycles from a read address to its first beat, and from the last beat written to the answer.
    beats_per_cycle : float
        Bandwidth in bus beats per cycle of each direction, as AXI's two data channels have it.
    shared : bool
        The bandwidth is that of both directions together, as one DRAM has it.
    stall : float
        Share of cycles in which a channel rests.
    error : tuple of int, or None
        Addresses (low, high) that answer with an error.
    flip : tuple of int, or None
        A fault: the beat written, counted from 0 since the start, that is stored with a bit flipped, and which bit.
    """

    latency: int = 50
    beats_per_cycle: float = 1.0
    shared: bool = False
    stall: float = 0.0
    seed: int = 1
    error: tuple[int, int] | None = None
    flip: tuple[int, int] | None = None


@dataclass
class Recording:
    """What an accelerator wrote, beat after beat, and when its instructions were done.

    Attributes
    ----------
    cycles : list of int64 arrays
        The clock cycle of each beat, counted as `AcceleratorModel.trace` counts.
    offsets : list of uint64 arrays
        Where in the image its first byte lies.
    strobes : list of uint64 arrays
        Bit i: its byte i was written.
    data : list of uint8 arrays, shape (beats, bytes of the bus)
        What memory held there afterwards.
    completed : dict of int64 arrays
        The clock cycle of each completion: loads, matrix (products through the array), scores (in the softmax),
        stores (products' results in memory), norms.
    started : int
        The clock cycle in which the program was under way.
    """

    cycles: list[NDArray[np.int64]] = field(default_factory=list)
    offsets: list[NDArray[np.uint64]] = field(default_factory=list)
    strobes: list[NDArray[np.uint64]] = field(default_factory=list)
    data: list[NDArray[np.uint8]] = field(default_factory=list)
    completed: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    started: int = 0

    def take(self, stores: NDArray, data: NDArray[np.uint8]) -> None:
        """Keep beats: a copy of (cycle, offset, strobe) records and what they left."""
        self.cycles.append(stores["cycle"].copy())
        self.offsets.append(stores["offset"].copy())
        self.strobes.append(stores["strobe"].copy())
        self.data.append(data.copy())


@dataclass
class ProgramRun:
    """What a run gave.

    Attributes
    ----------
    image : uint8 array
        Memory after the run.
    cycles : int
        From start to the end of the program, by the accelerator's own counter.
    counters : dict of int
    error : Error
    error_instruction : int
    samples : uint16 array, shape (samples, events)
        How many of each `period` cycles each unit was active.
    completed : dict of int64 arrays
        The cycle of each completion: loads, matrix (products through the array), scores (in the softmax), stores
        (products' results in memory), norms.
    """

    image: NDArray[np.uint8]
    cycles: int
    counters: dict[str, int]
    error: Error
    error_instruction: int
    period: int
    samples: NDArray[np.uint16]
    completed: dict[str, NDArray[np.int64]] = field(default_factory=dict)


class UnendedError(CheckError):
    """A program that was still at work when its time was over."""


class AcceleratorModel:
    """The accelerator's RTL in this process.

    Parameters
    ----------
    config : Config
    trace : str
        Able to write waveforms of this format, ``fst`` or ``vcd``, with the hierarchy and the names of the source;
        empty for none.
    netlist : str or None
        Verilog of the synthesized netlist (`sta_hw.fpga.netlist.netlist_verilog`), to take the RTL's place.
    watchdog_bits : int or None
        Of the core (`sta_hw.rtl.core`), if not as all accelerators have them.
    """

    def __init__(
        self, config: Config, *, trace: str = "", netlist: str | None = None, watchdog_bits: int | None = None
    ) -> None:
        self.config = config
        lib = loaded_library(config, trace=trace, netlist=netlist, watchdog_bits=watchdog_bits)
        self._library = lib
        self._handle = lib.accelerator_open()
        self._memory = Memory(beats_per_256=256)
        self.reset()

    def close(self) -> None:
        """Free the model; it cannot be used afterwards."""
        if self._handle:
            self._library.accelerator_close(self._handle)
            self._handle = None

    def trace(self, path: Path, start: int, stop: int) -> None:
        """Write a waveform of the clock cycles from `start` to `stop` while what follows runs, until `close`.

        Cycles count from the first reset on, the register accesses that start a program among them. A cycle is two
        units of the waveform's time: before its rising clock edge, and behind it.
        """
        self._library.accelerator_trace(self._handle, str(path).encode(), start, stop)

    @property
    def cycle(self) -> int:
        """Clock cycles since the first reset."""
        return int(self._library.accelerator_cycle(self._handle))

    def reset(self) -> None:
        """Hold the hardware reset."""
        self._library.accelerator_reset(self._handle, ctypes.byref(self._memory))

    def read(self, name: str) -> int:
        """A register's value.

        Raises
        ------
        CheckError
            If the bus answers with an error.
        """
        answer = self._library.accelerator_read(self._handle, ctypes.byref(self._memory), register(name).offset)
        if answer >> 32:
            raise CheckError(f"reading register {name}: the bus answers {answer >> 32}")
        return answer & 0xFFFFFFFF

    def write(self, name: str, value: int) -> None:
        """Write a register."""
        answer = self._library.accelerator_write(self._handle, ctypes.byref(self._memory), register(name).offset, value)
        if answer:
            raise CheckError(f"writing register {name}: the bus answers {answer}")

    def start(
        self,
        image: NDArray[np.uint8],
        program_address: int,
        *,
        memory: MemoryModel | None = None,
        base: int = 0x8000_0000,
        limit: int | None = None,
        length: int | None = None,
        position: int = 0,
    ) -> NDArray[np.uint8]:
        """Start a program, interrupt enabled, and return at once with the copy of `image` it works on; as `run`."""
        memory = memory or MemoryModel()
        data = np.ascontiguousarray(image).copy()
        low, high = memory.error or (0, 0)
        self._memory = Memory(
            data.ctypes.data, base, len(data), memory.latency, round(memory.beats_per_cycle * 256), int(memory.shared),
            round(memory.stall * 256), low, high, memory.seed,
        )  # fmt: skip
        self._record = Record(*(memory.flip or (-1, 0)))
        self._library.accelerator_record(self._handle, ctypes.byref(self._record) if memory.flip else None)
        self._image = data  # kept: the hardware may still read it when nobody else does
        self.write("image_address", base)
        self.write("image_size", len(data) if limit is None else limit)
        self.write("program_address", program_address)
        self.write("length", self._length(data, program_address) if length is None else length)
        if "position" in self.config.features:
            self.write("position", position)
        self.write("control", 0b101)
        return data

    def _length(self, image: NDArray[np.uint8], program_address: int) -> int:
        """0 for a program that does not depend on register LENGTH; one that is malformed stops by itself."""
        try:
            program = disassemble(image[program_address:].tobytes(), self.config)
        except InputError:
            return 0
        if needs_length(program):
            raise InputError("the program depends on register LENGTH; give length.")
        return 0

    def advance(self, cycles: int) -> int:
        """Run so many cycles, or to the interrupt; returns how many it were."""
        return self._library.accelerator_run(self._handle, ctypes.byref(self._memory), None, cycles, cycles)

    @property
    def under_way(self) -> int:
        """Bursts that the accelerator began and the memory has not completed."""
        return self._library.accelerator_under_way(self._handle)

    @property
    def transfers(self) -> tuple[int, int, int]:
        """Since the last start: beats read, beats written, breaches of the protocol."""
        state = self._memory
        return state.reads_done, state.writes_done, state.protocol_errors

    def run(
        self,
        image: NDArray[np.uint8],
        program_address: int,
        *,
        memory: MemoryModel | None = None,
        base: int = 0x8000_0000,
        limit: int | None = None,
        length: int | None = None,
        position: int = 0,
        period: int = 1024,
        most: int = 2_000_000_000,
        patience: int = 3_000_000,
        progress: Callable[[int], None] | None = None,
        record: Recording | None = None,
    ) -> ProgramRun:
        """Run a program to its end, or to the error that stops it.

        Parameters
        ----------
        image : uint8 array
            Not changed; `ProgramRun.image` is the copy the hardware worked on.
        base : int
            Bus address of the image.
        limit : int
            Image size told to the hardware; the image's own by default.
        length, position : int
            Registers LENGTH, which a program that depends on it needs, and, where there is one, POSITION.
        progress : function
            Called now and then with the cycles so far.
        record : Recording
            Is given every beat written and every completion, those before an error that is raised too.

        Raises
        ------
        CheckError
            When the simulation makes no progress (with the streams that wait), or breaks the protocol; UnendedError
            when it is still at work after `most` cycles.
        InputError
            If the program depends on register LENGTH, and no length is given.
        """
        data = self.start(
            image, program_address, memory=memory, base=base, limit=limit, length=length, position=position
        )
        state = self._memory
        seen = SlicedTimeline(_SLICE, period, _EVENT_BITS, _EVENT_BITS)
        stores = np.zeros(seen.slice if record else 0, STORED)
        stored = np.zeros((len(stores), self.config.bus_bytes), np.uint8)
        if record:
            beats = self._record
            beats.stores, beats.stored, beats.capacity = stores.ctypes.data, stored.ctypes.data, len(stores)
            self._library.accelerator_record(self._handle, ctypes.byref(beats))
        started = self.cycle
        try:
            self._until_done(seen, most, patience, progress, record, stores, stored)
        finally:
            self._library.accelerator_record(self._handle, None)
            completed = {name: seen.completed(bit) for name, bit in _COMPLETED.items()}
            if record:
                record.started = started
                # An event is counted when its cycle has gone by.
                record.completed = {name: cycles + started - 1 for name, cycles in completed.items()}
        if state.protocol_errors:
            raise CheckError(f"{state.protocol_errors} transfers outside the memory or against the protocol")
        status = self.read("status")
        counters = {c.name: self.read(f"counter_{c.name}") for c in COUNTERS}
        instruction = self.read("error_instruction")
        self.write("interrupt_clear", 1)
        return ProgramRun(
            data, counters["cycles"], counters, Error(status >> 8 & 0xFF), instruction, period,
            seen.samples(), completed,
        )  # fmt: skip

    def _until_done(
        self, seen: SlicedTimeline, most: int, patience: int, progress: Callable[[int], None] | None,
        record: Recording | None, stores: NDArray, stored: NDArray[np.uint8],
    ) -> None:  # fmt: skip
        """Run in slices to the end of the program."""
        state, total = self._memory, 0
        while True:
            slice_cycles = min(seen.slice, most - total)
            gone = self._library.accelerator_run(
                self._handle, ctypes.byref(state), ctypes.byref(seen.timeline), slice_cycles, patience
            )
            seen.take(total)
            if record:
                record.take(stores[: self._record.count], stored[: self._record.count])
                self._record.count = 0
            if gone < 0:
                finished = {name: len(seen.completed(bit)) for name, bit in _COMPLETED.items()}
                raise CheckError(
                    f"no progress after {total - gone} cycles; waiting: {self.stalled()}; finished: {finished}"
                )
            total += gone
            if progress:
                progress(total)
            if gone < slice_cycles:
                return
            if total >= most:
                raise UnendedError(f"the program did not end within {most} cycles; waiting: {self.stalled()}")

    def stalled(self) -> str:
        """Names of the streams that offer a beat nobody takes."""
        word = self.read("stalled")
        names = [f.text for f in register("stalled").fields if word >> f.low & 1]
        return ", ".join(names) or "no stream offers a beat"


def main() -> int:
    """Print where the library is that the C driver loads; it is compiled if need be."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--preset", default="reference", help="the hardware")
    try:
        print(accelerator_library(preset(parser.parse_args().preset)))
    except (InputError, ToolError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
