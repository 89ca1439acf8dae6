"""Quantization of a decoder: scales from texts, parameters of every operation, the prefix's keys and values.

The first token of a text drives the residual stream of many models to values that no scale holds beside the others'.
So every text begins with a constant prefix (a begin token, a system prompt), whose keys and values are computed in
fp32 here; nothing else of it is ever needed, and scales are made without it.

Operations are computed in order for all texts, and each is quantized when its values are there; what nothing takes any
more is dropped, so a model of any depth takes the memory of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.blocks import BLOCK_SIZES
from ...formats.nm import satisfies
from ...model.families.decoders import NEXT
from ...model.fp32 import Cache, evaluate, value_of
from ...model.graph import Graph
from ...model.operations import (
    Activate,
    Add,
    Array,
    Attention,
    Embed,
    Input,
    Linear,
    Multiply,
    Norm,
    Operation,
    Output,
    RmsNorm,
    Rotary,
)
from ...spec.patterns import DENSE, Pattern
from ..parameters import LinearParameters, NormParameters
from ..scales import (
    LARGEST_FACTOR,
    MARGIN,
    channel_factors,
    factors,
    score_factor,
    wide_scale,
)
from .feedback import error_weights, rounded
from .fitting import INDEX_MARGIN, best_gain, function_table, index_step, product_parameters, scale_of
from .four_bits import block_factors, in_blocks, with_blocks
from .integers import MOST_WEIGHTS, Floats, IntegerDecoderGraph, Rules, limit_of
from .rotation import as_rules_say

__all__ = ["quantize_decoder"]

_ALPHA = {"attention": 0.6, "gate": 0.6, "down": 0.8, "head": 0.6}
"""Of SmoothQuant, for the inputs of products behind a norm or a gate."""
_LARGEST_EPSILON = (1 << 28) - 1
_STREAM_MARGIN = 2.5
"""By how much the residual stream may reach beyond what 16-bit values of calibration are given room for."""
_LARGEST_GAIN = 7
"""Of a reciprocal."""
_TOKENS_A_CHANNEL = 0.5
"""Of calibration, for each input of a product, at least, for its weights to be rounded by what was seen."""
_TURN_BITS = 6
"""Fraction bits of queries and keys before they turn."""


def quantize_decoder(
    graph: Graph, texts: Sequence[Sequence[int]], prefix: Sequence[int], rules: Rules | None = None,
    report: Callable[[str], None] = lambda _: None, patterns: Mapping[str, Pattern] | None = None,
) -> IntegerDecoderGraph:  # fmt: skip
    """A decoder in integers.

    Parameters
    ----------
    texts : token ids of texts, without the prefix
    prefix : token ids that every text begins with, at least one
    patterns : N:M of linear operations, or None
        To which they are pruned already (`compiler.prune`); those that are not named are dense.

    Raises
    ------
    InputError
        If there is no text or prefix, an operation that the accelerator has not, or weights that are not pruned as
        `patterns` says; it is named.
    """
    if not prefix:
        raise InputError("a decoder's texts begin with a constant prefix of at least one token; give it one.")
    if not texts or not all(texts):
        raise InputError("there is no calibration text, or one without tokens; give at least one.")
    rules = rules or Rules()
    patterns = {name: p for name, p in (patterns or {}).items() if not p.dense}
    linears = {o.name: o for o in graph.operations if isinstance(o, Linear)}
    for name, pattern in patterns.items():
        if name not in linears:
            raise InputError(f"{graph.name}: N:M {pattern} is given for {name}, which is no linear operation of it.")
        if not satisfies(linears[name].weight, pattern):
            raise InputError(f"{name}: its weights are not pruned to {pattern}; prune the model first.")
    return _Quantizer(as_rules_say(graph, rules, patterns), texts, prefix, rules, patterns).quantized(report)


class _Quantizer:
    def __init__(
        self, graph: Graph, texts: Sequence[Sequence[int]], prefix: Sequence[int], rules: Rules,
        patterns: Mapping[str, Pattern],
    ) -> None:  # fmt: skip
        self.graph, self.rules, self.patterns = graph, rules, patterns
        self.done = IntegerDecoderGraph(graph, rules, tuple(prefix))
        self.prefix = Cache(len(prefix))
        evaluate(graph, {"ids": list(prefix)}, cache=self.prefix, keep=())
        # Every text goes on behind the prefix.
        self.caches = [self.prefix.copy(len(prefix) + len(t)) for t in texts]
        self.values: dict[str, list[Array]] = {"ids": [np.asarray(t) for t in texts]}
        # Scales of values: of 16 bits one for all, of products' inputs and of heads one for each channel.
        self.wide: dict[str, float] = {}
        self.narrow: dict[str, Floats] = {}
        self.errors_of: tuple[str, Floats | None] = ("", None)  # of the value that products took last

    def quantized(self, report: Callable[[str], None]) -> IntegerDecoderGraph:
        """All operations, in order."""
        rules: dict[type[Operation], Callable[..., None]] = {
            Input: self.nothing, Embed: self.embedding, Linear: self.nothing, Norm: self.norm, RmsNorm: self.norm,
            Rotary: self.turned, Attention: self.attention, Activate: self.activation, Multiply: self.gated,
            Add: self.added, Output: self.output,
        }  # fmt: skip
        for o in self.graph.operations:
            if type(o) not in rules:
                raise InputError(f"{self.graph.name}: no accelerator runs {type(o).__name__.lower()} {o.name}.")
            report(o.name)
            if o.inputs:
                given = zip(*(self.values[i] for i in o.inputs), strict=True)
                self.values[o.name] = [value_of(o, *g, cache=c) for g, c in zip(given, self.caches, strict=True)]
            rules[type(o)](o)
            for name in o.inputs:
                if name != "ids" and self._finished(name, o):
                    del self.values[name]
        return self.done

    def _finished(self, name: str, now: Operation) -> bool:
        """Whether nothing needs a value any more: the operations that take it, and those that take their results."""
        place = self.graph.operations.index(now)
        ends = self.graph.takers(name)
        # A product is quantized with the operation that takes its results, for which its input is looked at again.
        ends = [t for e in ends for t in ([e, *self.graph.takers(e.name)] if isinstance(e, Linear) else [e])]
        return all(self.graph.operations.index(e) <= place for e in ends)

    def nothing(self, o: Operation) -> None:
        """What is quantized with another operation, or is the host's."""

    def seen(self, name: str) -> Array:
        """A value of all texts: shape (tokens, channels)."""
        return np.concatenate(self.values[name])

    def role(self, name: str) -> str:
        """What the products that take a value are to a layer."""
        for o in self.graph.takers(name):
            if isinstance(o, Linear):
                (taker, *_) = self.graph.takers(o.name)
                if isinstance(taker, Output):
                    return "head"
                if isinstance(taker, Activate | Multiply):
                    return "gate"
                if isinstance(taker, Add):
                    return "output" if isinstance(self.graph.by_name[name], Attention) else "down"
        return "attention"

    def channel_scales(self, name: str, values: NDArray) -> Floats:
        """Scales of a value that products take, one for each channel, which their weights absorb."""
        role = self.role(name)
        weights = [o.weight for o in self.graph.takers(name) if isinstance(o, Linear)]
        bits = self.done.widths[name] = self.rules.bits(role)
        if bits == 15:  # enough for one scale, which leaves rare values of any channel their range
            return np.full(values.shape[1], MARGIN * float(np.abs(values).max(initial=1e-30)) / limit_of(bits))
        smooth = channel_factors(values, weights, _ALPHA[role])
        if role in self.rules.blocks and all(in_blocks(w) for w in weights):
            smooth = block_factors(smooth, values)  # a factor for each channel would take the weights off their grid
        return np.asarray(smooth * scale_of(values / smooth), np.float64)

    def linear(
        self, name: str, output_scale: Floats | float, *, second: NDArray | int = 0, key: str = ""
    ) -> LinearParameters:  # fmt: skip
        """Parameters of a product whose results have a scale, or one for each column."""
        o = self.graph.linear(name)
        inputs = o.inputs[0]
        found = product_parameters(o.weight, o.bias, self.narrow[inputs], output_scale, second)
        found = replace(found, pattern=self.patterns.get(name, DENSE))
        blocked = self.role(inputs) in self.rules.blocks
        if self.rules.feedback and not (blocked and self.role(inputs) != "head"):
            found = replace(found, weights=self.rounded(o, found))
        if blocked:
            size = self.rules.block_size
            if self.role(inputs) == "head":
                self.done.exact_head, size = found, self.rules.head_block_size
            most = LARGEST_FACTOR * np.broadcast_to(np.asarray(output_scale, np.float64), (len(o.weight),))
            narrow, seen = self.narrow[inputs], self.seen(inputs)
            found = with_blocks(found, o, seen / narrow, size, most, output_scale)
        if self.done.widths[inputs] == 15:
            sizes = np.abs(found.weights.astype(np.int64)).sum(1)
            if sizes.max() > MOST_WEIGHTS:
                raise InputError(
                    f"{name}: the INT8 weights of column {int(sizes.argmax())} add up to {int(sizes.max()):,} without "
                    f"their signs; with 15-bit activations {MOST_WEIGHTS:,} is the most whose sums fit 32 bits. Leave "
                    f"{self.role(inputs)} at 8 bits."
                )
        self.done.linears[key or name] = found
        return found

    def rounded(self, o: Linear, p: LinearParameters) -> NDArray[np.int8]:
        """INT8 weights, each one's error made good by the others; to the nearest where too few tokens say how."""
        if self.errors_of[0] != o.inputs[0]:
            x = self.seen(o.inputs[0]).astype(np.float64) / p.input_scale
            enough = len(x) >= _TOKENS_A_CHANNEL * x.shape[1]
            self.errors_of = o.inputs[0], error_weights(x.T @ x) if enough else None
        if (upper := self.errors_of[1]) is None:
            return p.weights
        absorbed = o.weight.astype(np.float64) * p.input_scale / p.steps[:, None]
        return rounded(absorbed, upper, None if p.pattern.dense else o.weight != 0)

    def embedding(self, o: Embed) -> None:
        """The beginning of the residual stream, where it is no sum."""
        self.wide[o.name] = self.done.streams[o.name] = wide_scale(o.table)

    def norm(self, o: Norm | RmsNorm) -> None:
        """A norm of the residual stream; or of the heads of a query or key, whose product gives 16 bits."""
        source = o.inputs[0]
        if source not in self.wide:  # of heads
            self.wide[source] = wide_scale(self.seen(source))
            self.linear(source, self.wide[source])
        gamma = o.weight.astype(np.float64)
        beta = o.bias.astype(np.float64) if isinstance(o, Norm) else np.zeros(len(gamma))
        values = self.seen(o.name)
        scale = wide_scale(values, gamma, beta)
        short = False  # whether products take the wide results, of 15 bits
        if any(isinstance(t, Linear) for t in self.graph.takers(o.name)):
            narrow = self.channel_scales(o.name, values)
            if short := self.done.widths[o.name] == 15:
                scale = max(scale, float(narrow[0]))
        else:  # each channel of a head for itself; the product with an identity matrix behind it absorbs them
            heads = values.reshape(len(values) * (values.shape[1] // len(gamma)), len(gamma))
            narrow = np.maximum(np.abs(heads).max(0) * INDEX_MARGIN / 127, 1e-30).astype(np.float64)
            self.done.widths[o.name] = 8
        columns = len(gamma)
        kappa = columns / 2 ** int(math.log2(columns)) * 16
        multiplier = np.clip(np.round(scale / narrow * 65536), 1, 65535).astype(np.int64)
        if short:
            multiplier = np.zeros(columns, np.int64)
        self.done.norms[o.name] = NormParameters(
            np.round(gamma / scale * kappa).astype(np.int64), np.round(beta / scale).astype(np.int64), multiplier, scale
        )  # fmt: skip
        epsilon = round(columns**2 * o.epsilon / (self.wide[source] ** 2 * 2**14))
        if epsilon > _LARGEST_EPSILON:
            raise InputError(
                f"{o.name}: an epsilon of {o.epsilon:g} is {epsilon:,} of the hardware's units for values that reach "
                f"{self.wide[source] * 32767 / MARGIN:.3g}; {_LARGEST_EPSILON:,} is the limit."
            )
        self.done.epsilons[o.name] = epsilon
        self.narrow[o.name] = np.full(columns, scale) if short else scale * 65536 / multiplier

    def _head_scale(self, name: str, heads: int, *more: Array) -> Floats:
        """One 8-bit scale for each head, repeated over its channels; the prefix's rows count an eighth of all."""
        values = self.seen(name)
        rows = [values] + [np.repeat(m, max(1, len(values) // (8 * len(m))), 0) for m in more]
        each = np.concatenate(rows).reshape(-1, heads, values.shape[1] // heads)
        return np.repeat([scale_of(each[:, h]) for h in range(heads)], each.shape[2])

    def _keys(self, name: str) -> tuple[Array, Array]:
        return self.prefix.kept(name)

    def turned(self, o: Rotary) -> None:
        """Queries or keys: their product (or that of the norm's results with an identity matrix), to turn."""
        (attention,) = self.graph.takers(o.name)
        more = [self._keys(attention.name)[0]] if attention.inputs[1] == o.name else []
        scale = self._head_scale(o.name, o.heads, *more)
        self.narrow[o.name] = scale
        source = self.graph.by_name[o.inputs[0]]
        if isinstance(source, Linear):
            self.linear(source.name, scale / 2**_TURN_BITS)
            return
        width = len(scale) // o.heads
        narrow = self.narrow[source.name]
        parameters = [
            product_parameters(np.eye(width, dtype=np.float32), np.zeros(width, np.float32), narrow,
                             scale[h * width : (h + 1) * width] / 2**_TURN_BITS, 0)
            for h in range(o.heads)
        ]  # fmt: skip
        bias, multiplier, shift, second, steps = (
            np.concatenate([getattr(p, n) for p in parameters])
            for n in ("bias", "multiplier", "shift", "second", "steps")
        )
        self.done.linears[o.name] = LinearParameters(
            parameters[0].weights, DENSE, bias, multiplier, shift, second, narrow, steps
        )

    def attention(self, o: Attention) -> None:
        """Values (and queries and keys that do not turn); scores; the prefix; the context's scales."""
        query, key, value = o.inputs
        narrow_heads = o.heads // o.shared
        together = self._together(o)
        prefix_keys, prefix_values = self._keys(o.name)
        for name, heads, more in (
            (query, o.heads, ()), (key, narrow_heads, (prefix_keys,)), (value, narrow_heads, (prefix_values,)),
        ):  # fmt: skip
            if name not in self.narrow:
                self.narrow[name] = self._head_scale(name, 1 if together and name == value else heads, *more)
                self.linear(name, self.narrow[name])
        width = len(self.narrow[query]) // o.heads
        for of, kept, name in ((self.done.keys, prefix_keys, key), (self.done.values, prefix_values, value)):
            of[o.name] = np.clip(np.round(kept / self.narrow[name]), -127, 127).astype(np.int8)
        largest = self._largest_scores(o)
        products = self.narrow[query][::width] * np.repeat(self.narrow[key][::width], o.shared)
        chosen = [score_factor(float(p), width, float(s)) for p, s in zip(products, largest, strict=True)]
        multiplier, shift = factors(np.array([f for f, _ in chosen]))
        coarse = np.array([c for _, c in chosen], np.int64)
        context = self.seen(o.name).reshape(-1, o.heads, width)
        by_head = np.repeat(self.narrow[value][::width], o.shared)
        bits = self.done.widths[o.name] = self.rules.bits(self.role(o.name))
        # With the largest gain a context has 14 bits and its sign, and none saturates.
        gain = np.array(
            [_LARGEST_GAIN if bits == 15 else best_gain(context[:, h], by_head[h]) for h in range(o.heads)], np.int64
        )
        if together:
            gain[:] = gain.min()
        self.done.scores[o.name] = multiplier, shift, coarse, gain
        self.narrow[o.name] = np.repeat(by_head / 2.0**gain, width)

    def _together(self, o: Attention) -> bool:
        """Whether the heads' contexts have one scale: where a block of a file's weights takes more than one head."""
        width = self.seen(o.name).shape[1] // o.heads
        takers = [t for t in self.graph.takers(o.name) if isinstance(t, Linear)]
        kept = "output" in self.rules.blocks and any(in_blocks(t.weight) for t in takers)
        return kept and width % BLOCK_SIZES[0] != 0

    def _largest_scores(self, o: Attention) -> Floats:
        found = np.zeros(o.heads)
        for query, cache in zip(self.values[o.inputs[0]], self.caches, strict=True):
            keys = cache.kept(o.name)[0][: cache.length + len(query)]
            q = query.reshape(len(query), o.heads, -1).transpose(1, 0, 2)
            k = np.repeat(keys.reshape(len(keys), o.heads // o.shared, -1).transpose(1, 2, 0), o.shared, 0)
            found = np.maximum(found, np.abs(q @ k).max((1, 2)) / math.sqrt(q.shape[-1]))
        return found

    def activation(self, o: Activate) -> None:
        """An activation function's table, and the product ahead of it; a gate's are quantized with what it opens."""
        first = o.inputs[0]
        gates = [t for t in self.graph.takers(o.name) if isinstance(t, Multiply)]
        step = index_step(
            o.function, self.seen(first), self.seen(o.name), self.seen(gates[0].inputs[1]) if gates else None
        )
        self.done.tables[o.name], scale = function_table(o.function, step)
        if gates:
            self.linear(first, step)
            self.wide[o.name] = scale
            return
        wanted = self.channel_scales(o.name, self.seen(o.name))
        second = np.clip(np.round(scale / wanted * 65536), 1, 65535).astype(np.int64)
        self.linear(first, step, second=second)
        self.narrow[o.name] = scale * 65536 / second

    def gated(self, o: Multiply) -> None:
        """What a gate lets through: of each channel, how far the table's entry and the other factor reach."""
        gate, up = o.inputs
        wanted = self.channel_scales(o.name, self.seen(o.name))
        table_scale = self.wide[gate]
        largest_gate, largest_up = (max(float(np.abs(self.seen(n)).max()), 1e-9) for n in (gate, up))
        # Both factors get as many bits as the other, within what 16 bits hold.
        share = np.sqrt(largest_gate * largest_up * 65536 / wanted)
        gate_scale = np.clip(largest_gate / share, table_scale * 65536 / 65535, None)
        second = np.clip(np.round(table_scale / gate_scale * 65536), 1, 65535).astype(np.int64)
        gate_scale = table_scale * 65536 / second
        up_scale = np.maximum(wanted / (65536 * gate_scale), MARGIN * largest_up / 32767)
        first = self.graph.by_name[gate].inputs[0]
        old = self.done.linears[first]
        self.done.linears[first] = replace(old, second=second)
        self.linear(up, up_scale)
        self.narrow[o.name] = gate_scale * up_scale * 65536

    def added(self, o: Add) -> None:
        """A residual sum: its scale is no smaller than the stream's before it."""
        if not any(isinstance(self.graph.by_name[i], Linear) for i in o.inputs):  # of embeddings: the host's
            self.wide[o.name] = self.done.streams[o.name] = _STREAM_MARGIN * wide_scale(self.seen(o.name))
            return
        product, stream = o.inputs
        before = self.wide[stream]
        # Here and there a token reaches several times as far as all that calibration saw, and saturates for good.
        seen = _STREAM_MARGIN * wide_scale(np.concatenate([self.seen(o.name), self.seen(product)]))
        second = int(np.clip(round(before / max(seen, before) * 65536), 1, 65535))
        scale = before * 65536 / second
        self.linear(product, scale, second=second)
        self.wide[o.name] = self.done.streams[o.name] = scale

    def output(self, o: Output) -> None:
        """The logits in 16 bits."""
        assert o.name == NEXT
        self.done.logit_scale = wide_scale(self.seen(o.name))
        self.linear(o.inputs[0], self.done.logit_scale)
