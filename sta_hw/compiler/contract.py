"""What a host needs to know of a compiled model, without sta-hw: the image's raw bytes, JSON, and a C header.

docs/image.md says what the fields mean.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats.provenance import GENERATOR, bytes_digest
from ..spec.c_header import c_prefix, configuration_rows, header_text
from ..spec.isa import HEADER_BYTES
from ..spec.registers import capabilities
from .model import CompiledModel, Embedded
from .parameters import POOL_FACTOR
from .shorter import shortened, takes_shorter

__all__ = [
    "FORMAT",
    "INPUTS_FORMAT",
    "INPUTS_HEADER_BYTES",
    "INPUTS_MAGIC",
    "Host",
    "contract_paths",
    "describe",
    "inputs_file",
    "raw_files",
]

FORMAT = 2
"""Version of the JSON."""
INPUTS_MAGIC = 0x49415453  # "STAI"
INPUTS_FORMAT = 2
INPUTS_HEADER_BYTES = 32
HASH_OFFSET = 16
"""Of the configuration's hash in a program's header."""


@dataclass(frozen=True)
class Host:
    """The host's half of a model.

    Attributes
    ----------
    before, after : list of str
        Operations that make the accelerator's input, and those that make the result from its output, a line each.
    takes : str
        Which of the outputs the latter begin with, ``pooled`` or ``outputs``.
    result : str
        What they give.
    """

    before: list[str]
    after: list[str]
    takes: str
    result: str


@dataclass(frozen=True)
class Tensor:
    """16-bit values in the image, in lines (of a token or of a text each) and channels.

    A line's value lies at ``offset + (line // rows) * tile + channel * column + (line % rows) * row``, in bytes.
    """

    offset: int
    lines: int
    channels: int
    rows: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return 2 * self.lines * self.channels

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        strides = {"tile": 2 * self.rows * self.channels, "column": 2 * self.rows, "row": 2}
        return {**asdict(self), "bytes": self.bytes, "type": "int16", "strides": strides}


def _tensors(model: CompiledModel) -> dict[str, Tensor]:
    rows = model.config.rows
    lines = model.packing.tiles * rows
    texts = math.ceil(len(model.packing.texts) / rows) * rows
    address, width, _ = model.info.buffers[model.info.outputs]
    return {
        "input": Tensor(model.input_address, lines, model.info.input_width, rows),
        "pooled": Tensor(model.output_address, texts, model.hidden, rows),
        "outputs": Tensor(address, lines, width, rows),
    }


def _mean(model: CompiledModel) -> tuple[int, int, int]:
    """Offset, bytes and depth of a mean's windows, which hold the weight of each token; zeros where there is none."""
    found = model.info.mean_windows
    if not found:
        return 0, 0, 0
    offset, depth, blocks = found
    return offset, blocks * model.config.groups * depth * model.config.rows, depth


def _checksum(model: CompiledModel) -> int:
    return zlib.crc32(model.image.tobytes())


def _texts(model: CompiledModel) -> list[tuple[int, int]]:
    """Each text's first line, and tokens."""
    return [(t.first, t.tokens) for t in model.packing.texts]


def _pooled_scales(model: CompiledModel) -> list[float]:
    """By what each text's pooled values are multiplied."""
    return [model.info.output_scale / POOL_FACTOR / share for share in model.info.pooled_shares]


def contract_paths(file: Path) -> dict[str, Path]:
    """The files beside a compiled model's, by what a user calls them.

    Raises
    ------
    InputError
        If nothing of its name can stand in a C macro.
    """
    c_prefix(file.stem)
    return {
        "the raw image": file.with_suffix(".bin"), "the image's JSON": file.with_suffix(".json"),
        "the image's C header": file.with_suffix(".h"),
    }  # fmt: skip


def describe(model: CompiledModel, name: str, host: Host | None = None) -> dict[str, Any]:
    """The JSON beside ``NAME.bin``, as JSON types."""
    config, tensors = model.config, _tensors(model)
    hardware = capabilities(config)
    burst = config.burst * config.bus_bytes
    scale = model.info.embedded_scale
    return {
        "format": FORMAT,
        "generator": GENERATOR,
        "image": {
            "file": f"{name}.bin", "bytes": len(model.image), "sha256": bytes_digest(model.image),
            "crc32": _checksum(model), "alignment": burst,
        },
        "hardware": {
            **{key: hardware[key] for key in ("id", "version", "hash_low", "hash_high", "shape", "memories")},
            "hash": f"{hardware['hash_high']:08x}{hardware['hash_low']:08x}",
            "rows": config.rows, "bus_bytes": config.bus_bytes, "burst_bytes": burst,
            "configuration": config.as_dict(),
        },
        "program": {
            "offset": model.program_address,
            "bytes": next(count for name, _, count in model.info.places if name == "program"),
            "instructions": len(model.instructions),
            "shorter_texts": takes_shorter(model),
        },
        "texts": [{"first": first, "tokens": tokens} for first, tokens in _texts(model)],
        "input": tensors["input"].as_dict() | {"scale": scale if scale else "each token"},
        "pooled": tensors["pooled"].as_dict() | {"scales": _pooled_scales(model)},
        "outputs": tensors["outputs"].as_dict() | {"scale": model.info.outputs_scale},
        "mean": dict(zip(("offset", "bytes", "depth"), _mean(model), strict=True)),
        "host": asdict(host) if host else None,
        "places": [{"name": n, "offset": offset, "bytes": count} for n, offset, count in model.info.places],
        "provenance": asdict(model.provenance) if model.provenance else None,
    }  # fmt: skip


