"""From text to what the accelerator takes, and the fp32 answer to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compiler.encoder import compile_encoder
from ..compiler.model import CompiledModel
from ..compiler.prune import prune_model_once, pruning_sentences
from ..compiler.quantize import QuantizedEncoder, quantize
from ..config import Config
from ..errors import ConfigError, InputError
from ..files import read_json
from ..patterns import Pattern, parse_nm
from .bert import LINEAR_NAMES, BertModel
from .finite import require_rows
from .minilm import _PACKAGE, MiniLM, calibration_sentences

__all__ = ["Embedder", "read_patterns"]


def read_patterns(text: str, table: Path | None, layers: int) -> dict[tuple[int, str], Pattern]:
    """N:M of every linear layer: `text` for all, and what a JSON table says of single ones.

    The table maps ``LAYER.NAME`` (such as ``0.attention.self.query``), or ``NAME`` for all layers, to N:M.

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
    for key, value in entries.items():
        if not isinstance(value, str):
            problems.append(f'N:M table {table}, {key}: {str(value)[:80]} is no pattern; write for example "2:4".')
            continue
        first, _, rest = key.partition(".")
        chosen = [(int(first), rest)] if first.isdigit() else [(layer, key) for layer in range(layers)]
        if any(c not in patterns for c in chosen):
            problems.append(f"N:M table {table}: there is no linear layer {key!r}; there is 0.{LINEAR_NAMES[0]}, ...")
            continue
        try:
            patterns.update(dict.fromkeys(chosen, parse_nm(value)))
        except ConfigError as error:
            problems += [f"N:M table {table}, {key}: {p}" for p in error.problems]
    if problems:
        raise InputError("\n".join(problems))
    return patterns


@dataclass
class Embedder:
    """A sentence embedding model with its tokenizer.

    Attributes
    ----------
    model : BertModel
    tokenizer : MiniLM
        Its tokenizer is the model's own.
    """

    model: BertModel
    tokenizer: MiniLM

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
            return Embedder(BertModel.load(Path(spec.submodule_search_locations[0]) / "model"), minilm)
        from tokenizers import Tokenizer

        model = BertModel.load(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise InputError(f"model folder {folder}: {error}.") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return Embedder(model, MiniLM(model.tensors, tokenizer))

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
        return Embedder(model, self.tokenizer)

    def quantize(self, patterns: dict[tuple[int, str], Pattern], scales: str = "squared-error") -> QuantizedEncoder:
        """Quantized with the bundled calibration sentences; what breaks its pattern is pruned by magnitude."""
        calibration = [self.token_ids(s) for s in calibration_sentences()]
        return quantize(self.model, calibration, patterns, scales=scales)

    def compile(
        self, patterns: dict[tuple[int, str], Pattern], config: Config, tokens: int, scales: str = "squared-error"
    ) -> CompiledModel:
        """Quantized, pruned and compiled for so many tokens."""
        return compile_encoder(self.quantize(patterns, scales), config, tokens)

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
