"""A quantized graph becomes a memory image: weights, parameters, buffers and the program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ..errors import InputError
from ..model.graph import Graph
from ..model.operations import Activate, Attention, Mean
from ..spec.assembly import disassemble_text
from ..spec.config import Config
from ..spec.isa import assemble, program_bytes
from .info import ProgramInfo
from .integers import IntegerInput, IntegerOutput
from .limits import require_program, require_shape, require_text, sizes_of
from .liveness import check_liveness
from .lower import lower
from .lower.state import EncodedWeights, Lowering
from .model import CompiledModel
from .packing import Packing
from .passes import After, nothing
from .roll import roll
from .schedule import order, schedule

__all__ = ["check_shape", "compile_encoder"]


def check_shape(graph: Graph, config: Config, tokens: int) -> None:
    """Raise InputError, one sentence for each size that no accelerator of `config` has room for."""
    sizes = sizes_of(graph)
    # Layers need not be alike.
    heads = dict.fromkeys(o.heads for o in graph.operations if isinstance(o, Attention))
    inner = [int(graph.shapes[o.name][-1]) for o in graph.operations if isinstance(o, Activate)]
    for of_heads, intermediate in product(heads, dict.fromkeys(inner) or [sizes["hidden"]]):
        require_shape(
            config, tokens=tokens, layers=sizes["layers"], hidden=sizes["hidden"], heads=of_heads,
            intermediate=intermediate,
        )  # fmt: skip
    width = graph.shapes[graph.operations[0].name][-1]
    if int(width) % config.groups:
        raise InputError(f"embedding size {width} is no multiple of groups = {config.groups}.")


def _every_output(graph: Graph) -> str:
    """The value that is pooled: every token's output."""
    (last,) = graph.operations[-1].inputs
    return last if len(graph.shapes[last]) == 2 else graph.by_name[last].inputs[0]


def compile_encoder(
    graph: Graph, config: Config, tokens: int | Sequence[int] | Packing, encoded: EncodedWeights | None = None, *,
    loops: bool = True, after: After = nothing,
) -> CompiledModel:  # fmt: skip
    """Compile a quantized graph for a text of so many tokens, or for a batch of texts, whose weights are read once.

    With `loops`, the program is as small as its repetitions allow (`sta_hw.compiler.roll`), and takes no more cycles;
    else it is the flat list of instructions that the same stands for. `after` is called behind each pass: ``lower`` and
    ``schedule``.

    Numbers of tokens are lengths of texts in row tiles of their own, where each has the bits that it has alone.
    `encoded` keeps the encoded weights for the next program of the same graph.

    Raises
    ------
    InputError
        For everything that does not fit, a sentence each, with what would.
    """
    if isinstance(tokens, Packing):
        packing = tokens
    else:
        packing = Packing.aligned([tokens] if isinstance(tokens, int) else tokens, config.rows)
    check_shape(graph, config, packing.tokens)
    require_text(packing.longest)
    require_program(config, tokens=packing.tiles * config.rows, **sizes_of(graph))
    low = Lowering(graph, config, packing, encoded)
    lower(low)
    after("lower", low)
    if loops:
        instructions, labels = roll(order(low.steps, low.groups, config, even=True))
    else:
        instructions, labels = schedule(low.steps, low.groups, config)
    check_liveness(instructions, config)
    after("schedule", disassemble_text(instructions, labels))
    program_address = low.image.reserve(program_bytes(instructions), "program")
    low.image.reserve(64, "unused")
    image = low.image.finish()
    program = np.frombuffer(assemble(instructions, config), np.uint8)
    image[program_address : program_address + len(program)] = program
    work = sum(layer.work for layer in low.layers)
    begins, result = graph.operations[0], graph.operations[-1]
    assert isinstance(begins, IntegerInput) and isinstance(result, IntegerOutput)
    every, pools_mean = _every_output(graph), isinstance(graph.by_name[result.inputs[0]], Mean)
    pooled = low.places[low.wide[result.name if every == result.inputs[0] else result.inputs[0]]]
    return CompiledModel(
        config, packing.tokens, pooled.width, image, program_address, low.buffers[low.wide[begins.name]],
        low.buffers[pooled.name], instructions, labels,
        ProgramInfo(
            layers=tuple(low.layers),
            buffers={b.name: (low.buffers[b.name], b.width, b.size) for b in low.places.values()},
            values=low.values,
            mean_windows=low.mean_windows,
            places=tuple(low.image.places),
            outputs=low.wide[every],
            input_width=low.places[low.wide[begins.name]].width,
            ideal_cycles=work / config.macs,
            embedded_scale=begins.scale, output_scale=result.scale, outputs_scale=result.wide_scale,
            pooled_shares=tuple(packing.share(t) if pools_mean else 1.0 for t in packing.texts),
        ),
        texts=packing.texts,
    )  # fmt: skip
