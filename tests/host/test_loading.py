"""Images over a slow line: a load that was broken off goes on; what is there, unchanged, is not sent again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sta_hw.fpga.litedram import LEVELING_REGISTERS
from sta_hw.host.loading import CHUNK_BYTES, forget_image, load_image
from sta_hw.spec.board import CONTROLLER_REGISTERS, MEMORY

JOURNAL = CONTROLLER_REGISTERS + 4 * LEVELING_REGISTERS["sdram_dfii_pi1_wrdata"]
SIZE = 5 * CHUNK_BYTES + 52


class Link:
    """A board's memory and the two words of its memory controller; it breaks after so many words."""

    def __init__(self) -> None:
        self.memory, self.journal = np.zeros(SIZE, np.uint8), np.zeros(2, np.uint32)
        self.left = 1 << 30
        self.resumable, self.image_known = True, False
        self.retries = 0
        self.astray: int | None = None

    def write(self, address: int, words: NDArray[np.uint32], progress: Callable[[int], None] | None = None) -> None:
        if address >= JOURNAL:
            self.journal[(address - JOURNAL) // 4 :][: len(words)] = words
            return
        if address == self.astray:  # a byte of its address was lost, and it was sent again
            self.memory[:64] = 0
            self.retries, self.astray = self.retries + 1, None
        count = min(len(words), self.left)
        self.memory[address - MEMORY :][: 4 * count] = np.ascontiguousarray(words[:count]).view(np.uint8)
        self.left -= count
        if count < len(words):
            raise KeyboardInterrupt
        if progress:
            progress(len(words))

    def read(self, address: int, words: int) -> NDArray[np.uint32]:
        if address < JOURNAL:
            return self.memory[address - MEMORY :][: 4 * words].view(np.uint32)
        return self.journal[(address - JOURNAL) // 4 :][:words]


def test_a_broken_load_goes_on() -> None:
    """Wherever it broke, at most a chunk is sent again, and the memory has the image."""
    image = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    for words in (0, 1, CHUNK_BYTES // 4, CHUNK_BYTES // 4 + 1, SIZE // 4 - 1):
        link: Any = Link()
        link.left = words
        with pytest.raises(KeyboardInterrupt):
            load_image(link, image)
        link.left = 1 << 30
        told: list[tuple[int, int]] = []
        sent = load_image(link, image, lambda done, total, told=told: told.append((done, total)))
        assert sent == SIZE - 4 * words // CHUNK_BYTES * CHUNK_BYTES
        assert np.array_equal(link.memory, image)
        assert told[0] == (SIZE - sent, SIZE) and told[-1] == (SIZE, SIZE)
        assert load_image(link, image) == 0


@pytest.mark.parametrize("words", [0, 1, CHUNK_BYTES // 4 - 1, CHUNK_BYTES // 2], ids=["", "at once", "in it", "later"])
def test_a_burst_that_went_astray(words: int) -> None:
    """What it did to a chunk that was there is found at the end, also where the load is broken off `words` behind."""
    image = np.random.default_rng(2).integers(1, 256, SIZE, dtype=np.uint8)
    link: Any = Link()
    link.astray = MEMORY + 2 * CHUNK_BYTES
    if words:
        link.left = 2 * CHUNK_BYTES // 4 + words
        with pytest.raises(KeyboardInterrupt):
            load_image(link, image)
        link.left = 1 << 30
    load_image(link, image)
    assert np.array_equal(link.memory, image) and load_image(link, image) == 0


def test_what_is_sent_again() -> None:
    """Another image, and one that a program has changed, are sent as a whole; and all where nothing is kept."""
    link: Any = Link()
    image = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)
    load_image(link, image)
    other = image.copy()
    other[-1] ^= 1
    assert load_image(link, other) == SIZE and np.array_equal(link.memory, other)
    forget_image(link)
    link.memory[:] = 0
    assert load_image(link, other) == SIZE and np.array_equal(link.memory, other)
    link.memory[:] = 0
    link.resumable = False
    told: list[tuple[int, int]] = []
    assert load_image(link, other, lambda done, total: told.append((done, total))) == SIZE
    assert np.array_equal(link.memory, other) and told[-1] == (SIZE, SIZE)
