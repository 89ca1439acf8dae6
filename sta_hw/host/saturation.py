"""What saturated in a run: the counters, and what a user is told of them."""

from __future__ import annotations

from collections.abc import Mapping

from ..compiler.model import CompiledModel, Embedded
from ..errors import CheckError
from ..spec.registers import SATURATIONS

__all__ = ["compare_saturations", "counted", "saturation_sentences"]

_UNSEEN = "calibration saw no such text, and its answer may be wrong."
_WORDS = {
    "saturated_inputs": "values of the input",
    "saturated_scores": "groups of attention scores",
    "saturated_sums": "groups of residual sums",
    "saturated_norms": "groups of LayerNorm's results",
}


def counted(counters: Mapping[str, int], model: CompiledModel, embedded: Embedded) -> dict[str, int]:
    """The counters of values at an end of their range, and how many of the input were clipped by the host."""
    return {
        **{name: int(counters[name]) for name in SATURATIONS},
        "saturated_inputs": model.input_saturations(embedded),
    }


def compare_saturations(got: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Check that hardware and reference counted the same.

    Raises
    ------
    CheckError
        Naming the counters that differ.
    """
    wrong = [f"{n}: expected {expected[n]}, got {got[n]}" for n in expected if got[n] != expected[n]]
    if wrong:
        raise CheckError(f"counters differ: {'; '.join(wrong)}")


def saturation_sentences(saturated: Mapping[str, int]) -> list[str]:
    """A sentence for each kind of value that is not meant to saturate and did.

    8-bit results are meant to: their scales have the least squared error, which cuts off the largest.
    """
    return [
        f"{saturated[name]:,} {words} are at the end of their 16 bits: {_UNSEEN}"
        for name, words in _WORDS.items()
        if saturated.get(name)
    ]
