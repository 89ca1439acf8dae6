"""Programs that take shorter texts than they were compiled for, by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_golden import small_encoder

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.packing import Place
from sta_hw.compiler.shorter import mean_windows, shortened, smallest, takes_shorter
from sta_hw.errors import InputError
from sta_hw.formats.provenance import bytes_digest
from sta_hw.spec.presets import PRESETS


def program(tokens: int, texts: int = 1) -> Any:
    return SimpleNamespace(tokens=tokens, packing=SimpleNamespace(texts=[None] * texts))


def test_the_smallest_that_holds_a_text() -> None:
    programs = [program(9), program(3), program(5, 2), program(5), program(3)]
    assert [takes_shorter(p) for p in programs] == [True, True, False, True, True]
    assert [smallest(programs, tokens) for tokens in (1, 3, 4, 5, 6, 9)] == [1, 1, 3, 3, 0, 0]
    with pytest.raises(InputError, match="10 tokens, and there are programs for up to 3, 5, 9; compile a larger one"):
        smallest(programs, 10)
    with pytest.raises(InputError, match="all programs are for batches of texts; compile one for a text of 4 tokens"):
        smallest([program(9, 3), program(5, 2)], 4)


def test_what_is_changed_for_a_shorter_text() -> None:
    """The text, the mean's windows and share, and the work that is told; nothing else."""
    model = compile_encoder(small_encoder(), PRESETS["ci"], 7)
    assert shortened(model, 7) is model and model.info.mean_windows is not None
    offset, depth, blocks = model.info.mean_windows
    found = shortened(model, 2)
    assert found.tokens == 2 and found.texts == (Place(0, 2),) and found.length == 2
    assert found.instructions is model.instructions and found.checksum is None
    # Two tokens count three times each: six of the seven that the parameters divide by.
    windows = mean_windows(model, 2)
    size = blocks * model.config.groups * depth
    assert windows.shape == (size, 4) and windows.dtype == np.uint8
    assert sorted(windows[:, 0]) == [0] * (size - 2) + [3, 3] and (windows == windows[:, :1]).all()
    assert (found.image[offset : offset + 4 * size].reshape(size, 4) == windows).all()
    same = np.ones(len(model.image), bool)
    same[offset : offset + 4 * size] = False
    assert (found.image == model.image)[same].all() and (found.image != model.image).any()
    assert found.info.pooled_shares == (6 / 7,)
    for before, after in zip(model.info.layers, found.info.layers, strict=True):
        assert after.work == pytest.approx(before.work * ((2 / 7) ** 2 if before.bytes == 0 else 2 / 7))
    assert {row.bytes == 0 for row in model.info.layers} == {True, False}
    assert found.info.ideal_cycles == pytest.approx(sum(row.work for row in found.info.layers) / model.config.macs)
    noted = shortened(replace(model, checksum=bytes_digest(model.image)), 2)
    assert noted.checksum == bytes_digest(found.image)
    without = shortened(replace(model, info=replace(model.info, mean_windows=None)), 2)
    assert without.image is model.image and without.info.pooled_shares == (1.0,)


def test_what_is_no_shorter_text() -> None:
    model = compile_encoder(small_encoder(), PRESETS["ci"], 7)
    for tokens in (0, 8):
        with pytest.raises(InputError, match=f"takes up to 7 tokens, not {tokens}"):
            shortened(model, tokens)
    assert shortened(model, 1).tokens == 1
    with pytest.raises(InputError, match="a batch of 2 texts"):
        shortened(compile_encoder(small_encoder(), PRESETS["ci"], (2, 3)), 1)
