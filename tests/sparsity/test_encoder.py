"""Encoders in PyTorch and in numpy are one: every activation function, epsilon and pooling; and their checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sta_hw.errors import InputError
from sta_hw.model.bert import PROJECTION, BertModel
from sta_hw.model.fp32 import FUNCTIONS
from sta_hw.model.random import random_ids, random_model
from sta_hw.sparsity.encoder import Encoder

IDS = random_ids(0, 9)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numpy_and_torch_agree(function: str) -> None:
    model = random_model(0, layers=2, activation=function)
    with torch.no_grad():
        found = Encoder(model)(torch.from_numpy(model.embed(IDS))[None])[0].numpy()
    np.testing.assert_allclose(found, model.forward(IDS)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_checkpoint_keeps_the_function(function: str, pooling: str, tmp_path: Path) -> None:
    model = replace(random_model(1, activation=function), pooling=pooling, epsilon=0.5)
    with torch.no_grad():
        found = Encoder(model)(torch.from_numpy(model.embed(IDS))[None])[0].numpy()
    np.testing.assert_allclose(found, model.forward(IDS)[1], rtol=1e-4, atol=1e-5)
    model.save(tmp_path)
    again = BertModel.load(tmp_path)
    np.testing.assert_array_equal(again.forward(IDS)[1], model.forward(IDS)[1])
    assert (again.activation, again.pooling, again.epsilon) == (function, pooling, 0.5)


def test_projected_embeddings_are_refused(tmp_path: Path) -> None:
    model = random_model(0)
    rng = np.random.default_rng(0)
    wider = model.with_tensors(
        model.tensors | {f"{PROJECTION}.weight": rng.normal(size=(32, 32)).astype(np.float32),
                         f"{PROJECTION}.bias": np.zeros(32, np.float32)}
    )  # fmt: skip
    assert wider.projected and not np.allclose(wider.forward(IDS)[1], model.forward(IDS)[1])
    with pytest.raises(InputError, match="embeddings are projected"):
        Encoder(wider)
    with pytest.raises(InputError, match="of BERT's shape"):
        wider.save(tmp_path)
