"""Decoders from GGUF files: ggml's names and order of weights become those of the family's checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from ..gguf import Gguf, with_arrays
from ..graph import Graph
from ..operations import Array
from ..settings import Settings
from ..tensors import Tensors
from . import gpt2, llama

__all__ = ["file_with", "network_of"]

_KEYS = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta", "vocab_size": "vocab_size", "attention.key_length": "head_dim",
}  # fmt: skip
"""ggml's keys behind the architecture's name, and transformers'."""
_GPT2_KEYS = {
    "block_count": "n_layer", "context_length": "n_positions", "embedding_length": "n_embd",
    "feed_forward_length": "n_inner", "attention.head_count": "n_head", "vocab_size": "vocab_size",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}  # fmt: skip
_OPTIONAL = ("attention.head_count_kv", "rope.freq_base", "vocab_size", "attention.key_length")
"""Those that a file need not have; readers of GGUF take no default for the others."""
_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_GPT2_NAMES = {
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


def _interleaved(array: Array, heads: int) -> Array:
    """Rows of pairs, which ggml has side by side, as transformers has them: a head's first ones, then the others."""
    shape = (heads, len(array) // heads // 2, 2, *array.shape[1:])
    return np.ascontiguousarray(array.reshape(shape).swapaxes(1, 2)).reshape(array.shape)


def _side_by_side(array: Array, heads: int) -> Array:
    """The other way round."""
    shape = (heads, 2, len(array) // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(array.reshape(shape).swapaxes(1, 2)).reshape(array.shape)


def _llama(file: Gguf, family: str) -> tuple[dict[str, Any], dict[str, Array]]:
    found = _translated(file, family, _KEYS)
    arrays = _renamed(file, "model.layers", _NAMES, {
        "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    })  # fmt: skip
    found["tie_word_embeddings"] = "lm_head.weight" not in arrays
    # The share of each head is explicit in some files; where it is not, all of it turns.
    sizes = [found.get(k) for k in ("hidden_size", "num_attention_heads")]
    whole = [s for s in sizes if isinstance(s, int) and not isinstance(s, bool) and s > 0]
    width = found.get("head_dim") or (whole[0] // whole[1] if len(whole) == len(sizes) else 0)
    # Where a file says neither, GGUF's readers take these, which are not transformers' for every family.
    if width:
        found.setdefault("head_dim", width)
    found.setdefault("num_key_value_heads", found["num_attention_heads"])
    for key in ("rope.dimension_count", "attention.value_length"):
        if found.pop(f"{family}.{key}", width) != width and len(whole) == len(sizes):
            raise InputError(
                f"{file.path}: {family}.{key} is not the width of a head, {width}, which is not supported."
            )
    factor = found.pop(f"{family}.rope.scaling.factor", None)
    kind = found.pop(f"{family}.rope.scaling.type", "linear" if factor else "none")  # as llama.cpp takes it
    if kind != "none":
        found["rope_scaling"] = {"rope_type": kind, "factor": factor}
    if family == "llama":
        found["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in arrays
        found["mlp_bias"] = "model.layers.0.mlp.up_proj.bias" in arrays
        for role, key in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
            heads = found[key]
            for name in [n for n in arrays if f".{role}_proj." in n]:
                if not isinstance(heads, int) or heads < 1 or len(arrays[name]) % (2 * heads):
                    raise InputError(f"{file.path}: {name} has {len(arrays[name])} rows, no pairs of {heads} heads.")
                arrays[name] = _interleaved(arrays[name], heads)
    if family == "qwen3":
        found["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in arrays
    return found, arrays


def _gpt2(file: Gguf, family: str) -> tuple[dict[str, Any], dict[str, Array]]:
    found = _translated(file, family, _GPT2_KEYS)
    arrays = _renamed(file, "transformer.h", _GPT2_NAMES, {
        "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
        "output": "lm_head",
    })  # fmt: skip
    found["tie_word_embeddings"] = "lm_head.weight" not in arrays
    for name in arrays:
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            arrays[name] = arrays[name].T  # ggml has them the usual way round, GPT-2's checkpoints have not
    return found, arrays


_FAMILIES: dict[str, tuple[Callable[[Gguf, str], tuple[dict[str, Any], dict[str, Array]]], Any]] = {
    "llama": (_llama, llama), "qwen2": (_llama, llama), "qwen3": (_llama, llama), "gpt2": (_gpt2, gpt2),
}  # fmt: skip
_NAMED_ALIKE = tuple(name for name, (_, importer) in _FAMILIES.items() if importer is llama)
_TURNING = {"q": "head_count", "k": "head_count_kv"}


def _translated(file: Gguf, family: str, names: Mapping[str, str]) -> dict[str, Any]:
    """The architecture's keys under transformers' names; those that are not known keep theirs."""
    found: dict[str, Any] = {}
    missing = [f"{family}.{key}" for key in names if key not in _OPTIONAL and f"{family}.{key}" not in file.metadata]
    if missing:
        raise InputError(f"{file.path} lacks {', '.join(missing)}, which its readers have no default for.")
    for key, value in file.metadata.items():
        if key.startswith(f"{family}."):
            found[names.get(key.removeprefix(f"{family}."), key)] = value
    if "vocab_size" not in found and "token_embd.weight" in file.tensors:
        found["vocab_size"] = file.tensors["token_embd.weight"].shape[0]
    return found


def _renamed(file: Gguf, layers: str, names: Mapping[str, str], others: Mapping[str, str]) -> dict[str, Array]:
    """The tensors under the checkpoint's names; those that are not known keep theirs."""
    found: dict[str, Array] = {}
    for name, tensor in file.tensors.items():
        stem, _, field = name.rpartition(".")
        place = stem.split(".")
        new = f"{others[stem]}.{field}" if stem in others else name
        if len(place) == 3 and place[0] == "blk" and place[2] in names:
            new = f"{layers}.{place[1]}.{names[place[2]]}.{field}"
        if new in found:
            raise InputError(f"{file.path} has the tensor {new} under another name, too; one of them is meant.")
        found[new] = tensor.array()
    return found


def network_of(file: Gguf) -> tuple[Graph, Tensors, list[str], list[str]]:
    """The graph; its tensors; sentences about those that are not used; keys that are not used.

    Raises
    ------
    InputError
        If the architecture is not supported, a key or tensor is not understood, or they do not fit each other.
    """
    family = file.get("general.architecture", str, "")
    if family not in _FAMILIES:
        raise InputError(
            f"{file.path}: the architecture {family!r} is not supported; it is one of {', '.join(_FAMILIES)}."
        )
    if (parts := file.get("split.count", int, 1)) > 1:
        raise InputError(f"{file.path} is one of {parts} parts, which is not supported; join them (llama-gguf-split).")
    if (kind := file.get("general.type", str, "model")) != "model":
        raise InputError(f"{file.path}: general.type is {kind!r}; it is 'model' for what computes by itself.")
    translate, importer = _FAMILIES[family]
    found, arrays = translate(file, family)
    tensors = Tensors(arrays, file.path)
    settings = Settings(found, file.path)
    graph: Graph = importer.build(settings, tensors, family)
    keys = settings.finish() + sorted(k for k in file.metadata if not k.startswith((f"{family}.", "tokenizer.")))
    keys.remove("general.architecture")
    return graph.verify(), tensors, tensors.finish(), keys


def file_with(file: Gguf, graph: Graph) -> bytes:
    """The file with the weights of `graph`, the same network with others in its layers.

    Raises
    ------
    InputError
        If the architecture is one whose products are not tensors of their own in the file.
    """
    family = file.get("general.architecture", str, "")
    if family not in _NAMED_ALIKE:
        raise InputError(
            f"{file.path}: {family}'s files hold several products in a tensor, which cannot be written; a folder of "
            f"transformers' could not either. {', '.join(_NAMED_ALIKE)} can."
        )
    before, names = network_of(file)[0].tensors, {stem: name for name, stem in _NAMES.items()}
    heads = {f"self_attn.{r}_proj": file.get(f"{family}.attention.{k}", int) for r, k in _TURNING.items()}
    changed = {}
    for name, array in graph.tensors.items():
        if np.array_equal(array, before[name]):
            continue
        layer, _, stem = name.removeprefix("model.").removeprefix("layers.").partition(".")
        stem, _, field = stem.rpartition(".")
        if family == "llama" and stem in heads:
            array = _side_by_side(array, heads[stem] or heads["self_attn.q_proj"])
        changed[f"blk.{layer}.{names[stem]}.{field}"] = array
    return with_arrays(file, changed)
