"""Decoders on back ends: programs run for new tokens, of a row tile or of several; keys and values stay in memory.

>>> decoder = ProgramDecoder(quantized, compile_decoder(quantized, config, 256), RtlMachine(config))
>>> logits = decoder.feed(ids)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..compiler.decoder.integers import IntegerDecoderGraph
from ..compiler.decoder.likeliest import LISTED, ExactHead, scattered
from ..compiler.decoder.program import DecoderImage
from ..compiler.decoder.run import HostEmbedding, IntegerDecoder, behind_prefix
from ..errors import CheckError, InputError
from ..model.families.decoders import NEXT
from ..spec.isa import HEADER_BYTES
from .machines import Machine

__all__ = ["CheckedDecoder", "Pass", "ProgramDecoder", "Rows", "words"]


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
    others : tuple of int
        Of a batch, whose tokens are one of each sequence, the positions of all but the first sequence's.
    """

    position: int
    tokens: int
    cycles: int | None
    counters: dict[str, int] = field(default_factory=dict)
    logits: int = 1
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rows:
    """What a pass has left of rows of its last tile.

    Attributes
    ----------
    logits : int16 array, shape (rows, vocabulary), or None
    lists : int64 array, shape (rows, 8, 2), or None
        Numbers and logits of the largest, where programs list these alone.
    head_inputs : int64 array, shape (rows, width), or None
        What the head takes, where its INT8 weights score the listed ones again.
    """

    logits: NDArray[np.int16] | None = None
    lists: NDArray[np.int64] | None = None
    head_inputs: NDArray[np.int64] | None = None

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(
            None if self.logits is None else self.logits[rows],
            None if self.lists is None else self.lists[rows],
            None if self.head_inputs is None else self.head_inputs[rows],
        )


def words(values: Sequence[int]) -> NDArray[np.uint8]:
    """Numbers of 32 bits as they lie in memory."""
    return np.array([v & 0xFFFFFFFF for v in values], "<u4").view(np.uint8)


