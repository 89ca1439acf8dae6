"""What computes a decoder token by token, and a context that texts go on in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.families.decoders import NEXT
from ..model.fp32 import Cache, evaluate, value_of
from ..model.graph import Graph

__all__ = ["Decoder", "Fp32Decoder", "Session"]

_CHUNK = 128
"""Tokens of a prompt that are computed at a time: what lies between two layers fits caches."""


class Decoder(Protocol):
    """What computes a network token by token: a back end.

    Attributes
    ----------
    of : Graph or IntegerDecoderGraph
        The network.
    capacity : int
        Tokens that its context holds.
    length : int
        Tokens in it; setting it to less forgets the last ones.
    passes : int
        How often all weights were read so far: tokens that are computed together share them.
    best : int
        Logits of each position that are given, the largest, others being minus infinity; 0: all.
    """

    of: Any
    capacity: int
    length: int
    best: int

    @property
    def passes(self) -> int:
        """How often all weights were read so far."""
        ...

    def feed(self, ids: Sequence[int]) -> NDArray:
        """Put tokens behind those that are there; the logits of the next one, shape (tokens of the vocabulary,)."""
        ...

    def feed_last(self, ids: Sequence[int], last: int) -> NDArray:
        """The same; the logits behind each of the last tokens, shape (last, tokens of the vocabulary)."""
        ...

    def together(self, position: int) -> int:
        """Tokens that are computed together with all their logits, at most, from a position on."""
        ...


class Fp32Decoder:
    """The network in float32 numpy; see `Decoder`."""

    def __init__(self, graph: Graph, capacity: int) -> None:
        self.graph = self.of = graph
        self.capacity = capacity
        self.cache = Cache(capacity)
        self.passes = self.best = 0
        self._head = graph.by_name[graph.by_name[NEXT].inputs[0]]

    @property
    def length(self) -> int:
        """Tokens in the context."""
        return self.cache.length

    @length.setter
    def length(self, tokens: int) -> None:
        self.cache.length = tokens

    def feed(self, ids: Sequence[int]) -> NDArray:
        """See `Decoder`; the head is computed for the last token alone.

        Raises
        ------
        InputError
            If the context has no room for so many.
        """
        return self.feed_last(ids, 1)[0]

    def feed_last(self, ids: Sequence[int], last: int) -> NDArray:
        """See `Decoder`."""
        before = self._head.inputs[0]
        self.cache.require(len(ids))
        found: list[NDArray] = []
        for first in range(0, len(ids), _CHUNK):
            chunk = ids[first : first + _CHUNK]
            with np.errstate(all="ignore"):  # what comes of it is looked at where a token is chosen
                values = evaluate(self.graph, {"ids": chunk}, before, cache=self.cache, keep=(before,))[before]
            self.passes += 1
            wanted = min(len(chunk), last - len(ids) + first + len(chunk))
            if wanted > 0:
                with np.errstate(all="ignore"):
                    found.append(value_of(self._head, values[-wanted:]))
        return np.concatenate(found)

    def together(self, position: int) -> int:
        """See `Decoder`."""
        return _CHUNK


class Session:
    """A context that grows: of a new text, what the context begins with already is not computed again.

    Attributes
    ----------
    ids : list of int
        Tokens whose keys and values are kept.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.ids: list[int] = []

    def feed(self, ids: Sequence[int]) -> NDArray:
        """The logits of the token behind a whole text, all of whose tokens are given."""
        logits = self.decoder.feed(self._new(ids))
        self.ids = list(ids)
        return logits

    def feed_last(self, ids: Sequence[int], last: int) -> NDArray:
        """The same; the logits behind each of the last tokens, which are new, shape (last, vocabulary)."""
        logits = self.decoder.feed_last(self._new(ids, last), last)
        self.ids = list(ids)
        return logits

    def _new(self, ids: Sequence[int], last: int = 1) -> list[int]:
        """The tokens that are not in the context yet; those that are there and others are forgotten."""
        shared = 0
        while shared < min(len(self.ids), len(ids) - last) and self.ids[shared] == ids[shared]:
            shared += 1
        self.decoder.length, self.ids = shared, list(ids[:shared])
        return list(ids[shared:])
