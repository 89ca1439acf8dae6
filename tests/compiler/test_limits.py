"""What no program can hold: each size's own sentence, at its limit and one beyond."""

from __future__ import annotations

import dataclasses
from functools import partial
from operator import ge
from typing import Any

import pytest

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.limits import (
    most,
    require_program,
    require_shape,
    require_text,
    run_columns,
    shape_problems,
    sizes_of,
)
from sta_hw.compiler.lower.chunks import Cut, chunk_width
from sta_hw.compiler.lower.parts import WindowPart
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.shapes import shape_graph
from sta_hw.errors import ConfigError, InputError
from sta_hw.model.random import random_model
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import DENSE, parse_nm
from sta_hw.spec.presets import PRESETS

CONFIG = dataclasses.replace(PRESETS["small"], weight_words=1024)
SHAPE = {"tokens": 16, "layers": 2, "hidden": 64, "heads": 4, "intermediate": 128}


@pytest.mark.parametrize(
    ("good", "change", "sentence"),
    [
        ({}, {"tokens": 0}, "tokens = 0 is out of range; it is from 1 to 1048576, the nearest is 1."),
        ({"tokens": 1 << 20}, {"tokens": (1 << 20) + 1}, "to 1048576, the nearest is 1048576."),
        ({"layers": 10_000}, {"layers": 10_001}, "layers = 10001 is out of range; it is from 1 to 10000,"),
        ({"hidden": 16376, "heads": 2047}, {"hidden": 16384}, "to 16383 (LayerNorm's limit), the nearest is 16383."),
        ({"hidden": 8, "heads": 1}, {"hidden": 0}, "hidden = 0 is out of range; it is from 1 to 16383, the nearest"),
        ({"heads": 8}, {"heads": 65}, "heads = 65 is out of range; it is from 1 to 64, the nearest is 64."),
        ({"heads": 1}, {"heads": 0}, "heads = 0 is out of range; it is from 1 to 64, the nearest is 1."),
        ({"intermediate": 8191 * 128}, {"intermediate": 1 << 20}, "from 1 to 1048448, the nearest is 1048448."),
        ({}, {"heads": 12}, "heads = 12 does not divide hidden = 64; the nearest is 8."),
        ({"heads": 8}, {"heads": 16}, "head dimension 4 does not fit: it must be a multiple of groups = 8, at most "
         "groups x window = 128; groups = 4 would do."),
        ({"hidden": 512}, {"hidden": 1024}, "groups x window = 128; groups = 16 would do."),
        ({"hidden": 352, "heads": 11}, {"hidden": 1064, "heads": 7}, "groups x window = 128; its largest "
         "power of two is 8, which with window = 16 makes 128."),
        ({}, {"intermediate": 130}, "intermediate size 130 is no multiple of groups = 8; the nearest is 128."),
        ({"intermediate": 8}, {"intermediate": 3}, "size 3 is no multiple of groups = 8; the nearest is 8."),
    ],
)  # fmt: skip
def test_each_size(good: dict[str, int], change: dict[str, int], sentence: str) -> None:
    assert not shape_problems(CONFIG, **SHAPE | good)
    problems = shape_problems(CONFIG, **SHAPE | good | change)
    assert len(problems) == 1 and sentence in problems[0]
    with pytest.raises(InputError) as error:
        require_shape(CONFIG, **SHAPE | good | change)
    assert str(error.value) == problems[0]


def test_heads_and_hidden_sizes() -> None:
    assert shape_problems(dataclasses.replace(CONFIG, columns=32), **SHAPE | {"heads": 1}) == [
        "head dimension 64 exceeds columns = 32."
    ]
    assert not shape_problems(dataclasses.replace(CONFIG, columns=64), **SHAPE | {"heads": 1})
    problems = shape_problems(CONFIG, **SHAPE | {"hidden": 60, "heads": 5})
    assert [p.partition(" is")[0] for p in problems] == [
        "head dimension 12 does not fit: it must be a multiple of groups = 8, at most groups x window = 128; groups = "
        "4 would do.", "hidden size 60",
    ]  # fmt: skip
    with pytest.raises(ConfigError):
        require_shape(Config(rows=5), **SHAPE)
    tall = Config(rows=256, groups=16, window=16, lanes=4, drain_lanes=2, columns=4096)
    assert not shape_problems(tall, **SHAPE | {"hidden": 8176, "heads": 511})
    (problem,) = shape_problems(tall, **SHAPE | {"hidden": 8192, "heads": 512})
    assert "from 1 to 8191 (LayerNorm's limit)" in problem


