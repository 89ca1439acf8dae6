"""Quantized graphs of a shape, with parameters of zero: for estimates and benches, which look at no value."""

from __future__ import annotations

from collections.abc import Mapping

from ..model.graph import Graph
from ..model.part import accelerator_part
from ..model.random import encoder_graph, nothing
from ..spec.patterns import Pattern
from .integers import blank

__all__ = ["shape_graph"]


def shape_graph(
    hidden: int, heads: int, layers: int, intermediate: int, patterns: Mapping[str, Pattern] | None = None
) -> Graph:
    """An encoder of BERT's kind, which pools the mean; operations that `patterns` does not name are dense."""
    graph = encoder_graph(nothing, hidden=hidden, heads=heads, layers=layers, intermediate=intermediate)
    return blank(accelerator_part(graph).inner, patterns)
