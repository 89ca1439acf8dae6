"""Checkpoints: formats of tensors, shards, prefixes, pooling; every key and tensor is used, refused or listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from test_families import DISTIL, IDS, IMAGE, TEXT, WHISPER, check, run, saved, text

from sta_hw.errors import InputError
from sta_hw.model.families import load_network


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in found.items() if v != "gone"}))


def retensor(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_formats(dtype: torch.dtype, tmp_path: Path) -> None:
    model = saved(tmp_path, "BertModel", TEXT)
    model.to(dtype).save_pretrained(tmp_path)
    check(text(load_network(tmp_path))["embedding"], run(model.float()).last_hidden_state[0].mean(0))


def test_formats_that_are_not_supported(tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)
    retensor(tmp_path, lambda t: t | {"embeddings.LayerNorm.bias": np.zeros(32, np.int8)})
    with pytest.raises(InputError, match=r"embeddings.LayerNorm.bias \(I8\); float32, float16 and bfloat16 are"):
        load_network(tmp_path)


def test_shards(tmp_path: Path) -> None:
    model = saved(tmp_path, "BertModel", TEXT, shard="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    check(text(load_network(tmp_path))["embedding"], run(model).last_hidden_state[0].mean(0))
    index = tmp_path / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    name = next(iter(found["weight_map"]))
    places = found["weight_map"]
    other = next(s.name for s in shards if s.name != places[name])
    index.write_text(json.dumps(found | {"weight_map": places | {name: other}}))
    with pytest.raises(InputError, match=rf"(lacks|its index says,) {name}"):
        load_network(tmp_path)
    for wrong, says in (
        ({"a": 1, "b": "x"}, "no weight_map"),
        ({"a": ["x"]}, "no weight_map"),
        ({"a": "x\0"}, "no file"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(InputError, match=says):
            load_network(tmp_path)
    index.write_text(json.dumps(found))
    shards[0].unlink()
    with pytest.raises(InputError, match=shards[0].name):
        load_network(tmp_path)


def test_old_names_and_prefixes(tmp_path: Path) -> None:
    model = saved(tmp_path, "BertModel", TEXT)

    def old(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = {
            k: k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            for k in tensors
        }
        return {f"model.bert.{names[k]}": v for k, v in tensors.items()} | {
            "model.bert.embeddings.position_ids": np.arange(40)[None]
        }

    retensor(tmp_path, old)
    network = load_network(tmp_path)
    check(text(network)["embedding"], run(model).last_hidden_state[0].mean(0))
    assert any("position_ids" in u for u in network.unused_tensors)
    retensor(tmp_path, lambda t: t | {"other.embeddings.word_embeddings.weight": np.zeros((50, 32), np.float32)})
    with pytest.raises(InputError, match=r"holds model.bert.* and other.*; one network"):
        load_network(tmp_path)


def test_a_tensor_with_and_without_the_prefix(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM", TEXT)
    retensor(tmp_path, lambda t: t | {"embeddings.LayerNorm.bias": np.zeros(32, np.float32)})
    with pytest.raises(InputError, match=r"holds bert.embeddings.LayerNorm.bias without 'bert.', too"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_attention_heads": 3}, "3 attention heads do not divide a hidden size of 32"),
        (
            {"intermediate_size": "gone"},
            r"encoder.layer.0.intermediate.dense.weight has shape \(64, 32\); by config.json it is \(3072, 32\)",
        ),
        ({"intermediate_size": 128}, r"has shape \(64, 32\); by config.json it is \(128, 32\)"),
        ({"vocab_size": 51}, r"word_embeddings.weight has shape \(50, 32\)"),
        ({"num_hidden_layers": 3}, r"lacks encoder.layer.2.attention.self.query.weight of shape \(32, 32\)"),
        ({"num_hidden_layers": 1}, "have no place in the model: encoder.layer.1"),
        ({"hidden_size": "32"}, "hidden_size is '32'; it is an integer"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, r"lacks encoder.layer.2.attention"),
        ({"hidden_size": 10**9}, "which no file holds"),
        ({"intermediate_size": 10**19}, "which no file holds"),
        ({"layer_norm_eps": -1}, "layer_norm_eps is -1"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported; it is gelu,"),
        ({"position_embedding_type": "relative_key"}, "positions relative to each other"),
        ({"add_cross_attention": True}, "cross-attention"),
        ({"is_decoder": 1}, "is_decoder is 1; it is true or false"),
        ({"quantization_config": {"bits": 4}}, "quantization_config changes what the model computes"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map changes"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads changes"),
        ({"rotary_dim": 4, "alibi": True}, "alibi, rotary_dim are not understood"),
        ({"model_type": "mpnet"}, "model_type 'mpnet' is not supported; it is one of bert, .*whisper"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_configurations_that_are_refused(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)
    edit(tmp_path, **changes)
    with pytest.raises(InputError, match=problem):
        load_network(tmp_path)


@pytest.mark.parametrize("labels", [{"0": "a", "2": "b"}, {"x": "a"}, ["a", "b"], {}])
def test_classes_that_are_refused(labels: Any, tmp_path: Path) -> None:
    saved(tmp_path, "BertForSequenceClassification", TEXT)
    edit(tmp_path, id2label=labels)
    with pytest.raises(InputError, match=r"id2label does not name|classifier.weight has shape"):
        load_network(tmp_path)


def test_a_patch_larger_than_the_image(tmp_path: Path) -> None:
    saved(tmp_path, "ViTModel", IMAGE)
    edit(tmp_path, image_size=1)
    with pytest.raises(InputError):
        load_network(tmp_path)
    edit(tmp_path, image_size="8")
    with pytest.raises(InputError, match="image_size is '8'; it is an integer of at least 1, or two"):
        load_network(tmp_path)


def test_everything_is_named_at_once(tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)
    edit(tmp_path, hidden_act="mish", strange=1, is_decoder="yes")
    with pytest.raises(InputError) as caught:
        load_network(tmp_path)
    assert [w in str(caught.value) for w in ("mish", "strange", "is_decoder")] == [True] * 3


def test_keys_that_cannot_matter_are_listed(tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)
    edit(tmp_path, gradient_checkpointing=False, torch_dtype="float32", pruned_heads={})
    network = load_network(tmp_path)
    assert {"gradient_checkpointing", "torch_dtype", "hidden_dropout_prob"} <= set(network.unused_keys)
    assert any(u.startswith("pooler.dense.bias and 1 more: the embedding is the mean") for u in network.unused_tensors)


@pytest.mark.parametrize(
    ("name", "sizes", "keys"),
    [
        # What the published checkpoints of each family have beside the sizes.
        ("BertModel", TEXT, {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"}),
        ("RobertaModel", TEXT, {"position_embedding_type": "absolute", "output_past": True, "_num_labels": 2}),
        ("DistilBertModel", DISTIL, {"tie_weights_": True, "finetuning_task": "sst-2"}),
        ("ElectraModel", TEXT | {"embedding_size": 16}, {"summary_type": "first", "summary_use_proj": True}),
        ("ViTModel", IMAGE, {"encoder_stride": 16, "_name_or_path": "", "torch_dtype": "float32"}),
        ("CLIPVisionModel", IMAGE, {"dropout": 0.0, "is_decoder": False, "add_cross_attention": False,
                                    "pruned_heads": {}, "num_beams": 1, "early_stopping": False}),
        ("WhisperModel", WHISPER, {"forced_decoder_ids": [[1, 2]], "suppress_tokens": [1], "max_length": 448}),
    ],
)  # fmt: skip
def test_keys_of_published_checkpoints(name: str, sizes: dict[str, Any], keys: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, name, sizes)
    edit(tmp_path, **keys)
    load_network(tmp_path)
    if name not in ("BertModel", "RobertaModel", "ElectraModel"):
        edit(tmp_path, is_decoder=True)
        with pytest.raises(InputError, match="is_decoder changes what the model computes"):
            load_network(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["encoder.layer.1.output.dense.weight", "embeddings.LayerNorm.bias"])
def test_values_that_are_not_finite(name: str, bad: float, tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)

    def spoil(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors[name].flat[5] = bad
        return tensors

    retensor(tmp_path, spoil)
    with pytest.raises(InputError, match=rf"{name}, .*, is {bad}; values must be finite"):
        load_network(tmp_path)


def test_tensors_without_a_place(tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)
    retensor(tmp_path, lambda t: t | {"encoder.layer.0.adapter.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(InputError, match=r"have no place in the model: encoder.layer.0.adapter.weight"):
        load_network(tmp_path)


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no config.json"):
        load_network(tmp_path)
    saved(tmp_path, "BertModel", TEXT)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model.safetensors.*there is pytorch_model.bin"):
        load_network(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model.safetensors"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("name", "sizes", "key"),
    [("DistilBertModel", DISTIL, "n_heads"), ("ViTModel", IMAGE, "num_attention_heads"),
     ("CLIPVisionModel", IMAGE, "num_attention_heads"), ("WhisperModel", WHISPER, "encoder_attention_heads")],
)  # fmt: skip
def test_heads_of_every_family(name: str, sizes: dict[str, Any], key: str, tmp_path: Path) -> None:
    saved(tmp_path, name, sizes)
    edit(tmp_path, **{key: 3, "rotary": 1})
    with pytest.raises(InputError, match="rotary is not understood"):
        load_network(tmp_path)
    edit(tmp_path, rotary="gone")
    with pytest.raises(InputError, match=r"3 (attention )?heads(, which)? do not divide"):
        load_network(tmp_path)


def sentence_transformer(folder: Path, pooling: dict[str, Any], *more: tuple[str, dict[str, Any]]) -> Any:
    model = saved(folder, "BertModel", TEXT)
    listed = [("", "Transformer", None), ("1_Pooling", "Pooling", {"word_embedding_dimension": 32} | pooling)]
    listed += [(f"{i + 2}_{kind}", kind, about) for i, (kind, about) in enumerate(more)]
    for path, _, about in listed[1:]:
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "config.json").write_text(json.dumps(about))
    (folder / "modules.json").write_text(
        json.dumps([{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{k}"}
                    for i, (p, k, _) in enumerate(listed)])
    )  # fmt: skip
    return model


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, lambda t: t.mean(0)),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, lambda t: t[0]),
        ({"pooling_mode_max_tokens": True}, lambda t: t.max(0).values),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, lambda t: t[-1]),
        ({"pooling_mode": "cls"}, lambda t: t[0]),
    ],
)
def test_pooling(pooling: dict[str, Any], wanted: Any, tmp_path: Path) -> None:
    model = sentence_transformer(tmp_path, pooling, ("Normalize", {}))
    pooled = wanted(run(model).last_hidden_state[0])
    check(text(load_network(tmp_path))["embedding"], pooled / pooled.norm())


def test_dense_module(tmp_path: Path) -> None:
    model = sentence_transformer(
        tmp_path, {"pooling_mode_cls_token": True},
        ("Dense", {"in_features": 32, "out_features": 8, "bias": True,
                   "activation_function": "torch.nn.modules.activation.Tanh"}),
    )  # fmt: skip
    torch.manual_seed(1)
    layer = torch.nn.Linear(32, 8)
    save_file({f"linear.{k}": v.numpy() for k, v in layer.state_dict().items()}, tmp_path / "2_Dense/model.safetensors")
    with torch.no_grad():
        check(text(load_network(tmp_path))["embedding"], torch.tanh(layer(run(model).last_hidden_state[0, 0])))


@pytest.mark.parametrize(
    ("pooling", "more", "problem"),
    [
        ({"pooling_mode_weightedmean_tokens": True}, (), "pooling by weightedmean is not supported"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, (), "pooling by cls and max"),
        ({}, (), "pooling by nothing"),
        ({"pooling_mode_cls_token": True, "word_embedding_dimension": 31}, (), "the encoder's width is 32"),
        ({"pooling_mode_cls_token": True, "include_prompt": False}, (), "tokens of a prompt"),
        ({"pooling_mode_cls_token": True, "other": 1}, (), "other is not understood"),
        ({"pooling_mode_cls_token": True}, (("LSTM", {}),), "a module LSTM here is not supported"),
        (
            {"pooling_mode": "mean", "pooling_mode_cls_token": True},
            (),
            "pooling_mode is 'mean', and by its flags .* cls",
        ),
        (
            {"pooling_mode": ["mean"], "pooling_mode_max_tokens": True},
            (),
            r"pooling_mode is \['mean'\], and by its flags",
        ),
        ({"pooling_mode": ["mean", "max"]}, (), "is not supported; it is one of mean"),
        (
            {"pooling_mode_cls_token": True},
            (("Dense", {"in_features": 32, "activation_function": "mine.Tanh"}),),
            "activation_function mine.Tanh is not supported",
        ),
    ],
)
def test_pooling_that_is_refused(pooling: dict[str, Any], more: Any, problem: str, tmp_path: Path) -> None:
    sentence_transformer(tmp_path, pooling, *more)
    with pytest.raises(InputError, match=problem):
        load_network(tmp_path)


@pytest.mark.parametrize("number", [0, 1])
def test_modules_of_somebody_else(number: int, tmp_path: Path) -> None:
    """A class of a known name from elsewhere may do anything."""
    sentence_transformer(tmp_path, {"pooling_mode_cls_token": True})
    path = tmp_path / "modules.json"
    found = json.loads(path.read_text())
    found[number]["type"] = found[number]["type"].replace("sentence_transformers.models", "custom")
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"custom\.(Transformer; it is a|Pooling here is not supported)"):
        load_network(tmp_path)


def test_limits_of_sentence_transformers(tmp_path: Path) -> None:
    sentence_transformer(tmp_path, {"pooling_mode_cls_token": True})
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": true}')
    limits = load_network(tmp_path).limits
    assert (limits.most_tokens, limits.lower) == (20, True)
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"q": "Q: "}, "default_prompt_name": "q"}')
    with pytest.raises(InputError, match="a text put ahead"):
        load_network(tmp_path)


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_xlm-roberta_config.json"])
def test_limits_lie_beside_the_transformer(name: str, tmp_path: Path) -> None:
    """Where older sentence-transformers folders have it, under one of the names that it had."""
    sentence_transformer(tmp_path, {"pooling_mode_cls_token": True})
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).rename(inner / file)
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[0]["path"] = inner.name
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (inner / name).write_text('{"max_seq_length": 20, "do_lower_case": true}')
    network = load_network(tmp_path)
    assert (network.limits.most_tokens, network.limits.lower) == (20, True)
    assert f"{inner.name}/{name}" in network.files(network.graph)


def test_what_later_sentence_transformers_write(tmp_path: Path) -> None:
    """The length of texts is the tokenizer's; keys that say what is so of every plain encoder of texts."""
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    dense = {"in_features": 32, "out_features": 32, "bias": False} | names
    sentence_transformer(tmp_path, {"pooling_mode": "mean"}, ("Dense", dense))
    save_file({"linear.weight": np.eye(32, dtype=np.float32)}, tmp_path / "2_Dense/model.safetensors")
    modality = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    about = {"transformer_task": "feature-extraction", "modality_config": modality,
             "module_output_name": "token_embeddings"}  # fmt: skip
    path, tokenizer = tmp_path / "sentence_bert_config.json", tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(about))
    tokenizer.write_text('{"model_max_length": 1000000000000000019884624838656, "do_lower_case": true}')
    limits = load_network(tmp_path).limits
    assert (limits.most_tokens, limits.lower) == (None, False)
    tokenizer.write_text('{"model_max_length": 12}')
    assert load_network(tmp_path).limits.most_tokens == 12
    path.write_text(json.dumps(about | {"max_seq_length": 20}))
    assert load_network(tmp_path).limits.most_tokens == 20
    for change, problem in (
        ({"transformer_task": "fill-mask"}, "transformer_task"), ({"query_length": 3}, "a length of their own"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "settings of the tokenizer"),
    ):  # fmt: skip
        path.write_text(json.dumps(about | change))
        with pytest.raises(InputError, match=problem):
            load_network(tmp_path)
    path.unlink()
    (tmp_path / "2_Dense/config.json").write_text(json.dumps(dense | {"use_residual": True}))
    with pytest.raises(InputError, match="use_residual = true: a sum with"):
        load_network(tmp_path)


def test_a_token_beyond_the_table(tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT)
    with pytest.raises(InputError, match="word has rows 0 to 49, and row 50 is wanted"):
        text(load_network(tmp_path), [*IDS, 50])
    with pytest.raises(InputError, match="position has rows 0 to 39, and row 40 is wanted"):
        text(load_network(tmp_path), [1] * 41)
    assert load_network(tmp_path).graph.most_tokens == 40
    saved(tmp_path, "RobertaModel", TEXT)
    assert load_network(tmp_path).graph.most_tokens == 38
