"""Loops become instructions: which register each word takes, what it begins with, by how much it is stepped where.

A word in loops within one another lies at a constant plus, for each loop, a step times the number of its iteration.
Words with the same steps share a register. It begins as zero, or as a register of the loops around that has the steps
of those already; each loop's end adds what is missing to the next iteration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..spec.isa import REGISTERS, Instruction, Opcode
from .loops import MASK, Flat, Limits, Loop, Tree

__all__ = ["Emitted", "TooManyError", "emit", "fits"]

Steps = tuple[int, ...]
"""A word's steps in the loops around it, from the outermost on; none behind the last that is not zero."""
Place = tuple[int, ...]
"""A loop's place in its nest: the numbers of the loops around it and its own, each among its siblings."""
Leaf = Callable[[int, tuple[int, ...], Sequence[tuple[int, int]]], Instruction]
"""Makes an instruction, from its flat number, its waits, and of each word its register and what that is too much by."""


@dataclass(frozen=True)
class Emitted:
    """An instruction of the program, and the flat one that it is in its first iteration; -1 for SET, LOOP and NEXT."""

    instruction: Instruction
    flat: int


@dataclass
class _Register:
    """A register's life: in the loop at `place`, and for the words of `steps` in the loops `within` it.

    Attributes
    ----------
    place : Place
        The loop before which it is set.
    base : Steps
        Of the register that it begins with; none for zero.
    ends : dict of Place to int
        What is added to it at each loop's end.
    offsets : dict of Place to int
        What it is more than its words' steps in each of the innermost loops.
    """

    place: Place
    base: Steps
    steps: Steps
    ends: dict[Place, int]
    offsets: dict[Place, int]
    number: int = 0


@dataclass
class _Nest:
    """An outermost loop."""

    flat: Flat
    loop: Loop
    first: int
    counts: dict[Place, int] = field(default_factory=dict)
    used: dict[Place, set[Steps]] = field(default_factory=lambda: defaultdict(set))
    """Of each loop, the steps of its words that end with it."""

    def __post_init__(self) -> None:
        self._look(self.loop, self.first, (0,), ())

    def _look(self, loop: Loop, first: int, place: Place, periods: tuple[int, ...]) -> None:
        self.counts[place] = loop.count
        at = first + loop.first
        inner = 0
        for item in loop.body.items:
            if isinstance(item, Loop):
                self._look(item, at, (*place, inner), (*periods, loop.period))
                inner += 1
                continue
            for steps in self.steps(at + item[0], (*periods, loop.period)):
                if steps:
                    self.used[place[: len(steps)]].add(steps)

    def steps(self, flat: int, periods: tuple[int, ...]) -> list[Steps]:
        """Of each word of a flat instruction."""
        lows = self.flat.lows
        found = []
        here = lows[flat].tolist()
        each = [lows[flat + p].tolist() for p in periods]
        for word in range(int(self.flat.sizes[flat])):
            steps = [e[word] - here[word] & MASK for e in each]
            while steps and not steps[-1]:
                steps.pop()
            found.append(tuple(steps))
        return found


def _stripped(steps: Steps) -> Steps:
    while steps and not steps[-1]:
        steps = steps[:-1]
    return steps


def _plan(nest: _Nest, whole: bool) -> list[_Register]:
    """The registers of a nest's words: as few SETs as can be, or, `whole`, as few registers."""
    if whole:
        for place in sorted(nest.used, key=len, reverse=True):
            for steps in list(nest.used[place]):
                while steps := _stripped(steps[:-1]):
                    nest.used[place[: len(steps)]].add(steps)
    groups: dict[tuple[Place, Steps], list[Place]] = defaultdict(list)
    for place, found in sorted(nest.used.items()):
        for steps in sorted(found):
            groups[place[:-1], steps].append(place)
    registers = []
    for (around, steps), places in groups.items():
        depth = len(steps)
        # Set anew before each of the loops, from the longest steps that a register has ...
        base = _stripped(steps[:-1])
        known = not base or base in nest.used.get(around[: len(base)], ())
        least = 2 * len(places) if known else 1 << 30
        best = None
        for root in range(depth - 2, -1, -1):
            # ... or once before a loop around them, and brought back at the ends of those between.
            start = _stripped(steps[:root])
            if whole or (start and start not in nest.used.get(around[: len(start)], ())):
                continue
            advance = sum(nest.counts[p] for p in places) * steps[-1]
            ends = {}
            for level in range(depth - 1, root, -1):
                ends[around[:level]] = steps[level - 1] - advance & MASK
                advance = nest.counts[around[:level]] * steps[level - 1]
            cost = 1 + len(places) + sum(1 for e in ends.values() if e)
            if cost < least:
                least, best = cost, (root, start, ends)
        if best is None:
            registers += [_Register(p, base, steps, {p: steps[-1]}, {p: 0}) for p in places]
            continue
        root, start, ends = best
        offsets, offset = {}, 0
        for p in places:
            offsets[p] = offset & MASK
            offset += nest.counts[p] * steps[-1]
        registers.append(_Register(around[: root + 1], start, steps, ends | dict.fromkeys(places, steps[-1]), offsets))
    return registers


