"""A head's largest results: the tokens that may come next, and what they score with the head's INT8 weights.

A head in 4 bits finds the 8 likeliest tokens of a row; with INT8 weights, which the host keeps, they are scored again,
each with one sum over the last norm's results.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...model.families.decoders import NEXT
from ..parameters import Ints
from .arithmetic import Weights, requantize
from .integers import IntegerDecoderGraph

__all__ = ["LISTED", "MOST_NUMBERED", "ExactHead", "largest", "scattered", "with_exact_head"]

LISTED = 8
"""Results of each row that hardware lists (result BEST)."""
MOST_NUMBERED = (1 << 18) - 1
"""Results that lists tell apart: numbers have 18 bits, of which the largest stands for none."""


def largest(results: Ints) -> Ints:
    """Numbers of each row's `LISTED` largest results, the largest first, of equal ones the earlier: shape (rows, 8)."""
    return np.argsort(-results, axis=1, kind="stable")[:, :LISTED]


def scattered(numbers: Ints, results: Ints, vocabulary: int) -> NDArray[np.float64]:
    """Results in the place of their numbers, minus infinity in all others: shape (rows, vocabulary)."""
    found = np.full((len(numbers), vocabulary), -np.inf)
    np.put_along_axis(found, numbers, results.astype(np.float64), 1)
    return found


def with_exact_head(of: IntegerDecoderGraph) -> IntegerDecoderGraph:
    """The same decoder with INT8 weights of its head."""
    head = of.graph.linear(of.graph.by_name[NEXT].inputs[0])
    return (
        of if of.exact_head is None else replace(of, linears=of.linears | {head.name: of.exact_head}, exact_head=None)
    )


class ExactHead:
    """Scores of some tokens by the INT8 weights of a head whose own have 4 bits.

    Raises
    ------
    InputError
        If the head's own weights are INT8.
    """

    def __init__(self, of: IntegerDecoderGraph) -> None:
        head = of.graph.linear(of.graph.by_name[NEXT].inputs[0])
        if of.exact_head is None:
            raise InputError(f"{of.graph.name}: the head's weights have 8 bits; nothing is to be scored again.")
        self._parameters, self._bits = of.exact_head, of.widths[head.inputs[0]]

    def __call__(self, x: Ints, numbers: Ints) -> Ints:
        """The 16-bit logits of tokens, shape (rows, count), for what the head takes, shape (rows, width)."""
        p, found = self._parameters, np.empty(numbers.shape, np.int64)
        for row, some in enumerate(numbers):
            sums = Weights(p.weights[some]).sums(x[row : row + 1], self._bits)
            found[row] = requantize(sums, p.bias[some], p.multiplier[some], p.shift[some], wide=True)[0]
        return found
