"""What commands print: JSON alone on stdout, tables that fit, lines to copy whole; progress on stderr."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = [
    "JsonOption",
    "Watch",
    "complain",
    "mark",
    "print_json",
    "print_table",
    "printable",
    "say",
    "watched",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of a table.")]

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)
_NARROWEST = 40
"""Columns of a terminal that tables are made for at least; a narrower one wraps them."""
_LONGEST = 2000
"""Characters of a message; the middle of a longer one is left out."""
_BETWEEN = 60.0
"""Seconds between two lines that tell how far long work is, where no progress bar is shown."""
_BREAKS = re.compile(r"(?<=[/.,_\-])(?=[^/.,_\-\d])|(?<= )")
"""Where a name may go on in the next line: behind its separators, but not within a number."""


def printable(text: str) -> str:
    """`text` without characters that move a terminal's cursor or change its colours: they are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def complain(message: str) -> None:
    """Print ``sta-hw: `` and a message on stderr; one line for each of its lines, none of them broken."""
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} [...] {message[-_LONGEST // 2 :]}"
    for line in message.splitlines() or [""]:
        with suppress(OSError, ValueError):  # nobody hears it, and the status tells all the same
            typer.secho(f"sta-hw: {printable(line)}", err=True, fg="red")


def say(line: str) -> None:
    """Print a line on stdout that no terminal width breaks: a sentence, a path, a command to paste."""
    typer.echo(printable(line))


def print_json(value: Any) -> None:
    """Print a value as JSON, which knows no NaN and no infinity: they become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def mark(answer: str) -> str:
    """A mark for yes, maybe and no, where the terminal has them."""
    marks = {"yes": "✓", "maybe": "?", "no": "✗"} if _knows_unicode(_out) else {}
    return marks.get(answer, answer)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, note: str = ""
) -> None:  # fmt: skip
    """Print a table that fits the terminal (80 columns where there is none) without cutting a name.

    Headings and cells go on in the next line between words, names behind their separators. Where even that is too
    wide, every row becomes its first cell and, below, what the other columns say.

    Parameters
    ----------
    columns : sequence of str
        Headings; where all are empty, none is printed.
    left : int
        Columns from the first on that are aligned to the left; the others are numbers.
    note : str
        A line below.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    width = max(_out.width, _NARROWEST)
    if title:
        say(title)
    for gap, whole in ((2, True), (1, True), (2, False), (1, False)):
        widths = _fitted(columns, cells, width - gap * (len(columns) - 1), whole)
        if widths is not None:
            break
    if widths is None:
        _print_rows_apart(columns, cells, width)
    else:
        rule = ("\u2500" if _knows_unicode(_out) else "-") * (sum(widths) + gap * (len(widths) - 1))
        if any(columns):
            _print_row([_wrapped(h, n, names=False) for h, n in zip(columns, widths, strict=True)], widths, left, gap)
            say(rule)
        for row in cells:
            _print_row([_wrapped(cell, n) for cell, n in zip(row, widths, strict=True)], widths, left, gap)
    if note:
        say(note)


def _print_row(texts: Sequence[Sequence[str]], widths: Sequence[int], left: int, gap: int) -> None:
    for parts in zip_longest(*texts, fillvalue=""):
        aligned = (
            p.ljust(w) if number < left else p.rjust(w) for number, (p, w) in enumerate(zip(parts, widths, strict=True))
        )
        say((" " * gap).join(aligned).rstrip())


def _print_rows_apart(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    for first, *others in rows:
        say(first)
        said = [f"{h} {c}".strip() for h, c in zip(columns[1:], others, strict=True) if c]
        line = ""
        for part in (f"{p}," if n < len(said) - 1 else p for n, p in enumerate(said)):
            if line and len(line) + 1 + len(part) > width - 2:
                say(f"  {line}")
                line = ""
            line = f"{line} {part}".lstrip()
        if line:
            say(f"  {line}")


def _knows_unicode(console: Console) -> bool:
    return "utf" in console.encoding.lower()


def _pieces(text: str, *, names: bool = True) -> list[str]:
    """What stays together in a line."""
    return [p for p in (_BREAKS.split(text) if names else re.split(r"(?<= )", text)) if p]


def _wrapped(text: str, width: int, *, names: bool = True) -> list[str]:
    lines = [""]
    for piece in _pieces(text, names=names):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int, whole: bool) -> list[int] | None:
    """A width for each column, together at most `room`; None if there are none that break at words alone.

    With `whole`, only headings break.
    """
    least, bodies, widths = [], [], []
    for number, heading in enumerate(columns):
        texts = [row[number] for row in rows]
        pieces = _pieces(heading, names=False) + [p for text in texts for p in ([text] if whole else _pieces(text))]
        least.append(max((len(p.rstrip()) for p in pieces), default=1))
        bodies.append(max([0, *map(len, texts)]))
        widths.append(max(len(heading), 1, bodies[-1]))
    while sum(widths) > room:
        wide = [i for i, (w, low) in enumerate(zip(widths, least, strict=True)) if w > low]
        if not wide:
            return None
        # A heading of two words over narrow numbers gives way first, then the widest column.
        slack = [i for i in wide if widths[i] > bodies[i]]
        widths[max(slack or wide, key=lambda i: widths[i])] -= 1
    return widths


class Watch:
    """A progress bar with cycles (or instructions) per second and the time left.

    Where stderr is no terminal, such as a file or another program, a line a minute says how far the work is.
    """

    def __init__(self, progress: Progress, title: str, unit: str) -> None:
        self.progress, self.unit = progress, unit
        self.task = progress.add_task(title, total=None, rate="")
        self._began = self._told = time.monotonic()

    def step(self, name: str) -> None:
        """What is done now."""
        self.progress.update(self.task, description=name, completed=0, rate="")
        self.progress.tasks[self.task].total = None  # which `update` takes for no change
        self._tell()

    def describe(self, name: str) -> None:
        """What is done now, within a step that goes on."""
        self.progress.update(self.task, description=name)
        self._tell()

    def __call__(self, done: int, total: int) -> None:
        task = self.progress.tasks[self.task]
        speed = f"{task.speed:,.0f} {self.unit}/s" if task.speed else ""
        self.progress.update(self.task, completed=done, total=max(total, done), rate=speed)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if not self.progress.disable or now - self._told < _BETWEEN:
            return
        self._told = now
        task = self.progress.tasks[self.task]
        far = f", {task.completed:,.0f} of {task.total:,.0f}" if task.total else ""
        line = f"sta-hw: {printable(task.description)}{far}; {(now - self._began) / 60:.0f} min so far"
        with suppress(OSError, ValueError):  # nobody hears it, and the work goes on all the same
            typer.echo(line, err=True)


def watched(title: str, unit: str, work: Callable[[Watch], Any]) -> Any:
    """Run `work` under a progress bar on stderr, or, where that is no terminal, with a line a minute."""
    spinner = "dots" if _knows_unicode(_err) else "line"
    columns = (
        SpinnerColumn(spinner), TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        return work(Watch(progress, title, unit))
