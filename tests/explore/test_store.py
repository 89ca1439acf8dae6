"""The store: what was kept is there again, and no other file is taken for one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sta_hw.errors import InputError, ToolError
from sta_hw.explore.question import Question
from sta_hw.explore.store import VERSION, Store


def question(number: int) -> Question:
    return Question("point", {"number": number})


def test_answers_stay(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sqlite"
    with Store(path) as store:
        assert store.kept([question(1)]) == {}
        store.keep(question(1), {"cycles": 0.1})
        with Store(path) as other:  # another process's, at the same time
            other.keep(question(2), {"cycles": None})
            other.keep(question(1), {"cycles": 5})  # computed twice: the first one stays
        assert len(store) == 2
    with Store(path) as store:
        kept = store.kept(question(n) for n in range(4))
        assert kept == {question(1).key: {"cycles": 0.1}, question(2).key: {"cycles": None}}


def test_an_interrupted_writer_leaves_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = Store(path)
    store.keep(question(1), {"a": 1})
    copied = tmp_path / "copy.sqlite"
    copied.write_bytes(path.read_bytes())  # as after a crash: nothing was closed
    with Store(copied) as found:
        assert found.kept([question(1)]) == {question(1).key: {"a": 1}}


def test_what_is_no_store(tmp_path: Path) -> None:
    text, other, later, cut = (tmp_path / name for name in ("text", "other.sqlite", "later.sqlite", "cut.sqlite"))
    text.write_text("no database, " * 100)
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE mine (a)")
    with Store(later) as store:
        store.keep(question(1), {})
    cut.write_bytes(later.read_bytes()[:5000])
    with sqlite3.connect(later) as file:
        file.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = {path: path.read_bytes() for path in (text, other, later, cut)}
    for path, message in ((text, "no whole store"), (other, "something else"), (later, f"version {VERSION + 1}"),
                          (cut, "no whole store")):  # fmt: skip
        with pytest.raises(InputError, match=message), Store(path) as store:
            store.kept([question(1)])
        assert path.read_bytes() == before[path]
    with pytest.raises(ToolError):
        Store(tmp_path)


@pytest.mark.parametrize("answer", ["x", "[]", "{}", "null", "[" * 100_000, '{"cycles": 2}', b"\xff", 5])
def test_an_answer_that_is_not_what_was_kept(answer: object, tmp_path: Path) -> None:
    """It is computed anew, and kept then: what SQLite reads may be damaged all the same."""
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        store.keep(question(1), {"cycles": 1})
        store.keep(question(2), {"cycles": 1})
    with sqlite3.connect(path) as file:
        file.execute("UPDATE answers SET answer = ? WHERE key = ?", (answer, question(1).key))
    with Store(path) as store:
        assert store.kept([question(1), question(2)]) == {question(2).key: {"cycles": 1}}
        store.keep(question(1), {"cycles": 3})
        assert store.kept([question(1)]) == {question(1).key: {"cycles": 3}}
