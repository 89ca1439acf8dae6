"""An exploration: what is not in the store is computed and kept, and all of it told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..fpga.parts import Part
from .front import Found, best, found, with_front
from .pool import Failure, Pool
from .question import Question
from .store import Store
from .sweep import Point

__all__ = ["Confirmed", "Explored", "confirm", "explore"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Explored:
    """What came of the points.

    Attributes
    ----------
    rows : list of Found
        In the order of the points; those that have failed are not among them.
    failed : list of tuple of str
        What was asked, and why there is no answer.
    kept, computed : int
        Answers that were in the store, and that are new.
    """

    rows: list[Found]
    failed: list[tuple[str, str]]
    kept: int
    computed: int


@dataclass(frozen=True)
class Confirmed:
    """A configuration whose cells were counted.

    Attributes
    ----------
    row : Found
        The point by which it was chosen, with the estimate.
    logic, multipliers, memories : int
        As Yosys and nextpnr count them.
    difference : float
        Of the estimate's logic from that, as a share of it.
    fits : bool
    """

    row: Found
    logic: int
    multipliers: int
    memories: int
    difference: float
    fits: bool


def explore(
    points: Sequence[Point], store: Store, pool: Pool, megahertz: float, progress: Progress = lambda *_: None
) -> Explored:
    """Compute what the store lacks; each answer is in the store before the next one is looked at."""
    accuracy = {p.accuracy.key: p.accuracy for p in points if p.accuracy is not None}
    # Accuracy takes longest: it is begun first, so that the other processors have something to do at its end.
    questions = [*accuracy.values(), *(p.question for p in points)]
    answers, failures, kept = _answered(questions, store, pool, progress)
    names = {p.question.key: f"{p.hardware}, {p.model}, {p.nm}, {p.tokens} tokens" for p in points}
    names |= {p.accuracy.key: f"accuracy of {p.model}, {p.nm}" for p in points if p.accuracy is not None}
    rows = []
    for p in points:
        cosine = answers.get(p.accuracy.key) if p.accuracy is not None else None
        if p.question.key in answers and (p.accuracy is None or cosine is not None):
            rows.append(found(p, answers[p.question.key], cosine, megahertz))
    return Explored(
        with_front(rows), [(names[key], sentence) for key, sentence in failures.items()], kept, len(answers) - kept
    )


def confirm(
    rows: Sequence[Found], count: int, chosen: Part, store: Store, pool: Pool,
    progress: Progress = lambda *_: None,
) -> tuple[list[Confirmed], list[tuple[str, str]]]:  # fmt: skip
    """Synthesize the best configurations of the front; with those that have failed, and why."""
    questions = {
        row: Question("synthesis", {"configuration": row.config.as_dict(), "part": chosen.name})
        for row in best(rows, count)
    }
    answers, failures, _ = _answered(list(questions.values()), store, pool, progress)
    confirmed, failed = [], []
    for row, question in questions.items():
        if question.key in failures:
            failed.append((f"synthesis of {row.hardware}", failures[question.key]))
            continue
        cells = {name: int(answers[question.key][name]) for name in ("logic", "multipliers", "memories")}
        fits = all(cells[name] <= getattr(chosen, name) for name in cells)
        confirmed.append(Confirmed(row, **cells, difference=row.logic / cells["logic"] - 1, fits=fits))
    return confirmed, failed


def _answered(
    questions: Sequence[Question], store: Store, pool: Pool, progress: Progress
) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Answers and failures by key, and how many answers were there already."""
    by_key = {q.key: q for q in questions}
    answers = store.kept(by_key.values())
    kept, failures = len(answers), {}
    missing = [q for key, q in by_key.items() if key not in answers]
    progress(kept, len(by_key))
    for question, answer in pool.answers(missing) if missing else ():
        if isinstance(answer, Failure):
            failures[question.key] = answer.sentence
        else:
            store.keep(question, answer)
            answers[question.key] = answer
        progress(len(answers) + len(failures), len(by_key))
    return answers, failures, kept
