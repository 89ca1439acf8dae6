"""Accuracy of sparse all-MiniLM-L6-v2, kept: one-shot pruners, fine-tuning, series against one-shot, N per layer.

Example: python scripts/bench_sparsity.py --case sparsegpt-8of16 --case tuned-8of16
Example: python scripts/bench_sparsity.py  (all; about two hours of one core)
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from sta_hw.bench import tool_versions
from sta_hw.cli.app import script
from sta_hw.errors import InputError
from sta_hw.files import read_json, write_text
from sta_hw.sparsity.finetune import Tuning, fine_tune
from sta_hw.sparsity.idp import idp, levels_down, steps_by_level
from sta_hw.sparsity.methods import domino_patterns
from sta_hw.sparsity.methods import prune as work_through
from sta_hw.sparsity.pruners import PRUNERS
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.sparsity.workbench import Workbench
from sta_hw.spec.patterns import Pattern, parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.embedder import Embedder

RESULTS = Path(__file__).parent / "results" / "sparsity.json"
CONFIG = PRESETS["reference"]
SEEDS = (0, 1, 2)
SERIES = tuple(Pattern(n, 16) for n in (12, 8, 4, 2))
PACKAGES = ("python",)
"""The corpus: docstrings of Python's standard library, as the evaluated sentences are (but none near them)."""
CALIBRATION = 1024
SERIES_STEPS = 24
"""Fine-tuning steps of a level of a series, on average."""
SERIES_RATE = 9e-4
"""Of the longest level, and of the longest one-shot run; shorter ones of both have the root of their share of it."""
Entry = dict[str, Any]
Report = Callable[[str], None]


def one_shot(method: str, nm: str, calibration: int, report: Report) -> Entry:
    """A pruner without fine-tuning."""
    bench = Workbench(Embedder.load(), sentences=1, calibration=calibration, packages=PACKAGES, report=report)
    pruned = next(work_through(bench, method, parse_nm(nm), Tuning(0), CONFIG))
    return bench.scores(pruned.encoder)


def dense_int8(report: Report) -> Entry:
    """Nothing pruned, every stored tensor quantized."""
    bench = Workbench(Embedder.load(), sentences=1, calibration=1, report=report)
    return bench.int8_scores(bench.graph, {}, CONFIG)


def tuned(nm: str, steps: int, batch: int, rate: float, report: Report) -> Entry:
    """SparseGPT with asymmetric calibration, then distillation with the masks as they are."""
    bench = Workbench(
        Embedder.load(), sentences=1 << 20, calibration=CALIBRATION, packages=PACKAGES, report=report
    )  # fmt: skip
    targets = time.process_time()
    task = bench.task  # the teacher's outputs are computed here
    targets = time.process_time() - targets
    encoder = TorchGraph(bench.graph)
    patterns = dict.fromkeys(encoder.linears, parse_nm(nm))
    pruning = time.process_time()
    masks = PRUNERS["sparsegpt-asymmetric"]().prune(encoder, encoder.linears, patterns, bench.calibration, report)
    pruning = time.process_time() - pruning
    before = bench.scores(encoder)
    started = time.process_time()
    found = fine_tune(
        encoder, encoder.linears, patterns, task, Tuning(steps, batch, rate), masks=masks,
        report=lambda done, total, loss: report(f"{nm}: step {done} of {total}, loss {loss:.4f}"),
    )  # fmt: skip
    seconds = time.process_time() - started
    graph = encoder.to_graph()
    return bench.scores(encoder) | {
        "before": before["cosine"], "int8_cosine": bench.int8_scores(graph, patterns, CONFIG)["cosine"],
        "steps": steps, "batch": batch, "rate": rate, "cpu_seconds": round(seconds + targets),
        "teacher_cpu_seconds": round(targets), "pruning_cpu_seconds": round(pruning),
        "last_loss": float(np.mean(found.losses[-50:])),
    }  # fmt: skip


def series(seed: int, report: Report) -> Entry:
    """IDP's networks, and one-shot magnitude pruning with as many steps as IDP took to get there."""
    levels = levels_down(16, 2)
    bench = Workbench(Embedder.load(), sentences=4096, calibration=1, seed=seed, report=report)
    counts = steps_by_level(levels, SERIES_STEPS)
    tuning = Tuning(SERIES_STEPS, 8, SERIES_RATE, 100 * seed)
    dense = TorchGraph(bench.graph)
    idp_scores: dict[str, float] = {}
    for level in idp(
        dense, lambda network: network.linears, levels, bench.task, tuning,
        report=lambda at, done, total, loss: report(f"seed {seed}: idp {at}, step {done} of {total}"),
    ):  # fmt: skip
        if level.pattern in SERIES:
            idp_scores[str(level.pattern)] = bench.scores(level.network)["cosine"]
    single: dict[str, float] = {}
    for pattern in SERIES:
        encoder = TorchGraph(bench.graph)
        patterns = dict.fromkeys(encoder.linears, pattern)
        masks = PRUNERS["magnitude"]().prune(encoder, encoder.linears, patterns)
        steps = sum(counts[: levels.index(pattern) + 1])
        settings = replace(tuning, steps=steps, rate=SERIES_RATE * math.sqrt(steps / sum(counts)))
        fine_tune(
            encoder, encoder.linears, patterns, bench.task, settings, masks=masks,
            report=lambda done, total, loss, p=pattern: report(f"seed {seed}: one-shot {p}, step {done} of {total}"),
        )  # fmt: skip
        single[str(pattern)] = bench.scores(encoder)["cosine"]
    return {"idp": idp_scores, "one_shot": single, "cosine": float(np.mean(list(idp_scores.values()))),
            "cosine_one_shot": float(np.mean(list(single.values()))), "steps_of_a_level": SERIES_STEPS}  # fmt: skip


