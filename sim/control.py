"""Registers and controller in RTL against their model, cycle by cycle, under random writes, reads and core behaviour.

``python -m sim.control --cycles 10000000`` runs as long as one likes; tests/sim/test_control.py a million cycles.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sta_hw.errors import CheckError
from sta_hw.rtl.control.registers import Registers
from sta_hw.rtl.emit import emit_verilog
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS, preset
from sta_hw.spec.registers import COUNTERS, REGISTERS, capabilities, register

from .control_model import ControlModel, Seen
from .library import compile_library

__all__ = ["ControlRun", "control_library", "run_control"]

_INPUTS = ("flags", "read_address", "error", "instruction", "stalled", "events")
_OUTPUTS = ("flags", "read_data", "image_address", "image_size", "program_address", "length", "write_address",
            "write_data", "write_strobes", "read_address")  # fmt: skip
_SLICE = 100_000
_REGIME = 128
"""Cycles for which the stimuli's rates stay."""
_WRITES = 1 << 18
_LATE = 3
"""Cycles from an event to the answer that counts it."""


@dataclass
class ControlRun:
    """What a run without a difference covered.

    Attributes
    ----------
    cycles, accepted, rises : int
        Cycles; jobs taken; rises of the interrupt.
    ended : Counter
        Jobs by how they ended: complete, failures, misplaced, abandoned.
    coincidences : Counter
        As in `ControlModel`.
    """

    cycles: int = 0
    accepted: int = 0
    rises: int = 0
    counter_reads: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    coincidences: Counter[str] = field(default_factory=Counter)


def control_library(config: Config) -> Path:
    """Registers and controller of `config` with their harness, compiled or from the cache."""
    name = "control"
    header = f'#pragma once\n#include "V{name}.h"\nusing Model = V{name};\n'
    return compile_library(
        emit_verilog(Registers(config), name), name, header, Path(__file__).with_name("control.cpp")
    )  # fmt: skip


def _writes(rng: np.random.Generator, config: Config, enabled: bool) -> NDArray[np.uint32]:
    """Register writes, shape (writes, 3): address, word, strobes. Any word may come to any register, or to none."""
    count = _WRITES
    block = config.burst * config.bus_bytes
    places = [register(n).offset for n in ("image_address", "image_size", "program_address", "length")]
    control, clear = register("control").offset, register("interrupt_clear").offset
    address = rng.choice(
        [control, clear, *places, register("status").offset], count,
        p=[0.7, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02])  # fmt: skip
    address = np.where(rng.random(count) < 0.02, rng.integers(0, 1 << 12, count), address)
    # To `control` most are starts, and few a reset; as places, most are sound.
    commands, shares = zip((1, 0.3), (5, 0.4), (4, 0.1), (0, 0.08), (2, 0.05), (6, 0.05), (7, 0.02), strict=True)
    word = np.where(address >> 2 == control >> 2, rng.choice(commands, count, p=shares), 0)
    word |= np.minimum(rng.integers(0, 32, count), rng.integers(1, 32, count)) * block
    word = np.where(rng.random(count) < 0.1, (1 << 32) - rng.integers(1, 8, count) * block, word)
    word = np.where(rng.random(count) < 0.05, rng.integers(0, 1 << 32, count), word)
    if enabled:
        word |= np.where(address >> 2 == control >> 2, 4, 0)
    strobes = np.where(rng.random(count) < 0.8, 15, rng.integers(0, 16, count))
    return np.stack([address, word, strobes], axis=1).astype(np.uint32)


