"""Benchmark of a decoder's integers: perplexity and next tokens, on text that nothing was calibrated with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.decoder.integers import BLOCKED, ROLES, WIDE, IntegerDecoderGraph, Rules
from ..compiler.decoder.likeliest import with_exact_head
from ..compiler.decoder.run import IntegerDecoder
from ..model.families.decoders import NEXT
from ..model.fp32 import evaluate
from ..model.graph import Graph
from ..model.operations import Linear
from ..spec.presets import PRESETS
from ..tasks.text import TextModel, load_text_model
from .report import Figure, Report

__all__ = ["head_in_blocks", "negative_log_likelihood", "prose", "run", "with_integer_weights"]

_TEXTS, _TOKENS = 13, 512
"""6,630 tokens are scored: in each text all but the begin token and the one behind it."""
_HEAD_TEXTS = 4
"""2,044 positions, in which a head of 4 bits is compared with one of INT8."""
_LEAST_PARAGRAPH = 160
_SETTINGS = {
    "W8A8": Rules(),
    "W8A8, down and head 15 bits": Rules(frozenset({"down", "head"})),
    "W8A15 but attention's output": Rules(WIDE),
    "W8A15": Rules(frozenset(ROLES)),
    "W8A15 but attention's output, not rotated": Rules(WIDE, rotate=False),
    "W8A15 but attention's output, rounded to nearest": Rules(WIDE, feedback=False),
    "W8A15 but attention's output, neither": Rules(WIDE, rotate=False, feedback=False),
    "W4A15 in the file's blocks, head INT8": Rules(WIDE, blocks=BLOCKED),
}
"""Of the products' inputs; what has 15 bits is computed as two digits (docs/decoders.md)."""
_BEST = ("W8A15 but attention's output", "W4A15 in the file's blocks, head INT8")
"""With a bar each: what is used where the most accurate is wanted, for weights of 8 and of 4 bits."""
_ALONE = "INT8 weights alone"


def prose(model: TextModel, texts: int, tokens: int) -> list[list[int]]:
    """Token ids of Python's own documentation (``pydoc_data.topics``), paragraph behind paragraph.

    Each text begins with a paragraph. Paragraphs of at least 160 characters count, with single blanks.
    """
    from pydoc_data.topics import topics

    paragraphs = (" ".join(p.split()) for topic in topics.values() for p in topic.split("\n\n"))
    long = (p for p in paragraphs if len(p) > _LEAST_PARAGRAPH)
    found = []
    for _ in range(texts):
        ids: list[int] = []
        while len(ids) < tokens:
            ids += model.language.vocabulary.encode(("\n\n" if ids else "") + next(long), begin=False)
        found.append(ids[:tokens])
    return found


def negative_log_likelihood(logits: NDArray, ids: Sequence[int]) -> NDArray[np.float64]:
    """Of each token, given the logits ahead of it, in natural units."""
    x = logits.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    return np.log(np.exp(x).sum(1)) - x[np.arange(len(ids)), list(ids)]


