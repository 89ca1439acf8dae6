"""The package's interface for Python: load, prune, compile, run; what the command line does, in a few calls.

>>> import sta_hw
>>> program = sta_hw.load().prune("2:4").compile(hardware="reference", tokens=16)
>>> result = program.run("Hardware that skips zeros.")
>>> result.cosine, result.cycles
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arguments import flag, path_of, require_function, several, whole
from ..compiler.check import cosine
from ..compiler.model import CompiledModel
from ..compiler.passes import After, nothing
from ..compiler.prune import require_pruner
from ..compiler.shorter import shortened, smallest
from ..errors import InputError
from ..host.saturation import compare_saturations
from ..run.backends import BACKENDS, Backend, ReferenceBackend, backend
from ..run.outcome import compare
from ..spec.config import Config
from ..spec.patterns import Pattern
from ..spec.presets import configured
from .batch import MOST_TOKENS, Batcher, BatchRun
from .embedder import Embedder
from .table import choose_patterns

__all__ = ["Model", "Program", "Programs", "Result", "load"]

Given = str | Path
"""A text, or for models of images and spectrograms a ``.npy`` file."""


def load(folder: str | Path | None = None) -> Model:
    """A checkpoint's folder as a model; all-MiniLM-L6-v2, where it is installed, if none is given.

    A pruned checkpoint comes with the N:M that it was pruned to; any other is dense.

    Raises
    ------
    InputError
        If it cannot be loaded, or the accelerator cannot run it; the message says why.
    """
    embedder = Embedder.load(None if folder is None else path_of(folder, "folder"))
    chosen = choose_patterns(embedder, None if embedder.source.pruned else "dense", None)
    return Model(embedder, chosen.patterns, (*embedder.network.unused_tensors, *chosen.notes))


@dataclass(frozen=True)
class Model:
    """A network, with the N:M of its layers.

    Attributes
    ----------
    embedder : Embedder
        The network, its tokenizer, and the accelerator's part of its graph.
    patterns : dict of str to Pattern
        N:M of every linear layer.
    notes : tuple of str
        What was not used of the checkpoint, and why.
    """

    embedder: Embedder
    patterns: dict[str, Pattern]
    notes: tuple[str, ...] = ()
    calibration: Path | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.embedder.name

    def prune(
        self, nm: str | None = None, *, table: str | Path | None = None, method: str = "sparsegpt",
        calibration: str | Path | None = None, hardware: str | Config | None = None, tokens: int = 1,
        report: Callable[[str], None] = lambda _: None,
    ) -> Model:  # fmt: skip
        """Pruned in one shot.

        Parameters
        ----------
        nm : str
            N:M of all linear layers, such as ``2:4``, or ``dense``; if not given, a pruned model's own, or 2:4.
        table : JSON file
            N:M of single layers, as docs/sparsity.md has it.
        method : str
            ``sparsegpt`` (with asymmetric calibration; Frantar and Alistarh, 2023) or ``magnitude``.
        calibration : ``.npy`` file
            Images or spectrograms to prune and quantize for; texts have sentences of their own.
        hardware, tokens : str or Config, int
            Refuse at once what `compile` or `embed` would refuse for them.
        report : function
            Told what is being done.

        Raises
        ------
        InputError
            If N:M, table or method is not valid, or a pruned model would be pruned once more.
        """
        require_pruner(method)
        require_function(report, "report")
        seen = self.calibration if calibration is None else path_of(calibration, "calibration")
        if seen is not None:
            self.embedder.require_calibration()
        chosen = choose_patterns(self.embedder, nm, None if table is None else path_of(table, "table"), self.patterns)
        tokens = whole(tokens, "tokens")
        if hardware is not None:
            self.embedder.require(chosen.patterns, configured(hardware), tokens)
        pruned = self.embedder.pruned(chosen.patterns, method, report, seen)
        return replace(
            self, embedder=pruned, patterns=chosen.patterns, notes=(*self.notes, *chosen.notes), calibration=seen
        )

    def compile(
        self, hardware: str | Config = "reference", *, tokens: int | None = None, text: str | None = None,
        scales: str = "squared-error", loops: bool = True, after: After = nothing,
    ) -> Program:  # fmt: skip
        """Quantized to INT8 and compiled; the program runs any input of up to `tokens` tokens.

        Parameters
        ----------
        hardware : str or Config
            A preset's name, or a configuration.
        tokens : int
            Or `text`, whose tokens are counted. Models of images have a number of their own.
        scales : str
            Of 8-bit tensors: ``squared-error`` or ``percentile``.
        loops : bool
            A program with loops; without, it is larger, and its listing has each instruction that is issued.
        after : function
            Called behind each pass with its name and what it gave (`sta_hw.compiler.passes`).

        Raises
        ------
        InputError, ConfigError
            If model, tokens and hardware do not go together; the message says what would.
        """
        config, loops = configured(hardware), flag(loops, "loops")
        require_function(after, "after")
        if tokens is not None and text is not None:
            raise InputError("compile takes tokens, or a text whose tokens are counted; leave one of them out.")
        count = self.embedder.part.tokens if tokens is None else whole(tokens, "tokens")
        if count is None:
            if text is None:
                raise InputError("compile needs tokens, or a text whose tokens are counted.")
            count = len(self.embedder.token_ids(text))
        compiled = self.embedder.compile(
            self.patterns, config, count, scales, self.calibration, loops=loops, after=after
        )
        return Program(self, compiled)

    def compile_sizes(
        self, sizes: Sequence[int], hardware: str | Config = "reference", *, scales: str = "squared-error",
    ) -> Programs:  # fmt: skip
        """Programs for several numbers of tokens, of which the smallest that holds an input runs it.

        Quantized once. Raises what `compile` does; `sizes` are of tokens, at least one.
        """
        sizes = [whole(size, "a size") for size in several(sizes, "sizes", "numbers of tokens")]
        if not sizes:
            raise InputError("compile_sizes needs numbers of tokens, at least one.")
        config, sizes = configured(hardware), sorted(set(sizes))
        found = self.embedder.compile_sizes(self.patterns, config, sizes, scales, self.calibration)
        return Programs(tuple(Program(self, compiled) for compiled in found))

    def embed(
        self, inputs: Sequence[Given], hardware: str | Config = "reference", *, on: str | Backend = "reference",
        most: int = MOST_TOKENS, check: bool = False, progress: Callable[[str, int, int], None] | None = None,
    ) -> BatchRun:  # fmt: skip
        """Many inputs, several at a time through the same weights; raises what `Batcher.run` does.

        Parameters
        ----------
        on : str or Backend
            ``reference``, ``rtl``, or a backend that is there already.
        most : int
            Tokens that run through the same weights, at most.
        check : bool
            Compare the memory after every run with the reference's.
        """
        inputs = several(inputs, "embed's inputs", "texts or files")
        check = flag(check, "check")
        if progress is not None:
            require_function(progress, "progress")
        there = _backend(on, configured(hardware))
        given = [_read(self.embedder, one) for one in inputs]
        return self.batcher(hardware, most).run(given, there, check=check, progress=progress)

    def batcher(self, hardware: str | Config = "reference", most: int = MOST_TOKENS) -> Batcher:
        """What runs batches, quantized once; raises what `Batcher` does."""
        return Batcher(self.embedder, self.patterns, configured(hardware), most, self.calibration)


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Attributes
    ----------
    name : str
        ``embedding`` (of length 1) or ``logits``.
    values : float64 array
    exact : float64 array
        The same of the model in fp32, with the weights it was compiled from.
    cycles : int or None
        Where there is hardware; `fraction` is the share of the ideal.
    saturated : dict of int
        How often values were at an end of their range.
    """

    name: str
    values: NDArray[np.float64]
    exact: NDArray[np.float64]
    cycles: int | None
    fraction: float | None
    saturated: dict[str, int]

    @property
    def cosine(self) -> float:
        """Between `values` and `exact`."""
        return cosine(self.values, self.exact)


