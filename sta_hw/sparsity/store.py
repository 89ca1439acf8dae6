"""Pruned networks in folders: a checkpoint that the compiler loads, its N:M table, where it is from, its figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_all, write_text
from ..formats.provenance import GENERATOR, Source, bytes_digest, digest, patterns_digest, text_table, weights_digest
from ..model.families import Network, load_network
from ..model.graph import Graph
from ..spec.patterns import Pattern
from ..tasks.patterns import OWN_TABLE, read_patterns

__all__ = ["DESCRIPTION", "PRUNED", "Stored", "compared_with", "dense_source", "load_pruned", "save_pruned"]

DESCRIPTION = "pruned.json"


@dataclass
class Stored:
    """A pruned network on disk.

    Attributes
    ----------
    settings : dict
        What it was made with, for people.
    source : Source
        The network that it was pruned from, with which it is compared.
    key : str
        Digest of everything that shaped it: a run with the same finds it and does not make it again.
    files : dict of str
        Digests of the files that were left there, by name.
    measured : dict
        What was measured of it, by what; see `content`.
    measured_of : str
        The `content` that was measured.
    """

    folder: Path
    settings: dict[str, Any]
    source: Source
    key: str
    files: dict[str, str]
    measured: dict[str, Any] = field(default_factory=dict)
    measured_of: str = ""

    @property
    def table(self) -> Path:
        """The N:M table, which the compiler finds by itself."""
        return self.folder / OWN_TABLE

    @property
    def patterns(self) -> dict[str, Pattern]:
        """N:M by name."""
        linears = load_network(self.folder).graph.linears
        return read_patterns("dense", self.table, linears, listed_only=True)

    def content(self, graph: Graph, patterns: dict[str, Pattern]) -> str:
        """Digest of all that measured figures depend on, but the hardware."""
        return digest(
            [weights_digest(graph), patterns_digest(patterns), self.source.weights, self.source.tokenizer, GENERATOR]
        )

    def whole(self) -> bool:
        """Whether the files are those that were left there, and were measured."""
        try:
            found = {name: bytes_digest((self.folder / name).read_bytes()) for name in self.files}
        except OSError:
            return False
        return found == self.files and "fp32" in self.measured

    def described(self) -> str:
        """The text of the description."""
        fields = {k: v for k, v in asdict(self).items() if k != "folder"} | {"generator": GENERATOR}
        return json.dumps(fields | {"sha256": digest(fields)}, indent=2) + "\n"

    def save(self) -> None:
        """Write settings and figures."""
        write_text(self.folder / DESCRIPTION, self.described())


def save_pruned(
    folder: Path, network: Network, graph: Graph, patterns: dict[str, Pattern], tokenizer: str, *,
    settings: dict[str, Any], source: Source, key: str = "", measured: dict[str, Any] | None = None,
) -> Stored:  # fmt: skip
    """Write a checkpoint: that of `network` with the arrays of `graph`, its tokenizer (its JSON text) and N:M table.

    All of it is written, or nothing; then its description.

    Raises
    ------
    ToolError
        If it cannot be written; what was there is as it was.
    """
    table = json.dumps(text_table(patterns), indent=1) + "\n"
    contents = {**network.files(graph), "tokenizer.json": tokenizer, OWN_TABLE: table}
    files = {name: content if isinstance(content, bytes) else content.encode() for name, content in contents.items()}
    write_all({folder / name: content for name, content in files.items()})
    loaded = load_network(folder).graph  # as it will be when it is measured again
    stored = Stored(
        folder, settings, source, key, {n: bytes_digest(c) for n, c in files.items()}, measured or {}
    )  # fmt: skip
    stored.measured_of = stored.content(loaded, patterns)
    stored.save()
    return stored


def load_pruned(folder: Path) -> Stored:
    """Read what `save_pruned` wrote; the weights stay on disk.

    Raises
    ------
    InputError
        If the folder holds no pruned network.
    """
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("its description is not an object")
        if "source" not in found and "settings" in found:
            raise ValueError("it was pruned by an older version, which did not note from what; prune it again")
        kinds = {"settings": dict, "measured": dict, "key": str, "files": dict, "measured_of": str}
        if wrong := [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]:
            raise ValueError(f"{', '.join(wrong)} of its description is missing or of a wrong type")
        if found.pop("sha256", None) != digest(found):
            raise ValueError("its description is not what was written (checksum)")
        settings, measured = found["settings"], found["measured"]
        if not isinstance(settings.get("method"), str) or not all(map(_scores, measured.values())):
            raise ValueError("its description has no method, or figures that are none")
        return Stored(
            folder, settings, Source.read(found["source"]), found["key"], found["files"],
            measured, found["measured_of"],
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"{folder} holds no pruned network: {DESCRIPTION}: {error.strerror}.") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no pruned network: {DESCRIPTION}: {error}.") from error


def _scores(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), int | float) for k in ("cosine", "spearman"))


PRUNED = " (pruned itself)"
"""Behind the name of a network that is compared with and was not dense."""


def compared_with(source: Source) -> str:
    """The name of a network that others are compared with; it says so where that one was pruned, too."""
    return source.name + (PRUNED if source.pruned else "")


def dense_source(folder: Path | None) -> Source | None:
    """The dense network that a checkpoint was pruned from; None where that is not noted, or was not dense.

    Raises
    ------
    InputError
        If a description is there and malformed.
    """
    if folder is None or not (folder / DESCRIPTION).exists():
        return None
    source = load_pruned(folder).source
    return None if source.pruned else source
