"""CLIP's vision tower: a LayerNorm ahead of the layers too, patches without a bias."""

from __future__ import annotations

from ..graph import Graph
from ..operations import Mean, Output, Prepend, Select
from ..settings import Settings
from ..tensors import Tensors
from .layers import Builder, Layer

__all__ = ["FAMILIES", "build"]

FAMILIES = ("clip_vision_model", "clip")

_NAMES = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "projection": "self_attn.out_proj", "expand": "mlp.fc1", "contract": "mlp.fc2", "norm1": "layer_norm1",
    "norm2": "layer_norm2",
}  # fmt: skip


def build(settings: Settings, tensors: Tensors, family: str) -> Graph:
    """The projected embedding where there is a projection, else the class token's output; or the classifier."""
    tensors.take_off_prefix("embeddings.patch_embedding.weight")
    tensors.leave(
        {"text_model.*": "the text tower", "text_projection.weight": "the text tower", "logit_scale": "the text tower",
         "*position_ids": "counting numbers, which the table's rows are"}
    )  # fmt: skip
    own = settings
    projected = own.size("projection_dim", 512)
    if family == "clip":
        own.pass_over("text_config text_config_dict logit_scale_init_value")
        settings = own.part("vision_config", "vision_config_dict")
        settings.pass_over("projection_dim")  # CLIP's own counts.
    settings.pass_over("dropout")  # of its early versions
    width, epsilon = settings.size("hidden_size", 768), settings.epsilon("layer_norm_eps", 1e-5)
    of = Layer(
        width, settings.size("intermediate_size", 3072), settings.size("num_attention_heads", 12),
        settings.function("hidden_act", "quick_gelu"), epsilon, _NAMES,
    )  # fmt: skip
    size, patch = settings.size("image_size", 224), settings.size("patch_size", 32)
    b = Builder(tensors)
    channels = settings.size("num_channels", 3)
    x = b.patches("embeddings.patch_embedding", (size, size), (patch, patch), channels, width, bias=False)
    x = b.add(Prepend("tokens", (x,), b.take("tokens.rows", "embeddings.class_embedding", width)[None]))
    positions = b.take("positions.table", "embeddings.position_embedding.weight", (size // patch) ** 2 + 1, width)
    x = b.norm("embeddings", b.embedded(x, positions), "pre_layrnorm", width, epsilon)
    for number in tensors.layers(settings.size("num_hidden_layers", 12)):
        x = b.pre_norm(number, x, f"encoder.layers.{number}.", of)
    kind = own.architecture
    if kind == "CLIPForImageClassification":
        tensors.leave({"post_layernorm.*": "the classifier takes the tokens as they are"})
        pooled = b.add(Mean("mean", (x,), 1))
        labels = len(own.labels)
        b.add(Output("logits", (b.linear("scores", pooled, "classifier", labels, width),)))
        return b.graph(family)
    # Of the class token alone, which is the same after a LayerNorm of all tokens.
    pooled = b.add(Select("first", (b.norm("layernorm", x, "post_layernorm", width, epsilon),), 0))
    if kind in ("CLIPModel", "CLIPVisionModelWithProjection"):
        pooled = b.linear("projection", pooled, "visual_projection", projected, width, bias=False)
    b.add(Output("embedding", (pooled,)))
    return b.graph(family)
