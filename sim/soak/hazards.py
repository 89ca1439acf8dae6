"""What an instruction must wait for: who reads and writes which words, by docs/isa.md's section Waiting.

Written apart from the compiler's scheduler, whose waits come from names of values: here they come from addresses alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sta_hw.errors import CheckError
from sta_hw.spec.config import Config
from sta_hw.spec.isa import NO_WAIT, WAITS, Opcode, Result, Target

__all__ = ["Accesses", "UnorderedError", "accesses", "needed_waits"]

_PRODUCTS = (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)
_LIST_BYTES = 64
"""Of a row's 8 largest results."""
_MOST_VALUES = 1 << 20
Fields = Mapping[str, int]
Ranges = list[tuple[int, int]]


class UnorderedError(CheckError):
    """Two instructions touch the same words, one writes them, and no wait orders them."""


@dataclass
class Accesses:
    """Words of memory (bytes from, to) and on chip that an instruction touches.

    Attributes
    ----------
    reads, residuals, writes : list of (start, end)
        Byte offsets in the image.
    chip_reads : dict
        Of each on-chip memory the words.
    loads : tuple of (Target, words), or None
        What a LOAD fills, by the target that goes by the memory's name.
    unloaded : bool
        Words on chip are read that the program loaded nothing into: what earlier ones left.
    """

    reads: Ranges = field(default_factory=list)
    residuals: Ranges = field(default_factory=list)
    writes: Ranges = field(default_factory=list)
    chip_reads: dict[Target, NDArray[np.int64]] = field(default_factory=dict)
    loads: tuple[Target, NDArray[np.int64]] | None = None
    unloaded: bool = False

    def is_apart(self) -> bool:
        """Whether nothing that it writes to memory is read or written by itself, too."""
        ranges = sorted(self.writes)
        others = self.reads + self.residuals
        if any(a[1] > b[0] for a, b in pairwise(ranges)):
            return False
        return not any(w[0] < r[1] and r[0] < w[1] for w in ranges for r in others)


def _words(config: Config, memory: Target) -> int:
    return {
        Target.VALUES: config.weight_words, Target.POSITIONS: config.position_words,
        Target.PARAMETERS: config.parameter_words, Target.TABLE: 256,
    }[memory]  # fmt: skip


def _word_bytes(config: Config, target: Target) -> int:
    return {
        Target.VALUES: config.groups, Target.POSITIONS: config.groups * config.window // 8, Target.PARAMETERS: 16,
        Target.TABLE: 2, Target.SHORT_PARAMETERS: 8,
    }[target]  # fmt: skip


