"""Benchmark of decoding with weights of 4 bits in blocks, the head's too: bytes and cycles of a token, on RTL."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..compiler.decoder.integers import ROLES, WIDE, IntegerDecoderGraph, Rules
from ..compiler.decoder.program import compile_decoder
from ..compiler.decoder.quantize import quantize_decoder
from ..compiler.decoder.traffic import least_traffic
from ..model.graph import Graph
from ..run.machines import Machine, RtlMachine
from ..spec.config import Config
from ..spec.presets import PRESETS
from ..tasks.decoder_texts import calibration_texts
from ..tasks.text import load_text_model
from .decode import first_layers, stored_in_all
from .report import Figure, Report

__all__ = ["run", "token_rows"]

_CONTEXTS = (128, 512)
_CALIBRATION = 64
"""Tokens of the one text that scales are made for: neither cycles nor bytes depend on them."""
_LAYERS = (1, 2)

Counts = dict[str, int]


def _counted(machine: Machine, of: IntegerDecoderGraph) -> list[Counts]:
    """Cycles and bytes of a token at each context, of a network as it is."""
    config = machine.config
    compiled = compile_decoder(of, config, max(_CONTEXTS), best=True)
    machine.load(compiled.image)
    found = []
    for context in _CONTEXTS:
        number = compiled.number(context - 1, 1)
        cycles, counters = machine.run(compiled.programs[number], 1, context - 1, compiled.labels[number])
        assert cycles is not None
        moved = {name: counters[f"{name}_beats"] * config.bus_bytes for name in ("read", "write")}
        found.append({"cycles": cycles, "read_bytes": moved["read"], "written_bytes": moved["write"]})
    return found


def _rows(
    config: Config, graph: Graph, of: IntegerDecoderGraph, counts: list[list[Counts]], activations: int
) -> list[dict[str, float]]:
    """Of all layers, where one and two were counted, and how the first ones' products lie in memory is known."""
    stored, rows = stored_in_all(graph, of, config), []
    for number, context in enumerate(_CONTEXTS):
        one, two = (some[number] for some in counts)
        all_layers = {name: one[name] + (graph.layers - 1) * (two[name] - one[name]) for name in one}
        least = least_traffic(graph, context - 1, stored=stored, best=True).total
        bandwidth = least / (all_layers["cycles"] * config.bus_bytes)
        rows.append({"context": context, "activations": activations, **all_layers, "least_bytes": least,
                     "bandwidth": bandwidth})  # fmt: skip
    return rows


def token_rows(
    machine: Machine, widths: Mapping[int, frozenset[str]], report: Callable[[str], None] = lambda _: None
) -> list[dict[str, float]]:
    """Cycles and bytes of a token of SmolLM2-135M-Instruct in its file's own blocks, at each context.

    As with `bench decode`, one and two layers run with the head; a layer's cycles and bytes count for all others.

    Parameters
    ----------
    machine : Machine
        The hardware, which counts cycles, and its memory.
    widths : mapping of int to frozenset of str
        Bits of activations (8, 15), and the roles whose products have 15.
    """
    config = machine.config
    report("loading the model")
    model = load_text_model()
    whole, texts = model.language.graph, [t[:_CALIBRATION] for t in calibration_texts(model.language, count=1)]
    rows = []
    for activations, wide in widths.items():
        rules = Rules(wide, config.groups * config.window, config.groups, frozenset(ROLES))
        counts = []
        for layers in _LAYERS:
            report(f"{layers} layers, activations of {activations} bits")
            of = quantize_decoder(first_layers(whole, layers), texts, list(model.language.begin), rules)
            counts.append(_counted(machine, of))
        rows += _rows(config, whole, of, counts, activations)
    return rows


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """SmolLM2-135M-Instruct in its file's own blocks, with a head in 4 bits that lists the 8 likeliest tokens."""
    config = PRESETS["decoder"]
    rows, figures = token_rows(RtlMachine(config), {8: frozenset(), 15: WIDE}, report), []
    for row in rows:
        name = f"context {row['context']}, activations of {row['activations']} bits"
        moved = row["read_bytes"] + row["written_bytes"]
        figures += [
            Figure(f"{name}: share of the memory's bandwidth", row["bandwidth"], "1", ">= 0.90"),
            Figure(f"{name}: bytes moved for a token", moved, "B", "<= 80e6"),
            Figure(f"{name}: cycles of a token", row["cycles"], "cycles", "<= 11.2e6"),
        ]
    return Report("decode-blocks4", config, rows, figures)
