"""Commands that make models sparse: prune, evaluate, import."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_app import app
from .cli_configuration import read_configuration
from .cli_paths import require_writable
from .cli_program import ModelOption, PresetOption, TableOption
from .cli_terminal import JsonOption, Watch, complain, print_json, print_table, say, watched
from .errors import InputError
from .model.embedder import Embedder, read_patterns
from .patterns import parse_nm

if TYPE_CHECKING:
    from .sparsity.store import Stored

__all__: list[str] = []

OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Folder of pruned networks, one folder each.")]


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError("PyTorch is not installed; pip install 'sta-hw[sparsity]' brings it.") from None


@app.command(epilog="Example: sta-hw prune --nm 8:16 --steps 200")
def prune(
    method: Annotated[
        str,
        typer.Option(
            help="magnitude, wanda, sparsegpt, sparsegpt-asymmetric, sr-ste, idp (a series down to N:M) or domino."
        ),
    ] = "sparsegpt-asymmetric",
    nm: Annotated[str, typer.Option(help="N:M; for domino the uniform one whose cost is the budget.")] = "8:16",
    nm_table: TableOption = None,
    steps: Annotated[int, typer.Option(help="Of fine-tuning by distillation, at each level of a series.")] = 0,
    batch: Annotated[int, typer.Option(help="Sentences of a step.")] = 8,
    rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 4e-4,
    aware_steps: Annotated[
        int, typer.Option(help="Of quantization-aware fine-tuning after it, at a tenth of the rate.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of sentences and batches.")] = 0,
    calibration: Annotated[int, typer.Option(help="Sentences that one-shot pruners look at.", min=1)] = 256,
    budget: Annotated[str, typer.Option(help="Of domino: parameters, macs or cycles.")] = "cycles",
    model: ModelOption = None,
    preset_name: PresetOption = "reference",
    output: OutputOption = Path("build/pruned"),
    as_json: JsonOption = False,
) -> None:
    """Prune a text encoder to N:M, fine-tune it on the fp32 embeddings, keep it for compile and evaluate.

    What is finished is not made again, and fine-tuning goes on where it was interrupted.
    """
    _require_torch()
    from .sparsity.aware import tune_quantized
    from .sparsity.finetune import Tuning
    from .sparsity.methods import METHODS
    from .sparsity.methods import prune as work_through
    from .sparsity.store import load_pruned, save_pruned
    from .sparsity.workbench import Workbench

    config, pattern = read_configuration(preset_name, top="accelerator"), parse_nm(nm)
    tuning = Tuning(steps, batch, rate, seed)
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; it is {', '.join(METHODS)}.")
    require_writable(folders=[output])
    settings = {
        "method": method, "nm": nm, "steps": steps, "batch": batch, "rate": rate, "seed": seed,
        "aware_steps": aware_steps, "calibration": calibration,
        "budget": budget if method == "domino" else None, "model": str(model or ""),
        "nm_table": nm_table.read_text(encoding="utf-8") if nm_table and nm_table.exists() else None,
    }  # fmt: skip
    suffix = f"-steps{steps}" + (f"-aware{aware_steps}" if aware_steps else "") + f"-seed{seed}"
    name = f"{method}-{pattern.n}of{pattern.m}{suffix}"
    states = output / ".states" / name
    done = states / "done.json"
    if done.exists() and (kept := json.loads(done.read_text(encoding="utf-8")))["settings"] == settings:
        complain(f"{name} is there already.")
        _show_pruned([load_pruned(Path(p)) for p in kept["folders"]], as_json)
        return

    def work(watch: Watch) -> list[Stored]:
        watch.step("loading the model")
        embedder = Embedder.load(model)
        patterns = read_patterns(nm, nm_table, embedder.model.layers) if nm_table else None
        bench = Workbench(
            embedder, sentences=max(calibration, min(16384, (steps + aware_steps) * batch)), calibration=calibration,
            seed=seed, report=watch.step,
        )  # fmt: skip

        def progress(what: str, step: int, total: int, loss: float) -> None:
            if step == 1:
                watch.step(what)
            watch(step, total)
            watch.describe(f"{what}, loss {loss:.4f}")

        found = []
        for pruned in work_through(
            bench, method, pattern, tuning, config, patterns=patterns, budget=budget, states=states, progress=progress
        ):
            if aware_steps:
                tune_quantized(
                    bench, pruned.encoder, pruned.patterns, replace(tuning, steps=aware_steps, rate=rate / 10), config,
                    state=states / f"aware-{pruned.name.replace(':', 'of')}.safetensors",
                    report=lambda step, total, loss: progress("quantization-aware", step, total, loss),
                )  # fmt: skip
            folder = output / f"{method}-{pruned.name.replace(':', 'of')}{suffix}"
            stored = save_pruned(
                folder, pruned.encoder.to_model(), pruned.patterns,
                settings | {"nm": pruned.name, "total_steps": pruned.steps},
                model / "tokenizer.json" if model else None,
            )  # fmt: skip
            stored.measured["fp32"] = bench.scores(pruned.encoder)
            stored.save()
            found.append(stored)
        states.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps({"settings": settings, "folders": [str(s.folder) for s in found]}))
        return found

    _show_pruned(watched("prune", "steps", work), as_json)


def _show_pruned(found: list[Stored], as_json: bool) -> None:
    if as_json:
        print_json([{"folder": str(s.folder), **s.settings, **s.measured} for s in found])
        return
    rows = []
    for s in found:
        scores = s.measured["fp32"]
        rows.append(
            (str(s.folder), s.settings["method"], s.settings["nm"], str(s.settings["total_steps"]),
             f"{scores['cosine']:.4f}", f"{scores['spearman']:.4f}")
        )  # fmt: skip
    title = "pruned: fp32 against dense fp32, 120 sentences"
    print_table(title, ("folder", "method", "N:M", "steps", "cosine", "Spearman"), rows, left=3)
    last = found[-1]
    say(f"Next: sta-hw compile --model {quote(str(last.folder))} --nm-table {quote(str(last.table))}")


@app.command(epilog="Example: sta-hw evaluate build/pruned --layers")
def evaluate(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Pruned networks, or folders of them; build/pruned if not given.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Of the texts whose cycles are estimated.", min=1)] = 128,
    layers: Annotated[bool, typer.Option("--layers", help="Bits per weight of every layer too.")] = False,
    preset_name: PresetOption = "reference",
    picture: Annotated[Path, typer.Option(help="Accuracy against density, cycles and memory.")] = Path(
        "build/evaluation.png"
    ),
    as_json: JsonOption = False,
) -> None:
    """Accuracy in fp32 and in the accelerator's integers, cycles and memory of pruned networks: table and picture."""
    _require_torch()
    from .sparsity.evaluation import draw, measure
    from .sparsity.store import load_pruned

    config = read_configuration(preset_name, top="accelerator")
    places = [p for folder in folders or [Path("build/pruned")] for p in sorted([folder, *folder.glob("*")])]
    stored = [load_pruned(p) for p in places if (p / "pruned.json").exists()]
    if not stored:
        raise InputError("there is no pruned network; sta-hw prune makes one.")
    require_writable(files=[picture])
    rows = watched("evaluate", "", lambda watch: [measure(s, config, tokens, watch.step) for s in stored])
    picture.parent.mkdir(parents=True, exist_ok=True)
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
    note = "index, bitmap, limit: bits per weight of the two encodings, and the fewest possible."
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


