"""ViT and DeiT: patches of an image, a class token (and a distillation token) ahead of them."""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from ..operations import Add, Linear, Output, Prepend, Select
from ..settings import Settings
from ..tensors import Tensors
from .layers import Builder, Layer

__all__ = ["FAMILIES", "build"]

FAMILIES = ("vit", "deit")

_NAMES = {
    "query": "attention.attention.query", "key": "attention.attention.key", "value": "attention.attention.value",
    "projection": "attention.output.dense", "expand": "intermediate.dense", "contract": "output.dense",
    "norm1": "layernorm_before", "norm2": "layernorm_after",
}  # fmt: skip


def build(settings: Settings, tensors: Tensors, family: str) -> Graph:
    """The classifier, or for other architectures the class token's output."""
    tensors.take_off_prefix("embeddings.patch_embeddings.projection.weight")
    tensors.leave(
        {"embeddings.mask_token": "of pre-training", "decoder.*": "a head of pre-training",
         "pooler.*": "the class token's output is taken as it is"}
    )  # fmt: skip
    settings.pass_over("encoder_stride pooler_act pooler_output_size")
    width, epsilon = settings.size("hidden_size", 768), settings.epsilon("layer_norm_eps", 1e-12)
    unbiased = frozenset() if settings.flag("qkv_bias", True) else frozenset({"query", "key", "value"})
    of = Layer(
        width, settings.size("intermediate_size", 3072), settings.size("num_attention_heads", 12),
        settings.function("hidden_act", "gelu"), epsilon, _NAMES, unbiased,
    )  # fmt: skip
    image, patch = settings.sizes("image_size", 224), settings.sizes("patch_size", 16)
    b = Builder(tensors)
    x = b.patches("embeddings.patch_embeddings.projection", image, patch, settings.size("num_channels", 3), width)
    special = ["cls_token"] + (["distillation_token"] if family == "deit" else [])
    rows = [tensors.take(f"embeddings.{n}", 1, 1, width)[0] for n in special]
    x = b.add(Prepend("tokens", (x,), np.concatenate(rows)))
    count = (image[0] // patch[0]) * (image[1] // patch[1]) + len(special)
    if len(special) == 1:
        b.sources["tokens.rows"] = "embeddings.cls_token"
    x = b.embedded(x, b.take("positions.table", "embeddings.position_embeddings", 1, count, width)[0])
    for number in tensors.layers(settings.size("num_hidden_layers", 12)):
        x = b.pre_norm(number, x, f"encoder.layer.{number}.", of)
    x = b.norm("layernorm", x, "layernorm", width, epsilon)
    first = b.add(Select("first", (x,), 0))
    kind, labels = settings.architecture, len(settings.labels)
    if kind.endswith("ForImageClassification"):
        b.add(Output("logits", (b.linear("scores", first, "classifier", labels, width),)))
    elif kind.endswith("ForImageClassificationWithTeacher"):
        halves, half = [], np.float32(0.5)  # The mean of both.
        for tensor, token in (("cls_classifier", first), ("distillation_classifier", "")):
            token = token or b.add(Select("second", (x,), 1))
            weight, bias = tensors.take(f"{tensor}.weight", labels, width), tensors.take(f"{tensor}.bias", labels)
            halves.append(b.add(Linear(tensor, (token,), weight * half, bias * half)))  # The mean of both.
        b.add(Output("logits", (b.add(Add("scores", (halves[0], halves[1]))),)))
    else:
        b.add(Output("embedding", (first,)))
    return b.graph(family)