@pytest.mark.parametrize(
    ("name", "pattern", "most_weights", "wanted"),
    [
        (
            "0.output.dense",
            "dense",
            {"intermediate": 576},
            "8 columns of 584 weights at dense take 584 words, .*; 2048",
        ),
        ("0.output.dense", "2:4", {"intermediate": 1160}, "8 columns of 1168 weights at 2:4 take 584 words"),
        ("0.attention.output.dense", "dense", {"hidden": 576, "heads": 72}, "8 columns of 584 weights at dense take"),
        ("0.intermediate.dense", "dense", {"hidden": 576, "heads": 72}, "8 columns of 584 weights at dense take"),
    ],
)
def test_weights_on_chip(name: str, pattern: str, most_weights: dict[str, int], wanted: str) -> None:
    """The columns of one load fit beside the next ones, in 0.57 of the memory."""
    patterns = {name: parse_nm(pattern)}
    assert not shape_problems(CONFIG, **SHAPE | most_weights, patterns=patterns)
    (size, value), *_ = most_weights.items()
    more = SHAPE | most_weights | {size: value + 8} | ({"heads": 73} if size == "hidden" else {})
    with pytest.raises(InputError, match=f"{name}: {wanted}"):
        require_shape(CONFIG, **more, patterns=patterns)


def test_the_longest_program() -> None:
    """The number that the sentence gives fits, and one more does not."""

    def refused(**change: Any) -> str:
        with pytest.raises(InputError) as error:
            require_program(CONFIG, **SHAPE | change)
        return str(error.value)

    said = refused(tokens=20_000)
    assert "2 layers of 4 heads with 20000 tokens take 6,310,000 products, and a program has room for 131,070; " in said
    assert "at most 2816 tokens fit, or hardware" in said
    require_program(CONFIG, **SHAPE | {"tokens": 2816})
    refused(tokens=2817)
    assert "take fewer layers" in refused(layers=10_000)
    said = refused(tokens=1 << 20, intermediate=4000)
    assert "the activations of 1048576 tokens take more than the 4 GiB" in said and "at most 888856 tokens fit" in said
    assert "more than the 4 GiB" in refused(tokens=888_857, intermediate=4000)
    assert "products, and a program" in refused(tokens=888_856, intermediate=4000)


def test_a_run_has_fewer_bus_words_than_20_bits_count() -> None:
    """Results of 16 bits and windows of a product, where a tile has 64 bus words a column."""
    config = Config(
        rows=256, groups=8, window=32, lanes=4, drain_lanes=2, columns=64, weight_words=65536, parameter_words=65536
    )
    assert 2 * 256 * run_columns(config) < 4 << 20 <= 2 * 256 * (run_columns(config) + 1)
    cut = Cut((WindowPart(0, 8, DENSE, "dense", 1, 1),), digits=False, blocks=None)
    chunks = [len(range(0, n, chunk_width(_Chip(config), "head", n, cut))) for n in (8184, 8192, 20_000)]
    assert chunks == [1, 2, 3]
    shape = {"hidden": 8, "heads": 1, "layers": 1, "tokens": 5}
    compile_encoder(shape_graph(8, 1, 1, 63 * 256), config, 5)
    with pytest.raises(InputError, match="intermediate = 16384 is out of range; it is from 1 to 16128, the nearest"):
        require_shape(config, **shape, intermediate=16384)


class _Chip(Lowering):
    """What `chunk_width` looks at."""

    def __init__(self, config: Config) -> None:
        self.config, self.words_before = config, 0


def test_the_longest_text() -> None:
    require_text(65_535)
    with pytest.raises(InputError, match=r"a text of 65,536 tokens; .* the nearest is 65,535"):
        require_text(65_536)


def test_the_largest_number_that_fits() -> None:
    for limit in range(9):
        assert most(partial(ge, limit), 8) == limit
    assert sizes_of(random_model(0, hidden=32, heads=2, layers=3, intermediate=48)) == {
        "layers": 3, "hidden": 32, "heads": 2, "intermediate": 48,
    }  # fmt: skip
