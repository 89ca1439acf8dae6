"""A compiled model: memory image, program, and what reports need; kept in a file."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_bytes
from ..formats.provenance import GENERATOR, Provenance, bytes_digest
from ..spec.config import Config
from ..spec.isa import Instruction, disassemble
from .description import FORMAT, check_places, configuration, described_fields
from .embedded import quantize_embedded
from .parameters import POOL_FACTOR

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
    provenance : Provenance or None
        What it was compiled from, where that is a checkpoint.
    checksum : str or None
        SHA-256 of the image, where one was noted: of what came from a file or is to go into one.
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
    provenance: Provenance | None = None
    checksum: str | None = None

    def input_saturations(self, embedded: NDArray) -> int:
        """How many values of a sum of embeddings lie beyond the 16 bits that calibration gave them, and are clipped."""
        return quantize_embedded(embedded, self.info["embedded_scale"])[1]

    def with_input(self, embedded: NDArray) -> NDArray[np.uint8]:
        """A copy of the image with the sum of embeddings, fp32 of shape (tokens, hidden), in place.

        Raises
        ------
        InputError
            If it has another shape, is not finite, or a token's variance is beyond the hardware's LayerNorm; or if the
            image has changed (`verify`).
        """
        self.verify()
        rows, width = self.config.rows, self.info["input_width"]
        if embedded.shape != (self.tokens, width):
            raise InputError(f"the program takes {self.tokens} tokens of {width}, not {embedded.shape}.")
        tiles = math.ceil(self.tokens / rows)
        found, _ = quantize_embedded(embedded, self.info["embedded_scale"])
        # Rows that fill the last tile repeat its last token: they count as saturated where a real one does, only.
        padded = found[np.minimum(np.arange(tiles * rows), self.tokens - 1)]
        raw = padded.reshape(tiles, rows, width).transpose(0, 2, 1).astype("<i2")
        image = self.image.copy()
        data = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
        image[self.input_address : self.input_address + len(data)] = data
        return image

    def pooled(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The pooled output in an image after the run: shape (hidden,)."""
        size = 2 * self.hidden * self.config.rows
        raw = image[self.output_address : self.output_address + size].view("<i2").reshape(self.hidden, self.config.rows)
        return raw[:, 0].astype(np.float64) * self.info["output_scale"] / POOL_FACTOR

    def outputs(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Every token's output in an image after the run, from its 16 bits: shape (tokens, hidden)."""
        rows, (address, width, _) = self.config.rows, self.info["buffers"]["x16"]
        tiles = math.ceil(self.tokens / rows)
        raw = image[address : address + 2 * tiles * rows * width].view("<i2").reshape(tiles, width, rows)
        found = raw.transpose(0, 2, 1).reshape(tiles * rows, width)[: self.tokens]
        return found.astype(np.float64) * self.info["outputs_scale"]

    def output(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The pooled output with length 1, an embedding: shape (hidden,)."""
        pooled = self.pooled(image)
        return pooled / max(float(np.linalg.norm(pooled)), 1e-30)

    def verify(self) -> None:
        """Compare the image with its checksum, where it has one: every backend does before it runs.

        Raises
        ------
        InputError
            If they differ.
        """
        if self.checksum is not None and bytes_digest(self.image) != self.checksum:
            raise InputError(
                "the image's bytes are not those that were compiled: their checksum differs; compile it again."
            )

    def save(self, path: Path) -> None:
        """Write a file that `load` reads, or leave what was there."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content: a NumPy archive of the image, its description in JSON, and a checksum of both."""
        described = {
            "format": FORMAT, "generator": GENERATOR, "configuration": self.config.as_dict(), "hash": self.config.hash,
            "tokens": self.tokens, "hidden": self.hidden, "program_address": self.program_address,
            "input_address": self.input_address, "output_address": self.output_address, "labels": self.labels,
            "info": self.info, "provenance": asdict(self.provenance) if self.provenance else None,
            "image_sha256": bytes_digest(self.image),
        }  # fmt: skip
        text = json.dumps(described)
        file = io.BytesIO()
        np.savez_compressed(
            file, image=self.image, description=np.array(text), checksum=np.array(bytes_digest(text.encode()))
        )
        return file.getvalue()

    @staticmethod
    def load(path: Path, config: Config | None = None) -> CompiledModel:
        """Read a compiled model.

        Raises
        ------
        InputError
            If it is not one, is damaged, was written by another version, or was compiled for another configuration
            than `config`.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                image = file["image"]
                text = str(file["description"])
                checksum = str(file["checksum"]) if "checksum" in file.files else None
            described = json.loads(text)
            if not isinstance(described, dict):
                raise ValueError("its description is not an object")
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(f"{path} is not a compiled model: {' '.join(reason.split())[:300]}.") from error
        if described.get("format") != FORMAT:
            raise InputError(
                f"{path} was compiled by another version of sta-hw (format {described.get('format', 1)}, this reads "
                f"{FORMAT}); compile it again."
            )
        if checksum != bytes_digest(text.encode()):
            raise InputError(f"{path}: its description is not what was compiled (checksum); compile it again.")
        if image.dtype != np.uint8 or image.ndim != 1:
            raise InputError(f"{path}: its image is {image.dtype} of shape {image.shape}, not bytes; compile it again.")
        digest = described.get("image_sha256")
        if digest != bytes_digest(image):
            raise InputError(
                f"{path}: the image's bytes are not those that were compiled (checksum); compile it again."
            )
        try:
            own = configuration(described)
            fields = described_fields(described)
            check_places(fields, own, len(image))
            instructions = disassemble(image[fields["program_address"] :].tobytes(), own)
            if len(instructions) != len(fields["labels"]):
                raise ValueError(f"it has {len(instructions)} instructions and {len(fields['labels'])} labels")
        except (ValueError, InputError) as error:
            raise InputError(f"{path} is malformed: {str(error).rstrip('.')}; compile it again.") from error
        if config is not None and own.hash != config.hash:
            raise InputError(f"{path} was compiled for hardware {own.hash}, not {config.hash}; compile it again.")
        return CompiledModel(config=own, image=image, instructions=instructions, checksum=digest, **fields)
