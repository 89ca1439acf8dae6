"""Runs a decoder's integers, token by token: what the accelerator would give, without a program."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...model.families.decoders import NEXT
from ...model.fp32 import Cache, value_of
from ...model.operations import (
    Activate,
    Add,
    Attention,
    Embed,
    Linear,
    Multiply,
    Norm,
    Operation,
    Output,
    RmsNorm,
    Rotary,
)
from ..parameters import Ints
from . import arithmetic
from .arithmetic import Weights
from .integers import IntegerDecoderGraph, limit_of
from .likeliest import LISTED, ExactHead, largest, scattered

__all__ = ["HostEmbedding", "IntegerDecoder", "behind_prefix"]

_CHUNK = 128
"""Tokens that are computed at a time."""


def behind_prefix(of: IntegerDecoderGraph, length: int, capacity: int, ids: Sequence[int]) -> tuple[int, list[int]]:
    """How many of the next tokens are the prefix's, of which nothing is computed, and those behind them.

    Parameters
    ----------
    length : int
        Tokens in the context.

    Raises
    ------
    InputError
        If there is no room, one is not in the vocabulary, the text does not begin with the prefix, or has nothing
        behind it.
    """
    if length + len(ids) > capacity:
        raise InputError(
            f"the context holds {capacity} tokens and is full: {length} are in it, and {len(ids)} more are wanted."
        )
    vocabulary = next(len(o.table) for o in of.graph.operations if isinstance(o, Embed))
    if wrong := [i for i in ids if not 0 <= i < vocabulary]:
        raise InputError(f"token {wrong[0]} is not in the vocabulary, which has 0 to {vocabulary - 1}.")
    ahead = of.prefix[length:]
    if ahead and tuple(ids[: len(ahead)]) != ahead:
        raise InputError(
            f"the text does not begin with the {len(of.prefix)} tokens of the prefix that the decoder was made for."
        )
    if not ids[len(ahead) :]:
        raise InputError("the text is the prefix alone, behind which nothing was computed; give it more tokens.")
    return len(ahead), list(ids[len(ahead) :])


class HostEmbedding:
    """The residual stream's beginning, which the host computes and stores.

    Attributes
    ----------
    saturated : int
        Values that lie beyond the 16 bits that calibration gave them.
    """

    def __init__(self, of: IntegerDecoderGraph, capacity: int) -> None:
        self.of, self.capacity, self.saturated = of, capacity, 0
        self._norm = next((o for o in of.graph.operations if isinstance(o, Norm | RmsNorm)), None)

    def __call__(self, ids: Sequence[int], position: int) -> Ints:
        """The 16-bit stream of tokens from a position on, shape (tokens, width)."""
        if self._norm is None:
            raise InputError(f"{self.of.graph.name} has no norm behind its embeddings.")
        cache = Cache(self.capacity)
        cache.length = position
        found: dict[str, NDArray] = {"ids": np.asarray(ids)}
        for o in self.of.graph.operations:
            if o is self._norm:
                break
            if o.inputs:
                found[o.name] = value_of(o, *(found[i] for i in o.inputs), cache=cache)
        name = self._norm.inputs[0]
        exact = np.round(found[name].astype(np.float64) / self.of.streams[name])
        self.saturated += int((np.abs(exact) > 32767).sum())
        return np.clip(exact, -32767, 32767).astype(np.int64)


class IntegerDecoder:
    """A decoder in integers; see `sta_hw.tasks.session.Decoder`.

    Every text begins with the prefix that the decoder was quantized for, of which nothing is computed.

    Attributes
    ----------
    saturated : int
        Values of embeddings that lie beyond the 16 bits that calibration gave them.
    passes : int
        How often all weights were read: tokens that are computed together share them.
    best : int
        Logits of each position that are given, the largest, others being minus infinity; 0: all.
    listed : int64 array, shape (positions, 8, 2)
        With `best`, of what was given last: numbers and logits as the head has them, the largest first.
    """

    def __init__(self, quantized: IntegerDecoderGraph, capacity: int, *, best: bool = False) -> None:
        of = self.of = quantized
        self.best, self.listed = LISTED * best, np.zeros((0, LISTED, 2), np.int64)
        self._listed: list[Ints] = []
        self._exact = ExactHead(of) if best and of.exact_head is not None else None
        if capacity <= len(of.prefix):
            raise InputError(
                f"a context of {capacity} tokens has no room behind the prefix of {len(of.prefix)}; give it more."
            )
        self.capacity, self.passes = capacity, 0
        self._length = 0
        self._embedding = HostEmbedding(of, capacity)
        self._weights = {name: Weights(p.weights) for name, p in of.linears.items()}
        self._kept: dict[str, tuple[NDArray[np.int8], NDArray[np.int8]]] = {}
        for name, keys in of.keys.items():
            both = keys, of.values[name]
            kept = tuple(np.zeros((capacity, k.shape[1]), np.int8) for k in both)
            for room, rows in zip(kept, both, strict=True):
                room[: len(rows)] = rows
            self._kept[name] = kept[0], kept[1]
        self._head = of.graph.by_name[of.graph.by_name[NEXT].inputs[0]]
        self._stream = next(o.inputs[0] for o in of.graph.operations if isinstance(o, Norm | RmsNorm))

    @property
    def saturated(self) -> int:
        """Values of embeddings beyond their 16 bits."""
        return self._embedding.saturated

    def another(self) -> IntegerDecoder:
        """The same network with an empty context of its own; embeddings' saturations count for both."""
        found = copy.copy(self)
        found.listed, found._listed, found.passes, found._length = self.listed[:0], [], 0, 0
        found._kept = {name: (keys.copy(), values.copy()) for name, (keys, values) in self._kept.items()}
        return found

    @property
    def length(self) -> int:
        """Tokens in the context, the prefix's among them."""
        return self._length

    @length.setter
    def length(self, tokens: int) -> None:
        self._length = tokens

    def feed(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Put tokens behind those that are there; the logits of the next one, shape (tokens of the vocabulary,).

        Raises
        ------
        InputError
            As `behind_prefix`.
        """
        return self.feed_last(ids, 1)[0]

    def feed_last(self, ids: Sequence[int], last: int) -> NDArray[np.float64]:
        """The same; the logits behind each of the last tokens, shape (last, tokens of the vocabulary)."""
        ahead, rest = behind_prefix(self.of, self._length, self.capacity, ids)
        self._length += ahead
        self._listed.clear()  # what an interrupted call left
        found = [np.zeros((0, len(self.of.linears[self._head.name].weights)))]
        for first in range(0, len(rest), _CHUNK):
            part = self._before_head(rest[first : first + _CHUNK])
            self.passes += 1
            wanted = min(len(part), first + len(part) - (len(rest) - last))
            if wanted > 0:
                found.append(self._logits(part[-wanted:]))
        if self.best:
            self.listed = np.concatenate(self._listed) if self._listed else self.listed[:0]
        return np.concatenate(found)

    def together(self, position: int) -> int:
        """Tokens that are computed together, at most."""
        return _CHUNK

    def logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """The logits behind each token but the prefix's, shape (tokens, vocabulary)."""
        return self.feed_last(ids, len(ids))

    def _logits(self, x: Ints) -> NDArray[np.float64]:
        found = self._product(self._head.name, self._head.inputs[0], x, wide=True)
        if not self.best:
            return found.astype(np.float64) * self.of.logit_scale
        numbers = largest(found)
        results = np.take_along_axis(found, numbers, 1)
        self._listed.append(np.stack([numbers, results], axis=-1))
        if self._exact is not None:
            results = self._exact(x, numbers)
        return scattered(numbers, results, found.shape[1]) * self.of.logit_scale

    def _product(self, name: str, source: str, x: Ints, *, wide: bool) -> Ints:
        bits = self.of.widths[source]
        return arithmetic.product(x, self._weights[name], self.of.linears[name], bits, wide=wide)

    def _before_head(self, ids: Sequence[int]) -> Ints:
        """What the head's product takes, for each token."""
        graph = self.of.graph
        found: dict[str, NDArray] = {"ids": np.asarray(ids), self._stream: self._embedding(ids, self._length)}
        rules: dict[type[Operation], Callable[..., NDArray]] = {
            Norm: self._norm, RmsNorm: self._norm, Linear: self._linear, Rotary: self._turn,
            Attention: self._attention, Activate: self._activate, Multiply: self._gate, Add: self._add,
        }  # fmt: skip
        for o in graph.operations:
            if o is self._head or isinstance(o, Output):
                break
            if self._of_host(o):
                continue
            found[o.name] = rules[type(o)](o, found)
            for name in o.inputs:
                if name != "ids" and graph.takers(name)[-1] is o and name != self._head.inputs[0]:
                    del found[name]
        self._length += len(ids)
        return found[self._head.inputs[0]]

    def _norm(self, o: Norm | RmsNorm, found: dict[str, NDArray]) -> Ints:
        p = self.of.norms[o.name]
        x = found[o.inputs[0]]
        heads = o.heads if isinstance(o, RmsNorm) else 1
        width = len(p.scale)
        narrow = arithmetic.norm(
            x.reshape(len(x), heads, width), p, round(2**33 / width), self.of.epsilons[o.name],
            self.of.widths[o.name], rms=isinstance(o, RmsNorm),
        )  # fmt: skip
        return narrow.reshape(x.shape)

    def _of_host(self, o: Operation) -> bool:
        """Whether an operation comes ahead of the stream's beginning."""
        return not o.inputs or isinstance(o, Embed) or (isinstance(o, Add) and o.inputs[0] not in self.of.linears)

    def _linear(self, o: Linear, found: dict[str, NDArray]) -> Ints:
        """Results in 16 bits where a norm, a turn, a gate or a sum takes them, else in 8."""
        (taker, *_) = self.of.graph.takers(o.name)
        wide = not isinstance(taker, Attention) and not (
            isinstance(taker, Activate) and not self._opens(taker)
        )  # fmt: skip
        return self._product(o.name, o.inputs[0], found[o.inputs[0]], wide=wide)

    def _opens(self, o: Activate) -> bool:
        """Whether it is a gate's."""
        return any(isinstance(t, Multiply) for t in self.of.graph.takers(o.name))

    def _turn(self, o: Rotary, found: dict[str, NDArray]) -> Ints:
        x = found[o.inputs[0]].reshape(len(found["ids"]), o.heads, -1)
        if o.name in self.of.linears:  # behind a norm of heads: by an identity matrix to 16 bits
            p = self.of.linears[o.name]
            width = x.shape[2]
            sums = x * np.diag(p.weights).astype(np.int64)
            x = arithmetic.requantize(
                sums, *(a.reshape(o.heads, width) for a in (p.bias, p.multiplier, p.shift)), wide=True
            ).astype(np.int64)  # fmt: skip
        return arithmetic.turn(x, *arithmetic.cosines(o.frequencies, self._length, len(x))).reshape(len(x), -1)

    def _attention(self, o: Attention, found: dict[str, NDArray]) -> Ints:
        query, key, value = (found[i] for i in o.inputs)
        end = self._length + len(query)
        for kept, new in zip(self._kept[o.name], (key, value), strict=True):
            kept[self._length : end] = new
        keys, values = (k[:end].reshape(end, o.heads // o.shared, -1) for k in self._kept[o.name])
        context = arithmetic.attend(
            query.reshape(len(query), o.heads, -1), keys, values, self.of.scores[o.name], o.shared,
            self.of.rules.block, self.of.rules.groups, self.of.widths[o.name],
        )  # fmt: skip
        return context.reshape(len(query), -1)

    def _activate(self, o: Activate, found: dict[str, NDArray]) -> Ints:
        index = found[o.inputs[0]]
        if self._opens(o):
            return index  # with what the gate lets through
        table = self.of.tables[o.name].astype(np.int64)
        second = self.of.linears[o.inputs[0]].second
        most = limit_of(self.of.widths[o.name])
        return np.clip((table[index & 255] * second + (1 << 15)) >> 16, -most, most)

    def _gate(self, o: Multiply, found: dict[str, NDArray]) -> Ints:
        opened, up = o.inputs
        first = self.of.graph.by_name[opened].inputs[0]
        return arithmetic.gate(
            found[opened], found[up], self.of.tables[opened], self.of.linears[first].second, self.of.widths[o.name]
        )  # fmt: skip

    def _add(self, o: Add, found: dict[str, NDArray]) -> NDArray:
        first, stream = o.inputs
        second = self.of.linears[first].second
        return np.clip(found[first] + ((found[stream] * second + (1 << 15)) >> 16), -32767, 32767)
