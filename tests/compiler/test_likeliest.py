"""Lists of the largest results, and a head's INT8 weights that score some tokens again, by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sta_hw.compiler.decoder.likeliest import MOST_NUMBERED, ExactHead, largest, scattered, with_exact_head
from sta_hw.compiler.parameters import LinearParameters
from sta_hw.errors import InputError
from sta_hw.spec.patterns import DENSE


def test_the_eight_largest() -> None:
    """The largest first, of equal ones the earlier."""
    rows = np.array([[5, 9, 9, -1, 0, 7, 8, 1, 2, 5], [0] * 10])
    assert MOST_NUMBERED == 2**18 - 1  # numbers have 18 bits, and the largest stands for none
    assert largest(rows).tolist() == [[1, 2, 6, 5, 0, 9, 8, 7], [0, 1, 2, 3, 4, 5, 6, 7]]


def test_results_in_their_places() -> None:
    found = scattered(np.array([[3, 0], [1, 2]]), np.array([[7, -2], [5, 4]]), 5)
    no = -np.inf
    assert found.tolist() == [[-2, no, no, 7, no], [no, 5, 4, no, no]]


@dataclass(frozen=True)
class Decoder:
    """What is looked at of a decoder in integers: the head and what it takes."""

    exact_head: LinearParameters | None
    widths: dict[str, int]
    linears: dict[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Any:
        operations = {"next_token": SimpleNamespace(inputs=("head",))}
        head = SimpleNamespace(name="head", inputs=("normed",))
        return SimpleNamespace(name="small", by_name=operations, linear={"head": head}.__getitem__)


HEAD = LinearParameters(
    np.array([[1, 2], [3, 4], [-5, 6]], np.int8), DENSE, np.array([10, 20, 30]), np.array([1 << 12] * 3),
    np.array([0, 0, 1]), np.zeros(3, np.int64),
)  # fmt: skip


@pytest.mark.parametrize("bits", [8, 15])
def test_some_tokens_are_scored_again(bits: int) -> None:
    """Sums and bias in 16 bits, each with its own shift: the third token's by 16 more."""
    of: Any = Decoder(HEAD, {"normed": bits})
    x = np.array([[100, 50], [-128 if bits == 15 else -127, 3]])
    found = ExactHead(of)(x, np.array([[0, 2], [1, 1]]))
    assert found.tolist() == [[210, -11], [x[1, 0] * 3 + 32] * 2]


def test_a_head_of_int8() -> None:
    of: Any = Decoder(HEAD, {}, {"head": 4, "other": 5})
    exact: Any = with_exact_head(of)
    assert exact.exact_head is None and exact.linears == {"head": HEAD, "other": 5}
    assert with_exact_head(exact) is exact
    with pytest.raises(InputError, match="small: the head's weights have 8 bits"):
        ExactHead(exact)
