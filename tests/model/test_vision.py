"""Vision transformers: Hugging Face's own outputs, round trip, refusals; and one on RTL."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.model.vision import VisionModel
from sta_hw.run.backends import ReferenceBackend, RtlBackend
from sta_hw.run.outcome import compare
from sta_hw.sparsity.digits import VisionNetwork, new_vision_model
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS

SHAPE = {
    "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "image_size": 8,
    "patch_size": 2, "num_channels": 1, "layer_norm_eps": 1e-12,
}  # fmt: skip


def logits(model: VisionModel, images: np.ndarray) -> np.ndarray:
    return np.stack([model.logits(model.encoder.forward(e)[1]) for e in model.embed(images)])


@pytest.fixture(params=["vit", "deit"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path):
    """A folder that Hugging Face wrote, and the model."""
    import transformers as hf

    torch.manual_seed(0)
    kinds = {
        "vit": (hf.ViTConfig, hf.ViTForImageClassification),
        "deit": (hf.DeiTConfig, hf.DeiTForImageClassification),
    }
    make_config, make_model = kinds[request.param]
    theirs = make_model(make_config(**SHAPE)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    theirs.save_pretrained(tmp_path)
    return tmp_path, theirs


def test_hugging_faces_outputs(checkpoint, tmp_path: Path) -> None:
    folder, theirs = checkpoint
    model = VisionModel.load(folder)
    images = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images)).logits.numpy()
    np.testing.assert_allclose(logits(model, images), wanted, rtol=1e-4, atol=1e-4)
    assert model.tokens == 16 + len(model.class_tokens)
    model.save(tmp_path / "again")
    again = VisionModel.load(tmp_path / "again")
    np.testing.assert_array_equal(logits(model, images), logits(again, images))


def test_missing_and_left_over_tensors_are_named(checkpoint) -> None:
    from safetensors.numpy import load_file, save_file

    folder, _ = checkpoint
    model = VisionModel.load(folder)
    model.save(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    name = f"{kind}.encoder.layer.1.layernorm_before.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, file)
    with pytest.raises(InputError, match=r"lacks encoder\.layer\.1\.layernorm_before\.weight of shape"):
        VisionModel.load(folder)
    save_file(tensors | {"gate.weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(InputError, match=r"has 1 tensors that have no place in the model: gate\.weight"):
        VisionModel.load(folder)


def test_refusals(tmp_path: Path) -> None:
    model = new_vision_model(0)
    with pytest.raises(InputError, match="the model takes"):
        model.embed(np.zeros((1, 1, 9, 8), np.float32))
    with pytest.raises(InputError, match=r"there is no config.json"):
        VisionModel.load(tmp_path)
    model.save(tmp_path)
    for key, value, text in (("model_type", "swin", "vit, deit"), ("hidden_act", "mish", "it is gelu")):
        described = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(described | {key: value}))
        with pytest.raises(InputError, match=text):
            VisionModel.load(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(described))


def test_torch_and_numpy_agree() -> None:
    model = new_vision_model(3)
    images = np.random.default_rng(1).normal(size=(4, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        found = VisionNetwork(model)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, logits(model, images), rtol=1e-4, atol=1e-5)
    again = VisionNetwork(model).to_model()
    np.testing.assert_array_equal(logits(again, images), logits(model, images))


@pytest.mark.xdist_group("ci-accelerator")
@pytest.mark.parametrize("tokens_pattern", [Pattern(2, 4), Pattern(1, 1)], ids=str)
def test_on_rtl(tokens_pattern: Pattern) -> None:
    """LayerNorms first and the first token pooled: every byte as the reference has it."""
    config = PRESETS["ci"]
    model = new_vision_model(0, hidden=32, heads=2, layers=2, intermediate=64)
    images = np.random.default_rng(2).normal(size=(6, 1, 8, 8)).astype(np.float32)
    embedded = list(model.embed(images))
    keys = [(layer, name) for layer in range(2) for name in ("attention.self.key", "output.dense")]
    quantized = quantize(model.encoder, embedded, dict.fromkeys(keys, tokens_pattern))
    program = compile_encoder(quantized, config, model.tokens)
    found = RtlBackend(config).run(program, embedded[0])
    compare(program, found.image, ReferenceBackend(config).run(program, embedded[0]).image)
    pooled = program.pooled(found.image)
    exact = model.encoder.forward(embedded[0])[1]
    if tokens_pattern.dense:
        assert pooled @ exact / np.linalg.norm(pooled) / np.linalg.norm(exact) > 0.999
