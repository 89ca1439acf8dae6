"""Prompt look-up: drafts of the next tokens from the text itself, which rows of a tile that are idle verify.

Greedy text repeats what stands before it: names, code, what a question asked about. Where the last tokens stood before,
those that followed them are a draft. A decoder computes a draft's tokens together with the one before them, for one
reading of its weights, and as many as the greedy choice agrees with are kept: the text is the same.

The method is prompt look-up decoding (A. Saxena, 2023), a form of speculative decoding (Leviathan et al., 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LONGEST", "looked_up"]

LONGEST = 3
"""Last tokens that are looked for, at most."""


def looked_up(ids: Sequence[int], most: int) -> list[int]:
    """At most so many tokens that followed the last ones where these stood before; none if they did not.

    The longest ending counts, of `LONGEST` tokens at most, and of its places the last one.
    """
    ids = list(ids)
    for count in range(min(LONGEST, len(ids) - 1), 0, -1):
        ending = ids[-count:]
        for start in range(len(ids) - count - 1, -1, -1):
            if ids[start : start + count] == ending:
                return ids[start + count :][:most]
    return []