def accesses(opcode: int, f: Fields, config: Config) -> Accesses:
    """Of an instruction with its registers added; fields left out are zero."""
    get, bus, rows = f.get, config.bus_bytes, config.rows
    found = Accesses()
    if opcode == Opcode.LOAD:
        target, count = Target(get("target", 0)), get("beats", 0) * bus
        starts = [(get("address", 0) + row * get("stride", 0)) % (1 << 32) for row in range(get("rows", 0))]
        found.reads = [(start, start + count) for start in starts if count]
        there = _words(config, target.memory)
        words = min(get("rows", 0) * count // _word_bytes(config, target), there)
        found.loads = target.memory, (get("destination", 0) + np.arange(words)) % there
        return found
    if opcode == Opcode.NORM:
        width = get("width", 0)
        found.reads = [
            (get("input_address", 0), get("input_address", 0) + 2 * width * rows),
            (get("parameters_address", 0), get("parameters_address", 0) + 8 * width),
        ]
        found.writes = [
            (get("wide_address", 0), get("wide_address", 0) + 2 * width * rows),
            (get("narrow_address", 0), get("narrow_address", 0) + width * rows),
        ]
        return found
    columns, result = get("columns", 0), get("result", 0)
    if opcode != Opcode.CONTEXT and not get("kept", 0):  # kept ones are on chip; the window feed takes them in order
        start = get("window_address", 0)
        found.reads = [(start, start + get("window_beats", 0) * bus)]
    at = np.array([get("values_base", 0)])
    if math.prod(get(f"count{level}", 0) for level in range(4)) > _MOST_VALUES:
        at = np.arange(config.weight_words)  # an illegal one: all of them
    else:
        for level in range(4):
            steps = np.arange(get(f"count{level}", 0)) * get(f"stride{level}", 0)
            at = (at[None, :] + steps[:, None]).reshape(-1)
    found.chip_reads[Target.VALUES] = np.unique(at % config.weight_words)
    if get("encoding", 0):
        at = get("positions_base", 0) + np.arange(get("positions_count", 0))
        found.chip_reads[Target.POSITIONS] = at % config.position_words
    if get("unfinished", 0):
        return found
    if opcode != Opcode.CONTEXT:
        at = get("parameters_base", 0) + np.arange(columns) * get("parameters_step", 0)
        found.chip_reads[Target.PARAMETERS] = at % config.parameter_words
    if opcode == Opcode.SCORES:
        return found
    if get("multiply", 0) or result == Result.ACTIVATE:
        found.chip_reads[Target.TABLE] = np.arange(256)
    if get("rotate", 0) or result == Result.RESIDUAL:
        start = get("residual_address", 0)
        found.residuals = [(start, start + 2 * columns * rows)]
    size = columns * rows * (2 if result in (Result.STORE16, Result.RESIDUAL) or get("bits15", 0) else 1)
    if get("apart", 0):
        size = columns * config.groups
    if result == Result.BEST:
        size = _LIST_BYTES * rows * get("row_last", 0)
    start = get("result_address", 0)
    if size:
        found.writes = [(start, start + (size // 2 if get("multiply", 0) else size))]
    return found


class _Last:
    """Of each word the last instruction that touched it, as a number of its class; -1: none."""

    def __init__(self, words: int) -> None:
        self.at = np.full(words, -1)

    def newest(self, where: NDArray[np.int64] | slice) -> int:
        found = self.at[where]
        return int(found.max()) if found.size else -1


class _Order:
    """The instructions so far."""

    def __init__(self, config: Config, image_bytes: int) -> None:
        self.config = config
        words = -(-image_bytes // config.bus_bytes)
        # Who last wrote or read each bus word, by who it is; numbers of products are of those through the array where
        # windows are read, of those with results elsewhere.
        self.memory = {
            name: _Last(words)
            for name in ("product_writes", "norm_writes", "load_reads", "window_reads", "residual_reads", "norm_reads")
        }
        self.filled, self.used = (
            {memory: _Last(_words(config, memory)) for memory in {target.memory for target in Target}} for _ in range(2)
        )
        self.issued = dict.fromkeys(WAITS, 0)
        self.finished_at: list[int] = []  # of each product with results, its number among all

    def slices(self, ranges: Ranges) -> list[slice]:
        bus = self.config.bus_bytes
        return [slice(start // bus, -(-end // bus)) for start, end in ranges]

    def newest(self, name: str, ranges: Ranges) -> int:
        return max((self.memory[name].newest(s) for s in self.slices(ranges)), default=-1)

    def mark(self, name: str, ranges: Ranges, number: int) -> None:
        for s in self.slices(ranges):
            self.memory[name].at[s] = number

    def results_behind(self, product: int) -> int:
        """The first product with results, by its number among those, at or behind a product.

        Raises
        ------
        UnorderedError
            If there is none yet.
        """
        number = int(np.searchsorted(self.finished_at, product))
        if number == len(self.finished_at):
            raise UnorderedError("a NORM overwrites windows of a product that leaves its sums unfinished")
        return number

    def after(self, opcode: int, touched: Accesses) -> dict[str, int]:
        """Of each class the number of the last instruction that must be finished; -1: none."""
        last = dict.fromkeys(WAITS, -1)
        reads = touched.reads + touched.residuals

        def behind(name: str, number: int) -> None:
            last[name] = max(last[name], number)

        behind("products", self.newest("product_writes", reads))
        behind("norms", self.newest("norm_writes", reads + touched.writes))
        if opcode == Opcode.LOAD:
            assert touched.loads
            target, at = touched.loads
            used = self.used[target].newest(at)
            behind("products" if target in (Target.PARAMETERS, Target.TABLE) else "matrix", used)
        elif opcode == Opcode.NORM:
            behind("products", self.newest("product_writes", touched.writes))
            behind("products", self.newest("residual_reads", touched.writes))
            if (product := self.newest("window_reads", touched.writes)) >= 0:
                behind("products", self.results_behind(product))
            behind("norms", self.newest("norm_reads", touched.writes))
            if self.newest("load_reads", touched.writes) >= 0:
                raise UnorderedError("a NORM overwrites what a LOAD reads")
        else:
            for target, at in touched.chip_reads.items():
                behind("loads", self.filled[target].newest(at))
            behind("loads", self.newest("load_reads", touched.writes))
            behind("norms", self.newest("norm_reads", touched.writes))
        return last

    def issue(self, opcode: int, f: Fields, touched: Accesses) -> None:
        if opcode == Opcode.LOAD:
            assert touched.loads
            target, at = touched.loads
            self.filled[target].at[at] = self.issued["loads"]
            self.mark("load_reads", touched.reads, self.issued["loads"])
            self.issued["loads"] += 1
        elif opcode == Opcode.NORM:
            self.mark("norm_reads", touched.reads, self.issued["norms"])
            self.mark("norm_writes", touched.writes, self.issued["norms"])
            self.issued["norms"] += 1
        else:
            matrix, products = self.issued["matrix"], self.issued["products"]
            for target, at in touched.chip_reads.items():
                drained = target in (Target.PARAMETERS, Target.TABLE)
                self.used[target].at[at] = products if drained else matrix
            self.mark("window_reads", touched.reads, matrix)
            self.mark("residual_reads", touched.residuals, products)
            self.mark("product_writes", touched.writes, products)
            self.issued["matrix"] += 1
            if not f.get("unfinished"):
                self.finished_at.append(matrix)
                self.issued["products"] += 1


def needed_waits(
    program: Iterable[tuple[int, Fields]], config: Config, image_bytes: int
) -> list[tuple[Accesses, dict[str, int]]]:
    """What each instruction touches, and of each class the longest wait that orders it behind all it depends on.

    Parameters
    ----------
    program : iterable of (opcode, fields)
        As they are issued, registers added, HALT left out.

    Raises
    ------
    UnorderedError
        If nothing orders two that must be.
    """
    order, found = _Order(config, image_bytes), []
    for opcode, f in program:
        touched = accesses(opcode, f, config)
        touched.unloaded = any((order.filled[target].at[at] < 0).any() for target, at in touched.chip_reads.items())
        distances = {n: order.issued[n] - at for n, at in order.after(opcode, touched).items() if at >= 0}
        found.append((touched, {n: d for n, d in distances.items() if d < NO_WAIT}))
        order.issue(opcode, f, touched)
    return found