@dataclass(frozen=True)
class Program:
    """A compiled model, with what embeds inputs for it."""

    model: Model
    compiled: CompiledModel

    def save(self, path: str | Path) -> None:
        """Write it as `sta-hw run` takes it."""
        self.compiled.save(path_of(path, "path"))

    def run(self, given: Given, *, on: str | Backend = "rtl", check: bool = True) -> Result:
        """Run one input.

        Parameters
        ----------
        on : str or Backend
            ``rtl`` (the generated Verilog, simulated), ``reference``, or a backend that is there already.
        check : bool
            Compare the memory after the run with the reference's.

        Raises
        ------
        InputError
            If the input is none of the model's, or longer than the program.
        CheckError
            If the hardware stops with an error, or memory or counters differ from the reference's.
        """
        embedder, check = self.model.embedder, flag(check, "check")
        embedded = _read(embedder, given)
        if len(embedded) > self.compiled.tokens:
            raise InputError(
                f"the program was compiled for up to {self.compiled.tokens} tokens, and the input has {len(embedded)}."
            )
        compiled = shortened(self.compiled, len(embedded))
        outcome = _backend(on, compiled.config).run(compiled, embedded)
        if check and on != "reference":
            expected = ReferenceBackend(compiled.config).run(compiled, embedded)
            compare(compiled, outcome.image, expected.image)
            compare_saturations(outcome.saturated, expected.saturated)
        name, values = embedder.result(compiled, outcome.image)
        cycles = None if outcome.run is None else outcome.run.cycles
        fraction = None if cycles is None else compiled.info.ideal_cycles / cycles
        return Result(name, values, embedder.exact(embedded), cycles, fraction, outcome.saturated)


@dataclass(frozen=True)
class Programs:
    """Programs of one model for different numbers of tokens, the smallest first."""

    programs: tuple[Program, ...]

    def choose(self, tokens: int) -> Program:
        """The smallest program that holds so many tokens.

        Raises
        ------
        InputError
            If there is none.
        """
        return self.programs[smallest([p.compiled for p in self.programs], tokens)]

    def run(self, given: Given, *, on: str | Backend = "rtl", check: bool = True) -> Result:
        """Run one input in the smallest program that holds it; raises what that and `choose` do."""
        embedder = self.programs[0].model.embedder
        return self.choose(len(_read(embedder, given))).run(given, on=on, check=check)


def _read(embedder: Embedder, given: Given) -> NDArray[np.float32]:
    return embedder.read("", given) if isinstance(given, Path) else embedder.read(given, None)


def _backend(on: str | Backend, config: Config) -> Backend:
    if isinstance(on, str):
        if on not in BACKENDS or on == "board":
            raise InputError(f"backend {on!r} is unknown here; it is reference or rtl, or an object (run.board).")
        return backend(on, config)
    if not callable(getattr(on, "run", None)):
        raise InputError(f"backend {on!r} is none; it is reference or rtl, or an object (run.board).")
    return on
