"""A linear layer's weights: cut along the reduction dimension, and into chunks of columns that are on chip at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.blocks import BlockedWeights
from ...spec.config import Config
from ...spec.isa import Target
from ...spec.parameters import SHORT_COLUMN
from ...spec.patterns import Pattern
from ..image import parameter_words
from ..limits import run_columns
from ..parameters import LinearParameters
from ..schedule import RING_SHARE, Load
from .parts import WindowPart, block_parts, window_parts
from .state import Lowering

__all__ = ["Chunk", "Cut", "chunk_of", "chunk_width", "cut_layer", "loads_of"]

_PIECES = 4
"""LOADs of a chunk's values, and of its positions: the first goes before there is room for all."""


@dataclass(frozen=True)
class Cut:
    """How a layer's products cover the reduction dimension.

    Attributes
    ----------
    parts : tuple of WindowPart
        In order; where there is more than one, the last has the weights that whole passes of the first leave over.
    digits : bool
        Inputs have 15 bits, in two digits: each product is two, over the same weights.
    blocks : BlockedWeights, optional
        The layer's, of 4 bits.
    """

    parts: tuple[WindowPart, ...]
    digits: bool
    blocks: BlockedWeights | None

    @property
    def depth(self) -> int:
        """Of the first part's windows."""
        return self.parts[0].depth

    @property
    def passes(self) -> int:
        """Of all parts."""
        return sum(part.passes for part in self.parts)

    def window_bytes(self, part: WindowPart, config: Config) -> int:
        """Of a row tile's windows in memory."""
        return part.passes * config.groups * part.depth * config.rows * (1 + self.digits)

    def words(self, config: Config) -> int:
        """Words of values that a column takes on chip: a byte for each group, or two codes, and blocks' headers."""
        if self.blocks is not None:
            return math.ceil(sum(part.words(config) for part in self.parts)) + 1
        return sum(part.passes * part.run for part in self.parts)

    def words_per_position(self, config: Config) -> float:
        """Words of values that one word of positions goes with; infinity where weights are dense."""
        positions = sum(part.passes * part.run / part.values_per_position(config.window) for part in self.parts)
        return self.words(config) / positions if positions else math.inf


@dataclass(frozen=True)
class Chunk:
    """Columns whose weights are on chip at the same time.

    Attributes
    ----------
    columns : slice
        Of the layer.
    encoded : list of (array, array)
        Of each part of the cut: words of values and of positions, uint8 of shape (words, bytes).
    values, positions, parameters : str
        Names of the places on chip that its LOADs fill.
    """

    columns: slice
    encoded: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    values: str
    positions: str
    parameters: str

    @property
    def stored(self) -> int:
        """Bytes in memory, without the columns' parameters."""
        return sum(values.size + positions.size for values, positions in self.encoded)


def cut_layer(low: Lowering, label: str, p: LinearParameters, pattern: Pattern, *, digits: bool) -> Cut:
    """Cut a layer that runs with `pattern`.

    Raises
    ------
    InputError
        If blocks of 4-bit weights have no depth on the hardware.
    """
    blocks = p.blocks_on(low.config)
    parts = (
        window_parts(low.config, p.weights, pattern, rest_apart=low.rest_apart)
        if blocks is None
        else block_parts(low.config, label, blocks, pattern, rest_apart=low.rest_apart)
    )
    return Cut(tuple(parts), digits, blocks)


