"""Families: a graph of each, and of its variants, gives what Hugging Face's own model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from sta_hw.errors import InputError
from sta_hw.model.families import Network, load_network
from sta_hw.model.fp32 import evaluate

TOLERANCE = 2e-5
"""Of the largest value. Sums of at most 128 products of float32, some ten in a row, in another order than PyTorch's:
each rounds by 6e-8 of its largest part, and LayerNorms of small sums enlarge it."""

SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 40}
IMAGE = SIZES | {"image_size": 8, "patch_size": 2, "num_channels": 3}
DISTIL = {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 64, "vocab_size": 50, "max_position_embeddings": 40}
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "num_mel_bins": 8, "max_source_positions": 12,
    "max_target_positions": 10, "vocab_size": 50, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3,
    "decoder_start_token_id": 2, "classifier_proj_size": 16,
}  # fmt: skip
IDS = [0, 7, 3, 11, 49, 2, 7, 30, 2]


def saved(folder: Path, name: str, sizes: dict[str, Any], *, shard: str = "1GB", **changes: Any) -> Any:
    """A model of Hugging Face's with parameters that are not near zero, in a folder."""
    torch.manual_seed(0)
    make = getattr(hf, name)
    model = make(make.config_class(**sizes | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def text(network: Network, ids: list[int] = IDS) -> dict[str, np.ndarray]:
    return evaluate(network.graph, {"ids": ids})


def run(model: Any, ids: list[int] = IDS) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]))


def check(found: np.ndarray, wanted: torch.Tensor) -> None:
    exact = wanted.numpy()
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= TOLERANCE * np.abs(exact).max()


@pytest.mark.parametrize(
    ("name", "sizes", "changes"),
    [
        ("BertModel", TEXT, {}),
        ("BertModel", TEXT, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-2}),
        ("BertModel", TEXT, {"hidden_act": "relu", "type_vocab_size": 1}),
        ("BertModel", TEXT, {"hidden_act": "quick_gelu", "num_attention_heads": 4}),
        ("BertModel", TEXT, {"hidden_act": "silu", "is_decoder": True}),
        ("BertForMaskedLM", TEXT, {}),
        ("BertForPreTraining", TEXT, {}),
        ("RobertaModel", TEXT, {"layer_norm_eps": 1e-5}),
        ("RobertaModel", TEXT, {"pad_token_id": 7}),
        ("RobertaForMaskedLM", TEXT, {}),
        ("XLMRobertaModel", TEXT, {"type_vocab_size": 1}),
        ("CamembertModel", TEXT, {"hidden_act": "gelu_fast"}),
        ("ElectraModel", TEXT, {"embedding_size": 16}),
        ("ElectraForPreTraining", TEXT, {"embedding_size": 32}),
        ("DistilBertModel", DISTIL, {}),
        ("DistilBertForMaskedLM", DISTIL, {"activation": "relu", "sinusoidal_pos_embds": True}),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(f"{k}={x}" for k, x in v.items() if k not in TEXT),
)  # fmt: skip
def test_texts(name: str, sizes: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path, name, sizes, **changes)
    network = load_network(tmp_path)
    wanted = run(getattr(model, model.base_model_prefix, model)).last_hidden_state[0]
    found = text(network)
    last = next(o.inputs[0] for o in network.graph.operations if o.name == "mean")
    check(found[last], wanted)
    check(found["embedding"], wanted.mean(0))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("BertForSequenceClassification", TEXT), ("RobertaForSequenceClassification", TEXT),
        ("ElectraForSequenceClassification", TEXT | {"embedding_size": 16}),
        ("DistilBertForSequenceClassification", DISTIL), ("BertForTokenClassification", TEXT),
        ("CamembertForTokenClassification", TEXT), ("DistilBertForQuestionAnswering", DISTIL),
        ("RobertaForQuestionAnswering", TEXT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("labels", [2, 3])
def test_heads(name: str, sizes: dict[str, Any], labels: int, tmp_path: Path) -> None:
    if "Question" in name:
        labels = 2
    model = saved(tmp_path, name, sizes, num_labels=labels)
    network, found = load_network(tmp_path), run(model)
    if "Question" in name:
        check(text(network)["logits"], torch.stack([found.start_logits[0], found.end_logits[0]], -1))
        assert network.labels == ()  # the two logits are of a beginning and an end
    else:
        check(text(network)["logits"], found.logits[0])
        assert network.labels == tuple(f"LABEL_{i}" for i in range(labels))


def pixels(model: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        return np.moveaxis(image, 0, -1), model(pixel_values=torch.from_numpy(image[None]))


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (3, 8, 8)), ({"qkv_bias": False, "hidden_act": "relu", "layer_norm_eps": 1e-3}, (3, 8, 8)),
        ({"image_size": [4, 12], "num_channels": 1}, (1, 4, 12)), ({"patch_size": [4, 2]}, (3, 8, 8)),
    ],
    ids=["plain", "no-bias", "wide", "tall-patches"],
)  # fmt: skip
def test_images(kind: str, changes: dict[str, Any], shape: tuple[int, ...], tmp_path: Path) -> None:
    model = saved(tmp_path, f"{kind}ForImageClassification", IMAGE, **changes, num_labels=3)
    network = load_network(tmp_path)
    image, wanted = pixels(model, shape)
    check(evaluate(network.graph, {"pixels": image})["logits"], wanted.logits[0])
    with pytest.raises(InputError, match="pixels has shape"):
        evaluate(network.graph, {"pixels": image[:-1]})


