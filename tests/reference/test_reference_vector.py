"""The reference of the vector operations: values by hand; norms against docs/numerics.md in fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest

from sta_hw.reference.vector import activate, add_residual, digits, gated, inverse_root_table, layer_norm, rotated

ONE = 65535
"""The largest multiplier: next to 1."""


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def limited(value: int, most: int) -> int:
    return max(-most, min(most, value))


def test_activation_by_hand() -> None:
    """The table's entry by the lower 8 bits; half of it, rounded half up; both saturations."""
    table = np.arange(256) * 3
    table[[7, 8, 9, 10]] = 254, 256, -256, 32767
    assert activate([0, 1, 2, -1, -128], table, 1 << 15).tolist() == [0, 2, 3, 127, 127]
    assert activate([7, 8, 9], table, 1 << 15).tolist() == [127, 127, -127]
    assert activate([1, 2, -1, 127], table, 1 << 14, wide=True).tolist() == [1, 2, 191, 95]
    assert activate([10], table, ONE, wide=True).tolist() == [32767]
    table[[11, 12]] = -32768, 1
    assert activate([11, 12], table, [ONE, (1 << 15) - 1], wide=True).tolist() == [-32767, 0]
    assert activate([0], table, 1).dtype == np.int8
    assert activate([0], table, 1, wide=True).dtype == np.int16


@pytest.mark.parametrize(
    ("value", "high", "low"),
    [(0, 0, 0), (127, 0, 127), (128, 1, 0), (-1, -1, 127), (-128, -1, 0), (-129, -2, 127), (16383, 127, 127),
     (-16384, -128, 0), (16384, -128, 0), (-16385, 127, 127), (32767, -1, 127), (-32768, 0, 0)],
)  # fmt: skip
def test_digits_by_hand(value: int, high: int, low: int) -> None:
    found = digits([value])
    assert (found[0].tolist(), found[1].tolist()) == ([high], [low])


def test_residual_by_hand() -> None:
    """Half of 3 is 2, of -3 is -1; what is beyond 16 bits saturates."""
    assert add_residual([10, 10, 0], [3, -3, 1], 1 << 15).tolist() == [12, 9, 1]
    assert add_residual([32766, -32766, 32000], [3, -5, -1], [ONE, ONE, ONE]).tolist() == [32767, -32767, 31999]
    assert add_residual([0], [1], (1 << 15) - 1).tolist() == [0]


def test_gates_by_hand() -> None:
    table = np.arange(256) << 7
    table[-127] = -(1 << 14)
    # The table's values times a half: 2^6 a step.
    assert gated([4, 2, 1], [1024, 1024, 512], table, 1 << 15, wide=False).tolist() == [4, 2, 1]  # 1/2 goes up
    assert gated([4, 4, 4], [-128, -129, 384], table, 1 << 15, wide=False).tolist() == [0, -1, 2]
    # Gates beyond 8 bits are its ends, and what comes of them saturates.
    assert gated([127, 128, 30000], [32767] * 3, table, ONE, wide=True).tolist() == [8128, 8128, 8128]
    assert gated([-127, -128, -30000], [8] * 3, table, ONE, wide=True).tolist() == [-2, -2, -2]
    assert gated([127, -127], [32767] * 2, table, ONE, wide=False).tolist() == [127, -127]
    full = np.full(256, 32767)
    assert gated([0, 0], [32767, -32768], full, ONE, wide=True).tolist() == [16383, -16383]


def test_rotation_by_hand() -> None:
    """14 fraction bits of cosine and sine, and 6 more of the results."""
    one = 1 << 14
    found = rotated([6400, 6400, 100], [640, 640, 32], [one, 0, one], [0, one, 0])
    assert [f.tolist() for f in found] == [[100, -10, 2], [10, 100, 1]]
    assert [int(f[0]) for f in rotated([31], [33], [one], [one])] == [0, 1]  # -2/64, 64/64
    assert [int(f[0]) for f in rotated([32], [0], [one], [-one])] == [1, 0]  # 32/64 and -32/64: half up
    assert [int(f[0]) for f in rotated([8128, 0], [0, 0], [one, 0], [one, 0])] == [127, 127]
    assert [int(f[0]) for f in rotated([8192], [0], [one], [-one])] == [127, -127]


