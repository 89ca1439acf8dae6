"""A decoder's operations in integers, as the accelerator computes them; see docs/decoders.md."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...arguments import flag, whole
from ...errors import InputError
from ...formats.blocks import BLOCK_SIZES
from ...model.graph import Graph
from ..parameters import Ints, LinearParameters, NormParameters

__all__ = [
    "BLOCKED", "DIGIT", "MOST_WEIGHTS", "ROLES", "WIDE", "Floats", "IntegerDecoderGraph", "Rules", "limit_of",
]  # fmt: skip

Floats = NDArray[np.float64]

DIGIT = 128
"""Radix of the two digits of a 15-bit activation: ``x = 128 h + l`` with ``0 <= l < 128``."""
MOST_WEIGHTS = (1 << 31 - 14) - 1
"""Of a column the sum of all weights' magnitudes with which any sums of 15-bit activations fit 32 bits."""


ROLES = ("attention", "output", "gate", "down", "head")
"""Of a decoder's products: query, key and value; attention's output; gate and up, or GPT-2's first; down; head."""

WIDE = frozenset(ROLES) - {"output"}
"""Products that take 15-bit activations where a model is to have them: attention's output gains nothing by it."""
BLOCKED = frozenset(ROLES) - {"head"}
"""Products whose weights have 4 bits where a model is to have them: those of the head cost too much accuracy."""


def limit_of(bits: int) -> int:
    """The largest activation of 8 bits, or of 15."""
    return (1 << bits - 1) - 1


@dataclass(frozen=True)
class Rules:
    """How a decoder is quantized.

    Attributes
    ----------
    wide : frozenset of str
        Which products take 15-bit activations: roles ``attention`` (query, key and value), ``output`` (attention's),
        ``gate`` (gate and up, or GPT-2's first), ``down``, ``head``.
    block : int
        Keys that share an exponent of the softmax: groups times window of the hardware.
    groups : int
        Of the hardware: the order of a block's keys follows from it.
    blocks : frozenset of str
        Which products' weights have 4 bits in blocks (docs/format.md), by the same roles: as the file has them where it
        has such, else quantized here.
    block_size, head_block_size : int
        Weights of a block where they are quantized here: 32, 64 or 128; of one of the head's, whose likeliest tokens
        are computed again from INT8 weights.
    rotate : bool
        Whether dense INT8 networks are rotated first (`rotation`).
    feedback : bool
        Whether INT8 weights are rounded with the error given on (`feedback`), rather than each to the nearest.

    Raises
    ------
    InputError
        If a role or a block's size is unknown, `block` or `groups` is no whole number from 1 on, or `rotate` or
        `feedback` is no truth value.
    """

    wide: frozenset[str] = frozenset()
    block: int = 128
    groups: int = 8
    blocks: frozenset[str] = frozenset()
    block_size: int = 32
    head_block_size: int = 128
    rotate: bool = True
    feedback: bool = True

    def __post_init__(self) -> None:
        if unknown := sorted((self.wide | self.blocks) - set(ROLES)):
            raise InputError(f"there is no product {unknown[0]!r} in decoders; there are {', '.join(ROLES)}.")
        for name in ("rotate", "feedback"):
            object.__setattr__(self, name, flag(getattr(self, name), name))
        for name in ("block", "groups", "block_size", "head_block_size"):
            object.__setattr__(self, name, whole(getattr(self, name), name))
        for name in ("block", "groups"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} is out of range; the least is 1.")
        for size in (self.block_size, self.head_block_size):
            if size not in BLOCK_SIZES:
                sizes = ", ".join(map(str, BLOCK_SIZES))
                raise InputError(f"blocks of {size} weights are not supported; {sizes} are.")

    def bits(self, role: str) -> int:
        """8 or 15, for a product's input."""
        return 15 if role in self.wide else 8


@dataclass
class IntegerDecoderGraph:
    """All integer parameters of a decoder, by its operations' names.

    Attributes
    ----------
    graph : Graph
        In fp32: the operations and what takes what, rotated where `rules` ask for it.
    linears : dict of LinearParameters
    norms : dict of NormParameters
    epsilons : dict of int
        Of norms: what the hardware adds, in units of 2**14.
    tables : dict of int16 arrays, shape (256,)
        Of activation functions.
    scores : dict of (multiplier, shift, coarse, gain), each an int64 array, shape (heads,)
        Of attentions.
    widths : dict of str to int
        Bits of the values that products take: 8, or 15.
    streams : dict of float
        Scale of each value of the residual stream, 16 bits.
    prefix : tuple of int
        The tokens that every text begins with.
    keys, values : dict of int8 arrays, shape (tokens of the prefix, width)
        Of attentions, computed in fp32.
    logit_scale : float
        What one unit of a logit means.
    exact_head : LinearParameters or None
        The head with INT8 weights, where its own have 4 bits: for the same inputs, and logits of the same scale.
    """

    graph: Graph
    rules: Rules
    prefix: tuple[int, ...]
    linears: dict[str, LinearParameters] = field(default_factory=dict)
    norms: dict[str, NormParameters] = field(default_factory=dict)
    epsilons: dict[str, int] = field(default_factory=dict)
    tables: dict[str, NDArray[np.int16]] = field(default_factory=dict)
    scores: dict[str, tuple[Ints, Ints, Ints, Ints]] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    streams: dict[str, float] = field(default_factory=dict)
    keys: dict[str, NDArray[np.int8]] = field(default_factory=dict)
    values: dict[str, NDArray[np.int8]] = field(default_factory=dict)
    logit_scale: float = 1.0
    exact_head: LinearParameters | None = None
