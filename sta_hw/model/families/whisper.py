"""Whisper's encoder: two convolutions over a spectrogram, which are the host's, then layers."""

from __future__ import annotations

from ..graph import Graph
from ..operations import Activate, Convolution, Input, Mean, Output
from ..settings import Settings
from ..tensors import Tensors
from .layers import Builder, Layer

__all__ = ["FAMILIES", "build"]

FAMILIES = ("whisper",)

_NAMES = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "projection": "self_attn.out_proj", "expand": "fc1", "contract": "fc2", "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
}  # fmt: skip
_EPSILON = 1e-5
"""Of LayerNorms that no key of the configuration says."""


def build(settings: Settings, tensors: Tensors, family: str) -> Graph:
    """The mean over the frames, or the audio classifier on it."""
    tensors.take_off_prefix("conv1.weight")
    tensors.leave({"*decoder.*": "the decoder", "proj_out.weight": "the decoder"})
    settings.pass_over(
        "decoder_attention_heads decoder_ffn_dim decoder_layerdrop decoder_layers max_target_positions vocab_size "
        "activation_dropout dropout encoder_layerdrop init_std apply_spec_augment mask_feature_length "
        "mask_feature_min_masks mask_feature_prob mask_time_length mask_time_min_masks mask_time_prob "
        "median_filter_width scale_embedding num_hidden_layers"
    )
    settings.require("use_weighted_layer_sum", False, "a sum of all layers' outputs is not supported")
    width, bins = settings.size("d_model", 384), settings.size("num_mel_bins", 80)
    of = Layer(
        width, settings.size("encoder_ffn_dim", 1536), settings.size("encoder_attention_heads", 6),
        settings.function("activation_function", "gelu"), _EPSILON, _NAMES, frozenset({"key"}),
    )  # fmt: skip
    tokens = settings.size("max_source_positions", 1500)
    b = Builder(tensors)
    x = b.add(Input("features", (), (2 * tokens, bins)))
    for name, channels, stride in (("conv1", bins, 1), ("conv2", width, 2)):
        kernel = b.take(f"{name}.weight", f"{name}.weight", width, channels, 3)
        bias = b.take(f"{name}.bias", f"{name}.bias", width)
        x = b.add(Convolution(name, (x,), kernel, bias, (stride,), (1,)))
        x = b.add(Activate(f"{name}.gelu", (x,), "gelu"))
    x = b.embedded(x, b.take("positions.table", "embed_positions.weight", tokens, width))
    for number in tensors.layers(settings.size("encoder_layers", 4)):
        x = b.pre_norm(number, x, f"layers.{number}.", of)
    pooled = b.add(Mean("mean", (b.norm("layernorm", x, "layer_norm", width, _EPSILON),)))
    if settings.architecture == "WhisperForAudioClassification":
        # transformers takes the mean behind the projector, which is linear, so that it makes no difference.
        inner = settings.size("classifier_proj_size", 256)
        pooled = b.linear("projector", pooled, "projector", inner, width)
        logits = b.linear("scores", pooled, "classifier", len(settings.labels), inner)
        b.add(Output("logits", (logits,)))
    else:
        settings.pass_over("classifier_proj_size")
        b.add(Output("embedding", (pooled,)))
    return b.graph(family)