@app.command(name="import", epilog="Example: sta-hw import model.onnx -o build/imported")
def import_model(
    file: Annotated[Path, typer.Argument(help="An encoder's ONNX graph, or a ViT or BERT checkpoint's folder.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json to put beside it.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the checkpoint.")] = Path("build/imported"),
    as_json: JsonOption = False,
) -> None:
    """Read an encoder of the BERT or ViT family, check an ONNX graph against onnxruntime, write a checkpoint."""
    import shutil

    from .model.bert import BertModel
    from .model.onnx_import import import_onnx
    from .model.vision import VisionModel

    require_writable(folders=[output])
    about: dict[str, Any] = {"file": str(file), "output": str(output)}
    model: BertModel | VisionModel
    if file.is_dir():
        try:
            kind = json.loads((file / "config.json").read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError) as error:
            raise InputError(f"model folder {file}: {error}.") from error
        model = VisionModel.load(file) if kind in ("vit", "deit") else BertModel.load(file)
    else:
        imported = import_onnx(file)
        model = imported.model
        about |= {"left_out": imported.left_out, "difference_from_onnxruntime": imported.difference}
    encoder = model.encoder if isinstance(model, VisionModel) else model
    model.save(output)
    if tokenizer:
        try:
            shutil.copyfile(tokenizer, output / "tokenizer.json")
        except OSError as error:
            raise InputError(f"tokenizer {tokenizer}: {error.strerror}.") from error
    about |= {
        "family": "ViT" if isinstance(model, VisionModel) else "BERT", "layers": encoder.layers,
        "hidden": encoder.hidden, "heads": encoder.heads, "intermediate": encoder.intermediate,
    }  # fmt: skip
    if as_json:
        print_json(about)
        return
    for name, value in about.items():
        say(f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
