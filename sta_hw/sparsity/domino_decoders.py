"""DominoSearch for decoders: N of every product of the layers at one M, under a budget of bytes a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..formats.nm import best_encoding, bits_per_weight
from ..model.graph import Graph
from ..model.operations import Multiply
from ..spec.config import Config
from ..spec.patterns import DENSE, Pattern
from .domino import domino_search, sensitivities
from .torch_graph import TorchGraph

__all__ = ["decoder_patterns", "decoder_sensitivities", "weights_together"]

_TEXTS = 16
"""So many are enough for the search."""


def weights_together(graph: Graph) -> list[tuple[str, ...]]:
    """The layers' products that need one N:M: gate and up are computed as one (`compiler.decoder.program`)."""
    partner = {}
    for o in graph.operations:
        if isinstance(o, Multiply):
            gate, up = graph.by_name[o.inputs[0]].inputs[0], o.inputs[1]
            partner[gate], partner[up] = up, gate
    return [(n, partner[n]) if n in partner else (n,) for n in graph.linears if n not in partner or n < partner[n]]


def decoder_sensitivities(graph: Graph, texts: Sequence[Sequence[int]], m: int) -> dict[str, list[float]]:
    """By how much what is said of the next token changes when one product alone is pruned to N:M, for N = 0 to M.

    The Kullback-Leibler divergence to second order, whose Hessian is the Fisher information: squared gradients of the
    likelihood of tokens that are drawn from the dense model itself (Martens, arXiv 1412.1193, section 5), added up over
    a text's tokens, whose gradients do not depend on each other on average.

    Parameters
    ----------
    texts : token ids of texts
        One backward pass each.
    """
    network = TorchGraph(graph).requires_grad_(False)
    for linear in network.linears.values():
        linear.weight.requires_grad_(True)

    def loss(output: Tensor, number: int) -> Tensor:
        logits = output.flatten(0, 1)
        generator = torch.Generator().manual_seed(number)
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
        return functional.cross_entropy(logits, drawn, reduction="sum")

    return sensitivities(network, network.linears, [(torch.tensor([list(t)]),) for t in texts], loss, m)


def _bytes(config: Config, weights: int, n: int, m: int) -> float:
    """Of a product in memory, values and positions."""
    if n == m:
        return weights
    pattern = Pattern(n, m)
    encoding = best_encoding(pattern, config.window, config.encodings)
    return weights * bits_per_weight(pattern, encoding, config.window) / 8


def decoder_patterns(
    graph: Graph, pattern: Pattern, config: Config, texts: Sequence[Sequence[int]],
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Pattern]:  # fmt: skip
    """DominoSearch's N of every product, with no more bytes a token than `pattern` everywhere.

    Bytes are those of weights and positions, as `compiler.decoder.traffic.least_traffic` counts them.

    Parameters
    ----------
    config : Config
        What N there are, and how weights lie in memory.
    texts : token ids of texts
        The first 16 are for the sensitivities.

    Raises
    ------
    ConfigError
        If the hardware does not run `pattern`.
    InputError
        If there is no text.
    """
    config.require(pattern)
    m = pattern.m
    there = [n for n in range(1, m + 1) if n == m or Pattern(n, m) in config.patterns]
    # An N that the hardware has not costs what the next one does that it has, and becomes that one.
    becomes = {n: min(k for k in there if k >= n) for n in range(1, m + 1)}
    few = texts[:_TEXTS]
    report(f"sensitivities, {len(few)} texts")
    single = decoder_sensitivities(graph, few, m)
    groups = weights_together(graph)
    sizes = {names: sum(graph.linears[n].weight.size for n in names) for names in groups}
    errors = {names: [sum(falls) for falls in zip(*(single[n] for n in names), strict=True)] for names in groups}
    costs = {names: [_bytes(config, sizes[names], becomes[max(1, n)], m) for n in range(m + 1)] for names in groups}
    found = domino_search(errors, costs, sum(c[pattern.n] for c in costs.values()), m)
    chosen: dict[str, Pattern] = {}
    for names, p in found.items():
        n = becomes[p.n]
        chosen |= dict.fromkeys(names, DENSE if n == m else Pattern(n, m))
    return {name: chosen[name] for name in graph.linears}
