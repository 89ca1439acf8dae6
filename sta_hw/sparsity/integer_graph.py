"""Quantization-aware fine-tuning: a graph whose forward pass is the accelerator's own integers.

Every stored tensor takes the values the accelerator would store, from the reference of its LayerNorm, softmax,
activation table and requantization; gradients go straight through the rounding (Bengio et al., arXiv 1308.3432,
section 4), as if each step had been computed in real numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..compiler.embedded import quantize_embedded
from ..compiler.integers import (
    IntegerActivate,
    IntegerAttention,
    IntegerInput,
    IntegerLinear,
    IntegerNorm,
    IntegerOutput,
    linear_of,
)
from ..compiler.parameters import LinearParameters, NormParameters
from ..compiler.quantize import norm_factor
from ..errors import InputError
from ..formats.nm import satisfies
from ..model.graph import Graph
from ..model.operations import Add, Mean, Operation, Select
from ..model.part import addends
from ..reference.engine import matrix_sums
from ..reference.requantizer import requantize
from ..reference.softmax import COARSE_BITS, FRACTION_BITS, SoftmaxRows
from ..reference.vector import activate, add_residual, layer_norm
from ..spec.config import Config
from .torch_graph import TorchGraph

__all__ = ["IntegerGraph"]


def _straight(value: Tensor, exact: NDArray) -> Tensor:
    """`exact` forward, `value`'s gradient backward."""
    return value + (torch.from_numpy(np.asarray(exact, np.float32)) - value).detach()


def _ints(value: Tensor) -> NDArray[np.int64]:
    return value.detach().numpy().round().astype(np.int64)


