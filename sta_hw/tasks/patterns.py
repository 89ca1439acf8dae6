"""N:M of every linear operation, as options and JSON tables say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import ConfigError, InputError
from ..files import read_json
from ..model.graph import layer_of
from ..spec.patterns import Pattern, parse_nm

__all__ = ["OWN_TABLE", "given_patterns", "own_patterns", "read_patterns"]

OWN_TABLE = "nm.json"
"""The N:M table that a pruned checkpoint has beside its weights."""


def own_patterns(folder: Path | None, linears: Iterable[str]) -> dict[str, Pattern]:
    """N:M of every linear operation, to which a checkpoint was pruned; none for one that brings no table.

    Raises
    ------
    InputError
        As `read_patterns`.
    """
    table = folder / OWN_TABLE if folder else None
    return read_patterns("dense", table, linears) if table and table.exists() else {}


def read_patterns(
    text: str, table: Path | None, linears: Iterable[str], *, listed_only: bool = False
) -> dict[str, Pattern]:
    """N:M of every linear operation: `text` for all, and what a JSON table says of single ones.

    The table maps ``LAYER.NAME`` (such as ``0.attention.self.query``), or ``NAME`` for all layers, to N:M. With
    `listed_only`, what it does not name is left out.

    Raises
    ------
    InputError
        If the file cannot be read, or an entry is not valid; all such entries are named.
    """
    patterns = dict.fromkeys(linears, parse_nm(text))
    if table is None:
        return patterns
    entries = read_json(table, "N:M table")
    problems = []
    listed: dict[str, Pattern] = {}
    for key, value in entries.items():
        if not isinstance(value, str):
            problems.append(f'N:M table {table}, {key}: {str(value)[:80]} is no pattern; write for example "2:4".')
            continue
        numbered = layer_of(key) is not None
        chosen = [n for n in patterns if n == key or (not numbered and n.partition(".")[2] == key)]
        if not chosen:
            first = next(iter(patterns), "none")
            problems.append(f"N:M table {table}: there is no linear layer {key!r}; there is {first}, ...")
            continue
        try:
            listed.update(dict.fromkeys(chosen, parse_nm(value)))
        except ConfigError as error:
            problems += [f"N:M table {table}, {key}: {p}" for p in error.problems]
    if problems:
        raise InputError("\n".join(problems))
    return listed if listed_only else patterns | listed


def given_patterns(patterns: Mapping[str, Pattern], linears: Iterable[str]) -> dict[str, Pattern]:
    """N:M of every linear operation, by name, as a caller gives them, checked.

    Raises
    ------
    InputError
        If an operation lacks its N:M, or has none that is one; or if a name is no operation's.
    """
    names = list(linears)
    if not isinstance(patterns, Mapping):
        raise InputError(f"patterns are {patterns!r}; they are a dict of Pattern by the operations' names.")
    if wrong := [name for name, p in patterns.items() if not isinstance(p, Pattern)]:
        raise InputError(f"patterns has {patterns[wrong[0]]!r} for {wrong[0]}; it is a sta_hw.spec.patterns.Pattern.")
    for these, others, what in ((list(patterns), names, "has"), (names, list(patterns), "lacks")):
        if odd := [name for name in these if name not in others]:
            raise InputError(f"patterns {what} {odd[0]!r}; the model's operations are {', '.join(names)}.")
    return dict(patterns)
