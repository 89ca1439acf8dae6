"""Programs of a shape in outline: loops cut short, instructions that say how many they stand for, no contents.

For the cycle model. A program is unrolled over layers, chunks of columns, heads, row tiles and blocks of keys: 100,000
tokens are billions of instructions. But within each of these loops iterations are alike, all that units hold ahead of
one another is bounded (queues, rings), and so the time between one iteration's end and the next one's settles. An
outline keeps a loop's first iterations, a few in its middle that stand for all others, and its last ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..formats.nm import stream_lengths
from ..model.graph import Graph, layer_of
from ..spec.config import Config
from ..spec.isa import HEADER_BYTES, Instruction, formats, instruction_bytes, most_program_bytes
from ..spec.patterns import Pattern
from .encoder import check_shape
from .image import Image
from .lower import lower
from .lower.state import Lowering
from .packing import Packing
from .parameters import LinearParameters
from .schedule import Scheduled, order
from .shapes import shape_graph

__all__ = ["Outline", "outline_encoder", "shape_program"]

_FIRST, _MIDDLE, _LAST = 64, 12, 20
"""Products of a loop that are kept at least. A unit's queue holds 17 instructions: where LayerNorm is slower than the
products before it, it takes a few times as many until the queue is full and holds them up. Periods of 2, 3, 4, 6 and 12
products fill the middle evenly. The last ones cover a full queue, so that what it delays is seen."""
_FIRST_OF_ATTENTION = 400
"""The same for attention, where what keys and values are loaded ahead may be used up by a few percent a block."""


class _Draft(Instruction):
    """An instruction whose numbers need not fit their fields."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", {k: v for k, v in self.fields.items() if v})


@dataclass(frozen=True)
class Outline:
    """A shape's program.

    Attributes
    ----------
    instructions : list of Instruction
        Those kept.
    weights : list of float
        How many each stands for.
    ideal_cycles : float
        Multiply-accumulates that N:M leaves over multipliers.
    problems : tuple of str
        Why this program could not be compiled for one run, a sentence each: what exceeds the format or the memory.
    image_bytes : float
        Of the memory image, program and buffers included; the program without loops, so no image has more.
    flat_bytes : float
        Of that program.
    """

    instructions: list[Instruction]
    weights: list[float]
    ideal_cycles: float
    problems: tuple[str, ...]
    image_bytes: float
    flat_bytes: float


class _EmptyImage(Image):
    """An image's layout without its bytes; `whole` counts the pieces that those laid out stand for."""

    def __init__(self, low: Lowering) -> None:
        super().__init__(low.config)
        self.low, self.whole = low, 0.0

    def reserve(self, count: int, name: str = "") -> int:
        self.whole += math.ceil(count / self.align) * self.align * self.low.weight * self.low.chunk_weight
        return super().reserve(count, name)

    def add(self, data: NDArray, count: int = 0, name: str = "") -> int:
        return self.reserve(max(count, data.nbytes), name)


