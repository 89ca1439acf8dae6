"""The first instruction whose result differs: every beat that hardware wrote, against the reference's instructions.

Buffers are shared by all layers, so the memory after a run tells little. Here the reference runs the program
instruction by instruction and keeps what each writes; the hardware's writes come with their cycles; and per address,
the first write of the one belongs to the first of the other, the second to the second. One run suffices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..spec.isa import Opcode
from .trail import Element, Trail, element_at

__all__ = ["Bisection", "Ran", "Wrong", "bisect"]

_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ran:
    """An instruction and when the hardware ran it.

    Attributes
    ----------
    number, place : int
        In the order of execution, and in the program.
    opcode, layer : str
    first, last : int or None
        Clock cycles: from when its unit was through with the instruction before, and what it waits for was done, to
        its completion; None if that never came. Counted as ``sta-hw trace`` counts.
    """

    number: int
    place: int
    opcode: str
    layer: str
    first: int | None
    last: int | None

    def text(self) -> str:
        """In words."""
        where = "" if self.place == self.number else f", {self.place} of the program"
        if self.last is None:
            when = "which did not end" if self.first is None else f"from cycle {self.first} on, without an end"
        else:
            when = f"cycles {self.first} to {self.last}"
        return f"instruction {self.number}{where} ({self.opcode}, {self.layer}; {when})"


@dataclass(frozen=True)
class Wrong:
    """The first instruction whose result differs.

    Attributes
    ----------
    ran : Ran
    at : Place
        The first of its values that differs.
    expected : int
    got : int or None
        None if it was not written while the instruction ran.
    values : int
        How many of its bus words differ or are missing, and
    of : int
        how many it writes.
    instructions : int
        How many instructions' results differ, this one's included.
    sources : tuple of Ran
        What it found on chip, where nobody sees it: LOADs, SCORES, unfinished products, the oldest first.
    """

    ran: Ran
    at: Element
    expected: int
    got: int | None
    values: int
    of: int
    instructions: int
    sources: tuple[Ran, ...]

    @property
    def window(self) -> tuple[int, int] | None:
        """The cycles to look at: this instruction's and those of the products and scores behind it, not of LOADs."""
        spans = [r for r in (*self.sources, self.ran) if r.opcode != Opcode.LOAD.name]
        known = [r.first for r in spans if r.first is not None]
        if not known:
            return None
        return min(known), self.ran.last if self.ran.last is not None else self.ran.first or max(known)

    def text(self) -> str:
        """In sentences."""
        got = "nothing was written" if self.got is None else f"got {self.got}"
        found = (
            f"the first wrong result is that of {self.ran.text()}: {self.at.words()}: expected {self.expected}, "
            f"{got}; {self.values} of its {self.of} bus words differ"
        )
        if self.instructions > 1:
            found += f", and results of {self.instructions - 1} instructions after it"
        if self.sources:
            found += ".\nOn chip it found what these left there: " + "; ".join(r.text() for r in self.sources)
        return found + "."


@dataclass(frozen=True)
class Bisection:
    """Every write compared.

    Attributes
    ----------
    words : int
        Bus words that the program writes, one for each time.
    instructions : int
        That write them.
    wrong : Wrong or None
        None if all are right.
    strays : int
        Bus words written that no instruction writes; counted where no result differs, too.
    stray : str
        In words, the first of them.
    """

    words: int
    instructions: int
    wrong: Wrong | None
    strays: int = 0
    stray: str = ""


