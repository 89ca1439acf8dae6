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
            If a file is missing or unreadable, the model is not of the family, tensors are missing, some would be
            left out, or hold NaN or infinity; all of them are named.
        """
        from safetensors.numpy import load_file

        try:
            described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            given = load_file(folder / "model.safetensors")
        except Exception as error:
            raise InputError(f"model folder {folder}: {error}.") from error
        kind = described.get("model_type")
        if kind not in ("vit", "deit"):
            raise InputError(f"{folder / 'config.json'}: model_type {kind!r} is not supported; it is vit or deit.")
        activation = described.get("hidden_act", "gelu")
        if activation not in ("gelu", "relu"):
            raise InputError(
                f"{folder / 'config.json'}: hidden_act {activation!r} is not supported; gelu and relu are."
            )
        left = {k.removeprefix(f"{kind}."): np.asarray(v, np.float32) for k, v in given.items()}
        missing: list[str] = []

        def take(name: str) -> Array:
            if name not in left:
                missing.append(name)
                return np.zeros((1, 1), np.float32)
            return left.pop(name)

        layers, hidden = described["num_hidden_layers"], described["hidden_size"]
        tensors = {f"embeddings.LayerNorm.{p}": take(f"layernorm.{p}") for p in ("weight", "bias")}
        for layer in range(layers):
            for theirs, ours in _LAYER_NAMES.items():
                for part in ("weight", "bias"):
                    name = f"encoder.layer.{layer}.{theirs}.{part}"
                    if part == "bias" and name not in left and not described.get("qkv_bias", True):
                        tensors[f"encoder.layer.{layer}.{ours}.bias"] = np.zeros(hidden, np.float32)
                        continue
                    tensors[f"encoder.layer.{layer}.{ours}.{part}"] = take(name)
        encoder = BertModel(
            tensors, hidden, described["num_attention_heads"], layers, described["intermediate_size"], activation,
            norm_first=True, pooling="first",
        )  # fmt: skip
        patch = take("embeddings.patch_embeddings.projection.weight")
        patch_bias = take("embeddings.patch_embeddings.projection.bias")
        class_tokens = [take("embeddings.cls_token").reshape(1, -1)]
        if kind == "deit":
            class_tokens.append(take("embeddings.distillation_token").reshape(1, -1))
        positions = take("embeddings.position_embeddings").reshape(-1, hidden)
        classifier, classifier_bias = take("classifier.weight"), take("classifier.bias")
        if missing:
            raise InputError(f"{folder / 'model.safetensors'} lacks {len(missing)} tensors: {', '.join(missing[:8])}.")
        require_finite(given, str(folder / "model.safetensors"))
        left.pop("embeddings.mask_token", None)  # of pre-training alone
        if left:
            raise InputError(
                f"{folder / 'model.safetensors'} has {len(left)} tensors that have no place in a {kind} classifier: "
                f"{', '.join(sorted(left)[:8])}."
            )
        return VisionModel(
            encoder, patch, patch_bias, np.concatenate(class_tokens), positions, classifier, classifier_bias
        )

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
        kind = "vit" if len(self.class_tokens) == 1 else "deit"
        described = {
            "model_type": kind, "hidden_size": encoder.hidden, "num_hidden_layers": encoder.layers,
            "num_attention_heads": encoder.heads, "intermediate_size": encoder.intermediate,
            "hidden_act": encoder.activation, "patch_size": size, "num_channels": channels, "image_size": image_size,
            "layer_norm_eps": 1e-12, "architectures": [f"{'ViT' if kind == 'vit' else 'DeiT'}ForImageClassification"],
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
