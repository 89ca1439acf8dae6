"""Decoders: every logit of every position is that of Hugging Face's own model, from a prompt and token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import TOLERANCE, saved

from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import Cache, evaluate
from sta_hw.model.part import accelerator_part

SIZES = {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 50,
    "max_position_embeddings": 40, "num_key_value_heads": 2,
}  # fmt: skip
QWEN3 = SIZES | {"head_dim": 6}
GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 50, "n_positions": 40}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
IDS = [0, 7, 3, 11, 49, 2, 7, 30, 2, 17, 5]

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("LlamaForCausalLM", SIZES, {}),
    ("LlamaForCausalLM", SIZES, {"tie_word_embeddings": True, "num_key_value_heads": None}),
    ("LlamaForCausalLM", SIZES, {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-1, "hidden_act": "gelu"}),
    ("LlamaForCausalLM", SIZES, {"head_dim": 10, "num_key_value_heads": 1}),
    ("LlamaForCausalLM", SIZES, {"rope_parameters": LINEAR}),
    ("LlamaForCausalLM", SIZES, {"rope_parameters": LLAMA3}),
    ("LlamaForCausalLM", SIZES, {"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}}),
    ("Qwen2ForCausalLM", SIZES, {}),
    ("Qwen2ForCausalLM", SIZES, {"tie_word_embeddings": True, "hidden_act": "relu"}),
    ("Qwen3ForCausalLM", QWEN3, {}),
    ("Qwen3ForCausalLM", QWEN3, {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 8}),
    ("GPT2LMHeadModel", GPT2, {}),
    ("GPT2LMHeadModel", GPT2, {"n_inner": 40, "activation_function": "relu", "layer_norm_epsilon": 1e-1}),
    ("GPT2LMHeadModel", GPT2, {"tie_word_embeddings": False}),
]  # fmt: skip


def logits(model: Any, ids: list[int] = IDS) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(input_ids=torch.tensor([ids])).logits[0].numpy())


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "sizes", "changes"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v))[:40]
)
def test_logits(name: str, sizes: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path, name, sizes, **changes)
    network = load_network(tmp_path)
    wanted = logits(model)
    assert close(evaluate(network.graph, {"ids": IDS})["next_token"], wanted)
    for prompt in (1, 4):
        cache, found = Cache(len(IDS)), []
        for first, last in [(0, prompt), *((i, i + 1) for i in range(prompt, len(IDS)))]:
            values = evaluate(network.graph, {"ids": IDS[first:last]}, cache=cache, keep=("next_token",))
            assert set(values) == {"next_token"} and cache.length == last
            found.append(values["next_token"])
        assert close(np.concatenate(found), wanted), prompt
    with pytest.raises(InputError, match="holds 11 tokens and is full"):
        evaluate(network.graph, {"ids": [1]}, cache=cache)


def test_a_cache_goes_on_from_where_it_is_set_back() -> None:
    from sta_hw.model.families.llama import build
    from sta_hw.model.random import Drawn
    from sta_hw.model.settings import Settings

    rng = np.random.default_rng(0)
    settings = Settings(SIZES | {"vocab_size": 50}, Path("config.json"))
    graph = build(settings, Drawn(lambda name, shape: rng.normal(size=shape).astype(np.float32)), "llama")
    cache = Cache(20)
    evaluate(graph, {"ids": IDS}, cache=cache)
    other = cache.copy()
    cache.length = 4
    found = evaluate(graph, {"ids": [5, 6]}, cache=cache)["next_token"]
    assert close(found, evaluate(graph, {"ids": [*IDS[:4], 5, 6]})["next_token"][4:])
    found = evaluate(graph, {"ids": [5, 6]}, cache=other)["next_token"]
    assert close(found, evaluate(graph, {"ids": [*IDS, 5, 6]})["next_token"][-2:])


@pytest.mark.parametrize(
    ("name", "sizes", "change", "sentence"),
    [
        ("LlamaForCausalLM", SIZES, {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'yarn' are not"),
        ("LlamaForCausalLM", SIZES, {"rope_theta": -1, "rope_parameters": None}, "rope_theta of rotary"),
        ("LlamaForCausalLM", SIZES, {"rope_parameters": 7}, "rope_parameters is 7"),
        ("LlamaForCausalLM", SIZES, {"rope_scaling": LINEAR}, "rope_scaling and rope_parameters say different"),
        ("LlamaForCausalLM", SIZES, {"rope_parameters": LLAMA3 | {"low_freq_factor": 5.0}}, "is 5.0, above"),
        ("LlamaForCausalLM", SIZES, {"num_key_value_heads": 3}, "3 heads of key and value do not divide 4"),
        ("LlamaForCausalLM", SIZES, {"head_dim": 7}, "width is 7"),
        ("LlamaForCausalLM", SIZES, {"attention_multiplier": 7}, "attention_multiplier is not understood"),
        ("LlamaForCausalLM", SIZES, {"vocab_size": 51}, "by config.json it is (51, 32)"),
        ("Qwen2ForCausalLM", SIZES, {"use_sliding_window": True}, "use_sliding_window"),
        ("Qwen3ForCausalLM", QWEN3, {"layer_types": ["sliding_attention"] * 2}, "layer_types"),
        ("GPT2LMHeadModel", GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("GPT2LMHeadModel", GPT2, {"scale_attn_weights": False}, "scale_attn_weights"),
        ("GPT2LMHeadModel", GPT2, {"add_cross_attention": True}, "add_cross_attention"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_what_is_refused(name: str, sizes: dict[str, Any], change: dict[str, Any], sentence: str,
                         tmp_path: Path) -> None:  # fmt: skip
    saved(tmp_path, name, sizes)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as refused:
        load_network(tmp_path)
    assert sentence in str(refused.value)


def test_older_configurations(tmp_path: Path) -> None:
    """Of before transformers 5: rope_theta and rope_scaling."""
    model = saved(tmp_path, "LlamaForCausalLM", SIZES, rope_parameters=LLAMA3)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    about = written.pop("rope_parameters")
    path.write_text(json.dumps(written | {"rope_parameters": about, "rope_scaling": about}))  # the same under both keys
    assert close(evaluate(load_network(tmp_path).graph, {"ids": IDS})["next_token"], logits(model))
    written |= {"rope_theta": about.pop("rope_theta"), "rope_scaling": {"type": about.pop("rope_type"), **about}}
    path.write_text(json.dumps(written))
    assert close(evaluate(load_network(tmp_path).graph, {"ids": IDS})["next_token"], logits(model))


def test_the_encoders_road_refuses_them(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    with pytest.raises(InputError, match="generate-text"):
        accelerator_part(load_network(tmp_path).graph)


def test_tokens_beyond_the_tables(tmp_path: Path) -> None:
    saved(tmp_path, "GPT2LMHeadModel", GPT2)
    graph = load_network(tmp_path).graph
    assert graph.most_tokens == 40
    with pytest.raises(InputError, match="row 50 is wanted"):
        evaluate(graph, {"ids": [50]})
    with pytest.raises(InputError, match="row 40 is wanted"):
        evaluate(graph, {"ids": [1] * 41})
