"""Cycles of an encoder of a shape: its program in outline, followed by the cycle model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..cycles.machine import estimate_cycles
from ..cycles.timing import MachineTiming
from ..spec.config import Config
from ..spec.isa import program_bytes
from ..spec.patterns import Pattern
from .outline import outline_encoder, shape_program
from .packing import Packing
from .roll import roll

__all__ = ["Estimate", "estimate_encoder"]


@dataclass(frozen=True)
class Estimate:
    """Cycles of a shape.

    Attributes
    ----------
    cycles, ideal_cycles : float
        Of the cycle model; of multiply-accumulates that N:M leaves over multipliers.
    problems : tuple of str
        Why no program of this shape can be compiled today, a sentence each; empty if one can.
    image_bytes : float
        Of its memory image: weights, parameters, activations, program; the latter without loops, so it has no more.
    flat_bytes : float
        Of that program; `rolled_bytes` has what it takes with loops.
    """

    cycles: float
    ideal_cycles: float
    problems: tuple[str, ...] = ()
    image_bytes: float = 0.0
    flat_bytes: float = 0.0


def estimate_encoder(
    hidden: int, heads: int, layers: int, intermediate: int, patterns: Mapping[str, Pattern],
    config: Config, tokens: int | Packing, timing: MachineTiming | None = None, *, alike: bool = False,
) -> Estimate:  # fmt: skip
    """Estimate an encoder of a shape; its size, and a text's, do not matter for the time this takes.

    Parameters
    ----------
    patterns : mapping of linear operations' names to Pattern
        Those that are not in it are dense.
    tokens : int or Packing
        Of a text, or a batch.
    alike : bool
        All layers have the patterns of the first one.

    Raises
    ------
    InputError
        For what no number of tokens would make fit.
    """
    outline = outline_encoder(hidden, heads, layers, intermediate, patterns, config, tokens, alike=alike)
    cycles = estimate_cycles(outline.instructions, config, timing, outline.weights)
    return Estimate(cycles, outline.ideal_cycles, outline.problems, outline.image_bytes, outline.flat_bytes)


def rolled_bytes(
    hidden: int, heads: int, layers: int, intermediate: int, patterns: Mapping[str, Pattern], config: Config,
    tokens: int,
) -> int:  # fmt: skip
    """Bytes that the program of an encoder takes in its image, which compiling it whole gives, but for its weights."""
    instructions, _ = roll(shape_program(hidden, heads, layers, intermediate, patterns, config, tokens))
    align = max(64, config.burst * config.bus_bytes)
    return -(-program_bytes(instructions) // align) * align
