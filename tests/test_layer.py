"""The demo: a real layer of a real model through the RTL."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sta_hw.config import PRESETS, parse_nm
from sta_hw.errors import ConfigError, InputError
from sta_hw.model.layer import QuantizedLayer
from sta_hw.model.minilm import MiniLM
from sta_hw.runtime.rtl import EngineModel, SoftmaxModel

TEXT = "Compute a checksum of a block of data and compare it with another"


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM.load()


@pytest.fixture(scope="module")
def hardware() -> tuple[EngineModel, SoftmaxModel]:
    return EngineModel(PRESETS["reference"]), SoftmaxModel(PRESETS["reference"])


def test_the_tokenizer_and_the_embedding(model: MiniLM) -> None:
    ids = model.token_ids("Hello world")
    assert ids == [101, 7592, 2088, 102]
    x = model.embed(ids)
    assert x.shape == (4, 384) and np.isfinite(x).all()


@pytest.mark.parametrize(("nm", "wide", "bar"), [("dense", False, 0.98), ("2:4", False, 0.98), ("2:16", True, 0.98)])
def test_layer_0(model: MiniLM, hardware: tuple[EngineModel, SoftmaxModel], nm: str, wide: bool, bar: float) -> None:
    layer = QuantizedLayer(model, PRESETS["reference"], parse_nm(nm), wide=wide)
    run = layer.run(TEXT, *hardware)
    assert [r.product for r in run.rows] == [
        "query", "key", "value", "Q x K^T", "softmax", "P x V", "attention output", "feed-forward 1", "feed-forward 2",
    ]  # fmt: skip
    assert run.cosine_same_weights > bar
    figures = run.figures()
    assert figures["fraction_of_ideal"] > (0.85 if nm != "2:16" else 0.70)
    again = layer.run(TEXT, *hardware, stall=0.3)
    np.testing.assert_array_equal(run.output, again.output)


def test_a_deeper_layer_and_another_window(model: MiniLM) -> None:
    config = dataclasses.replace(PRESETS["ci"], window=32, softmax_block=64)
    layer = QuantizedLayer(model, config, parse_nm("8:32"), layer=2)
    run = layer.run("Two tokens.", EngineModel(config), SoftmaxModel(config))
    assert run.cosine_same_weights > 0.95


def test_what_cannot_run_is_said(model: MiniLM, hardware: tuple[EngineModel, SoftmaxModel], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2:32 is not built into this hardware"):
        QuantizedLayer(model, PRESETS["reference"], parse_nm("2:32"))
    layer = QuantizedLayer(model, PRESETS["reference"], parse_nm("2:4"))
    with pytest.raises(InputError, match=r"the text has \d+ tokens; this command runs up to 128"):
        layer.run("word " * 200, *hardware)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="model folder"):
        MiniLM.load(tmp_path)
