"""Benchmark of decoding: bytes that a token needs, over what the memory could have moved in its cycles, on RTL.

And of a prompt: multiplications that it needs, over what the multipliers could have done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..compiler.decoder.integers import WIDE, IntegerDecoderGraph, Rules
from ..compiler.decoder.program import DecoderImage, compile_decoder
from ..compiler.decoder.quantize import quantize_decoder
from ..compiler.decoder.traffic import Stored, least_traffic, least_work, stored_sizes
from ..cycles.machine import estimate_cycles
from ..cycles.timing import MachineTiming
from ..formats.nm import prune
from ..model.graph import Graph, layer_of
from ..model.operations import Linear
from ..run.machines import RtlMachine
from ..spec.config import Config
from ..spec.isa import disassemble
from ..spec.patterns import DENSE, Pattern
from ..spec.presets import PRESETS
from ..tasks.decoder_texts import calibration_texts
from ..tasks.text import TextModel, load_text_model
from .report import Figure, Report

__all__ = ["estimated_token", "first_layers", "run", "run_full", "stored_in_all", "token_of_table"]

_CONTEXTS = (128, 512)
_PROMPT = 128
_CALIBRATION = 64
"""Tokens of the one text that scales are made for where few layers run: cycles do not depend on them."""
_SPARSE_BAR = ">= 0.90"
_ACTIVATIONS = {8: frozenset[str](), 15: WIDE}
"""Products that take 15 bits, where a model has them."""


@dataclass(frozen=True)
class _Pass:
    position: int
    tokens: int
    logits: bool


def first_layers(graph: Graph, count: int) -> Graph:
    """The same network with so many of its layers: what the last one gives, the final norm takes."""
    kept = [o for o in graph.operations if (layer := layer_of(o.name)) is None or layer < count]
    there = {o.name for o in kept}
    last = [o.name for o in kept if layer_of(o.name) == count - 1][-1]
    changed = tuple(replace(o, inputs=tuple(i if i in there else last for i in o.inputs)) for o in kept)
    return replace(graph, operations=changed).verify()


def _run(machine: RtlMachine, compiled: DecoderImage, part: _Pass, report: Callable[[str], None]) -> int:
    report(f"{part.tokens} tokens from position {part.position} on, on RTL")
    number = compiled.number(part.position, part.tokens, logits=part.logits)
    length = compiled.length(part.position, part.tokens)
    cycles, _ = machine.run(compiled.programs[number], length, part.position, compiled.labels[number])
    assert cycles is not None
    return cycles


def _passes(compiled: DecoderImage, pattern: Pattern, bits: int) -> list[_Pass]:
    """Of dense weights the prompt's; of 8 bits single tokens."""
    found = [_Pass(context - 1, 1, True) for context in _CONTEXTS if bits == 8]
    position = 0
    for tokens, logits in compiled.passes(0, _PROMPT, 1) if pattern.dense else ():
        found.append(_Pass(position, tokens, logits))
        position += tokens
    return found


@dataclass(frozen=True)
class _Case:
    """What is measured: weights' N:M, bits of activations, and how products lie in memory."""

    pattern: Pattern
    activations: int
    stored: Mapping[str, Stored]


def _counted(
    config: Config, case: _Case, counts: Mapping[_Pass, float], work: float, graph: Graph, how: str
) -> tuple[list[dict[str, object]], list[Figure]]:
    """Rows and figures of cycles, and of the prompt's multiplications; `graph` has all layers."""
    rows, figures, pattern = [], [], case.pattern
    for part, cycles in counts.items():
        least = least_traffic(graph, part.position, part.tokens, logits=part.logits, stored=case.stored)
        share = least.total / (cycles * config.bus_bytes)
        rows.append({
            "activations": case.activations, "context": part.position + part.tokens, "nm": str(pattern),
            "tokens": part.tokens, "cycles": round(cycles), "least_bytes": least.total, "weight_bytes": least.weights,
            "cache_bytes": least.cache_read + least.cache_written, "bandwidth": share, "layers": how,
        })  # fmt: skip
        if part.tokens == 1:
            name = f"context {part.position + 1}: share of the memory's bandwidth"
            bar = ">= 0.93" if pattern.dense else _SPARSE_BAR
            figures.append(Figure(name if pattern.dense else f"{pattern}, {name}", share, "1", bar))
    if prompt := sum(cycles for part, cycles in counts.items() if part.tokens > 1):
        figures.append(Figure(_PROMPTS[case.activations], work / config.macs / prompt, "1", ">= 0.92"))
    return rows, figures