class _Emitter:
    """Instructions of a nest, in order."""

    def __init__(
        self, nest: _Nest, registers: Sequence[_Register], most: int, leaf: Leaf, values: list[int | None]
    ) -> None:
        self.nest, self.leaf, self.values = nest, leaf, values
        self.free = list(range(most, 0, -1))
        self.of: dict[Place, list[_Register]] = defaultdict(list)
        self.at: dict[tuple[Place, Steps], _Register] = {}
        for r in registers:
            self.of[r.place].append(r)
            for place in r.offsets:
                self.at[place, r.steps] = r
        self.ends: dict[Place, list[_Register]] = defaultdict(list)
        for r in registers:
            for place, step in r.ends.items():
                if step:
                    self.ends[place].append(r)

    def loop(self, loop: Loop, first: int, place: Place, periods: tuple[int, ...]) -> Iterator[Emitted]:
        mine = self.of[place]
        for r in mine:
            if not self.free:
                raise TooManyError
            r.number = self.free.pop()
        for r in mine:
            base = self.at[place[: len(r.base)], r.base] if r.base else None
            value = -base.offsets[place[: len(r.base)]] & MASK if base else 0
            if len(place) > 1 or self.values[r.number] != value or base:
                yield _control(Opcode.SET, destination=r.number, value=value, value_register=base.number if base else 0)
        yield _control(Opcode.LOOP, count=loop.count)
        at = first + loop.first
        inner = 0
        periods = (*periods, loop.period)
        for item in loop.body.items:
            if isinstance(item, Loop):
                yield from self.loop(item, at, (*place, inner), periods)
                inner += 1
                continue
            words = []
            for steps in self.nest.steps(at + item[0], periods):
                where = place[: len(steps)]
                found = self.at[where, steps] if steps else None
                words.append((found.number, found.offsets[where]) if found else (0, 0))
            yield Emitted(self.leaf(at + item[0], item[1], words), at + item[0])
        for r in self.ends[place]:
            yield _control(Opcode.SET, destination=r.number, value=r.ends[place], value_register=r.number)
        yield _control(Opcode.NEXT)
        for r in reversed(mine):
            self.free.append(r.number)
            self.values[r.number] = r.steps[0] * self.nest.counts[(0,)] & MASK if len(place) == 1 else None


_NOTHING = Instruction(Opcode.HALT)


class TooManyError(Exception):
    """A loop takes more registers, or more words, than there are."""


def _control(opcode: Opcode, **fields: int) -> Emitted:
    return Emitted(Instruction(opcode, fields), -1)


def fits(flat: Flat, loop: Loop, first: int, limits: Limits) -> bool:
    """Whether there are registers and words enough for an outermost loop; its own first one counts from `first`."""
    try:
        _nest(flat, replace(loop, first=first + loop.first), limits, lambda *_: _NOTHING, [None] * REGISTERS)
    except TooManyError:
        return False
    return True


def _nest(flat: Flat, loop: Loop, limits: Limits, leaf: Leaf, values: list[int | None]) -> list[Emitted]:
    """An outermost loop, the shorter way; `values` are what registers hold, before and then after it."""
    best: tuple[int, list[Emitted], list[int | None]] | None = None
    for whole in (False, True):
        nest, after = _Nest(flat, loop, 0), list(values)
        try:
            found = list(_Emitter(nest, _plan(nest, whole), limits.registers, leaf, after).loop(loop, 0, (0,), ()))
        except TooManyError:
            continue
        words = [int(flat.sizes[e.flat]) if e.flat >= 0 else 1 for e in found]
        before = next(i for i, e in enumerate(found) if e.flat < 0 and e.instruction.opcode == Opcode.LOOP) + 1
        if sum(words[before:]) <= limits.words and (best is None or sum(words) < best[0]):
            best = sum(words), found, after
    if best is None:
        raise TooManyError
    _, found, values[:] = best
    return found


def emit(flat: Flat, tree: Tree, limits: Limits, leaf: Leaf) -> list[Emitted]:
    """The program of a tree; `leaf` makes an instruction.

    Raises
    ------
    TooManyError
        If a loop takes more words or registers than there are.
    """
    values: list[int | None] = [0] * REGISTERS
    found: list[Emitted] = []
    for item in tree.items:
        if isinstance(item, Loop):
            found += _nest(flat, item, limits, leaf, values)
        else:
            found.append(Emitted(leaf(item[0], item[1], ()), item[0]))
    return found
