"""A compiled model: memory image, program, and what reports need; kept in a file."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import require_file, write_bytes
from ..formats.provenance import GENERATOR, Provenance, bytes_digest
from ..spec.config import Config
from ..spec.expansion import expand, unroll
from ..spec.isa import Instruction, Opcode, disassemble
from .description import FORMAT, check_places, configuration, described_fields
from .embedded import quantize_embedded
from .info import ProgramInfo
from .packing import Packing, Place
from .parameters import POOL_FACTOR

__all__ = ["CompiledModel", "Embedded"]

Embedded = NDArray | Sequence[NDArray]
"""A text's sum of embeddings, fp32 of shape (tokens, hidden); of a batch, one for each text."""


@dataclass(frozen=True)
class CompiledModel:
    """A program with everything it needs, for one configuration and texts of certain lengths.

    Attributes
    ----------
    tokens : int
        Of all texts.
    texts : tuple of Place
        Where each lies; what its length is.
    image : uint8 array
        The memory image; the input is written into it before a run.
    program_address, input_address, output_address : int
        Offsets in the image.
    instructions : list of Instruction
        The program, with its loops if it has any.
    labels : list of str
        What each of them belongs to.
    info : ProgramInfo
        Scales, places, and figures for reports.
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
    info: ProgramInfo = field(default_factory=ProgramInfo)
    provenance: Provenance | None = None
    checksum: str | None = None
    texts: tuple[Place, ...] = ()

    @property
    def packing(self) -> Packing:
        """Where the texts lie."""
        return Packing(self.config.rows, self.texts or (Place(0, self.tokens),))

    @property
    def length(self) -> int:
        """What register LENGTH holds: the only text's tokens, behind which no key is valid; 0 for a batch."""
        return self.packing.texts[0].tokens if len(self.packing.texts) == 1 else 0

    def issued(self) -> list[tuple[Opcode, str]]:
        """What the units get, in order, loops run through: of each instruction its opcode and its label."""
        return [
            (found.instruction.opcode, self.labels[found.source])
            for found in unroll(self.instructions, self.config, self.length)
        ]

    def at_error(self, number: int) -> str:
        """Which instruction register ERROR_INSTRUCTION means, in words: all that it can be, as it counts modulo 2^16.

        Of more than four the first two and the last two are named.
        """
        issued = self.issued()
        found = [
            f"{at} ({issued[at][1]})" if at < len(issued) - 1 else f"{at} (the end of the program)"
            for at in range(number, max(len(issued), number + 1), 1 << 16)
        ]
        if len(found) == 1:
            return f"at instruction {found[0]}"
        if len(found) > 4:
            found = [*found[:2], "...", *found[-2:]]
        return f"at one of the instructions {', '.join(found)}: the hardware counts them modulo 65,536"

    def expanded(self) -> list[Instruction]:
        """Those instructions as the units see them; their numbers are what hardware and reference count."""
        return expand(self.instructions, self.config, self.length)

    def input_saturations(self, embedded: Embedded) -> int:
        """How many values of sums of embeddings lie beyond the 16 bits that calibration gave them, and are clipped."""
        given = embedded if isinstance(embedded, Sequence) else [embedded]
        return sum(quantize_embedded(e, self.info.embedded_scale)[1] for e in given)

    def with_input(self, embedded: Embedded) -> NDArray[np.uint8]:
        """A copy of the image with a text's sum of embeddings, fp32 of shape (tokens, hidden), or a batch's, in place.

        Raises
        ------
        InputError
            If it has another shape, is not finite, or a token's variance is beyond the hardware's LayerNorm; or if the
            image has changed (`verify`).
        """
        self.verify()
        packing, width = self.packing, self.info.input_width
        rows, tiles = packing.rows, packing.tiles
        given = embedded if isinstance(embedded, Sequence) else [embedded]
        if len(given) != len(packing.texts):
            raise InputError(f"the program takes {len(packing.texts)} texts, not {len(given)}.")
        found = np.zeros((tiles * rows, width), np.int64)
        for text, one in zip(packing.texts, given, strict=True):
            shape = getattr(one, "shape", type(one).__name__)
            if shape != (text.tokens, width):
                raise InputError(f"the program takes {text.tokens} tokens of {width}, not {shape}.")
            found[text.first : text.end], _ = quantize_embedded(one, self.info.embedded_scale)
        # Rows between texts repeat the token before them: they count as saturated where a real one does, only.
        padded = found[packing.filled]
        raw = padded.reshape(tiles, rows, width).transpose(0, 2, 1).astype("<i2")
        image = self.image.copy()
        data = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
        image[self.input_address : self.input_address + len(data)] = data
        return image

    def pooled(self, image: NDArray[np.uint8], text: int = 0) -> NDArray[np.float64]:
        """A text's pooled output in an image after the run: shape (hidden,)."""
        rows, size = self.config.rows, 2 * self.hidden * self.config.rows
        address = self.output_address + text // rows * size
        raw = image[address : address + size].view("<i2").reshape(self.hidden, rows)[:, text % rows]
        return raw.astype(np.float64) * self.info.output_scale / POOL_FACTOR / self.info.pooled_shares[text]

    def outputs(self, image: NDArray[np.uint8], text: int = 0) -> NDArray[np.float64]:
        """The outputs of a text's tokens in an image after the run, from their 16 bits: shape (tokens, hidden)."""
        packing, (address, width, _) = self.packing, self.info.buffers[self.info.outputs]
        rows, tiles, place = packing.rows, packing.tiles, packing.texts[text]
        raw = image[address : address + 2 * tiles * rows * width].view("<i2").reshape(tiles, width, rows)
        found = raw.transpose(0, 2, 1).reshape(tiles * rows, width)[place.first : place.end]
        return found.astype(np.float64) * self.info.outputs_scale

    def output(self, image: NDArray[np.uint8], text: int = 0) -> NDArray[np.float64]:
        """A text's pooled output with length 1, an embedding: shape (hidden,)."""
        pooled = self.pooled(image, text)
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
            "texts": [[t.first, t.tokens] for t in self.packing.texts], "info": self.info.as_dict(),
            "provenance": asdict(self.provenance) if self.provenance else None,
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
            require_file(path)
            with np.load(path, allow_pickle=False) as file:
                image = file["image"]
                text = str(file["description"])
                checksum = str(file["checksum"]) if "checksum" in file.files else None
            described = json.loads(text)
            if not isinstance(described, dict):
                raise ValueError("its description is not an object")
        except FileNotFoundError:
            raise InputError(f"there is no file {path}; sta-hw compile makes compiled models.") from None
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
        if config is not None and own.program_hash != config.program_hash:
            raise InputError(f"{path} was compiled for hardware {own.hash}, not {config.hash}; compile it again.")
        return CompiledModel(config=own, image=image, instructions=instructions, checksum=digest, **fields)
