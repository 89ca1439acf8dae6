"""An encoder's layers as the compiler takes them, in fp32 numpy: LayerNorms behind the sums, or ahead of products."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_all
from .finite import require_rows
from .fp32 import FUNCTIONS
from .minilm import Array, layer_norm

__all__ = ["LINEAR_NAMES", "PROJECTION", "BertModel", "Product"]

LINEAR_NAMES = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "intermediate.dense", "output.dense",
)  # fmt: skip
"""A layer's linear layers, as the checkpoint names them, in the order they run."""

PROJECTION = "embeddings_project"
"""The linear layer behind the embeddings' LayerNorm, which ELECTRA has where embeddings are narrower than layers."""

_NAMES = {"gelu_tanh": "gelu_new"}
"""transformers' names of activation functions, where they are others."""


@dataclass(frozen=True)
class Product:
    """A stop of `BertModel.products`: linear layers `names` of `layer` that all take `value`, (tokens, reduction)."""

    layer: int
    names: tuple[str, ...]
    value: Array


@dataclass(frozen=True)
class BertModel:
    """An encoder and what surrounds it.

    Attributes
    ----------
    tensors : dict of float32 arrays
        Named as in the checkpoint, without a prefix such as ``bert.``.
    hidden, heads, layers, intermediate : int
    activation : str
        One of `fp32.FUNCTIONS`.
    norm_first : bool
        LayerNorms before the products and one behind the last layer, as in ViT; else behind the residual
        sums and one before the first layer, as in BERT. ``embeddings.LayerNorm`` is that one.
    pooling : str
        ``mean`` over the tokens, or ``first``: the first token's output.
    epsilon : float
        Added to LayerNorms' variances; the hardware's have none.
    """

    tensors: dict[str, Array]
    hidden: int
    heads: int
    layers: int
    intermediate: int
    activation: str = "gelu"
    norm_first: bool = False
    pooling: str = "mean"
    epsilon: float = 1e-12

    @staticmethod
    def load(folder: Path) -> BertModel:
        """The encoder of a checkpoint's folder of any text family.

        Raises
        ------
        InputError
            What `load_network` and `encoder_part` raise.
        """
        from .encoder_shape import encoder_part
        from .families import load_network

        return encoder_part(load_network(folder).graph).model

    def save(self, folder: Path) -> None:
        """Write the files of `files`: all, or none.

        Raises
        ------
        ToolError
            If they cannot be written; what was there is as it was.
        """
        write_all({folder / name: content for name, content in self.files().items()})

    def files(self) -> dict[str, bytes | str]:
        """``config.json`` and ``model.safetensors``, as `load` and Hugging Face's BertModel read them; its pooling.

        Raises
        ------
        InputError
            If it is no text encoder of BERT's shape.
        """
        from safetensors.numpy import save

        t = self.tensors
        if self.norm_first or self.projected or "embeddings.word_embeddings.weight" not in t:
            raise InputError("only text encoders of BERT's shape can be written.")
        described = {
            "model_type": "bert", "architectures": ["BertModel"], "hidden_size": self.hidden,
            "num_attention_heads": self.heads, "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate, "hidden_act": _NAMES.get(self.activation, self.activation),
            "layer_norm_eps": self.epsilon,
            "position_embedding_type": "absolute", "pad_token_id": 0,
            "vocab_size": len(t["embeddings.word_embeddings.weight"]),
            "max_position_embeddings": len(t["embeddings.position_embeddings.weight"]),
            "type_vocab_size": len(t["embeddings.token_type_embeddings.weight"]),
        }  # fmt: skip
        tensors = {k: np.ascontiguousarray(v) for k, v in t.items()}
        files: dict[str, bytes | str] = {
            "config.json": json.dumps(described, indent=2) + "\n", "model.safetensors": save(tensors),
        }  # fmt: skip
        if self.pooling == "first":  # Without it the mean is what sentence-transformers takes, and `load`.
            pooling = {"word_embedding_dimension": self.hidden, "pooling_mode_cls_token": True}
            files["1_Pooling/config.json"] = json.dumps(pooling, indent=2) + "\n"
            modules = [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))
            ]
            files["modules.json"] = json.dumps(modules, indent=2) + "\n"
        return files

    def embed(self, ids: list[int]) -> Array:
        """Sum of the embeddings, before their LayerNorm: shape (tokens, hidden).

        Raises
        ------
        InputError
            If a token has no embedding.
        """
        t = self.tensors
        words, positions = (len(t[f"embeddings.{n}_embeddings.weight"]) for n in ("word", "position"))
        require_rows(ids, words, positions)
        return (
            t["embeddings.word_embeddings.weight"][ids]
            + t["embeddings.position_embeddings.weight"][: len(ids)]
            + t["embeddings.token_type_embeddings.weight"][0]
        )

    def linear(self, layer: int, name: str) -> tuple[Array, Array]:
        """Weight (columns, reduction) and bias."""
        prefix = name if name == PROJECTION else f"encoder.layer.{layer}.{name}"
        return self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.bias"]

    def norm_parameters(self, name: str) -> tuple[Array, Array]:
        """Scale and shift of a LayerNorm, such as ``encoder.layer.0.output``."""
        return self.tensors[f"{name}.LayerNorm.weight"], self.tensors[f"{name}.LayerNorm.bias"]

    @property
    def projected(self) -> bool:
        """Whether embeddings are projected to the layers' width; see `PROJECTION`."""
        return f"{PROJECTION}.weight" in self.tensors

    def activate(self, x: Array) -> Array:
        """The feed-forward's activation function."""
        return FUNCTIONS[self.activation](x)

    def forward(self, ids: list[int] | Array) -> tuple[list[dict[str, Array]], Array]:
        """Every layer's intermediate tensors by name, and the pooled output.

        Takes token ids, or the sum of embeddings. Names: input, query, key, value, context, sum1, normed,
        intermediate, activated, sum2, output; the first dictionary also has ``embedded``, the sum of
        embeddings, and ``normalized``, what is projected to ``input`` where it is.
        ``input`` and ``normed`` are what the products take; ``output`` is the next layer's input, the last one what is
        pooled.
        """
        steps = self.products(ids)
        try:
            product = next(steps)
            while True:
                product = steps.send([self.apply(product.layer, name, product.value) for name in product.names])
        except StopIteration as end:
            return end.value

    def apply(self, layer: int, name: str, value: Array) -> Array:
        """A linear layer's result for `value`: shape (tokens, columns)."""
        weight, bias = self.linear(layer, name)
        return value @ weight.T + bias

    def products(
        self, ids: list[int] | Array, keep: bool = True
    ) -> Generator[Product, list[Array], tuple[list[dict[str, Array]], Array]]:
        """The forward pass, which stops at its linear layers: yields each one's input and is sent the results.

        So a caller can run several texts, or two versions of the weights, in step. Returns what `forward` does;
        without `keep` no intermediate tensors, whose memory adds up over many texts.
        """
        embedded = ids if isinstance(ids, np.ndarray) else self.embed(ids)
        found = []
        tokens = len(embedded)
        x = layer_norm(embedded, *self.norm_parameters(self.norm_before), self.epsilon)
        first = {"embedded": embedded}
        if self.projected:
            first["normalized"] = x
            x = self.apply(0, PROJECTION, x)
        stream = embedded if self.norm_first else x
        for layer in range(self.layers):
            at: dict[str, Array] = {"input": x} if layer else {"input": x} | first

            def split(value: Array) -> Array:
                return value.reshape(tokens, self.heads, -1).transpose(1, 0, 2)

            at["query"], at["key"], at["value"] = yield Product(layer, LINEAR_NAMES[:3], x)
            query, key, value = (split(at[s]) for s in ("query", "key", "value"))
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
            exponential = np.exp(scores - scores.max(-1, keepdims=True))
            probabilities = exponential / exponential.sum(-1, keepdims=True)
            at["context"] = (probabilities @ value).transpose(1, 0, 2).reshape(tokens, -1)
            (projected,) = yield Product(layer, LINEAR_NAMES[3:4], at["context"])
            at["sum1"] = projected + stream
            at["normed"] = layer_norm(at["sum1"], *self.norm_parameters(self.norm_between(layer)), self.epsilon)
            (at["intermediate"],) = yield Product(layer, LINEAR_NAMES[4:5], at["normed"])
            at["activated"] = self.activate(at["intermediate"])
            (projected,) = yield Product(layer, LINEAR_NAMES[5:6], at["activated"])
            at["sum2"] = projected + (at["sum1"] if self.norm_first else at["normed"])
            x = at["output"] = layer_norm(at["sum2"], *self.norm_parameters(self.norm_behind(layer)), self.epsilon)
            stream = at["sum2"] if self.norm_first else x
            if keep:
                found.append(at)
        return found, self.pool(x)

    def pool(self, outputs: NDArray) -> NDArray:
        """All tokens' outputs, (tokens, hidden), to one."""
        return outputs[0] if self.pooling == "first" else outputs.mean(0)

    @property
    def norm_before(self) -> str:
        """The LayerNorm between the sum of embeddings and the first products."""
        return "encoder.layer.0.attention.output" if self.norm_first else "embeddings"

    def norm_between(self, layer: int) -> str:
        """The LayerNorm between a layer's attention and its feed-forward products."""
        return f"encoder.layer.{layer}.{'output' if self.norm_first else 'attention.output'}"

    def norm_behind(self, layer: int) -> str:
        """The LayerNorm between a layer's last sum and what takes it: the next layer, or the pooling."""
        if not self.norm_first:
            return f"encoder.layer.{layer}.output"
        return f"encoder.layer.{layer + 1}.attention.output" if layer + 1 < self.layers else "embeddings"

    def replaced(self, weights: dict[tuple[int, str], NDArray]) -> BertModel:
        """The model with some linear layers' weights replaced: keys are (layer, name)."""
        tensors = dict(self.tensors)
        for (layer, name), weight in weights.items():
            tensors[f"encoder.layer.{layer}.{name}.weight"] = np.asarray(weight, np.float32)
        return self.with_tensors(tensors)

    def with_tensors(self, tensors: dict[str, Array]) -> BertModel:
        """The same shape with other tensors."""
        return dataclasses.replace(self, tensors=tensors)
