"""AWQ's and GPTQ's checkpoints: weights are what their numbers, zeros and scales say, in any order of activations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import SIZES
from safetensors.numpy import load_file, save_file
from test_families import saved

from sta_hw.errors import InputError
from sta_hw.formats.blocks import common_grid, on_column_grid
from sta_hw.model.families import load_network
from sta_hw.model.operations import Linear

GROUP = 32


def packed(rows: np.ndarray, order: list[int]) -> np.ndarray:
    """Eight numbers of a row in each word."""
    words = np.zeros((len(rows), rows.shape[1] // 8), np.uint32)
    for i, column in enumerate(order):
        words |= rows[:, column::8].astype(np.uint32) << np.uint32(4 * i)
    return words.view(np.int32)


def quantize(folder: Path, method: str, acts: bool, share: int = GROUP, **about: Any) -> dict[str, np.ndarray]:
    """Replaces a checkpoint's linear weights by 4-bit ones, of which `share` have a scale; what they stand for."""
    rng, place = np.random.default_rng(1), folder / "model.safetensors"
    first = about.get("checkpoint_format", about.get("format")) != "gptq_v2"  # its zeros are stored less one
    tensors, exact = dict(load_file(place)), {}
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        outputs, inputs = tensors.pop(name).shape
        stem, groups = name.removesuffix("weight"), -(-inputs // share)
        numbers = rng.integers(0, 16, (inputs, outputs))
        zeros, scales = rng.integers(0, 16, (groups, outputs)), rng.uniform(0.001, 0.02, (groups, outputs))
        scales = scales.astype(np.float16)
        index = np.arange(inputs) // share
        if acts:
            index = rng.permutation(index)
        exact[name] = ((numbers - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]).T
        tensors[stem + "scales"] = scales
        if method == "awq":
            order = [0, 2, 4, 6, 1, 3, 5, 7]
            tensors[stem + "qweight"], tensors[stem + "qzeros"] = packed(numbers, order), packed(zeros, order)
        else:
            plain = list(range(8))
            tensors[stem + "qweight"] = np.ascontiguousarray(packed(numbers.T, plain).T)
            tensors[stem + "qzeros"] = packed((zeros - first) & 15, plain)
            tensors[stem + "g_idx"] = index.astype(np.int32)
    save_file(tensors, place, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": share, **about}
    (folder / "config.json").write_text(json.dumps(config))
    return exact


@pytest.mark.parametrize(
    ("method", "acts", "about"),
    [("awq", False, {"version": "gemm"}), ("gptq", False, {}), ("gptq", True, {"desc_act": True}),
     ("gptq", False, {"checkpoint_format": "gptq_v2"}), ("gptq", False, {"format": "gptq_v2"}),
     ("awq", False, {"version": "GEMM", "format": "gemv"}),
     ("gptq", False, {"checkpoint_format": "GPTQ", "format": "gptq_v2"})],
    ids=["awq", "gptq", "gptq, order of activations", "gptq v2", "gptq v2 by its newer key", "awq by its older key",
         "gptq by its older key"],
)  # fmt: skip
def test_weights_are_the_files(method: str, acts: bool, about: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    exact = quantize(tmp_path, method, acts, **about)
    network = load_network(tmp_path)
    found = {o.name: o.weight for o in network.graph.operations if isinstance(o, Linear)}
    assert len(exact) == 14
    for name, wanted in exact.items():
        stem = name.removeprefix("model.layers.").removesuffix(".weight")
        np.testing.assert_array_equal(found[stem], wanted)
        if acts and wanted.shape[1] > GROUP:
            continue
        assert common_grid(wanted, GROUP) is not None
        grid = on_column_grid(wanted, np.abs(wanted).max(1) / 127, GROUP)
        assert grid is not None
        assert np.abs(grid[0].weights - wanted / grid[1][:, None]).max() <= 0.5 + 1e-6


def test_products_with_fewer_inputs_than_share_a_scale(tmp_path: Path) -> None:
    """As AutoGPTQ and AutoAWQ write small ones: one group."""
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    exact = quantize(tmp_path, "awq", acts=False, share=128)
    found = {o.name: o.weight for o in load_network(tmp_path).graph.operations if isinstance(o, Linear)}
    for name, wanted in exact.items():
        assert wanted.shape[1] <= 128
        np.testing.assert_array_equal(found[name.removeprefix("model.layers.").removesuffix(".weight")], wanted)


@pytest.mark.parametrize(
    ("about", "problem"),
    [({"bits": 8}, "8 bits"), ({"version": "gemv"}, "gemv is not supported"),
     ({"format": "gemv_fast"}, "format gemv_fast is not supported; 4 bits and gemm are"),
     ({"backend": "llm-awq"}, "format llm-awq is not supported"),
     ({"pack_dtype": "int16"}, "pack_dtype of quantization_config is 'int16', which is not supported"),
     ({"dynamic": {"+:q_proj": {"bits": 8}}}, "dynamic of .* is .*, which is not supported"),
     ({"dynamic": ["-:q_proj"]}, "dynamic of .* is .*, which is not supported"),
     ({"act_bits": 8}, "act_bits of .* is '8'"), ({"data_type": "fp"}, "data_type of .* is 'fp'"),
     ({"rotation": "hadamard"}, "rotation of .* is 'hadamard'"),
     ({"checkpoint_format": "gptq"}, "checkpoint_format of .* is not understood"),
     ({"group_size": 64}, "32 inputs share a scale, and by config.json .* it is 64"),
     ({"group_size": -1}, "32 inputs share a scale"), ({"group_size": 0}, "group_size .* is 0; it is an integer"),
     ({"group_size": True}, "group_size .* is True"), ({"group_size": "32"}, "group_size .* is '32'"),
     ({"zero_point": "yes"}, "zero_point .* is 'yes'; it is true or false")],
)  # fmt: skip
def test_what_is_refused(about: dict[str, Any], problem: str, tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    quantize(tmp_path, "awq", acts=False, **about)
    with pytest.raises(InputError, match=problem):
        load_network(tmp_path)


def test_parts_that_are_missing(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    quantize(tmp_path, "gptq", acts=False)
    tensors = dict(load_file(tmp_path / "model.safetensors"))
    del tensors["model.layers.0.mlp.up_proj.scales"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks model.layers.0.mlp.up_proj.scales"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [("scales", lambda a: a * np.float16(np.inf), "values must be finite"),
     ("qweight", lambda a: a[:0], "it is no matrix"), ("scales", lambda a: a[:, :0], "it is no matrix"),
     ("qzeros", lambda a: a.astype(np.float32), "it is of integers"),
     ("g_idx", lambda a: np.full(len(a), np.nan, np.float32), "it is of integers"),
     ("g_idx", lambda a: a + 1000, "does not name a group")],
)  # fmt: skip
def test_damaged_parts(part: str, change: Any, said: str, tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    quantize(tmp_path, "gptq", False)
    place = tmp_path / "model.safetensors"
    tensors = dict(load_file(place))
    name = next(n for n in tensors if n.endswith(part))
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    save_file(tensors, place, {"format": "pt"})
    with pytest.raises(InputError, match=said):
        load_network(tmp_path)


def changed_tensors(folder: Path, change: Any) -> None:
    tensors = dict(load_file(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_an_order_of_activations_that_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    quantize(tmp_path, "gptq", acts=True, desc_act=True)
    changed_tensors(tmp_path, lambda t: [t.pop(n) for n in list(t) if n.endswith("g_idx")])
    with pytest.raises(InputError, match=r"lacks .*g_idx, which desc_act of .* needs"):
        load_network(tmp_path)


def test_weights_of_both_kinds(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    changed_tensors(tmp_path, lambda t: None)
    config = json.loads((tmp_path / "config.json").read_text())
    about = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": GROUP}}
    (tmp_path / "config.json").write_text(json.dumps(config | about))
    with pytest.raises(InputError, match=r"says that weights are gptq's, and .* has no qweight"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    quantize(tmp_path, "gptq", acts=False)
    changed_tensors(tmp_path, lambda t: t.update({"model.layers.0.mlp.up_proj.weight": np.zeros((64, 32), np.float32)}))
    with pytest.raises(InputError, match=r"has model.layers.0.mlp.up_proj.weight and .*qweight; a product has one"):
        load_network(tmp_path)


def test_keys_that_change_nothing_are_listed(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    quantize(tmp_path, "gptq", acts=False, damp_percent=0.1, pack_dtype="int32", dynamic=None, backend="marlin")
    keys = load_network(tmp_path).unused_keys
    assert {"quantization_config.damp_percent", "quantization_config.backend"} <= set(keys)
    assert not any("pack" in key or "dynamic" in key for key in keys)


@pytest.mark.parametrize(
    "about",
    [{"exllama_config": {"version": 1}, "tokenizer": None, "use_cuda_fp16": False, "use_exllama": True},
     {"checkpoint_format": "gptq", "dynamic": {"-:.*lm_head": {}}, "hyb_act": False, "meta": {}, "pack_dtype": "int32"},
     {"act_bits": 16, "act_dynamic": True, "autoround_version": "0.5.1", "data_type": "int", "iters": 200,
      "low_gpu_mem_usage": True, "scale_dtype": "torch.float16", "super_bits": None, "to_quant_block_names": None}],
    ids=["transformers 4", "GPTQModel", "AutoRound"],
)  # fmt: skip
def test_what_libraries_write_is_read(about: dict[str, Any], tmp_path: Path) -> None:
    """Keys of published checkpoints."""
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    exact = quantize(tmp_path, "gptq", acts=False, **about)
    found = {o.name: o.weight for o in load_network(tmp_path).graph.operations if isinstance(o, Linear)}
    for name, wanted in exact.items():
        np.testing.assert_array_equal(found[name.removeprefix("model.layers.").removesuffix(".weight")], wanted)
