"""Which model a command means: a compiled file with its checkpoint, or a checkpoint to compile."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..compiler.prune import METHODS
from ..compiler.shorter import shortened, smallest
from ..errors import InputError
from ..files import read_json
from ..formats.provenance import Source
from ..report.accuracy import dense_network as network_compared_with
from ..spec.config import Config
from ..spec.patterns import parse_nm
from ..tasks.api import Model
from ..tasks.embedder import Embedder
from .configuration import read_configuration
from .terminal import Watch, complain

__all__ = ["compared", "dense_network", "load", "look_at", "prepare", "pruned", "require_own"]


def pruned(
    embedder: Embedder, nm: str | None, nm_table: Path | None, pruner: str, config: Config, tokens: int,
    calibration: Path | None, watch: Watch,
) -> Model:  # fmt: skip
    """Pruned for hardware and so many tokens; on stderr, where N:M is from if the user did not say."""
    found = Model(embedder, {}, calibration=calibration).prune(
        nm, table=nm_table, method=pruner, hardware=config, tokens=tokens, report=watch.step
    )
    for note in found.notes:
        complain(note)
    return found


def look_at(
    file: Path | Sequence[Path] | None, text: str | None, nm: str | None, nm_table: Path | None, preset_name: str,
    pruner: str,
) -> None:  # fmt: skip
    """Refuse at once what `prepare` would refuse after the model is loaded; no `text` where another input is given."""
    if text is not None and not text.strip():
        raise InputError("the text is empty; give a sentence with --text.")
    for one in _files(file):
        CompiledModel.load(one)
    if file:
        return
    read_configuration(preset_name, top="accelerator").require_accelerator()
    if nm is not None:
        parse_nm(nm)
    if pruner not in METHODS:
        near = get_close_matches(pruner, METHODS, n=1, cutoff=0)[0]
        raise InputError(f"pruner {pruner!r} is unknown; it is {' or '.join(METHODS)}, the nearest is {near}.")
    if nm_table is not None:
        read_json(nm_table, "N:M table")


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


def _files(file: Path | Sequence[Path] | None) -> list[Path]:
    """The compiled models that a command names."""
    return [file] if isinstance(file, Path) else list(file or ())


def prepare(
    file: Path | Sequence[Path] | None, text: str, given: Path | None, nm: str | None, nm_table: Path | None,
    pruner: str, model: Path | None, preset_name: str, watch: Watch, calibration: Path | None = None,
) -> tuple[CompiledModel, Embedder, NDArray]:  # fmt: skip
    """The compiled model, what embeds text (an image, a spectrogram) for it, and that embedded: (tokens, width).

    Of several files, which are compiled for different numbers of tokens, the smallest that holds the text; it is told.
    """
    files = _files(file)
    found = [CompiledModel.load(f) for f in files]
    embedder = load(model, calibration, calibrated=bool(files))
    for one, compiled in zip(files, found, strict=True):
        require_own(one, compiled, embedder)
    embedded = embedder.read(text, given)
    cut = embedder.network.limits.most_tokens
    if cut is not None and len(embedded) > cut:
        complain(f"sentence-transformers cuts this model's texts at {cut} tokens; all {len(embedded)} are taken here.")
    if not files:
        config = read_configuration(preset_name, top="accelerator")
        sparse = pruned(embedder, nm, nm_table, pruner, config, len(embedded), calibration, watch)
        return sparse.compile(config, tokens=len(embedded)).compiled, embedder, embedded
    if len(files) > 1:
        number = smallest(found, len(embedded))
        complain(f"{files[number]} runs it: of {len(files)} programs the smallest that holds {len(embedded)} tokens.")
        return shortened(found[number], len(embedded)), embedder, embedded
    (compiled,) = found
    if compiled.tokens < len(embedded):
        raise InputError(
            f"{files[0]} was compiled for up to {compiled.tokens} tokens, and the text has {len(embedded)}; compile it "
            f"with --tokens {len(embedded)}."
        )
    return shortened(compiled, len(embedded)), embedder, embedded


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


def compared(embedder: Embedder, text: str, given: Path | None) -> tuple[str, str, NDArray]:
    """What a result is compared with: the figure's name, whose fp32 it is, and that fp32 result."""
    figure, place, network = dense_network(embedder)
    return figure, place, network.exact(network.read(text, given))


def dense_network(embedder: Embedder) -> tuple[str, str, Embedder]:
    """As `sta_hw.report.accuracy.dense_network`; on stderr, why it is not the dense one."""
    return network_compared_with(embedder, complain)
