"""Many texts or images through the same weights: which run together, the programs that run them, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arguments import several, whole
from ..compiler.encoder import compile_encoder
from ..compiler.lower.state import EncodedWeights
from ..compiler.model import CompiledModel
from ..compiler.packing import Packing
from ..errors import InputError
from ..host.saturation import compare_saturations
from ..run.backends import Backend, ReferenceBackend
from ..run.outcome import compare
from ..spec.config import Config
from ..spec.patterns import Pattern
from .embedder import Embedder

__all__ = ["MOST_TOKENS", "BatchRun", "Batcher", "fill"]

MOST_TOKENS = 512
"""Rows of a program. More make no cycle better, but need memory for their activations (a kilobyte or five a row)."""

Progress = Callable[[str, int, int], None]
"""Called with the program that runs, what of it is done and its expected total."""


def fill(lengths: Sequence[int], rows: int, most: int) -> list[list[int]]:
    """Which texts run together: as few programs as hold them, of about the same size; the longest texts are first.

    Parameters
    ----------
    lengths : tokens of each text
    rows : int
        Of a row tile.
    most : int
        Rows of a program; a longer text has one of its own.

    Returns
    -------
    list of lists of numbers of texts
    """
    room = max(1, most // rows) * rows
    programs = max(1, math.ceil(sum(lengths) / room))
    each = min(room, math.ceil(sum(lengths) / programs / rows) * rows)
    bins: list[list[int]] = []
    taken: list[int] = []
    least = min(lengths, default=0)
    room_left: list[int] = []  # programs that the shortest text still fits into: the others are not looked at again
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b in room_left if taken[b] + lengths[number] <= each), len(bins))
        if place == len(bins):
            bins.append([])
            taken.append(0)
            room_left.append(place)
        bins[place].append(number)
        taken[place] += lengths[number]
        if taken[place] + least > each:
            room_left.remove(place)
    return [sorted(b) for b in bins]


@dataclass
class BatchRun:
    """What a batch gives.

    Attributes
    ----------
    name : str
        ``embedding`` or ``logits``.
    values : list of float64 arrays
        In the order of the inputs.
    tokens, programs : int
        Of all inputs; runs of the accelerator.
    cycles : int or None
        Of all runs, where there is hardware.
    ideal_cycles : float
        Multiply-accumulates of the inputs' own tokens that N:M leaves, over multipliers.
    saturated : dict of int
        As in `Outcome`, of all runs.
    """

    name: str = "embedding"
    values: list[NDArray[np.float64]] = field(default_factory=list)
    tokens: int = 0
    programs: int = 0
    cycles: int | None = None
    ideal_cycles: float = 0.0
    saturated: dict[str, int] = field(default_factory=dict)

    @property
    def fraction(self) -> float | None:
        """Of the ideal, where there is hardware."""
        return self.ideal_cycles / self.cycles if self.cycles else None


class Batcher:
    """A network that is quantized once, and compiled for every batch that comes: its weights are encoded once.

    Parameters
    ----------
    embedder : Embedder
        Pruned already.
    patterns : N:M of its linear layers
    config : Config
    most : int
        Rows of a program.
    calibration : file of images or spectrograms to quantize for, as `Embedder.calibration` takes it

    Examples
    --------
    >>> embedder = Embedder.load()
    >>> patterns = read_patterns("2:4", None, embedder.linears)
    >>> batcher = Batcher(embedder.pruned(patterns), patterns, PRESETS["reference"])
    >>> run = batcher.run([embedder.read(t, None) for t in texts], ReferenceBackend(batcher.config))
    """

    def __init__(
        self, embedder: Embedder, patterns: dict[str, Pattern], config: Config, most: int = MOST_TOKENS,
        calibration: Path | None = None,
    ) -> None:  # fmt: skip
        if whole(most, "most") < 1:
            raise InputError(f"a program of {most} tokens runs no text; the least is 1.")
        embedder.require(patterns, config, embedder.part.tokens or 1)
        self.embedder, self.config, self.most = embedder, config, most
        self.quantized = embedder.quantize(patterns, calibration=calibration)
        self._encoded = EncodedWeights(config)
        self._programs: dict[tuple[int, ...], CompiledModel] = {}

    def program(self, lengths: Sequence[int]) -> CompiledModel:
        """The program of texts of these lengths; the last ones are kept."""
        key = tuple(lengths)
        if key not in self._programs:
            if len(self._programs) >= 8:
                self._programs.pop(next(iter(self._programs)))
            packing = Packing.dense(key, self.config.rows)
            self._programs[key] = compile_encoder(self.quantized, self.config, packing, self._encoded)
        return self._programs[key]

    def run(
        self, embedded: Sequence[NDArray[np.float32]], hardware: Backend, *, check: bool = False,
        progress: Progress | None = None,
    ) -> BatchRun:  # fmt: skip
        """Run what `Embedder.read` gave for each input.

        Parameters
        ----------
        check : bool
            Compare the memory after every run with the reference's.

        Raises
        ------
        InputError
            If there is no input.
        CheckError
            If the hardware stops with an error, or memory or counters differ from the reference's.
        """
        embedded = several(embedded, "the batch", "arrays")
        if not embedded:
            raise InputError("a batch has no text; give it one.")
        for number, one in enumerate(embedded, 1):
            if not isinstance(one, np.ndarray) or one.ndim != 2:
                raise InputError(f"input {number} is no array of (tokens, width); Embedder.read gives them.")
        values: dict[int, NDArray[np.float64]] = {}
        found = BatchRun(tokens=sum(map(len, embedded)))
        batches = fill([len(e) for e in embedded], self.config.rows, self.most)
        for count, numbers in enumerate(batches):
            name = f"program {count + 1} of {len(batches)}"
            steps = partial(progress, name) if progress else None
            model = self.program([len(embedded[i]) for i in numbers])
            given = [embedded[i] for i in numbers]
            outcome = hardware.run(model, given, steps)
            if check:
                expected = ReferenceBackend(self.config).run(model, given)
                compare(model, outcome.image, expected.image, expected.trail)
                compare_saturations(outcome.saturated, expected.saturated)
            for place, number in enumerate(numbers):
                found.name, values[number] = self.embedder.result(model, outcome.image, place)
            found.programs += 1
            found.ideal_cycles += model.info.ideal_cycles
            if outcome.run is not None:
                found.cycles = (found.cycles or 0) + outcome.run.cycles
            for counter, times in outcome.saturated.items():
                found.saturated[counter] = found.saturated.get(counter, 0) + times
        found.values = [values[i] for i in range(len(embedded))]
        return found