def test_the_table_of_roots() -> None:
    """``2**16 / sqrt(v)`` to the nearest, in whole numbers: v is ``(1025 + 2 i) / 1024``, then twice as much."""
    expected = []
    for times in (1, 2):
        for i in range(512):
            # The square of twice the value is 2**34 / v, and a half more of that rounds.
            doubled = isqrt(floor(Fraction(2**34 * 1024, times * (1025 + 2 * i))))
            expected.append((doubled + 1) // 2)
    assert inverse_root_table().tolist() == expected


def normalized(
    x: list[int], scale: list[int], shift: list[int], multiplier: list[int], inverse: int, *, rms: bool, epsilon: int,
    most: int,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """A row by docs/numerics.md, number after number."""
    count, table = len(x), inverse_root_table().tolist()
    total = 0 if rms else sum(x)
    variance = count * sum(v * v for v in x) - total**2 + 2**14 * epsilon
    mean = half_up(Fraction(abs(total) * inverse, 2**32)) * (1 if total >= 0 else -1)
    root = places = 0
    if variance:
        exponent = variance.bit_length() - 1
        digits9 = variance * 2**9 // 2**exponent % 512
        root = table[512 * (exponent % 2) + digits9]
        places = max(0, exponent // 2 + 5 - (count.bit_length() - 1))
    wide, narrow = [], []
    for v, s, add, m in zip(x, scale, shift, multiplier, strict=True):
        normal = limited(half_up(Fraction((2 * v - mean) * root, 2**places)), 131071)
        wide.append(limited(half_up(Fraction(normal * s, 2**16)) + add, most))
        narrow.append(limited(half_up(Fraction(wide[-1] * m, 2**16)), 127))
    return wide, narrow


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16, 33, 64])
@pytest.mark.parametrize(("rms", "epsilon"), [(False, 0), (True, 0), (True, 12345), (False, (1 << 28) - 1)])
def test_norms_step_by_step(count: int, rms: bool, epsilon: int) -> None:
    rng = np.random.default_rng(count)
    size = np.array([1, 3, 40, 1000, 32767, 32767])[:, None]
    x = rng.integers(-size, size + 1, (6, count))
    x[-1] = rng.choice([-32767, 32767], count)
    x[0] = 5
    x[1] = -1
    scale = rng.integers(-(1 << 17) + 1, 1 << 17, count)
    shift = rng.integers(-32768, 32768, count)
    multiplier = rng.integers(0, 65536, count) >> rng.integers(0, 9, count)
    inverse = round(2**33 / count)
    for short, most in ((False, 32767), (True, 16383)):
        wide, narrow = layer_norm(
            x, scale, shift, multiplier, inverse, rms=rms, epsilon=epsilon, short=short
        )  # fmt: skip
        for row, values in enumerate(x.tolist()):
            numbers = (scale.tolist(), shift.tolist(), multiplier.tolist())
            expected = normalized(values, *numbers, inverse, rms=rms, epsilon=epsilon, most=most)
            assert (wide[row].tolist(), narrow[row].tolist()) == expected, row


@pytest.mark.parametrize("sign", [-1, 1])
def test_more_than_32_deviations(sign: int) -> None:
    """One number of 2,048 that is not zero lies 45 deviations from the mean, and 18 bits hold 32."""
    x = [0] * 2047 + [sign * 20_000]
    numbers = [3 << 13] * 2048, [-32760 * sign] * 2048, [1 << 10] * 2048
    wide, narrow = layer_norm([x], *numbers, 2**33 // 2048)
    # Three eighths of 131,071, rounded: 49,152.
    assert wide[0, -1] == sign * (49152 - 32760)
    assert (wide[0].tolist(), narrow[0].tolist()) == normalized(
        x, *numbers, 2**33 // 2048, rms=False, epsilon=0, most=32767
    )  # fmt: skip


def test_a_row_by_hand() -> None:
    """Four numbers of mean 2 and deviation 1: (2 x - 4) / 2 in 12 fraction bits, but for the table's half step."""
    wide, narrow = layer_norm([[1, 3, 1, 3]], [1 << 16] * 4, [0, 0, 5, 0], [1 << 10] * 4, 2**33 // 4)
    # V = 4 * 20 - 64 = 16: the first of 512 steps of [1, 2), 65,504; 2 + 5 - 2 places.
    assert wide.tolist() == [[-4094, 4094, -4089, 4094]]
    assert narrow.tolist() == [[-64, 64, -64, 64]]
