"""What all of a compilation's operations are lowered into: steps, loads, the image and its buffers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.block_words import encode_blocks
from ...formats.blocks import BlockedWeights
from ...formats.nm import encode
from ...model.graph import Graph, layer_of
from ...model.operations import Input, Operation
from ...spec.config import Config
from ...spec.patterns import DENSE, Pattern
from ..buffers import plan_buffers
from ..image import Image, position_words
from ..info import LayerInfo, ValueInfo
from ..kept import KeptWindows
from ..packing import Packing, Place
from ..parameters import LinearParameters
from ..schedule import Load, Step
from .parts import WindowPart

__all__ = ["EncodedWeights", "Lowering", "tightest"]


class EncodedWeights:
    """Weights as they lie in memory, and their N:M: kept by content, for the next program of the same network.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._words: dict[tuple[object, ...], tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._tightest: dict[tuple[object, ...], Pattern] = {}

    @staticmethod
    def _key(weights: NDArray[np.int8]) -> tuple[object, ...]:
        return weights.shape, hashlib.sha256(weights.tobytes()).digest()

    def words(
        self, weights: NDArray[np.int8], pattern: Pattern, depth: int, encoding: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Values and position words of some columns."""
        cfg = self.config
        key = (*self._key(weights), pattern, depth, encoding)
        if key not in self._words:
            found = encode(weights, pattern, groups=cfg.groups, window=cfg.window, depth=depth, encoding=encoding)
            positions = position_words(found) if len(found.positions) else np.zeros((0, 1), np.uint8)
            self._words[key] = found.values.view(np.uint8), positions
        return self._words[key]

    def blocks(self, columns: BlockedWeights, part: WindowPart) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Words of some passes of columns in 4 bits: codes and headers, uint8 of shape (words, groups), and positions.

        Raises
        ------
        InputError
            As `encode_blocks`.
        """
        cfg, blocked = self.config, columns.between(part.first, part.stop)
        digest = hashlib.sha256(b"".join(a.tobytes() for a in (blocked.codes, blocked.scales, blocked.minima)))
        how = part.pattern, part.depth, part.encoding, part.wide
        key = ("blocks", blocked.size, digest.digest(), *self._key(blocked.weights), *how)
        if key not in self._words:
            found = encode_blocks(
                blocked, part.pattern, groups=cfg.groups, window=cfg.window, depth=part.depth, encoding=part.encoding,
                wide=part.wide,
            )  # fmt: skip
            there = len(found.matrix.positions)
            self._words[key] = found.words, position_words(found.matrix) if there else np.zeros((0, 1), np.uint8)
        return self._words[key]

    def tightest(self, weights: NDArray[np.int8]) -> Pattern:
        """As the function of this name."""
        key = self._key(weights)
        if key not in self._tightest:
            self._tightest[key] = tightest(weights, self.config)
        return self._tightest[key]


class Lowering:
    """Everything of one compilation.

    Attributes
    ----------
    rest_apart : bool
        Whether what whole passes of a product leave over may be a product of its own (`lower.parts`): worth it where
        memory alone is waited for.
    """

    rest_apart = False

    def __init__(self, graph: Graph, config: Config, packing: Packing, encoded: EncodedWeights | None = None) -> None:
        self.encoded = encoded or EncodedWeights(config)
        self.graph, self.config, self.packing, self.tokens = graph, config, packing, packing.tokens
        self.tiles = packing.tiles
        self.image = self.new_image()
        self.steps: list[Step] = []
        self.groups: list[list[Load]] = []
        self.layers: list[LayerInfo] = []
        self.values: dict[str, ValueInfo] = {}
        self.mean_windows: tuple[int, int, int] | None = None  # of an only text: where they lie, depth, blocks
        self.latest, self.given = "", 0  # the last operation that gave steps, and how many
        self._names = 0
        self.words_before = 0  # on-chip words of the chunk before
        self.forget_windows()
        # How many steps one stands for (an outline's; 1 in a program), now and in each layer; likewise how many chunks
        # of columns the one stands for that is being laid out.
        self.weight = self.chunk_weight = 1.0
        self.layer_weights = [1.0] * graph.layers
        # Windows of the last tile may be read up to a whole pass beyond its end.
        slack = config.groups * config.window * config.rows
        whole = -(-self.tiles * config.rows // config.value_rows) * config.value_rows
        plan = plan_buffers(graph)
        self.wide, self.narrow = plan.wide, plan.narrow
        self.places = {b.name: b for b in plan.buffers}
        self.buffers = {
            b.name: self.image.reserve(whole * b.width * b.size + slack, f"buffer {b.name}") for b in plan.buffers
        }

    def __str__(self) -> str:
        """Buffers with the values that lie in them one after the other; steps, with what they wait for and give."""
        lines = [f"lowered {self.graph.name}, {self.tokens} tokens"]
        for b in self.places.values():
            lines.append(f"  buffer {b.name} {b.width} x {8 * b.size} bits: {', '.join(b.values)}")
        for step in self.steps:
            given, needed = (", ".join(map(str, events)) for events in (step.gives, step.needs))
            lines.append(f"  {step.opcode.name.lower()} {step.label}: {needed or 'nothing'} -> {given or 'nothing'}")
        return "\n".join(lines) + "\n"

    def event(self, value: str) -> str:
        """What a step that takes a value waits for; nothing for what the host stores."""
        return "" if isinstance(self.graph.by_name[value], Input) else value

    def note(self, label: str, o: Operation, value: str, *buffers: str) -> None:
        """Which operation and layer instructions of a label belong to, and the value that they write where."""
        kind = type(o).__name__.removeprefix("Integer").lower()
        self.values[label] = ValueInfo(kind, layer_of(o.name), value, buffers)

    def new_image(self) -> Image:
        """Where all is laid out."""
        return Image(self.config)

    def repeat(self, count: int, inner: int, attention: bool = False) -> list[tuple[int, float]]:
        """Numbers of a loop's iterations, of `inner` products each, and how many each stands for."""
        return [(i, 1.0) for i in range(count)]

    def refuse(self, problem: str) -> None:
        """What cannot be compiled, for its number of tokens."""
        raise InputError(problem)

    def within(self, start: int, stop: int) -> list[int]:
        """Row tiles from `start` to `stop`."""
        return list(range(start, stop))

    def words(
        self, p: LinearParameters, part: slice, pattern: Pattern, depth: int, encoding: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Values and position words of some columns, as they lie in memory."""
        return self.encoded.words(p.weights[part], pattern, depth, encoding)

    def found(self, p: LinearParameters, pattern: Pattern) -> Pattern:
        """The sparsest pattern that a layer's weights have."""
        return self.encoded.tightest(p.weights)

    def tile_address(self, buffer: str, tile: int, column: int = 0) -> int:
        """Address of a tile's column."""
        place = self.places[buffer]
        return self.buffers[buffer] + (tile * place.width + column) * self.config.rows * place.size

    def forget_windows(self) -> None:
        """At a program's start no windows are on chip."""
        self.windows_on_chip, self.windows_of = KeptWindows(self.config), ""

    def keep_windows(
        self, value: str, tiles: Sequence[Sequence[tuple[int, int]]], *, twice: bool = False
    ) -> tuple[str, str]:
        """Where a linear layer's products have a value's windows from.

        Parameters
        ----------
        value : str
            Its name.
        tiles : sequence of sequences of (int, int)
            Of each row tile the windows of each part of a product, in the products' order: address in bytes, ascending,
            and bus words.
        twice : bool
            All of a tile's are taken once more before the next tile's are kept.

        Returns
        -------
        first, after : str
            The flag, if any, of the first products of all tiles, and of those after them: ``keep`` or ``kept``.
        """
        bus, windows = self.config.bus_bytes, [window for of_tile in tiles for window in of_tile]
        if not self.config.window_words:
            return "", ""
        if value == self.windows_of and all(self.windows_on_chip.there(*w) for w in windows):
            return "kept", "kept"
        span = windows[-1][0] - windows[0][0] + windows[-1][1] * bus
        if span > self.config.window_words * bus or not self._keep(value, tiles, together=twice):
            return "", ""
        # Where they went on from others, those of the first tiles may have had to go.
        return "keep", "kept" if all(self.windows_on_chip.there(*w) for w in windows) else ""

    def keep_each(self, tiles: Sequence[Sequence[tuple[int, int]]]) -> bool:
        """Keep each row tile's windows for themselves, for products in a row; False if there is no room."""
        return self._keep("", tiles, together=True)

    def _keep(self, value: str, tiles: Sequence[Sequence[tuple[int, int]]], *, together: bool) -> bool:
        """Keep windows as hardware does; False, and nothing changes, if those of a tile are to be there `together` and
        are not: the first of them may have to go where they went on from others."""
        on_chip = copy(self.windows_on_chip)
        for windows in tiles:
            kept = [on_chip.keep(*window) for window in windows]
            if together and not (all(kept) and all(on_chip.there(*window) for window in windows)):
                return False
        self.windows_on_chip, self.windows_of = on_chip, value
        return True

    def value_address(self, buffer: str, tile: int, column: int = 0) -> int:
        """Address of a tile's column where values lie for attention: those of `value_rows` tokens side by side."""
        cfg, place = self.config, self.places[buffer]
        stack, part = divmod(tile, cfg.value_rows // cfg.rows)
        return self.buffers[buffer] + (stack * place.width + column) * cfg.value_rows + part * cfg.rows

    def stacked(self, start: int, stop: int) -> range:
        """The row tiles of stacks `start` to `stop`, which is not one of them; of the last some may not be there."""
        each = self.config.value_rows // self.config.rows
        return range(start * each, min(stop * each, self.tiles))

    def name(self, what: str) -> str:
        """A name for a load's base."""
        self._names += 1
        return f"{what}{self._names}"

    def beats(self, count: int) -> int:
        """Bus words of so many bytes."""
        return math.ceil(count / self.config.bus_bytes)

    def key_blocks(self, text: Place) -> tuple[int, int]:
        """Window depth of a block of a text's keys, and blocks; they begin with its first row tile."""
        return self.blocks_of(text.first % self.config.value_rows + text.tokens)

    def blocks_of(self, tokens: int) -> tuple[int, int]:
        """Window depth of a block of so many tokens, and blocks."""
        cfg = self.config
        halves = cfg.value_rows // cfg.groups
        depth = min(cfg.window, math.ceil(tokens / (cfg.groups * halves)) * halves)
        return depth, math.ceil(tokens / (cfg.groups * depth))

    def block_stacks(self, text: Place, block: int) -> range:
        """The stacks, of `value_rows` tokens, of a block of a text's keys."""
        rows = self.config.value_rows
        mine, each = text.tiles(rows), self.key_blocks(text)[0] * self.config.groups // rows
        start = mine.start + block * each
        return range(start, min(start + each, mine.stop))


def tightest(weights: NDArray[np.int8], config: Config) -> Pattern:
    """The sparsest pattern the hardware has that holds for `weights`; dense if none does."""
    best = DENSE
    for m in sorted({p.m for p in config.patterns if p.m > 1}):
        columns, reduction = weights.shape
        padded = np.zeros((columns, math.ceil(reduction / m) * m), bool)
        padded[:, :reduction] = weights != 0
        n = max(1, int(padded.reshape(columns, -1, m).sum(-1).max()))
        pattern = Pattern(n, m)
        if n < m and pattern in config.patterns and pattern.density < best.density:
            best = pattern
    return best
