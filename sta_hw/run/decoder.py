"""Decoders on back ends: programs run for new tokens, of a row tile or of several; keys and values stay in memory.

>>> decoder = ProgramDecoder(quantized, compile_decoder(quantized, config, 256), RtlMachine(config))
>>> logits = decoder.feed(ids)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..compiler.decoder.integers import IntegerDecoderGraph
from ..compiler.decoder.likeliest import LISTED, ExactHead, scattered
from ..compiler.decoder.program import DecoderImage
from ..compiler.decoder.run import HostEmbedding, IntegerDecoder, behind_prefix
from ..errors import CheckError, InputError
from ..host.board import BoardLink
from ..host.loading import forget_image, load_image
from ..model.families.decoders import NEXT
from ..reference.program import ProgramError, run_counted
from ..rtl.board.board_core import MEMORY
from ..spec.config import Config
from ..spec.isa import Error
from ..spec.registers import COUNTERS
from .board import BoardBackend, connect

__all__ = [
    "DECODER_BACKENDS", "BoardMachine", "CheckedDecoder", "Machine", "Pass", "ProgramDecoder", "ReferenceMachine",
    "RtlMachine", "decoder_machine",
]  # fmt: skip

DECODER_BACKENDS = ("fp32", "fast", "reference", "rtl", "board")
"""Those of `sta_hw.run.backends`; numpy in float32, and in the accelerator's integers without a program."""

Progress = Callable[[int], None]
"""Called with cycles, or instructions, so far."""


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


class Machine(Protocol):
    """Memory with an image, and what runs its programs.

    Attributes
    ----------
    progress : function or None
        Called now and then while a program runs.
    """

    config: Config
    progress: Progress | None

    def load(self, image: NDArray[np.uint8]) -> None:
        """Put an image into memory."""

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        """Change some of it."""

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        """Some of it."""
        ...

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """Run a program to its end; cycles, where there are any, and counters.

        Raises
        ------
        CheckError
            If it stops with an error, at an instruction that is named.
        """
        ...


def _stopped(error: Error, number: int, labels: Sequence[str]) -> CheckError:
    # Register ERROR_INSTRUCTION counts modulo 2**16.
    where = " or ".join(dict.fromkeys(labels[number :: 1 << 16])) or "behind the end"
    return CheckError(f"the accelerator stopped: {error.name} at instruction {number} ({where})")


class _InProcess:
    """Memory in this process."""

    def __init__(self, config: Config, progress: Progress | None = None) -> None:
        self.config, self.progress = config, progress
        self.image: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def load(self, image: NDArray[np.uint8]) -> None:
        self.image = image.copy()

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        self.image[address : address + len(data)] = data

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        return self.image[address : address + count]


class ReferenceMachine(_InProcess):
    """The numpy reference of programs."""

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """See `Machine`."""
        progress = self.progress

        def told(done: int, _: int) -> None:
            assert progress is not None
            progress(done)

        try:
            found = run_counted(
                self.image, program, self.config, told if progress else None, length=length, position=position
            )
        except ProgramError as error:
            raise _stopped(error.error, error.instruction, labels) from error
        self.image = found.image
        return None, found.saturated


class RtlMachine(_InProcess):
    """The generated Verilog under Verilator.

    Parameters
    ----------
    memory : sim.accelerator.MemoryModel or None
        Latency, bandwidth and stalls of the simulated memory.
    """

    def __init__(self, config: Config, progress: Progress | None = None, memory: Any = None) -> None:
        from sim.accelerator import AcceleratorModel

        super().__init__(config, progress)
        self.memory, self.model = memory, AcceleratorModel(config)

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """See `Machine`."""
        try:
            run = self.model.run(
                self.image, program, length=length, position=position, memory=self.memory, progress=self.progress
            )
        except BaseException:  # Ctrl-C too: the next program must not find this one running
            self.model.reset()
            raise
        if run.error != Error.NONE:
            raise _stopped(run.error, run.error_instruction, labels)
        self.image = run.image
        return run.cycles, run.counters


class BoardMachine:
    """A board behind a serial line; only what changes goes over it.

    Parameters
    ----------
    size : int
        Bytes of the board's memory.

    Attributes
    ----------
    loading : function or None
        Is told the bytes of an image that are there, and all.
    """

    def __init__(self, config: Config, link: BoardLink, size: int, progress: Progress | None = None) -> None:
        self.config, self.size, self.progress = config, size, progress
        self.loading: Callable[[int, int], None] | None = None
        self.link = BoardBackend(config, link).link
        self._bytes = 0

    def load(self, image: NDArray[np.uint8]) -> None:
        """See `Machine`.

        Raises
        ------
        InputError
            If the image is larger than the memory.
        """
        if len(image) > self.size:
            raise InputError(
                f"the image takes {len(image):,} bytes with its keys and values; the board's memory has "
                f"{self.size:,}. A smaller model or context would do."
            )
        self._bytes = len(image)
        self.link.set_register("control", 0b10)
        load_image(self.link, image, self.loading)

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        """See `Machine`."""
        forget_image(self.link)
        self.link.write(MEMORY + address, data.view("<u4"))

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        """See `Machine`."""
        return self.link.read(MEMORY + address, count // 4).astype("<u4").view(np.uint8)

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        """See `Machine`."""
        link = self.link
        forget_image(link)
        for name, value in (
            ("image_address", 0), ("image_size", self._bytes), ("program_address", program), ("length", length),
            ("position", position), ("control", 0b001),
        ):  # fmt: skip
            link.set_register(name, value)
        try:
            for _ in range(100_000):
                status = link.register("status")
                if not status & 1:
                    break
            else:
                raise CheckError("the board's program does not end")
        except BaseException:  # Ctrl-C too: the next program must not find this one running
            with suppress(CheckError):
                link.set_register("control", 0b10)
            raise
        error = Error(status >> 8 & 0xFF)
        if error != Error.NONE:
            raise _stopped(error, link.register("error_instruction"), labels)
        counters = {c.name: link.register(f"counter_{c.name}") for c in COUNTERS}
        return counters["cycles"], counters


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


def decoder_machine(name: str, config: Config, progress: Progress | None = None, board: Any = None,
                    port: str = "sim") -> Machine:  # fmt: skip
    """The machine called `name`: ``reference``, ``rtl``, or ``board`` with a board and its serial port.

    Raises
    ------
    InputError
        If there is none of that name, no board was given, or it has no memory for an image.
    CheckError
        If the board does not answer, or has another configuration.
    """
    if name == "reference":
        return ReferenceMachine(config, progress)
    if name == "rtl":
        return RtlMachine(config, progress)
    if name != "board":
        raise InputError(f"backend {name!r} is unknown; it is {', '.join(DECODER_BACKENDS)}.")
    if board is None or board.sdram is None:
        raise InputError("the backend board needs a board with SDRAM; name one, for example ulx3s-85f.")
    return BoardMachine(config, connect(board, port, config), board.sdram.size, progress)
