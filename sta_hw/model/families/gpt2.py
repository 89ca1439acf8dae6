"""GPT-2: LayerNorm, learnt positions, products whose weights are stored transposed and those of attention as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graph import Graph
from ..operations import Activate, Add, Linear
from ..settings import Settings
from ..tensors import Tensors
from .decoders import DecoderBuilder, Heads

__all__ = ["FAMILIES", "build"]

FAMILIES = ("gpt2",)

_LEFT = {
    "h.*.attn.bias": "the causal mask",
    "h.*.attn.masked_bias": "the causal mask",
}
_ROLES = ("query", "key", "value")


def _width(settings: Settings) -> tuple[int, int]:
    width, heads = settings.size("n_embd", 768), settings.size("n_head", 12)
    if width % heads:
        settings.problem(f"{heads} attention heads do not divide a width of {width}.")
        heads = 1
    return width, heads


def build(settings: Settings, tensors: Tensors, family: str) -> Graph:
    """The logits of the next token."""
    tensors.take_off_prefix("wte.weight")
    tensors.leave(_LEFT)
    width, heads = _width(settings)
    inner = settings.size("n_inner", 4 * width)
    function = settings.function("activation_function", "gelu_new")
    epsilon = settings.epsilon("layer_norm_epsilon", 1e-5)
    rows, positions = settings.size("vocab_size", 50257), settings.size("n_positions", 1024)
    settings.require("scale_attn_weights", True, "scores that are not scaled are not supported")
    settings.require("scale_attn_by_inverse_layer_idx", False, "scores scaled layer by layer are not supported")
    settings.pass_over(
        "attn_pdrop embd_pdrop resid_pdrop n_ctx reorder_and_upcast_attn summary_activation summary_first_dropout "
        "summary_proj_to_labels summary_type summary_use_proj"
    )
    tied = settings.flag("tie_word_embeddings", True)

    b = DecoderBuilder(tensors, width)
    words = b.embed("wte.weight", rows)
    stream = b.add(Add("embedded", (words, b.embed("wpe.weight", positions, "positions", "position"))))

    def product(number: int, name: str, source: str, out: int, into: int) -> str:
        weight = tensors.take(f"h.{number}.{name}.weight", into, out)
        bias = tensors.take(f"h.{number}.{name}.bias", out)
        return b.add(Linear(f"{number}.{name}", (source,), np.ascontiguousarray(weight.T), bias))

    for number in tensors.layers(settings.size("n_layer", 12)):
        prefix = f"h.{number}."
        x = b.norm(f"{number}.input", stream, f"{prefix}ln_1", width, epsilon)
        # The three products are one in the checkpoint, side by side.
        weight = tensors.take(f"{prefix}attn.c_attn.weight", width, 3 * width)
        bias = tensors.take(f"{prefix}attn.c_attn.bias", 3 * width)
        roles = {
            role: b.add(Linear(f"{number}.attn.{role}", (x,), np.ascontiguousarray(w.T), shift))
            for role, w, shift in zip(_ROLES, np.split(weight, 3, axis=1), np.split(bias, 3), strict=True)
        }
        context = b.attention(number, roles, Heads(heads, heads, width // heads), None)
        stream = b.sum(number, 1, product(number, "attn.c_proj", context, width, width), stream)
        x = b.norm(f"{number}.normed", stream, f"{prefix}ln_2", width, epsilon)
        wide = b.add(Activate(f"{number}.activated", (product(number, "mlp.c_fc", x, inner, width),), function))
        stream = b.sum(number, 2, product(number, "mlp.c_proj", wide, width, inner), stream)
    last = b.norm("normed", stream, "ln_f", width, epsilon)
    return replace(b.head(last, rows, tied), name=family)
