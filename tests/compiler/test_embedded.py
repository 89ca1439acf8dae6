"""Sums of embeddings in 16 bits, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.compiler.embedded import quantize_embedded
from sta_hw.errors import InputError


def test_one_scale_for_all() -> None:
    """Rounded to even, cut off beyond 32767 on both sides, and those counted."""
    found, saturated = quantize_embedded(
        np.array([[0.25, -0.75], [16383.5, -16383.5], [16384.0, -9e9], [9e9, 9e9]]), 0.5
    )
    assert found.tolist() == [[0, -2], [32767, -32767], [32767, -32767], [32767, 32767]]
    assert saturated == 4
    assert found.dtype == np.int64
    assert quantize_embedded(np.array([[3, 4]], np.int16), 1.0)[0].tolist() == [[3, 4]]


def test_a_scale_for_each_token() -> None:
    """A token is centred, and its largest value becomes 32767, whatever it holds; those of zeros stay so."""
    found, saturated = quantize_embedded(
        np.array([[1.0, 3.0, 5.0], [-40.0, 20.0, 20.0], [0.0, 0.0, 0.0], [0.0, 0.0, 7e-4]]), 0.0
    )
    assert (
        found.tolist() == [[-32767, 0, 32767], [-32767, 16384, 16384], [0, 0, 0], [-16384, -16384, 32767]]
        and saturated == 0
    )
    # Of a token whose channels are alike but for a millionth, nothing is left: that is fp32's rounding.
    nearly = np.array([[-1e6, -1e6, -1e6 - 1.4]])
    assert quantize_embedded(nearly, 0.0)[0].tolist() == [[0, 0, 0]]
    assert quantize_embedded(np.array([[1e6, 1e6 - 2]]), 0.0)[0].tolist() == [[32767, -32767]]
    assert quantize_embedded(np.array([[-1e6, -1e6, -1e6 - 6.0]]), 0.0)[0].tolist() == [[16384, 16384, -32767]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([["a", "b"]], "is of <U1; it is of numbers"),
        ([[1 + 2j]], "is of complex128"),
        ([[0, 1], [2, np.nan]], "token 1, channel 1, is nan; values must be finite"),
        ([[0, 1], [-np.inf, np.nan]], "token 1, channel 0, is -inf"),
        ([[1.0, 2.0], [0.0, 1e-9]], "token 1, has the variance 2.5e-19"),
    ],
)
def test_what_is_no_sum(values: list[list[float]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        quantize_embedded(np.array(values), 0.0)
