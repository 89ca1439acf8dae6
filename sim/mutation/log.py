"""What became of mutants: a log that is gone on with, its table and its score."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sta_hw.errors import InputError
from sta_hw.files import read_json, write_text

from .mutants import Mutant
from .targets import ROOT, tests_of

__all__ = ["Log", "is_argued", "is_equivalent", "table"]

_FIELDS = ("line", "start", "end", "old", "new")
"""Of a mutant, as they are kept beside ``ended`` and ``said``; what lives may have a reason, ``why``."""


class Log:
    """What became of each mutant that was tried, module by module.

    Attributes
    ----------
    rows : dict
        Per module the digests of it and of its tests, how many mutants it has, and those that were tried.
    """

    def __init__(self, path: Path | None = None, root: Path = ROOT) -> None:
        self._path, self._root = path, root
        self.rows: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, path: Path, root: Path = ROOT) -> Log:
        """What a file has.

        Raises
        ------
        InputError
            If it cannot be read, or is no log.
        """
        log = cls(path, root)
        log.rows = read_json(path, "log of mutants")
        for module, row in log.rows.items():
            if not isinstance(row, dict) or not {"key", "tests_key", "all"} <= row.keys():
                raise InputError(f"{path} is no log of mutants: {module!r} is no module with its digests.")
            every = row.get("mutants")
            if not isinstance(every, list) or not all(
                isinstance(m, dict) and {*_FIELDS, "ended"} <= m.keys() for m in every
            ):
                raise InputError(f"{path} is no log of mutants: those of {module!r} are not as they are written here.")
        return log

    def begin(self, module: str, count: int) -> None:
        """Make ready for a module of so many mutants: what is known of an older one is forgotten.

        When its tests have changed, those that lived are still there, with their reasons, until they are tried again;
        those that were found count as found.
        """
        key, tests_key = self._keys(module)
        row = self.rows.get(module)
        if row is None or row["key"] != key:
            row = self.rows[module] = {"key": key, "tests_key": tests_key, "tests": [], "all": count, "mutants": []}
        if row["tests_key"] != tests_key:
            for m in row["mutants"]:
                if m["ended"] == "lives":
                    m["again"] = True
        row |= {"tests_key": tests_key, "tests": tests_of(module, self._root)}

    def to_try(self, module: str, sample: Sequence[Mutant]) -> list[Mutant]:
        """Those that lived with other tests, and those of a sample that were not tried."""
        known = self.rows[module]["mutants"]
        again = [_mutant(m) for m in known if m.get("again")]
        tried = {_mutant(m) for m in known}
        return again + [m for m in sample if m not in tried]

    def add(self, module: str, mutant: Mutant, ended: str, said: str) -> None:
        """Keep what became of one; a reason that there was for it to live stays with it if it lives."""
        found = {**{name: getattr(mutant, name) for name in _FIELDS}, "ended": ended, "said": said}
        known = self.rows[module]["mutants"]
        for number, before in enumerate(known):
            if _mutant(before) == mutant:
                known[number] = found | ({"why": before["why"]} if ended == "lives" and "why" in before else {})
                return
        known.append(found)

    def uncompared(self, module: str, *, alone: bool) -> Iterator[Mutant]:
        """Those that live and were not compared yet, as blocks `alone` or in whole accelerators."""
        for m in self.rows[module]["mutants"]:
            enough = ("whole", "alone") if alone else ("whole",)
            if m["ended"] == "lives" and not m.get("again") and m.get("compared") not in enough:
                yield _mutant(m)

    def compared(self, module: str, mutant: Mutant, *, alone: bool, equivalent: bool) -> None:
        """Keep what the comparison of one that lives has shown."""
        found = next(m for m in self.rows[module]["mutants"] if _mutant(m) == mutant)
        found["compared"] = "alone" if alone else "whole"
        if equivalent:
            found |= {"ended": "equivalent", "said": "no accelerator differs"}

    def save(self) -> None:
        """Write the file, if there is one; modules without a mutant that was tried are left out.

        Raises
        ------
        ToolError
            If it cannot be written.
        """
        if self._path is not None:
            write_text(self._path, json.dumps(self.tried(), indent=1) + "\n")

    def tried(self) -> dict[str, dict[str, Any]]:
        """The modules of which some mutant was tried."""
        return {module: row for module, row in self.rows.items() if row["mutants"]}

    def _keys(self, module: str) -> tuple[str, str]:
        """Of what a module's results depend on: itself, and its tests."""
        tests = dict.fromkeys(self._root / test.partition("::")[0] for test in tests_of(module, self._root))
        files = [p for t in tests for p in (sorted(t.rglob("*.py")) if t.is_dir() else [t])]
        return _digest([self._root / module]), _digest(files)


def _mutant(found: dict[str, Any]) -> Mutant:
    return Mutant(*(found[name] for name in _FIELDS))


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def is_argued(found: dict[str, Any]) -> bool:
    """Whether a mutant that lives has a reason for which no test can see it."""
    return found["ended"] == "lives" and str(found.get("why", "")).startswith("Equivalent: ")


def is_equivalent(found: dict[str, Any]) -> bool:
    """Whether no test can see a mutant, be it proved or argued."""
    return found["ended"] == "equivalent" or is_argued(found)


def table(rows: dict[str, Any]) -> str:
    """The results as a Markdown table, and the mutants that live, each with its reason."""
    heads = ("module", "mutants", "tried", "found", "live", "equivalent", "argued", "broken", "found, %")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    modules = sorted(rows.items())
    lines += [_line(module.removeprefix("sta_hw/"), row["all"], row["mutants"]) for module, row in modules]
    lines += [_line("all of these", sum(r["all"] for _, r in modules), [m for _, r in modules for m in r["mutants"]])]
    lines += [""]
    for module, row in modules:
        for m in row["mutants"]:
            if m["ended"] == "lives":
                old, new = (" ".join(m[k].split())[:60] for k in ("old", "new"))
                place = f"`{module.removeprefix('sta_hw/')}` {m['line']}"
                lines.append(f"- {place}: `{old}` became `{new}`. {m.get('why', '')}".rstrip())
    return "\n".join(lines)


def _line(name: str, every: int, found: list[dict[str, Any]]) -> str:
    counts = Counter("argued" if is_argued(m) else m["ended"] for m in found)
    judged = counts["found"] + counts["lives"]
    score = f"{100 * counts['found'] / judged:.1f}" if judged else "none to find"
    kinds = " | ".join(str(counts[k]) for k in ("found", "lives", "equivalent", "argued", "broken"))
    return f"| {name} | {every} | {len(found)} | {kinds} | {score} |"
