"""The reference of each row's largest results: by hand."""

from __future__ import annotations

import numpy as np

from sta_hw.reference.best import BestRows


def test_ten_columns_by_hand() -> None:
    """8 of them stay; of equal ones those that came first; numbers have 18 bits."""
    lists = BestRows(2)
    assert lists.results.tolist() == [[-32768] * 8] * 2
    assert lists.numbers.tolist() == [[262143] * 8] * 2
    lists.add(np.array([[1, -5], [3, 0], [2, 0], [3, 7]], np.int16), 262142)
    assert lists.results[0].tolist() == [3, 3, 2, 1, *[-32768] * 4]
    assert lists.numbers[0].tolist() == [262143, 1, 0, 262142, *[262143] * 4]
    assert lists.results[1].tolist() == [7, 0, 0, -5, *[-32768] * 4]
    assert lists.numbers[1].tolist() == [1, 262143, 0, 262142, *[262143] * 4]
    lists.add(np.array([[0, 1], [9, 2], [3, 3], [2, 4], [-1, 5], [-32768, 6]], np.int16), 50)
    assert lists.results.tolist() == [[9, 3, 3, 3, 2, 2, 1, 0], [7, 6, 5, 4, 3, 2, 1, 0]]
    assert lists.numbers.tolist() == [
        [51, 262143, 1, 52, 0, 53, 262142, 50], [1, 55, 54, 53, 52, 51, 50, 262143],
    ]  # fmt: skip
    stored = lists.stored()
    assert len(stored) == 2 * 8 * 8
    assert bytes(stored[:16]).hex() == "3300000009000000ffff030003000000"
    assert bytes(stored[64:72]).hex() == "0100000007000000"
