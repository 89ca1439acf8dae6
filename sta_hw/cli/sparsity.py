"""Commands that make models sparse: prune and evaluate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..files import distinct, read_json
from ..model.language import holds_decoder
from ..sparsity.costs import BUDGETS
from ..sparsity.names import METHODS
from ..sparsity.store import compared_with
from ..spec.patterns import listed, parse_nm
from ..tasks.embedder import Embedder
from ..tasks.patterns import OWN_TABLE, read_patterns
from .app import Unused, app
from .configuration import read_configuration
from .options import ModelOption, PresetOption, TableOption
from .paths import require_writable
from .sparse_decoder import PrunedAs, prune_decoder, require_torch
from .terminal import JsonOption, Watch, complain, print_json, print_table, say, watched

if TYPE_CHECKING:
    from ..sparsity.jobs import Job
    from ..sparsity.store import Stored

__all__: list[str] = []

OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Folder of pruned networks, one folder each.")]


_PICTURES = (".png", ".svg", ".pdf")


def _tunes(options: Mapping[str, Any]) -> bool:
    return bool(options["steps"] or options["aware_steps"])


_OF_ENCODERS = ("aware_steps", "budget", "preset_name")


def _of_decoder(options: Mapping[str, Any]) -> bool:
    return options["decoder"] or (options["model"] is not None and holds_decoder(options["model"]))


def _counts_cycles(options: Mapping[str, Any]) -> bool:
    return options["method"] == "domino" and options["budget"] == "cycles"


@app.command(
    epilog="Example: sta-hw prune --nm 8:16 --steps 200",
    unused=[
        Unused(("rate", "batch"), lambda o: not _tunes(o), "without --steps or --aware-steps"),
        Unused(("bfloat16",), lambda o: not o["steps"], "without --steps"),
        Unused(("bfloat16",), lambda o: not _of_decoder(o), "but for a decoder"),
        Unused(("budget",), lambda o: o["method"] != "domino", "except by --method domino"),
        Unused(("nm_table",), lambda o: o["method"] in ("domino", "idp"),
               "by --method domino or idp, which choose N:M themselves"),
        Unused(_OF_ENCODERS, lambda o: _of_decoder(o), "for a decoder"),
        Unused(("calibration",), lambda o: o["method"] == "magnitude" and _of_decoder(o),
               "for a decoder by --method magnitude, which looks at no sentences"),
        Unused(("seed",), lambda o: o["method"] == "magnitude" and _of_decoder(o) and not o["steps"],
               "for a decoder by --method magnitude without --steps, which looks at no sentences"),
        Unused(("preset_name",), lambda o: not _counts_cycles(o) and not o["aware_steps"],
               "but for a budget of cycles or with --aware-steps"),
    ],
)  # fmt: skip
def prune(
    method: Annotated[
        str,
        typer.Option(
            help="magnitude, wanda, sparsegpt, sparsegpt-asymmetric, sr-ste, idp (a series down to N:M) or domino."
        ),
    ] = "sparsegpt-asymmetric",
    nm: Annotated[
        str,
        typer.Option(help="N:M; for domino the uniform one whose cost is the budget: of a decoder, bytes a token."),
    ] = "8:16",
    nm_table: TableOption = None,
    steps: Annotated[
        int, typer.Option(help="Steps of fine-tuning by distillation, at each level of a series.", min=0, max=10**7)
    ] = 0,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Sentences that a step takes; of a decoder, texts of 256 tokens.",
            min=1,
            max=4096,
            show_default="8; 2 of a decoder",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Largest learning rate.", max=1.0, show_default="4e-4; 2e-4 of a decoder")
    ] = None,
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bfloat16", help="Products of a decoder's fine-tuning in bfloat16: faster if the CPU multiplies it."
        ),
    ] = False,
    aware_steps: Annotated[
        int, typer.Option(help="Steps of quantization-aware tuning after it, at a tenth of the rate.", min=0, max=10**7)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of sentences and batches.", min=0, max=2**31 - 1)] = 0,
    calibration: Annotated[
        int | None,
        typer.Option(
            help="Sentences that one-shot pruners look at.", min=1, max=16384, show_default="256; 600 of a decoder"
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="What domino counts: parameters, macs or cycles.")] = "cycles",
    model: ModelOption = None,
    decoder: Annotated[
        bool, typer.Option("--decoder", help="Prune SmolLM2-135M-Instruct, or the decoder that --model names.")
    ] = False,
    preset_name: PresetOption = "reference",
    output: OutputOption = Path("build/pruned"),
    as_json: JsonOption = False,
) -> None:
    """Prune a text encoder or a decoder to N:M, and fine-tune it.

    An encoder is tuned on the fp32 embeddings, and kept for compile and evaluate; a decoder on the dense one's next
    tokens, and kept for generate-text and chat.

    What is finished is not made again, and fine-tuning goes on where it was interrupted.
    """
    _require_method(method, budget, steps, rate)
    config, pattern = read_configuration(preset_name, top="accelerator"), parse_nm(nm)
    if pattern.dense and nm_table is None:
        raise InputError("there is nothing to prune at N = M; 8:16 is a mild choice.")
    if nm_table is not None:
        read_json(nm_table, "N:M table")
    require_writable(folders=[output])
    if _of_decoder({"decoder": decoder, "model": model}):
        wanted = PrunedAs(method, nm, nm_table, calibration, steps, batch or 2, rate or 2e-4, seed, bfloat16)
        prune_decoder(model, wanted, output, as_json)
        return
    calibration, batch, rate = calibration or 256, batch or 8, rate or 4e-4
    require_torch()
    from ..sparsity.finetune import Tuning
    from ..sparsity.jobs import Job

    tuning = Tuning(steps, batch, rate, seed)
    embedder = Embedder.load(model)
    embedder.require_text_embedding()
    if embedder.source.pruned:
        complain(f"{model} is pruned already: what comes of it is compared with it, not with a dense network.")
    patterns = read_patterns(nm, nm_table, embedder.linears) if nm_table else None
    job = Job(
        method, pattern, tuning, aware_steps, calibration, budget, patterns, config, preset_name, embedder, output
    )  # fmt: skip
    if nm_table:
        distinct({"a pruned network's table": job.folder(str(pattern)) / OWN_TABLE}, {"--nm-table": nm_table})
    _show_pruned(_there(job) or watched("prune", "steps", lambda watch: _work_through(job, watch)), as_json)


def _require_method(method: str, budget: str, steps: int, rate: float | None) -> None:
    """Refuse methods and budgets that there are not, and what a method cannot do."""
    if method not in METHODS:
        near = get_close_matches(method, METHODS, n=1, cutoff=0)[0]
        raise InputError(f"method {method!r} is unknown; it is {', '.join(METHODS)}, the nearest is {near}.")
    if budget not in BUDGETS:
        raise InputError(f"budget {budget!r} is unknown; it is {', '.join(BUDGETS)}.")
    if method == "sr-ste" and not steps:
        raise InputError("method sr-ste prunes while it fine-tunes, and --steps is 0; 200 is a short run.")
    if rate is not None and not 0 < rate < math.inf:
        raise InputError(f"--rate {rate} is out of range; it is above 0, such as 4e-4.")


def _there(job: Job) -> list[Stored]:
    """What is finished of a job; if nothing is and something stands in its place, say why it is made again."""
    found, problem = job.finished()
    if found:
        complain(f"{job.name} is there already.")
    elif problem:
        complain(f"{job.name} is made again: {problem}.")
    return found


def _work_through(job: Job, watch: Watch) -> list[Stored]:
    """Prune, tune and keep the networks of a job."""
    from ..sparsity.aware import tune_quantized
    from ..sparsity.methods import prune as pruned_networks
    from ..sparsity.store import save_pruned
    from ..sparsity.workbench import Workbench

    embedder, tuning, config = job.embedder, job.tuning, job.config
    assert embedder.tokenizer is not None
    sentences = max(job.calibration, min(16384, (tuning.steps + job.aware_steps) * tuning.batch))
    bench = Workbench(
        embedder, sentences=sentences, calibration=job.calibration, seed=tuning.seed, report=watch.step
    )  # fmt: skip

    def progress(what: str, step: int, total: int, loss: float) -> None:
        if step == 1:
            watch.step(what)
        watch(step, total)
        watch.describe(f"{what}, loss {loss:.4f}")

    states = job.clean_states()
    found = []
    for pruned in pruned_networks(
        bench, job.method, job.pattern, tuning, config, patterns=job.patterns, budget=job.budget, states=states,
        progress=progress,
    ):  # fmt: skip
        if job.aware_steps:
            tune_quantized(
                bench, pruned.encoder, pruned.patterns,
                replace(tuning, steps=job.aware_steps, rate=tuning.rate / 10), config,
                state=states / f"aware-{pruned.name.replace(':', 'of')}.safetensors",
                report=lambda step, total, loss: progress("quantization-aware", step, total, loss),
            )  # fmt: skip
        settings = job.settings | {"nm": pruned.name, "total_steps": pruned.steps}
        graph = embedder.part.with_inner(pruned.encoder.to_graph()).graph
        found.append(
            save_pruned(
                job.folder(pruned.name), embedder.network, graph, pruned.patterns, embedder.tokenizer.text,
                settings=settings, source=embedder.source, key=job.key,
                measured={"fp32": bench.scores(pruned.encoder)},
            )
        )  # fmt: skip
    job.finish(found)
    return found


def _show_pruned(found: list[Stored], as_json: bool) -> None:
    if as_json:
        others = [{"compared_with": compared_with(s.source), "dense": not s.source.pruned} for s in found]
        figures = ({"folder": str(s.folder), **s.settings, **s.measured} for s in found)
        print_json([f | o for f, o in zip(figures, others, strict=True)])
        return
    rows = []
    for s in found:
        scores = s.measured["fp32"]
        rows.append(
            (str(s.folder), s.settings["method"], s.settings["nm"], str(s.settings["total_steps"]),
             f"{scores['cosine']:.4f}", f"{scores['spearman']:.4f}")
        )  # fmt: skip
    title = (
        f"pruned: fp32 against {'' if found[0].source.pruned else 'dense '}fp32 of {compared_with(found[0].source)}, "
    )
    title += "120 sentences"
    print_table(title, ("folder", "method", "N:M", "steps", "cosine", "Spearman"), rows, left=3)
    last = found[-1]
    say(f"Next: sta-hw compile --model {quote(str(last.folder))}")


@app.command(epilog="Example: sta-hw evaluate build/pruned --layers")
def evaluate(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Pruned networks, or folders of them; build/pruned if not given.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the texts whose cycles are estimated.", min=1, max=4096)] = 128,
    layers: Annotated[bool, typer.Option("--layers", help="Bits per weight of every layer too.")] = False,
    preset_name: PresetOption = "reference",
    picture: Annotated[Path, typer.Option(help="Accuracy against density, cycles and memory.")] = Path(
        "build/evaluation.png"
    ),
    as_json: JsonOption = False,
) -> None:
    """Accuracy, cycles and memory of pruned networks.

    In fp32 and in the accelerator's integers; a table and a picture.
    """
    config = read_configuration(preset_name, top="accelerator")
    config.require_accelerator()
    require_writable(files=[picture])
    if picture.suffix not in _PICTURES:
        raise InputError(
            f"--picture {picture}: {picture.suffix or 'no ending'} is no picture; {listed(_PICTURES)} are."
        )
    require_torch()
    from ..sparsity.decoders import DECODER_DESCRIPTION
    from ..sparsity.evaluation import draw, measure
    from ..sparsity.store import load_pruned

    places = [p for folder in folders or [Path("build/pruned")] for p in sorted([folder, *folder.glob("*")])]
    stored = [load_pruned(p) for p in places if (p / "pruned.json").exists()]
    empty = [f for f in folders or () if not any(s.folder == f or s.folder.parent == f for s in stored)]
    if empty or not stored:
        decoders = [p for p in places if (p / DECODER_DESCRIPTION).exists()]
        raise InputError(
            f"there is no pruned encoder in {', '.join(map(str, empty)) or 'build/pruned'}; "
            + (f"{decoders[0]} is a decoder, which generate-text runs." if decoders else "sta-hw prune makes one.")
        )
    distinct({"--picture": picture}, {f"the network {s.folder.name}": s.folder for s in stored})
    rows = watched("evaluate", "", lambda watch: [measure(s, config, tokens, watch.step) for s in stored])
    draw(rows, picture)
    if as_json:
        print_json([asdict(r) for r in rows])
        return
    cells = []
    for r in rows:
        whole = r.compression[-1]
        cells.append(
            (r.name, f"{r.density:.3f}", f"{r.fp32['cosine']:.4f}", f"{r.int8['cosine']:.4f}",
             f"{r.int8['spearman']:.4f}", f"{r.cycles:,.0f}", f"{whole.bytes / 1024:,.0f}", f"{whole.index:.2f}",
             f"{whole.bitmap:.2f}", f"{whole.limit:.2f}")
        )  # fmt: skip
    columns = ("network", "density", "fp32 cosine", "INT8 cosine", "INT8 Spearman", "cycles", "KiB of weights",
               "index", "bitmap", "limit")  # fmt: skip
    note = "index, bitmap, limit: bits per weight of the two encodings, and the fewest possible. Compared with fp32 of "
    note += f"{', '.join(sorted({r.compared_with for r in rows}))}."
    print_table(f"{len(rows)} networks, {tokens} tokens, {preset_name}", columns, cells, note=note)
    if layers:
        for r in rows:
            _print_compression(r.name, r.compression)
    say(f"Picture: {picture}")


def _print_compression(name: str, rows: list[Any]) -> None:
    cells = [
        (r.layer, r.pattern, f"{r.weights:,}", f"{r.index:.3f}", f"{r.bitmap:.3f}", f"{r.limit:.3f}", f"{r.bytes:,}")
        for r in rows
    ]
    columns = ("layer", "N:M", "weights", "index", "bitmap", "limit", "bytes")
    print_table(f"{name}: bits per weight, values and positions", columns, cells, left=2)
