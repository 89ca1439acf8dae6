"""What a tensor of an ONNX graph is: an operation's value, its elements in some order, with a function of each.

Reshaping, transposing, slicing move elements and change none; functions of one element move none. So a tensor is
known by three things: the operation's value that it comes from, which of its elements stands in which place, and what
the function gives for some arguments. However an exporter arranges them, heads are split, and a GELU is a GELU, where
these are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..fp32 import FUNCTIONS
from ..operations import Activate, Add, Linear, Norm, Operation, Select

__all__ = ["ARGUMENTS", "Data", "Known", "NotUnderstoodError", "Term", "elements", "factor", "settled", "whole"]

_NEARBY = 10
_FAR = np.geomspace(12, 1e4, 40, dtype=np.float32)
ARGUMENTS = np.concatenate([-_FAR[::-1], np.linspace(-_NEARBY, _NEARBY, 2001, dtype=np.float32), _FAR])
"""Arguments for which functions of one element are known, in order; the middle one is 0. Those far from it tell a
function that is cut off somewhere from one that is not."""
ARGUMENTS[len(ARGUMENTS) // 2] = 0
_UNITS = np.maximum(np.abs(ARGUMENTS) / _NEARBY, 1)
"""What differences are measured by: far from 0 they are relative."""

_NEAR, _NEAR_HALF = 1e-4, 2e-3
"""How near a function comes to one of `FUNCTIONS`, at most; where constants are in float16, less so. GELU with tanh is
4.7e-4 from GELU, and of all functions the nearest is taken."""


class NotUnderstoodError(Exception):
    """Why a node of a graph cannot be imported, as a clause."""


@dataclass(frozen=True, eq=False)
class Term:
    """An operation, or a step towards one.

    Attributes
    ----------
    kind : an operation's class, or the name of a step: ``table``, ``row mean``, ``centred``, ``variance``,
        ``normalized``, ``scaled``, ``scores``, ``probabilities``, ``token sum``, ``squared length``, ``rows``
    inputs : terms
    shape : tuple of int
        Of its value for the sample, channels last, without the batch.
    node : str
        Where in the ONNX graph it stands, for messages.
    attributes : dict
        The operation's.
    """

    kind: type[Operation] | str
    inputs: tuple[Term, ...]
    shape: tuple[int, ...]
    node: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        """For messages."""
        return self.kind if isinstance(self.kind, str) else self.kind.__name__

    @property
    def width(self) -> int:
        """Of its value."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Positions of its value, 1 for a pooled one."""
        return int(np.prod(self.shape[:-1]))


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that does not depend on data: weights, shapes, masks.

    Attributes
    ----------
    array : its value for the sample
    origin : names of the graph's inputs that it was computed from, and ``shape`` if from an input's shape
    """

    array: NDArray
    origin: frozenset[str] = frozenset()

    @property
    def constant(self) -> NDArray:
        """The value, which is the same for all inputs.

        Raises
        ------
        NotUnderstoodError
            If it is not.
        """
        if self.origin:
            raise NotUnderstoodError(f"weights that depend on {' and '.join(sorted(self.origin))}")
        return self.array

    @property
    def number(self) -> float | None:
        """The number that all its elements are, if they are."""
        flat = self.array.reshape(-1)
        return float(flat[0]) if flat.size and (flat == flat[0]).all() else None


@dataclass(frozen=True, eq=False)
class Data:
    """A tensor that depends on data.

    Attributes
    ----------
    term : Term
    index : integers in the tensor's shape
        Which element of the term's value, flat, stands there.
    function : NDArray of float32
        Of each element, for `ARGUMENTS`.
    """

    term: Term
    index: NDArray[np.int64]
    function: NDArray[np.float32] = field(default_factory=lambda: ARGUMENTS)

    @property
    def plain(self) -> bool:
        """Whether elements are as they are in the term's value."""
        return self.function is ARGUMENTS or bool(np.allclose(self.function, ARGUMENTS, rtol=1e-6, atol=0))

    def moved(self, index: NDArray) -> Data:
        """The same elements in other places."""
        return replace(self, index=index)


def whole(term: Term, shape: tuple[int, ...] | None = None) -> Data:
    """A term's value as it is, in a tensor of some shape."""
    return Data(term, np.arange(int(np.prod(term.shape)), dtype=np.int64).reshape(shape or term.shape))


