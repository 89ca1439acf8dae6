"""What the walk through a graph knows, which every operator asks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .session import Session
from .values import Data, Known, NotUnderstoodError, Term, settled, whole

__all__ = ["Context", "Value", "floats", "table_of"]

Value = Known | Data


class Context:
    """A graph, a sample of its inputs, and what is known of its tensors.

    Attributes
    ----------
    session : Session
    sample : dict
        The inputs' values.
    half : bool
        Constants are in float16.
    shapes : dict
        Shapes of tensors that depend on data, by name.
    ids : str or None
        The input of token ids.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.half = session, session.half
        self.sample = next(iter(session.samples()))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.ids = next((n for n, role in session.roles.items() if role == "ids"), None)
        self._indices: dict[str, tuple[str, dict[str, Any], int]] = {}
        self._interned: dict[object, Term] = {}
        self._known: dict[int, Term] = {}

    def settle(self, value: Value | None, index: NDArray | None = None) -> Term:
        """An operation's value, rows in order, channels last; the same term for the same value.

        Raises
        ------
        NotUnderstoodError
            If no operation gives it.
        """
        if not isinstance(value, Data):
            raise NotUnderstoodError("a constant where data is expected")
        return self._intern(settled(value, self.half, index))

    def _intern(self, term: Term) -> Term:
        if id(term) in self._known:
            return term
        inputs = tuple(self._intern(t) for t in term.inputs)
        about = tuple((n, _hashable(v)) for n, v in sorted(term.attributes.items()))
        if inputs != term.inputs:
            term = replace(term, inputs=inputs)
        found = self._interned.setdefault((term.kind, tuple(map(id, inputs)), about), term)
        self._known[id(found)] = found
        return found

    def embed(self, table: NDArray, index: Known, name: str | None, node: str) -> Data:
        """Rows of a table; `name` is that of the tensor that chooses them, if there is one."""
        about = _chosen(index, None if self.ids is None else self.sample[self.ids], self.ids)
        if name is not None and self.ids in index.origin:
            self._indices[name] = node, about, len(table)
        term = table_of(floats(table), node, index.array.size, **about)
        return whole(term, (*index.array.shape, table.shape[1]))

    def confirm(self, longest: int) -> None:
        """Check that what chooses rows of tables does so for every token, in texts of at most `longest` ones.

        Raises
        ------
        NotUnderstoodError
            If it does not: a token that the sample does not hold may be special.
        """
        words = max((rows for _, about, rows in self._indices.values() if about["rows"] == "token"), default=0)
        names = [n for n in self._indices if n != self.ids]
        if not names or self.ids is None:
            return
        for inputs in self.session.every_token(words, longest):
            ids = inputs[self.ids].reshape(-1).astype(np.int64)
            for name, found in zip(names, self.session.run_alone(names, inputs), strict=True):
                node, about, _ = self._indices[name]
                wrong = np.flatnonzero(found.reshape(-1) != _rows(ids, about))
                if len(wrong):
                    raise NotUnderstoodError(
                        f"{node} takes other rows for token {ids[wrong[0]]} than for others, or behind it"
                    )


def _rows(ids: NDArray[np.int64], about: Mapping[str, Any]) -> NDArray[np.int64]:
    """What `_chosen` found, for other token ids."""
    if about["rows"] == "token":
        return ids
    if about["rows"] == "first":
        return np.zeros_like(ids)
    counted = ids != about["padding"]
    return np.cumsum(counted) * counted + about["padding"]


def _hashable(value: Any) -> object:
    if not isinstance(value, np.ndarray):
        return value
    return value.shape, hashlib.blake2b(np.ascontiguousarray(value).data).digest()


def floats(array: NDArray) -> NDArray:
    """float32 for floating point of other widths."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def table_of(table: NDArray, node: str, count: int, **about: Any) -> Term:
    """Rows of a table for so many tokens, in a sum of embeddings; `about` as of `Embed`."""
    return Term("table", (), (count, table.shape[1]), node, {"table": table, **about})


def _chosen(index: Known, ids: NDArray | None, name: str | None) -> dict[str, Any]:
    """Which rows an index takes: each token's, by position, or always the first.

    Raises
    ------
    NotUnderstoodError
        If it is none of them.
    """
    rows = index.array.reshape(-1).astype(np.int64)
    count = np.arange(len(rows))
    if not rows.any() and len(rows) > 1:
        return {"rows": "first"}
    if ids is not None and name in index.origin:
        token = ids.reshape(-1).astype(np.int64)
        if np.array_equal(rows, token):
            return {"rows": "token"}
        for padding in {int(rows[0]) - 1, *rows.tolist()}:
            about = {"rows": "position", "padding": padding}
            if padding >= 0 and np.array_equal(rows, _rows(token, about)):
                return about
    elif np.array_equal(rows, count + rows[0]):
        return {"rows": "position", "offset": int(rows[0])}
    raise NotUnderstoodError("rows of a table by something else than token, position or token type")