class IntegerGraph(nn.Module):
    """A graph in the accelerator's integers, trainable.

    Parameters
    ----------
    network : TorchGraph
        Of the accelerator's part; its parameters are shared, not copied.
    quantized : Graph
        The same quantized: scales, multipliers and activation tables stay; weights, biases and LayerNorm parameters
        follow `network`.
    config : Config
        The order of keys in the softmax, whose error diffusion follows it, depends on it.
    """

    def __init__(self, network: TorchGraph, quantized: Graph, config: Config) -> None:
        super().__init__()
        self.network, self.quantized, self.config = network, quantized, config

    @property
    def scale(self) -> float:
        """Of the 8 bits that are pooled."""
        result = self.quantized.operations[-1]
        assert isinstance(result, IntegerOutput)
        return result.scale

    def forward(self, embedded: Sequence[NDArray[np.float32]]) -> Tensor:
        """Embedding sums, each (tokens, width), to pooled outputs (texts, width), in the scale of the fp32 ones.

        Raises
        ------
        InputError
            If a text has more tokens than one block of the softmax.
        """
        counts = [len(e) for e in embedded]
        most = self.config.groups * self.config.window
        if max(counts) > most:
            raise InputError(f"a text has {max(counts)} tokens; quantization-aware tuning takes {most} at most.")
        graph = self.quantized
        wide: dict[str, Tensor] = {}
        narrow: dict[str, Tensor] = {}
        for o in graph.operations:
            if isinstance(o, IntegerInput):
                stream = quantize_embedded(np.concatenate(embedded), o.scale)[0]
                wide[o.name] = torch.from_numpy(stream.astype(np.float32))
            elif isinstance(o, IntegerNorm):
                norm = self.network.norm(o.name)
                wide[o.name], narrow[o.name] = self.norm(wide[o.inputs[0]], norm, o.parameters)
            elif isinstance(o, IntegerLinear):
                if o.wide is not None:
                    x, linear = narrow[o.inputs[0]], self.network.linear(o.name)
                    narrow[o.name] = self.linear(x, linear, o.parameters)
                    wide[o.name] = self.linear(x, linear, o.wide, wide=True)
            elif isinstance(o, IntegerAttention):
                query, key, value = (self._product(i, narrow) for i in o.inputs)
                narrow[o.name] = self.attention(query, key, value, o, counts)
            elif isinstance(o, IntegerActivate):
                before = linear_of(graph, o.inputs[0]).parameters
                narrow[o.name] = self.activation(self._product(o.inputs[0], narrow), o, before)
            elif isinstance(o, Add):
                product, residual = addends(graph, o)
                results = self._product(product.name, narrow, wide=True)
                wide[o.name] = self.added(results, wide[residual], linear_of(graph, product.name).parameters)
            elif isinstance(o, Mean):
                narrow[o.name] = torch.stack([part.mean(0) for part in narrow[o.inputs[0]].split(counts)])
            elif isinstance(o, Select):
                narrow[o.name] = torch.stack([part[0] for part in narrow[o.inputs[0]].split(counts)])
        return narrow[graph.operations[-1].inputs[0]] * self.scale

    def _product(self, name: str, narrow: dict[str, Tensor], *, wide: bool = False) -> Tensor:
        """A linear operation's results."""
        o = linear_of(self.quantized, name)
        return self.linear(narrow[o.inputs[0]], self.network.linear(name), o.parameters, wide=wide)

    def linear(self, x: Tensor, linear: nn.Linear, p: LinearParameters, *, wide: bool = False) -> Tensor:
        """Product and requantization: 8-bit (or 16-bit) results."""
        factor = torch.from_numpy((p.input_scale[None, :] / p.steps[:, None]).astype(np.float32))
        weight = linear.weight * factor
        weights = _weights(linear, p)
        factor_out = p.multiplier / 2.0 ** (12 + 4 * p.shift)
        real = torch.from_numpy(factor_out.astype(np.float32))
        # One factor for the bias: the steps alone may be beyond fp32.
        bias = (linear.bias - torch.from_numpy(p.offset.astype(np.float32))) * torch.from_numpy(
            (factor_out / p.steps).astype(np.float32)
        )
        value = functional.linear(x, _straight(weight, weights)) * real + bias
        sums = matrix_sums(_ints(x), weights)  # (columns, rows)
        exact = requantize(sums, _bias(linear, p)[:, None], p.multiplier[:, None], p.shift[:, None], wide=wide)
        return _straight(value, exact.T)

    def added(self, results: Tensor, residual: Tensor, p: LinearParameters) -> Tensor:
        """Residual addition."""
        factor = torch.from_numpy((p.second / 65536).astype(np.float32))
        return _straight(results + residual * factor, add_residual(_ints(results), _ints(residual), p.second))

    def norm(self, x: Tensor, norm: nn.LayerNorm, p: NormParameters) -> tuple[Tensor, Tensor]:
        """LayerNorm: 16-bit and 8-bit results."""
        fresh = _norm(norm, p)
        inverse = round(2**33 / x.shape[1])
        wide, narrow = layer_norm(_ints(x), fresh.scale, fresh.shift, fresh.multiplier, inverse)
        value = functional.layer_norm(x, x.shape[1:], norm.weight, norm.bias, 1e-12) / p.wide_scale
        multiplier = torch.from_numpy((p.multiplier / 65536).astype(np.float32))
        return _straight(value, wide), _straight(value * multiplier, narrow)

    def activation(self, x: Tensor, p: IntegerActivate, linear: LinearParameters) -> Tensor:
        """The activation's table and the second requantization; its slope is the table's."""
        table = p.table.astype(np.float32)
        index = _ints(x)
        slope = (table[np.clip(index + 1, -128, 127) & 255] - table[np.clip(index - 1, -128, 127) & 255]) / 2
        second = (linear.second / 65536).astype(np.float32)
        value = x * torch.from_numpy(slope * second)
        return _straight(value, activate(index, p.table, linear.second))

    def attention(self, query: Tensor, key: Tensor, value: Tensor, p: IntegerAttention, counts: list[int]) -> Tensor:
        """Scores, softmax and context of every text and head."""
        heads = p.heads
        size = query.shape[1] // heads
        multipliers, shifts, gains = (a.reshape(heads, 1, 1) for a in (p.score_multiplier, p.score_shift, p.gain))
        natural = math.log(2) / 2.0 ** (FRACTION_BITS - COARSE_BITS * p.coarse.reshape(heads, 1, 1))
        scale = torch.from_numpy((multipliers / 2.0 ** (12 + 4 * shifts) * natural).astype(np.float32))
        found = []
        for q, k, v in zip(query.split(counts), key.split(counts), value.split(counts), strict=True):
            tokens = len(q)
            q, k, v = (t.unflatten(1, (heads, size)).transpose(0, 1) for t in (q, k, v))
            products = q @ k.transpose(1, 2)
            logits = requantize(_ints(products), 0, multipliers, shifts, wide=True)
            order, keep = _key_order(self.config, tokens)
            columns = np.zeros((heads * tokens, len(order)), np.int64)
            columns[:, keep] = logits.reshape(heads * tokens, tokens)[:, order[keep]]
            rows = SoftmaxRows(heads * tokens, wide=False, coarse=np.repeat(p.coarse, tokens))
            ordered = rows.block(columns, keep)
            probabilities = np.zeros((heads * tokens, tokens), np.int64)
            probabilities[:, order[keep]] = ordered[:, keep]
            multiplier, shift = rows.reciprocals(np.repeat(p.gain, tokens))
            sums = probabilities.reshape(heads, tokens, tokens) @ _ints(v)
            exact = requantize(
                sums, 0, multiplier.reshape(heads, tokens, 1), shift.reshape(heads, tokens, 1), wide=False
            )
            gained = torch.from_numpy(2.0 ** gains.astype(np.float32))
            real = torch.softmax(products * scale, -1) @ v * gained
            found.append(_straight(real, exact).transpose(0, 1).flatten(1))
        return torch.cat(found)

    def to_quantized(self) -> Graph:
        """What the compiler takes, with this module's weights.

        Raises
        ------
        InputError
            If an operation's weights do not satisfy its N:M.
        """
        changed: dict[str, Operation] = {}
        for o in self.quantized.operations:
            if isinstance(o, IntegerNorm):
                changed[o.name] = IntegerNorm.of(o, _norm(self.network.norm(o.name), o.parameters))
            elif isinstance(o, IntegerLinear):
                linear, pattern = self.network.linear(o.name), o.parameters.pattern
                found = _fresh(linear, o.parameters)
                if not pattern.dense and not satisfies(found.weights, pattern):
                    raise InputError(f"{o.name}: the weights do not satisfy {pattern}.")
                changed[o.name] = IntegerLinear.of(o, found, _fresh(linear, o.wide) if o.wide else None)
        return self.quantized.replaced(changed)


