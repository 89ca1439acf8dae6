"""Perplexity, bytes and cycles of sparse SmolLM2-135M-Instruct, by N:M, kept: SparseGPT in one shot, and distilled.

Example: python scripts/bench_decoder_sparsity.py --case 8:16
Example: python scripts/bench_decoder_sparsity.py --case "8:16 distilled"  (PyTorch; goes on where it was broken off)
Example: python scripts/bench_decoder_sparsity.py --case "8:16 searched"  (PyTorch; DominoSearch)
Example: python scripts/bench_decoder_sparsity.py --case 8:16 --cycles rtl  (in place of perplexities)
Example: python scripts/bench_decoder_sparsity.py --case 12:16 --cycles model  (the cycle model: a minute less)
Example: python scripts/bench_decoder_sparsity.py  (all; more than an hour of one core)
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from sta_hw.bench import tool_versions
from sta_hw.bench.decode import estimated_token, run, token_of_table
from sta_hw.bench.perplexity import negative_log_likelihood, prose
from sta_hw.cli.app import script
from sta_hw.cli.terminal import Watch, watched
from sta_hw.compiler.decoder.integers import WIDE, Rules
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.decoder.traffic import least_traffic, stored_sizes
from sta_hw.errors import InputError
from sta_hw.files import read_json, write_text
from sta_hw.formats.provenance import text_table
from sta_hw.model.families.decoders import NEXT
from sta_hw.model.fp32 import evaluate
from sta_hw.sparsity.text import corpus_sentences, without_near
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.decoder_texts import pruning_texts
from sta_hw.tasks.text import TextModel, load_text_model

RESULTS = Path(__file__).parent / "results" / "decoder-sparsity.json"
CONFIG = PRESETS["decoder"]
WIDER = replace(CONFIG, window=32)
"""For 16:32, which asks for windows of 32 positions."""
DISTILLED = " distilled"
"""Behind an N:M: trained on the dense model's next tokens, after pruning."""
SEARCHED = " searched"
"""Behind an N:M: DominoSearch's N of every product, of as many bytes a token."""
CASES = ("dense", "12:16", "8:16", "8:16 searched", "8:16 distilled", "16:32", "2:4", "4:16")
TEXTS, TOKENS = 4, 512
"""2,040 tokens are scored."""
CONTEXT = 128
SENTENCES = 600
"""Of docstrings of Python's standard library; none is near to one of the scored text."""
BARS = {"8:16": 30.0, "8:16 searched": 30.0, "8:16 distilled": 30.0}
TUNING: dict[str, Any] = {"steps": 120, "batch": 2, "rate": 2e-4, "seed": 0}
"""Texts of 256 tokens, of all sentences of the library's docstrings but those near to the scored text."""
STATES = Path(__file__).parents[1] / "build"
"""Where distillation keeps what it has come to."""
Entry = dict[str, Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """One of `CASES`, and the file that has its figures."""

    name: str
    results: Path

    @property
    def nm(self) -> str:
        """Its N:M."""
        return self.name.removesuffix(DISTILLED).removesuffix(SEARCHED)

    @property
    def state(self) -> Path:
        """Where distillation is."""
        return STATES / f"{self.name.replace(':', 'of').replace(' ', '-')}.safetensors"

    def keep(self, entry: Entry) -> Entry:
        """Add figures to those that are there; all of the case's."""
        entry = self.kept | entry | {"date": datetime.date.today().isoformat(), "tools": tool_versions()}
        kept = self._all() | {self.name: entry}
        write_text(self.results, json.dumps({k: kept[k] for k in CASES if k in kept}, indent=1) + "\n")
        return entry

    @property
    def kept(self) -> Entry:
        """The figures that are there."""
        return self._all().get(self.name, {})

    def _all(self) -> dict[str, Entry]:
        return read_json(self.results, "results") if self.results.exists() else {}


def perplexities(model: TextModel, texts: list[list[int]], report: Report) -> Entry:
    """In fp32; and in integers, with INT8 weights and 15-bit activations but for attention's output."""
    (begin,) = model.language.begin
    found: dict[str, list[np.ndarray]] = {"fp32": [], "integers": []}
    for number, ids in enumerate(texts):
        report(f"fp32, text {number}")
        logits = evaluate(model.language.graph, {"ids": [begin, *ids]}, keep=(NEXT,))[NEXT][1:]
        found["fp32"].append(negative_log_likelihood(logits[:-1], ids[1:]))
    quantized = model.in_integers(rules=Rules(WIDE), config=CONFIG, report=report, cache=False).quantized
    assert quantized is not None
    for number, ids in enumerate(texts):
        report(f"integers, text {number}")
        given = IntegerDecoder(quantized, TOKENS).logits([begin, *ids])
        found["integers"].append(negative_log_likelihood(given[:-1], ids[1:]))
    least = least_traffic(model.language.graph, CONTEXT - 1, stored=stored_sizes(quantized.linears, CONFIG))
    return {
        **{f"perplexity_{name}": float(np.exp(np.concatenate(of).mean())) for name, of in found.items()},
        "tokens": sum(map(len, found["fp32"])), "bytes_per_token": least.total, "weight_bytes": least.weights,
    }  # fmt: skip


def distilled(model: TextModel, pruned: TextModel, scored: list[str], case: Case, report: Report) -> TextModel:
    """Trained, its masks kept; goes on where a run that was broken off was, and says so by `case.keep`."""
    from sta_hw.sparsity.distill import distill_decoder
    from sta_hw.sparsity.finetune import Tuning

    texts = pruning_texts(model.language, without_near(corpus_sentences(10**9, packages=("python",)), scored))
    begun: list[tuple[int, float]] = []

    def told(done: int, total: int, loss: float) -> None:
        begun.append((done, time.process_time()))
        report(f"distillation, step {done} of {total}, loss {loss:.4f}")

    tuning = Tuning(**TUNING)
    STATES.mkdir(exist_ok=True)
    graph, found = distill_decoder(
        model.language.graph,
        pruned.language.graph,
        pruned.patterns,
        texts,
        tuning,
        bfloat16=True,
        state=case.state,
        report=told,
    )
    if len(begun) > 1:
        (first, before), (last, after) = begun[0], begun[-1]
        case.keep({
            "distillation": TUNING | {"bfloat16": True}, "learnt_tokens": tuning.steps * tuning.batch * len(texts[0]),
            "distillation_cpu_seconds": round((after - before) / (last - first) * tuning.steps),
            "losses": [float(np.mean(found.losses[n : n + 10])) for n in range(0, tuning.steps, 10)],
        })  # fmt: skip
    return pruned.with_graph(graph)


def accuracy(case: Case, report: Report) -> Entry:
    """Pruned, distilled if that is said, and its perplexities."""
    model = load_text_model()
    texts = prose(model, TEXTS, TOKENS - 1)
    if case.nm == "dense":
        return perplexities(model, texts, report)
    scored = [model.language.vocabulary.decode(ids) for ids in texts]
    calibration = pruning_texts(
        model.language, without_near(corpus_sentences(SENTENCES, packages=("python",)), scored)
    )  # fmt: skip
    about: Entry = {"calibration_tokens": sum(map(len, calibration))}
    patterns = dict.fromkeys(model.language.graph.linears, parse_nm(case.nm))
    if case.name.endswith(SEARCHED):
        from sta_hw.sparsity.domino_decoders import decoder_patterns

        before = time.process_time()
        patterns = decoder_patterns(
            model.language.graph, parse_nm(case.nm), CONFIG, calibration, report
        )  # fmt: skip
        about |= {"search_cpu_seconds": round(time.process_time() - before), "nm_table": text_table(patterns)}
    before = time.process_time()
    pruned = model.prune(patterns=patterns, texts=calibration, report=report)
    about["pruning_cpu_seconds"] = round(time.process_time() - before)
    if case.name.endswith(DISTILLED):
        pruned = distilled(model, pruned, scored, case, report)
        del about["pruning_cpu_seconds"]  # which is in the entry without
    measured = perplexities(pruned, texts, report) | about
    case.state.unlink(missing_ok=True)  # gigabytes, of what is finished
    return measured


def cycles(case: Case, by: str, report: Report) -> Entry:
    """Of a token at a context of 128: of one and two layers with the head, or on RTL of all where they differ."""
    pattern = parse_nm(case.nm)
    config = CONFIG if pattern in CONFIG.patterns else WIDER
    if case.name.endswith(SEARCHED):
        table = case.kept.get("nm_table")
        if table is None:
            raise InputError(f"{case.name} has no table yet; leave --cycles out first.")
        row = token_of_table(load_text_model(), {k: parse_nm(v) for k, v in table.items()}, by, report)
    elif by == "model":
        row = estimated_token(load_text_model(), pattern, config, report)
    else:
        rows = run(report, [pattern], config).rows
        row = next(r for r in rows if (r["context"], r["tokens"], r["activations"]) == (CONTEXT, 1, 8))
    return {"cycles_per_token": row["cycles"], "bandwidth": row["bandwidth"], "cycles_by": by, "window": config.window}


def show(entries: dict[str, Entry]) -> None:
    """All figures as a table."""
    table = Table(title="SmolLM2-135M-Instruct, layers pruned, head dense; bar: < 30")
    for column in ("layers", "fp32", "integers", "bytes", "cycles", "share", "bar"):
        table.add_column(column, no_wrap=True)
    for name, e in entries.items():
        cells = [f"{e[k]:{form}}" if k in e else "" for k, form in (
            ("perplexity_fp32", ".2f"), ("perplexity_integers", ".2f"), ("bytes_per_token", ","),
            ("cycles_per_token", ","), ("bandwidth", ".3f"))]  # fmt: skip
        bar = ("yes" if _holds(name, e) else "NO") if name in BARS else ""
        table.add_row(name, *cells, bar)
    Console().print(table)


def _tell(update: Report, name: str, text: str) -> None:
    update(f"{name}: {text}")


def _holds(name: str, entry: Entry) -> bool:
    return name not in BARS or entry.get("perplexity_integers", 0.0) < BARS[name]


def _measured(made: Case, name: str, by: str | None, watch: Watch) -> Entry:
    watch.step(name)
    report = partial(_tell, watch.describe, name)
    return cycles(made, by, report) if by else accuracy(made, report)


def main(
    case: Annotated[list[str] | None, typer.Option(help="N:M; may be repeated; all if not given.")] = None,
    by: Annotated[
        str | None,
        typer.Option("--cycles", help="Cycles in place of perplexities, by rtl or the cycle model (model)."),
    ] = None,
    results: Annotated[Path, typer.Option(help="The JSON that holds the newest of each case.")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the new entries.")] = False,
) -> None:
    """Measure, keep, show; exit status 1 when a bar is missed."""
    if by not in (None, "rtl", "model"):
        raise InputError(f"--cycles {by}: it is rtl or model.")
    for name in case or []:
        if name not in CASES:
            raise InputError(f"--case {name!r} is unknown; there are {', '.join(CASES)}.")
        if by and name.endswith(DISTILLED):
            raise InputError(f"--case {name!r} has the cycles of {name.removesuffix(DISTILLED)}.")
    if results.exists():
        read_json(results, "results")  # refused before the work
    new: dict[str, Entry] = {}
    for name in case or CASES:
        made = Case(name, results)
        if by and name.endswith(DISTILLED):
            continue
        new[name] = made.keep(watched(name, "", partial(_measured, made, name, by)))
    if as_json:
        typer.echo(json.dumps(new, indent=1))
    else:
        show(read_json(results, "results"))
    if not all(_holds(name, entry) for name, entry in new.items()):
        raise typer.Exit(1)


if __name__ == "__main__":
    script(main)
