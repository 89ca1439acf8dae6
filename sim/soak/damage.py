"""Programs that are not legal, made of legal ones: bits flipped, fields of any value, instructions moved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sta_hw.spec.isa import FORMATS, HEADER_BYTES, WORD_BYTES, Opcode, formats, instruction_bytes

__all__ = ["KINDS", "damaged"]

Image = NDArray[np.uint8]


def _instructions(image: Image, at: int) -> list[tuple[int, Opcode]]:
    """Of each instruction up to the last HALT its first byte and opcode."""
    found, place = [], at + HEADER_BYTES
    end = at + 64 * int.from_bytes(image[at + 8 : at + 12].tobytes(), "little")
    while place < end and image[place + 4] >> 4 in Opcode.__members__.values():
        found.append((place, Opcode(image[place + 4] >> 4)))
        place += instruction_bytes(found[-1][1])
    return found


def _flip(image: Image, first: int, end: int, rng: np.random.Generator) -> str:
    bits = sorted({int(rng.integers(8 * first, 8 * end)) for _ in range(rng.integers(1, 4))})
    for bit in bits:
        image[bit // 8] ^= np.uint8(1 << bit % 8)
    return f"bits {bits} flipped"


def _bits(image: Image, at: int, rng: np.random.Generator) -> str:
    place, opcode = _instructions(image, at)[-1]
    return _flip(image, at + HEADER_BYTES, place + instruction_bytes(opcode), rng)


def _header(image: Image, at: int, rng: np.random.Generator) -> str:
    return _flip(image, at, at + 24, rng)


def _field(image: Image, at: int, rng: np.random.Generator) -> str:
    """Any value, one at an end, or one next to what it was."""
    there = _instructions(image, at)
    place, opcode = there[rng.integers(len(there))]
    record, size = formats(opcode), instruction_bytes(opcode)
    word = int.from_bytes(image[place : place + size].tobytes(), "little")
    name = str(rng.choice(list(record.places)))
    start, f = record.places[name]
    mask = (1 << f.width) - 1
    old = word >> start & mask
    value = int(rng.choice([int(rng.integers(mask + 1)), 0, mask, old + 1 & mask, old - 1 & mask, 1, mask >> 1]))
    word = word & ~(mask << start) | value << start
    image[place : place + size] = np.frombuffer(word.to_bytes(size, "little"), np.uint8)
    return f"{opcode.name} at byte {place - at}: {name} = {value}, it was {old}"


def _word(image: Image, at: int, rng: np.random.Generator) -> str:
    """A word of its own opcode, or of any, with all else at random."""
    there = _instructions(image, at)
    place, opcode = there[rng.integers(len(there))]
    number = int(rng.integers(len(FORMATS[opcode])))
    first = place + WORD_BYTES * number
    new = np.frombuffer(rng.bytes(WORD_BYTES), np.uint8).copy()
    if number == 0 and rng.integers(2):
        new[4] = new[4] & 15 | int(opcode) << 4
    image[first : first + WORD_BYTES] = new
    return f"word {number} of {opcode.name} at byte {place - at}: {new.tobytes().hex()}"


def _moved(image: Image, at: int, rng: np.random.Generator) -> str:
    """An instruction is missing, is there twice, or changes places with the next."""
    there = _instructions(image, at)
    parts = [image[place : place + instruction_bytes(opcode)].copy() for place, opcode in there]
    number, how = int(rng.integers(len(parts))), int(rng.integers(3))
    if how == 0:
        del parts[number]
    elif how == 1:
        parts.insert(number, parts[number])
    elif number + 1 < len(parts):
        parts[number], parts[number + 1] = parts[number + 1], parts[number]
    body, first = np.concatenate([np.zeros(0, np.uint8), *parts]), there[0][0]
    end = min(first + len(body), len(image))
    image[first:end] = body[: end - first]
    image[end : there[-1][0] + WORD_BYTES] = 0
    return f"instruction {number} is {('missing', 'there twice', 'behind the next')[how]}"


def _data(image: Image, at: int, rng: np.random.Generator) -> str:
    """Weights, positions, parameters, windows: whatever is in memory."""
    return _flip(image, 0, at, rng)


KINDS: dict[str, Callable[[Image, int, np.random.Generator], str]] = {
    "bits": _bits, "field": _field, "word": _word, "moved": _moved, "data": _data, "header": _header,
}  # fmt: skip
"""By name, what is done to an image with its program at an address; each changes it and says how."""
_SHARES = (0.35, 0.3, 0.1, 0.1, 0.1, 0.05)


def damaged(image: Image, at: int, rng: np.random.Generator) -> tuple[Image, str, str]:
    """A copy that is not what it was, the kind of damage, and what it is."""
    copy, kind = image.copy(), str(rng.choice(list(KINDS), p=_SHARES))
    return copy, kind, KINDS[kind](copy, at, rng)
