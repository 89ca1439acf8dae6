"""Loops and address registers for a flat program: what the compiler gives becomes as small as its repetitions allow.

Nothing here knows what is repeated: heads, tiles and blocks of keys, chunks of columns and tiles are found in the flat
instructions (`loops`), and become LOOP, NEXT and SET (`emission`). What the loops expand to is compared with the flat
program, always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CheckError
from ..model.graph import layer_of
from ..spec.expansion import MOST_LOOPS, TILES_REGISTER, WINDOW_LINES
from ..spec.isa import FORMATS, LINE_BYTES, REGISTERS, WAITS, WORD_BYTES, Instruction, Opcode, formats
from .emission import emit, fits
from .loops import MASK, Flat, Limits, find_loops
from .schedule import NEVER, Scheduled

__all__ = ["roll"]

_MOST_WORDS = max(len(words) for words in FORMATS.values())
_LIMITS = Limits(words=(WINDOW_LINES - 1) * LINE_BYTES // WORD_BYTES, registers=TILES_REGISTER - 1, depth=MOST_LOOPS)
"""So many words fit the lines that a body may touch wherever it begins; the registers behind begin with sizes."""
_WAITS = tuple(f"wait_{name}" for name in WAITS)


def _places(opcode: Opcode) -> dict[str, tuple[int, int]]:
    """Of each field that a register may be added to its word and first bit."""
    found = {}
    for number, word in enumerate(FORMATS[opcode]):
        at = 0
        for f in word.low:
            found[f.name] = (number, at)
            at += f.width
    return found


_PLACES = {opcode: _places(opcode) for opcode in FORMATS}
_RANGES = {o: {name: (f.lowest, f.highest) for name, (_, f) in formats(o).places.items()} for o in FORMATS}
_Keys = dict[tuple[Any, ...], int]


def _split(opcode: Opcode, fields: Mapping[str, int]) -> tuple[list[int], list[tuple[str, int]]]:
    """What registers may be added to, word by word, and other fields than waits; looked at as `Instruction` does."""
    places, ranges = _PLACES[opcode], _RANGES[opcode]
    low = [0] * _MOST_WORDS
    high = []
    for name, value in fields.items():
        if not value:
            continue
        lowest, highest = ranges.get(name, (1, 0))
        if not lowest <= value <= highest:
            Instruction(opcode, fields)
        place = places.get(name)
        if place is not None:
            number, at = place
            if value < 0:
                value &= 2 * highest + 1
            low[number] |= value << at
        elif name not in _WAITS:
            high.append((name, value))
    high.sort()
    return low, high


def _packed(program: Sequence[Scheduled], keys: _Keys) -> Flat:
    """The program as arrays; `keys` are added to."""
    rows: dict[str, list[Any]] = {name: [] for name in ("keys", "lows", "sizes", "least", "most")}
    for i in program:
        low, high = _split(i.opcode, i.fields)
        rows["keys"].append(keys.setdefault((i.opcode, i.label, *high), len(keys)))
        rows["lows"].append(low)
        rows["sizes"].append(len(FORMATS[i.opcode]))
        rows["least"].append(i.least)
        rows["most"].append([i.fields.get(name) or NEVER for name in _WAITS])
    return Flat(**{name: np.array(row, np.int64) for name, row in rows.items()})


def _instruction(i: Scheduled, waits: Sequence[int], words: Sequence[tuple[int, int]]) -> Instruction:
    """A flat instruction with waits and registers of its own."""
    fields = dict(i.fields)
    for name, distance in zip(_WAITS, waits, strict=True):
        fields[name] = distance if distance < NEVER else 0
    for word, (register, offset) in zip(FORMATS[i.opcode], words, strict=False):
        if not register:
            continue
        fields[word.register] = register
        if offset:
            low = at = 0
            for f in word.low:
                low |= (fields.get(f.name, 0) & (1 << f.width) - 1) << at
                at += f.width
            low = low - offset & MASK
            for f in word.low:
                value = low & (1 << f.width) - 1
                fields[f.name] = value - (value >> f.width - 1 << f.width) if f.signed else value
                low >>= f.width
    return Instruction(i.opcode, fields)


def _between_layers(program: Sequence[Scheduled]) -> list[int]:
    """Numbers of the instructions that layers begin with; loads of their first weights may come before them."""
    found, last = [], None
    for number, i in enumerate(program):
        layer = layer_of(i.label)
        if i.opcode != Opcode.LOAD and layer != last:
            found += [number] if number else []
            last = layer
    return found


def roll(program: Sequence[Scheduled]) -> tuple[list[Instruction], list[str]]:
    """The program with loops, and a label for each of its instructions.

    Raises
    ------
    InputError
        If a number does not fit its field.
    """
    keys: _Keys = {}
    flat = _packed(program, keys)
    tree = find_loops(flat, _LIMITS, lambda loop, first: fits(flat, loop, first, _LIMITS), _between_layers(program))
    found = emit(flat, tree, _LIMITS, lambda at, waits, words: _instruction(program[at], waits, words))
    instructions = [e.instruction for e in found]
    labels = [program[e.flat].label if e.flat >= 0 else e.instruction.label for e in found]
    _check(instructions, labels, flat, keys)
    return instructions, labels


def _check(
    rolled: Sequence[Instruction], labels: Sequence[str], flat: Flat, keys: Mapping[tuple[Any, ...], int]
) -> None:
    """Raise CheckError unless loops expand to the flat program, with waits that will do."""
    words, own, waits, registers = [], [], [], []
    for i, label in zip(rolled, labels, strict=True):
        added = {word.register: number for number, word in enumerate(FORMATS[i.opcode]) if word.register}
        low, high = _split(i.opcode, {n: v for n, v in i.fields.items() if n not in added})
        words.append(low)
        own.append(keys.get((i.opcode, label, *high), -1))
        waits.append([i.fields.get(name) or NEVER for name in _WAITS])
        registers.append([(added[n], v) for n, v in i.fields.items() if n in added])
    values = [0] * REGISTERS
    loops: list[tuple[int, int]] = []
    sources, lows = [], []
    at = 0
    while at < len(rolled):
        i, low = rolled[at], words[at]
        if registers[at]:
            low = list(low)
            for word, register in registers[at]:
                low[word] = low[word] + values[register] & MASK
        if i.opcode == Opcode.SET:
            values[i["destination"]] = low[0]
        elif i.opcode == Opcode.LOOP:
            loops.append((at, low[0]))
        elif i.opcode == Opcode.NEXT:
            start, left = loops.pop()
            if left > 1:
                loops.append((start, left - 1))
                at = start
        else:
            sources.append(at)
            lows.append(low)
        at += 1
    if len(sources) != len(flat.keys):
        raise CheckError(f"loops give {len(sources):,} instructions, and the flat program has {len(flat.keys):,}.")
    distances = np.array(waits)[sources]
    good = (np.array(own)[sources] == flat.keys) & (np.array(lows) == flat.lows).all(axis=1)
    good &= ((flat.least <= distances) & (distances <= flat.most)).all(axis=1)
    if not good.all():
        number = int(good.argmin())
        raise CheckError(f"loops give another instruction {number:,} than the flat program: {rolled[sources[number]]}.")
