"""Scales by hand: of values, channels, heads and scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sta_hw.compiler.scales import (
    LARGEST_FACTOR,
    channel_factors,
    factors,
    head_scales,
    least_squares_scale,
    linear_steps,
    percentile_scale,
    score_factor,
    score_limit,
    wide_scale,
)

NOTHING = 2.0**-100


def of_largest(values: NDArray) -> float:
    """A scale that is easy to tell."""
    return float(np.abs(values).max(initial=0)) / 127 or NOTHING


def test_the_scale_of_least_squares() -> None:
    """Of 36 shares of the largest value, 0.30, 0.32 and so on, the one with the least error."""
    rng = np.random.default_rng(0)
    shares = []
    for count, end in ((1000, 1.5), (1000, -1.5), (1500, 1.5), (1500, -1.5), (4000, 3.0), (4000, 0.5)):
        values = np.append(rng.normal(0, 0.3, count)[1:], end)
        largest, errors = np.abs(values).max(), {}
        for percent in range(30, 101, 2):
            scale = largest * percent / 100 / 127
            errors[scale] = ((np.clip(np.round(values / scale), -127, 127) * scale - values) ** 2).sum()
        best = min(errors, key=lambda scale: errors[scale])
        assert least_squares_scale(values.reshape(-1, 4)) == pytest.approx(best)
        shares.append(best * 127 / largest)
    assert {round(share, 2) for share in shares} == {0.98, 1}
    # What lies on a grid has that grid's scale.
    assert least_squares_scale(np.arange(-127, 128) * 0.5) == pytest.approx(0.5)
    assert least_squares_scale(np.zeros((3, 4))) == least_squares_scale(np.zeros(0)) == NOTHING


def test_of_many_values_some_are_looked_at() -> None:
    """Up to 60,000 all, beyond that every second, then every third."""

    def is_exact(count: int, every: int) -> bool:
        """Whether the largest value's grid is best, on which those at multiples of a number lie, and others do not."""
        values = np.where(np.arange(count) % every, 10.5 / 127, 0)
        values[0] = 1
        return least_squares_scale(values) == 1 / 127

    assert is_exact(60_000, 1) and not is_exact(60_000, 2)
    assert is_exact(60_001, 2) and is_exact(119_999, 2)
    assert is_exact(120_000, 3) and not is_exact(120_000, 2)


def test_the_scale_of_a_percentile() -> None:
    assert percentile_scale(-np.arange(10_001)) == pytest.approx(9_999 / 127)
    alone = np.zeros(30_000)
    alone[7] = -5
    assert percentile_scale(alone) == pytest.approx(5 / 127)
    assert percentile_scale(np.zeros(9)) == NOTHING


def test_scales_of_16_bits() -> None:
    values = np.array([[-4.0, 3.0]])
    assert wide_scale(values) == pytest.approx(1.5 * 4 / 32767)
    assert wide_scale(np.zeros((2, 2))) == wide_scale(np.zeros((0, 2))) == NOTHING
    # A LayerNorm's scales of up to 32 in 18 bits, its shifts in 16.
    assert wide_scale(values, np.array([-7.0, 1.0])) == pytest.approx(7 * 32 / 131071)
    assert wide_scale(values, np.array([0.1, 0.1]), np.array([-9.0, 1.0])) == pytest.approx(9 / 32767)
    assert wide_scale(values, np.array([0.1, 0.1]), np.array([5.0, 1.0])) == pytest.approx(1.5 * 4 / 32767)


@pytest.mark.parametrize(("alpha", "found"), [(0.5, [4, 1 / 4]), (0.75, [2**2.25, 2**-2.25])])
def test_what_channels_are_divided_by(alpha: float, found: list[float]) -> None:
    values = np.array([[-8.0, 0.125], [1.0, 0.25]])
    assert channel_factors(values, [np.array([[-1.0, 2.0]]), np.array([[0.5, 8.0]])], alpha) == pytest.approx(found)


