"""Pruned networks in folders: a checkpoint that the compiler loads, its N:M table, and what was measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model.bert import BertModel
from ..model.minilm import _PACKAGE
from ..patterns import Pattern, parse_nm

__all__ = ["Stored", "load_pruned", "save_pruned"]


@dataclass
class Stored:
    """A pruned network on disk.

    Attributes
    ----------
    settings : dict
        What it was made with; a run with the same finds it and does not make it again.
    measured : dict
        What was measured of it.
    """

    folder: Path
    settings: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> Path:
        """The N:M table, for ``sta-hw compile --nm-table``."""
        return self.folder / "nm.json"

    @property
    def patterns(self) -> dict[tuple[int, str], Pattern]:
        """N:M by (layer, name)."""
        found = json.loads(self.table.read_text(encoding="utf-8"))
        return {(int(k.partition(".")[0]), k.partition(".")[2]): parse_nm(v) for k, v in found.items()}

    def save(self) -> None:
        """Write settings and figures."""
        text = json.dumps({"settings": self.settings, "measured": self.measured}, indent=2)
        (self.folder / "pruned.json").write_text(text + "\n")


def save_pruned(
    folder: Path, model: BertModel, patterns: dict[tuple[int, str], Pattern], settings: dict[str, Any],
    tokenizer: Path | None = None,
) -> Stored:  # fmt: skip
    """Write a checkpoint with its tokenizer (the installed model's if not given) and N:M table.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    model.save(folder)
    if tokenizer is None:
        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError("all-MiniLM-L6-v2 is not installed; run: make setup.")
        tokenizer = Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json"
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    stored = Stored(folder, settings)
    stored.table.write_text(json.dumps({f"{k[0]}.{k[1]}": str(p) for k, p in patterns.items()}, indent=1) + "\n")
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
        found = json.loads((folder / "pruned.json").read_text(encoding="utf-8"))
        return Stored(folder, found["settings"], found["measured"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no pruned network: {error}.") from error
