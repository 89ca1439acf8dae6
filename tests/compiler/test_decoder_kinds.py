"""How a prompt is split into passes, and that each finds a program that looks far enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sta_hw.compiler.decoder.kinds import Kind, all_kinds, keys_of, most_tiles, split
from sta_hw.compiler.decoder.program import DecoderImage
from sta_hw.compiler.decoder.room import Keys
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

CONFIGS = {
    "decoder": PRESETS["decoder"], "reference": replace(PRESETS["reference"], features=("decoder",)),
    "ci": PRESETS["ci"], "4x8": Config(rows=4, groups=8, window=4, columns=64, drain_lanes=2),
    "16x4": Config(rows=16, groups=4, window=8, columns=64, drain_lanes=4),
}  # fmt: skip


def test_by_hand() -> None:
    """Of 8 rows, 4 tiles a pass; loading the weights takes as long as computing two tiles."""
    config = CONFIGS["decoder"]
    assert most_tiles(config) == 4
    assert split(config, 4, 0, 128, 1) == [(32, False)] * 3 + [(32, True)]
    assert split(config, 4, 1, 8, 1) == [(8, True)]  # two tiles are done as soon together as in two passes
    assert split(config, 4, 5, 3, 1) == [(3, True)]
    assert split(config, 4, 5, 40, 1) == [(27, False), (13, True)]
    assert split(config, 4, 5, 36, 1) == [(27, False), (9, True)]
    assert split(config, 4, 0, 40, 1) == [(32, False), (8, True)]
    assert split(config, 4, 0, 40, 9) == [(24, False), (8, True), (8, True)]
    assert split(config, 4, 3, 20, 20) == [(5, True), (8, True), (7, True)]
    assert sum(n for n, _ in split(config, 4, 1, 32_000, 1)) == 32_000


def test_programs_of_a_context() -> None:
    """A block of 256 keys, whole for a tile alone, and by quarter and half for the four tiles of a prompt's pass."""
    config = CONFIGS["decoder"]
    kinds = all_kinds(config, 256)
    several = [(4, 64), (4, 128), (4, 256)]
    expected = [
        (tiles, keys, logits) for some in ([(1, 256)], several) for logits in (False, True) for tiles, keys in some
    ]
    assert kinds == [Kind(*kind) for kind in expected]
    assert [k.keys for k in all_kinds(config, 257) if k.tiles == 1 and k.logits] == [256, 512]
    # Tiles end 24, 16, 8 and 0 rows before the pass does, in units of 16 keys; the shorter program's end is known.
    looks = {kind: keys_of(config, kind, kinds) for kind in kinds}
    assert looks[Kind(4, 64, True)] == Keys((48, 48, 64, 64), 0)
    assert looks[Kind(4, 128, False)] == Keys((112, 112, 128, 128), 40)
    assert looks[Kind(4, 256, True)] == Keys((256,) * 4, 104)
    assert looks[Kind(1, 256, False)] == Keys((256,), 0)
    small = CONFIGS["ci"]  # 4 rows, blocks of 32 keys in units of 4
    kinds = all_kinds(small, 32)
    assert [(k.tiles, k.keys) for k in kinds if k.logits] == [(1, 32), (2, 8), (2, 16), (2, 32)]
    assert keys_of(small, Kind(2, 8, False), kinds) == Keys((4, 8), 0)
    assert keys_of(small, Kind(2, 16, False), kinds) == Keys((12, 16), 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_token_is_looked_at(name: str) -> None:
    """Each row tile of each pass has keys up to its own last row, and waits for new ones wherever it reads them."""
    config, rng = CONFIGS[name], np.random.default_rng(1)
    rows, capacity = config.rows, 5 * config.groups * config.window // 2
    kinds = all_kinds(config, capacity)
    no, empty = (0,) * len(kinds), ((),) * len(kinds)
    image = DecoderImage(config, np.zeros(0, np.uint8), capacity, no, tuple(kinds), empty, 0, 0, 1, 1)
    assert image.most == most_tiles(config) > 1
    assert all(k.keys >= k.tiles * rows or k.keys % (config.groups * config.window) == 0 for k in kinds)
    for _ in range(400):
        position = int(rng.integers(capacity))
        count = int(rng.integers(1, capacity - position + 1))
        last = int(rng.integers(1, count + 1)) if rng.random() < 0.5 else 1
        parts, end = image.passes(position, count, last), position + count
        assert sum(n for n, _ in parts) == count
        for tokens, logits in parts:
            kind = kinds[image.number(position, tokens, logits=logits)]
            tiles = (position + tokens - 1) // rows - position // rows + 1
            assert kind.logits == logits == (position + tokens > end - last) and tiles <= kind.tiles
            # Logits are the last tile's: those of a pass before it are wanted of its only one.
            assert not logits or tiles == 1 or last <= (end - 1) % rows + 1
            keys = keys_of(config, kind, kinds)
            for tile, limit in enumerate(keys.limits[:tiles]):
                assert limit >= min((position // rows + tile + 1) * rows, kinds[-1].keys) and limit % config.groups == 0
            assert keys.before <= position // rows * rows and list(keys.limits) == sorted(keys.limits)
            length = image.length(position, tokens)
            assert -(-length // rows) == tiles and (length == tokens if tiles == 1 else not (position + length) % rows)
            position += tokens
