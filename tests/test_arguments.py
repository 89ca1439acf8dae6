"""What callers in Python give: legal kinds come through as Python's own, all else is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sta_hw.arguments import flag, path_of, real, require_function, require_kind, several, text_of, token_ids, whole
from sta_hw.errors import ConfigError, InputError
from sta_hw.formats.nm import encode
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern, parse_nm
from sta_hw.spec.presets import configured, preset
from sta_hw.tasks.api import load
from sta_hw.tasks.sampling import Sampler, Sampling

NO_WHOLE = [True, False, 1.0, 1.5, float("nan"), float("inf"), "1", b"1", None, [1], 1j, Fraction(1), np.True_,
            np.float32(1), np.array([1]), np.array(1.0), np.array([[1]])]  # fmt: skip
"""What is nearly a whole number."""


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_whole(value: object) -> None:
    assert type(whole(value, "n")) is int and whole(value, "n") == 3


@pytest.mark.parametrize("value", NO_WHOLE, ids=repr)
def test_no_whole(value: object) -> None:
    with pytest.raises(InputError, match=r"^n is .*; it is a whole number"):
        whole(value, "n")


def test_the_nearest() -> None:
    with pytest.raises(InputError, match=r"n is 7.6; it is a whole number, the nearest is 8"):
        whole(7.6, "n")


@pytest.mark.parametrize("value", [2, 2.0, np.float16(2), np.int64(2), np.array(2.0), Fraction(2)])
def test_real(value: object) -> None:
    assert type(real(value, "x")) is float and real(value, "x") == 2.0


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), "2", b"2", None, [2.0], 1j, np.array([2.0]), np.array([2.0, 3.0]), 10**400],
    ids=repr,
)
def test_no_real(value: object) -> None:
    with pytest.raises(InputError, match=r"^x is .*; it is a number\.$"):
        real(value, "x")


def test_texts() -> None:
    assert text_of("a\0\u202e\U0001f600", "t") == "a\0\u202e\U0001f600"
    for value in (None, 5, b"a", ["a"], Path("a")):
        with pytest.raises(InputError, match=r"^t is .*; it is a text"):
            text_of(value, "t")
    with pytest.raises(InputError, match=r"t holds U\+D800 at place 1"):
        text_of("a\ud800", "t")


def test_lists() -> None:
    for values in ([1, 2], (1, 2), range(1, 3), iter([1, 2]), np.array([1, 2]), np.array([1, 2], np.uint8)):
        assert token_ids(values, "t") == [1, 2]
    assert token_ids([], "t") == []
    for values in ("12", b"12", Path("12"), {1: 2}, {1, 2}, None, 12, np.array(12)):
        with pytest.raises(InputError, match=r"^t is .*list of token ids"):
            token_ids(values, "t")
    with pytest.raises(InputError, match=r"token 1 of t is 2.5"):
        token_ids([1, 2.5], "t")
    assert several(["a"], "t", "texts") == ["a"]


def test_paths(tmp_path: Path) -> None:
    assert path_of("a", "p") == path_of(Path("a"), "p") == Path("a")
    assert path_of(tmp_path / "not/there", "p") == tmp_path / "not/there"
    for value in (None, 5, b"a", ["a"], "", "a\0b", "x" * 5000, tmp_path / ("y" * 300)):
        with pytest.raises(InputError, match=r"^p is "):
            path_of(value, "p")


def test_kinds() -> None:
    require_kind(None, "k", Config, type(None))
    with pytest.raises(InputError, match="k is 'ci', of type str; it is Config or None"):
        require_kind("ci", "k", Config, type(None))


def test_flags() -> None:
    for value in (True, False, np.True_, np.False_):
        assert flag(value, "f") is bool(value)
    for wrong in ("no", "", 0, 1, None, 1.0, np.array([True]), []):
        with pytest.raises(InputError, match=r"^f is .*; it is True or False"):
            flag(wrong, "f")


def test_functions() -> None:
    require_function(print, "report")
    with pytest.raises(InputError, match="report is 5, of type int; it is a function"):
        require_function(5, "report")


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.compile(tokens=4, loops="no"), lambda m: m.compile(tokens=4, after=1),
        lambda m: m.prune("2:4", report="x"), lambda m: m.embed(["a"], check="no"),
        lambda m: m.embed(["a"], progress=1),
    ],
)  # fmt: skip
def test_of_models(call: Callable[[Any], object]) -> None:
    """Before anything is computed."""
    with pytest.raises(InputError, match=r"it is (True or False|a function)"):
        call(load())


@pytest.mark.parametrize("name", ["rows", "groups", "window", "lanes", "drain_lanes", "softmax_block", "loads_ahead"])
def test_configurations_of_other_numbers(name: str) -> None:
    """A truth value, a fraction or a text is no size, even where Python holds it for equal to one."""
    legal = {"loads_ahead": 1, "window": 16}.get(name, 8)
    assert type(getattr(Config(**{name: np.int32(legal)}), name)) is int
    assert Config(**{name: np.int32(legal)}).hash == Config(**{name: legal}).hash
    for value in (float(legal), str(legal), None, [legal], float("nan"), True, False):
        with pytest.raises(ConfigError, match=f"^{name} = "):
            Config(**{name: value})


def test_the_same_hardware_by_other_words() -> None:
    """Its hash is one, and so are its programs."""
    one = Config(nm=("2:4", "1:8", "dense"), encodings=("index", "bitmap"), features=("rms", "causal"))
    other = Config(nm=("dense", "1:8", "02:4", " 2:4 ", "Dense"), encodings=("bitmap", "index", "bitmap"),
                   features=("causal", "rms", "rms"))  # fmt: skip
    assert one == other and one.hash == other.hash and other.nm == ("2:4", "1:8", "dense")
    for wrong in ("any", "5:4", "x"):
        with pytest.raises(ConfigError):
            Config(nm=("2:4", wrong))
    with pytest.raises(ConfigError, match="encoding"):
        Config(encodings=("index", "none"))


@pytest.mark.parametrize("name", ["nm", "encodings", "features"])
@pytest.mark.parametrize("value", ["2:4", None, 5, (None,), (b"2:4",), ([],), (Pattern(2, 4),)], ids=repr)
def test_configurations_of_other_words(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} (is|holds) "):
        Config(**{name: value})


@pytest.mark.parametrize("nm", [(0, 4), (5, 4), (-1, 4), (2, 3), (0, 0), (1, 64), (2.0, 4), ("2", 4), (True, 2)])
def test_patterns(nm: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        Pattern(*nm)


def test_names() -> None:
    for value in (None, 24, b"2:4", (2, 4), Pattern(2, 4)):
        with pytest.raises(ConfigError, match="is no text; write for example 2:4"):
            parse_nm(value)
    for value in (None, 1, [], b"ci", Path("ci")):
        with pytest.raises(ConfigError, match="is unknown; there are"):
            preset(value)
    assert configured("ci") is preset("ci") and configured(preset("ci")) is preset("ci")
    with pytest.raises(ConfigError, match=r"a configuration is a sta_hw.spec.config.Config or the name .*, not 5"):
        configured(5)


@pytest.mark.parametrize(
    ("weights", "more", "says"),
    [
        (5, {}, "no matrix"), (np.zeros(4, np.int8), {}, "no matrix"), (np.full((1, 4), np.nan), {}, "no matrix"),
        ([[300, 0, 0, 0]], {}, "from -128 to 127"), ([[0.5, 0, 0, 0]], {}, "whole numbers"),
        ([[1, 0, 0, 0]], {"groups": 0}, "groups = 0"), ([[1, 0, 0, 0]], {"groups": True}, "groups is True"),
        ([[1, 0, 0, 0]], {"window": 0}, "and window 0"), ([[1, 0, 0, 0]], {"depth": 4.0}, "depth is 4.0"),
        ([[1, 0, 0, 0]], {"encoding": []}, "encoding"), ([[1, 0, 0, 0]], {"pattern": "2:4"}, "pattern is '2:4'"),
    ],
)  # fmt: skip
def test_matrices(weights: object, more: dict[str, object], says: str) -> None:
    """A weight of 300 was 44, and one of a half nothing."""
    settings = {"pattern": Pattern(2, 4), "groups": 2, "window": 16} | more
    with pytest.raises(InputError, match=says):
        encode(weights, **settings)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "seed"])
def test_sampling(name: str) -> None:
    for value in ("1", None, [1], True, float("nan"), -1):
        with pytest.raises(InputError, match=name.replace("_", ".")):
            Sampling(**{name: value})
    for whole_number in ("top_k", "seed"):
        with pytest.raises(InputError, match="whole number, the nearest is 2"):
            Sampling(**{whole_number: 1.5})


@pytest.mark.filterwarnings("error")
def test_the_smallest_temperature() -> None:
    assert Sampler(Sampling(5e-324)).choose(np.array([1.0, 3.0, 2.0], np.float32)) == 1
