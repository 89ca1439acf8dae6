"""Parts of the hardware that a configuration has or leaves out: what encoders do not need costs them nothing."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ABILITIES", "ALL_OF_DECODERS", "FEATURES", "in_order"]

FEATURES = {
    "causal": "masks of one key more for each row",
    "rms": "RMSNorm, and an epsilon in both norms",
    "position": "register POSITION, and rows that are stored by it",
    "gate": "products of neighbouring columns, the first one through the table",
    "rotary": "rotation of neighbouring columns by their row's position",
    "best": "the 8 largest results of each row",
    "digits": "products of 15-bit activations, as two digits of 8 bits",
    "blocks4": "weights of 4 bits in blocks with a scale and a minimum",
}
"""Names and what they are."""
ABILITIES = {
    "windows": "window_words of more than 0",
    "apart": "more groups than rows",
    "wide_blocks": "feature blocks4 and 8 times the groups that a block of 32 weights takes",
}
"""What fields of instructions may need that is no feature, and the parameters that bring it (`Config.abilities`)."""
ALL_OF_DECODERS = "decoder"
"""Stands for all of them."""


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of `FEATURES`, each once, `decoder` spelled out; unknown ones last."""
    given = [name for word in names for name in (FEATURES if word == ALL_OF_DECODERS else (word,))]
    return tuple([name for name in FEATURES if name in given] + sorted({n for n in given if n not in FEATURES}))
