"""Benchmark of decoding: bytes that a token needs, over what the memory could have moved in its cycles, on RTL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ..compiler.decoder.integers import Rules
from ..compiler.decoder.program import DecoderImage, compile_decoder
from ..compiler.decoder.quantize import quantize_decoder
from ..compiler.decoder.traffic import least_traffic, least_work, weight_bits
from ..formats.nm import prune
from ..model.graph import Graph, layer_of
from ..run.decoder import RtlMachine
from ..spec.config import Config
from ..spec.patterns import DENSE, Pattern
from ..spec.presets import PRESETS
from ..tasks.text import TextModel, calibration_texts, load_text_model
from .report import Figure, Report

__all__ = ["first_layers", "run", "run_full"]

_CONTEXTS = (128, 512)
_PROMPT = 128
_CALIBRATION = 64
"""Tokens of the one text that scales are made for where few layers run: cycles do not depend on them."""
_SPARSE_BAR = ">= 0.90"


def first_layers(graph: Graph, count: int) -> Graph:
    """The same network with so many of its layers: what the last one gives, the final norm takes."""
    kept = [o for o in graph.operations if (layer := layer_of(o.name)) is None or layer < count]
    there = {o.name for o in kept}
    last = [o.name for o in kept if layer_of(o.name) == count - 1][-1]
    changed = tuple(replace(o, inputs=tuple(i if i in there else last for i in o.inputs)) for o in kept)
    return replace(graph, operations=changed).verify()


def _with_logits(position: int, tokens: int) -> bool:
    """Those of a prompt are wanted behind its end."""
    return tokens == 1 or position + tokens == _PROMPT


def _pass(
    machine: RtlMachine, compiled: DecoderImage, position: int, tokens: int, report: Callable[[str], None]
) -> int:
    report(f"{tokens} tokens from position {position} on, on RTL")
    number = compiled.number(position, tokens, logits=_with_logits(position, tokens))
    cycles, _ = machine.run(compiled.programs[number], tokens, position, compiled.labels[number])
    assert cycles is not None
    return cycles


def _counted(
    config: Config, counts: Mapping[tuple[int, int], float], graph: Graph, how: str, pattern: Pattern,
    bits: Mapping[str, float],
) -> tuple[list[dict[str, object]], list[Figure]]:  # fmt: skip
    """Rows and figures of cycles, by position and tokens; `graph` has all layers, whose weights take so many bits."""
    rows, figures = [], []
    for (position, tokens), cycles in counts.items():
        least = least_traffic(graph, position, tokens, logits=_with_logits(position, tokens), bits=bits)
        share = least.total / (cycles * config.bus_bytes)
        rows.append({
            "context": position + tokens, "nm": str(pattern), "tokens": tokens, "cycles": round(cycles),
            "least_bytes": least.total, "weight_bytes": least.weights,
            "cache_bytes": least.cache_read + least.cache_written, "bandwidth": share, "layers": how,
        })  # fmt: skip
        if tokens == 1:
            name = f"context {position + 1}: share of the memory's bandwidth"
            bar = ">= 0.93" if pattern.dense else _SPARSE_BAR
            figures.append(Figure(name if pattern.dense else f"{pattern}, {name}", share, "1", bar))
    if prompt := sum(cycles for (_, tokens), cycles in counts.items() if tokens > 1):
        ideal = least_work(graph, 0, _PROMPT) / config.macs
        figures.append(Figure(f"prompt of {_PROMPT}: fraction of ideal", ideal / prompt, "1", ">= 0.92"))
    return rows, figures


def _positions(config: Config, pattern: Pattern) -> list[tuple[int, int]]:
    """Of dense weights single tokens and a prompt's tiles; of sparse ones the tokens alone."""
    prompt = [(first, config.rows) for first in range(0, _PROMPT, config.rows)] if pattern.dense else []
    return [*((context - 1, 1) for context in _CONTEXTS), *prompt]


