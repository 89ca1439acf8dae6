"""Perplexity, bytes and cycles of sparse SmolLM2-135M-Instruct, by N:M, kept: SparseGPT in one shot, no training.

Example: python scripts/bench_decoder_sparsity.py --case 8:16
Example: python scripts/bench_decoder_sparsity.py --case 8:16 --cycles  (its cycles on RTL, in place of perplexities)
Example: python scripts/bench_decoder_sparsity.py  (all; three quarters of an hour of one core)
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from sta_hw.bench import tool_versions
from sta_hw.bench.decode import run
from sta_hw.bench.perplexity import negative_log_likelihood, prose
from sta_hw.compiler.decoder.integers import WIDE, Rules
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.decoder.traffic import least_traffic, weight_bits
from sta_hw.files import write_text
from sta_hw.model.families.decoders import NEXT
from sta_hw.model.fp32 import evaluate
from sta_hw.sparsity.text import corpus_sentences, without_near
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.decoder_texts import pruning_texts
from sta_hw.tasks.text import TextModel, load_text_model

RESULTS = Path(__file__).parent / "results" / "decoder-sparsity.json"
CONFIG = PRESETS["decoder"]
CASES = ("dense", "12:16", "8:16", "16:32", "2:4", "4:16")
"""16:32 asks for windows of 32 positions: preset `decoder` does not run it, so it has no cycles."""
TEXTS, TOKENS = 4, 512
"""2,040 tokens are scored."""
CONTEXT = 128
SENTENCES = 600
"""Of docstrings of Python's standard library; none is near to one of the scored text."""
BARS = {"8:16": 30.0}
Entry = dict[str, Any]
Report = Callable[[str], None]


def perplexities(model: TextModel, texts: list[list[int]], report: Report) -> Entry:
    """In fp32; and in integers, with INT8 weights and 15-bit activations but for attention's output."""
    (begin,) = model.language.begin
    found: dict[str, list[np.ndarray]] = {"fp32": [], "integers": []}
    for number, ids in enumerate(texts):
        report(f"fp32, text {number}")
        logits = evaluate(model.language.graph, {"ids": [begin, *ids]}, keep=(NEXT,))[NEXT][1:]
        found["fp32"].append(negative_log_likelihood(logits[:-1], ids[1:]))
    quantized = model.in_integers(rules=Rules(WIDE), config=CONFIG, report=report).quantized
    assert quantized is not None
    for number, ids in enumerate(texts):
        report(f"integers, text {number}")
        given = IntegerDecoder(quantized, TOKENS).logits([begin, *ids])
        found["integers"].append(negative_log_likelihood(given[:-1], ids[1:]))
    least = least_traffic(model.language.graph, CONTEXT - 1, bits=weight_bits(quantized.linears, CONFIG))
    return {
        **{f"perplexity_{name}": float(np.exp(np.concatenate(of).mean())) for name, of in found.items()},
        "tokens": sum(map(len, found["fp32"])), "bytes_per_token": least.total, "weight_bytes": least.weights,
    }  # fmt: skip


def accuracy(nm: str, report: Report) -> Entry:
    """Pruned, and its perplexities."""
    model = load_text_model()
    texts = prose(model, TEXTS, TOKENS - 1)
    if nm == "dense":
        return perplexities(model, texts, report)
    scored = [model.language.vocabulary.decode(ids) for ids in texts]
    calibration = pruning_texts(
        model.language, without_near(corpus_sentences(SENTENCES, packages=("python",)), scored)
    )  # fmt: skip
    before = time.process_time()
    pruned = model.prune(nm, texts=calibration, report=report)
    seconds = time.process_time() - before
    return perplexities(pruned, texts, report) | {
        "calibration_tokens": sum(map(len, calibration)), "pruning_cpu_seconds": round(seconds),
    }  # fmt: skip


def cycles(nm: str, report: Report) -> Entry:
    """Of a token at a context of 128, on RTL: of one and two layers with the head, layers being alike."""
    row = next(r for r in run(report, [parse_nm(nm)]).rows if r["context"] == CONTEXT and r["tokens"] == 1)
    return {"cycles_per_token": row["cycles"], "bandwidth": row["bandwidth"]}


def show(entries: dict[str, Entry]) -> None:
    """All figures as a table."""
    table = Table(title="SmolLM2-135M-Instruct, layers pruned in one shot, head dense")
    for column in ("N:M", "fp32", "integers", "bytes a token", "cycles a token", "of bandwidth", "bar"):
        table.add_column(column)
    for name, e in entries.items():
        cells = [f"{e[k]:{form}}" if k in e else "" for k, form in (
            ("perplexity_fp32", ".2f"), ("perplexity_integers", ".2f"), ("bytes_per_token", ","),
            ("cycles_per_token", ","), ("bandwidth", ".3f"))]  # fmt: skip
        bar = f"< {BARS[name]:g}: {'yes' if _holds(name, e) else 'NO'}" if name in BARS else ""
        table.add_row(name, *cells, bar)
    Console().print(table)


def _holds(name: str, entry: Entry) -> bool:
    return name not in BARS or entry.get("perplexity_integers", 0.0) < BARS[name]


def main(
    case: Annotated[list[str] | None, typer.Option(help="N:M; may be repeated; all if not given.")] = None,
    count: Annotated[bool, typer.Option("--cycles", help="Cycles on RTL, in place of perplexities.")] = False,
    results: Annotated[Path, typer.Option(help="The JSON that holds the newest of each case.")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the new entries.")] = False,
) -> None:
    """Measure, keep, show; exit status 1 when a bar is missed."""
    progress = Console(stderr=True)
    for name in case or []:
        if name not in CASES:
            raise typer.BadParameter(f"{name!r} is unknown; there are {', '.join(CASES)}.")
        if count and parse_nm(name) not in CONFIG.patterns:
            raise typer.BadParameter(f"preset decoder does not run {name}; --cycles counts those that it does.")
    new: dict[str, Entry] = {}
    for name in case or CASES:
        if count and parse_nm(name) not in CONFIG.patterns:
            continue
        with progress.status(name) as status:
            measure = cycles if count else accuracy
            entry = measure(name, lambda text, n=name, s=status: s.update(f"{n}: {text}"))
        entry |= {"date": datetime.date.today().isoformat(), "tools": tool_versions()}
        kept = json.loads(results.read_text()) if results.exists() else {}
        new[name] = kept.get(name, {}) | entry
        kept |= {name: new[name]}
        write_text(results, json.dumps({k: kept[k] for k in CASES if k in kept}, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(new, indent=1))
    else:
        show(json.loads(results.read_text()))
    if not all(_holds(name, entry) for name, entry in new.items()):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
