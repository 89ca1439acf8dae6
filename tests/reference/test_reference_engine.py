"""The reference of the engine's sums: by hand, wrapped to 32 bits, and with taps."""

from __future__ import annotations

import numpy as np

from sta_hw.reference.engine import matrix_sums, sums_per_entry


def test_sums_by_hand() -> None:
    found = matrix_sums([[1, 2], [3, -4], [0, 255]], np.array([[10, 1], [-128, 127]], np.int8))
    assert found.tolist() == [[12, 26, 255], [126, -892, 32385]]
    assert found.dtype == np.int32


def test_sums_wrap() -> None:
    """65,535 times 127, 300 times: 2,496,883,500 is 2^32 - 1,798,083,796."""
    found = matrix_sums(np.full((1, 300), 65535, np.uint16), np.full((1, 300), 127, np.int8))
    assert found.tolist() == [[65535 * 127 * 300 - 2**32]]
    assert found.tolist() == [[-1798083796]]


def test_columns_take_turns_with_taps() -> None:
    """Columns 0, 2 and 4 read the first tap's activations; 1 and 3 the second's."""
    activations = [[1, 0], [2, 0], [3, 0], [4, 0]]  # taps of two rows
    weights = np.array([[1, 9], [10, 9], [2, 9], [20, 9], [3, 9]], np.int8)
    assert sums_per_entry(activations, weights, 2, 2).tolist() == [[1, 2], [30, 40], [2, 4], [60, 80], [3, 6]]
    assert sums_per_entry(activations, weights[:1], 4, 1).tolist() == [[1, 2, 3, 4]]
