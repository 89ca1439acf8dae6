"""Pruned decoders in folders: in the format that they came in, with the N:M table that every command finds there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, write_all
from ..formats.provenance import GENERATOR, bytes_digest, digest, text_table, weights_digest
from ..model.families import load_network
from ..model.families.from_gguf import file_with
from ..model.gguf import read_gguf
from ..model.language import LanguageModel
from ..spec.patterns import Pattern
from ..tasks.patterns import OWN_TABLE
from ..tasks.text import TextModel
from .text import corpus_sentences, without_near

__all__ = [
    "DECODER_DESCRIPTION", "METHODS_OF_DECODERS", "SENTENCES", "PrunedDecoder", "decoder_sentences", "described",
    "finished_decoder", "require_writable_format", "save_decoder",
]  # fmt: skip

DECODER_DESCRIPTION = "pruned-decoder.json"
METHODS_OF_DECODERS = {"sparsegpt-asymmetric": "sparsegpt", "magnitude": "magnitude", "domino": "sparsegpt"}
"""Of the methods of `sparsity.names` those for decoders, and what `compiler.prune` calls them."""
SENTENCES = 600
"""That decoders are pruned for, if nobody says: some 10,000 tokens."""
_BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip


def decoder_sentences(count: int | None, seed: int = 0) -> list[str]:
    """Sentences to prune a decoder for: the corpus', but none near to Python's documentation, which is measured with.

    Fewer than `count`, where some are; all if there is none.
    """
    from pydoc_data.topics import topics

    return without_near(corpus_sentences(count or 10**9, seed=seed, packages=("python",)), list(topics.values()))


@dataclass(frozen=True)
class PrunedDecoder:
    """A folder.

    Attributes
    ----------
    settings : dict
        What it was made with, and from.
    """

    folder: Path
    settings: dict[str, Any]


def finished_decoder(folder: Path, settings: dict[str, Any]) -> PrunedDecoder | None:
    """What is there already, made with the same from the same, and whole.

    Raises
    ------
    InputError
        If something else is there.
    """
    if not (folder / DECODER_DESCRIPTION).exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} holds something else than a pruned decoder; choose another -o.")
        return None
    found = read_json(folder / DECODER_DESCRIPTION, "description")
    try:
        own = {name: bytes_digest((folder / name).read_bytes()) for name in found["files"]}
    except (OSError, KeyError, TypeError):
        return None
    whole = found.get("settings") == settings and found["files"] == own
    return PrunedDecoder(folder, settings) if whole else None


def described(
    model: TextModel, method: str, texts: list[list[int]], patterns: Mapping[str, Pattern],
    learnt: list[list[int]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that shapes the result, for people and for `finished_decoder`; `learnt` are texts to distil with."""
    found = {
        "method": method, "nm_table": text_table(patterns), "source": str(model.language.path),
        "weights": weights_digest(model.language.graph), "beside": _beside_digest(model.language.path),
        "texts": digest(texts),
        "calibration_tokens": sum(map(len, texts)), "generator": GENERATOR,
    }  # fmt: skip
    return found | {"learnt": digest(learnt)} if learnt else found


def _beside_digest(path: Path) -> str:
    """Of what the result has beside weights, as it is in the source: tokenizer, template, tokens that end a text."""
    if path.is_file():
        return bytes_digest(read_gguf(path).header)
    names = ("config.json", *_BESIDE)
    return digest({n: bytes_digest((path / n).read_bytes()) for n in names if (path / n).exists()})


def require_writable_format(source: LanguageModel) -> None:
    """Refuse, before any work, formats that have no place for pruned weights.

    Raises
    ------
    InputError
        If weights are packed in 4 bits, or several products are one tensor.
    """
    if source.graph.name == "gpt2":
        raise InputError(
            f"{source.path}: GPT-2's checkpoints hold query, key and value in one tensor, which is not written yet; "
            "generate-text and chat prune it with --nm."
        )
    if source.path.is_dir() and "quantization_config" in read_json(source.path / "config.json", "configuration"):
        raise InputError(
            f"{source.path}: its weights are packed in 4 bits, which have no place for pruned ones; prune the model "
            "that it was quantized from, or take --nm of generate-text and chat."
        )


def _files(source: LanguageModel, pruned: TextModel) -> dict[str, bytes | str]:
    graph, path = pruned.language.graph, source.path
    if path.is_file():
        return {"model.gguf": file_with(read_gguf(path), graph)}
    network = load_network(path)
    return network.files(graph) | {n: (path / n).read_bytes() for n in _BESIDE if (path / n).exists()}


def save_decoder(folder: Path, source: LanguageModel, pruned: TextModel, settings: dict[str, Any]) -> PrunedDecoder:
    """Write a decoder that was pruned from `source`: all of it, or nothing.

    Raises
    ------
    InputError
        If its format has no place for the weights.
    ToolError
        If it cannot be written; what was there is as it was.
    """
    files = _files(source, pruned)
    files[OWN_TABLE] = json.dumps(text_table(pruned.patterns), indent=1) + "\n"
    digests = {n: bytes_digest(c.encode() if isinstance(c, str) else c) for n, c in files.items()}
    files[DECODER_DESCRIPTION] = json.dumps({"settings": settings, "files": digests}, indent=2) + "\n"
    write_all({folder / name: content for name, content in files.items()})
    return PrunedDecoder(folder, settings)
