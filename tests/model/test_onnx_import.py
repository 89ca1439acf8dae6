"""ONNX graphs as PyTorch (and so Optimum) exports them: equal to onnxruntime; what is not understood is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from torch import nn

from sta_hw.errors import CheckError, InputError
from sta_hw.model.bert import BertModel
from sta_hw.model.onnx_import import TOLERANCE, import_onnx
from sta_hw.model.vision import VisionModel

TEXT = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64,
        "vocab_size": 50, "max_position_embeddings": 64}  # fmt: skip
IMAGE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64,
         "image_size": 8, "patch_size": 2, "num_channels": 1}  # fmt: skip
TEXT_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class _Text(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Any, mask: Any, types: Any) -> Any:
        out = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        return out.last_hidden_state, out.pooler_output


class _Image(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Any) -> Any:
        return self.model(pixel_values=pixels).logits


def export_text(path: Path, *, opset: int = 17, attention: str = "sdpa", **changes: Any) -> Any:
    torch.manual_seed(0)
    model = hf.BertModel(hf.BertConfig(**TEXT | changes, attn_implementation=attention)).eval()
    ids = torch.randint(0, 50, (2, 9))
    torch.onnx.export(
        _Text(model).eval(), (ids, torch.ones_like(ids), torch.zeros_like(ids)), str(path), input_names=TEXT_INPUTS,
        output_names=["last_hidden_state", "pooler_output"], opset_version=opset, dynamo=False,
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in TEXT_INPUTS},
    )  # fmt: skip
    return model


def export_image(path: Path, kind: str, *, opset: int = 17, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    makers = {
        "vit": (hf.ViTConfig, hf.ViTForImageClassification),
        "deit": (hf.DeiTConfig, hf.DeiTForImageClassification),
    }
    make_config, make_model = makers[kind]
    model = make_model(make_config(**IMAGE, attn_implementation=attention)).eval()
    torch.onnx.export(
        _Image(model).eval(), (torch.randn(1, 1, 8, 8),), str(path), input_names=["pixel_values"],
        output_names=["logits"], opset_version=opset, dynamo=False, dynamic_axes={"pixel_values": {0: "batch"}},
    )  # fmt: skip
    return model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("opset", [14, 17])
def test_bert(opset: int, attention: str, tmp_path: Path) -> None:
    theirs = export_text(tmp_path / "model.onnx", opset=opset, attention=attention)
    found = import_onnx(tmp_path / "model.onnx")
    assert isinstance(found.model, BertModel) and found.left_out == ["pooler_output"] and found.difference < TOLERANCE
    assert (found.model.layers, found.model.heads, found.model.hidden, found.model.intermediate) == (2, 2, 32, 64)
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(found.model.forward(ids)[1], wanted, atol=1e-5)
    # And by way of the checkpoint.
    found.model.save(tmp_path / "folder")
    again = BertModel.load(tmp_path / "folder")
    assert set(again.tensors) == set(found.model.tensors)
    for name, tensor in found.model.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], tensor)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
@pytest.mark.parametrize("opset", [14, 17])
def test_epsilon(opset: int, epsilon: float, tmp_path: Path) -> None:
    export_text(tmp_path / "model.onnx", opset=opset, layer_norm_eps=epsilon)
    model = import_onnx(tmp_path / "model.onnx").model
    assert isinstance(model, BertModel) and model.epsilon == pytest.approx(epsilon, rel=1e-5)
    model.save(tmp_path)
    assert BertModel.load(tmp_path).epsilon == model.epsilon


def test_int32_inputs(tmp_path: Path) -> None:
    export_text(tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    for given in model.graph.input:
        given.type.tensor_type.elem_type = onnx.TensorProto.INT32
        widened = onnx.helper.make_node("Cast", [given.name], [f"{given.name}_wide"], to=onnx.TensorProto.INT64)
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = widened.output[0] if name == given.name else name
        model.graph.node.insert(0, widened)
    onnx.save(model, str(tmp_path / "narrow.onnx"))
    found, wanted = (import_onnx(tmp_path / f"{n}.onnx").model for n in ("narrow", "model"))
    assert isinstance(found, BertModel) and isinstance(wanted, BertModel)
    np.testing.assert_array_equal(found.forward([1, 2, 3])[1], wanted.forward([1, 2, 3])[1])


@pytest.mark.parametrize("keep", [True, False])
def test_float16(keep: bool, tmp_path: Path) -> None:
    from onnxruntime.transformers import float16

    theirs = export_text(tmp_path / "model.onnx")
    half = float16.convert_float_to_float16(onnx.load(str(tmp_path / "model.onnx")), keep_io_types=keep)
    onnx.save(half, str(tmp_path / "half.onnx"))
    model = import_onnx(tmp_path / "half.onnx").model
    assert isinstance(model, BertModel)
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(model.forward([3, 1, 4, 1, 5])[1], wanted, atol=2e-3)


def test_no_token_types(tmp_path: Path) -> None:
    """DistilBERT has none."""
    torch.manual_seed(0)
    sizes = {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 64, "vocab_size": 50, "max_position_embeddings": 64}
    model = hf.DistilBertModel(hf.DistilBertConfig(**sizes)).eval()
    ids = torch.randint(0, 50, (1, 9))
    torch.onnx.export(
        model, (ids, torch.ones_like(ids)), str(tmp_path / "model.onnx"), input_names=TEXT_INPUTS[:2],
        output_names=["last_hidden_state"], opset_version=17, dynamo=False,
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in TEXT_INPUTS[:2]},
    )  # fmt: skip
    found = import_onnx(tmp_path / "model.onnx").model
    assert isinstance(found, BertModel)
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(found.forward([3, 1, 4, 1, 5])[1], wanted, atol=1e-5)


def test_relu(tmp_path: Path) -> None:
    export_text(tmp_path / "model.onnx", hidden_act="relu")
    model = import_onnx(tmp_path / "model.onnx").model
    assert isinstance(model, BertModel) and model.activation == "relu"


@pytest.mark.parametrize("kind", ["vit", "deit"])
@pytest.mark.parametrize(("opset", "attention"), [(14, "eager"), (17, "sdpa")])
def test_vision(kind: str, opset: int, attention: str, tmp_path: Path) -> None:
    theirs = export_image(tmp_path / "model.onnx", kind, opset=opset, attention=attention)
    found = import_onnx(tmp_path / "model.onnx")
    model = found.model
    assert isinstance(model, VisionModel) and found.left_out == []
    assert len(model.class_tokens) == (2 if kind == "deit" else 1)
    images = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images)).logits.numpy()
    own = np.stack([model.logits(model.encoder.forward(e)[1]) for e in model.embed(images)])
    np.testing.assert_allclose(own, wanted, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "gelu_new", "tanh"])
def test_unsupported_operators_are_named(activation: str, tmp_path: Path) -> None:
    export_text(tmp_path / "model.onnx", hidden_act=activation)
    with pytest.raises(InputError, match=r"operator \w+ of node '.*(intermediate|output).*' is not supported"):
        import_onnx(tmp_path / "model.onnx")


def test_a_graph_that_is_no_encoder(tmp_path: Path) -> None:
    """The feed-forward half left out: understood operators, but not the family."""
    export_text(tmp_path / "model.onnx", num_hidden_layers=1)
    model = onnx.load(str(tmp_path / "model.onnx"))
    norms = [n for n in model.graph.node if n.op_type == "LayerNormalization"]
    del model.graph.output[1:]
    model.graph.output[0].name = norms[1].output[0]
    keep = [n for n in model.graph.node if list(model.graph.node).index(n) <= list(model.graph.node).index(norms[1])]
    del model.graph.node[:]
    keep[-1].output[0] = "last_hidden_state"
    model.graph.node.extend(keep)
    model.graph.output[0].name = "last_hidden_state"
    onnx.save(model, str(tmp_path / "half.onnx"))
    with pytest.raises(InputError, match="is not an encoder of the BERT family: layer 0 from the end"):
        import_onnx(tmp_path / "half.onnx")


def test_a_difference_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_text(tmp_path / "model.onnx")
    monkeypatch.setattr(BertModel, "activate", lambda self, x: np.maximum(x, 0))
    with pytest.raises(CheckError, match="differs from onnxruntime"):
        import_onnx(tmp_path / "model.onnx")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not an ONNX model"):
        import_onnx(tmp_path / "model.onnx")
    torch.onnx.export(
        nn.Linear(3, 2), (torch.zeros(1, 3),), str(tmp_path / "linear.onnx"), input_names=["x"], output_names=["y"],
        dynamo=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="graph input 'x'"):
        import_onnx(tmp_path / "linear.onnx")


def test_tensors_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    """External data whose name leads out of the model's folder, by ``..``, an absolute name or a link."""
    folder = tmp_path / "model"
    folder.mkdir()
    export_text(tmp_path / "whole.onnx")
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(onnx.load(tmp_path / "whole.onnx"), folder / "model.onnx", **options)
    assert import_onnx(folder / "model.onnx").difference < TOLERANCE
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    for place in ("../weights.bin", str(tmp_path / "weights.bin"), "weights.bin"):
        graph = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place
        (folder / "other.onnx").write_bytes(graph.SerializeToString())
        if place == "weights.bin":
            (folder / place).symlink_to(tmp_path / place)
        with pytest.raises(InputError, match="which is outside"):
            import_onnx(folder / "other.onnx")
