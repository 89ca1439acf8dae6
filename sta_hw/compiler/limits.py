"""What no program can hold: said from sizes alone, before any work, in the terms of whoever chose them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypedDict

from ..errors import InputError
from ..model.graph import Graph
from ..model.operations import Activate, Attention
from ..spec.config import Config
from ..spec.isa import Opcode, instruction_bytes, most_program_bytes
from ..spec.patterns import Pattern
from .schedule import RING_SHARE

__all__ = [
    "Sizes",
    "most",
    "require_program",
    "require_shape",
    "require_text",
    "run_columns",
    "shape_problems",
    "sizes_of",
]

_LAYERS, _TOKENS = 10_000, 1 << 20
"""Sizes of a model beyond which a question is a mistake."""
_TEXT = (1 << 16) - 1
"""Tokens of a text: what register LENGTH holds; the softmax's row sums hold one more."""
_IMAGE = 1 << 32
"""Bytes that an address of the instruction set reaches."""
_PRODUCTS = most_program_bytes() // instruction_bytes(Opcode.PRODUCT)
"""Products of the longest program."""


def run_columns(config: Config, size: int = 2) -> int:
    """Columns of a row tile, `size` bytes a row, that one run reads or writes at most: of fewer than 2^20 bus words."""
    return ((config.bus_bytes << 20) - 1) // (size * config.rows)


class Sizes(TypedDict):
    """A network's sizes, as these functions take them."""

    layers: int
    hidden: int
    heads: int
    intermediate: int


def sizes_of(graph: Graph) -> Sizes:
    """A graph's sizes: of its attention, and of what its activations take."""
    attentions = [o for o in graph.operations if isinstance(o, Attention)]
    hidden = int(graph.shapes[attentions[0].name][-1])
    inner = [int(graph.shapes[o.name][-1]) for o in graph.operations if isinstance(o, Activate)]
    return Sizes(layers=graph.layers, hidden=hidden, heads=attentions[0].heads, intermediate=max(inner, default=hidden))


def shape_problems(
    config: Config, *, tokens: int, layers: int, hidden: int, heads: int, intermediate: int,
    patterns: Mapping[str, Pattern] | None = None,
) -> list[str]:  # fmt: skip
    """One sentence for each size that the accelerator has no room for; `patterns` has the N:M of linear layers."""
    widest, passed = min((1 << 14) - 1, run_columns(config)), config.groups * config.window
    inner = min(1 << 20, run_columns(config, 1)) // passed * passed  # windows of whole passes
    sizes = {"tokens": (tokens, _TOKENS), "layers": (layers, _LAYERS), "hidden": (hidden, widest),
             "heads": (heads, hidden), "intermediate": (intermediate, inner)}  # fmt: skip
    problems = []
    for name, (value, high) in sizes.items():
        if not 1 <= value <= max(high, 1):
            why = " (LayerNorm's limit)" if name == "hidden" and value > 1 else ""
            nearest = min(max(value, 1), max(high, 1))
            problems.append(
                f"{name} = {value} is out of range; it is from 1 to {max(high, 1)}{why}, the nearest is {nearest}."
            )
    if problems:
        return problems
    if hidden % heads:
        divisors = [d for d in range(1, hidden + 1) if hidden % d == 0]
        fitting = [d for d in divisors if hidden // d % config.groups == 0 and hidden // d <= passed] or divisors
        nearest = min(fitting, key=lambda d: abs(d - heads))
        return [f"heads = {heads} does not divide hidden = {hidden}; the nearest is {nearest}."]
    size = hidden // heads
    whole = config.groups * config.window
    if size % config.groups or size > whole:
        most = math.gcd(size, 1 << 7)
        fitting = [1 << i for i in range(most.bit_length()) if size <= config.window << i]
        choice = f"groups = {min(fitting, key=lambda g: abs(g - config.groups))} would do" if fitting else (
            f"its largest power of two is {most}, which with window = {config.window} makes {most * config.window}"
        )  # fmt: skip
        problems.append(
            f"head dimension {size} does not fit: it must be a multiple of groups = {config.groups}, at most "
            f"groups x window = {whole}; {choice}."
        )
    if size > config.columns:
        problems.append(f"head dimension {size} exceeds columns = {config.columns}.")
    for label, width in (("hidden size", hidden), ("intermediate size", intermediate)):
        if width % config.groups:
            lower = max(1, round(width / config.groups)) * config.groups
            problems.append(f"{label} {width} is no multiple of groups = {config.groups}; the nearest is {lower}.")
    for name, pattern in (patterns or {}).items():
        reduction = intermediate if name.endswith("output.dense") and "attention" not in name else hidden
        words = config.groups * math.ceil(reduction / config.groups) * pattern.density
        if words > config.weight_words * RING_SHARE:
            wanted = 1 << (math.ceil(words / RING_SHARE) - 1).bit_length()
            problems.append(
                f"{name}: {config.groups} columns of {reduction} weights at {pattern} take {math.ceil(words)} words, "
                f"more than fits beside the next ones in weight_words = {config.weight_words}; {wanted} would do."
            )
    return problems


def require_shape(
    config: Config, *, tokens: int, layers: int, hidden: int, heads: int, intermediate: int,
    patterns: Mapping[str, Pattern] | None = None,
) -> None:  # fmt: skip
    """Raise InputError with everything that `shape_problems` finds, or ConfigError if `config` is no accelerator."""
    config.require_accelerator()
    problems = shape_problems(
        config, tokens=tokens, layers=layers, hidden=hidden, heads=heads, intermediate=intermediate, patterns=patterns
    )
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def require_text(tokens: int) -> None:
    """Raise InputError if a text is longer than attention's rows may be."""
    if tokens > _TEXT:
        raise InputError(
            f"a text of {tokens:,} tokens; the accelerator's length has 16 bits and its attention sums up no more: the "
            f"nearest is {_TEXT:,}."
        )


def require_program(
    config: Config, *, tokens: int, layers: int, hidden: int, heads: int, intermediate: int
) -> None:  # fmt: skip
    """Raise InputError if a program would have more products than there is room for, or too large an image.

    It has one for each head, tile of rows and block of keys, twice, and for each tile and linear layer.
    """

    rows = math.ceil(tokens / config.rows) * config.rows
    if rows * (13 * hidden + intermediate) > _IMAGE:
        fewer = _IMAGE // (13 * hidden + intermediate) // config.rows * config.rows
        raise InputError(
            f"the activations of {tokens} tokens take more than the 4 GiB that a program's addresses reach; with this "
            f"shape at most {fewer} tokens fit."
        )

    def products(tokens: int) -> int:
        tiles = math.ceil(tokens / config.rows)
        return layers * tiles * (2 * heads * math.ceil(tokens / (config.groups * config.window)) + 6)

    if products(tokens) >= _PRODUCTS:
        fewer = most(lambda n: products(n) < _PRODUCTS, tokens)
        advice = f"at most {fewer} tokens fit" if fewer else "take fewer layers"
        raise InputError(
            f"{layers} layers of {heads} heads with {tokens} tokens take {products(tokens):,} products, and a "
            f"program has room for {_PRODUCTS - 1:,}; {advice}, or hardware with more rows and groups."
        )


def most(fits: Callable[[int], bool], high: int) -> int:
    """The largest number from 0 to `high` that fits, where all smaller ones do."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