_PROMPTS = {
    8: f"prompt of {_PROMPT}: fraction of ideal",
    15: f"prompt of {_PROMPT}, 15-bit activations: fraction of ideal, two products for one",
}


def _work(of: IntegerDecoderGraph) -> int:
    """The prompt's multiplications."""
    linears = [o for o in of.graph.operations if isinstance(o, Linear)]
    return least_work(of.graph, 0, _PROMPT, wide=[o.name for o in linears if of.widths[o.inputs[0]] == 15])


def _pruned(graph: Graph, pattern: Pattern) -> tuple[Graph, dict[str, Pattern]]:
    """By magnitude, since cycles depend on the N:M alone; the head stays dense."""
    if pattern.dense:
        return graph, {}
    patterns = dict.fromkeys(graph.linears, pattern)
    return graph.with_weights({n: prune(graph.linears[n].weight, pattern) for n in patterns}), patterns


def _cycles(
    machine: RtlMachine, of: IntegerDecoderGraph, pattern: Pattern, bits: int, report: Callable[[str], None]
) -> dict[_Pass, int]:
    compiled = compile_decoder(of, machine.config, max(_CONTEXTS))
    machine.load(compiled.image)
    return {p: _run(machine, compiled, p, report) for p in _passes(compiled, pattern, bits)}


def _hardware(patterns: Sequence[Pattern], config: Config | None = None) -> Config:
    """Preset `decoder` if none is given; N:M that it does not run is refused before the work."""
    config = config or PRESETS["decoder"]
    for pattern in patterns:
        if not pattern.dense:
            config.require(pattern)
    return config


def run(
    report: Callable[[str], None] = lambda _: None, patterns: Sequence[Pattern] = (DENSE,), config: Config | None = None
) -> Report:
    """One and two layers of SmolLM2-135M-Instruct on RTL, with its head; a layer's cycles count for all others.

    The hardware is preset `decoder` if none is given.
    """
    config = _hardware(patterns, config)
    report("loading the model")
    model = load_text_model()
    machine = RtlMachine(config)
    rows, figures = [], []
    for pattern in patterns:
        for bits in _ACTIVATIONS if pattern.dense else (8,):
            told: Callable[[str], None] = partial(_tell, report, f"{pattern}, activations of {bits} bits")
            found = _of_few_layers(model, machine, pattern, bits, told)
            rows += found[0]
            figures += found[1]
    return Report("decode", config, rows, figures)


def _few_layers(
    model: TextModel, config: Config, pattern: Pattern, bits: int, layers: int
) -> IntegerDecoderGraph:  # fmt: skip
    """The first layers with the head, pruned and quantized."""
    texts = [t[:_CALIBRATION] for t in calibration_texts(model.language, count=1)]
    rules = Rules(_ACTIVATIONS[bits], block=config.groups * config.window, groups=config.groups)
    graph, chosen = _pruned(first_layers(model.language.graph, layers), pattern)
    return quantize_decoder(graph, texts, model.language.begin, rules, patterns=chosen)


def stored_in_all(whole: Graph, of: IntegerDecoderGraph, config: Config) -> dict[str, Stored]:
    """How products lie in memory, the head too, of a network whose layers are like the first one's `of`."""
    few = stored_sizes(of.linears, config)
    first = {n.partition(".")[2]: size for n, size in few.items() if layer_of(n) == 0}
    head = {n: size for n, size in few.items() if layer_of(n) is None}
    return head | {n: first[n.partition(".")[2]] for n in whole.linears}


def _of_few_layers(
    model: TextModel, machine: RtlMachine, pattern: Pattern, bits: int, report: Callable[[str], None]
) -> tuple[list[dict[str, object]], list[Figure]]:
    config, whole = machine.config, model.language.graph
    found: list[dict[_Pass, int]] = []
    work: list[int] = []
    stored: dict[str, Stored] = {}
    for layers in (1, 2):
        report(f"quantizing and compiling {layers} layers")
        of = _few_layers(model, config, pattern, bits, layers)
        stored = stored_in_all(model.language.graph, of, config)
        told: Callable[[str], None] = partial(_tell, report, f"{layers} layers")
        found.append(_cycles(machine, of, pattern, bits, told))
        work.append(_work(of))
    others = whole.layers - 1
    counts = {p: one + float(others) * (found[1][p] - one) for p, one in found[0].items()}
    all_work = work[0] + others * (work[1] - work[0])
    return _counted(config, _Case(pattern, bits, stored), counts, all_work, whole, "1 and 2")


