"""Runs compiled models on a board behind a serial line, real or simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel, Embedded
from ..errors import CheckError, InputError
from ..host.board import BoardLink, open_port
from ..host.leveling import level, leveled
from ..host.loading import forget_image
from ..host.saturation import counted
from ..spec.board import BOARD_REGISTERS, IDENTITY, MEMORY, SERIAL_TIMEOUT
from ..spec.config import Config
from ..spec.isa import Error
from ..spec.registers import COUNTERS, capabilities
from .outcome import Outcome

__all__ = ["BoardBackend", "BoardRun", "connect", "identify", "why_stopped"]

_DONE = 2
"""The bit `done` of register STATUS."""


@dataclass(frozen=True)
class BoardRun:
    """What a board tells of a run: cycles from start to end, and the accelerator's counters."""

    cycles: int
    counters: dict[str, int] = field(default_factory=dict)


def connect(board: Any, port_name: str, config: Config | None = None) -> BoardLink:
    """The link to a board at a serial port; ``sim`` simulates the board from its pins in, with its memory chip.

    `config` is what the simulated board has, its own preset if None.

    Raises
    ------
    InputError
        If the port cannot be opened.
    CheckError
        If the board does not answer, or its memory does not start.
    """
    if port_name != "sim":
        return _started(board, BoardLink(open_port(port_name, board.baud)))
    from sim.pins import PinsPort

    simulated = PinsPort(board, config)
    for _ in range(10):
        simulated.pause(20_000)  # the memory starts
        if simulated.lamps["ready"]:
            break
    link = BoardLink(simulated, lambda: simulated.pause(round(2 * SERIAL_TIMEOUT * board.frequency)))
    return _started(board, link)


def _started(board: Any, link: BoardLink) -> BoardLink:
    """The link to a board whose memory, where it has to be, is leveled."""
    if board.sdram is not None and board.sdram.kind == "DDR3":
        identify(link)
        if not int(link.read(BOARD_REGISTERS + 8, 1)[0]) & 1:
            raise CheckError("the board's memory has not started: a fault of the supply, or of the clock.")
        if not leveled(link):
            level(link, board.sdram.byte_lanes)
        # Of an image that another session has left nothing is known here: it is forgotten ahead of any other.
        link.resumable = link.image_known = True
    return link


def identify(link: BoardLink) -> None:
    """Ask whether a board with STA-HW is at the other end.

    Raises
    ------
    CheckError
        If there is none.
    """
    identity = int(link.read(BOARD_REGISTERS, 1)[0])
    if identity != IDENTITY:
        raise CheckError(f"this is no board with STA-HW: its identity reads 0x{identity:08x}")


def why_stopped(status: int) -> str:
    """The error that register STATUS tells of a program that is no longer under way; empty if it ended well.

    Raises
    ------
    CheckError
        If it neither ended nor failed: something has reset the board.
    """
    code = status >> 8 & 0xFF
    if code != Error.NONE:
        return next((e.name for e in Error if e == code), f"error {code}, which this version does not know,")
    if not status & _DONE:
        raise CheckError(f"the board lost its program: register status reads 0x{status:08x}, neither busy nor done")
    return ""


class BoardBackend:
    """Runs compiled models on a board.

    Parameters
    ----------
    config : Config
    link : BoardLink
    size : int or None
        Bytes of the board's memory, where they are known.

    Raises
    ------
    CheckError
        If what answers is no such board, or its accelerator has another configuration.
    """

    def __init__(self, config: Config, link: BoardLink, size: int | None = None) -> None:
        self.config, self.link, self.size = config, link, size
        identify(link)
        for name, value in capabilities(config).items():
            if link.register(name) != value:
                raise CheckError(
                    f"the board's accelerator is another one than {config.hash}: register {name} differs; "
                    "build and flash it again, or name its preset."
                )
        self._loaded: NDArray[np.uint32] | None = None

    def run(
        self, model: CompiledModel, embedded: Embedded, progress: Callable[[int, int], None] | None = None
    ) -> Outcome:
        """Load what changed of image and program, run, and read the whole image back.

        Raises
        ------
        InputError
            If the model was compiled for another configuration, or its image is larger than the memory.
        CheckError
            If the accelerator stops with an error, does not end, or the line fails.
        """
        if model.config.program_hash != self.config.program_hash:
            raise InputError(f"the model was compiled for hardware {model.config.hash}; compile it for this board.")
        if self.size is not None and len(model.image) > self.size:
            raise InputError(
                f"the image takes {len(model.image):,} bytes, and the board's memory has {self.size:,}; compile a "
                "smaller model, or for fewer tokens."
            )
        words = model.with_input(embedded).view("<u4")
        total = 2 * len(words)
        link = self.link
        link.set_register("control", 0b10)
        forget_image(link)
        link.write(MEMORY, words, (lambda done: progress(done, total)) if progress else None)
        link.set_register("image_address", 0)
        link.set_register("image_size", 4 * len(words))
        link.set_register("program_address", model.program_address)
        link.set_register("length", model.length)
        if "position" in model.config.features:
            link.set_register("position", 0)
        link.set_register("control", 0b001)
        for _ in range(100_000):
            status = link.register("status")
            if not status & 1:
                break
        else:
            raise CheckError("the board's program does not end")
        if stopped := why_stopped(status):
            where = model.at_error(link.register("error_instruction"))
            raise CheckError(f"the accelerator stopped: {stopped} {where}")
        counters = {c.name: link.register(f"counter_{c.name}") for c in COUNTERS}
        image = link.read(MEMORY, len(words)).astype("<u4").view(np.uint8)
        if progress:
            progress(total, total)
        run = BoardRun(counters["cycles"], counters)
        return Outcome(image, model.output(image), run, counted(counters, model, embedded))
