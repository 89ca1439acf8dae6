"""What becomes of results, by hand from docs/isa.md and docs/numerics.md: which bytes, which rows, what counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sta_hw.errors import CheckError
from sta_hw.reference.instructions import Fetched
from sta_hw.reference.memories import AddressError, Memories
from sta_hw.reference.results import Results
from sta_hw.spec.isa import Opcode, Result, Target
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
"""4 rows, 2 groups, a bus of 4 bytes; values of 2 rows are counted side by side."""
NONE = dict.fromkeys(
    ("result", "bits15", "multiply", "rotate", "residual_address", "apart", "result_address", "rows_before",
     "rows_after", "row_first", "row_last"), 0,
)  # fmt: skip


def store(columns: list[list[int]], second: list[int] | None = None, **fields: int) -> Results:
    """Results over an image of 64 bytes of 85."""
    results = Results(Memories(np.full(64, 85, np.uint8), CONFIG), 0, 0)
    put(results, columns, second, **fields)
    return results


def put(results: Results, columns: list[list[int]], second: list[int] | None = None, **fields: int) -> None:
    found = np.array(columns, np.int16)
    results.store(found, np.array(second or [0] * len(found)), Fetched(int(Opcode.PRODUCT), 0, 0, NONE | fields))


def stored(results: Results, kind: str = "i1", at: int = 8, count: int = 8) -> list[int]:
    """So many values of the image from `at` on; what is around them is as it was."""
    image, size = results.memories.image, count * int(kind[1])
    assert (image[:at] == 85).all() and (image[at + size :] == 85).all()
    return image[at : at + size].view(f"<{kind}").tolist()


def test_8_bits() -> None:
    results = store([[1, 2, 3, -4], [-127, 127, 126, 0]], result_address=8)
    assert stored(results) == [1, 2, 3, -4, -127, 127, 126, 0]
    assert results.saturated == {
        "saturated_scores": 0, "saturated_sums": 0, "saturated_norms": 0, "saturated_results": 1
    }  # fmt: skip
    ((address, data),) = results.memories.stores
    assert address == 8 and data.view(np.int8).tolist() == [1, 2, 3, -4, -127, 127, 126, 0]
    put(results, [[127, 0, 0, -127]], result_address=8)
    assert results.saturated["saturated_results"] == 3


def test_16_bits_and_15() -> None:
    columns = [[1, -2, 300, 32766], [32767, 0, -32767, -16383]]
    results = store(columns, result=int(Result.STORE16), result_address=8)
    assert stored(results, "i2") == columns[0] + columns[1]
    assert (results.saturated["saturated_sums"], results.saturated["saturated_results"]) == (2, 0)
    results = store(columns, result=int(Result.STORE16), result_address=8, bits15=1)
    assert stored(results, "i2") == [1, -2, 300, 16383, 16383, 0, -16383, -16383]
    assert results.saturated["saturated_sums"] == 3


def test_transposed() -> None:
    """Byte (c / 2 x 4 + r) x 2 + c mod 2."""
    columns = [[10 * c + r for r in range(4)] for c in range(4)]
    results = store(columns, result=int(Result.TRANSPOSE), result_address=8)
    assert stored(results, count=16) == [0, 10, 1, 11, 2, 12, 3, 13, 20, 30, 21, 31, 22, 32, 23, 33]
    results = store(columns, result=int(Result.TRANSPOSE), result_address=8, rows_before=1, rows_after=2)
    assert stored(results, count=16) == [85, 85, 1, 11, 85, 85, 85, 85, 85, 85, 21, 31, 85, 85, 85, 85]


def test_rows_that_are_not_stored() -> None:
    columns = [[0, 1, 2, 3], [10, 11, 12, 13]]
    results = store(columns, result_address=8, rows_before=1, rows_after=1)
    assert stored(results) == [85, 1, 2, 85, 85, 11, 12, 85]
    assert [(address, data.tolist()) for address, data in results.memories.stores] == [(9, [1, 2]), (13, [11, 12])]
    wide = store(columns, result=int(Result.STORE16), result_address=8, rows_before=2)
    assert stored(wide, "i2") == [0x5555, 0x5555, 2, 3, 0x5555, 0x5555, 12, 13]
    assert stored(store(columns, result_address=8, rows_after=3)) == [0, 85, 85, 85, 10, 85, 85, 85]
    assert stored(store(columns, result_address=8, rows_before=4, rows_after=8)) == [0, 1, 2, 3, 10, 11, 12, 13]
    # Rows of what saturates count, whether they are stored or not.
    assert store([[127, 0, 0, 0]], result_address=8, rows_before=2).saturated["saturated_results"] == 1


@pytest.mark.parametrize(
    ("length", "position", "before", "after", "rows"),
    [(2, 5, 0, 0, [1, 2]), (1, 3, 0, 0, [3]), (4, 4, 0, 0, [0, 1, 2, 3]), (1, 4, 1, 3, [1]), (2, 4, 1, 3, [1, 2])],
)
def test_rows_from_the_position_on(length: int, position: int, before: int, after: int, rows: list[int]) -> None:
    results = Results(Memories(np.full(64, 85, np.uint8), CONFIG), length, position)
    put(results, [[0, 1, 2, 3]], result_address=8, place=1, rows_before=before, rows_after=after)
    assert stored(results, count=4) == [row if row in rows else 85 for row in range(4)]


def with_table(entries: dict[int, int], residual: list[int] | None = None) -> Results:
    results = Results(Memories(np.full(128, 85, np.uint8), CONFIG), 0, 0)
    table = np.zeros(256, "<i2")
    table[list(entries)] = list(entries.values())
    results.memories.chip[Target.TABLE][:] = table.view(np.uint8).reshape(256, 2)
    results.memories.filled[Target.TABLE][:] = 41
    if residual:
        results.memories.image[64 : 64 + 2 * len(residual)] = np.array(residual, "<i2").view(np.uint8)
    return results


def test_activation() -> None:
    """Halves are rounded up; -1 is entry 255."""
    entries = {1: 101, 255: -101, 127: 32767, 0: 7}
    results = with_table(entries)
    put(results, [[1, -1, 127, 0]], [0x8000], result=int(Result.ACTIVATE), result_address=8)
    assert stored(results, count=4) == [51, -50, 127, 4]
    assert results.memories.sources == {41} and results.saturated["saturated_results"] == 1
    results = with_table(entries)
    put(results, [[1, -1, 127, 0]], [0x8000], result=int(Result.ACTIVATE), result_address=8, bits15=1)
    assert stored(results, "i2", count=4) == [51, -50, 16383, 4]
    assert results.saturated["saturated_sums"] == 1


def test_residual() -> None:
    """Half of the stream is added to the first column, all but nothing to the second."""
    results = with_table({}, [10, -10, 10, 3, 32767, 32767, -32767, 0])
    put(results, [[100, -100, 32767, 0], [5, 6, -32767, 8]], [0x8000, 1], result=int(Result.RESIDUAL),
        residual_address=64, result_address=64)  # fmt: skip
    found = results.memories.image[64:80].view("<i2").tolist()
    assert found == [105, -105, 32767, 2, 5, 6, -32767, 8]
    assert results.saturated["saturated_sums"] == 2


def test_gate() -> None:
    """The first of a pair goes through the table with its own multiplier; what is beyond 8 bits counts as 127."""
    entries = {1: 0x4000, 127: -0x4000, 129: 0x2000, 255: 0}
    for mode, kind in ((Result.ACTIVATE, "i1"), (Result.STORE16, "i2")):
        results = with_table(entries)
        put(results, [[1, 300, -300, -1], [80, 80, 8, 99], [1, 1, 1, 1], [8000, -8000, 16, 8]], [0x8000, 9, 0x4000, 7],
            result=int(mode), result_address=8, multiply=1)  # fmt: skip
        second = [127, -127, 1, 1] if mode == Result.ACTIVATE else [500, -500, 1, 1]
        assert stored(results, kind) == [10, -10, 1, 0, *second]


def test_rotation() -> None:
    """By 0, a quarter, a half, and by both a half: columns of 640 and -128 of 6 fraction bits; then all a quarter."""
    one = 1 << 14
    results = with_table({}, [one, 0, -one, one // 2, 0, one, 0, one // 2, 0, 0, 0, 0, one, one, one, one])
    put(results, [[640] * 4, [-128] * 4, [64] * 4, [-320] * 4], result_address=8, rotate=1, residual_address=64)
    found = results.memories.image[8:24].view(np.int8).tolist()
    assert found == [10, 2, -10, 6, -2, 10, 2, 4, 5, 5, 5, 5, 1, 1, 1, 1]


def test_lists_of_the_largest() -> None:
    results = Results(Memories(np.full(512, 85, np.uint8), CONFIG), 0, 0)
    memories, number = results.memories, (1 << 18) - 1
    with pytest.raises(CheckError, match="there are none: no product had row_first"):
        put(results, [[1, 2, 3, 4]], result=int(Result.BEST))
    memories.begin(5)
    put(results, [[1, 2, 3, 4]], result=int(Result.BEST), row_first=1, residual_address=10)
    assert not memories.stores and not memories.sources
    memories.begin(6)
    put(results, [[2, 2, 2, 2]], result=int(Result.BEST), row_last=1, residual_address=11, result_address=64)
    assert memories.sources == {5}
    lists = memories.image[64 : 64 + 4 * 8 * 8].view("<i4").reshape(4, 8, 2)
    assert (lists[:, 2:] == (number, -32768)).all()
    assert lists[:, :2].tolist() == [[[11, 2], [10, 1]], [[10, 2], [11, 2]], [[10, 3], [11, 2]], [[10, 4], [11, 2]]]
    assert (memories.image[:64] == 85).all() and (memories.image[64 + 256 :] == 85).all()
    assert [address for address, _ in memories.stores] == [64]
    assert not any(results.saturated.values())


def test_rows_apart() -> None:
    """Of 8 groups: a column has 8 bytes, of which a tile's 4 rows are written."""
    config = replace(CONFIG, groups=8)
    memories = Memories(np.full(64, 85, np.uint8), config)
    put(Results(memories, 0, 0), [[1, 2, 3, 4], [5, 6, 7, 8]], result_address=12, apart=1)
    assert memories.image[8:32].tolist() == [85] * 4 + [1, 2, 3, 4] + [85] * 4 + [5, 6, 7, 8] + [85] * 8
    put(Results(memories, 0, 0), [[1, 2, 3, 4]], result_address=56, apart=1)
    with pytest.raises(AddressError, match="bytes 60 to 68 are outside"):  # the bytes between columns are looked at
        put(Results(memories, 0, 0), [[1, 2, 3, 4]], result_address=60, apart=1)
    wide = replace(CONFIG, rows=8, groups=16)
    with pytest.raises(CheckError, match="from address 12 on, which is no multiple of 8"):
        put(Results(Memories(np.zeros(64, np.uint8), wide), 0, 0), [[0] * 8], result_address=12, apart=1)
