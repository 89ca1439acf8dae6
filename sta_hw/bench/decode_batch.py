"""Benchmark of a batch of sequences: tokens for a reading of all weights, and cycles of a token, on RTL."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

from ..compiler.decoder.integers import Rules
from ..compiler.decoder.program import compile_decoder
from ..compiler.decoder.quantize import quantize_decoder
from ..compiler.decoder.traffic import least_traffic
from ..model.graph import Graph
from ..run.batch_decoder import BatchDecoder
from ..run.decoder import ProgramDecoder
from ..run.machines import RtlMachine
from ..spec.presets import PRESETS
from ..tasks.decoder_texts import calibration_texts
from ..tasks.text import load_text_model
from ..tasks.together import Prompt, choose
from .decode import first_layers
from .report import Figure, Report

__all__ = ["run"]

_SEQUENCES = 4
_CONTEXT = 128
_TOKENS = 64
"""Of each sequence."""
_CALIBRATION = 64
"""Tokens of the one text that scales are made for: cycles do not depend on them."""
_LAYERS = (1, 2)
_BAR = ">= 3.5"


def _least_tokens(rows: int) -> float:
    """Tokens for a pass, prompts' own passes apart, of sequences of `_TOKENS` behind prompts of the worst lengths."""
    found = []
    for lengths in combinations_with_replacement(range(rows), _SEQUENCES):
        prompts = {n: Prompt(rows + length, 1) for n, length in enumerate(lengths)}
        left = [tokens for _, _, tokens in choose(prompts, range(_SEQUENCES), rows, None)]
        # A prompt's own pass gives a first token where nothing of it is left to the batch.
        found.append((_TOKENS * len(left) - left.count(0)) / (_TOKENS - 1 + max(left)))
    return min(found)


def _counted(machine: RtlMachine, graph: Graph, texts: list[list[int]], begin: list[int]) -> tuple[int, int]:
    """Cycles of a token alone, and of one of each sequence, of a network as it is."""
    config = machine.config
    of = quantize_decoder(graph, texts, begin, Rules(block=config.groups * config.window, groups=config.groups))
    compiled = compile_decoder(of, config, _CONTEXT, sequences=_SEQUENCES)
    batch = BatchDecoder(ProgramDecoder(of, compiled, machine))
    batch.decoders[0].length = _CONTEXT - 1
    batch.decoders[0].feed([begin[0]])
    for slot, decoder in enumerate(batch.decoders):
        decoder.length = _CONTEXT - _SEQUENCES + slot
    batch.step(dict.fromkeys(range(_SEQUENCES), begin[0]))
    one, several = (r.cycles for r in batch.runs)
    assert one is not None and several is not None
    return one, several


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """SmolLM2-135M-Instruct, INT8, four sequences of up to 128 tokens, in rows of one tile.

    As with `bench decode`, one and two layers run with the head; a layer's cycles count for all others.
    """
    config = PRESETS["decoder"]
    report("loading the model")
    model = load_text_model()
    whole, begin = model.language.graph, list(model.language.begin)
    texts = [t[:_CALIBRATION] for t in calibration_texts(model.language, count=1)]
    machine = RtlMachine(config)
    counts = []
    for layers in _LAYERS:
        report(f"{layers} layers")
        counts.append(_counted(machine, first_layers(whole, layers), texts, begin))
    one, several = (a + (whole.layers - 1) * (b - a) for a, b in zip(*counts, strict=True))
    rows: list[dict[str, object]] = []
    for sequences, cycles in ((1, one), (_SEQUENCES, several)):
        before = sum(range(_CONTEXT - sequences, _CONTEXT))
        least = least_traffic(whole, before, sequences).total
        rows.append({
            "sequences": sequences, "context": _CONTEXT, "cycles": cycles, "cycles_per_token": cycles / sequences,
            "least_bytes": least, "bandwidth": least / (cycles * config.bus_bytes), "layers": "1 and 2",
        })  # fmt: skip
    return Report("decode-batch", config, rows, [
        Figure(f"{_SEQUENCES} sequences of {_TOKENS} tokens, prompts of any lengths: tokens for a pass at least",
               _least_tokens(config.rows), "1", _BAR),
        Figure(f"batch of {_SEQUENCES}, context {_CONTEXT}: tokens in the cycles of one alone",
               _SEQUENCES * one / several, "1", _BAR),
    ])  # fmt: skip
