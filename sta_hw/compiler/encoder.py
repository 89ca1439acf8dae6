"""An encoder becomes a memory image: weights, parameters, buffers and the program that runs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..model.bert import LINEAR_NAMES
from ..spec.config import Config
from ..spec.isa import HEADER_BYTES, INSTRUCTION_BYTES, Result, assemble
from .limits import require_program, require_shape
from .lower.attention import attention
from .lower.linear import linear
from .lower.norm import interleave_norms, norm, projected
from .lower.pool import pool
from .lower.state import WIDE, EncodedWeights, Lowering
from .model import CompiledModel
from .packing import Packing
from .parameters import LinearParameters, QuantizedEncoder
from .schedule import schedule

__all__ = ["check_shape", "compile_encoder", "lower"]


def check_shape(encoder: QuantizedEncoder, config: Config, tokens: int) -> None:
    """Raise InputError, one sentence for each size that no accelerator of `config` has room for."""
    require_shape(
        config, tokens=tokens, layers=max(1, len(encoder.layers)), hidden=encoder.hidden, heads=encoder.heads,
        intermediate=encoder.intermediate,
    )  # fmt: skip
    width = encoder.projection[0].weights.shape[1] if encoder.projection else 0
    if width % config.groups:
        raise InputError(f"embedding size {width} is no multiple of groups = {config.groups}.")


def lower(low: Lowering) -> None:
    """All of an encoder's steps, loads and buffers, in order."""
    encoder, config = low.encoder, low.config
    size = encoder.hidden // encoder.heads
    # Keys are stored transposed in blocks of `groups` dimensions; this order meets the queries' windows.
    position = np.arange(size)
    within = position % config.groups * (size // config.groups) + position // config.groups
    order = np.concatenate([head * size + within for head in range(encoder.heads)])
    if encoder.projection:
        projected(low, encoder.embedding_norm, encoder.projection)
    else:
        norm(low, "embeddings", encoder.embedding_norm, "x", needs="", gives="x0")
    query, key, value, projection, first, second = LINEAR_NAMES
    # A sum that goes on as the residual stream lies where the next one is written; the LayerNorm between has read it.
    streams = ("sum", "sum") if encoder.norm_first else ("x16", "y16")
    for number, p in enumerate(encoder.layers):
        low.weight = low.layer_weights[number]
        k = p.linear[key]
        permuted = LinearParameters(
            k.weights[order], k.pattern, k.bias[order], k.multiplier[order], k.shift[order], k.second[order]
        )
        x, y = f"x{number}", f"y{number}"
        linear(low, f"{number}.{key}", permuted, "x8", Result.TRANSPOSE, "k", needs=x, gives=f"k{number}")
        linear(low, f"{number}.{value}", p.linear[value], "x8", Result.STORE8, "v", needs=x, gives=f"v{number}")
        linear(low, f"{number}.{query}", p.linear[query], "x8", Result.STORE8, "q", needs=x, gives=f"q{number}")
        attention(low, number, p)
        for label, parameters, source, residual, scales, target, needs, gives in (
            (projection, p.linear[projection], "c", streams[0], p.norm1, "y", f"c{number}", y),
            (second, p.linear[second], "f", streams[1], p.norm2, "x", f"f{number}", f"x{number + 1}"),
        ):
            if label == second:
                linear(low,
                    f"{number}.{first}", p.linear[first], "y8", Result.ACTIVATE, "f", needs=y, gives=f"f{number}",
                    table=p.table,
                )  # fmt: skip
            before = len(low.steps)
            linear(low,
                f"{number}.{label}", parameters, source, Result.RESIDUAL, "sum", needs=needs,
                gives=f"sum {label} {number}", residual=residual,
            )  # fmt: skip
            count = len(low.steps) - before
            norm(low, f"layer {number} norm", scales, target, needs=f"sum {label} {number}", gives=gives)
            interleave_norms(low, count)
    low.weight = 1.0
    pool(low, "x8", needs=f"x{len(encoder.layers)}")


def compile_encoder(
    encoder: QuantizedEncoder, config: Config, tokens: int | Sequence[int], encoded: EncodedWeights | None = None
) -> CompiledModel:
    """Compile for a text of so many tokens, or for a batch of texts, whose weights are read once for all.

    `encoded` keeps the encoded weights for the next program of the same encoder.

    Raises
    ------
    InputError
        For everything that does not fit, a sentence each, with what would.
    """
    packing = Packing.aligned([tokens] if isinstance(tokens, int) else tokens, config.rows)
    check_shape(encoder, config, packing.tokens)
    require_program(
        config, tokens=packing.tiles * config.rows, layers=len(encoder.layers), hidden=encoder.hidden,
        heads=encoder.heads, intermediate=encoder.intermediate,
    )  # fmt: skip
    low = Lowering(encoder, config, packing, encoded)
    lower(low)
    instructions, labels = schedule(low.steps, low.groups, config)
    program_address = low.image.reserve(HEADER_BYTES + INSTRUCTION_BYTES * len(instructions), "program")
    low.image.reserve(64, "unused")
    image = low.image.finish()
    program = np.frombuffer(assemble(instructions, config), np.uint8)
    image[program_address : program_address + len(program)] = program
    work = sum(layer["work"] for layer in low.layers)
    given = "embedded" if encoder.projection else "sum"
    return CompiledModel(
        config, packing.tokens, encoder.hidden, image, program_address, low.buffers[given], low.buffers["out"],
        instructions, labels,
        {
            "layers": low.layers,
            "buffers": {
                n: (a, low.widths.get(n, encoder.hidden), 2 if n in WIDE else 1) for n, a in low.buffers.items()
            },
            "input_width": low.widths.get(given, encoder.hidden),
            "places": low.image.places,
            "ideal_cycles": work / config.macs,
            "embedded_scale": encoder.embedded_scale, "output_scale": encoder.output_scale,
            "outputs_scale": encoder.layers[-1].norm2.wide_scale,
            "pooled_shares": [packing.share(t) if encoder.pooling == "mean" else 1.0 for t in packing.texts],
        },
        texts=packing.texts,
    )  # fmt: skip
