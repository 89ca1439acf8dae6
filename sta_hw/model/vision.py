"""Vision transformers (ViT, DeiT) in fp32 numpy: patches in, class scores out, an encoder between."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_all
from .bert import BertModel
from .finite import require_finite
from .minilm import Array

__all__ = ["VISION_TENSORS", "VisionModel"]

VISION_TENSORS = ("patch", "patch_bias", "class_tokens", "positions", "classifier", "classifier_bias")
"""A vision transformer's tensors around its encoder."""

_LAYER_NAMES = {
    "attention.attention.query": "attention.self.query", "attention.attention.key": "attention.self.key",
    "attention.attention.value": "attention.self.value", "attention.output.dense": "attention.output.dense",
    "intermediate.dense": "intermediate.dense", "output.dense": "output.dense",
    "layernorm_before": "attention.output.LayerNorm", "layernorm_after": "output.LayerNorm",
}  # fmt: skip
"""Hugging Face's names of a layer's parts, and BERT's, under which `BertModel` looks for them."""


@dataclass(frozen=True)
class VisionModel:
    """A vision transformer.

    Attributes
    ----------
    encoder : BertModel
        LayerNorms first; its pooling is ``first``: the class token's output.
    patch : Array, shape (hidden, channels, size, size)
        Kernel of the convolution that embeds patches; `patch_bias` of shape (hidden,).
    class_tokens : Array, shape (1 or 2, hidden)
        DeiT's distillation token is the second.
    positions : Array, shape (tokens, hidden)
    classifier, classifier_bias : Array, shapes (classes, hidden) and (classes,)
    """

    encoder: BertModel
    patch: Array
    patch_bias: Array
    class_tokens: Array
    positions: Array
    classifier: Array
    classifier_bias: Array

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return len(self.positions)

    @staticmethod
    def load(folder: Path) -> VisionModel:
        """Load a checkpoint's folder: ``config.json`` and ``model.safetensors`` of a ViT or DeiT image classifier.

        Raises
        ------
        InputError
            What `load_network` raises, or if it is no image classifier.
        """
        from .encoder_shape import encoder_part
        from .families import load_network
        from .operations import Convolution, Embed, Linear, Prepend

        graph = load_network(folder).graph
        if graph.name not in ("vit", "deit") or not isinstance(graph.by_name.get("scores"), Linear):
            raise InputError(f"{folder / 'config.json'}: this is no image classifier of ViT or DeiT.")
        patches, tokens, positions, scores = (graph.by_name[n] for n in ("patches", "tokens", "positions", "scores"))
        assert isinstance(patches, Convolution) and isinstance(tokens, Prepend)
        assert isinstance(positions, Embed) and isinstance(scores, Linear)
        return VisionModel(
            encoder_part(graph).model, patches.weight, patches.bias, tokens.rows, positions.table, scores.weight,
            scores.bias,
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the files of `files`: both, or none.

        Raises
        ------
        ToolError
            If they cannot be written; what was there is as it was.
        """
        write_all({folder / name: content for name, content in self.files().items()})

    def files(self) -> dict[str, bytes | str]:
        """``config.json`` and ``model.safetensors``, as `load` and Hugging Face's image classifiers read them."""
        from safetensors.numpy import save

        encoder, (_, channels, size, _) = self.encoder, self.patch.shape
        image_size = size * round((self.tokens - len(self.class_tokens)) ** 0.5)
        kind, theirs = ("vit", "ViT") if len(self.class_tokens) == 1 else ("deit", "DeiT")
        described = {
            "model_type": kind, "hidden_size": encoder.hidden, "num_hidden_layers": encoder.layers,
            "num_attention_heads": encoder.heads, "intermediate_size": encoder.intermediate,
            "hidden_act": encoder.activation, "patch_size": size, "num_channels": channels, "image_size": image_size,
            "layer_norm_eps": encoder.epsilon, "architectures": [f"{theirs}ForImageClassification"],
            "id2label": {str(i): str(i) for i in range(len(self.classifier))},
        }  # fmt: skip
        tensors: dict[str, NDArray] = {
            f"{kind}.embeddings.patch_embeddings.projection.weight": self.patch,
            f"{kind}.embeddings.patch_embeddings.projection.bias": self.patch_bias,
            f"{kind}.embeddings.cls_token": self.class_tokens[None, :1],
            f"{kind}.embeddings.position_embeddings": self.positions[None],
            "classifier.weight": self.classifier, "classifier.bias": self.classifier_bias,
        }  # fmt: skip
        if kind == "deit":
            tensors["deit.embeddings.distillation_token"] = self.class_tokens[None, 1:]
        for part in ("weight", "bias"):
            tensors[f"{kind}.layernorm.{part}"] = encoder.tensors[f"embeddings.LayerNorm.{part}"]
            for layer in range(encoder.layers):
                for theirs, ours in _LAYER_NAMES.items():
                    prefix = f"encoder.layer.{layer}"
                    tensors[f"{kind}.{prefix}.{theirs}.{part}"] = encoder.tensors[f"{prefix}.{ours}.{part}"]
        tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
        return {"config.json": json.dumps(described, indent=2) + "\n", "model.safetensors": save(tensors)}

    def embed(self, images: NDArray) -> Array:
        """Images (count, channels, height, width) to the encoder's input (count, tokens, hidden).

        Raises
        ------
        InputError
            If their size is not the model's, or a value is not finite.
        """
        require_finite({"pixel": images}, "images", ("image", "channel", "row", "column"))
        hidden, channels, size, _ = self.patch.shape
        count, given, height, width = images.shape
        patches = self.tokens - len(self.class_tokens)
        if given != channels or height % size or width % size or (height // size) * (width // size) != patches:
            side = size * round(patches**0.5)
            raise InputError(
                f"images of shape {images.shape[1:]} do not fit; the model takes {(channels, side, side)}."
            )
        cut = images.reshape(count, channels, height // size, size, width // size, size).transpose(0, 2, 4, 1, 3, 5)
        flat = cut.reshape(count, patches, -1).astype(np.float32)
        embedded = flat @ self.patch.reshape(hidden, -1).T + self.patch_bias
        tokens = np.broadcast_to(self.class_tokens, (count, *self.class_tokens.shape))
        return np.concatenate([tokens, embedded], axis=1) + self.positions

    def logits(self, pooled: NDArray) -> NDArray:
        """Class scores of pooled outputs (..., hidden)."""
        return pooled @ self.classifier.T + self.classifier_bias

    def with_encoder(self, encoder: BertModel) -> VisionModel:
        """The same around another encoder."""
        return dataclasses.replace(self, encoder=encoder)