def chunk_width(low: Lowering, label: str, columns: int, cut: Cut) -> int:
    """Columns whose weights are on chip at a time: a multiple of `groups`, as equal as possible.

    Sums of several passes, and of two digits, wait on chip: no more columns than there is room for. Results are
    stored, and the residual stream read, in one run.

    Raises
    ------
    InputError
        If not even one column for each group fits.
    """
    cfg = low.config
    words, per_position = cut.words(cfg), cut.words_per_position(cfg)
    # Half of the ring leaves the other half to the next chunk. More is worth a wait where loading the windows
    # of a pass would otherwise take longer than computing it; and it costs nothing where all columns fit
    # beside the chunk before, but spares the bus a second reading of the windows.
    beats = words // cut.passes
    load = cfg.groups * cut.depth * cfg.rows // cfg.lanes * (1 + cut.digits)
    waiting = cut.passes > 1 or cut.digits
    limit = min(int(cfg.parameter_words * 0.5), run_columns(cfg), cfg.columns if waiting else columns)

    def room(share: float) -> int:
        values = min(cfg.weight_words * share, cfg.position_words * share * per_position)
        return min(int(values) // words, limit)

    most = room(0.5)
    fits = columns <= room(RING_SHARE) and columns * words <= cfg.weight_words - low.words_before
    if fits and columns / math.ceil(columns / max(most, 1)) * beats < 2 * load:
        most = columns
    elif most * beats < 1.25 * load:
        most = room(RING_SHARE)
    most = most // cfg.groups * cfg.groups
    if most == 0:
        share = RING_SHARE * min(1.0, cfg.position_words * per_position / cfg.weight_words)
        wanted = 1 << (math.ceil(cfg.groups * words / share) - 1).bit_length()
        raise InputError(
            f"{label}: {cfg.groups} columns of weights take {cfg.groups * words} words, more than fits "
            f"beside the next ones in weight_words = {cfg.weight_words}; {wanted} would do."
        )
    width = math.ceil(columns / math.ceil(columns / most) / cfg.groups) * cfg.groups
    low.words_before = width * words
    return width


def chunk_of(low: Lowering, p: LinearParameters, cut: Cut, columns: slice) -> Chunk:
    """Some columns' weights as they lie in memory."""

    def words(part: WindowPart) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if cut.blocks is not None and part.blocks:
            return low.encoded.blocks(cut.blocks.columns(columns), part)
        if len(cut.parts) == 1:
            return low.words(p, columns, part.pattern, part.depth, part.encoding)
        return low.encoded.words(p.weights[columns, part.first : part.stop], part.pattern, part.depth, part.encoding)

    found = [words(part) for part in cut.parts]
    return Chunk(columns, found, low.name("values"), low.name("positions"), low.name("parameters"))


def loads_of(low: Lowering, label: str, p: LinearParameters, chunk: Chunk) -> list[Load]:
    """LOADs of a chunk, whose contents are laid out in the image: parameters first."""
    there, record = chunk.columns, p.record_on(low.config)
    of = f"{label}, columns {there.start} to {there.stop - 1}"
    parameters = parameter_words(p.bias[there], p.multiplier[there], p.shift[there], p.second[there], record)
    kind = Target.SHORT_PARAMETERS if record is SHORT_COLUMN else Target.PARAMETERS
    loads = _pieces(low, kind, parameters, chunk.parameters, 1, of)
    # In pieces that alternate: those that find room go ahead of the last ones, which may have to wait.
    values = _pieces(low, Target.VALUES, _joined([words for words, _ in chunk.encoded]), chunk.values, _PIECES, of)
    positions: list[Load] = []
    if with_positions := [words for _, words in chunk.encoded if len(words)]:
        positions = _pieces(low, Target.POSITIONS, _joined(with_positions), chunk.positions, _PIECES, of)
    return loads + [load for pair in zip_longest(positions, values) for load in pair if load is not None]


def _joined(words: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return words[0] if len(words) == 1 else np.concatenate(words)


def _pieces(low: Lowering, target: Target, words: NDArray[np.uint8], base: str, count: int, of: str) -> list[Load]:
    """LOADs of consecutive words, several so that the first may go before all room is free."""
    cfg = low.config
    width = words.shape[1]
    unit = max(1, cfg.bus_bytes // width)  # words in a bus word
    total = math.ceil(len(words) / unit) * unit
    address = low.image.add(words, total * width, f"{of}: {target.name.lower().replace('_', ' ')}")
    step = math.ceil(total / count / unit) * unit
    loads = []
    for start in range(0, total, step):
        size = min(step, total - start)
        loads.append(Load(target, size, address + start * width, low.beats(size * width), base=None if start else base))
    return loads
