"""One interface to run a compiled model: the numpy reference, the accelerator's RTL, or a board."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..compiler.model import CompiledModel, Embedded
from ..errors import CheckError, InputError
from ..host.saturation import counted
from ..reference.program import run_counted
from ..spec.config import Config
from ..spec.isa import Error
from .board import BoardBackend, connect
from .outcome import Outcome
from .trail import Trail

__all__ = ["BACKENDS", "Backend", "ReferenceBackend", "RtlBackend", "backend"]

Progress = Callable[[int, int], None]
"""Called with what is done and the expected total (instructions, or cycles)."""


class Backend(Protocol):
    """Runs compiled models."""

    def run(self, model: CompiledModel, embedded: Embedded, progress: Progress | None = None) -> Outcome:
        """Run for the sums of embeddings."""
        ...


class ReferenceBackend:
    """The numpy reference."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, model: CompiledModel, embedded: Embedded, progress: Progress | None = None) -> Outcome:
        """Run every instruction in numpy."""
        trail = Trail(model)
        found = run_counted(
            model.with_input(embedded), model.program_address, self.config, progress, trail, length=model.length
        )
        saturated = counted(found.saturated, model, embedded)
        return Outcome(found.image, model.output(found.image), None, saturated, trail)


class RtlBackend:
    """The generated Verilog under Verilator, compiled once and kept by content.

    Parameters
    ----------
    memory : sim.accelerator.MemoryModel or None
        Latency, bandwidth and stalls of the simulated memory.
    trace : str
        Format of waveforms that the model can write, ``fst`` or ``vcd``; empty for none.
    """

    def __init__(self, config: Config, memory: Any = None, *, trace: str = "") -> None:
        from sim.accelerator import AcceleratorModel

        self.config, self.memory = config, memory
        self.model = AcceleratorModel(config, trace=trace)

    def run(self, model: CompiledModel, embedded: Embedded, progress: Progress | None = None) -> Outcome:
        """Run on the RTL.

        Raises
        ------
        CheckError
            If the hardware stops with an error, or makes no progress.
        """
        if model.config.program_hash != self.config.program_hash:
            raise InputError(
                f"the model was compiled for hardware {model.config.hash}, this is {self.config.hash}; "
                "compile it again."
            )
        expected = int(model.info.ideal_cycles * 1.15)
        run = self.model.run(
            model.with_input(embedded),
            model.program_address,
            memory=self.memory,
            length=model.length,
            progress=(lambda cycles: progress(cycles, expected)) if progress else None,
        )
        if run.error != Error.NONE:
            where = model.at_error(run.error_instruction)
            raise CheckError(f"the accelerator stopped: {run.error.name} {where}")
        return Outcome(run.image, model.output(run.image), run, counted(run.counters, model, embedded))


BACKENDS = ("reference", "rtl", "board")


def backend(name: str, config: Config, board: Any = None, port: str = "sim") -> Backend:
    """The backend called `name`; for ``board``, the board and its serial port.

    Raises
    ------
    InputError
        If there is none of that name, no board was given, or it has no whole accelerator.
    CheckError
        If the board at the port does not answer, or has another configuration.
    """
    if name == "reference":
        return ReferenceBackend(config)
    if name == "rtl":
        return RtlBackend(config)
    if name != "board":
        raise InputError(f"backend {name!r} is unknown; it is {', '.join(BACKENDS)}.")
    require_board(board)
    return BoardBackend(config, connect(board, port), board.sdram.size)


def require_board(board: Any) -> None:
    """Make sure that a board runs programs.

    Raises
    ------
    InputError
        If there is none, or it has no whole accelerator.
    """
    if board is None:
        raise InputError("the backend board needs a board; name one, for example ulx3s-85f.")
    if board.top != "accelerator":
        raise InputError(f"{board.name} has the engine alone, which runs no programs; take a board with SDRAM.")
