"""The memory image: where things lie, and how parameters and positions are packed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..formats.nm import EncodedMatrix
from ..spec.config import Config
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


def parameter_words(bias: NDArray, multiplier: NDArray, shift: NDArray, second: NDArray) -> NDArray[np.uint8]:
    """Columns' parameters as they lie in memory: 16 bytes each."""
    words = np.zeros((len(bias), 16), np.uint8)
    words[:, 0:4] = bias.astype("<i4").reshape(-1, 1).view(np.uint8)
    words[:, 4:6] = multiplier.astype("<u2").reshape(-1, 1).view(np.uint8)
    words[:, 6] = shift
    words[:, 8:10] = second.astype("<u2").reshape(-1, 1).view(np.uint8)
    return words


def norm_words(norm: NormParameters) -> NDArray[np.uint64]:
    """A LayerNorm's parameters as they lie in memory: 8 bytes a column."""
    return (
        (norm.scale & 0x3FFFF).astype(np.uint64)
        | (norm.shift & 0xFFFF).astype(np.uint64) << np.uint64(18)
        | norm.multiplier.astype(np.uint64) << np.uint64(34)
    )


def position_words(encoded: EncodedMatrix) -> NDArray[np.uint8]:
    """Position words as they lie in memory: shape (words, groups * window / 8)."""
    bits = (encoded.positions[:, :, None] >> np.arange(encoded.window, dtype=np.uint32)) & 1
    return np.packbits(bits.reshape(len(bits), -1).astype(np.uint8), axis=1, bitorder="little")
