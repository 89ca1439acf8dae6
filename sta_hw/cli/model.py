"""Which model a command means: a compiled file with its checkpoint, or a checkpoint to compile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..compiler.prune import require_pruner
from ..compiler.shorter import shortened, smallest
from ..errors import InputError
from ..files import distinct, read_json
from ..formats.provenance import Source
from ..report.accuracy import dense_network as network_compared_with
from ..spec.config import Config
from ..spec.patterns import parse_nm
from ..tasks.api import Model
from ..tasks.embedder import Embedder
from .configuration import manifest_file, read_configuration
from .terminal import Watch, complain

__all__ = ["Pruning", "Request", "dense_network", "load", "require_own", "require_text"]


@dataclass(frozen=True)
class Pruning:
    """What makes a checkpoint's weights sparse, as the options have it."""

    nm: str | None
    """N:M of all linear layers, or dense; None is the checkpoint's own table, or the default."""
    table: Path | None
    """JSON: N:M of single layers."""
    method: str
    calibration: Path | None = None
    """Images or spectrograms to quantize for."""

    def look_at(self, preset_name: str) -> None:
        """Refuse at once what is refused after the model is loaded, the hardware of a preset among it."""
        read_configuration(preset_name, top="accelerator").require_accelerator()
        if self.nm is not None:
            parse_nm(self.nm)
        require_pruner(self.method)
        if self.table is not None:
            read_json(self.table, "N:M table")

    def pruned(self, embedder: Embedder, config: Config, tokens: int, watch: Watch) -> Model:
        """Pruned for hardware and so many tokens; on stderr, where N:M is from if the user did not say."""
        found = Model(embedder, {}, calibration=self.calibration).prune(
            self.nm, table=self.table, method=self.method, hardware=config, tokens=tokens, report=watch.step
        )
        for note in found.notes:
            complain(note)
        return found


def require_text(text: str) -> None:
    """Refuse one of blanks alone."""
    if not text.strip():
        raise InputError("the text is empty; give a sentence with --text.")


@dataclass(frozen=True)
class Request:
    """What a command runs: compiled files, or a checkpoint to prune and compile; and the text or input."""

    files: tuple[Path, ...]
    """Compiled models; none: one is compiled on the fly."""
    text: str
    given: Path | None
    """An image's or a spectrogram's file, in place of the text."""
    pruning: Pruning
    model: Path | None
    """A checkpoint's folder; None is all-MiniLM-L6-v2."""
    preset_name: str

    def look_at(self) -> None:
        """Refuse at once what `prepare` would refuse after the model is loaded."""
        if self.given is None:
            require_text(self.text)
        for one in self.files:
            CompiledModel.load(one)
        if not self.files:
            self.pruning.look_at(self.preset_name)

    def require_distinct(self, outputs: Mapping[str, Path | None]) -> None:
        """Refuse outputs that are one another, or are read."""
        names = ("FILE" if not n else f"FILE {n}" for n in range(len(self.files)))
        distinct(outputs, {
            **dict(zip(names, self.files, strict=True)), "--model": self.model, "--nm-table": self.pruning.table,
            "--preset": manifest_file(self.preset_name), "--input": self.given,
            "--calibration": self.pruning.calibration,
        })  # fmt: skip

    def prepare(self, watch: Watch) -> tuple[CompiledModel, Embedder, NDArray]:
        """The compiled model, what embeds text (an image, a spectrogram) for it, and that embedded: (tokens, width).

        Of several files, which are compiled for different numbers of tokens, the smallest that holds the text; it is
        told.
        """
        found = [CompiledModel.load(f) for f in self.files]
        embedder = load(self.model, self.pruning.calibration, calibrated=bool(self.files))
        for one, compiled in zip(self.files, found, strict=True):
            require_own(one, compiled, embedder)
        embedded = embedder.read(self.text, self.given)
        tokens, cut = len(embedded), embedder.network.limits.most_tokens
        if cut is not None and tokens > cut:
            complain(f"sentence-transformers cuts this model's texts at {cut} tokens; all {tokens} are taken here.")
        if not found:
            config = read_configuration(self.preset_name, top="accelerator")
            sparse = self.pruning.pruned(embedder, config, tokens, watch)
            return sparse.compile(config, tokens=tokens).compiled, embedder, embedded
        number = 0
        if len(found) > 1:
            number = smallest(found, tokens)
            complain(f"{self.files[number]} runs it: of {len(found)} programs the smallest that holds {tokens} tokens.")
        elif found[0].tokens < tokens:
            raise InputError(
                f"{self.files[0]} was compiled for up to {found[0].tokens} tokens, and the text has {tokens}; compile "
                f"it with --tokens {tokens}."
            )
        return shortened(found[number], tokens), embedder, embedded

    def compared(self, embedder: Embedder) -> tuple[str, str, NDArray]:
        """What a result is compared with: the figure's name, whose fp32 it is, and that fp32 result."""
        figure, place, network = dense_network(embedder)
        return figure, place, network.exact(network.read(self.text, self.given))


def load(model: Path | None, calibration: Path | None, *, calibrated: bool = False) -> Embedder:
    """The network; on stderr, what of it is not used, and what it is calibrated with if the user did not say.

    What is compiled already is `calibrated`: nothing is said of that.
    """
    embedder = Embedder.load(model)
    for sentence in embedder.network.unused_tensors if model else ():
        complain(f"not used: {sentence}.")
    if calibration is not None:
        embedder.require_calibration()
    if embedder.tokenizer is None and calibration is None and not calibrated:
        complain("calibrated with noise; --calibration FILE.npy with inputs of its kind makes a better model.")
    return embedder


def require_own(file: Path | None, compiled: CompiledModel, embedder: Embedder) -> None:
    """Refuse embeddings of another checkpoint than the image was compiled from: both are named."""
    if compiled.provenance is None:
        raise InputError(f"{file} does not say which checkpoint it was compiled from; compile it again.")
    wanted, given = compiled.provenance.source, embedder.source
    if other := wanted.difference(given):
        remedy = "compile it again, or put the checkpoint back"
        if wanted.folder != given.folder:
            name = f"--model {wanted.folder}" if wanted.folder else "no --model"
            remedy = f"run it with {name}, or compile it for {given.place}"
        raise InputError(
            f"{file} was compiled from {wanted.place} ({_digests(wanted)}), and {given.place} has other {other} "
            f"({_digests(given)}): its embeddings would be another's; {remedy}."
        )


def _digests(source: Source) -> str:
    return f"weights {source.weights[:12]}, tokenizer {source.tokenizer[:12]}"


def dense_network(embedder: Embedder) -> tuple[str, str, Embedder]:
    """As `sta_hw.report.accuracy.dense_network`; on stderr, why it is not the dense one."""
    return network_compared_with(embedder, complain)
