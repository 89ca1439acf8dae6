"""What the families of decoders have in common: their layers, rotary frequencies, embedding and head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Graph
from ..operations import (
    TOKENS,
    Activate,
    Add,
    Array,
    Attention,
    Embed,
    Input,
    Linear,
    Multiply,
    Output,
    RmsNorm,
    Rotary,
)
from ..settings import Settings
from ..tensors import Tensors
from .layers import Builder

__all__ = ["NEXT", "DecoderBuilder", "Heads", "frequencies", "is_decoder"]

NEXT = "next_token"
"""The output of a decoder: for every token, the logits of the one behind it."""


def is_decoder(graph: Graph) -> bool:
    """Whether the network gives the next token."""
    return NEXT in graph.by_name


@dataclass(frozen=True)
class Heads:
    """The heads of an attention: those of the query, those of key and value, and their width."""

    query: int
    key: int
    width: int


def frequencies(settings: Settings, width: int, positions: int) -> Array:
    """Radians from one position to the next, of each pair of a head's elements, as the configuration says.

    ``rope_parameters`` has it, or in files of before transformers 5 ``rope_theta`` and ``rope_scaling``.
    """
    about: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        value = settings.value(key, {})
        if not isinstance(value, dict):
            settings.problem(f"{key} is {value!r}; it is an object of names and values.")
        elif about and value and about != value:
            settings.problem("rope_scaling and rope_parameters say different things; leave one of them out.")
        else:
            about = about or value
    kind = about.get("rope_type", about.get("type", "default"))
    theta = about.get("rope_theta", settings.value("rope_theta", 10000.0))
    about = {k: v for k, v in about.items() if k not in ("rope_type", "type", "rope_theta")}
    wanted = {
        "default": (), "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }.get(str(kind))  # fmt: skip
    about.setdefault("original_max_position_embeddings", positions)
    if about.pop("partial_rotary_factor", 1.0) != 1.0:
        settings.problem("rotary positions of a part of a head (partial_rotary_factor) are not supported.")
    if wanted is None:
        settings.problem(f"rotary positions of the type {kind!r} are not supported; default, linear and llama3 are.")
        return np.ones(width // 2, np.float32)
    known = {*wanted, "original_max_position_embeddings"}
    if extra := sorted(k for k, v in about.items() if k not in known and v is not None):
        settings.problem(f"{', '.join(extra)} of rotary positions of the type {kind!r} is not understood.")
    numbers = {"rope_theta": theta} | {name: about.get(name) for name in wanted}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            settings.problem(f"{name} of rotary positions is {value!r}; it is a number above 0.")
            return np.ones(width // 2, np.float32)
    found = np.float32(1) / np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    if kind == "linear":
        found = found / np.float32(about["factor"])
    if kind == "llama3":
        low, high, reach = (about[n] for n in wanted[1:])
        if low > high:
            settings.problem(f"low_freq_factor of rotary positions is {low}, above high_freq_factor, {high}.")
        turns = reach * found / np.float32(2 * math.pi)  # within the context that the model was first trained for
        share = np.clip((turns - low) / (high - low) if high != low else turns > low, 0, 1)
        found = (1 - share) * found / about["factor"] + share * found
    return np.asarray(found, np.float32)


class DecoderBuilder(Builder):
    """A decoder under construction; every method adds operations and returns the last one's name."""

    def __init__(self, tensors: Tensors, width: int) -> None:
        super().__init__(tensors, width=width)
        self.add(Input("ids", (), (TOKENS,)))

    def embed(self, tensor: str, rows: int, name: str = "embeddings", kind: str = "token") -> str:
        """A table of tokens or of positions."""
        return self.add(Embed(name, ("ids",), self.take(f"{name}.table", tensor, rows, self.width), kind))

    def rms_norm(self, name: str, source: str, tensor: str, width: int, epsilon: float, heads: int = 1) -> str:
        """An RMSNorm of heads of a width."""
        return self.add(RmsNorm(name, (source,), self.take(f"{name}.weight", tensor, width), epsilon, heads))

    def attention(self, number: int, roles: Mapping[str, str], heads: Heads, turn: Array | None) -> str:
        """Causal attention of query, key and value, by role, with rotary positions if there are frequencies."""
        counts = {"query": heads.query, "key": heads.key}
        if turn is not None:
            roles = dict(roles) | {
                role: self.add(Rotary(f"{number}.{role}_turned", (roles[role],), turn, count))
                for role, count in counts.items()
            }
        given = tuple(roles[r] for r in ("query", "key", "value"))
        return self.add(Attention(f"{number}.context", given, heads.query, True, heads.query // heads.key))

    def gated(self, number: int, gate: str, up: str, function: str) -> str:
        """A gate through its function, times what it lets through."""
        opened = self.add(Activate(f"{number}.gate", (gate,), function))
        return self.add(Multiply(f"{number}.gated", (opened, up)))

    def sum(self, number: int, which: int, product: str, stream: str) -> str:
        """The residual stream with a product added."""
        return self.add(Add(f"{number}.sum{which}", (product, stream)))

    def head(self, source: str, rows: int, tied: bool) -> Graph:
        """The logits of the next token, by the matrix of the embeddings if they are tied, else one of its own."""
        table = next(o for o in self.operations if isinstance(o, Embed))
        if tied:
            own = self.tensors.found.get("lm_head.weight")
            if own is not None and not np.array_equal(own, table.table):
                self.tensors.problems.append(
                    f"{self.tensors.path} has an lm_head.weight of its own, and by config.json (tie_word_embeddings) "
                    "it is that of the embeddings."
                )
            self.tensors.leave({"lm_head.weight": "the head is tied to the embeddings"})
            self.sources["head.weight"] = self.sources[f"{table.name}.table"]
        weight = table.table if tied else self.take("head.weight", "lm_head.weight", rows, self.width)
        logits = self.add(Linear("head", (source,), weight, np.zeros(rows, np.float32)))
        self.add(Output(NEXT, (logits,)))
        return self.graph("decoder")
