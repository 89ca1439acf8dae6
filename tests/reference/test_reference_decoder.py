"""The reference of the index decoders: beats of small matrices by hand."""

from __future__ import annotations

import numpy as np

from sta_hw.reference.decoder import decoded_beats
from sta_hw.spec.patterns import Pattern


def test_two_columns_two_passes() -> None:
    """2:4, two groups, depth 4, two taps: the second column's positions are those of the second tap."""
    weights = np.zeros((2, 9), np.int8)
    weights[0, [1, 3, 6]] = 5, -6, 7  # group 0: 1 and 3; group 1: 2, and 0 fills up
    weights[1, 8] = 9  # the second pass
    values, addresses, flags = decoded_beats(weights, Pattern(2, 4), 2, 4, 2)
    assert values.tolist() == [[5, 0], [-6, 7], [0, 0], [0, 0], [0, 0], [0, 0], [9, 0], [0, 0]]
    assert addresses.tolist() == [[1, 0], [3, 2], [4, 4], [5, 5], [0, 0], [1, 1], [4, 4], [5, 5]]
    # First and last beat of a column, first and last pass, last beat of a pass; a result is complete.
    assert flags[:, :5].tolist() == [
        [1, 0, 1, 0, 0], [0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0, 1, 1, 0, 1],
        [1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 1],
    ]  # fmt: skip
    assert not flags[:, 5:8].any()
    assert flags[:, 8].tolist() == [0, 0, 0, 0, 0, 1, 0, 1]


def test_sub_groups_of_a_window() -> None:
    """1:2 in a window of 6: three sub-groups, with places in all of it; two columns of one tap."""
    weights = np.array([[0, 1, 2, 0, 0, 3], [4, 0, 0, 0, 0, 0]], np.int8)
    values, addresses, flags = decoded_beats(weights, Pattern(1, 2), 1, 6, 1)
    assert values[:, 0].tolist() == [1, 2, 3, 4, 0, 0]
    assert addresses[:, 0].tolist() == [1, 2, 5, 0, 2, 4]
    assert flags[:, 4].tolist() == [0, 0, 0, 0, 0, 1]
    assert flags[:, 8].tolist() == [0, 0, 1, 0, 0, 1]


def test_no_reduction_is_one_pass_of_zeros() -> None:
    values, addresses, flags = decoded_beats(np.zeros((1, 0), np.int8), Pattern(1, 1), 1, 2, 1)
    assert values.tolist() == [[0], [0]] and addresses.tolist() == [[0], [1]]
    assert flags[:, :5].tolist() == [[1, 0, 1, 1, 0], [0, 1, 1, 1, 1]]