def _header(model: CompiledModel, name: str) -> str:
    prefix, tensors, texts = c_prefix(name), _tensors(model), _texts(model)
    rows = configuration_rows(model.config)
    rows += [
        ("IMAGE_BYTES", f"{len(model.image)}u", "of the image"),
        ("IMAGE_CRC32", f"0x{_checksum(model):08X}u", "its checksum, as zlib counts"),
        ("PROGRAM_OFFSET", f"{model.program_address}u", "where the program begins, with its header"),
        ("PROGRAM_HEADER_BYTES", f"{HEADER_BYTES}u", "of its header"),
        ("PROGRAM_HASH_OFFSET", f"{HASH_OFFSET}u", "of the configuration's hash in the header"),
        ("TEXT_COUNT", f"{len(texts)}u", "texts in a run"),
        ("TEXT_TOKENS", f"{max(tokens for _, tokens in texts)}u", "tokens of the longest"),
        ("SHORTER_TEXTS", f"{int(takes_shorter(model))}u", "whether the image takes shorter texts (docs/image.md)"),
    ]
    for key, tensor in tensors.items():
        what = {"input": "input", "pooled": "pooled output", "outputs": "every token's output"}[key]
        rows += [
            (f"{key.upper()}_OFFSET", f"{tensor.offset}u", f"{what}: where it begins"),
            (f"{key.upper()}_BYTES", f"{tensor.bytes}u", f"{what}: all of it"),
            (f"{key.upper()}_LINES", f"{tensor.lines}u", f"{what}: lines"),
            (f"{key.upper()}_CHANNELS", f"{tensor.channels}u", f"{what}: channels of a line"),
            (f"{key.upper()}_ROWS", f"{tensor.rows}u", f"{what}: lines of a tile"),
        ]
    for part, value, what in zip(
        ("OFFSET", "BYTES", "DEPTH"),
        _mean(model),
        ("where they begin", "all; 0: there is no mean", "depth"),
        strict=True,
    ):
        rows.append((f"MEAN_{part}", f"{value}u", f"windows of a mean over a text's tokens: {what}"))
    scale = model.info.embedded_scale
    scales = ", ".join(repr(float(s)) for s in _pooled_scales(model))
    rows += [
        ("INPUT_SCALE", repr(float(scale)), "of the input; 0: each token has its own"),
        ("OUTPUTS_SCALE", repr(float(model.info.outputs_scale)), "of every token's output"),
        ("POOLED_SCALES", f"{{{scales}}}", "of the texts' pooled outputs"),
    ]
    places = ", ".join(f"{{{first}u, {tokens}u}}" for first, tokens in texts)
    views = ", ".join(f"{{{t.offset}u, {t.lines}u, {t.channels}u, {t.rows}u}}" for t in tensors.values())
    bodies = [
        "",
        "/* For sta_hw_load() of the driver, to initialize a variable outside of all functions with. In C++, which has",
        " * no arrays without a name: a variable initialized with TEXTS, and then one with IMAGE_OF that variable. */",
        f"#define {prefix}_TEXTS {{{places}}}",
        f"#define {prefix}_IMAGE {prefix}_IMAGE_OF((const struct sta_hw_text[]){prefix}_TEXTS)",
        f"#define {prefix}_IMAGE_OF(texts) {{ \\",
        f"    {prefix}_HASH, {prefix}_VERSION, {prefix}_IMAGE_BYTES, {prefix}_BURST_BYTES, {prefix}_IMAGE_CRC32, \\",
        f"    {prefix}_PROGRAM_OFFSET, {views}, \\",
        f"    {{{prefix}_MEAN_OFFSET, {prefix}_MEAN_BYTES, {prefix}_MEAN_DEPTH}}, {prefix}_TEXT_COUNT, texts }}",
    ]
    about = f"where things lie in {name}.bin, SHA-256 {bytes_digest(model.image)}"
    return header_text(about, f"STA_HW_{prefix}_IMAGE_{_checksum(model):08X}_H", prefix, rows, bodies)


def raw_files(model: CompiledModel, file: Path, host: Host | None = None) -> dict[Path, bytes | str]:
    """The contents of the files that `contract_paths` names."""
    image, description, header = contract_paths(file).values()
    name = os.fsencode(file.stem).decode("utf-8", "replace")  # in an ASCII locale a name's bytes come as surrogates
    return {
        image: model.image.tobytes(),
        description: json.dumps(describe(model, name, host), indent=2) + "\n",
        header: _header(model, name),
    }


def inputs_file(model: CompiledModel, inputs: Sequence[Embedded]) -> bytes:
    """A file of inputs for programs that drive the hardware: a header of 32 bytes; of each run length and input.

    Parameters
    ----------
    inputs : sequence of fp32 arrays of shape (tokens, width), or of lists of them
        For each run what `CompiledModel.with_input` takes, or, of a program of one text, a shorter one's; raises what
        that and `shortened` do.
    """
    if not inputs:
        raise InputError("there is no input; give at least one.")
    place = _tensors(model)["input"]
    words = [INPUTS_MAGIC, INPUTS_FORMAT, len(inputs), place.bytes, _checksum(model), 0, 0, 0]
    parts = [np.array(words, "<u4").tobytes()]
    for given in inputs:
        own = given[0] if isinstance(given, Sequence) and len(given) == 1 else given
        run = model if isinstance(own, Sequence) or not takes_shorter(model) else shortened(model, len(own))
        parts.append(np.array([run.length], "<u4").tobytes())
        parts.append(run.with_input(given)[place.offset : place.offset + place.bytes].tobytes())
    return b"".join(parts)
