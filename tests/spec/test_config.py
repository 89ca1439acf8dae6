"""Configuration: presets, derived values, and one sentence for each problem."""

from __future__ import annotations

import dataclasses

import pytest

from sta_hw.errors import ConfigError
from sta_hw.spec.config import Config
from sta_hw.spec.features import FEATURES
from sta_hw.spec.patterns import Pattern, parse_nm
from sta_hw.spec.presets import BOARD_PRESETS, PRESETS, preset


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": 0}, "rows = 0 is out of range; it is a whole number from 1 to 256, the nearest is 1."),
        ({"groups": 1000}, "groups = 1000 is out of range; it is a whole number from 1 to 128, the nearest is 128."),
        ({"window": 12}, "window = 12 is not supported; it is 4, 8, 16 or 32, the nearest is 8."),
        ({"columns": 300}, "columns = 300 is not a power of two; the nearest is 256."),
        ({"columns": 2}, "columns = 2 is too few to pipeline; the nearest is 4."),
        ({"lanes": 5}, "lanes = 5 does not divide rows = 16; the nearest is 4."),
        ({"lanes": -1}, "lanes = -1 is out of range"),
        ({"softmax_lanes": 0}, "softmax_lanes = 0 is out of range"),
        ({"softmax_block": 12}, "softmax_block = 12 is not a multiple of softmax_lanes = 8; the nearest is 16."),
        (
            {"multiplier": "dps"},
            "multiplier 'dps' is unknown; it is auto, dsp, lut, pair, dsp-pair, mac16, nexus or gowin, "
            "the nearest is dsp.",
        ),
        ({"window_memory": "flash"}, "window_memory 'flash' is unknown; it is block or distributed"),
        ({"encodings": ("bitmask",)}, "encoding 'bitmask' is unknown; it is index or bitmap, the nearest is bitmap."),
        ({"encodings": ()}, "encodings is empty; name index, bitmap or both."),
        (
            {"features": ("rms", "casual")},
            "feature 'casual' is unknown; it is causal, rms, position, gate, rotary, best, digits, blocks4 or decoder, "
            "the nearest is causal.",
        ),
        ({"nm": ()}, "nm is empty"),
        ({"nm": ("any", "2:4")}, "mixes any with patterns"),
        ({"nm": ("2:24",)}, "M = 24 (in 2:24) is not supported; M is one of 2, 4, 8, 16 or 32, the nearest is 16."),
        ({"nm": ("5:4",)}, "N = 5 (in 5:4) is out of range; 1 <= N <= M, the nearest is 4:4."),
        ({"nm": ("half",)}, "N:M pattern 'half' is not of the form N:M"),
        ({"nm": ("2:32",)}, "needs a window that M = 32 divides, and window is 16"),
    ],
)
def test_each_problem_has_its_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**change)
    assert sentence in str(error.value)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("rows", 1, 256), ("groups", 1, 128), ("columns", 1, 4096), ("softmax_lanes", 1, 64),
        ("softmax_block", 0, 4096), ("weight_words", 1, 65536), ("parameter_words", 1, 65536),
        ("norm_columns", 1, 4096), ("burst", 1, 256), ("outstanding", 1, 64), ("array_multipliers", 0, 65536),
        ("window_words", 0, 65536), ("loads_ahead", 0, 1),
    ],
)  # fmt: skip
def test_limits(name: str, low: int, high: int) -> None:
    assert getattr(Config(**{"softmax_block": 0, name: high}), name) == high
    for value, nearest in ((high + 1, high), (low - 1, low)):
        with pytest.raises(ConfigError) as error:
            Config(**{name: value})
        assert error.value.problems == (
            f"{name} = {value} is out of range; it is a whole number from {low} to {high}, the nearest is {nearest}.",
        )
    with pytest.raises(ConfigError, match=f"{name} = True is out of range"):
        Config(**{name: True})


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Config(rows=0, window=12, nm=("2:24", "5:4"), multiplier="x")
    assert len(error.value.problems) == 5
    with pytest.raises(ConfigError) as error:  # sizes in range, which do not go together
        Config(rows=3, lanes=2, drain_lanes=2, columns=100, window=12, softmax_block=12)
    assert [p.split(" = ")[0] for p in error.value.problems] == ["columns", "window", "lanes", "softmax_block"]


def test_unknown_preset() -> None:
    with pytest.raises(
        ConfigError, match=r"preset 'refrence' is unknown; there are ci, tiny.*the nearest is reference"
    ):
        preset("refrence")
    assert preset("huge").rows == 64 and preset("huge").groups == 32


def test_lanes_and_block_are_chosen() -> None:
    assert [Config(rows=r).lanes for r in (1, 3, 5, 12, 16, 22)] == [1, 3, 5, 6, 8, 2]
    assert Config(softmax_lanes=4).softmax_block == 4


def test_patterns_and_widths() -> None:
    narrow = Config(nm=("2:4", "dense", "4:16"))
    assert narrow.patterns == (Pattern(1, 1), Pattern(2, 4), Pattern(4, 16))
    assert narrow.index_widths == (2, 4)
    assert len(Config(window=4).patterns) == 1 + 2 + 4
    assert not Config(nm=("dense",)).sparse
    with pytest.raises(ConfigError, match="1:4 is not built into this hardware; it runs dense, 2:4, 4:16"):
        narrow.require(parse_nm("1:4"))