def test_rows_that_are_loud() -> None:
    """What is more than eight times as loud as the median, or as soft, counts as if it were the median."""
    values, zeros = np.ones((1, 3)), [[0.0] * 3] * 4
    for unit in (1, 0.25):
        for loudest, counts in ((8.0, 8.0), (8.5, 1.0)):
            loud = unit * np.array([[0.25, 1, 0.5], [0.25, 1, 0.5], *zeros, [loudest, 0, 0]])
            found = channel_factors(values, [loud], 0.5)
            assert found / found[1] == pytest.approx([counts**-0.5, 1, 0.5**-0.5])
        soft = unit * np.array([[1, 0, 0.5], [1, 0, 0.5], [0, 1 / 32, 0], *zeros])
        found = channel_factors(values, [soft], 0.5)
        assert found / found[0] == pytest.approx([1, 1, 0.5**-0.5])


def test_channels_that_nothing_reads() -> None:
    """They neither count nor are what the one scale is made for; nor do channels that are always zero."""
    values = np.array([[1.0, 1.0, 50.0]])
    found = channel_factors(values, [np.array([[1.0, 4.0, 0.0]])], 0.5)
    assert found[:2] == pytest.approx([math.sqrt(2), math.sqrt(0.5)])
    assert (values / found).max() == pytest.approx((values / found)[0, 1])
    assert channel_factors(np.array([[0.0, 3.0]]), [np.array([[1.0, 0.0]])], 0.5) == pytest.approx([1, 1])
    # A channel of zeros counts as a thousandth of the largest, a weight as a hundred thousandth.
    zeros = channel_factors(np.array([[0.0, 0.01, 9.0]]), [np.array([[1.0, 1.0, 0.0]])], 0.5)
    assert zeros[1] / zeros[0] == pytest.approx(math.sqrt(1000))
    small = channel_factors(np.ones((1, 2)), [np.array([[1e-9, 1.0]])], 0.5)
    assert small[0] / small[1] == pytest.approx(math.sqrt(1e5))


def test_units_of_sums() -> None:
    absorbed = np.array([[0.5, -1.27], [0.0, 0.0], [1.27, 0.0], [0.0, 0.0]])
    found = linear_steps(absorbed, np.array([1.0, 0.0, -(2.0**26), 2.0**25]), np.array([9.0, 2.56, 9.0, 2.56]))
    assert found == pytest.approx([0.01, 0.01, 2.0**-4, 2.0**-5])


def heads_of(**given: NDArray) -> dict[str, NDArray]:
    """Queries, keys, values and contexts of heads of two channels, two tokens, that are all one but for `given`."""
    count = max(v.shape[-1] for v in given.values())
    return {name: given.get(name, np.ones((2, count))) for name in ("query", "key", "value", "context")}


def rows(*values: float) -> NDArray:
    """The same for both tokens but for its sign."""
    return np.array([values, [-v for v in values]])


def none(channels: int) -> list[NDArray]:
    """Least scales of nothing."""
    return [np.zeros(channels)] * 3


def test_queries_and_keys_share_a_scale() -> None:
    found = head_scales(**heads_of(query=rows(2, 1, 2, 1), key=rows(8, 4, 8, 4)), least=none(4), heads=2,
                        scale=of_largest)  # fmt: skip
    assert found.query == pytest.approx([2 / 127] * 4) and found.key == pytest.approx([8 / 127] * 4)
    assert found.products == pytest.approx([16 / 127**2] * 2)


def test_a_channel_of_large_queries_and_small_keys() -> None:
    """Its queries have a scale as much larger as that of its keys is smaller; up to a ratio of eight it has none."""
    for ratio, own in ((8.0, 1.0), (10.0, 10.0)):
        given = heads_of(query=rows(2 * ratio, 2, 2, 2), key=rows(2 / ratio, 2, 2, 2))
        found = head_scales(**given, least=none(4), heads=2, scale=of_largest)
        top = 2 * ratio / own
        assert found.query == pytest.approx(np.array([top * own, top, top, top]) / 127)
        assert found.key == pytest.approx(np.array([2 / own, 2, 2, 2]) / 127)
        assert found.products == pytest.approx([top * 2 / 127**2] * 2)


