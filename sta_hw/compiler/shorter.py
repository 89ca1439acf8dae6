"""A program for a text of fewer tokens than it was compiled for: what its host changes before the run.

Rows behind the text are computed as others are, whatever they hold; but no token attends to them (register LENGTH), and
no pooling takes them. So a text's result is the same, to the bit, whatever lies there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..formats.provenance import bytes_digest
from .model import CompiledModel
from .packing import Packing, Place, window_rows

__all__ = ["mean_windows", "shortened", "smallest", "takes_shorter"]


def takes_shorter(model: CompiledModel) -> bool:
    """Whether the program is one that `shortened` takes: of one text."""
    return len(model.packing.texts) == 1


def shortened(model: CompiledModel, tokens: int) -> CompiledModel:
    """The same program with what the host writes for a shorter text: its length, and the windows of a mean.

    A mean's parameters stay: they divide by the length that was compiled for, so the windows hold the whole number
    nearest below that over `tokens`, and the result has the share that is left (`Packing.share`).

    Raises
    ------
    InputError
        If the text is longer than the program's, or the program is a batch's.
    """
    if not takes_shorter(model):
        raise InputError(f"the program is for a batch of {len(model.packing.texts)} texts of certain lengths.")
    if not 1 <= tokens <= model.tokens:
        raise InputError(f"the program takes up to {model.tokens} tokens, not {tokens}.")
    if tokens == model.tokens:
        return model
    model.verify()
    image, mean = model.image, model.info.mean_windows
    both = Packing(model.config.rows, (Place(0, tokens), Place(tokens, model.tokens)))  # the longest is what it was
    text = both.texts[0]
    if mean:
        image = image.copy()
        windows = mean_windows(model, tokens).reshape(-1)
        image[mean[0] : mean[0] + len(windows)] = windows
    share = tokens / model.tokens
    # Every layer's work is its tokens', but attention's is that of pairs of them.
    layers = tuple(
        dataclasses.replace(row, work=row.work * (share**2 if row.bytes == 0 else share)) for row in model.info.layers
    )
    info = dataclasses.replace(
        model.info, layers=layers, ideal_cycles=sum(row.work for row in layers) / model.config.macs,
        pooled_shares=(both.share(text) if mean else 1.0,),
    )  # fmt: skip
    return dataclasses.replace(
        model, tokens=tokens, texts=(text,), image=image, info=info,
        checksum=None if model.checksum is None else bytes_digest(image),
    )  # fmt: skip


def smallest(programs: Sequence[CompiledModel], tokens: int) -> int:
    """Which of several programs runs a text of so many tokens in the fewest rows: its number.

    Raises
    ------
    InputError
        If the text is longer than every one's; the sentence has their sizes. Those of batches are none for a text.
    """
    sizes = {number: p.tokens for number, p in enumerate(programs) if takes_shorter(p)}
    if not sizes:
        raise InputError(f"all programs are for batches of texts; compile one for a text of {tokens} tokens.")
    suited = [number for number, size in sizes.items() if size >= tokens]
    if not suited:
        taken = ", ".join(map(str, sorted(set(sizes.values()))))
        raise InputError(
            f"the input has {tokens} tokens, and there are programs for up to {taken}; compile a larger one."
        )
    return min(suited, key=lambda number: sizes[number])


def mean_windows(model: CompiledModel, tokens: int) -> NDArray[np.uint8]:
    """The windows of a program's mean for a text of so many tokens: shape (positions, rows)."""
    assert model.info.mean_windows is not None
    _, depth, blocks = model.info.mean_windows
    rows = model.config.rows
    weight = Packing(rows, (Place(0, tokens), Place(tokens, model.tokens))).weight(Place(0, tokens))
    chosen = window_rows(model.config.groups, depth, blocks) < tokens
    return np.repeat(np.where(chosen, weight, 0).astype(np.uint8)[:, None], rows, axis=1)