def test_derived() -> None:
    five = Config(rows=5, groups=3)
    assert (five.macs, five.hard_multipliers, five.value_rows, five.abilities) == (15, 15, 5, ())
    for change, hard in (
        ({"multiplier": "pair"}, 9), ({"multiplier": "mac16", "array_multipliers": 4}, 4), ({"multiplier": "lut"}, 0),
        ({"array_multipliers": 14}, 14), ({"array_multipliers": 16}, 15),
    ):  # fmt: skip
        assert dataclasses.replace(five, **change).hard_multipliers == hard
    for window, groups, share, bits, words in (
        (4, 16, 8, 2, 512), (8, 2, 2, 3, 512), (16, 8, 2, 4, 256), (32, 8, 1, 5, 256),
    ):  # fmt: skip
        found = Config(window=window, groups=groups, weight_words=1024)
        assert (found.block_groups, found.address_width, found.position_words) == (share, bits, words)
    assert Config(rows=4, groups=16, window_words=512).abilities == ("windows", "apart")
    assert Config(rows=4, groups=4).abilities == () and Config(rows=4, groups=16).value_rows == 16
    kinds = {"pair": "auto", "dsp-pair": "dsp", "mac16": "lut", "nexus": "nexus"}
    assert {k: Config(multiplier=k).vector_multiplier for k in kinds} == kinds
    plain = [
        k
        for k in ("auto", "lut", "pair", "dsp", "dsp-pair", "mac16")
        if not Config(multiplier=k).instantiates_primitives
    ]
    assert plain == ["auto", "lut", "pair"]


@pytest.mark.parametrize(
    ("good", "change", "sentence"),
    [
        ({}, {"rows": 24}, "rows a power of two, and rows = 24; the nearest is 16."),
        ({"drain_lanes": 1}, {"lanes": 2}, "has lanes = 2 bytes; .*, the nearest is 4."),
        (
            {"lanes": 4, "drain_lanes": 2},
            {"drain_lanes": 4},
            "at most lanes = 4, and drain_lanes is 4; the nearest is 2.",
        ),
        ({"rows": 32, "groups": 2}, {"rows": 64}, "groups x window = 32 .*, and rows is 64; the nearest is 32."),
        ({"rows": 64, "lanes": 64, "burst": 64}, {"burst": 128}, "beats of 64 bytes exceed .*; the nearest is 64."),
    ],
)
def test_what_no_accelerator_has(good: dict, change: dict, sentence: str) -> None:
    base = {"rows": 16, "groups": 4, "lanes": 8, "drain_lanes": 2}
    Config(**base | good).require_accelerator()
    with pytest.raises(ConfigError, match=sentence) as error:
        Config(**base | good | change).require_accelerator()
    assert len(error.value.problems) == 1


def test_presets_stay_as_programs_and_boards_know_them() -> None:
    """What a name stands for: a program is for hardware of one hash."""
    assert {name: config.hash for name, config in (PRESETS | BOARD_PRESETS).items()} == {
        "ci": "6a6855a4e072403e", "tiny": "0144d27db780b472", "small": "f7c366cd422986b3",
        "reference": "1ef189f8ac71a7d3", "decoder": "1a0f313574598b23", "medium": "24fc7142537a2223",
        "large": "24f94a4eb2e5318e", "huge": "460e40e720f38b3d",
        "ecp5-85f": "ab0181b67b8a716e", "ecp5-45f": "5e052e3939683e96", "ecp5-25f": "32c2dbee0ff44469",
        "ecp5-85f-decoder": "66617d3f13b9d1d4", "ecp5-85f-decoder-sdram": "193638b9cdad2a1f",
        "ecp5-85f-256": "7ee071326aaf9a5f", "up5k": "93095fc3731cf3c3",
    }  # fmt: skip


def test_hash_depends_on_every_parameter() -> None:
    base = PRESETS["reference"]
    changes = {
        "rows": 32, "groups": 4, "window": 32, "nm": ("2:4",), "encodings": ("index",), "lanes": 4,
        "drain_lanes": 2, "columns": 256, "weight_words": 4096,
        "parameter_words": 512, "norm_columns": 64, "burst": 8, "outstanding": 4,
        "multiplier": "lut", "window_memory": "distributed", "softmax_lanes": 4, "softmax_block": 64,
        "array_multipliers": 8, "features": ("rms",), "window_words": 512, "loads_ahead": 1,
    }  # fmt: skip
    assert set(changes) == {f.name for f in dataclasses.fields(Config)}
    hashes = {dataclasses.replace(base, **{k: v}).hash for k, v in changes.items()}
    assert len(hashes | {base.hash}) == len(changes) + 1


def test_positions_come_in_whole_bytes() -> None:
    """A word of positions of one group of four would be half a byte."""
    with pytest.raises(ConfigError, match=r"1 x 4 is 4; the nearest is groups = 2\."):
        Config(rows=4, groups=1, window=4, lanes=4, drain_lanes=2).require_accelerator()
    Config(rows=4, groups=2, window=4, lanes=4, drain_lanes=2).require_accelerator()


def test_features_come_in_one_order_and_change_no_hash_when_there_are_none() -> None:
    base = PRESETS["reference"]
    some = dataclasses.replace(base, features=("position", "rms", "position"))
    assert some.features == ("rms", "position")
    assert dataclasses.replace(base, features=("decoder", "rms")).features == tuple(FEATURES)
    assert some.program_hash != base.program_hash and dataclasses.replace(some, features=()) == base
    assert (base.hash, base.program_hash) == ("1ef189f8ac71a7d3", "9356bc5ffdeffaea")