def test_a_head_that_is_unlike_the_others() -> None:
    """More than eight times their median, it has a scale of its own, and so has a head of zeros."""
    query = rows(1, 1, 1, 2, 16, 17, 0, 0)
    found = head_scales(**heads_of(query=query, key=np.ones((2, 8))), least=none(8), heads=4, scale=of_largest)
    assert found.products == pytest.approx(np.array([2, 2, 17, 127 * NOTHING * 127 * NOTHING]) / 127**2)
    inside = heads_of(query=rows(1, 1, 1, 2, 16, 16, 2, 1), key=np.ones((2, 8)))
    # The queries' channels are unlike, too: their ratio is what they are scaled by.
    assert head_scales(**inside, least=none(8), heads=4, scale=of_largest).query.max() == pytest.approx(16 / 127)


def test_the_softest_head_first() -> None:
    """An eighth of the median is near enough; with less a head has a scale of its own, and no channel of the next."""
    for reach, own in ((1 / 8, 1), (1 / 9, 1 / 9)):
        query = rows(reach, reach, 1, 1, 1, 1)
        found = head_scales(**heads_of(query=query), least=none(6), heads=3, scale=of_largest)
        assert found.products == pytest.approx(np.array([own, 1, 1]) / 127**2)


def test_heads_of_zeros_do_not_count() -> None:
    """Nor do channels of values: what is left is alike."""
    few = rows(1, 1, 2, 2, *[0] * 6)
    found = head_scales(**heads_of(query=few), least=none(10), heads=5, scale=of_largest)
    assert found.query[:4] == pytest.approx([2 / 127] * 4)
    found = head_scales(**heads_of(value=few), least=none(10), heads=5, scale=of_largest)
    assert found.value[:4] == pytest.approx([2 / 127] * 4)


def test_a_channel_of_zeros_on_one_side() -> None:
    """It adds nothing to any score, and does not widen the other side's range; without any other there is nothing."""
    given = heads_of(query=rows(0, 1, 1, 1), key=rows(1e6, 1, 1, 1))
    found = head_scales(**given, least=none(4), heads=2, scale=of_largest)
    assert found.key == pytest.approx([1 / 127] * 4) and found.query == pytest.approx([1 / 127] * 4)
    given = heads_of(query=rows(1e6, 1, 1, 1), key=rows(0, 1, 1, 1))
    found = head_scales(**given, least=none(4), heads=2, scale=of_largest)
    assert found.key == pytest.approx([1 / 127] * 4) and found.query == pytest.approx([1 / 127] * 4)
    given = heads_of(query=rows(0, 0), key=rows(3, 3))
    found = head_scales(**given, least=none(2), heads=1, scale=of_largest)
    assert found.products == pytest.approx([NOTHING**2])


def test_the_least_scales() -> None:
    """A head's scale is that of its channel with the largest least one; a value's is its channel's."""
    least = [np.array([0.0, 3.0, 0, 0]), np.array([0, 0, 0.0, 5.0]), np.array([0.0, 2.0, 0, 0])]
    alike = 127 * np.ones((2, 4))
    found = head_scales(**heads_of(query=alike, key=alike), least=least, heads=2, scale=of_largest)
    assert found.query == pytest.approx([3, 3, 1, 1]) and found.key == pytest.approx([1, 1, 5, 5])
    assert found.products == pytest.approx([3, 5])
    assert found.value == pytest.approx([1 / 127, 2, 1 / 127, 1 / 127])


def test_the_least_scale_of_a_channel_counts_as_its_range() -> None:
    """Of 100 beside keys of 1: a ratio of its own."""
    least = [np.array([100 / 127, 0, 0, 0]), np.zeros(4), np.zeros(4)]
    found = head_scales(**heads_of(query=np.ones((2, 4))), least=least, heads=2, scale=of_largest)
    assert found.query == pytest.approx(np.array([100, 10, 1, 1]) / 127)
    assert found.key == pytest.approx(np.array([1, 10, 10, 10]) / 127)