class _Outlining(Lowering):
    """A lowering that cuts loops short, notes what does not fit and lays out no contents."""

    def __init__(self, graph: Graph, config: Config, packing: Packing, whole: bool) -> None:
        self.whole = whole or len(packing.texts) > 1
        self.problems: list[str] = []
        super().__init__(graph, config, packing)
        self.kept = [tile for tile, _ in self.repeat(self.tiles, 1)]

    def new_image(self) -> Image:
        return _EmptyImage(self)

    def repeat(self, count: int, inner: int, attention: bool = False) -> list[tuple[int, float]]:
        settled = _FIRST_OF_ATTENTION if attention else _FIRST
        first, middle, last = (math.ceil(n / inner) for n in (settled, _MIDDLE, _LAST))
        if self.whole or count <= first + middle + last:
            return super().repeat(count, inner, attention)
        each = (count - first - last) / middle
        kept = [(i, 1.0) for i in range(first)] + [(first + i, each) for i in range(middle)]
        return kept + [(count - last + i, 1.0) for i in range(last)]

    def refuse(self, problem: str) -> None:
        self.problems.append(problem)

    def within(self, start: int, stop: int) -> list[int]:
        found = self.kept[bisect_left(self.kept, start) : bisect_left(self.kept, stop)]
        return found or [self.kept[bisect_left(self.kept, stop) - 1]]

    def words(
        self, p: LinearParameters, part: slice, pattern: Pattern, depth: int, encoding: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        cfg = self.config
        positions, values = stream_lengths(
            pattern, encoding, cfg.groups, cfg.window, depth, part.stop - part.start, p.weights.shape[1]
        )
        nothing = np.uint8(0)
        return (
            np.broadcast_to(nothing, (values, cfg.groups)),
            np.broadcast_to(nothing, (positions, cfg.groups * cfg.window // 8)),
        )

    def found(self, p: LinearParameters, pattern: Pattern) -> Pattern:
        return pattern


def outline_encoder(
    hidden: int,
    heads: int,
    layers: int,
    intermediate: int,
    patterns: Mapping[str, Pattern],
    config: Config,
    tokens: int | Packing,
    *,
    alike: bool = False,
    whole: bool = False,
) -> Outline:
    """The program of an encoder of a shape.

    Parameters
    ----------
    patterns : mapping of linear operations' names to Pattern
        Those that are not in it are dense.
    tokens : int or Packing
        Of a text; or a batch, of which every iteration of loops over tiles is kept.
    alike : bool
        All layers have the patterns of the first one; then two are kept, and the second stands for all but the first.
    whole : bool
        Keep every iteration of every loop.

    Raises
    ------
    InputError
        For what no number of tokens would make fit.
    """
    kept = min(layers, 2) if alike and not whole else layers
    if alike:
        first = {n.partition(".")[2]: p for n, p in patterns.items() if layer_of(n) == 0}
        patterns = {f"{i}.{name}": p for name, p in first.items() for i in range(kept)}
    graph = shape_graph(hidden, heads, kept, intermediate, patterns)
    packing = tokens if isinstance(tokens, Packing) else Packing.aligned([tokens], config.rows)
    check_shape(graph, config, packing.tokens)
    low = _Outlining(graph, config, packing, whole)
    if kept < layers:
        low.layer_weights = [1.0, layers - 1.0]
    lower(low)
    found = order(low.steps, low.groups, config, check=False)
    work = sum(layer.work for layer in low.layers) / kept * layers
    assert isinstance(low.image, _EmptyImage)
    before = low.image.whole
    low.image.reserve(HEADER_BYTES + round(sum(i.weight * instruction_bytes(i.opcode) for i in found)))
    flat_bytes = low.image.whole - before
    low.image.reserve(64)  # as behind a program
    return Outline(
        [_Draft(i.opcode, i.fields) for i in found], [i.weight for i in found], work / config.macs,
        tuple(low.problems + _limits(found, low.image.whole)), low.image.whole, flat_bytes,
    )  # fmt: skip


def shape_program(
    hidden: int, heads: int, layers: int, intermediate: int, patterns: Mapping[str, Pattern], config: Config,
    tokens: int,
) -> list[Scheduled]:  # fmt: skip
    """The flat program of an encoder of a shape, whole, in which `roll.roll` finds loops; see `outline_encoder`."""
    graph = shape_graph(hidden, heads, layers, intermediate, patterns)
    check_shape(graph, config, tokens)
    low = _Outlining(graph, config, Packing.aligned([tokens], config.rows), True)
    lower(low)
    return order(low.steps, low.groups, config, even=True)


def _limits(program: list[Scheduled], size: float) -> list[str]:
    """What of a program exceeds the instruction format or the address space."""
    problems = []
    length = sum(i.weight * instruction_bytes(i.opcode) for i in program)
    if length > most_program_bytes():
        problems.append(f"its program has {length:,.0f} bytes, and the hardware takes {most_program_bytes():,}.")
    seen = set()
    for i in program:
        for name, value in i.fields.items():
            most = formats(i.opcode).field(name).highest
            if value > most and not name.endswith("address") and name not in seen:
                seen.add(name)
                problems.append(f"{i.label}: {name} = {value:,}, and its field holds up to {most:,}.")
    if size > 1 << 32:
        problems.append(f"its image has {size:,.0f} bytes, and addresses reach 4,294,967,296.")
    return problems
