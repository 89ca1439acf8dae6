"""Which model a command means: a compiled file with its checkpoint, or a checkpoint to compile."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from numpy.typing import NDArray

from .cli_configuration import read_configuration
from .cli_terminal import Watch, complain
from .compiler.model import CompiledModel
from .compiler.prune import METHODS
from .errors import InputError
from .files import read_json
from .model.embedder import Embedder
from .model.table import choose_patterns
from .patterns import Pattern, parse_nm
from .provenance import Source
from .sparsity.store import dense_source

__all__ = ["compared", "look_at", "patterns_for", "prepare"]


def patterns_for(embedder: Embedder, nm: str | None, nm_table: Path | None) -> dict[tuple[int, str], Pattern]:
    """The N:M to compile with; on stderr, where it is from if the user did not say."""
    chosen = choose_patterns(embedder, nm, nm_table)
    for note in chosen.notes:
        complain(note)
    return chosen.patterns


def look_at(file: Path | None, text: str, nm: str | None, nm_table: Path | None, preset_name: str, pruner: str) -> None:
    """Refuse at once what `prepare` would refuse after the model is loaded."""
    if not text.strip():
        raise InputError("the text is empty; give a sentence with --text.")
    if file is not None:
        CompiledModel.load(file)
        return
    read_configuration(preset_name, top="accelerator").require_accelerator()
    if nm is not None:
        parse_nm(nm)
    if pruner not in METHODS:
        near = get_close_matches(pruner, METHODS, n=1, cutoff=0)[0]
        raise InputError(f"pruner {pruner!r} is unknown; it is {' or '.join(METHODS)}, the nearest is {near}.")
    if nm_table is not None:
        read_json(nm_table, "N:M table")


def prepare(
    file: Path | None, text: str, nm: str | None, nm_table: Path | None, pruner: str, model: Path | None,
    preset_name: str, watch: Watch,
) -> tuple[CompiledModel, Embedder, list[int]]:  # fmt: skip
    """The compiled model, what embeds text for it, and the text's tokens."""
    compiled = CompiledModel.load(file) if file is not None else None
    embedder = Embedder.load(model)
    if compiled is not None:
        _require_own(file, compiled, embedder)
    ids = embedder.token_ids(text)
    if compiled is None:
        config = read_configuration(preset_name, top="accelerator")
        patterns = patterns_for(embedder, nm, nm_table)
        embedder.require(patterns, config, len(ids))
        compiled = embedder.pruned(patterns, pruner, watch.step).compile(patterns, config, len(ids))
    assert compiled is not None
    if compiled.tokens != len(ids):
        raise InputError(
            f"{file} was compiled for {compiled.tokens} tokens, and the text has {len(ids)}; compile it with "
            f"--tokens {len(ids)}."
        )
    return compiled, embedder, ids


def _require_own(file: Path | None, compiled: CompiledModel, embedder: Embedder) -> None:
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


def compared(embedder: Embedder, ids: list[int]) -> tuple[str, str, NDArray]:
    """What an embedding is compared with: the figure's name, whose fp32 it is, and that fp32 embedding.

    It is the dense network's: for a pruned checkpoint the one it was pruned from, where that is still as it was.
    """
    if not embedder.source.pruned:
        return "cosine_with_dense_fp32", embedder.source.place, embedder.fp32(ids)
    source, why = None, "it does not say what dense network it was pruned from"
    try:
        source = dense_source(embedder.folder)
    except InputError as error:
        why = str(error).rstrip(".")
    if source is not None:
        why = f"{source.place}, which it was pruned from, is not there as it was"
        with suppress(InputError):
            dense = Embedder.load(source.path)
            if source.difference(dense.source) is None and dense.source.tokenizer == embedder.source.tokenizer:
                return "cosine_with_dense_fp32", source.place, dense.fp32(ids)
    complain(f"the cosine is with the pruned checkpoint's own fp32: {why}.")
    return "cosine_with_pruned_fp32", embedder.source.place, embedder.fp32(ids)
