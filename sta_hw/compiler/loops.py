"""Loops of a flat program: which of its pieces repeat themselves with every word constant or stepping evenly.

A loop's body is found first, then what repeats itself within it: a piece that is repeated has, of each word, the step
that the loops around it give, and inner loops are those that hold in all of their iterations. Of all ways to cut a
piece into instructions and loops the one with the fewest words is taken, by dynamic programming over its places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .runs import runs

__all__ = ["MASK", "Flat", "Limits", "Loop", "Tree", "find_loops"]

Ints = NDArray[np.int64]

MASK = (1 << 32) - 1
"""What registers are added to and stepped by is counted modulo that and one."""
MOST_COUNT = (1 << 16) - 1
_MULTIPLES = 48
"""Of a repetition's shortest period, the multiples that are tried for loops over all its places."""
_PHASES = 12
"""Places within its first period at which a loop may begin."""
_NO_LIMIT = 1 << 30
_GAIN = 3
"""Words that a loop must save: each of its iterations takes a few cycles of the dispatcher."""


@dataclass(frozen=True)
class Flat:
    """A flat program's instructions as arrays.

    Attributes
    ----------
    keys : (n,)
        Equal for instructions that can be one: all that no register changes.
    lows : (n, words)
        What a register may be added to, modulo 2^32.
    sizes : (n,)
        Words of each.
    least, most : (n, classes)
        Of each wait the shortest and the longest distance that will do.
    """

    keys: Ints
    lows: Ints
    sizes: Ints
    least: Ints
    most: Ints


@dataclass(frozen=True)
class Limits:
    """Of an outermost loop: words of its body, NEXT among them, registers from 1 on, and loops within one another."""

    words: int
    registers: int
    depth: int


@dataclass(frozen=True)
class Tree:
    """A piece of a program as instructions and loops.

    Attributes
    ----------
    items : list of (offset, waits) or Loop
        Offsets count flat instructions from the piece's first one.
    words, registers, depth : int
        Its size, the registers it takes at once at most, loops within one another.
    """

    items: tuple[tuple[int, tuple[int, ...]] | Loop, ...]
    words: int
    registers: int
    depth: int


@dataclass(frozen=True)
class Loop:
    """`count` times the `period` flat instructions from `first` on."""

    first: int
    period: int
    count: int
    body: Tree


@dataclass(frozen=True)
class _Piece:
    """Consecutive flat instructions, as the loops around them repeat them.

    Attributes
    ----------
    first : int
    tokens : (n,)
        Equal where keys and steps in the loops around are.
    outer : (n, words)
        Numbers of the steps of each word in the loops around; 0 if it stays.
    least, most : (n, classes)
        Waits that will do in all iterations.
    """

    first: int
    tokens: Ints
    outer: Ints
    least: Ints
    most: Ints


