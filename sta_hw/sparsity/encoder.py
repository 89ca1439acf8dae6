"""Encoders as PyTorch modules: what pruners and fine-tuning work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..model.bert import LINEAR_NAMES, BertModel

__all__ = ["Encoder", "EncoderLayer", "pad"]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}
"""Those of `fp32.FUNCTIONS`."""


class EncoderLayer(nn.Module):
    """One layer: LayerNorms behind the residual sums as in BERT, or before the products as in ViT."""

    def __init__(self, model: BertModel, layer: int) -> None:
        super().__init__()
        self.heads, self.activation = model.heads, model.activation
        self.norm_first = model.norm_first
        self.linears = nn.ModuleList()
        for name in LINEAR_NAMES:
            weight, bias = model.linear(layer, name)
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data = torch.tensor(weight)
            linear.bias.data = torch.tensor(bias)
            self.linears.append(linear)
        self.norms = nn.ModuleList(
            _norm(model, f"encoder.layer.{layer}.{name}") for name in ("attention.output", "output")
        )

    @property
    def products(self) -> list[nn.Linear]:
        """The linear layers, in the order of `LINEAR_NAMES`."""
        return cast("list[nn.Linear]", list(self.linears))

    @property
    def both_norms(self) -> list[nn.LayerNorm]:
        """The LayerNorms of attention and feed-forward."""
        return cast("list[nn.LayerNorm]", list(self.norms))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Shape (texts, tokens, hidden); `mask` is true where a key counts, of shape (texts, 1, 1, tokens)."""
        query, key, value, projection, first, second = self.linears
        at = self.norms[0](x) if self.norm_first else x

        def split(t: Tensor) -> Tensor:
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        context = functional.scaled_dot_product_attention(split(query(at)), split(key(at)), split(value(at)), mask)
        x = projection(context.transpose(1, 2).flatten(2)) + x
        if not self.norm_first:
            x = self.norms[0](x)
        at = self.norms[1](x) if self.norm_first else x
        hidden = first(at)
        x = second(_FUNCTIONS[self.activation](hidden)) + x
        return x if self.norm_first else self.norms[1](x)


def _norm(model: BertModel, name: str) -> nn.LayerNorm:
    weight, bias = model.norm_parameters(name)
    norm = nn.LayerNorm(len(weight), eps=model.epsilon)
    norm.weight.data, norm.bias.data = torch.tensor(weight), torch.tensor(bias)
    return norm


class Encoder(nn.Module):
    """An encoder from its embedding sums to its pooled output.

    Parameters
    ----------
    model : BertModel
        Copied; `to_model` gives one back.

    Raises
    ------
    InputError
        If its embeddings are projected.
    """

    def __init__(self, model: BertModel) -> None:
        super().__init__()
        if model.projected:
            raise InputError("a network whose embeddings are projected (ELECTRA's) cannot be pruned or tuned.")
        self.model = model
        self.layers = nn.ModuleList(EncoderLayer(model, i) for i in range(model.layers))
        self.norm = _norm(model, "embeddings")

    @property
    def blocks(self) -> list[EncoderLayer]:
        """The layers."""
        return cast("list[EncoderLayer]", list(self.layers))

    @property
    def linears(self) -> dict[tuple[int, str], nn.Linear]:
        """The linear layers, by (layer, name)."""
        return {
            (i, name): linear
            for i, layer in enumerate(self.blocks)
            for name, linear in zip(LINEAR_NAMES, layer.products, strict=True)
        }

    def forward(self, embedded: Tensor, mask: Tensor | None = None, pooled: bool = True) -> Tensor:
        """Embedding sums (texts, tokens, hidden) to pooled outputs (texts, hidden).

        Or, if not `pooled`, to every layer's outputs (texts, tokens, layers, hidden), the last with what follows it.
        `mask`, bool of shape (texts, tokens), is true for tokens, false for padding.
        """
        x = embedded if self.model.norm_first else self.norm(embedded)
        keys = None if mask is None else mask[:, None, None, :]
        outputs = []
        for layer in self.layers:
            x = layer(x, keys)
            outputs.append(x)
        if self.model.norm_first:
            x = outputs[-1] = self.norm(x)
        return self.pool(x, mask) if pooled else torch.stack(outputs, 2)

    def pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens' outputs (texts, tokens, hidden) to pooled ones (texts, hidden)."""
        if self.model.pooling == "first":
            return x[:, 0]
        if mask is None:
            return x.mean(1)
        weight = mask.to(x.dtype)
        return (x * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)

    def to_model(self) -> BertModel:
        """The numpy model with this module's parameters."""
        tensors = dict(self.model.tensors)

        def put(name: str, module: nn.Linear | nn.LayerNorm) -> None:
            tensors[f"{name}.weight"] = module.weight.detach().numpy().copy()
            tensors[f"{name}.bias"] = module.bias.detach().numpy().copy()

        for (layer, name), linear in self.linears.items():
            put(f"encoder.layer.{layer}.{name}", linear)
        for i, block in enumerate(self.blocks):
            for norm, part in zip(block.both_norms, ("attention.output", "output"), strict=True):
                put(f"encoder.layer.{i}.{part}.LayerNorm", norm)
        put("embeddings.LayerNorm", self.norm)
        return self.model.with_tensors(tensors)


def pad(embedded: Sequence[NDArray]) -> tuple[Tensor, Tensor]:
    """Texts of any number of tokens as one batch: values (texts, tokens, ...) and their mask (texts, tokens)."""
    longest = max(len(e) for e in embedded)
    batch = np.zeros((len(embedded), longest, *embedded[0].shape[1:]), np.float32)
    mask = np.zeros((len(embedded), longest), bool)
    for i, e in enumerate(embedded):
        batch[i, : len(e)] = e
        mask[i, : len(e)] = True
    return torch.from_numpy(batch), torch.from_numpy(mask)