class ProgramDecoder:
    """A decoder's programs on a machine; see `sta_hw.tasks.session.Decoder`.

    Attributes
    ----------
    runs : list of Pass
        What was run.
    sequence : int
        Whose keys and values it has, where an image has those of several.
    best : int
        Logits of each position that are given, the largest, others being minus infinity; 0: all.
    listed : int64 array, shape (positions, 8, 2)
        With `best`, of what was given last: numbers and logits as the head has them, the largest first.
    """

    def __init__(self, quantized: IntegerDecoderGraph, compiled: DecoderImage, machine: Machine) -> None:
        self.of, self.compiled, self.machine = quantized, compiled, machine
        self.capacity, self.length = compiled.capacity, 0
        self.runs: list[Pass] = []
        self.sequence, self._of_programs = 0, dict.fromkeys(compiled.programs, 0)
        self._embedding = HostEmbedding(quantized, compiled.capacity)
        self.best, self.listed = LISTED * compiled.best, np.zeros((0, LISTED, 2), np.int64)
        self._exact = ExactHead(quantized) if compiled.best and quantized.exact_head is not None else None
        machine.load(compiled.image)
        self._tiles = np.zeros((compiled.most, compiled.width, compiled.config.rows), "<i2")

    def another(self, sequence: int) -> Self:
        """The same programs with another sequence's keys and values, empty; what is run counts for both.

        Raises
        ------
        InputError
            If the image has none of that number.
        """
        if not 0 <= sequence < self.compiled.sequences:
            raise InputError(f"sequence {sequence} is out of range; the image has {self.compiled.sequences}.")
        found = copy.copy(self)
        found.sequence, found.length, found.listed = sequence, 0, self.listed[:0]
        return found

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
        ahead, rest = self.require(ids)
        self.length += ahead
        found: list[NDArray[np.float64]] = [np.zeros((0, self.compiled.vocabulary))]
        listed: list[NDArray[np.int64]] = []
        for count, logits in self.compiled.passes(self.length, len(rest), last):
            part, rest = rest[:count], rest[count:]
            wanted = min(len(part), last - len(rest)) if logits else 0
            self._run(part, wanted)
            if not wanted:
                continue
            first = (self.length - wanted) % self.compiled.config.rows
            found.append(self.logits(self.rows()[first : first + wanted]))
            listed.append(self.listed)
        self.listed = np.concatenate(listed) if listed else self.listed[:0]
        return np.concatenate(found)

    def require(self, ids: Sequence[int]) -> tuple[int, list[int]]:
        """How many of the next tokens are the prefix's, and those behind them; see `behind_prefix`."""
        return behind_prefix(self.of, self.length, self.capacity, ids)

    def rows(self) -> Rows:
        """What the pass that was run last has left, of all rows of its last tile."""
        compiled = self.compiled
        if not self.best:
            return Rows(self._columns(compiled.logits_address, compiled.vocabulary, 2))
        inputs = None if self._exact is None else self._columns(*self._head_input()).astype(np.int64)
        return Rows(None, self._lists(), inputs)

    def logits(self, rows: Rows) -> NDArray[np.float64]:
        """The logits behind tokens in some rows, shape (rows, vocabulary); `listed` is theirs."""
        if rows.lists is None:
            assert rows.logits is not None
            return rows.logits.astype(np.float64) * self.of.logit_scale
        self.listed = rows.lists
        numbers, results = self.listed[..., 0], self.listed[..., 1]
        if self._exact is not None:  # by INT8 weights, where the head's have 4 bits
            assert rows.head_inputs is not None
            results = self._exact(rows.head_inputs, numbers)
        return scattered(numbers, results, self.compiled.vocabulary) * self.of.logit_scale

    def behind(self, token: int, rows: Rows) -> NDArray[np.float64]:
        """The logits behind a token that a pass of several sequences has put into this one's context, from its row."""
        self.length += 1
        return self.logits(rows)[0]

    def embedded(self, ids: Sequence[int], position: int) -> NDArray[np.int64]:
        """The 16-bit stream of tokens from a position on, shape (tokens, width)."""
        return self._embedding(ids, position)

    def put(self, streams: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Write tokens' 16-bit streams, shape (tokens, width), into these rows, counted over the input tiles."""
        each = self.compiled.config.rows
        self._tiles[rows // each, :, rows % each] = streams
        changed = self._tiles[: rows.max() // each + 1]
        self.machine.write(self.compiled.input_address, changed.view(np.uint8).reshape(-1))

    def _run(self, ids: Sequence[int], logits: int) -> None:
        compiled, position = self.compiled, self.length
        number = compiled.number(position, len(ids), logits=logits > 0)
        program = compiled.programs[number]
        self.put(self.embedded(ids, position), position % compiled.config.rows + np.arange(len(ids)))
        if self._of_programs.get(program) != self.sequence:
            self._of_programs.pop(program, None)  # where this is interrupted, it is written again
            self.machine.write(program + HEADER_BYTES, words([self.sequence * compiled.cache_bytes]))
            self._of_programs[program] = self.sequence
        cycles, counters = self.machine.run(
            program, compiled.length(position, len(ids)), position, compiled.labels[number]
        )  # fmt: skip
        self.runs.append(Pass(position, len(ids), cycles, counters, logits))
        self.length += len(ids)

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
        return self._compared(super().feed_last(ids, last), wanted)

    def another(self, sequence: int) -> Self:
        """See `ProgramDecoder`."""
        found = super().another(sequence)
        found._integers = self._integers.another()
        return found

    def behind(self, token: int, rows: Rows) -> NDArray[np.float64]:
        """See `ProgramDecoder`.

        Raises
        ------
        CheckError
            As `feed_last`.
        """
        self._integers.length = self.length
        wanted = self._integers.feed_last([token], 1)
        return self._compared(super().behind(token, rows)[None], wanted)[0]

    def _compared(self, found: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits behind the last tokens, if they are those that are wanted."""
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
