"""Answers in one SQLite file, by their keys: what was computed once is there for every exploration after."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import InputError, ToolError
from ..formats.provenance import digest
from .question import Question

__all__ = ["VERSION", "Store"]

_KIND = 0x53544145
"""SQLite's ``application_id`` of such files: ``STAE``."""
VERSION = 1
"""Of the table (``user_version``)."""
_TABLE = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY,    -- SHA-256 of the question
    kind TEXT NOT NULL,
    question TEXT NOT NULL,  -- JSON: kind, content, versions
    answer TEXT NOT NULL     -- JSON, with a checksum of it and of the key
) WITHOUT ROWID
"""
_WAIT = 60.0
"""Seconds for which another process may write."""
_CHECKSUM = "sha256"
"""What an answer has beside what it is."""


def _checksum(key: str, answer: dict[str, Any]) -> str:
    return digest([key, json.loads(json.dumps(answer))])


def _whole(key: str, text: object) -> dict[str, Any] | None:
    """An answer as it was kept; None if it is another: a damaged file may be one that SQLite reads."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.pop(_CHECKSUM, None) != _checksum(key, found):
        return None
    return found


class Store:
    """The file; each answer that is kept is on the disk when `keep` returns.

    Several processes may use one file at a time.

    Raises
    ------
    InputError
        If the file is no such store, or another version's.
    ToolError
        If it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")  # two that make the file at the same time wait for one another
        (kind,), (version,) = (
            self._file.execute(f"PRAGMA {n}").fetchone() for n in ("application_id", "user_version")
        )  # fmt: skip
        pages, size = (self._file.execute(f"PRAGMA {n}").fetchone()[0] for n in ("page_count", "page_size"))
        if pages * size > self.path.stat().st_size > 0:
            raise InputError(f"{self.path} is no whole store of sta-hw explore: its end is missing; name another file.")
        tables = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not kind and not version and not tables:
            self._file.execute(_TABLE)
            self._file.execute(f"PRAGMA application_id = {_KIND}")
            self._file.execute(f"PRAGMA user_version = {VERSION}")
        elif kind != _KIND:
            raise InputError(f"{self.path} is a database of something else than sta-hw explore; name another file.")
        elif version != VERSION:
            raise InputError(
                f"{self.path} is a store of version {version}, and this sta-hw reads and writes version {VERSION}; "
                "name another file."
            )
        self._file.execute("COMMIT")

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        with self._told():
            return int(self._file.execute("SELECT count(*) FROM answers").fetchone()[0])

    def kept(self, questions: Iterable[Question]) -> dict[str, dict[str, Any]]:
        """The answers that there are, by key; one that is not what was kept counts as none, and is computed anew."""
        found = {}
        with self._told():
            for key in dict.fromkeys(q.key for q in questions):
                row = self._file.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
                if row is not None and (answer := _whole(key, row[0])) is not None:
                    found[key] = answer
        return found

    def keep(self, question: Question, answer: dict[str, Any]) -> None:
        """Keep an answer; that of the same question which is there already, and whole, stays."""
        kept = json.dumps(answer | {_CHECKSUM: _checksum(question.key, answer)})
        values = (question.key, question.kind, json.dumps(question.described, sort_keys=True), kept)
        if question.key not in self.kept([question]):
            with self._told():
                self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", values)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise InputError(
                    f"{self.path} is no whole store of sta-hw explore: {error}; name another file."
                ) from error
            raise ToolError(f"the store {self.path} cannot be read or written: {error}.") from error
        except OSError as error:
            raise ToolError(f"the store {self.path} cannot be read or written: {error}.") from error