def layer_wise(seed: int, report: Report, nm: str = "8:16") -> Entry:
    """DominoSearch's N of every layer against the same N everywhere: equal cycles, SparseGPT, no fine-tuning."""
    bench = Workbench(Embedder.load(), sentences=1, calibration=256, seed=seed, report=report)
    pattern = parse_nm(nm)
    chosen, cycles, limit = domino_patterns(bench, pattern, CONFIG)
    scores = {}
    for name, patterns in (("domino", chosen), ("uniform", dict.fromkeys(chosen, pattern))):
        encoder = TorchGraph(bench.graph)
        PRUNERS["sparsegpt"]().prune(encoder, encoder.linears, patterns, bench.calibration, report)
        scores[name] = bench.scores(encoder)["cosine"]
    return {"cosine": scores["domino"], "cosine_uniform": scores["uniform"], "cycles": cycles, "cycles_uniform": limit,
            "n": {name: p.n for name, p in chosen.items()}}  # fmt: skip


_DOMINO_BARS = {"cosine": "> cosine_uniform", "cycles": "<= cycles_uniform"}
CASES: dict[str, tuple[Callable[[Report], Entry], dict[str, str]]] = {
    "int8-dense": (dense_int8, {"cosine": ">= 0.995"}),
    "magnitude-8of16": (lambda r: one_shot("magnitude", "8:16", 1, r), {}),
    "wanda-8of16": (lambda r: one_shot("wanda", "8:16", CALIBRATION, r), {}),
    "sparsegpt-8of16": (lambda r: one_shot("sparsegpt", "8:16", CALIBRATION, r), {}),
    "asymmetric-8of16": (lambda r: one_shot("sparsegpt-asymmetric", "8:16", CALIBRATION, r), {"cosine": ">= 0.935"}),
    "asymmetric-4of16": (lambda r: one_shot("sparsegpt-asymmetric", "4:16", CALIBRATION, r), {}),
    "tuned-8of16": (lambda r: tuned("8:16", 3000, 8, 4e-4, r), {"cosine": ">= 0.975", "cpu_seconds": "<= 600"}),
    "tuned-4of16": (lambda r: tuned("4:16", 3000, 8, 6e-4, r), {"cosine": ">= 0.90", "cpu_seconds": "<= 600"}),
    **{f"idp-seed{s}": (lambda r, s=s: series(s, r), {"cosine": "> cosine_one_shot"}) for s in SEEDS},
    **{f"domino-seed{s}": (lambda r, s=s: layer_wise(s, r), _DOMINO_BARS) for s in SEEDS},
}  # fmt: skip


def judge(entry: Entry, bars: dict[str, str]) -> dict[str, Any]:
    """Every bar, a number or another figure's name, and whether it holds."""
    compare = {">=": float.__ge__, "<=": float.__le__, ">": float.__gt__}
    found = {}
    for key, bar in bars.items():
        sign, limit = bar.split()
        value = entry[limit] if limit in entry else float(limit)
        found[key] = {"bar": bar, "ok": bool(compare[sign](float(entry[key]), float(value)))}
    return found


def show(entries: dict[str, Entry]) -> None:
    """All figures as a table."""
    table = Table(title="all-MiniLM-L6-v2, 120 sentences, against dense fp32")
    for column in ("case", "cosine", "compared with", "INT8 cosine", "CPU s", "bars"):
        table.add_column(column)
    for name, e in entries.items():
        other = next((f"{k.removeprefix('cosine_')} {e[k]:.4f}" for k in e if k.startswith("cosine_")), "")
        bars = "; ".join(f"{k} {b['bar']}: {'yes' if b['ok'] else 'NO'}" for k, b in e["bars"].items())
        table.add_row(name, f"{e['cosine']:.4f}", other, f"{e['int8_cosine']:.4f}" if "int8_cosine" in e else "",
                      str(e.get("cpu_seconds", "")), bars)  # fmt: skip
    Console().print(table)


def main(
    case: Annotated[list[str] | None, typer.Option(help="May be repeated; all if not given.")] = None,
    threads: Annotated[int, typer.Option(help="Of PyTorch.", min=1)] = 1,
    results: Annotated[Path, typer.Option(help="The JSON that holds the newest of each case.")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the new entries.")] = False,
) -> None:
    """Measure, keep, show; exit status 1 when a bar is missed."""
    torch.set_num_threads(threads)
    progress = Console(stderr=True)
    for name in case or []:
        if name not in CASES:
            raise InputError(f"--case {name!r} is unknown; there are {', '.join(CASES)}.")
    if results.exists():
        read_json(results, "results")  # refused before the work
    new: dict[str, Entry] = {}
    for name in case or CASES:
        measure, bars = CASES[name]
        with progress.status(name) as status:
            entry = measure(lambda text, n=name, s=status: s.update(f"{n}: {text}"))
        entry |= {"date": datetime.date.today().isoformat(), "tools": tool_versions() | {"torch": torch.__version__}}
        new[name] = entry | {"bars": judge(entry, bars)}
        kept = read_json(results, "results") if results.exists() else {}
        ordered = {k: v for k in CASES if (v := (kept | {name: new[name]}).get(k))}
        write_text(results, json.dumps(ordered, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(new, indent=1))
    else:
        show(read_json(results, "results"))
    if not all(bar["ok"] for entry in new.values() for bar in entry["bars"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    script(main)