def bisect(model: CompiledModel, trail: Trail, recording: Any) -> Bisection:
    """Compare.

    Parameters
    ----------
    trail : Trail
        The reference's run, bytes kept.
    recording : sim.accelerator.Recording
        The hardware's, of the same image.
    """
    bus = model.config.bus_bytes
    expected = _Words.of(trail, bus)
    cycles, offsets, strobes = (_joined(part) for part in (recording.cycles, recording.offsets, recording.strobes))
    data = np.concatenate([np.zeros((0, bus), np.uint8), *recording.data])
    mask = (strobes[:, None].astype(np.uint64) >> np.arange(bus, dtype=np.uint64) & np.uint64(1)).astype(bool)
    words = (offsets // bus).astype(np.int64)

    keys, theirs = _keys(expected.words, words)
    order = np.argsort(theirs)
    at = np.searchsorted(theirs, keys, sorter=order).clip(max=max(len(theirs) - 1, 0))
    met = theirs[order[at]] == keys if len(theirs) else np.zeros(len(keys), bool)
    partner = order[at] if len(theirs) else np.zeros(len(keys), np.int64)

    # When each instruction was through with memory, if it ever was.
    ended = {int(n): _pulse(recording, *trail.ended[int(n)]) for n in np.unique(expected.owners)}
    through = {n: _FOREVER if cycle is None else cycle for n, cycle in ended.items()}
    limit = np.array([through[n] for n in expected.owners.tolist()], np.int64)
    missing = ~met
    if len(theirs):
        # What comes after the instruction has ended is another's, which takes the place of what is missing.
        missing |= met & (cycles[partner] > limit)
    differing = np.zeros(len(keys), bool)
    if len(theirs):
        pair = expected.mask & (expected.data != data[partner])
        differing = ~missing & (pair.any(1) | (mask[partner] != expected.mask).any(1))
    bad = missing | differing
    taken = np.zeros(len(theirs), bool)
    taken[partner[met]] = True
    strays = int((~taken).sum())
    stray = ""
    if strays:
        first = int(np.flatnonzero(~taken)[0])
        place = element_at(model, int(words[first]) * bus)
        stray = f"cycle {cycles[first]}, {place.words()}"
    count = len(ended)
    if not bad.any():
        return Bisection(len(keys), count, None, strays, stray)
    number = int(expected.owners[bad].min())
    mine = np.flatnonzero(bad & (expected.owners == number))
    beat = int(mine[0])
    there = None if missing[beat] else data[partner[beat]]
    wrong = _first_value(model, trail, number, expected, beat, there)
    place, want, got = wrong
    found = Wrong(
        _ran(trail, recording, number), place, want, got, len(mine), int((expected.owners == number).sum()),
        len(np.unique(expected.owners[bad])), tuple(_ran(trail, recording, n) for n in _hidden(trail, number)),
    )  # fmt: skip
    return Bisection(len(keys), count, found, strays, stray)


@dataclass(frozen=True)
class _Words:
    """Bus words in the order they are written: which, by which instruction, what, and which bytes of it count."""

    words: NDArray[np.int64]
    owners: NDArray[np.int64]
    data: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    @staticmethod
    def of(trail: Trail, bus: int) -> _Words:
        words, owners, data, mask = [], [], [], []
        for (address, count, number), raw in zip(trail.stores, trail.data, strict=True):
            before, total = address % bus, -(-(address % bus + count) // bus)
            padded, counted = np.zeros(total * bus, np.uint8), np.zeros(total * bus, bool)
            padded[before : before + count], counted[before : before + count] = raw, True
            words.append(address // bus + np.arange(total))
            owners.append(np.full(total, number))
            data.append(padded.reshape(total, bus))
            mask.append(counted.reshape(total, bus))
        none = np.zeros((0, bus), np.uint8)
        return _Words(
            _joined(words), _joined(owners), np.concatenate([none, *data]), np.concatenate([none.astype(bool), *mask])
        )  # fmt: skip


def _joined(parts: list[NDArray]) -> NDArray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _keys(*streams: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """For each word of each stream, its address and how often that was written before, as one number."""
    ordinals = []
    for words in streams:
        order = np.argsort(words, kind="stable")
        ordered = words[order]
        ordinal = np.empty(len(words), np.int64)
        ordinal[order] = np.arange(len(words)) - np.searchsorted(ordered, ordered)
        ordinals.append(ordinal)
    most = 1 + max((int(o.max(initial=0)) for o in ordinals), default=0)
    return [words * most + ordinal for words, ordinal in zip(streams, ordinals, strict=True)]


def _pulse(recording: Any, name: str, place: int) -> int | None:
    """The cycle of a pulse, or None if it never came."""
    done = recording.completed.get(name, ())
    return int(done[place]) if place < len(done) else None


def _ran(trail: Trail, recording: Any, number: int) -> Ran:
    executed = trail.executed[number]
    unit, place = trail.unit[number]
    # In its unit it follows the instruction before; and what it needs was there when the last it waited for ended.
    begins = [_pulse(recording, unit, place - 1)] if place else []
    begins += [_pulse(recording, *trail.ended[n]) for n in executed.waits]
    first = None if None in begins else max((b for b in begins if b is not None), default=recording.started)
    last = _pulse(recording, *trail.ended[number])
    return Ran(number, executed.place, executed.instruction.opcode.name, trail.layer(number), first, last)


def _hidden(trail: Trail, number: int) -> list[int]:
    """Instructions whose results on chip went into this one's, through others that store nothing too."""
    found: set[int] = set()
    waiting = list(trail.executed[number].sources)
    while waiting:
        source = waiting.pop()
        if source not in found and source in trail.executed:
            found.add(source)
            waiting += trail.executed[source].sources
    return sorted(found)


def _first_value(
    model: CompiledModel, trail: Trail, number: int, expected: _Words, beat: int, got: NDArray[np.uint8] | None
) -> tuple[Element, int, int | None]:
    """The first value of a bus word that differs: where, what it should be, and what it is."""
    bus = model.config.bus_bytes
    address = int(expected.words[beat]) * bus
    wrong = expected.mask[beat] if got is None else expected.mask[beat] & (got != expected.data[beat])
    offset = int(np.flatnonzero(wrong)[0]) if wrong.any() else 0
    place = element_at(model, address + offset, trail.executed[number].instruction, trail.layer(number))
    part = slice(place.address - address, place.address - address + place.size)

    def value(word: NDArray[np.uint8]) -> int:
        return int.from_bytes(word[part].tobytes(), "little", signed=True)

    return place, value(expected.data[beat]), None if got is None else value(got)