def _tell(report: Callable[[str], None], setting: str, what: str) -> None:
    report(f"{setting}: {what}")


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """SmolLM2-135M-Instruct from its GGUF; the baseline is the de-quantized file in fp32."""
    report("loading the model")
    model = load_text_model()
    (begin,) = model.language.begin
    texts = prose(model, _TEXTS, _TOKENS - 1)
    exact, best = [], []
    for number, ids in enumerate(texts):
        report(f"fp32, text {number}")
        logits = evaluate(model.language.graph, {"ids": [begin, *ids]}, keep=(NEXT,))[NEXT][1:]
        exact.append(negative_log_likelihood(logits[:-1], ids[1:]))
        best.append(logits.argmax(1))
    baseline = float(np.exp(np.concatenate(exact).mean()))
    tokens = sum(map(len, exact))
    rows = [{"setting": "fp32", "perplexity": baseline, "ratio": 1.0, "same_next_token": 1.0, "tokens": tokens}]
    figures = []

    def score(name: str, logits: Callable[[Sequence[int]], NDArray]) -> tuple[float, float]:
        """Perplexity over fp32's, and the share of next tokens that are fp32's; in a row of the report."""
        found, same = [], []
        for number, (ids, chosen) in enumerate(zip(texts, best, strict=True)):
            report(f"{name}, text {number}")
            given = logits([begin, *ids])
            found.append(negative_log_likelihood(given[:-1], ids[1:]))
            same.append(given.argmax(1) == chosen)
        perplexity = float(np.exp(np.concatenate(found).mean()))
        agreement = float(np.concatenate(same).mean())
        rows.append({
            "setting": name, "perplexity": perplexity, "ratio": perplexity / baseline, "same_next_token": agreement,
            "tokens": tokens,
        })  # fmt: skip
        return perplexity / baseline, agreement

    for name, rules in _SETTINGS.items():
        quantized = model.in_integers(rules=rules, report=partial(_tell, report, name), cache=False).quantized
        assert quantized is not None
        ratio, agreement = score(name, partial(_integer_logits, quantized))
        if name in _BEST:
            figures += [
                Figure(f"{name}: perplexity over fp32's", ratio, "1", "<= 1.02"),
                Figure(f"{name}: next token equal to fp32's", agreement, "1", ">= 0.94"),
            ]
        if name == _BEST[0]:
            score(_ALONE, partial(_fp32_logits, with_integer_weights(quantized)))
    row, figure = head_in_blocks(model, texts[:_HEAD_TEXTS], report)
    return Report("perplexity", PRESETS["reference"], [*rows, row], [*figures, figure])


def _integer_logits(quantized: IntegerDecoderGraph, ids: Sequence[int]) -> NDArray:
    return IntegerDecoder(quantized, _TOKENS).logits(ids)


def _fp32_logits(graph: Graph, ids: Sequence[int]) -> NDArray:
    return evaluate(graph, {"ids": list(ids)}, keep=(NEXT,))[NEXT][1:]


def with_integer_weights(of: IntegerDecoderGraph) -> Graph:
    """The graph in fp32 whose products have what the integers' weights mean."""
    operations = []
    for o in of.graph.operations:
        if isinstance(o, Linear):
            p = of.linears[o.name]
            weight = p.weights * p.steps[:, None] / p.input_scale
            o = replace(o, weight=weight.astype(np.float32))
        operations.append(o)
    return replace(of.graph, operations=tuple(operations))


def head_in_blocks(
    model: TextModel, texts: Sequence[Sequence[int]], report: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], Figure]:
    """How often the next token is the INT8 head's, where a head of 4 bits lists 8 that INT8 weights score again."""
    name = "W4A15, head in 4 bits too, its 8 best by INT8"
    quantized = model.in_integers(
        rules=Rules(WIDE, blocks=frozenset(ROLES)), report=partial(_tell, report, name), cache=False
    ).quantized
    assert quantized is not None
    same, alone = [], []
    for number, ids in enumerate(texts):
        report(f"{name}, text {number}")
        decoders = (
            IntegerDecoder(with_exact_head(quantized), _TOKENS), IntegerDecoder(quantized, _TOKENS),
            IntegerDecoder(quantized, _TOKENS, best=True),
        )  # fmt: skip
        wanted, bare, found = (d.logits([*quantized.prefix, *ids]).argmax(1) for d in decoders)
        same.append(found == wanted)
        alone.append(bare == wanted)
    agreement = float(np.concatenate(same).mean())
    row = {
        "setting": name, "tokens": sum(map(len, same)), "token_of_int8_head": agreement,
        "without_scoring_again": float(np.concatenate(alone).mean()),
    }  # fmt: skip
    return row, Figure("head in 4 bits: next token is the INT8 head's", agreement, "1", ">= 0.999")
