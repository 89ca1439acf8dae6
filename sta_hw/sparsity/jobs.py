"""A run of `sta-hw prune`: which folders it fills, and whether they hold what it would make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import write_text
from ..formats.provenance import GENERATOR, bytes_digest, digest, patterns_digest, text_table
from ..spec.config import Config
from ..spec.patterns import Pattern
from ..tasks.embedder import Embedder
from .finetune import Tuning
from .state import is_whole
from .store import Stored, load_pruned
from .text import corpus_digest

__all__ = ["Job"]

_USUAL = {"batch": 8, "rate": 4e-4, "calibration": 256, "budget": "cycles", "preset": "reference"}
"""What a folder's name does not mention."""


def _plain(text: str) -> str:
    """A part of a folder's name."""
    return "".join(c if c.isalnum() or c in "._+" else "-" for c in text)


@dataclass(frozen=True)
class Job:
    """What is pruned, and how.

    Attributes
    ----------
    tuning : Tuning
    aware_steps, calibration : int
    budget : str
        DominoSearch's.
    patterns : N:M of single layers, or None
    config : Config
    preset : str
        What the user called it.
    embedder : Embedder
        The network.
    output : Path
        The folder of pruned networks.
    """

    method: str
    pattern: Pattern
    tuning: Tuning
    aware_steps: int
    calibration: int
    budget: str
    patterns: Mapping[str, Pattern] | None
    config: Config
    preset: str
    embedder: Embedder
    output: Path

    @property
    def hardware_matters(self) -> bool:
        """Whether the hardware shapes the result: by a budget in cycles, or as what the integers are tuned for."""
        return bool(self.aware_steps) or (self.method == "domino" and self.budget == "cycles")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """For people, as JSON types."""
        return {
            "method": self.method, "nm": str(self.pattern), "steps": self.tuning.steps, "batch": self.tuning.batch,
            "rate": self.tuning.rate, "seed": self.tuning.seed, "aware_steps": self.aware_steps,
            "calibration": self.calibration, "budget": self.budget if self.method == "domino" else None,
            "model": self.embedder.source.folder or "", "hardware": self.config.hash if self.hardware_matters else None,
            "nm_table": text_table(self.patterns) if self.patterns else None,
        }  # fmt: skip

    @cached_property
    def key(self) -> str:
        """Digest of everything that shapes the result: contents and versions, no paths."""
        source = self.embedder.source
        versions = [GENERATOR, torch.__version__, np.__version__, corpus_digest()]
        settings = {k: v for k, v in self.settings.items() if k != "model"}
        # What is copied beside weights and tokenizer, which the installed model always has the same of.
        beside = [] if source.folder is None else [self.embedder.network.beside()]
        more = [{name: bytes_digest(content) for name, content in files.items()} for files in beside]
        return digest([settings, source.weights, source.tokenizer, versions, *more])

    def _name(self, pattern: str, series: str = "") -> str:
        found = [self.method, pattern.replace(":", "of") + series, f"steps{self.tuning.steps}"]
        if self.aware_steps:
            found.append(f"aware{self.aware_steps}")
        found.append(f"seed{self.tuning.seed}")
        own: dict[str, Any] = {"batch": self.tuning.batch, "rate": self.tuning.rate, "calibration": self.calibration}
        if self.method == "domino":
            own["budget"] = self.budget
        if self.hardware_matters:
            own["preset"] = Path(self.preset).stem
        found += [f"{k}-{_plain(str(v))}" for k, v in own.items() if v != _USUAL[k]]
        if self.patterns:
            found.append(f"table-{patterns_digest(self.patterns)[:6]}")
        source = self.embedder.source
        if source.folder is not None:
            # The name for people; the place, because many folders are called model.
            found.append(f"{_plain(source.name)[:40]}-{bytes_digest(source.folder.encode())[:6]}")
        return "-".join(found)

    @cached_property
    def name(self) -> str:
        """Of the run; a network that is its last has the same."""
        return self._name(str(self.pattern))

    def folder(self, nm: str) -> Path:
        """Where a network of the run goes: one before the last of a series is another one in a longer series."""
        last = nm == str(self.pattern)
        return self.output / self._name(nm, "" if last else f"-to-{self.pattern.n}of{self.pattern.m}")

    @property
    def _states(self) -> Path:
        return self.output / ".states" / self.name

    @property
    def _done(self) -> Path:
        return self._states / "done.json"

    def finished(self) -> tuple[list[Stored], str]:
        """The networks, if they are there and whole; otherwise, where something is there, why it does not do."""
        try:
            noted = json.loads(self._done.read_text())
            names, key = noted["folders"], noted["key"]
            if not isinstance(names, list) or not names:
                raise ValueError
        except FileNotFoundError:
            return [], f"{self._done} is not there" if self.folder(str(self.pattern)).exists() else ""
        except (OSError, ValueError, KeyError, TypeError):
            return [], f"{self._done} is damaged"
        if key != self.key:
            return [], "model, tokenizer, table, hardware or versions are not those it was made with"
        found = []
        for name in names:
            folder = self.output / Path(str(name)).name
            try:
                stored = load_pruned(folder)
            except InputError as error:
                return [], str(error).rstrip(".")
            if stored.key != self.key or not stored.whole():
                return [], f"{folder} is not what was left there"
            found.append(stored)
        return found, ""

    def clean_states(self) -> Path:
        """The folder of this run's saved states; damaged ones are deleted."""
        states = self._states / self.key[:16]
        for path in states.glob("*.safetensors"):
            if not is_whole(path):
                path.unlink()
        return states

    def finish(self, found: Sequence[Stored]) -> None:
        """Note that the run is finished; states of other contents, whose results were overwritten, are deleted."""
        for other in self._states.iterdir() if self._states.exists() else ():
            if other.is_dir() and other.name != self.key[:16]:
                shutil.rmtree(other, ignore_errors=True)
        text = json.dumps({"key": self.key, "folders": [s.folder.name for s in found]}, indent=1)
        write_text(self._done, text + "\n")
