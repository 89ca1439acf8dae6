"""Every family on RTL: nearly what Hugging Face's own model gives, from the input to the embedding or the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_checkpoint import sentence_transformer
from test_families import DISTIL, IDS, IMAGE, TEXT, WHISPER, pixels, run, saved

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.part import Part, accelerator_part
from sta_hw.run.backends import ReferenceBackend, RtlBackend
from sta_hw.run.outcome import compare
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
BAR = 0.99
SMALL = {"num_hidden_layers": 1}


@pytest.fixture(scope="module")
def rtl() -> RtlBackend:
    return RtlBackend(CONFIG)


def check(rtl: RtlBackend, part: Part, name: str, given: list[Any], wanted: torch.Tensor) -> None:
    """Quantize for inputs of which the first is run; compare memory with the reference, the result with `wanted`."""
    embedded = [part.embed(name, value) for value in given]
    program = compile_encoder(quantize(part.graph, embedded), CONFIG, len(embedded[0]))
    found = rtl.run(program, embedded[0])
    compare(program, found.image, ReferenceBackend(CONFIG).run(program, embedded[0]).image)
    value = program.pooled(found.image) if part.pooled else program.outputs(found.image)
    result, theirs = part.result(value)[1].reshape(-1), wanted.detach().numpy().reshape(-1)
    assert result @ theirs / np.linalg.norm(result) / np.linalg.norm(theirs) > BAR
    assert 0.9 < np.linalg.norm(result) / np.linalg.norm(theirs) < 1.1


def texts(folder: Path) -> tuple[Part, list[list[int]]]:
    rng = np.random.default_rng(0)
    return accelerator_part(load_network(folder).graph), [IDS, *(rng.integers(2, 50, 20).tolist() for _ in range(6))]


@pytest.mark.xdist_group("ci-accelerator")
@pytest.mark.parametrize(
    ("name", "sizes", "output"),
    [
        ("BertModel", TEXT | {"hidden_act": "gelu_new"}, ""), ("RobertaModel", TEXT, ""),
        ("XLMRobertaModel", TEXT | {"type_vocab_size": 1}, ""), ("DistilBertModel", DISTIL | {"n_layers": 1}, ""),
        ("ElectraModel", TEXT | {"embedding_size": 32}, ""), ("ElectraModel", TEXT | {"embedding_size": 16}, ""),
        ("CamembertForSequenceClassification", TEXT | {"num_labels": 4}, "logits"),
        ("BertForTokenClassification", TEXT | {"num_labels": 3}, "logits"),
    ],
)  # fmt: skip
def test_texts(rtl: RtlBackend, name: str, sizes: dict[str, Any], output: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name, sizes if "dim" in sizes else sizes | SMALL)
    found = run(model)
    part, given = texts(tmp_path)
    check(rtl, part, "ids", given, found.logits[0] if output else found.last_hidden_state[0].mean(0))


@pytest.mark.xdist_group("ci-accelerator")
@pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "lasttoken"])
def test_poolings(rtl: RtlBackend, mode: str, tmp_path: Path) -> None:
    tokens = run(sentence_transformer(tmp_path, {f"pooling_mode_{mode}": True})).last_hidden_state[0]
    wanted = {"cls_token": tokens[0], "max_tokens": tokens.max(0).values, "lasttoken": tokens[-1]}[mode]
    part, given = texts(tmp_path)
    check(rtl, part, "ids", given, wanted)


@pytest.mark.xdist_group("ci-accelerator")
@pytest.mark.parametrize(
    ("name", "sizes", "output"),
    [
        ("ViTForImageClassification", IMAGE | {"num_labels": 5, "image_size": [4, 8]}, "logits"),
        ("DeiTForImageClassificationWithTeacher", IMAGE | {"num_labels": 5}, "logits"),
        ("CLIPVisionModelWithProjection", IMAGE | {"projection_dim": 16}, "image_embeds"),
    ],
)  # fmt: skip
def test_images(rtl: RtlBackend, name: str, sizes: dict[str, Any], output: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name, sizes | SMALL)
    part = accelerator_part(load_network(tmp_path).graph)
    height, width, channels = part.graph.shapes["pixels"]
    image, wanted = pixels(model, (channels, height, width))
    others = np.random.default_rng(1).normal(size=(6, height, width, channels)).astype(np.float32)
    check(rtl, part, "pixels", [image, *others], wanted[output][0])


@pytest.mark.xdist_group("ci-accelerator")
def test_whisper(rtl: RtlBackend, tmp_path: Path) -> None:
    model = saved(tmp_path, "WhisperForAudioClassification", WHISPER | {"encoder_layers": 1})
    features = np.random.default_rng(0).normal(size=(7, 24, 8)).astype(np.float32)
    wanted = model(torch.from_numpy(features[0].T[None])).logits[0]
    check(rtl, accelerator_part(load_network(tmp_path).graph), "features", list(features), wanted)


@pytest.mark.parametrize(
    ("name", "sizes", "problem"),
    [
        ("BertModel", TEXT | {"is_decoder": True}, "0.context attends to earlier tokens alone"),
        ("CLIPForImageClassification",
         {"projection_dim": 16, "vision_config": IMAGE, "text_config": TEXT | {"eos_token_id": 2, "bos_token_id": 1}},
         "the layers end without a LayerNorm"),
    ],
)  # fmt: skip
def test_what_the_accelerator_cannot_do(name: str, sizes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    saved(tmp_path, name, sizes)
    with pytest.raises(InputError, match=problem):
        accelerator_part(load_network(tmp_path).graph)
