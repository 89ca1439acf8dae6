"""N:M patterns as they are written, kept in order, and refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sta_hw.errors import ConfigError, InputError
from sta_hw.spec.patterns import DENSE, Pattern, listed, parse_nm, patterns_in_order


def test_lists_of_words() -> None:
    assert [listed(words) for words in ([2], [2, 4], ["a", "b", "c"])] == ["2", "2 or 4", "a, b or c"]


@pytest.mark.parametrize(
    ("text", "n", "m"), [("2:4", 2, 4), (" 1:2 ", 1, 2), ("DENSE", 1, 1), ("32:32", 32, 32), ("08:016", 8, 16)]
)
def test_what_is_read(text: str, n: int, m: int) -> None:
    found = parse_nm(text)
    assert (found.n, found.m) == (n, m)
    assert Fraction(n, m) == Fraction(found.density) and found.dense == (n == m)
    assert str(found) == ("dense" if m == 1 else f"{n}:{m}")


@pytest.mark.parametrize(
    "text", ["", ":", "2", "2:", ":4", "2:x", "x:4", "2:4:8", "-2:4", "2:+4", "2.0:4", "²:4", "2 : 4"]
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form N:M; write for example 2:4, or dense"):
        parse_nm(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0:4", r"N = 0 \(in 0:4\) is out of range; 1 <= N <= M, the nearest is 1:4"),
        ("5:4", r"N = 5 \(in 5:4\) is out of range; 1 <= N <= M, the nearest is 4:4"),
        ("1:1", r"M = 1 \(in 1:1\) is not supported; M is one of 2, 4, 8, 16 or 32, the nearest is 2"),
        ("2:6", r"M = 6 .* the nearest is 4"),
        ("2:7", r"M = 7 .* the nearest is 8"),
        ("2:24", r"M = 24 .* the nearest is 16"),
        ("2:123456789", r"M = 123456789 .* the nearest is 32"),
        ("2:1234567890", r"M = 1000000000 \(in 2:1234567890\)"),  # numbers of ten digits and more are not computed
        ("9" * 5000 + ":4", "N = 1000000000 .* the nearest is 4:4"),
    ],
)
def test_what_is_out_of_range(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_nm(text)


def test_patterns_of_other_kinds() -> None:
    with pytest.raises(ConfigError, match="N:M pattern 5 is no text"):
        parse_nm(5)
    with pytest.raises(InputError, match="N"):
        Pattern(1.5, 4)
    with pytest.raises(InputError, match="M"):
        Pattern(1, "4")
    assert Pattern(1, 1) == DENSE


def test_order() -> None:
    """By M and then N; dense ones last, each once, and ``any`` first; words that are none leave all as it was."""
    words = ("dense", "3:4", "1:8", "2:4", "any", "4:4", "2:4", "any", "1:2")
    assert patterns_in_order(words) == ("any", "1:2", "2:4", "3:4", "1:8", "dense", "4:4")
    assert patterns_in_order(("2:4", "nothing", "1:2")) == ("2:4", "nothing", "1:2")
    assert patterns_in_order(()) == ()
