"""Reference of weights of 4 bits in blocks: the INT8 values that a product's words stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.config import Config
from .weights import Fields, WeightsError

__all__ = ["block_beats", "block_values"]

_VALUES_SHORT, _VALUES_LONG = 1, 2
_WIDE = 2
"""The value format of wide blocks."""


def block_beats(command: Fields, words: int, config: Config) -> int:
    """How many beats of values so many words are: those of the product, or one fewer or more if words are.

    Parameters
    ----------
    command : mapping of str to int
        A product's fields.
    words : int
        Of values on chip, `groups` bytes each.
    """
    run = command["run"]
    beats = command["passes"] * command["columns"] * (command["depth"] >> command["m_log2"]) * command["n"]
    runs, share = beats // run, max(1, min(32 // config.window, config.groups))
    headers = {1: 3 * (runs + 1), 2: (3 * (runs + 1) + 1) // 2}.get(share, runs + 1)
    if command["value_format"] == _WIDE:
        headers = runs // share + 1
    wanted = headers + runs * -(-run // 2)
    return beats + (words > wanted) - (words < wanted) if beats % run == 0 else beats


def block_values(command: Fields, words: NDArray[np.uint8], config: Config) -> NDArray[np.int8]:
    """The values of a product, word after word as docs/format.md has them.

    Parameters
    ----------
    command : mapping of str to int
        A product's fields; ``run`` is how many values of a group follow each header, ``value_format`` 2 of wide
        blocks.
    words : uint8, shape (words, groups)

    Returns
    -------
    int8 array, shape (beats, groups)

    Raises
    ------
    WeightsError
        If there are more or fewer words than the product takes.
    CheckError
        If runs do not divide the values of the product, which is not defined.
    """
    run, groups = command["run"], config.groups
    beats = command["passes"] * command["columns"] * (command["depth"] >> command["m_log2"]) * command["n"]
    if beats % run or not beats:
        raise CheckError(f"runs of {run} values do not divide the {beats} of the product")
    runs, half = beats // run, -(-run // 2)
    share = max(1, min(32 // config.window, groups))
    wide = command["value_format"] == _WIDE
    blocks = groups // (4 * share if wide else share)
    place, header_bytes, codes = 0, [], []

    def take(count: int) -> NDArray[np.uint8]:
        nonlocal place
        if place + count > len(words):
            raise WeightsError(_VALUES_SHORT, f"{len(words)} words of values; the product takes more")
        place += count
        return words[place - count : place]

    kept: NDArray[np.uint8] = np.zeros(blocks, np.uint8)
    together: NDArray[np.uint8] = np.zeros((0, blocks, 4), np.uint8)
    for number in range(runs + 1):
        if wide:
            if not len(together):
                together = take(1).reshape(share, blocks, 4)
            found, together = together[0, :, :3], together[1:]
        elif share == 1:
            found = take(3).T
        elif share == 2 and number % 2 == 0:
            pair = take(2).reshape(2, blocks, 2)
            found, kept = np.stack([pair[0, :, 0], pair[0, :, 1], pair[1, :, 0]], axis=1), pair[1, :, 1]
        elif share == 2:
            found = np.concatenate([take(1).reshape(blocks, 2), kept[:, None]], axis=1)
        else:
            found = take(1).reshape(blocks, share)[:, :3]
        header_bytes.append(found.astype(np.int64))
        if number:
            packed = take(half)
            codes.append(np.stack([packed & 15, packed >> 4], axis=1).reshape(2 * half, groups)[:run])
    if place < len(words):
        raise WeightsError(_VALUES_LONG, f"{len(words)} words of values; the product takes {place}")
    bits = np.array(header_bytes[:-1]) @ np.array([1, 1 << 8, 1 << 16])
    scale, minimum = bits & 0xFFF, (bits >> 12 ^ 0x800) - 0x800
    scale, minimum = (np.repeat(x, groups // blocks, axis=1)[:, None, :] for x in (scale, minimum))
    values = (np.array(codes).astype(np.int64) * scale + 8 * minimum) // 128
    return ((values + 128) % 256 - 128).astype(np.int8).reshape(beats, groups)
