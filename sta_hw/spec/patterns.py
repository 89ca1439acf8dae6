"""N:M sparsity patterns: what they are, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..arguments import whole
from ..errors import ConfigError

__all__ = ["DENSE", "SUPPORTED_M", "Pattern", "listed", "parse_nm", "patterns_in_order"]

SUPPORTED_M = (2, 4, 8, 16, 32)
"""Group sizes M of the N:M formats."""


def listed(values: Sequence[Any]) -> str:
    """Words as a sentence has them: ``2, 4 or 8``."""
    words = [str(v) for v in values]
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]


def _require(n: int, m: int, text: str, known: Sequence[int]) -> None:
    if m not in known:
        nearest = min(SUPPORTED_M, key=lambda c: (abs(c - m), c))
        raise ConfigError(
            [f"M = {m} (in {text}) is not supported; M is one of {listed(SUPPORTED_M)}, the nearest is {nearest}."]
        )
    if not 1 <= n <= m:
        nearest = min(max(n, 1), m)
        raise ConfigError([f"N = {n} (in {text}) is out of range; 1 <= N <= M, the nearest is {nearest}:{m}."])


@dataclass(frozen=True, order=True)
class Pattern:
    """An N:M sparsity pattern: at most `n` non-zeros in every `m` consecutive weights.

    Dense weights are the pattern 1:1.

    Raises
    ------
    InputError
        If N or M is no whole number.
    ConfigError
        If M is not supported, or N is not 1 to M.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole(self.n, "N"))
        object.__setattr__(self, "m", whole(self.m, "M"))
        _require(self.n, self.m, f"{self.n}:{self.m}", (1, *SUPPORTED_M))

    @property
    def dense(self) -> bool:
        """True when no weight is left out."""
        return self.n == self.m

    @property
    def density(self) -> float:
        """Share of weights kept, N / M."""
        return self.n / self.m

    def __str__(self) -> str:
        return "dense" if self.m == 1 else f"{self.n}:{self.m}"


DENSE = Pattern(1, 1)
"""All weights."""


def parse_nm(text: str) -> Pattern:
    """Read one pattern such as ``2:4`` or ``dense``.

    Raises
    ------
    ConfigError
        When `text` is not a pattern, M is not supported or N is out of range.
    """
    if not isinstance(text, str):
        raise ConfigError([f"N:M pattern {text!r} is no text; write for example 2:4, or dense."])
    word = text.strip().lower()
    if word == "dense":
        return DENSE
    n_text, colon, m_text = word.partition(":")
    if not colon or not all(part.isascii() and part.isdigit() for part in (n_text, m_text)):
        raise ConfigError([f"N:M pattern {text!r} is not of the form N:M; write for example 2:4, or dense."])
    n, m = (int(part) if len(part) < 10 else 10**9 for part in (n_text, m_text))
    _require(n, m, text, SUPPORTED_M)
    return Pattern(n, m)


def patterns_in_order(words: Sequence[str]) -> tuple[str, ...]:
    """Patterns in words as `str` gives them: sparse ones by M and N, dense last, each once; ``any`` ahead of them.

    Where a word is no pattern they are as they were given, for whoever refuses them.
    """
    try:
        found = {parse_nm(word) for word in words if word != "any"}
    except ConfigError:
        return tuple(words)
    return (*dict.fromkeys(w for w in words if w == "any"), *map(str, sorted(found, key=lambda p: (p.dense, p.m, p.n))))
