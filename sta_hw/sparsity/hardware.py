"""Quantization-aware fine-tuning: an encoder whose forward pass is the accelerator's own integers.

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
from ..compiler.parameters import LayerParameters, LinearParameters, NormParameters, QuantizedEncoder
from ..compiler.quantize import norm_factor
from ..errors import InputError
from ..formats.nm import satisfies
from ..model.bert import LINEAR_NAMES
from ..reference.engine import matrix_sums
from ..reference.requantizer import requantize
from ..reference.softmax import COARSE_BITS, FRACTION_BITS, SoftmaxRows
from ..reference.vector import activate, add_residual, layer_norm
from ..spec.config import Config
from .encoder import Encoder

__all__ = ["HardwareEncoder"]


def _straight(value: Tensor, exact: NDArray) -> Tensor:
    """`exact` forward, `value`'s gradient backward."""
    return value + (torch.from_numpy(np.asarray(exact, np.float32)) - value).detach()


def _ints(value: Tensor) -> NDArray[np.int64]:
    return value.detach().numpy().round().astype(np.int64)


class HardwareEncoder(nn.Module):
    """An encoder in the accelerator's integers, trainable.

    Parameters
    ----------
    encoder : Encoder
        Its parameters are shared, not copied.
    quantized : QuantizedEncoder
        Scales, multipliers and activation tables, which stay; weights, biases and LayerNorm parameters follow
        `encoder`.
    config : Config
        The order of keys in the softmax, whose error diffusion follows it, depends on it.
    """

    def __init__(self, encoder: Encoder, quantized: QuantizedEncoder, config: Config) -> None:
        super().__init__()
        self.encoder, self.quantized, self.config = encoder, quantized, config

    def forward(self, embedded: Sequence[NDArray[np.float32]]) -> Tensor:
        """Embedding sums, each (tokens, hidden), to pooled outputs (texts, hidden), in the scale of the fp32 ones.

        Raises
        ------
        InputError
            If a text has more tokens than one block of the softmax.
        """
        q = self.quantized
        counts = [len(e) for e in embedded]
        most = self.config.groups * self.config.window
        if max(counts) > most:
            raise InputError(f"a text has {max(counts)} tokens; quantization-aware tuning takes {most} at most.")
        stream = torch.from_numpy(quantize_embedded(np.concatenate(embedded), q.embedded_scale)[0].astype(np.float32))
        norms = self._norms()
        wide, narrow = self.norm(stream, norms[0], q.embedding_norm)
        if not q.norm_first:
            stream = wide
        for number, p in enumerate(q.layers):
            between, behind = norms[2 * number + 1 : 2 * number + 3]
            products = self.encoder.blocks[number].products
            query, key, value, projection, up, down = (
                (linear, p.linear[name]) for name, linear in zip(LINEAR_NAMES, products, strict=True)
            )
            context = self.attention(
                self.linear(narrow, *query), self.linear(narrow, *key), self.linear(narrow, *value), p, counts
            )
            stream = self.added(self.linear(context, *projection, wide=True), stream, projection[1])
            wide, narrow = self.norm(stream, between, p.norm1)
            if not q.norm_first:
                stream = wide
            hidden = self.activation(self.linear(narrow, *up), p, up[1])
            stream = self.added(self.linear(hidden, *down, wide=True), stream, down[1])
            wide, narrow = self.norm(stream, behind, p.norm2)
            if not q.norm_first:
                stream = wide
        scaled = narrow * q.output_scale
        if q.pooling == "first":
            return torch.stack([part[0] for part in scaled.split(counts)])
        return torch.stack([part.mean(0) for part in scaled.split(counts)])

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

    def activation(self, x: Tensor, p: LayerParameters, linear: LinearParameters) -> Tensor:
        """The activation's table and the second requantization; its slope is the table's."""
        table = p.table.astype(np.float32)
        index = _ints(x)
        slope = (table[np.clip(index + 1, -128, 127) & 255] - table[np.clip(index - 1, -128, 127) & 255]) / 2
        second = (linear.second / 65536).astype(np.float32)
        value = x * torch.from_numpy(slope * second)
        return _straight(value, activate(index, p.table, linear.second))

    def attention(self, query: Tensor, key: Tensor, value: Tensor, p: LayerParameters, counts: list[int]) -> Tensor:
        """Scores, softmax and context of every text and head."""
        heads = self.quantized.heads
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

    def to_quantized(self) -> QuantizedEncoder:
        """What the compiler takes, with this module's weights.

        Raises
        ------
        InputError
            If a layer's weights do not satisfy its N:M.
        """
        layers = []
        for number, p in enumerate(self.quantized.layers):
            linears = {}
            for name, linear in zip(LINEAR_NAMES, self.encoder.blocks[number].products, strict=True):
                old = p.linear[name]
                weights = _weights(linear, old)
                if not old.pattern.dense and not satisfies(weights, old.pattern):
                    raise InputError(f"layer {number} {name}: the weights do not satisfy {old.pattern}.")
                linears[name] = dataclasses.replace(old, weights=weights.astype(np.int8), bias=_bias(linear, old))
            layers.append(dataclasses.replace(p, linear=linears))
        norms = self._norms()
        for number in range(len(layers)):
            layers[number] = dataclasses.replace(
                layers[number],
                norm1=_norm(norms[2 * number + 1], layers[number].norm1),
                norm2=_norm(norms[2 * number + 2], layers[number].norm2),
            )
        return dataclasses.replace(
            self.quantized, layers=tuple(layers), embedding_norm=_norm(norms[0], self.quantized.embedding_norm)
        )

    def _norms(self) -> list[nn.LayerNorm]:
        """All LayerNorms, in the order they run."""
        inner = [norm for block in self.encoder.blocks for norm in block.both_norms]
        return [*inner, self.encoder.norm] if self.quantized.norm_first else [self.encoder.norm, *inner]


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
    halves = config.rows // config.groups
    depth = min(config.window, math.ceil(tokens / (config.groups * halves)) * halves)
    number = np.arange(config.groups * depth)
    key = config.groups * (number % depth) + number // depth
    return key, key < tokens