def test_values_and_contexts() -> None:
    """A context's scale is a power of two below its values', with the least error, the same for all heads."""
    value = rows(12.7, 6, 12, 12.7)
    for times, gain in ((1.0, 0), (0.5, 1), (2.0**-7, 7), (2.0**-9, 7)):
        found = head_scales(**heads_of(value=value, context=value * times), least=none(4), heads=2, scale=of_largest)
        assert found.gain.tolist() == [gain] * 2 and found.value == pytest.approx([0.1] * 4)
    # Of one sign alone: 64 of 0.1 fit with a gain of 0, 63.45 better with a gain of 1, which stores 127 of 0.05.
    # No gain is more than 7.
    for steps, gain in (((64, 10.4), 0), ((63.45, 10), 1), ((33.4 / 128, 33.4 / 128), 7)):
        for sign in (0.1, -0.1):
            context = sign * np.resize(steps, (2, 4))
            found = head_scales(**heads_of(value=value, context=context), least=none(4), heads=2, scale=of_largest)
            assert found.gain.tolist() == [gain] * 2
    # A channel of 500 beside them has a scale of its own, and if its context needs more, that.
    loud = rows(12.7, 508, 12, 12.7)
    context = rows(6.35, 508, 6, 6)
    found = head_scales(**heads_of(value=loud, context=context), least=none(4), heads=2, scale=of_largest)
    assert found.gain.tolist() == [1, 1] and found.value == pytest.approx([0.1, 8, 0.1, 0.1])
    context = rows(6.35, 25.4, 6, 6)
    found = head_scales(**heads_of(value=loud, context=context), least=none(4), heads=2, scale=of_largest)
    assert found.value == pytest.approx([0.1, 4, 0.1, 0.1])
    found = head_scales(**heads_of(value=rows(0, 0), context=rows(0, 0)), least=none(2), heads=1, scale=of_largest)
    assert found.gain.tolist() == [0] and found.value.tolist() == [NOTHING] * 2


def test_what_scores_reach() -> None:
    """In natural units, where 16 bits have six fraction bits, or three."""
    assert score_limit(0) == pytest.approx(32767 / 64 * math.log(2))
    assert score_limit(1) == pytest.approx(32767 / 8 * math.log(2))


TWO = math.log(2)


@pytest.mark.parametrize(
    ("product", "largest", "factor", "coarse"),
    [
        (TWO / 2, 1, 8, 0),  # in heads of 16 channels a product is a quarter of a score
        (TWO / 2, score_limit(0) / 1.5, 8, 0),
        (TWO / 2, score_limit(0) / 1.5 * 1.001, 1, 1),
        (LARGEST_FACTOR * TWO / 16, 1, LARGEST_FACTOR, 0),
        (TWO, 1, 2, 1),  # a factor of 16 does not fit
        (TWO / 2, score_limit(1) / 1.5 * 0.999, 1, 1),
        (TWO / 2, score_limit(1) / 1.5 * 2, 0.5, 1),  # beyond the coarse range scores shrink to fit
        (7 * TWO, score_limit(1) / 1.5 * 2, 7, 1),
        (20 * TWO, score_limit(1) / 1.5 * 2, LARGEST_FACTOR, 1),  # 20 does not fit, and shrinks too
        (120 * TWO, score_limit(1) / 1.5 * 2, LARGEST_FACTOR, 1),
        (135 * TWO, score_limit(1) / 1.5 * 2, 135, 1),  # more than eight times the limit is refused later
        (20 * TWO, score_limit(1) / 1.5, 40, 1),
    ],
)
def test_factors_of_scores(product: float, largest: float, factor: float, coarse: int) -> None:
    found, is_coarse = score_factor(product, 16, largest)
    assert found == pytest.approx(factor) and is_coarse == coarse


def test_factors_of_requantizations() -> None:
    multiplier, shift = factors(np.array([1.0, LARGEST_FACTOR * 1.1, 2.0**-8]))
    assert multiplier.tolist() == [1 << 12, 65535, 1 << 12] and shift.tolist() == [0, 0, 2]
    assert multiplier.dtype == shift.dtype == np.int64
