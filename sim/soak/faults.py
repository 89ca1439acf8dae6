"""`python -m sim.soak.faults`: a small program whose bus fails at each burst in turn, and which is reset at each cycle.

Whatever happens ends in a status or in the right answer, with the bus quiet, and the next run is right.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.files import write_text
from sta_hw.reference.program import run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error

from ..accelerator import AcceleratorModel, MemoryModel, ProgramRun
from .hazards import UnorderedError
from .trial import DifferenceError, Subject

__all__ = ["FaultBench", "main"]

_SETTLES = 4000
_LATENCIES = (1, 2, 3, 7, 20, 100, 333, 1000, 5000)
_BASE = 0x8000_0000


class FaultBench:
    """One program on one accelerator.

    Parameters
    ----------
    config : Config
    cycles : int
        About how many the program is to take: of several random ones the nearest is taken.
    """

    def __init__(self, config: Config, cycles: int, *, tried: int = 40) -> None:
        self.config, self.model = config, AcceleratorModel(config)
        found: list[tuple[int, int, Subject, np.ndarray]] = []
        for seed in range(tried):
            try:
                subject = Subject.random(config, np.random.default_rng([2, seed]), 4, anywhere=False)
            except UnorderedError:
                continue
            subject = replace(subject, memory=MemoryModel(latency=20, stall=0.1, seed=1))
            expected = run_counted(
                subject.image, subject.address, config, length=subject.length, position=subject.position
            ).image
            try:
                run = self._run(subject, patience=20_000)
            except CheckError:  # it waits for itself
                self.model.reset()
                continue
            self._clear()
            if run.error == Error.NONE:
                found.append((abs(run.cycles - cycles), run.cycles, subject, expected))
        _, self.cycles, self.subject, self.expected = min(found, key=lambda f: f[0])

    def _run(self, s: Subject, **how: Any) -> ProgramRun:
        return self.model.run(s.image, s.address, length=s.length, position=s.position, memory=s.memory, **how)

    def _clear(self) -> None:
        """Reset by register, and wait until it is over."""
        self.model.write("control", 0b10)
        for _ in range(_SETTLES):
            if not self.model.read("status") & 1:
                break
        else:
            raise DifferenceError("a reset does not end")
        if self.model.under_way or self.model.transfers[2]:
            raise DifferenceError(f"behind a reset: {self.model.under_way} bursts under way")

    def is_right(self) -> None:
        """Run it undisturbed.

        Raises
        ------
        DifferenceError
            If its result is not the reference's.
        """
        run = self._run(replace(self.subject, memory=MemoryModel(latency=5)))
        if run.error or not np.array_equal(run.image, self.expected):
            raise DifferenceError(f"the next run ends with {run.error.name}, or other bytes")

    def reset(self, cycle: int, *, by_wire: bool) -> str:
        """Reset it so many cycles after its start; whether it had ended."""
        s = self.subject
        self.model.start(s.image, s.address, length=s.length, position=s.position, memory=s.memory)
        if cycle:
            self.model.advance(cycle)
        ended = bool(self.model.read("status") & 2)
        if by_wire:
            self.model.reset()
        else:
            self._clear()
        beats = self.model.transfers
        self.model.advance(100)
        if self.model.transfers != beats:
            raise DifferenceError("the bus moves behind a reset")
        self.is_right()
        return "had ended" if ended else "was under way"

    def fail(self, burst: int) -> str:
        """The bus answers with an error wherever a burst's bytes in the image are touched; what became of it."""
        size = self.config.burst * self.config.bus_bytes
        low = _BASE + burst * size
        run = self._run(replace(self.subject, memory=replace(self.subject.memory, error=(low, low + size))))
        if self.model.under_way:
            raise DifferenceError(f"{self.model.under_way} bursts are under way behind the end")
        if run.error == Error.NONE and not np.array_equal(run.image, self.expected):
            raise DifferenceError("it ended well with other bytes")
        if run.error not in (Error.NONE, Error.READ, Error.WRITE):
            raise DifferenceError(f"it ended with {run.error.name}")
        self._clear()
        self.is_right()
        return run.error.name

    def late(self, latency: int) -> str:
        """So many cycles until memory answers."""
        memory = MemoryModel(latency=latency, stall=0.3, seed=latency)
        run = self._run(replace(self.subject, memory=memory))
        if run.error or not np.array_equal(run.image, self.expected):
            raise DifferenceError(f"it ended with {run.error.name}, or other bytes")
        return "right"

    def all_faults(self, sample: int, seed: int, say: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Each fault of every kind, or so many of each at random; counts, and what went wrong."""
        bursts = len(self.subject.image) // (self.config.burst * self.config.bus_bytes)
        kinds: dict[str, tuple[Callable[[int], str], Iterable[int]]] = {
            "late answers": (self.late, _LATENCIES),
            "bus errors": (self.fail, range(bursts)),
            "resets by register": (lambda n: self.reset(n, by_wire=False), range(self.cycles + 10)),
            "resets by wire": (lambda n: self.reset(n, by_wire=True), range(self.cycles + 10)),
        }
        rng, table, wrong = np.random.default_rng(seed), {}, []
        for kind, (run, places) in kinds.items():
            chosen = list(places)
            if sample and sample < len(chosen):
                chosen = sorted(rng.choice(chosen, sample, replace=False).tolist())
            counts = Counter[str]()
            for number, place in enumerate(chosen):
                try:
                    counts[run(place)] += 1
                except CheckError as error:
                    wrong.append({"kind": kind, "place": place, "what": str(error)})
                    self.model.reset()
                if say and number % 500 == 499:
                    say(f"{kind}: {number + 1} of {len(chosen)}, {len(wrong)} wrong")
            table[kind] = dict(sorted(counts.items()))
        return {"cycles": self.cycles, "bursts": bursts, "faults": table, "wrong": wrong}


def main() -> int:
    """Run it; exit status 1 if something went wrong."""
    from .__main__ import HARDWARE

    parser = argparse.ArgumentParser(
        prog="python -m sim.soak.faults", description="Bus errors, late answers, resets at every place of a program.",
        epilog="example: python -m sim.soak.faults --sample 50",
    )  # fmt: skip
    parser.add_argument("--hardware", choices=list(HARDWARE), default="ci, decoder", help="which accelerator")
    parser.add_argument("--cycles", type=int, default=4000, help="about how long the program is; 4000 by default")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of each kind at random; all by default")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        bench = FaultBench(HARDWARE[options.hardware], options.cycles)
        result = {"hardware": options.hardware} | bench.all_faults(
            options.sample, options.seed, lambda text: print(text, file=sys.stderr, flush=True)
        )
        if options.log:
            write_text(options.log, json.dumps(result, indent=1) + "\n")
    except (InputError, ToolError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 3
    if options.json:
        print(json.dumps(result))
    else:
        print(f"a program of {result['cycles']:,} cycles, {result['bursts']} bursts of memory")
        for kind, row in result["faults"].items():
            print(f"  {kind:20} " + ", ".join(f"{count:,} {what}" for what, count in row.items()))
        for problem in result["wrong"][:20]:
            print(f"  WRONG {problem}")
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
