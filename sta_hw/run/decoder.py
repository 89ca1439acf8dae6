"""Decoders on back ends: programs run for new tokens, of a row tile or of several; keys and values stay in memory.

>>> decoder = ProgramDecoder(quantized, compile_decoder(quantized, config, 256), RtlMachine(config))
>>> logits = decoder.feed(ids)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..compiler.decoder.integers import IntegerDecoderGraph
from ..compiler.decoder.likeliest import LISTED, ExactHead, scattered
from ..compiler.decoder.program import DecoderImage
from ..compiler.decoder.run import HostEmbedding, IntegerDecoder, behind_prefix
from ..errors import CheckError
from ..model.families.decoders import NEXT
from .machines import Machine

__all__ = ["CheckedDecoder", "Pass", "ProgramDecoder"]


@dataclass(frozen=True)
class Pass:
    """A run of a program, in which all weights are read once.

    Attributes
    ----------
    position, tokens : int
        The first new token, and how many.
    cycles : int or None
        Where there is hardware.
    counters : dict of int
        Of the hardware, or the saturations that the reference counts.
    logits : int
        Behind so many of the last tokens they were asked for; without any, the head's product was not in it.
    """

    position: int
    tokens: int
    cycles: int | None
    counters: dict[str, int] = field(default_factory=dict)
    logits: int = 1


class ProgramDecoder:
    """A decoder's programs on a machine; see `sta_hw.tasks.session.Decoder`.

    Attributes
    ----------
    runs : list of Pass
        What was run.
    best : int
        Logits of each position that are given, the largest, others being minus infinity; 0: all.
    listed : int64 array, shape (positions, 8, 2)
        With `best`, of what was given last: numbers and logits as the head has them, the largest first.
    """

    def __init__(self, quantized: IntegerDecoderGraph, compiled: DecoderImage, machine: Machine) -> None:
        self.of, self.compiled, self.machine = quantized, compiled, machine
        self.capacity, self.length = compiled.capacity, 0
        self.runs: list[Pass] = []
        self._embedding = HostEmbedding(quantized, compiled.capacity)
        self.best, self.listed = LISTED * compiled.best, np.zeros((0, LISTED, 2), np.int64)
        self._exact = ExactHead(quantized) if compiled.best and quantized.exact_head is not None else None
        machine.load(compiled.image)
        self._tiles = np.zeros((compiled.most, compiled.width, compiled.config.rows), "<i2")

    @property
    def saturated(self) -> int:
        """Values of embeddings beyond their 16 bits."""
        return self._embedding.saturated

    @property
    def passes(self) -> int:
        """How often all weights were read."""
        return len(self.runs)

    def together(self, position: int) -> int:
        """Tokens that a pass gives all logits of, from a position on: those of a row tile."""
        rows = self.compiled.config.rows
        return rows - position % rows

    def feed(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Put tokens behind those that are there; the logits of the next one, shape (tokens of the vocabulary,).

        Raises
        ------
        InputError
            As `behind_prefix`.
        CheckError
            If the machine stops with an error.
        """
        return self.feed_last(ids, 1)[0]

    def feed_last(self, ids: Sequence[int], last: int) -> NDArray[np.float64]:
        """The same; the logits behind each of the last tokens, shape (last, tokens of the vocabulary)."""
        ahead, rest = behind_prefix(self.of, self.length, self.capacity, ids)
        self.length += ahead
        found: list[NDArray[np.float64]] = []
        listed: list[NDArray[np.int64]] = []
        for count, logits in self.compiled.passes(self.length, len(rest), last):
            part, rest = rest[:count], rest[count:]
            wanted = min(len(part), last - len(rest)) if logits else 0
            self._run(part, wanted)
            if not wanted:
                continue
            first = (self.length - wanted) % self.compiled.config.rows
            rows = slice(first, first + wanted)
            if self.best:
                listed.append(self._lists()[rows])
                found.append(self._likeliest(listed[-1], rows))
            else:
                found.append(self._logits(rows).astype(np.float64))
        if self.best:
            self.listed = np.concatenate(listed)
        return np.concatenate(found) * self.of.logit_scale

    def _run(self, ids: Sequence[int], logits: int) -> None:
        compiled, position = self.compiled, self.length
        number, rows = compiled.number(position, len(ids), logits=logits > 0), compiled.config.rows
        place = position % rows + np.arange(len(ids))
        self._tiles[place // rows, :, place % rows] = self._embedding(ids, position)
        changed = self._tiles[: place[-1] // rows + 1]
        self.machine.write(compiled.input_address, changed.view(np.uint8).reshape(-1))
        cycles, counters = self.machine.run(
            compiled.programs[number], compiled.length(position, len(ids)), position, compiled.labels[number]
        )  # fmt: skip
        self.runs.append(Pass(position, len(ids), cycles, counters, logits))
        self.length += len(ids)

    def _logits(self, rows: slice) -> NDArray[np.int16]:
        """The 16-bit logits behind tokens of the tile that was run last, shape (count, vocabulary)."""
        return self._columns(self.compiled.logits_address, self.compiled.vocabulary, 2)[rows]

    def _columns(self, address: int, width: int, size: int) -> NDArray:
        """A tile's values of so many bytes, shape (rows, width)."""
        rows = self.compiled.config.rows
        raw = self.machine.read(address, size * width * rows)
        return raw.view(f"<i{size}").reshape(width, rows).T

    def _lists(self) -> NDArray[np.int64]:
        """Numbers and logits of each row's largest, shape (rows, 8, 2)."""
        rows = self.compiled.config.rows
        raw = self.machine.read(self.compiled.logits_address, 8 * LISTED * rows)
        return raw.view("<i4").reshape(rows, LISTED, 2)[:, : self.compiled.vocabulary].astype(np.int64)

    def _likeliest(self, listed: NDArray[np.int64], rows: slice) -> NDArray[np.float64]:
        """Logits of those that are listed, by INT8 weights where the head's have 4 bits."""
        numbers, results = listed[..., 0], listed[..., 1]
        if self._exact is not None:
            results = self._exact(self._columns(*self._head_input())[rows].astype(np.int64), numbers)
        return scattered(numbers, results, self.compiled.vocabulary)

    def _head_input(self) -> tuple[int, int, int]:
        """Address, width and bytes of what the head takes."""
        address, size = self.compiled.head_input
        head = self.of.graph.linear(self.of.graph.by_name[NEXT].inputs[0])
        return address, int(self.of.graph.shapes[head.inputs[0]][-1]), size


class CheckedDecoder(ProgramDecoder):
    """A decoder's programs, of which every logit that is given is compared with the integers."""

    def __init__(self, quantized: IntegerDecoderGraph, compiled: DecoderImage, machine: Machine) -> None:
        super().__init__(quantized, compiled, machine)
        self._integers = IntegerDecoder(quantized, compiled.capacity, best=compiled.best)

    def feed_last(self, ids: Sequence[int], last: int) -> NDArray[np.float64]:
        """See `ProgramDecoder`.

        Raises
        ------
        CheckError
            If a logit differs from `IntegerDecoder`'s, or the list of the largest does.
        """
        self._integers.length = self.length
        wanted = self._integers.feed_last(ids, last)
        found = super().feed_last(ids, last)
        for row, place, _ in np.argwhere(self.listed != self._integers.listed)[:1]:
            (token, logit), (other, its) = self._integers.listed[row, place], self.listed[row, place]
            raise CheckError(
                f"the likeliest tokens behind position {self.length - len(found) + row}: expected token {token} with "
                f"{logit} in place {place}, got token {other} with {its}"
            )
        wrong = np.argwhere(found != wanted)
        if len(wrong):
            row, token = wrong[0]
            unit = self.of.logit_scale
            raise CheckError(
                f"the logit of token {token} behind position {self.length - len(found) + row}: expected "
                f"{wanted[row, token] / unit:.0f}, got {found[row, token] / unit:.0f} ({len(wrong)} of {found.size} "
                "logits differ)"
            )
        return found
