"""What a model would take on hardware, for N:M choices and boards: cycles, time, memory, accuracy; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..compiler.limits import require_shape
from ..compiler.shape import Estimate, estimate_encoder, rolled_bytes
from ..cycles.timing import MachineTiming
from ..errors import InputError
from ..spec.config import Config
from ..spec.patterns import DENSE, Pattern

__all__ = ["Choice", "Shape", "Target", "judge", "plan"]

Patterns = Mapping[str, Pattern]


@dataclass(frozen=True)
class Shape:
    """An encoder's sizes, and how many tokens it is to take at a time."""

    hidden: int
    heads: int
    layers: int
    intermediate: int
    tokens: int


@dataclass(frozen=True)
class Target:
    """Hardware that a model may run on.

    Attributes
    ----------
    name : str
        Boards with the same configuration, clock and memory, or a preset.
    config : Config
    megahertz : float
        Of its clock.
    timing : MachineTiming
        Its memory.
    memory : int or None
        Bytes of its memory; None where that is not known.
    refusal : str
        Why it runs no model at all; empty if it does.
    """

    name: str
    config: Config
    megahertz: float
    timing: MachineTiming
    memory: int | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Choice:
    """One N:M on one target.

    Attributes
    ----------
    target, nm : str
    cycles : int or None
        By the cycle model; None where the shape has no program on this hardware.
    milliseconds : float or None
        At the target's clock.
    fraction_of_ideal : float or None
    speedup : float or None
        Over dense weights on the same hardware.
    bytes : int or None
        Of the memory image: weights, activations, program.
    cosine : float or None
        Mean over the inputs, with the dense model in fp32; None where that was not looked at.
    fits : bool
    problems : tuple of str
        Why not, a sentence each.
    """

    target: str
    nm: str
    cycles: int | None
    milliseconds: float | None
    fraction_of_ideal: float | None
    speedup: float | None
    bytes: int | None
    cosine: float | None
    fits: bool
    problems: tuple[str, ...]


def plan(
    shape: Shape, targets: Sequence[Target], choices: Mapping[str, Patterns], accuracy: Mapping[str, float],
    report: Callable[[str], None] = lambda _: None,
) -> list[Choice]:  # fmt: skip
    """A row for each target and N:M.

    Parameters
    ----------
    choices : mapping of str to patterns
        N:M of the linear layers, by what it is called.
    accuracy : mapping of str to float
        The mean cosine of each choice, where there is one.
    """
    rows = []
    for target in targets:
        dense, _ = _estimated(shape, target, {})
        for nm, patterns in choices.items():
            report(f"{target.name}, {nm}")
            rows.append(judge(shape, target, nm, patterns, dense=dense, cosine=accuracy.get(nm), exact=True))
    return rows


def judge(
    shape: Shape, target: Target, nm: str, patterns: Patterns, *, dense: Estimate | None = None,
    cosine: float | None = None, exact: bool = False,
) -> Choice:  # fmt: skip
    """One N:M, called `nm`, on one target; `dense` is what the speed-up is over, and `cosine` goes into the row.

    Bytes are those of a program without loops, which are the most it may take, or `exact`: that takes a second or two.
    Whether the memory holds them is always said of the exact ones.
    """
    found, problems = _estimated(shape, target, patterns)
    size = None if found is None else round(found.image_bytes)
    exact = exact or (size is not None and target.memory is not None and size > target.memory)
    if exact and found is not None and not found.problems:
        size = round(found.image_bytes - found.flat_bytes) + rolled_bytes(
            shape.hidden, shape.heads, shape.layers, shape.intermediate, patterns, target.config, shape.tokens
        )
    if size is not None and target.memory is not None and size > target.memory:
        problems = (*problems, f"its image takes {size:,} bytes, and the memory has {target.memory:,}.")
    cycles = None if found is None else round(found.cycles)
    return Choice(
        target.name, nm, cycles, None if cycles is None else cycles / target.megahertz / 1000,
        None if found is None else found.ideal_cycles / found.cycles,
        None if found is None or dense is None else dense.cycles / found.cycles,
        size, cosine, not problems, problems,
    )  # fmt: skip


def _estimated(shape: Shape, target: Target, patterns: Patterns) -> tuple[Estimate | None, tuple[str, ...]]:
    """Cycles of the model on a target, and why it cannot run there."""
    if target.refusal:
        return None, (target.refusal,)
    by_name: dict[str, list[Pattern]] = {}
    for name in patterns:
        rest = name.partition(".")[2]
        by_name[rest] = [patterns.get(f"{layer}.{rest}", DENSE) for layer in range(shape.layers)]
    alike = all(len(set(each)) == 1 for each in by_name.values())
    widest = {name: max(each, key=lambda p: p.density) for name, each in by_name.items()}
    try:
        require_shape(
            target.config, tokens=shape.tokens, layers=shape.layers, hidden=shape.hidden, heads=shape.heads,
            intermediate=shape.intermediate, patterns=widest,
        )  # fmt: skip
        for pattern in dict.fromkeys(patterns.values()):
            if not pattern.dense:
                target.config.require(pattern)
        found = estimate_encoder(
            shape.hidden, shape.heads, shape.layers, shape.intermediate, patterns, target.config, shape.tokens,
            target.timing, alike=alike,
        )  # fmt: skip
    except InputError as error:
        return None, tuple(str(error).splitlines())
    return found, found.problems
