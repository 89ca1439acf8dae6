"""Where an artefact comes from: digests of what shaped it, typed, as files keep them.

Digests are SHA-256 of content: of tensors' values, not of a file's date or layout. A name or a path goes with them for
messages only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..spec.patterns import Pattern

__all__ = [
    "GENERATOR",
    "Provenance",
    "Source",
    "bytes_digest",
    "digest",
    "lines_digest",
    "patterns_digest",
    "text_table",
    "tokenizer_digest",
    "weights_digest",
]

GENERATOR = f"sta-hw {__version__}"
"""What made an artefact."""


def bytes_digest(data: bytes | NDArray[np.uint8]) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).data).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of JSON types, whatever the order of their keys."""
    return bytes_digest(json.dumps(value, sort_keys=True).encode())


def lines_digest(lines: Iterable[str]) -> str:
    """SHA-256 of sentences, in their order."""
    return digest(list(lines))


def weights_digest(graph: Any) -> str:
    """SHA-256 of a graph: its operations in words, and its tensors by name, type, shape and value."""
    found = hashlib.sha256(str(graph).encode())
    for name in sorted(graph.tensors):
        tensor = np.ascontiguousarray(graph.tensors[name])
        found.update(f"{name}\0{tensor.dtype.str}{tensor.shape}\0".encode())
        found.update(tensor.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer: of what it does, without padding and truncation, which are switched off when it is
    loaded."""
    described = json.loads(tokenizer.to_str())
    return digest({k: v for k, v in described.items() if k not in ("padding", "truncation")})


def text_table(patterns: Mapping[str, Pattern]) -> dict[str, str]:
    """N:M by ``LAYER.NAME``, as tables on disk have it."""
    return {name: str(pattern) for name, pattern in patterns.items()}


def patterns_digest(patterns: Mapping[str, Pattern]) -> str:
    """SHA-256 of the N:M of every layer."""
    return digest(text_table(patterns))


def _text_fields(kind: type, value: object, what: str) -> dict[str, Any]:
    """The fields of a dataclass of strings, from JSON."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    names = {f.name for f in dataclasses.fields(kind)}
    if missing := names - value.keys():
        raise ValueError(f"{what} lacks {', '.join(sorted(missing))}")
    return {name: value[name] for name in names}


@dataclass(frozen=True)
class Source:
    """A checkpoint as it was when something was made from it.

    Attributes
    ----------
    name : str
        What messages call it: its folder's name, or that of the installed model.
    folder : str or None
        Where it was, absolute; None for the installed model.
    weights, tokenizer : str
        Digests of what it held.
    pruned : bool
        Its weights were sparse already.
    """

    name: str
    folder: str | None
    weights: str
    tokenizer: str
    pruned: bool = False

    @property
    def path(self) -> Path | None:
        """The folder, as `sta_hw.tasks.embedder.Embedder.load` takes it."""
        return Path(self.folder) if self.folder is not None else None

    @property
    def place(self) -> str:
        """For messages: the folder, or the name where there is none."""
        return self.folder or self.name

    def difference(self, other: Source) -> str | None:
        """What of `other` is not this one's: ``weights``, ``tokenizer``, both; None if they are the same."""
        names = [n for n in ("weights", "tokenizer") if getattr(self, n) != getattr(other, n)]
        return " and ".join(names) or None

    @staticmethod
    def read(value: object) -> Source:
        """From JSON.

        Raises
        ------
        ValueError
            If it is none; the message says why.
        """
        fields = _text_fields(Source, value, "the source")
        texts = [fields["name"], fields["weights"], fields["tokenizer"], fields["folder"] or ""]
        if not all(isinstance(t, str) for t in texts) or not isinstance(fields["pruned"], bool):
            raise ValueError("the source has a field of a wrong type")
        return Source(**fields)


@dataclass(frozen=True)
class Provenance:
    """What shaped a compiled image, beside its hardware's configuration.

    Attributes
    ----------
    source : Source
    calibration : str
        Digest of the sentences that scales were found with.
    patterns : str
        Digest of every layer's N:M.
    pruner : str
        How weights beyond it were chosen.
    scales : str
        How 8-bit scales were chosen.
    generator : str
    """

    source: Source
    calibration: str
    patterns: str
    pruner: str
    scales: str
    generator: str = GENERATOR

    @staticmethod
    def read(value: object) -> Provenance:
        """From JSON.

        Raises
        ------
        ValueError
            If it is none; the message says why.
        """
        fields = _text_fields(Provenance, value, "the provenance")
        fields["source"] = Source.read(fields["source"])
        if not all(isinstance(v, str) for k, v in fields.items() if k != "source"):
            raise ValueError("the provenance has a field of a wrong type")
        return Provenance(**fields)
