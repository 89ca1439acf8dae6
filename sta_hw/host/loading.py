"""Images over a slow line: checked as they arrive, and gone on with where a load was broken off.

Where the memory controller's registers are in reach, they keep, with the same lifetime as the memory's contents, which
image is there and how much of it: a load that was broken off, by a pulled plug or Ctrl-C, goes on behind what had
arrived and was checked, and an image that is there unchanged is not sent again. A program changes it: then all is sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ..fpga.litedram import LEVELING_REGISTERS
from ..spec.board import CONTROLLER_REGISTERS, MEMORY
from .board import BoardLink

__all__ = ["CHUNK_BYTES", "forget_image", "load_image"]

CHUNK_BYTES = 1 << 14
"""After so many bytes it is written down how far the image has come."""
_JOURNAL = CONTROLLER_REGISTERS + 4 * LEVELING_REGISTERS["sdram_dfii_pi1_wrdata"]
"""Two words: the image's checksum, and the chunks of it that are there."""


def load_image(link: BoardLink, image: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None) -> int:
    """Write an image to a board's memory; returns the bytes that were sent.

    Parameters
    ----------
    link : BoardLink
    image : uint8 array
        A multiple of four bytes.
    progress : function, optional
        Is told the bytes that are there, and all.

    Raises
    ------
    CheckError
        If the board does not answer, or a burst does not arrive intact.
    """

    def told(done: int) -> None:
        if progress:
            progress(done, len(image))

    if not link.resumable:
        link.write(MEMORY, image.view("<u4"), lambda words: told(4 * words))
        return len(image)
    digest = zlib.crc32(image.tobytes(), len(image) & 0xFFFFFFFF)
    known, chunks = map(int, link.read(_JOURNAL, 2))
    begin = min(chunks * CHUNK_BYTES, len(image)) if known == digest else 0
    if not begin:
        link.write(_JOURNAL, np.array([digest, 0], np.uint32))
    link.image_known = True
    told(begin)
    before = link.retries
    for start in range(begin, len(image), CHUNK_BYTES):
        part = image[start : start + CHUNK_BYTES]
        try:
            link.write(MEMORY + start, part.view("<u4"))
        except BaseException:  # Ctrl-C too
            if link.retries > before:
                with suppress(Exception):  # the line may be gone
                    _there(link, 0)
            raise
        # Behind a burst that had to be sent again nothing is sure but what is looked at, below.
        _there(link, start // CHUNK_BYTES + 1 if link.retries == before else 0)
        told(start + len(part))
    while link.retries > before:
        before = link.retries
        found = link.read(MEMORY, len(image) // 4).astype("<u4").view(np.uint8)
        for number in np.unique(np.flatnonzero(found != image) // CHUNK_BYTES):
            start = int(number) * CHUNK_BYTES
            link.write(MEMORY + start, image[start : start + CHUNK_BYTES].view("<u4"))
        if link.retries == before:
            _there(link, -(-len(image) // CHUNK_BYTES))
    return len(image) - begin


def _there(link: BoardLink, chunks: int) -> None:
    """Write down how many chunks have come."""
    link.write(_JOURNAL + 4, np.array([chunks], np.uint32))


def forget_image(link: BoardLink) -> None:
    """To be called ahead of all that changes the memory otherwise."""
    if link.image_known:
        link.write(_JOURNAL, np.zeros(2, np.uint32))
        link.image_known = False