def _fresh(linear: nn.Linear, p: LinearParameters) -> LinearParameters:
    """Parameters with a module's weights and bias."""
    return dataclasses.replace(p, weights=_weights(linear, p).astype(np.int8), bias=_bias(linear, p))


def _weights(linear: nn.Linear, p: LinearParameters) -> NDArray[np.int64]:
    scaled = linear.weight.detach().numpy().astype(np.float64) * p.input_scale
    return np.clip(np.round(scaled / p.steps[:, None]), -127, 127).astype(np.int64)


def _bias(linear: nn.Linear, p: LinearParameters) -> NDArray[np.int64]:
    bias = linear.bias.detach().numpy().astype(np.float64)
    return np.clip(np.round((bias - p.offset) / p.steps), -(2**31), 2**31 - 1).astype(np.int64)


def _norm(norm: nn.LayerNorm, p: NormParameters) -> NormParameters:
    gamma, beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    scale = np.round(gamma / p.wide_scale * norm_factor(len(gamma))).astype(np.int64)
    shift = np.clip(np.round(beta / p.wide_scale), -32767, 32767).astype(np.int64)
    return dataclasses.replace(p, scale=np.clip(scale, -131072, 131071), shift=shift)


def _key_order(config: Config, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The keys in the order the softmax sees them, and which of them are there."""
    halves = config.value_rows // config.groups
    depth = min(config.window, math.ceil(tokens / (config.groups * halves)) * halves)
    number = np.arange(config.groups * depth)
    key = config.groups * (number % depth) + number // depth
    return key, key < tokens