def _stimuli(rng: np.random.Generator, count: int) -> NDArray[np.uint32]:
    """Inputs of so many cycles, shape (count, inputs); rates change now and then, and may be 0 or 1."""
    regimes = -(-count // _REGIME)

    def chance(*rates: float) -> NDArray[np.bool_]:
        return rng.random(count) < rng.choice(rates, regimes).repeat(_REGIME)[:count]

    inputs = np.zeros((count, len(_INPUTS)), np.uint32)
    column = {name: inputs[:, i] for i, name in enumerate(_INPUTS)}
    flags = (
        chance(0.05, 0.5, 1.0), chance(0.0, 0.02, 0.2, 1.0), chance(0.0, 0.02, 0.2, 1.0), chance(0.2, 1.0, 1.0),
        chance(0.2, 1.0, 1.0), chance(0.03, 0.2, 1.0), chance(0.03, 0.2, 1.0), chance(0.05, 1.0),
    )  # fmt: skip
    column["flags"][:] = sum(flag.astype(np.uint32) << i for i, flag in enumerate(flags))
    readable = [register("status").offset, *(r.offset for r in REGISTERS)]
    anything = rng.random(count) < 0.1
    column["read_address"][:] = np.where(anything, rng.integers(0, 1 << 12, count), rng.choice(readable, count))
    for name, bits in (("error", 8), ("instruction", 16), ("stalled", 7), ("events", len(COUNTERS) - 1)):
        column[name][:] = rng.integers(0, 1 << bits, count)
    return inputs


def run_control(config: Config, cycles: int, seed: int, *, enabled: bool = False) -> ControlRun:
    """Run the RTL and its model side by side.

    Parameters
    ----------
    enabled : bool
        Every word written has the interrupt's enable set.

    Raises
    ------
    CheckError
        At the first difference, with its cycle and both sides.
    """
    library = ctypes.CDLL(str(control_library(config)))
    library.control_open.restype = ctypes.c_void_p
    library.control_close.argtypes = [ctypes.c_void_p]
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.control_run.argtypes = [pointer, pointer, pointer, size, pointer, size]
    constants = {register(name).offset: value for name, value in capabilities(config).items()}
    model = ControlModel(constants, len(COUNTERS), config.burst * config.bus_bytes)
    run = ControlRun()
    rng = np.random.default_rng(seed)
    writes = _writes(rng, config, enabled)
    handle = library.control_open()
    high = False
    history = np.zeros((_LATE, len(COUNTERS)), np.int64)
    try:
        while run.cycles < cycles:
            count = min(_SLICE, cycles - run.cycles)
            inputs = _stimuli(rng, count)
            outputs = np.zeros((count, len(_OUTPUTS)), np.uint32)
            library.control_run(handle, inputs.ctypes.data, outputs.ctypes.data, count, writes.ctypes.data, len(writes))
            taken, reads = _follow(model, inputs, outputs, run.cycles)
            history = _check_counters(inputs, outputs, taken, reads, history, run.cycles)
            line = np.concatenate([[high], outputs[:, 0] >> 9 & 1])
            run.rises += int((np.diff(line.astype(np.int8)) == 1).sum())
            run.counter_reads += len(reads)
            high = bool(line[-1])
            run.cycles += count
    finally:
        library.control_close(handle)
    run.accepted, run.ended, run.coincidences = model.accepted, model.ended, model.coincidences
    if run.accepted != run.ended.total() + model.job_under_way:
        raise CheckError(f"of {run.accepted} jobs {run.ended.total()} ended and {model.job_under_way} is under way")
    return run


def _follow(
    model: ControlModel, inputs: NDArray[np.uint32], outputs: NDArray[np.uint32], before: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Compare every output of every cycle; returns when jobs were taken, and (cycle, number) of counters read."""
    taken, reads = [], []
    waited = 0
    for cycle, (given, found) in enumerate(zip(inputs.tolist(), outputs.tolist(), strict=True)):
        flags, out = given[0], found[0]
        write_valid, read_valid = out >> 2 & 1, out >> 6 & 1
        number = model.counter_read()
        if number is not None:
            waited += 1
            if read_valid:
                reads.append((cycle, number))
                model.answer_counter()
                waited = 0
            elif waited > 2 * len(COUNTERS):
                raise CheckError(f"cycle {before + cycle}: a counter is read, and no answer comes")
        expected = model.seen()
        seen = Seen(
            bool(out & 1), bool(out & 2), bool(out & 32),
            out >> 3 & 3 if write_valid else None,
            out >> 7 & 3 if read_valid else None,
            None if expected.read_data is None else found[1],
            bool(out >> 9 & 1), bool(out >> 10 & 1), bool(out >> 11 & 1), bool(out >> 12 & 1), bool(out >> 13 & 1),
            bool(out >> 14 & 1), bool(out >> 15 & 1), (found[2], found[3], found[4], found[5]),
        )  # fmt: skip
        if seen != expected:
            wrong = [f"{n} is {getattr(seen, n)}, in the model {getattr(expected, n)}" for n in Seen._fields
                     if getattr(seen, n) != getattr(expected, n)]  # fmt: skip
            raise CheckError(f"cycle {before + cycle}, {model.phase}: {'; '.join(wrong)}")
        if model.step(
            address=found[6] if out & 0x10001 == 0x10001 else None,
            word=(found[7], found[8]) if out & 0x20002 == 0x20002 else None,
            write_ready=bool(flags & 8),
            read_address=found[9] if out & 0x40020 == 0x40020 else None,
            read_ready=bool(flags & 16),
            idle=bool(flags & 1),
            finished=bool(flags & 2),
            error=(given[2], given[3]) if flags & 4 else None,
            stalled=given[4],
        ):
            taken.append(cycle)
    return taken, reads


def _check_counters(
    inputs: NDArray[np.uint32], outputs: NDArray[np.uint32], taken: list[int], reads: list[tuple[int, int]],
    history: NDArray[np.int64], before: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Counters read against sums of events. `history`: the counts of the `_LATE` cycles before; returns the next."""
    running = outputs[:, :1] >> 15 & 1
    events = inputs[:, _INPUTS.index("events"), None] >> np.arange(len(COUNTERS) - 1) & 1
    sums = np.concatenate([running, events * running], axis=1).cumsum(axis=0, dtype=np.int64)
    since = np.full(len(inputs), -1)
    since[taken] = taken
    since = np.maximum.accumulate(since)
    counts = sums + np.where((since < 0)[:, None], history[-1], -sums[since])
    counts = np.concatenate([history, counts])
    for cycle, number in reads:
        found, expected = outputs[cycle, _OUTPUTS.index("read_data")], counts[cycle, number]
        if found != expected:
            raise CheckError(f"cycle {before + cycle}: counter {COUNTERS[number].name} is {found}, and not {expected}")
    return counts[-_LATE:]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", default="ci", choices=sorted(PRESETS))
    options = parser.parse_args()
    try:
        run = run_control(preset(options.preset), options.cycles, options.seed)
    except CheckError as error:
        print(error, file=sys.stderr)
        return 1
    lines = [f"{count:>9}  {name}" for name, count in sorted((run.ended + run.coincidences).items())]
    print(f"{run.cycles} cycles, no difference: {run.accepted} jobs, {run.rises} rises of the interrupt, "
          f"{run.counter_reads} counters read.", *lines, sep="\n")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
