"""Llama and those of its shape: Qwen2 (biases of query, key and value), Qwen3 (norms of each head of query and key)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graph import Graph
from ..operations import Array
from ..settings import Settings
from ..tensors import Tensors
from .decoders import DecoderBuilder, Heads, frequencies

__all__ = ["FAMILIES", "build"]

FAMILIES = ("llama", "qwen2", "qwen3")

_DEFAULTS = {
    # Of transformers: vocabulary, positions, intermediate size, heads of key and value, a head's width (0: the share).
    "llama": (32000, 2048, 11008, 0, 0),
    "qwen2": (151936, 32768, 22016, 32, 0),
    "qwen3": (151936, 32768, 22016, 32, 128),
}
_FACTORS = "rope_freqs.weight"
"""By which GGUF's readers divide a Llama's rotary frequencies: so its files have Llama 3's."""
_LEFT = {"*rotary_emb.inv_freq": "frequencies, which follow from the configuration"}


def _heads(settings: Settings, family: str, width: int) -> Heads:
    _, _, _, key, head = _DEFAULTS[family]
    query = settings.size("num_attention_heads", 32)
    if family != "qwen3" and width % query:
        settings.problem(f"{query} attention heads do not divide a hidden size of {width}.")
    # A key of null is the number of the query's heads, one that is missing transformers' default.
    given = "num_key_value_heads" in settings.found and settings.found["num_key_value_heads"] is None
    count = settings.size("num_key_value_heads", query if given or not key else key)
    size = settings.size("head_dim", head or max(width // query, 1))
    if query % count:
        settings.problem(f"{count} heads of key and value do not divide {query} of the query.")
        count = query
    if size % 2:
        settings.problem(f"a head's width is {size}; rotary positions need an even one.")
        size += 1
    return Heads(query, count, size)


def _sliding(settings: Settings, layers: int) -> None:
    """Refuse layers that see the last tokens alone."""
    settings.pass_over("max_window_layers")
    used = settings.flag("use_sliding_window", False)
    if used:
        settings.problem("use_sliding_window = true: attention to the last tokens alone is not supported.")
    else:
        settings.pass_over("sliding_window")
    kinds = settings.value("layer_types", None)
    if kinds is not None and kinds != ["full_attention"] * layers:
        settings.problem("layer_types has others than full_attention for each layer, which are not supported.")


def _factors(tensors: Tensors, pairs: int) -> Array:
    found = tensors.take(_FACTORS, pairs)
    if not np.all(found > 0):
        tensors.problems.append(f"{tensors.path}: {_FACTORS} has numbers that are not above 0.")
        return np.ones(pairs, np.float32)
    return found


def build(settings: Settings, tensors: Tensors, family: str) -> Graph:
    """The logits of the next token."""
    vocabulary, most, inner, _, _ = _DEFAULTS[family]
    tensors.take_off_prefix("embed_tokens.weight")
    tensors.leave(_LEFT)
    width = settings.size("hidden_size", 4096)
    heads = _heads(settings, family, width)
    count, rows = settings.size("num_hidden_layers", 32), settings.size("vocab_size", vocabulary)
    intermediate = settings.size("intermediate_size", inner)
    epsilon = settings.epsilon("rms_norm_eps", 1e-6)
    function = settings.function("hidden_act", "silu")
    bias = settings.flag("attention_bias", False) if family != "qwen2" else False
    feed_bias = settings.flag("mlp_bias", False) if family == "llama" else False
    biased = {"query": bias, "key": bias, "value": bias, "projection": bias}
    if family == "qwen2":
        biased |= {"query": True, "key": True, "value": True}
    if family == "llama":
        settings.pass_over("pretraining_tp")  # another order of the same sums
    else:
        _sliding(settings, count)
    tied = settings.flag("tie_word_embeddings", False)
    turn = frequencies(settings, heads.width, settings.size("max_position_embeddings", most))
    if family == "llama" and _FACTORS in tensors:
        turn = turn / _factors(tensors, len(turn))

    b = DecoderBuilder(tensors, width)
    stream = b.embed("embed_tokens.weight", rows)
    wide, narrow = heads.query * heads.width, heads.key * heads.width

    def product(number: int, name: str, source: str, out: int, into: int, bias: bool) -> str:
        return b.linear(f"{number}.{name}", source, f"layers.{number}.{name}", out, into, bias=bias)

    for number in tensors.layers(count):
        prefix = f"layers.{number}."
        x = b.rms_norm(f"{number}.input", stream, f"{prefix}input_layernorm.weight", width, epsilon)
        roles = {
            role: product(number, f"self_attn.{letter}_proj", x, out, width, biased[role])
            for role, letter, out in (("query", "q", wide), ("key", "k", narrow), ("value", "v", narrow))
        }
        if family == "qwen3":
            for role, letter, times in (("query", "q", heads.query), ("key", "k", heads.key)):
                roles[role] = b.rms_norm(
                    f"{number}.{role}_normed", roles[role], f"{prefix}self_attn.{letter}_norm.weight", heads.width,
                    epsilon, times,
                )  # fmt: skip
        context = b.attention(number, roles, heads, turn)
        projected = product(number, "self_attn.o_proj", context, width, wide, biased["projection"])
        stream = b.sum(number, 1, projected, stream)
        x = b.rms_norm(f"{number}.normed", stream, f"{prefix}post_attention_layernorm.weight", width, epsilon)
        gate, up = (product(number, f"mlp.{n}_proj", x, intermediate, width, feed_bias) for n in ("gate", "up"))
        gated = b.gated(number, gate, up, function)
        stream = b.sum(number, 2, product(number, "mlp.down_proj", gated, width, intermediate, feed_bias), stream)
    last = b.rms_norm("normed", stream, "norm.weight", width, epsilon)
    graph = b.head(last, rows, tied)
    return replace(graph, name=family)