@dataclass
class _Finder:
    flat: Flat
    limits: Limits
    fits: Callable[[Loop, int], bool] | None = None
    refused: bool = False
    steps: dict[int, int] = field(default_factory=dict)
    known: dict[bytes, Tree] = field(default_factory=dict)

    def number(self, outer: Ints, step: Ints) -> Ints:
        """Numbers of steps within steps."""
        pairs, inverse = np.unique(outer << 32 | step, return_inverse=True)
        numbers = [self.steps.setdefault(p, len(self.steps) + 1) if p else 0 for p in pairs.tolist()]
        return np.array(numbers, np.int64)[inverse].reshape(outer.shape)

    def tree(self, piece: _Piece, most_words: int) -> Tree:
        """The smallest; outermost loops have bodies of `most_words` at most."""
        key = self.content(piece)
        if key not in self.known:
            self.known[key] = self.best(piece, most_words)
        return self.known[key]

    def content(self, piece: _Piece) -> bytes:
        """What its tree depends on."""
        lows = self.flat.lows[piece.first : piece.first + len(piece.tokens)]
        _, where, inverse = np.unique(piece.tokens, return_index=True, return_inverse=True)
        since = lows - lows[where[inverse]] & MASK
        _, place, outer = np.unique(piece.outer, return_index=True, return_inverse=True)
        zero = piece.outer == 0
        parts = (where[inverse], since, np.where(zero, -1, place[outer].reshape(zero.shape)), piece.least, piece.most)
        return b"".join(np.ascontiguousarray(p).tobytes() for p in parts)

    def segments(self, piece: _Piece) -> list[tuple[int, int, int]]:
        """(first, end, period) of where all words step evenly."""
        lows = self.flat.lows[piece.first : piece.first + len(piece.tokens)]
        found: dict[tuple[int, int], list[int]] = {}
        for first, end, shortest in runs(piece.tokens):
            part = lows[first:end]
            length = end - first
            for period in self.periods(part, shortest):
                step = part[period:] - part[:-period] & MASK
                even = (step[period:] == step[:-period]).all(axis=1)
                edges = np.flatnonzero(np.diff(np.concatenate([[False], even, [False]]).astype(np.int8)))
                for a, b in edges.reshape(-1, 2).tolist():
                    if b - a >= period:
                        others = found.setdefault((first + a, first + b + 2 * period), [])
                        if all(period % p for p in others):
                            others.append(period)
                if period * 2 <= length < period * 3 or (period == shortest and not even.all()):
                    for a in {0, length - 2 * period}:  # two iterations are always even
                        found.setdefault((first + a, first + a + 2 * period), []).append(period)
                if even.all() and length >= 3 * period:
                    break
        return [(a, b, p) for (a, b), each in found.items() for p in each]

    def periods(self, part: Ints, shortest: int) -> list[int]:
        """Multiples of a repetition's period that loops may have."""
        most = len(part) // (2 * shortest)
        found = set(range(1, min(most, _MULTIPLES) + 1))
        if most > _MULTIPLES:
            step = part[shortest:] - part[:-shortest] & MASK
            tokens = np.unique(step, axis=0, return_inverse=True)[1].reshape(-1)
            found |= {p // shortest for _, _, p in runs(tokens) if p % shortest == 0}
        return [shortest * m for m in sorted(found)]

    def candidates(self, piece: _Piece) -> dict[int, list[tuple[int, int]]]:
        """Of each place the loops that may begin there: period, count."""
        segments = self.segments(piece)
        sizes = self.flat.sizes[piece.first : piece.first + len(piece.tokens)]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        cuts = sorted({x for a, b, _ in segments for x in (a, b)})
        found: dict[int, set[tuple[int, int]]] = {}
        for first, end, period in segments:
            places = [first, *[x for x in cuts if first < x < first + period][:_PHASES]]
            for at in places:
                while at + 2 * period <= end:
                    count = self.count(piece, at, period, (end - at) // period)
                    if (count - 1) * (ends[at + period] - ends[at]) > _GAIN:
                        found.setdefault(at, set()).add((period, count))
                    at += period * count
        return {at: sorted(each) for at, each in found.items()}

    def count(self, piece: _Piece, at: int, period: int, most: int) -> int:
        """Iterations whose waits can be the same."""
        most = min(most, MOST_COUNT)
        shape = (most, period, piece.least.shape[1])
        span = slice(at, at + most * period)
        least = np.maximum.accumulate(piece.least[span].reshape(shape), axis=0)
        longest = np.minimum.accumulate(piece.most[span].reshape(shape), axis=0)
        good = (least <= longest).all(axis=(1, 2))
        return int(good.argmin()) if not good.all() else most

    def best(self, piece: _Piece, most_words: int) -> Tree:
        size = len(piece.tokens)
        sizes = self.flat.sizes[piece.first : piece.first + size].tolist()
        candidates = self.candidates(piece)
        words = [0] * (size + 1)
        chosen: list[tuple[Loop, int] | None] = [None] * size
        for at in range(size - 1, -1, -1):
            words[at] = words[at + 1] + sizes[at]
            for period, count in candidates.get(at, ()):
                found = self.loop(piece, at, period, count, most_words)
                if found is None:
                    continue
                total = found[1] + words[at + period * count]
                if total + _GAIN <= words[at] if chosen[at] is None else total < words[at]:
                    words[at], chosen[at] = total, found
        items: list[tuple[int, tuple[int, ...]] | Loop] = []
        registers = depth = at = 0
        waits = piece.most.tolist()
        while at < size:
            choice = chosen[at]
            if choice is None:
                items.append((at, tuple(waits[at])))
                at += 1
                continue
            loop, cost = choice
            items.append(loop)
            at += loop.period * loop.count
            extra = (cost - loop.body.words - 2) // 2
            registers = max(registers, loop.body.registers + extra)
            depth = max(depth, loop.body.depth + 1)
        return Tree(tuple(items), words[0], registers, depth)

    def loop(self, piece: _Piece, at: int, period: int, count: int, most_words: int) -> tuple[Loop, int] | None:
        """A loop and its words; none if it takes too many registers, or its body is too long."""
        start = piece.first + at
        lows = self.flat.lows
        step = lows[start + period : start + 2 * period] - lows[start : start + period] & MASK
        outer = self.number(piece.outer[at : at + period], step)
        tokens = piece.tokens[at : at + period].astype(np.uint64)
        for column in outer.T.astype(np.uint64):
            tokens = (tokens ^ column) * np.uint64(0x9E3779B97F4A7C15)
            tokens ^= tokens >> np.uint64(29)
        shape = (count, period, piece.least.shape[1])
        span = slice(at, at + count * period)
        body = _Piece(
            start, tokens.view(np.int64), outer,
            piece.least[span].reshape(shape).max(axis=0), piece.most[span].reshape(shape).min(axis=0),
        )  # fmt: skip
        tree = self.tree(body, _NO_LIMIT)
        registers = len(np.unique(outer[step != 0]))
        if tree.words + registers + 1 > most_words:
            return None
        if tree.depth >= self.limits.depth:
            return None
        loop = Loop(at, period, count, tree)
        if tree.registers + registers > self.limits.registers:
            self.refused = True
            outermost = most_words < _NO_LIMIT
            if self.fits is None or (outermost and not self.fits(loop, piece.first)):
                return None
        return loop, tree.words + 2 + 2 * registers


def find_loops(flat: Flat, limits: Limits, fits: Callable[[Loop, int], bool], cuts: Sequence[int] = ()) -> Tree:
    """The whole program's tree.

    Parameters
    ----------
    fits : function of (outermost loop, flat number from which its own counts)
        Whether registers can be found for it where, counted on the safe side, they are too few.
    cuts : flat numbers, ascending
        No loop reaches beyond one: between layers, say. Pieces that are alike are looked at once.
    """
    known: dict[bytes, Tree] = {}
    plain, fitting = _Finder(flat, limits), _Finder(flat, limits, fits)
    items: list[tuple[int, tuple[int, ...]] | Loop] = []
    words = registers = depth = 0
    cuts = [0, *cuts, len(flat.keys)]
    for first, end in pairwise(cuts):
        outer = np.zeros_like(flat.lows[first:end])
        piece = _Piece(first, flat.keys[first:end], outer, flat.least[first:end], flat.most[first:end])
        key = plain.content(piece)
        if key not in known:
            plain.refused = False
            known[key] = plain.best(piece, limits.words)
            if plain.refused:
                known[key] = min(known[key], fitting.best(piece, limits.words), key=lambda tree: tree.words)
        found = known[key]
        items += [
            replace(i, first=i.first + first) if isinstance(i, Loop) else (i[0] + first, i[1]) for i in found.items
        ]
        words, registers = words + found.words, max(registers, found.registers)
        depth = max(depth, found.depth)
    return Tree(tuple(items), words, registers, depth)
