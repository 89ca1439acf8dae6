"""From text to what the accelerator takes, and the fp32 answer to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compiler.encoder import compile_encoder
from ..compiler.limits import require_program, require_shape
from ..compiler.model import CompiledModel
from ..compiler.prune import prune_model_once, pruning_sentences
from ..compiler.quantize import QuantizedEncoder, quantize
from ..config import Config
from ..errors import ConfigError, InputError
from ..files import read_json
from ..patterns import Pattern, parse_nm
from ..provenance import (
    Provenance,
    Source,
    bytes_digest,
    lines_digest,
    patterns_digest,
    tokenizer_digest,
    weights_digest,
)
from .bert import LINEAR_NAMES, BertModel
from .finite import require_rows
from .minilm import _PACKAGE, MiniLM, calibration_sentences

__all__ = ["OWN_TABLE", "Embedder", "own_patterns", "read_patterns"]

OWN_TABLE = "nm.json"
"""The N:M table that a pruned checkpoint has beside its weights."""


def own_patterns(folder: Path | None, layers: int) -> dict[tuple[int, str], Pattern]:
    """N:M of every linear layer, to which a checkpoint was pruned; none for one that brings no table.

    Raises
    ------
    InputError
        As `read_patterns`.
    """
    table = folder / OWN_TABLE if folder else None
    return read_patterns("dense", table, layers) if table and table.exists() else {}


def read_patterns(
    text: str, table: Path | None, layers: int, *, listed_only: bool = False
) -> dict[tuple[int, str], Pattern]:
    """N:M of every linear layer: `text` for all, and what a JSON table says of single ones.

    The table maps ``LAYER.NAME`` (such as ``0.attention.self.query``), or ``NAME`` for all layers, to N:M. With
    `listed_only`, what it does not name is left out.

    Raises
    ------
    InputError
        If the file cannot be read, or an entry is not valid; all such entries are named.
    """
    patterns = {(layer, name): parse_nm(text) for layer in range(layers) for name in LINEAR_NAMES}
    if table is None:
        return patterns
    entries = read_json(table, "N:M table")
    problems = []
    listed: dict[tuple[int, str], Pattern] = {}
    for key, value in entries.items():
        if not isinstance(value, str):
            problems.append(f'N:M table {table}, {key}: {str(value)[:80]} is no pattern; write for example "2:4".')
            continue
        first, _, rest = key.partition(".")
        numbered = first.isascii() and first.isdecimal() and len(first) < 9
        chosen = [(int(first), rest)] if numbered else [(layer, key) for layer in range(layers)]
        if any(c not in patterns for c in chosen):
            problems.append(f"N:M table {table}: there is no linear layer {key!r}; there is 0.{LINEAR_NAMES[0]}, ...")
            continue
        try:
            listed.update(dict.fromkeys(chosen, parse_nm(value)))
        except ConfigError as error:
            problems += [f"N:M table {table}, {key}: {p}" for p in error.problems]
    if problems:
        raise InputError("\n".join(problems))
    return listed if listed_only else patterns | listed


@dataclass
class Embedder:
    """A sentence embedding model with its tokenizer.

    Attributes
    ----------
    model : BertModel
    tokenizer : MiniLM
        Its tokenizer is the model's own.
    folder : Path or None
        Where it was loaded from; None for the installed model, and for one made in memory.
    name : str
        What messages call it.
    origin : Source or None
        The checkpoint that this one was pruned from, in memory.
    pruner : str
        What prunes, or pruned, the weights.
    """

    model: BertModel
    tokenizer: MiniLM
    folder: Path | None = None
    name: str = "the model in memory"
    origin: Source | None = None
    pruner: str = "magnitude"

    @staticmethod
    def load(folder: Path | None = None) -> Embedder:
        """all-MiniLM-L6-v2 as installed, or another checkpoint of the BERT family from `folder`.

        Raises
        ------
        InputError
            If it cannot be loaded; the message says why.
        """
        if folder is None:
            minilm = MiniLM.load()
            spec = find_spec(_PACKAGE)
            assert spec is not None and spec.submodule_search_locations
            model = BertModel.load(Path(spec.submodule_search_locations[0]) / "model")
            return Embedder(model, minilm, name="all-MiniLM-L6-v2")
        from tokenizers import Tokenizer

        model = BertModel.load(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise InputError(f"model folder {folder}: {error}.") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        folder = folder.resolve()
        return Embedder(model, MiniLM(model.tensors, tokenizer), folder, folder.name)

    @cached_property
    def source(self) -> Source:
        """Digests of weights and tokenizer, which what is made from the model keeps."""
        if self.origin is not None:
            return self.origin
        own = own_patterns(self.folder, self.model.layers)
        return Source(
            self.name, str(self.folder) if self.folder else None, weights_digest(self.model),
            tokenizer_digest(self.tokenizer.tokenizer), any(not p.dense for p in own.values()),
        )  # fmt: skip

    def token_ids(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises
        ------
        InputError
            If it is empty, longer than the model's positions, or has a token that the model has no embedding of.
        """
        if not text.strip():
            raise InputError("the text is empty; give a sentence with --text.")
        ids = self.tokenizer.token_ids(text)
        words, positions = (len(self.model.tensors[f"embeddings.{n}_embeddings.weight"]) for n in ("word", "position"))
        require_rows(ids, words, positions)
        return ids

    def pruned(
        self,
        patterns: dict[tuple[int, str], Pattern],
        method: str = "sparsegpt",
        report: Callable[[str], None] = lambda _: None,
    ) -> Embedder:
        """With its weights pruned in one shot, for the bundled text; `method` is one of `compiler.prune.METHODS`.

        Layers that satisfy their patterns already stay as they are. Raises what `prune_model` does.
        """
        most = len(self.model.tensors["embeddings.position_embeddings.weight"])
        calibration = [self.tokenizer.token_ids(s)[:most] for s in pruning_sentences()]
        model = prune_model_once(self.model, patterns, calibration, method=method, report=report)
        return replace(self, model=model, origin=self.source, pruner=method)

    def quantize(self, patterns: dict[tuple[int, str], Pattern], scales: str = "squared-error") -> QuantizedEncoder:
        """Quantized with the bundled calibration sentences; what breaks its pattern is pruned by magnitude."""
        calibration = [self.token_ids(s) for s in calibration_sentences()]
        return quantize(self.model, calibration, patterns, scales=scales)

    def compile(
        self, patterns: dict[tuple[int, str], Pattern], config: Config, tokens: int, scales: str = "squared-error"
    ) -> CompiledModel:
        """Quantized, pruned and compiled for so many tokens."""
        self.require(patterns, config, tokens)
        compiled = compile_encoder(self.quantize(patterns, scales), config, tokens)
        origin = Provenance(
            self.source, lines_digest(calibration_sentences()), patterns_digest(patterns), self.pruner, scales
        )  # fmt: skip
        return replace(compiled, provenance=origin, checksum=bytes_digest(compiled.image))

    def require(self, patterns: dict[tuple[int, str], Pattern], config: Config, tokens: int) -> None:
        """Refuse, before any work, what cannot be compiled.

        Raises
        ------
        InputError
            If sizes do not fit the model or the hardware, or a pattern is not built in.
        """
        model = self.model
        positions = len(model.tensors["embeddings.position_embeddings.weight"])
        if tokens > positions:
            raise InputError(f"tokens = {tokens} exceeds the model's positions; the nearest is {positions}.")
        widest = {name: pattern for (_, name), pattern in sorted(patterns.items(), key=lambda p: p[1].density)}
        require_shape(
            config, tokens=tokens, layers=model.layers, hidden=model.hidden, heads=model.heads,
            intermediate=model.intermediate, patterns=widest,
        )  # fmt: skip
        require_program(
            config, tokens=tokens, layers=model.layers, hidden=model.hidden, heads=model.heads,
            intermediate=model.intermediate,
        )  # fmt: skip
        for pattern in patterns.values():
            if not pattern.dense:
                config.require(pattern)

    def fp32(self, ids: list[int]) -> NDArray[np.float64]:
        """The dense fp32 model's embedding, of length 1.

        Raises
        ------
        InputError
            If it has none: the output overflows, or is zero.
        """
        with np.errstate(all="ignore"):
            pooled = self.model.forward(ids)[1].astype(np.float64)
        length = np.linalg.norm(pooled)
        if not 0 < length < np.inf:
            raise InputError(f"the fp32 model's output for this text has the length {length}, and so no direction.")
        return pooled / length