def factor(function: NDArray, half: bool) -> float | None:
    """The number that a function multiplies by, if that is all it does."""
    largest = float(function[-1]) / float(ARGUMENTS[-1])
    near = bool(np.allclose(function, ARGUMENTS * np.float32(largest), rtol=1e-3 if half else 1e-5, atol=1e-30))
    return largest if near else None


def elements(index: NDArray, term: Term) -> tuple[NDArray, NDArray] | None:
    """Rows and channels of a term's value that a tensor of (rows, channels) is made of; None if it is none such."""
    rows, channels = index[:, 0] // term.width, index[0] % term.width
    return (rows, channels) if np.array_equal(index, rows[:, None] * term.width + channels) else None


def settled(data: Data, half: bool, index: NDArray | None = None) -> Term:
    """The term whose value is a tensor, rows in order, channels last.

    Parameters
    ----------
    half : bool
        Constants are in float16.
    index : NDArray, shape (rows, channels), or None
        The tensor's, rearranged.

    Raises
    ------
    NotUnderstoodError
        If no operation gives it.
    """
    flat = data.index.reshape(-1, data.index.shape[-1] if data.index.ndim else 1) if index is None else index
    found = elements(flat, data.term)
    if found is None:
        found = elements(flat.reshape(-1, 1), data.term)
    if found is None:
        raise NotUnderstoodError(f"elements of {data.term.called} in an order that no layer takes")
    return _applied(_part(_finished(data), *found), data, half)


def _finished(data: Data) -> Term:
    """The operation that steps towards one are, where nothing follows."""
    term = data.term
    if term.kind == "normalized":
        one = np.ones(term.width, np.float32)
        term = replace(term, kind=Norm, attributes={**term.attributes, "weight": one, "bias": 0 * one})
    elif term.kind == "scaled":
        zero = np.zeros(term.width, np.float32)
        term = replace(term, kind=Norm, attributes={**term.attributes, "bias": zero})
    return term


def _part(term: Term, rows: NDArray, channels: NDArray) -> Term:
    if not np.array_equal(channels, np.arange(term.width)):
        if term.kind is not Linear:
            raise NotUnderstoodError(f"some channels of {term.called}")
        arrays = {n: term.attributes[n][channels] for n in ("weight", "bias")}
        term = replace(term, shape=(*term.shape[:-1], len(channels)), attributes=arrays)
    if np.array_equal(rows, np.arange(term.rows)):
        return term
    shape = (len(rows), term.width)
    if len(rows) == 1:
        token = int(rows[0]) if rows[0] < term.rows - 1 else -1
        return Term(Select, (term,), shape[1:], term.node, {"token": token})
    if np.array_equal(rows, np.arange(rows[0], term.rows)):
        return Term("rows", (term,), shape, term.node, {"first": int(rows[0])})
    raise NotUnderstoodError(f"some tokens of {term.called}")


def _scaled(term: Term, number: np.float32) -> Term | None:
    """A linear layer, or a sum of some, times a number."""
    if term.kind is Linear:
        return replace(term, attributes={n: term.attributes[n] * number for n in ("weight", "bias")})
    if term.kind is not Add:
        return None
    parts = [_scaled(t, number) for t in term.inputs]
    return replace(term, inputs=tuple(p for p in parts if p)) if all(parts) else None


def _applied(term: Term, data: Data, half: bool) -> Term:
    if data.plain:
        return term
    if (number := factor(data.function, half)) is not None and (scaled := _scaled(term, np.float32(number))):
        return scaled
    # Where spellings such as exp(x) / (1 + exp(x)) overflow, nothing is known.
    known = np.isfinite(data.function) | (np.abs(ARGUMENTS) <= _NEARBY)
    differences = {
        name: float((np.abs(function(ARGUMENTS) - data.function) / _UNITS)[known].max())
        for name, function in FUNCTIONS.items()
    }
    nearest = min(differences, key=lambda name: differences[name])
    if not differences[nearest] < (_NEAR_HALF if half else _NEAR):
        raise NotUnderstoodError(f"a function of every element of {term.called} that is none of {', '.join(FUNCTIONS)}")
    return Term(Activate, (term,), term.shape, term.node, {"function": nearest})