def _estimate(compiled: DecoderImage, part: _Pass) -> float:
    """Of a program, by the cycle model."""
    start = compiled.programs[compiled.number(part.position, part.tokens, logits=part.logits)]
    return estimate_cycles(
        disassemble(compiled.image[start:].tobytes(), compiled.config), compiled.config, MachineTiming()
    )


def estimated_token(
    model: TextModel, pattern: Pattern, config: Config, report: Callable[[str], None] = lambda _: None
) -> dict[str, object]:
    """A row as `run` has it, of a token at a context of 128, by the cycle model in place of RTL.

    Memory is as on RTL (`MachineTiming`'s: 50 cycles of latency).

    Raises
    ------
    ConfigError
        If the hardware does not run the N:M.
    """
    _hardware([pattern], config)
    part = _Pass(_CONTEXTS[0] - 1, 1, True)
    cycles = []
    stored: dict[str, Stored] = {}
    for layers in (1, 2):
        report(f"{pattern}, {layers} layers by the cycle model")
        of = _few_layers(model, config, pattern, 8, layers)
        stored = stored_in_all(model.language.graph, of, config)
        compiled = compile_decoder(of, config, max(_CONTEXTS))
        cycles.append(_estimate(compiled, part))
    whole = model.language.graph
    counts = {part: cycles[0] + (whole.layers - 1) * (cycles[1] - cycles[0])}
    return _counted(config, _Case(pattern, 8, stored), counts, 0, whole, "1 and 2")[0][0]


def run_full(report: Callable[[str], None] = lambda _: None, patterns: Sequence[Pattern] = (DENSE,)) -> Report:
    """The same with all layers, as they are, and activations of 8 bits: half an hour."""
    config = _hardware(patterns)
    report("loading the model")
    model = load_text_model()
    machine = RtlMachine(config)
    texts = calibration_texts(model.language)
    rules = Rules(block=config.groups * config.window, groups=config.groups)
    rows, figures = [], []
    for pattern in patterns:
        graph, chosen = _pruned(model.language.graph, pattern)
        of = quantize_decoder(graph, texts, model.language.begin, rules, report, chosen)
        counts = {p: float(n) for p, n in _cycles(machine, of, pattern, 8, report).items()}
        case = _Case(pattern, 8, stored_sizes(of.linears, config))
        found = _counted(config, case, counts, _work(of), of.graph, "all")
        rows += found[0]
        figures += found[1]
    return Report("decode", config, rows, figures)


def token_of_table(
    model: TextModel, patterns: Mapping[str, Pattern], by: str = "rtl", report: Callable[[str], None] = lambda _: None,
    config: Config | None = None,
) -> dict[str, object]:  # fmt: skip
    """A row as `run_full` has it, of a token at a context of 128, where each product of the layers has its own N:M.

    The hardware is preset `decoder` if none is given; activations have 8 bits. Cycles are of RTL, or `by` the cycle
    ``model``.

    Raises
    ------
    ConfigError
        If it does not run one of the N:M.
    """
    config = _hardware(list(patterns.values()), config)
    graph = model.language.graph
    sparse = {n: p for n, p in patterns.items() if not p.dense}
    graph = graph.with_weights({n: prune(graph.linears[n].weight, p) for n, p in sparse.items()})
    texts = [t[:_CALIBRATION] for t in calibration_texts(model.language, count=1)]
    rules = Rules(block=config.groups * config.window, groups=config.groups)
    of = quantize_decoder(graph, texts, model.language.begin, rules, report, sparse)
    report("compiling")
    compiled = compile_decoder(of, config, _CONTEXTS[0])
    part = _Pass(_CONTEXTS[0] - 1, 1, True)
    if by == "model":
        cycles = _estimate(compiled, part)
    else:
        machine = RtlMachine(config)
        machine.load(compiled.image)
        cycles = float(_run(machine, compiled, part, report))
    case = _Case(DENSE, 8, stored_sizes(of.linears, config))
    return _counted(config, case, {part: cycles}, 0, graph, "all")[0][0] | {"nm": "table"}


def _tell(report: Callable[[str], None], of: str, what: str) -> None:
    report(f"{of}, {what}")
