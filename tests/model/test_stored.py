"""A graph's folder: what is written is read again to the bit, and what does not fit is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_families import IMAGE, TEXT, WHISPER, saved

from sta_hw.errors import InputError
from sta_hw.files import write_all
from sta_hw.model.families import load_network
from sta_hw.model.stored import graph_files


def stored(folder: Path, name: str, sizes: dict[str, Any]) -> Path:
    saved(folder / "theirs", name, sizes)
    network = load_network(folder / "theirs")
    files = graph_files(network.graph, network.labels, network.scoring)
    write_all({folder / "ours" / n: content for n, content in files.items()})
    return folder / "ours"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("RobertaForSequenceClassification", TEXT | {"num_labels": 3}), ("BertModel", TEXT | {"is_decoder": True}),
        ("ElectraModel", TEXT | {"embedding_size": 16}), ("CLIPVisionModel", IMAGE), ("WhisperModel", WHISPER),
        ("DeiTForImageClassificationWithTeacher", IMAGE),
        ("BertForSequenceClassification", TEXT | {"num_labels": 3, "problem_type": "multi_label_classification"}),
        ("BertForSequenceClassification", TEXT | {"num_labels": 1, "problem_type": "regression"}),
    ],
)  # fmt: skip
def test_again(name: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    ours = load_network(stored(tmp_path, name, sizes))
    theirs = load_network(tmp_path / "theirs")
    assert str(ours.graph) == str(theirs.graph) and ours.labels == theirs.labels
    assert not ours.labels or ours.scoring == theirs.scoring
    for o in theirs.graph.operations:
        for field, value in o.attributes().items():
            np.testing.assert_array_equal(getattr(ours.graph.by_name[o.name], field), value)
    assert ours.unused_keys == () and ours.unused_tensors == ()


def change(folder: Path, what: dict[str, Any], operation: str | None = None) -> None:
    path = folder / "config.json"
    found = json.loads(path.read_text())
    at = next(o for o in found["operations"] if o["name"] == operation) if operation else found
    at.update(what)
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))


@pytest.mark.parametrize(
    ("operation", "what", "problem"),
    [
        (None, {"version": 2}, "of version 2; this program reads 1"),
        (None, {"labels": [1]}, "labels is a list of names"),
        (None, {"operations": {}}, "operations a list of objects"),
        (None, {"strange": 1}, "strange is not understood"),
        ("word", {"operation": "Rotate"}, "operation 1 is 'Rotate', which is none of"),
        ("word", {"inputs": "ids"}, "operation 1 is no object with a name and inputs"),
        ("word", {"name": "words"}, r"\(words\) has no tensor words.table"),
        ("word", {"offset": "1"}, r"\(word\) has offset = '1'"),
        ("word", {"scale": 1}, r"\(word\) has scale, which Embed has not"),
        ("0.context", {"heads": 3}, "has 3 heads, which do not divide"),
        ("0.context", {"heads": 0}, "has 0 heads; the least is 1"),
        ("0.context", {"heads": -4}, "has -4 heads; the least is 1"),
        ("word", {"offset": -3}, "has an offset of -3"),
        ("mean", {"first": 3}, "begins with token 3, counted from 0; a text may have one alone"),
        ("0.normed", {"epsilon": -1}, "0.normed has epsilon = -1; it is a number from 0 to 1"),
        ("ids", {"given": ["x"]}, r"has the shape \('x',\)"),
        ("embedding", {"name": "vector"}, "its outputs are vector; a graph has one, embedding or logits"),
        (None, {"labels": ["yes", "no"]}, "there are 2 labels, and the graph has 0 classes"),
        ("0.activated", {"function": "mish"}, "has function 'mish'; it is one of gelu"),
        ("0.sum1", {"inputs": ["0.attention.output.dense", "nothing"]}, "takes nothing, which no operation"),
    ],
)
def test_descriptions_that_are_refused(operation: str | None, what: Any, problem: str, tmp_path: Path) -> None:
    folder = stored(tmp_path, "BertModel", TEXT | {"num_hidden_layers": 1})
    change(folder, what, operation)
    with pytest.raises(InputError, match=problem):
        load_network(folder)


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = stored(tmp_path, "BertModel", TEXT | {"num_hidden_layers": 1})
    tensors = load_file(folder / "model.safetensors")
    for changed, problem in (
        ({"0.normed.bias": np.zeros(31, np.float32)}, "has 31 parameters for a width of 32"),
        ({"0.normed.bias": np.full(32, np.nan, np.float32)}, "values must be finite"),
        ({"0.intermediate.dense.weight": np.zeros(4, np.float32)}, "do not fit each other"),
        ({"more": np.zeros(4, np.float32)}, "have no place in the model: more"),
    ):
        save_file(tensors | changed, folder / "model.safetensors")
        with pytest.raises(InputError, match=problem):
            load_network(folder)
