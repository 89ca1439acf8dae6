"""What an exploration looks at: every configuration with every N:M of every model, for each number of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ..errors import ConfigError, InputError
from ..fpga.parts import Part, choose_multiplier
from ..spec.config import Config
from .question import Question

__all__ = ["MOST_POINTS", "Hardware", "Memory", "Point", "Refused", "Subject", "sweep"]

MOST_POINTS = 100_000
"""Of one exploration: a day's work for two processors."""


@dataclass(frozen=True)
class Hardware:
    """One configuration, by what it is called.

    Attributes
    ----------
    config : Config or None
        None if the parameters do not go together.
    problems : tuple of str
        Why not, a sentence each.
    """

    name: str
    config: Config | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A model, as hardware sees it.

    Attributes
    ----------
    name : str
    shape : dict
        ``hidden``, ``heads``, ``layers``, ``intermediate``.
    choices : dict
        N:M of every linear operation as text, by what the choice is called.
    tokens : tuple of int
    problems : dict
        Why it does not take a number of tokens, a sentence, by that number.
    accuracy : dict
        The question for each choice's cosine, by the choice; empty where that is not asked.
    """

    name: str
    shape: Mapping[str, int]
    choices: Mapping[str, Mapping[str, str]]
    tokens: tuple[int, ...]
    problems: Mapping[int, str] = field(default_factory=dict)
    accuracy: Mapping[str, Question] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Memory behind the bus.

    Attributes
    ----------
    latency : int
        Cycles until the first beat of a read.
    bytes_per_cycle : float or None
        Its bandwidth; None is a beat a cycle, however wide the bus.
    shared : bool
        The bandwidth is that of both directions together.
    bytes : int or None
        Its size; None is any.
    """

    latency: int = 50
    bytes_per_cycle: float | None = None
    shared: bool = False
    bytes: int | None = None

    def described(self, config: Config) -> dict[str, Any]:
        """As a question has it: in beats of a configuration's bus."""
        rate = 1.0 if self.bytes_per_cycle is None else min(1.0, self.bytes_per_cycle / config.bus_bytes)
        return {"latency": self.latency, "beats_per_cycle": rate, "shared": self.shared, "bytes": self.bytes}


@dataclass(frozen=True)
class Point:
    """One configuration, its multipliers chosen for the part, with one model, N:M and number of tokens."""

    hardware: str
    config: Config
    model: str
    nm: str
    tokens: int
    question: Question
    accuracy: Question | None = None


@dataclass(frozen=True)
class Refused:
    """Points that there cannot be.

    Attributes
    ----------
    name : str
        What they have in common.
    points : int
        How many they are.
    problems : tuple of str
        Why, a sentence each.
    """

    name: str
    points: int
    problems: tuple[str, ...]


def sweep(
    hardware: Sequence[Hardware], subjects: Sequence[Subject], chosen: Part, memory: Memory, *, choose: bool = True
) -> tuple[list[Point], list[Refused]]:
    """All points, and those that cannot be; the same point is there once, by its first name.

    Parameters
    ----------
    choose : bool
        Give each configuration the multipliers that suit the part.

    Raises
    ------
    InputError
        If there would be more than `MOST_POINTS`.
    """
    per_hardware = sum(len(s.choices) * len(s.tokens) for s in subjects)
    if len(hardware) * per_hardware > MOST_POINTS:
        raise InputError(
            f"{len(hardware):,} configurations, each with {per_hardware:,} N:M and tokens, are "
            f"{len(hardware) * per_hardware:,} points; an exploration has {MOST_POINTS:,} at most."
        )
    points: dict[str, Point] = {}
    refused = []
    built = []
    for each in hardware:
        problems = each.problems
        if each.config is not None:
            try:
                each.config.require_accelerator()
            except ConfigError as error:
                problems = (*problems, *error.problems)
        if problems or each.config is None:
            refused.append(Refused(each.name, per_hardware, problems))
            continue
        config = choose_multiplier("accelerator", each.config, chosen) if choose else each.config
        built.append(dataclasses.replace(each, config=config))
    for subject in subjects:
        for tokens in subject.tokens:
            if problem := subject.problems.get(tokens):
                refused.append(
                    Refused(f"{subject.name}, {tokens} tokens", len(built) * len(subject.choices), (problem,))
                )
    for each, subject in product(built, subjects):
        assert each.config is not None
        for (nm, table), tokens in product(subject.choices.items(), subject.tokens):
            if tokens in subject.problems:
                continue
            content = {
                "configuration": each.config.as_dict(), "shape": dict(subject.shape), "tokens": tokens,
                "nm": dict(table), "memory": memory.described(each.config), "part": chosen.name,
            }  # fmt: skip
            point = Point(
                each.name, each.config, subject.name, nm, tokens, Question("point", content), subject.accuracy.get(nm)
            )
            points.setdefault(f"{point.question.key} {subject.name}", point)
    return list(points.values()), refused
