"""A program for a text of fewer tokens than it was compiled for: what its host changes before the run.

Rows behind the text are computed as others are, whatever they hold; but no token attends to them, and no pooling takes
them. So a text's result is the same, to the bit, whatever lies there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..formats.provenance import bytes_digest
from ..spec.isa import Instruction, Opcode, assemble
from .model import CompiledModel
from .packing import Packing, Place

__all__ = ["shortened", "takes_shorter"]


def takes_shorter(model: CompiledModel) -> bool:
    """Whether the program is one that `shortened` takes: of one text, and without loops."""
    return len(model.packing.texts) == 1 and not _has_loops(model)


def _has_loops(model: CompiledModel) -> bool:
    return any(i.opcode == Opcode.LOOP for i in model.instructions)


def shortened(model: CompiledModel, tokens: int) -> CompiledModel:
    """The same program with what the host writes for a shorter text: valid keys, and the windows of a mean.

    A mean's parameters stay: they divide by the length that was compiled for, so the windows hold the whole number
    nearest below that over `tokens`, and the result has the share that is left (`Packing.share`).

    Raises
    ------
    InputError
        If the text is longer than the program's, or the program is a batch's or has loops.
    """
    if len(model.packing.texts) != 1:
        raise InputError(f"the program is for a batch of {len(model.packing.texts)} texts of certain lengths.")
    if not 1 <= tokens <= model.tokens:
        raise InputError(f"the program takes up to {model.tokens} tokens, not {tokens}.")
    if tokens == model.tokens:
        return model
    if _has_loops(model):
        raise InputError(
            f"a program with loops runs texts of {model.tokens} tokens alone, and this one has {tokens}; compile it "
            f"with --tokens {tokens}, or without --loops."
        )
    model.verify()
    image = model.image.copy()
    instructions = list(_with_keys(model.instructions, tokens))
    program = np.frombuffer(assemble(instructions, model.config), np.uint8)
    image[model.program_address : model.program_address + len(program)] = program
    both = Packing(model.config.rows, (Place(0, tokens), Place(tokens, model.tokens)))  # the longest is what it was
    text = both.texts[0]
    mean = _write_windows(model, image, tokens, both.weight(text))
    info = dict(model.info)
    share = tokens / model.tokens
    # Every layer's work is its tokens', but attention's is that of pairs of them.
    info["layers"] = [
        row | {"work": row["work"] * (share**2 if row["bytes"] == 0 else share)} for row in info["layers"]
    ]
    info["ideal_cycles"] = sum(row["work"] for row in info["layers"]) / model.config.macs
    info["pooled_shares"] = [both.share(text) if mean else 1.0]
    return dataclasses.replace(
        model, tokens=tokens, texts=(text,), image=image, instructions=instructions, info=info,
        checksum=None if model.checksum is None else bytes_digest(image),
    )  # fmt: skip


def _with_keys(instructions: list[Instruction], tokens: int) -> Iterator[Instruction]:
    """Scores of the first `tokens` keys alone; a row's blocks follow one another."""
    first = 0
    for i in instructions:
        if i.opcode != Opcode.SCORES:
            yield i
            continue
        first = 0 if i["row_first"] else first
        keys = min(max(tokens - first, 0), i["columns"])
        first += i["columns"]
        yield Instruction(i.opcode, {**i.fields, "keys": keys})


def _write_windows(model: CompiledModel, image: NDArray[np.uint8], tokens: int, weight: int) -> bool:
    """The windows of the pooling, where that is a mean; whether it is."""
    rows, end = model.config.rows, model.output_address + 2 * model.hidden * model.config.rows
    pooling = next(
        i for i in model.instructions
        if i.opcode == Opcode.PRODUCT and model.output_address <= i["result_address"] < end
    )  # fmt: skip
    each, address = model.config.groups * pooling["depth"], pooling["window_address"]
    windows = image[address : address + pooling["passes"] * each * rows].reshape(-1, rows)
    if np.count_nonzero(windows[:, 0]) != model.tokens:
        return False  # the first token is chosen
    position = np.arange(len(windows))
    row = position // each * each + model.config.groups * (position % pooling["depth"])
    row += position % each // pooling["depth"]
    windows[:] = np.where(row < tokens, weight, 0)[:, None]
    return True
