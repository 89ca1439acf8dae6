"""Numbers a model cannot be computed with, named before anything runs: NaN, infinity, token ids without a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["LARGEST", "axes_of", "require_finite", "require_rows"]

LARGEST = float(np.finfo(np.float32).max)
"""The largest number of fp32, in which models are kept and calibrated."""
_AXES = {1: ("channel",), 2: ("row", "column"), 3: ("token", "row", "column")}
_NAMED = 8


def axes_of(values: NDArray) -> tuple[str, ...]:
    """What a tensor's axes are called in messages."""
    return _AXES.get(values.ndim, tuple(f"axis {i}" for i in range(values.ndim)))


def require_finite(tensors: Mapping[str, NDArray], where: str, axes: Sequence[str] = ()) -> None:
    """Check that no tensor has a NaN or an infinity.

    Parameters
    ----------
    tensors : arrays by name
    where : str
        What they belong to: begins the message.
    axes : names of the axes; rows and columns if not given

    Raises
    ------
    InputError
        One sentence for each of the first eight tensors that have some: name, place and value of the first, and how
        many there are.
    """
    problems = []
    for name, values in tensors.items():
        if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
            continue
        wrong = np.argwhere(~np.isfinite(values))
        first = tuple(int(i) for i in wrong[0])
        known = axes or axes_of(values)
        place = ", ".join(f"{axis} {i}" for axis, i in zip(known, first, strict=True)) or "its only element"
        more = f" ({len(wrong)} such values)" if len(wrong) > 1 else ""
        problems.append(
            f"{where}: {name}, {place}, is {values[first]}{more}; values must be finite, at most {LARGEST:.3g}."
        )
    if len(problems) > _NAMED:
        problems[_NAMED:] = [f"{where}: {len(problems) - _NAMED} more tensors have such values."]
    if problems:
        raise InputError("\n".join(problems))


def require_rows(ids: Sequence[int], table: str, words: int, positions: int | None) -> None:
    """Check that every token has an embedding, in the `table` of that name with so many rows.

    Raises
    ------
    InputError
        If a token's id is no row of the embedding table, or there are more tokens than positions; or none.
    """
    if not len(ids):
        raise InputError("the text has no tokens; there must be at least one.")
    if positions is not None and len(ids) > positions:
        raise InputError(f"the text has {len(ids)} tokens; the model takes {positions}.")
    for place, token in enumerate(ids):
        if not 0 <= token < words:
            raise InputError(
                f"token {place} of the text has the id {token}, but {table} has {words} "
                f"rows, 0 to {words - 1}; the tokenizer is another model's, or was extended without resizing the table."
            )
