"""The memory image: where things lie, and how parameters and positions are packed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..formats.nm import EncodedMatrix
from ..spec.config import Config
from ..spec.parameters import COLUMN, NORM_COLUMN
from ..spec.records import Record
from .parameters import NormParameters

__all__ = ["Image", "norm_words", "parameter_words", "position_words"]


class Image:
    """Memory being laid out; every piece starts on a burst boundary."""

    def __init__(self, config: Config) -> None:
        self.align = max(64, config.burst * config.bus_bytes)
        self.pieces: list[tuple[int, NDArray[np.uint8]]] = []
        self.places: list[tuple[str, int, int]] = []
        """What lies where: name, address, bytes."""
        self.size = 0

    def reserve(self, count: int, name: str = "") -> int:
        """Address of `count` bytes of zeros."""
        address = self.size
        self.places.append((name, address, count))
        self.size += math.ceil(count / self.align) * self.align
        return address

    def add(self, data: NDArray, count: int = 0, name: str = "") -> int:
        """Address of a copy of `data`, in as many bytes as it has, or `count`, if that is more."""
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        address = self.reserve(max(count, len(raw)), name)
        self.pieces.append((address, raw))
        return address

    def finish(self) -> NDArray[np.uint8]:
        """The image's bytes."""
        image = np.zeros(self.size, np.uint8)
        for address, raw in self.pieces:
            image[address : address + len(raw)] = raw
        return image


def parameter_words(
    bias: NDArray, multiplier: NDArray, shift: NDArray, second: NDArray, record: Record = COLUMN
) -> NDArray[np.uint8]:
    """Columns' parameters as they lie in memory (`spec.parameters`): shape (columns, bytes)."""
    values = {"bias": bias, "multiplier": multiplier, "shift": shift, "second": second}
    columns = zip(*(v.tolist() for v in values.values()), strict=True)
    words, size = (record.pack(dict(zip(values, column, strict=True))) for column in columns), record.width // 8
    raw = b"".join(word.to_bytes(size, "little") for word in words)
    return np.frombuffer(raw, np.uint8).reshape(-1, size).copy()


def norm_words(norm: NormParameters) -> NDArray[np.uint64]:
    """A norm's parameters as they lie in memory (`spec.parameters.NORM_COLUMN`): a word a column."""
    packed = NORM_COLUMN.pack({"scale": norm.scale, "shift": norm.shift, "multiplier": norm.multiplier})
    return np.asarray(packed, np.int64).astype(np.uint64)


def position_words(encoded: EncodedMatrix) -> NDArray[np.uint8]:
    """Position words as they lie in memory: shape (words, groups * window / 8)."""
    bits = (encoded.positions[:, :, None] >> np.arange(encoded.window, dtype=np.uint32)) & 1
    return np.packbits(bits.reshape(len(bits), -1).astype(np.uint8), axis=1, bitorder="little")
