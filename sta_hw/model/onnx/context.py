"""What the walk through a graph knows, which every operator asks."""

from __future__ import annotations

import hashlib
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
    """

    def __init__(self, session: Session) -> None:
        self.session, self.half = session, session.half
        self.sample = next(iter(session.samples()))
        self.shapes: dict[str, tuple[int, ...]] = {}
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

    def embed(self, table: NDArray, index: Known, node: str) -> Data:
        """Rows of a table."""
        ids = next((n for n, role in self.session.roles.items() if role == "ids"), None)
        about = _chosen(index, None if ids is None else self.sample[ids], ids)
        term = table_of(floats(table), node, index.array.size, **about)
        return whole(term, (*index.array.shape, table.shape[1]))


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
            counted = token != padding
            if padding >= 0 and np.array_equal(rows, np.cumsum(counted) * counted + padding):
                return {"rows": "position", "padding": padding}
    elif np.array_equal(rows, count + rows[0]):
        return {"rows": "position", "offset": int(rows[0])}
    raise NotUnderstoodError("rows of a table by something else than token, position or token type")