def _pruned(graph: Graph, pattern: Pattern) -> tuple[Graph, dict[str, Pattern]]:
    """By magnitude, since cycles depend on the N:M alone; the head stays dense."""
    if pattern.dense:
        return graph, {}
    patterns = dict.fromkeys(graph.linears, pattern)
    return graph.with_weights({n: prune(graph.linears[n].weight, pattern) for n in patterns}), patterns


def run(report: Callable[[str], None] = lambda _: None, patterns: Sequence[Pattern] = (DENSE,)) -> Report:
    """One and two layers of SmolLM2-135M-Instruct on RTL, with its head; a layer's cycles count for all others.

    Of a prompt's tiles the last two are run, with and without logits, and the latter counts for all before it: they
    differ in addresses and masks alone.
    """
    config = PRESETS["decoder"]
    report("loading the model")
    model = load_text_model()
    machine = RtlMachine(config)
    rows, figures = [], []
    for pattern in patterns:
        found = _of_few_layers(model, machine, pattern, partial(_tell, report, str(pattern)))
        rows += found[0]
        figures += found[1]
    return Report("decode", config, rows, figures)


def _of_few_layers(
    model: TextModel, machine: RtlMachine, pattern: Pattern, report: Callable[[str], None]
) -> tuple[list[dict[str, object]], list[Figure]]:
    config, whole = machine.config, model.language.graph
    texts = [t[:_CALIBRATION] for t in calibration_texts(model.language, count=1)]
    rules = Rules(block=config.groups * config.window, groups=config.groups)
    positions = _positions(config, pattern)
    wanted = [p for p in positions if p[1] == 1 or p[0] >= _PROMPT - 2 * config.rows]
    found: list[dict[tuple[int, int], int]] = []
    bits: dict[str, float] = {}
    for layers in (1, 2):
        report(f"quantizing and compiling {layers} layers")
        graph, chosen = _pruned(first_layers(whole, layers), pattern)
        of = quantize_decoder(graph, texts, model.language.begin, rules, patterns=chosen)
        of_first = {n.partition(".")[2]: b for n, b in weight_bits(of.linears, config).items()}
        bits = {n: of_first[key] for n in whole.linears if (key := n.partition(".")[2]) in of_first}
        compiled = compile_decoder(of, config, max(_CONTEXTS))
        machine.load(compiled.image)
        told: Callable[[str], None] = partial(_tell, report, f"{layers} layers")
        found.append({p: _pass(machine, compiled, *p, told) for p in wanted})
    counts = {p: found[0][p] + (whole.layers - 1.0) * (found[1][p] - found[0][p]) for p in wanted}
    other = counts.get((_PROMPT - 2 * config.rows, config.rows), 0.0)
    counts = {p: counts.get(p, other) for p in positions}
    return _counted(config, counts, whole, "1 and 2", pattern, bits)


def run_full(report: Callable[[str], None] = lambda _: None, patterns: Sequence[Pattern] = (DENSE,)) -> Report:
    """The same with all layers, as they are: half an hour."""
    config = PRESETS["decoder"]
    report("loading the model")
    model = load_text_model()
    machine = RtlMachine(config)
    texts = calibration_texts(model.language)
    rules = Rules(block=config.groups * config.window, groups=config.groups)
    rows, figures = [], []
    for pattern in patterns:
        graph, chosen = _pruned(model.language.graph, pattern)
        of = quantize_decoder(graph, texts, model.language.begin, rules, report, chosen)
        compiled = compile_decoder(of, config, max(_CONTEXTS))
        machine.load(compiled.image)
        counts = {p: float(_pass(machine, compiled, *p, report)) for p in _positions(config, pattern)}
        found = _counted(config, counts, of.graph, "all", pattern, weight_bits(of.linears, config))
        rows += found[0]
        figures += found[1]
    return Report("decode", config, rows, figures)


def _tell(report: Callable[[str], None], of: str, what: str) -> None:
    report(f"{of}, {what}")