@pytest.mark.parametrize("name", ["ViTModel", "DeiTModel"])
def test_image_encoders(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name, IMAGE)
    image, wanted = pixels(model, (3, 8, 8))
    check(evaluate(load_network(tmp_path).graph, {"pixels": image})["embedding"], wanted.last_hidden_state[0, 0])


def test_both_heads_of_deit(tmp_path: Path) -> None:
    model = saved(tmp_path, "DeiTForImageClassificationWithTeacher", IMAGE)
    image, wanted = pixels(model, (3, 8, 8))
    check(evaluate(load_network(tmp_path).graph, {"pixels": image})["logits"], wanted.logits[0])


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("CLIPVisionModel", "pooler_output"), ("CLIPVisionModelWithProjection", "image_embeds"),
        ("CLIPForImageClassification", "logits"), ("CLIPModel", "image_embeds"),
    ],
)  # fmt: skip
def test_clip(name: str, output: str, tmp_path: Path) -> None:
    parts = {"projection_dim": 16, "vision_config": IMAGE, "text_config": TEXT | {"eos_token_id": 2, "bos_token_id": 1}}
    whole = name in ("CLIPModel", "CLIPForImageClassification")
    model = saved(tmp_path, name, parts if whole else IMAGE | {"projection_dim": 16})
    if name == "CLIPModel":  # Its image_embeds have length 1; what is compared does not.
        image, _ = pixels(lambda pixel_values: None, (3, 8, 8))
        with torch.no_grad():
            features = model.get_image_features(pixel_values=torch.from_numpy(np.moveaxis(image, -1, 0)[None]))
        wanted = features if isinstance(features, torch.Tensor) else features.pooler_output
    else:
        image, found = pixels(model, (3, 8, 8))
        wanted = found[output]
    network = load_network(tmp_path)
    check(evaluate(network.graph, {"pixels": image})["logits" if output == "logits" else "embedding"], wanted[0])


@pytest.mark.parametrize("name", ["WhisperModel", "WhisperForConditionalGeneration", "WhisperForAudioClassification"])
def test_whisper(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name, WHISPER)
    features = np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)
    network = load_network(tmp_path)
    found = evaluate(network.graph, {"features": features.T})
    with torch.no_grad():
        given = torch.from_numpy(features[None])
        if name == "WhisperForAudioClassification":
            check(found["logits"], model(given).logits[0])
        encoder = model.model.encoder if name == "WhisperForConditionalGeneration" else model.encoder
        check(found["layernorm"], encoder(given).last_hidden_state[0])
