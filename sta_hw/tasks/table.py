"""Which N:M a checkpoint is compiled with: what the user says, or the table that a pruned one brings along."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..formats.nm import satisfies
from ..model.graph import Graph
from ..spec.patterns import Pattern, parse_nm
from .embedder import Embedder
from .patterns import OWN_TABLE, own_patterns, read_patterns

__all__ = ["DEFAULT_NM", "Chosen", "choose_patterns", "choose_patterns_of", "nm_choices"]

DEFAULT_NM = "2:4"
"""Of a checkpoint without a table, where the user names none."""

Patterns = dict[str, Pattern]


@dataclass(frozen=True)
class Chosen:
    """The N:M of every linear layer, and what the user should know of the choice."""

    patterns: Patterns
    notes: list[str] = field(default_factory=list)


def _shown(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} layers, such as {names[0]}"


def choose_patterns(embedder: Embedder, nm: str | None, table: Path | None, kept: Patterns | None = None) -> Chosen:
    """N:M for `embedder`'s layers.

    Without `nm` and `table`, the N:M that the model was pruned to count (`kept`), or a pruned checkpoint's own table,
    otherwise `DEFAULT_NM`. A `table` of single layers changes `nm`, or the model's own.

    Raises
    ------
    InputError
        If a file or pattern is not valid, or a checkpoint that was pruned would be pruned once more.
    """
    return choose_patterns_of(embedder.graph, embedder.folder, nm, table, DEFAULT_NM, kept=kept)


def choose_patterns_of(
    graph: Graph, folder: Path | None, nm: str | None, table: Path | None, default: str, *, mends: bool = True,
    kept: Patterns | None = None,
) -> Chosen:  # fmt: skip
    """The same for the layers of a graph, whose own table lies in a folder; raises what `choose_patterns` does.

    Unless what comes of it `mends` them, weights that are not as their own table says are refused.
    """
    linears = graph.linears
    own = own_patterns(folder, linears)
    pruned_here = kept is not None and kept != own and any(not p.dense for p in kept.values())
    if kept is not None and pruned_here:
        own = kept
    if not own:
        return Chosen(read_patterns(default if nm is None else nm, table, linears))
    place = "an earlier prune" if pruned_here or folder is None else folder / OWN_TABLE
    chosen = dict(own)
    if nm is not None:
        chosen = read_patterns(nm, table, linears)
    elif table is not None:
        chosen |= read_patterns("dense", table, linears, listed_only=True)
    harmed = [k for k, p in chosen.items() if not p.dense and not satisfies(linears[k].weight, p)]
    if chosen == own and harmed and not mends:
        raise InputError(
            f"the weights are not pruned as {place} says ({_shown(harmed)}); prune the model again, or delete the "
            "table where it belongs to other weights."
        )
    if chosen == own:
        said = pruned_here or nm is not None or table is not None
        notes = [] if said else [f"N:M is that of {place}, to which the checkpoint was pruned."]
        if harmed:
            notes.append(
                f"the weights are not pruned as {place} says ({_shown(harmed)}); the smallest of what is too much are "
                "left out."
            )
        return Chosen(chosen, notes)
    given = f"N:M {nm}" if table is None else f"the table {table}"
    if harmed:
        was = ", ".join(sorted({str(p) for p in own.values()})[:4])
        if pruned_here:
            raise InputError(
                f"{given} would prune the model once more ({_shown(harmed)}): it was pruned to {was}. Choose no N:M to "
                "keep that, or prune the dense model that it comes from."
            )
        raise InputError(
            f"{given} would prune {folder} once more ({_shown(harmed)}): it was pruned to {was} "
            f"({place}). Choose no N:M to take that table, or prune it on purpose with sta-hw prune."
        )
    return Chosen(chosen, [f"{given} is not the checkpoint's own N:M, {place}; no weight is lost."])


def nm_choices(embedder: Embedder, nm: str | None, default: str) -> dict[str, Patterns]:
    """Patterns to choose from, by what they are called: each of `nm` (``dense,2:4``), a pruned checkpoint's own, or
    `default`.

    Raises
    ------
    InputError
        If one is not valid, or a checkpoint that was pruned would be pruned once more.
    """
    own = own_patterns(embedder.folder, embedder.linears)
    if own and nm is None:
        return {"its own": own}
    if own:
        raise InputError(
            f"N:M {nm} would prune {embedder.folder} once more, which was pruned already; choose none to take its own."
        )
    return {
        str(parse_nm(part)): read_patterns(part, None, embedder.linears)
        for part in (default if nm is None else nm).split(",")
    }
