"""Runs a graph in PyTorch, on batches and with gradients: what pruners and fine-tuning work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..model.graph import Graph, layer_of
from ..model.operations import (
    Activate,
    Add,
    Attention,
    Convolution,
    Embed,
    Linear,
    Maximum,
    Mean,
    Multiply,
    Norm,
    Normalize,
    Operation,
    Output,
    Prepend,
    RmsNorm,
    Rotary,
    Select,
)

__all__ = ["TorchGraph", "pad"]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}
"""Those of `fp32.FUNCTIONS`."""


class TorchGraph(nn.Module):
    """A graph whose arrays are trainable parameters.

    Parameters
    ----------
    graph : Graph
        With one input; copied: `to_graph` gives one back.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.modules_of = nn.ModuleDict()
        self.arrays_of = nn.ParameterDict()
        for o in graph.operations:
            made: nn.Linear | nn.LayerNorm
            if isinstance(o, Linear):
                made = nn.Linear(o.weight.shape[1], o.weight.shape[0])
            elif isinstance(o, Norm):
                made = nn.LayerNorm(len(o.weight), eps=o.epsilon)
            else:
                for name, value in o.attributes().items():
                    if isinstance(value, np.ndarray):
                        self.arrays_of[_key(f"{o.name}.{name}")] = nn.Parameter(torch.tensor(value))
                continue
            made.weight.data, made.bias.data = torch.tensor(o.weight), torch.tensor(o.bias)
            self.modules_of[_key(o.name)] = made

    def linear(self, name: str) -> nn.Linear:
        """A linear operation's module."""
        module = self.modules_of[_key(name)]
        assert isinstance(module, nn.Linear)
        return module

    def norm(self, name: str) -> nn.LayerNorm:
        """A LayerNorm's module."""
        module = self.modules_of[_key(name)]
        assert isinstance(module, nn.LayerNorm)
        return module

    def array(self, o: Operation, field: str) -> Tensor:
        """Another operation's array."""
        return self.arrays_of[_key(f"{o.name}.{field}")]

    @property
    def linears(self) -> dict[str, nn.Linear]:
        """The layers' linear operations, which N:M tables name."""
        return {name: self.linear(name) for name in self.graph.linears}

    def values(self, known: dict[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        """All values that follow from the known ones, each with the batch as its first dimension."""
        for o in self.graph.operations:
            if o.name not in known and o.inputs and all(i in known for i in o.inputs):
                known[o.name] = _RULES[type(o)](self, o, mask, *(known[i] for i in o.inputs))
        return known

    def forward(self, given: Tensor, mask: Tensor | None = None, pooled: bool = True) -> Tensor:
        """The output, for a batch of inputs.

        Parameters
        ----------
        given : Tensor
            What the graph's input is, in a batch: sums of embeddings (texts, tokens, width), images (samples, height,
            width, channels).
        mask : bool Tensor or None, shape (texts, tokens)
            True for tokens, false for padding.
        pooled : bool
            If not, every layer's outputs, (texts, tokens, layers, width), the last with what follows it.
        """
        found = self.values({self.graph.operations[0].name: given}, mask)
        if pooled:
            return found[self.graph.operations[-1].name]
        outputs = {layer: o.name for o in self.graph.operations if (layer := layer_of(o.name)) is not None}
        outputs[self.graph.layers - 1] = self.every_output
        return torch.stack([found[outputs[layer]] for layer in range(self.graph.layers)], 2)

    @property
    def every_output(self) -> str:
        """The value that is pooled, or the output if there is no pooling: every token's."""
        shapes = self.graph.shapes
        return [o.name for o in self.graph.operations if len(shapes[o.name]) == 2 and not isinstance(o, Output)][-1]

    def pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens' outputs (texts, tokens, width) to pooled ones (texts, width)."""
        return self.values({self.every_output: x}, mask)[self.graph.operations[-1].name]

    def to_graph(self) -> Graph:
        """The graph with this module's parameters."""
        changed: dict[str, Operation] = {}
        for o in self.graph.operations:
            if isinstance(o, Linear | Norm):
                module = self.modules_of[_key(o.name)]
                changed[o.name] = replace(o, weight=_numpy(module.weight), bias=_numpy(module.bias))
            else:
                fields: dict[str, Any] = {
                    name: _numpy(self.array(o, name))
                    for name, value in o.attributes().items()
                    if isinstance(value, np.ndarray)
                }
                changed[o.name] = replace(o, **fields) if fields else o
        return self.graph.replaced(changed)


def _key(name: str) -> str:
    """A name without dots, which modules' names cannot have."""
    return name.replace(".", "/")


def _numpy(p: Any) -> NDArray[np.float32]:
    return p.detach().numpy().copy()


def _embed(network: TorchGraph, o: Operation, mask: Tensor | None, ids: Tensor) -> Tensor:
    assert isinstance(o, Embed)
    table, count = network.array(o, "table"), ids.shape[1]
    if o.padding is not None:
        raise InputError(f"embed {o.name} leaves padding out of the positions, which tuning does not.")
    if o.rows == "token":
        return table[ids]
    rows = table[o.offset : o.offset + count] if o.rows == "position" else table[:1].expand(count, -1)
    return rows.expand(len(ids), -1, -1)


def _convolution(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    assert isinstance(o, Convolution)
    weight, bias = network.array(o, "weight"), network.array(o, "bias")
    convolve = functional.conv2d if weight.ndim == 4 else functional.conv1d
    return convolve(x.movedim(-1, 1), weight, bias, o.stride, o.padding).flatten(2).transpose(1, 2)


def _prepend(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    return torch.cat([network.array(o, "rows").expand(len(x), -1, -1), x], 1)


def _attention(network: TorchGraph, o: Operation, mask: Tensor | None, *given: Tensor) -> Tensor:
    assert isinstance(o, Attention)
    counts = (o.heads, o.heads // o.shared, o.heads // o.shared)
    query, key, value = (t.unflatten(-1, (n, -1)).transpose(1, 2) for t, n in zip(given, counts, strict=True))
    if o.shared > 1:
        key, value = (t.repeat_interleave(o.shared, 1) for t in (key, value))
    keys = None if mask is None else mask[:, None, None, :]
    if o.causal:
        earlier = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).tril()
        keys = earlier if keys is None else keys & earlier
    context = functional.scaled_dot_product_attention(query, key, value, keys)
    return context.transpose(1, 2).flatten(2)


def _rms_norm(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    assert isinstance(o, RmsNorm)
    weight = network.array(o, "weight")
    return functional.rms_norm(x.unflatten(-1, (o.heads, -1)), weight.shape, weight, o.epsilon).flatten(-2)


def _rotary(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    assert isinstance(o, Rotary)
    angles = torch.arange(x.shape[1], dtype=torch.float32)[:, None, None] * network.array(o, "frequencies")
    cosine, sine = angles.cos(), angles.sin()
    low, high = x.unflatten(-1, (o.heads, -1)).chunk(2, -1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1).flatten(-2)


def _mean(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    assert isinstance(o, Mean)
    x = x[:, o.first :]
    if mask is None:
        return x.mean(1)
    weight = mask[:, o.first :].to(x.dtype)
    return (x * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


def _select(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    assert isinstance(o, Select)
    if mask is None or o.token >= 0:
        return x[:, o.token]
    return x[torch.arange(len(x)), mask.sum(1) + o.token]


def _maximum(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    return (x if mask is None else x.masked_fill(~mask[..., None], -torch.inf)).amax(1)


def _activate(network: TorchGraph, o: Operation, mask: Tensor | None, x: Tensor) -> Tensor:
    assert isinstance(o, Activate)
    return _FUNCTIONS[o.function](x)


_RULES: dict[type[Operation], Callable[..., Tensor]] = {
    Embed: _embed,
    Convolution: _convolution,
    Prepend: _prepend,
    Linear: lambda network, o, mask, x: network.linear(o.name)(x),
    Norm: lambda network, o, mask, x: network.norm(o.name)(x),
    Attention: _attention,
    RmsNorm: _rms_norm,
    Rotary: _rotary,
    Activate: _activate,
    Add: lambda network, o, mask, a, b: a + b,
    Multiply: lambda network, o, mask, a, b: a * b,
    Select: _select,
    Mean: _mean,
    Maximum: _maximum,
    Normalize: lambda network, o, mask, x: functional.normalize(x, dim=-1),
    Output: lambda network, o, mask, x: x,
}


def pad(embedded: Sequence[NDArray]) -> tuple[Tensor, Tensor]:
    """Texts of any number of tokens as one batch: values (texts, tokens, ...) and their mask (texts, tokens)."""
    longest = max(len(e) for e in embedded)
    batch = np.zeros((len(embedded), longest, *embedded[0].shape[1:]), np.float32)
    mask = np.zeros((len(embedded), longest), bool)
    for i, e in enumerate(embedded):
        batch[i, : len(e)] = e
        mask[i, : len(e)] = True
    return torch.from_numpy(batch), torch.from_numpy(mask)
