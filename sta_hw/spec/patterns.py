"""N:M sparsity patterns: what they are, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

__all__ = ["DENSE", "SUPPORTED_M", "Pattern", "listed", "parse_nm"]

SUPPORTED_M = (2, 4, 8, 16, 32)
"""Group sizes M of the N:M formats."""


@dataclass(frozen=True, order=True)
class Pattern:
    """An N:M sparsity pattern: at most `n` non-zeros in every `m` consecutive weights.

    Dense weights are the pattern 1:1.
    """

    n: int
    m: int

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
    word = text.strip().lower()
    if word == "dense":
        return DENSE
    n_text, colon, m_text = word.partition(":")
    if not colon or not all(part.isascii() and part.isdigit() for part in (n_text, m_text)):
        raise ConfigError([f"N:M pattern {text!r} is not of the form N:M; write for example 2:4, or dense."])
    n, m = (int(part) if len(part) < 10 else 10**9 for part in (n_text, m_text))
    if m not in SUPPORTED_M:
        nearest = min(SUPPORTED_M, key=lambda c: (abs(c - m), c))
        raise ConfigError(
            [f"M = {m} (in {text}) is not supported; M is one of {listed(SUPPORTED_M)}, the nearest is {nearest}."]
        )
    if not 1 <= n <= m:
        nearest = min(max(n, 1), m)
        raise ConfigError([f"N = {n} (in {text}) is out of range; 1 <= N <= M, the nearest is {nearest}:{m}."])
    return Pattern(n, m)


def listed(values: Sequence[Any]) -> str:
    """Words as a sentence has them: ``2, 4 or 8``."""
    words = [str(v) for v in values]
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]
