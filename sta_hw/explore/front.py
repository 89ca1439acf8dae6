"""What an exploration found: points with their figures, and which of them no other one beats in everything."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..spec.config import Config

__all__ = ["Found", "best", "found", "with_front"]


@dataclass(frozen=True)
class Found:
    """A point with what was computed.

    Attributes
    ----------
    logic, multipliers, memories : int
        Cells by the estimate: logic cells as nextpnr packs them, hard multipliers, block RAMs.
    fits : str
        The part: yes, no, or maybe, where the logic is as near to the part's as the estimate may err.
    first, share : str, float or None
        What runs out first, and how much of the part's it takes.
    cycles, bytes : int or None
        Of a run, by the cycle model; of the memory image. None where the point has no program, or does not fit.
    milliseconds, fraction_of_ideal, cosine, smallest_cosine : float or None
        The cosines over the inputs are None where they were not asked for.
    problems : tuple of str
        Why it is no valid point, a sentence each.
    front : bool
        Whether no other valid point of the same model and number of tokens (and of the same N:M, where accuracy was
        not measured) has as few cells and milliseconds and as high a cosine, and one of them better.
    """

    hardware: str
    config: Config
    model: str
    nm: str
    tokens: int
    logic: int
    multipliers: int
    memories: int
    fits: str
    first: str
    share: float | None
    cycles: int | None
    milliseconds: float | None
    fraction_of_ideal: float | None
    bytes: int | None
    cosine: float | None
    smallest_cosine: float | None
    problems: tuple[str, ...]
    front: bool = False

    @property
    def group(self) -> tuple[str, int, str]:
        """Points that are compared with one another have the same."""
        return self.model, self.tokens, "" if self.cosine is not None else self.nm

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.hardware}, {self.model}, {self.nm}, {self.tokens} tokens"

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {"config": self.config.as_dict(), "hash": self.config.hash, "problems": list(self.problems)}


def found(point: Any, answer: dict[str, Any], accuracy: dict[str, Any] | None, megahertz: float) -> Found:
    """A `sta_hw.explore.sweep.Point` with its answers."""
    cycles = answer["cycles"]
    cosines = accuracy or {"cosine": None, "smallest_cosine": None}
    names = ("logic", "multipliers", "memories", "fits", "first", "share", "cycles", "fraction_of_ideal", "bytes")
    return Found(
        point.hardware, point.config, point.model, point.nm, point.tokens, **{n: answer[n] for n in names},
        milliseconds=None if cycles is None else cycles / megahertz / 1000, **cosines,
        problems=tuple(answer["problems"]),
    )  # fmt: skip


def with_front(rows: Sequence[Found]) -> list[Found]:
    """The same, those of the front marked."""
    groups: dict[tuple[str, int, str], list[tuple[float, ...]]] = defaultdict(list)
    for row in rows:
        if not row.problems:
            groups[row.group].append(_costs(row))
    return [
        dataclasses.replace(row, front=not row.problems and not _beaten(_costs(row), groups[row.group])) for row in rows
    ]


def _costs(row: Found) -> tuple[float, ...]:
    """What is to be small."""
    assert row.milliseconds is not None
    return row.logic, row.milliseconds, -(row.cosine or 0.0)


def _beaten(costs: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    return any(o != costs and all(a <= b for a, b in zip(o, costs, strict=True)) for o in others)


def best(rows: Sequence[Found], count: int) -> list[Found]:
    """Points of the front with different configurations, smallest product of cells and milliseconds first.

    The product counts relative to the smallest one of the points that it is compared with.
    """
    front = [row for row in rows if row.front]

    def product(row: Found) -> float:
        cells, milliseconds, _ = _costs(row)
        return cells * milliseconds

    least: dict[tuple[str, int, str], float] = {}
    for row in front:
        least[row.group] = min(least.get(row.group, float("inf")), product(row))
    chosen: dict[Config, Found] = {}
    for row in sorted(front, key=lambda r: (product(r) / least[r.group], r.logic)):
        chosen.setdefault(row.config, row)
    return list(chosen.values())[:count]
