"""The torch interpreter and the numpy one are one: functions, poolings, padding, projections, images; what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from support import in_fp32, inner, save_bert

from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import FUNCTIONS, evaluate
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import random_ids, random_model
from sta_hw.sparsity.torch_graph import TorchGraph, pad

TEXTS = [random_ids(i, n) for i, n in enumerate((9, 1, 4))]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("norm_first", "pooling"), [(False, "mean"), (True, "first")])
def test_numpy_and_torch_agree(function: str, norm_first: bool, pooling: str) -> None:
    """Texts of three lengths as one batch: padding changes nothing."""
    model = random_model(0, layers=2, activation=function, norm_first=norm_first, pooling=pooling)
    part = accelerator_part(model)
    with torch.no_grad():
        found = TorchGraph(part.inner)(*pad([part.embed("ids", ids) for ids in TEXTS])).numpy()
    for ids, got in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(got, in_fp32(model, ids), rtol=1e-4, atol=1e-5)


def test_every_layers_outputs() -> None:
    """The last one with the LayerNorm behind it."""
    for norm_first, name in ((False, "output"), (True, "sum2")):
        part = accelerator_part(random_model(0, layers=2, norm_first=norm_first))
        embedded = part.embed("ids", TEXTS[0])
        wanted = evaluate(part.inner, {part.begins: embedded})
        with torch.no_grad():
            found = TorchGraph(part.inner)(torch.from_numpy(embedded)[None], None, False)[0].numpy()
        last = "layernorm" if norm_first else "1.output"
        for layer, value in enumerate((f"0.{name}", last)):
            np.testing.assert_allclose(found[:, layer], wanted[value], rtol=1e-3, atol=1e-4)


SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64}


@pytest.mark.parametrize("name", ["Electra", "CLIPVision", "ViT", "Whisper"])
def test_whole_networks_of_families(name: str, tmp_path: Path) -> None:
    """Tables, convolutions, tokens put ahead, projections; and the parameters come back as they were."""
    image = {"image_size": 8, "patch_size": 4, "num_channels": 3}
    more = {
        "Electra": {"embedding_size": 16, "vocab_size": 50},
        "CLIPVision": image, "ViT": image,
        "Whisper": {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
                    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "num_mel_bins": 8,
                    "max_source_positions": 6, "vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1,
                    "eos_token_id": 2, "decoder_start_token_id": 1},
    }[name]  # fmt: skip
    sizes = more if name == "Whisper" else SIZES | more
    torch.manual_seed(0)
    getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**sizes)).save_pretrained(tmp_path)
    graph = load_network(tmp_path).graph
    if name == "CLIPVision":  # which torch's graph has as the accelerator's part begins
        graph = accelerator_part(graph).inner
    given = graph.operations[0]
    shape = [9 if s == "tokens" else int(s) for s in graph.shapes[given.name]]
    rng = np.random.default_rng(0)
    values = rng.integers(0, 50, shape) if name == "Electra" else rng.normal(size=shape).astype(np.float32)
    network = TorchGraph(graph)
    with torch.no_grad():
        found = network(torch.from_numpy(values)[None])[0].numpy()
    wanted = evaluate(graph, {given.name: values})[graph.operations[-1].name]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert str(network.to_graph()) == str(graph)


def test_a_changed_network_is_kept_as_the_checkpoint_it_came_from(tmp_path: Path) -> None:
    save_bert(random_model(1, activation="relu"), tmp_path / "a")
    network = load_network(tmp_path / "a")
    tuned = TorchGraph(inner(network.graph))
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += 0.1
    graph = accelerator_part(network.graph).with_inner(tuned.to_graph()).graph
    (tmp_path / "b").mkdir()
    for name, content in network.files(graph).items():
        (tmp_path / "b" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    again = load_network(tmp_path / "b").graph
    assert str(again) == str(graph) and str(again) != str(network.graph)
    theirs = hf.BertModel.from_pretrained(tmp_path / "b").eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor([TEXTS[0]])).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(in_fp32(again, TEXTS[0]), wanted, rtol=1e-3, atol=1e-4)


def test_what_the_checkpoint_has_no_place_for(tmp_path: Path) -> None:
    save_bert(random_model(1), tmp_path)
    network = load_network(tmp_path)
    graph = network.graph.with_tensors({"encoder.layer.0.output.LayerNorm.bias": np.zeros(32, np.float32)})
    del network.tensors.found["encoder.layer.0.output.LayerNorm.bias"]
    with pytest.raises(InputError, match=r"output.LayerNorm.bias was changed, and .* has no tensor of that name"):
        network.files(graph)
