"""What a SoC's program runs: a small encoder and its inputs, and the checksums that must come."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sta_hw.compiler.contract import INPUTS_HEADER_BYTES, inputs_file, raw_files
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.small import TOKENS, small_encoder
from sta_hw.reference.program import run_program
from sta_hw.spec.config import Config

__all__ = ["Example", "example"]


@dataclass(frozen=True)
class Example:
    """A small encoder with inputs.

    Attributes
    ----------
    files : dict
        What `compile_firmware` takes.
    checksums : list of (int, int)
        For each input the CRC-32 of the result and of the memory after the run, by the numpy reference.
    """

    files: dict[str, bytes | str]
    checksums: list[tuple[int, int]]


def example(config: Config, inputs: int = 2) -> Example:
    """The small encoder of a configuration, with random inputs, and what must come."""
    model = small_encoder(config)
    rng = np.random.default_rng(16)
    given = [rng.integers(-3000, 3000, (TOKENS, model.hidden)).astype(np.float32) for _ in range(inputs)]
    files = {f"image{path.suffix}": content for path, content in raw_files(model, Path("image.npz")).items()}
    files["image.inputs"] = data = inputs_file(model, [[values] for values in given])
    image, checksums = model.image, []
    for run in np.frombuffer(data[INPUTS_HEADER_BYTES:], np.uint8).reshape(inputs, -1):
        length, placed = int(run[:4].view("<u4")[0]), run[4:]
        image = image.copy()  # a run begins with the memory that the one before left
        image[model.input_address :][: len(placed)] = placed
        image = run_program(image, model.program_address, config, length=length)
        checksums.append((zlib.crc32(_pooled(model, image)), zlib.crc32(image.tobytes())))
    return Example(files, checksums)


def _pooled(model: CompiledModel, image: NDArray[np.uint8]) -> bytes:
    """The pooled output of the one text, in 16 bits."""
    rows = model.config.rows
    return image[model.output_address :].view("<i2")[: model.hidden * rows : rows].tobytes()
