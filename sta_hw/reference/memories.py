"""Memories as a program sees them: the image, those on chip, and which instruction left what is in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.config import Config
from ..spec.isa import Target
from .instructions import Fetched

__all__ = ["AddressError", "Memories"]

_PARAMETER_BYTES, _SHORT_BYTES = 16, 8
_RUN_WORDS = 1 << 20
"""Bus words that a run has fewer than: the hardware counts them in 20 bits."""


class AddressError(CheckError):
    """Bytes that are not in the image, or not aligned."""


def _spread(short: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Short records of columns, shape (columns, 8), as long ones: a bias's sign is its fourth byte."""
    found = np.zeros((len(short), _PARAMETER_BYTES), np.uint8)
    found[:, :3] = short[:, :3]
    found[:, 3] = np.where(short[:, 2] & 0x80, 0xFF, 0)
    found[:, 4:7], found[:, 8:10] = short[:, 3:6], short[:, 6:8]
    return found


class Memories:
    """The image, and what LOADs and products keep on chip.

    Parameters
    ----------
    image : uint8, shape (bytes,)
        Changed in place.
    config : Config

    Attributes
    ----------
    chip : dict of uint8 arrays, shape (words, bytes of a word)
        The on-chip memories that LOAD fills.
    kept : uint8, shape (window_words, bus_bytes)
        Windows that stay on chip.
    number : int
        Of the instruction under way, in the order in which they are dispatched.
    sources : set of int
        Numbers of the instructions whose results it found on chip; -1 stands for what was never filled.
    stores : list of (address, uint8 array)
        What it wrote to the image.
    """

    def __init__(self, image: NDArray[np.uint8], config: Config) -> None:
        self.image, self.config = image, config
        groups, window = config.groups, config.window
        self.chip = {
            Target.VALUES: np.zeros((config.weight_words, groups), np.uint8),
            Target.POSITIONS: np.zeros((config.position_words, groups * window // 8), np.uint8),
            Target.PARAMETERS: np.zeros((config.parameter_words, _PARAMETER_BYTES), np.uint8),
            Target.TABLE: np.zeros((256, 2), np.uint8),
        }
        self.kept = np.zeros((config.window_words, config.bus_bytes), np.uint8)
        self.kept_from = np.full(config.window_words, -1)
        # Which instructions what is on chip comes from: of each word the LOAD's number, or -1.
        self.number = -1
        self.filled = {target: np.full(len(memory), -1) for target, memory in self.chip.items()}
        self.sources: set[int] = set()
        self.stores: list[tuple[int, NDArray[np.uint8]]] = []

    def begin(self, number: int) -> None:
        """The instruction of this number comes next."""
        self.number, self.sources, self.stores = number, set(), []

    def words(self, target: Target, at: NDArray) -> NDArray[np.uint8]:
        """Words of an on-chip memory at the places `at`: shape (places, bytes of a word)."""
        self.sources.update(np.unique(self.filled[target][at]).tolist())
        return self.chip[target][at]

    def bytes_at(self, address: int, count: int) -> NDArray[np.uint8]:
        """Bytes of the image.

        Raises
        ------
        AddressError
            If they are not all inside it, or do not begin at a multiple of the bus's bytes, as the hardware wants it.
        CheckError
            If they are more than the hardware reads or writes in one run, which is not defined.
        """
        if count >= _RUN_WORDS * self.config.bus_bytes:
            raise CheckError(f"a run of {count // self.config.bus_bytes:,} bus words; it has fewer than {_RUN_WORDS:,}")
        if count and address % self.config.bus_bytes:
            raise AddressError(f"address {address} is not a multiple of the bus's {self.config.bus_bytes} bytes")
        if address + count > len(self.image):
            raise AddressError(f"bytes {address} to {address + count} are outside the image of {len(self.image)}")
        return self.image[address : address + count]

    def load(self, i: Fetched) -> None:
        """LOAD: `rows` runs of `beats` bus words, `stride` bytes apart, one behind the other on chip.

        Raises
        ------
        AddressError
            As `bytes_at`; then nothing was loaded.
        """
        target, short = Target(i["target"]), i["target"] == 4
        if short:
            target = Target.PARAMETERS
        memory = self.chip[target]
        width, count = _SHORT_BYTES if short else memory.shape[1], i["beats"] * self.config.bus_bytes
        # Addresses have 32 bits: a stride may lead backwards.
        addresses = (i["address"] + np.arange(i["rows"] if count else 0) * i["stride"]) % (1 << 32)
        wrong = (addresses % self.config.bus_bytes != 0) | (addresses + count > len(self.image))
        for address in addresses[wrong][:1].tolist():
            self.bytes_at(address, count)
        words = len(addresses) * count // width  # what is left of a word is forgotten
        # Of more words than there are the last ones stay.
        first = max(words - len(memory), 0)
        begin = first * width // count if words else 0
        parts = [self.bytes_at(address, count) for address in addresses[begin:].tolist()]
        data = np.concatenate([np.zeros(0, np.uint8), *parts])[first * width - begin * count :]
        at = (i["destination"] + first + np.arange(words - first)) % len(memory)
        loaded = data[: len(at) * width].reshape(-1, width)
        memory[at] = _spread(loaded) if short else loaded
        self.filled[target][at] = self.number

    def windows(self, i: Fetched) -> NDArray[np.uint8]:
        """The bytes of a product's windows: from the image, or kept; and kept from now on, if it is to keep them.

        Raises
        ------
        AddressError
            As `bytes_at`.
        """
        cfg = self.config
        at = i["window_address"] // cfg.bus_bytes + np.arange(i["window_beats"])
        if i["kept"]:
            data = self.kept[at % cfg.window_words].reshape(-1)
            self.sources.update(np.unique(self.kept_from[at % cfg.window_words]).tolist())
        else:
            data = self.bytes_at(i["window_address"], i["window_beats"] * cfg.bus_bytes)
        if i["keep"]:
            self.kept[at % cfg.window_words] = data.reshape(-1, cfg.bus_bytes)
            self.kept_from[at % cfg.window_words] = self.number
        return data
