"""Vision transformers: Hugging Face's own outputs, what is kept, refusals; and one on RTL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.model.arrays import require_processed
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.part import accelerator_part
from sta_hw.run.backends import ReferenceBackend, RtlBackend
from sta_hw.run.outcome import compare
from sta_hw.sparsity.digits import new_vision_graph
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS

SHAPE = {
    "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "image_size": 8,
    "patch_size": 2, "num_channels": 1, "layer_norm_eps": 1e-12,
}  # fmt: skip


def logits(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Of images with channels last."""
    return np.stack([evaluate(graph, {"pixels": image})["logits"] for image in images])


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
    theirs.save_pretrained(tmp_path / "model")
    return tmp_path / "model", theirs


def test_hugging_faces_outputs(checkpoint, tmp_path: Path) -> None:
    folder, theirs = checkpoint
    network = load_network(folder)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).movedim(-1, 1)).logits.numpy()
    np.testing.assert_allclose(logits(network.graph, images), wanted, rtol=1e-4, atol=1e-4)
    # With other weights, in a folder of its own.
    tuned = TorchGraph(network.graph)
    with torch.no_grad():
        tuned.linears["1.output.dense"].weight *= -1
    folder = tmp_path / "again"
    folder.mkdir()
    for name, content in network.files(tuned.to_graph()).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    again = load_network(folder).graph
    np.testing.assert_array_equal(logits(tuned.to_graph(), images), logits(again, images))
    assert not np.allclose(logits(again, images), wanted, rtol=1e-2, atol=1e-2)


def test_missing_and_left_over_tensors_are_named(checkpoint) -> None:
    from safetensors.numpy import load_file, save_file

    folder, _ = checkpoint
    file = folder / "model.safetensors"
    tensors = load_file(file)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    name = f"{kind}.encoder.layer.1.layernorm_before.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, file)
    with pytest.raises(InputError, match=r"lacks encoder\.layer\.1\.layernorm_before\.weight of shape"):
        load_network(folder)
    save_file(tensors | {"gate.weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(InputError, match=r"has 1 tensors that have no place in the model: gate\.weight"):
        load_network(folder)


def test_refusals(checkpoint) -> None:
    folder, _ = checkpoint
    with pytest.raises(InputError, match=r"pixels has shape \(8, 8, 1\), and what is given"):
        accelerator_part(load_network(folder).graph).embed("pixels", np.zeros((9, 8, 1), np.float32))
    for key, value, text in (("model_type", "swin", "vit, deit"), ("hidden_act", "mish", "it is gelu")):
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(described | {key: value}))
        with pytest.raises(InputError, match=text):
            load_network(folder)
        (folder / "config.json").write_text(json.dumps(described))


def test_torch_and_numpy_agree() -> None:
    graph = new_vision_graph(3)
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype(np.float32)
    with torch.no_grad():
        found = TorchGraph(graph)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, logits(graph, images), rtol=1e-4, atol=1e-5)


@pytest.mark.xdist_group("ci-accelerator")
@pytest.mark.parametrize("tokens_pattern", [Pattern(2, 4), Pattern(1, 1)], ids=str)
def test_on_rtl(tokens_pattern: Pattern) -> None:
    """LayerNorms first and the first token pooled: every byte as the reference has it."""
    config = PRESETS["ci"]
    part = accelerator_part(new_vision_graph(0, hidden=32, heads=2, layers=2, intermediate=64))
    images = np.random.default_rng(2).normal(size=(6, 8, 8, 1)).astype(np.float32)
    embedded = [part.embed("pixels", image) for image in images]
    names = [f"{layer}.{name}" for layer in range(2) for name in ("attention.self.key", "output.dense")]
    quantized = quantize(part.graph, embedded, dict.fromkeys(names, tokens_pattern))
    program = compile_encoder(quantized, config, len(embedded[0]))
    found = RtlBackend(config).run(program, embedded[0])
    compare(program, found.image, ReferenceBackend(config).run(program, embedded[0]).image)
    pooled, exact = program.pooled(found.image), part.run(embedded[0])
    if tokens_pattern.dense:
        assert pooled @ exact / np.linalg.norm(pooled) / np.linalg.norm(exact) > 0.999


@pytest.mark.parametrize(
    "about",
    [{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.5, 0.9]}, {"do_normalize": False},
     {"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}, {"rescale_factor": 1 / 127.5}],
    ids=str,
)  # fmt: skip
def test_images_are_what_the_processor_gives(about: dict[str, Any], tmp_path: Path) -> None:
    """Whatever picture transformers' own processor takes is accepted; pixels as a file has them are not."""
    import transformers as hf

    make = hf.ViTImageProcessorPil(size={"height": 8, "width": 8}, **about)
    make.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    pictures = [np.zeros((3, 8, 8)), np.full((3, 8, 8), 255), rng.integers(0, 256, (3, 31, 17))]
    for picture in pictures:
        given = make(picture.astype(np.uint8), return_tensors="np", input_data_format="channels_first")["pixel_values"]
        arrays = [np.moveaxis(given[0], 0, -1).astype(np.float32)]
        require_processed(arrays, tmp_path / "a.npy", tmp_path)
    wrong = arrays[0] * 3 if about.get("do_rescale", True) else arrays[0] * 100
    with pytest.raises(InputError, match=r"a.npy has values from .* in channel 0, and by .* the model's processor"):
        require_processed([*arrays, wrong + 255], tmp_path / "a.npy", tmp_path)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    require_processed([wrong], tmp_path / "a.npy", tmp_path)  # nothing says what they are
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    with pytest.raises(InputError, match=r"processor_config.json the model's processor gives"):
        require_processed([wrong + 255], tmp_path / "a.npy", tmp_path)
