"""A compiled model: memory image, program, and what reports need; kept in a file."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..files import write_bytes
from ..isa import Instruction
from .embedded import quantize_embedded
from .quantize import POOL_FACTOR

__all__ = ["CompiledModel"]


@dataclass(frozen=True)
class CompiledModel:
    """A program with everything it needs, for one configuration and one number of tokens.

    Attributes
    ----------
    image : uint8 array
        The memory image; the input is written into it before a run.
    program_address, input_address, output_address : int
        Offsets in the image.
    labels : list of str
        What each instruction belongs to.
    info : dict
        For reports: per linear layer its N:M, encoding, tiles; the ideal cycles; scales.
    """

    config: Config
    tokens: int
    hidden: int
    image: NDArray[np.uint8]
    program_address: int
    input_address: int
    output_address: int
    instructions: list[Instruction]
    labels: list[str]
    info: dict[str, Any] = field(default_factory=dict)

    def input_saturations(self, embedded: NDArray) -> int:
        """How many values of a sum of embeddings lie beyond the 16 bits that calibration gave them, and are clipped."""
        return quantize_embedded(embedded, self.info["embedded_scale"])[1]

    def with_input(self, embedded: NDArray) -> NDArray[np.uint8]:
        """A copy of the image with the sum of embeddings, fp32 of shape (tokens, hidden), in place.

        Raises
        ------
        InputError
            If it has another shape, is not finite, or a token's variance is beyond the hardware's LayerNorm.
        """
        rows = self.config.rows
        if embedded.shape != (self.tokens, self.hidden):
            raise InputError(f"the program takes {self.tokens} tokens of {self.hidden}, not {embedded.shape}.")
        tiles = math.ceil(self.tokens / rows)
        found, _ = quantize_embedded(embedded, self.info["embedded_scale"])
        # Rows that fill the last tile repeat its last token: they count as saturated where a real one does, only.
        padded = found[np.minimum(np.arange(tiles * rows), self.tokens - 1)]
        raw = padded.reshape(tiles, rows, self.hidden).transpose(0, 2, 1).astype("<i2")
        image = self.image.copy()
        data = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
        image[self.input_address : self.input_address + len(data)] = data
        return image

    def pooled(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The pooled output in an image after the run: shape (hidden,)."""
        size = 2 * self.hidden * self.config.rows
        raw = image[self.output_address : self.output_address + size].view("<i2").reshape(self.hidden, self.config.rows)
        return raw[:, 0].astype(np.float64) * self.info["output_scale"] / POOL_FACTOR

    def output(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The pooled output with length 1, an embedding: shape (hidden,)."""
        pooled = self.pooled(image)
        return pooled / max(float(np.linalg.norm(pooled)), 1e-30)

    def save(self, path: Path) -> None:
        """Write a file that `load` reads, or leave what was there."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content."""
        described = {
            "configuration": self.config.as_dict(), "hash": self.config.hash, "tokens": self.tokens,
            "hidden": self.hidden, "program_address": self.program_address, "input_address": self.input_address,
            "output_address": self.output_address, "labels": self.labels, "info": self.info,
        }  # fmt: skip
        file = io.BytesIO()
        np.savez_compressed(file, image=self.image, description=np.array(json.dumps(described)))
        return file.getvalue()

    @staticmethod
    def load(path: Path, config: Config | None = None) -> CompiledModel:
        """Read a compiled model.

        Raises
        ------
        InputError
            If it is not one, or was compiled for another configuration than `config`.
        """
        from ..isa import disassemble

        try:
            with np.load(path, allow_pickle=False) as file:
                image = file["image"]
                described = json.loads(str(file["description"]))
        except Exception as error:
            raise InputError(f"{path} is not a compiled model: {error}.") from error
        own = Config(**described.pop("configuration"))
        if own.hash != described.pop("hash") or (config is not None and own.hash != config.hash):
            wanted = config.hash if config is not None else own.hash
            raise InputError(f"{path} was compiled for hardware {own.hash}, not {wanted}; compile it again.")
        instructions = disassemble(image[described["program_address"] :].tobytes(), own)
        return CompiledModel(config=own, image=image, instructions=instructions, **described)
