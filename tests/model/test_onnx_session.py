"""ONNX files that are none, or hold what is not to be read, or numbers that no network has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_export import CASES, export, export_text
from test_families import IMAGE, saved
from torch import nn

from sta_hw.errors import InputError
from sta_hw.model.onnx.importer import TOLERANCE, import_onnx


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
    with pytest.raises(InputError, match=r"there is no file .*none\.onnx\.$"):
        import_onnx(tmp_path / "none.onnx")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = saved(tmp_path, "ViTForImageClassification", IMAGE)
    with torch.no_grad():
        model.classifier.bias[1] = np.nan
    export(model, tmp_path / "model.onnx", CASES["deit"])
    with pytest.raises(InputError, match=r"scores, bias, channel 1, is nan"):
        import_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["LayerNorm.weight", "word_embeddings.weight"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_weights_that_overflow(name: str, tmp_path: Path) -> None:
    """What is no number in both is no agreement."""
    path = str(tmp_path / "model.onnx")
    export(saved(tmp_path / "bert", CASES["bert"].name, CASES["bert"].sizes), Path(path), CASES["bert"])
    graph = onnx.load(path)
    for tensor in graph.graph.initializer:
        if tensor.name.endswith(name):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, 3e38, np.float32), tensor.name))
    onnx.save(graph, path)
    with pytest.raises(InputError, match=r"is not finite in (onnxruntime|fp32); the weights overflow"):
        import_onnx(path)


def test_inputs_of_unknown_types(tmp_path: Path) -> None:
    export_text(tmp_path / "model.onnx")
    for change in (
        lambda kind: setattr(kind.tensor_type, "elem_type", 0), lambda kind: setattr(kind.tensor_type, "elem_type", 99),
        lambda kind: setattr(kind.sequence_type.elem_type.tensor_type, "elem_type", 7),
    ):  # fmt: skip
        graph = onnx.load(str(tmp_path / "model.onnx"))
        change(graph.graph.input[0].type)
        onnx.save(graph, str(tmp_path / "odd.onnx"))
        with pytest.raises(InputError, match="input 'input_ids' is no tensor of a type that ONNX knows"):
            import_onnx(tmp_path / "odd.onnx")


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
