"""Where the texts of a batch lie among the rows of a program: one behind the other, or each in row tiles of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["Packing", "Place", "window_rows"]

_LARGEST_WEIGHT = 127
"""Of a pooling's windows: their signed bytes reach no further."""


def window_rows(groups: int, depth: int, blocks: int) -> NDArray[np.int64]:
    """The row, from the first block's on, that each position of windows over rows stands for, in memory's order."""
    position = np.arange(groups * depth)
    row = groups * (position % depth) + position // depth
    return (row[None, :] + groups * depth * np.arange(blocks)[:, None]).reshape(-1)


@dataclass(frozen=True)
class Place:
    """A text's rows.

    Attributes
    ----------
    first : int
        Its first token's row.
    tokens : int
    """

    first: int
    tokens: int

    @property
    def end(self) -> int:
        """The row behind its last token's."""
        return self.first + self.tokens

    def tiles(self, rows: int) -> range:
        """The row tiles of `rows` rows that hold its tokens."""
        return range(self.first // rows, -(-self.end // rows))


@dataclass(frozen=True)
class Packing:
    """Texts that run through the same weights together.

    Attributes
    ----------
    rows : int
        Of a row tile.
    texts : tuple of Place
        In the order of their rows.
    """

    rows: int
    texts: tuple[Place, ...]

    @staticmethod
    def aligned(lengths: Iterable[int], rows: int) -> Packing:
        """Each text in row tiles of its own.

        Raises
        ------
        InputError
            If there is no text, or one without tokens.
        """
        texts, first = [], 0
        for tokens in lengths:
            if tokens < 1:
                raise InputError(f"a text of a batch has {tokens} tokens; the least is 1.")
            texts.append(Place(first, tokens))
            first += math.ceil(tokens / rows) * rows
        if not texts:
            raise InputError("a batch has no text; give it one.")
        return Packing(rows, tuple(texts))

    @staticmethod
    def dense(lengths: Iterable[int], rows: int) -> Packing:
        """One text behind the other; where two share a row tile, its attention runs for each.

        Raises
        ------
        InputError
            If there is no text, or one without tokens.
        """
        apart, first, texts = Packing.aligned(lengths, rows), 0, []
        for text in apart.texts:
            texts.append(Place(first, text.tokens))
            first += text.tokens
        return Packing(rows, tuple(texts))

    def others(self, number: int, tile: int) -> tuple[int, int]:
        """Rows of a text's row tile that are before and behind it, where another text has some of them; else 0."""
        text, start = self.texts[number], tile * self.rows
        before, after = max(text.first - start, 0), max(start + self.rows - text.end, 0)
        shared_before = number > 0 and self.texts[number - 1].end > start
        shared_after = number + 1 < len(self.texts) and self.texts[number + 1].first < start + self.rows
        return before if shared_before else 0, after if shared_after else 0

    @property
    def tokens(self) -> int:
        """Of all texts, without the rows between them."""
        return sum(t.tokens for t in self.texts)

    @property
    def tiles(self) -> int:
        """Row tiles."""
        return self.texts[-1].tiles(self.rows).stop

    @property
    def filled(self) -> list[int]:
        """For each row of all tiles the row of a token: its own, or, between texts, that of the token before it.

        So what fills up a tile saturates where a real token does, only.
        """
        found, last = [], 0
        taken = {row for t in self.texts for row in range(t.first, t.end)}
        for row in range(self.tiles * self.rows):
            last = row if row in taken else last
            found.append(last)
        return found

    def together(self, most: int, rows: int = 0) -> list[Sequence[Place]]:
        """Runs of texts that lie in at most `most` tiles, row tiles or of `rows` rows; one that takes more is alone."""
        rows = rows or self.rows
        found: list[list[Place]] = []
        for text in self.texts:
            tiles = text.tiles(rows)
            if found and tiles.stop - found[-1][0].tiles(rows).start <= most:
                found[-1].append(text)
            else:
                found.append([text])
        return list(found)

    def pooled(self) -> list[Sequence[Place]]:
        """Runs of at most `rows` texts, which one product pools, each into a row of its results."""
        return [self.texts[i : i + self.rows] for i in range(0, len(self.texts), self.rows)]

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(t.tokens for t in self.texts)

    def weight(self, text: Place) -> int:
        """What a mean's product multiplies each token of a text by: its sums are then about as large as the longest's.

        The parameters behind the product are those of a column, not of a row: they divide by the longest text's length,
        and who reads the results by what is left (`share`).
        """
        return min(self.longest // text.tokens, _LARGEST_WEIGHT)

    def share(self, text: Place) -> float:
        """By what a text's pooled mean must be divided after the product; 1 for the longest."""
        return self.weight(text) * text.tokens / self.longest
