"""The command line: generate, bench, doctor; the modules beside add the others."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__
from .cli_configuration import changed, read_configuration
from .config import Config
from .errors import CheckError, ConfigError, InputError, ToolError
from .presets import PRESETS

__all__ = ["app", "main"]

app = typer.Typer(
    help="STA-HW: generate, simulate and measure accelerators for N:M sparse Transformers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of a table.")]


def main() -> None:
    """Entry point: errors become one message on stderr, status 2 for bad input, 1 for a failed check, 3 for a
    tool or an environment that failed."""
    from . import cli_demo, cli_fpga, cli_program, cli_sparsity  # noqa: F401  add their commands

    try:
        app()
    except InputError as error:
        for line in str(error).splitlines():
            err.print(f"sta-hw: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except CheckError as error:
        err.print(f"sta-hw: check failed: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except ToolError as error:
        err.print(f"sta-hw: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(3)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"sta-hw {__version__}")
        raise typer.Exit


def _configure(preset_name: str, options: dict[str, Any], problems: list[str]) -> Config | None:
    """The preset with the options that were given; what is wrong is added to `problems`."""
    base = PRESETS["reference"]
    try:
        base = read_configuration(preset_name)
    except ConfigError as error:
        problems.extend(error.problems)
    try:
        return changed(base, {name: value for name, value in options.items() if value is not None})
    except ConfigError as error:
        problems.extend(error.problems)
        return None


def _folder_problem(folder: Path) -> str | None:
    """Why `folder` cannot be written, in one sentence; nothing is created."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"output folder {folder} cannot be written: {existing} is not a folder; choose another with -o."
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"output folder {folder} cannot be written: no permission in {existing}; choose another with -o."
    return None


@app.command(epilog="Example: sta-hw generate --rows 16 --groups 8 --nm 2:4,1:4,dense --top engine -o build/engine")
def generate(
    rows: Annotated[int | None, typer.Option(help="Rows of the array (tokens).")] = None,
    groups: Annotated[int | None, typer.Option(help="Groups of the array (windows).")] = None,
    window: Annotated[int | None, typer.Option(help="Activations per window: 4, 8, 16 or 32.")] = None,
    nm: Annotated[str | None, typer.Option(help="any, or a list such as 2:4,1:4,dense.")] = None,
    encodings: Annotated[str | None, typer.Option(help="index, bitmap or index,bitmap.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Rows loaded per cycle.")] = None,
    drain_lanes: Annotated[int | None, typer.Option(help="Results drained per cycle.")] = None,
    columns: Annotated[int | None, typer.Option(help="Accumulator depth, a power of two.")] = None,
    multiplier: Annotated[
        str | None, typer.Option(help="auto, dsp, lut, or for two rows pair, dsp-pair, mac16.")
    ] = None,
    window_memory: Annotated[str | None, typer.Option(help="block or distributed.")] = None,
    softmax_lanes: Annotated[int | None, typer.Option(help="Softmax elements per cycle.")] = None,
    softmax_block: Annotated[int | None, typer.Option(help="Softmax elements that share an exponent.")] = None,
    weight_words: Annotated[int | None, typer.Option(help="Accelerator: words of weights on chip.")] = None,
    parameter_words: Annotated[int | None, typer.Option(help="Accelerator: columns' parameters on chip.")] = None,
    norm_columns: Annotated[int | None, typer.Option(help="Accelerator: LayerNorm columns on chip.")] = None,
    top: Annotated[str, typer.Option(help="accelerator, engine, softmax or decoder.")] = "engine",
    preset: Annotated[str, typer.Option(help=f"Start from: {', '.join(PRESETS)}, or a manifest.")] = "reference",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files.")] = Path("build"),
    as_json: JsonOption = False,
) -> None:
    """Write Verilog, a JSON manifest, a FuseSoC core and an instantiation example."""
    from .generate import TOPS, manifest
    from .generate import generate as write

    problems: list[str] = []
    sizes = {"weight_words": weight_words, "parameter_words": parameter_words, "norm_columns": norm_columns}
    split = {"nm": nm, "encodings": encodings}
    options = {
        "rows": rows, "groups": groups, "window": window, "lanes": lanes, "drain_lanes": drain_lanes,
        "columns": columns, **sizes,
        "multiplier": multiplier, "window_memory": window_memory, "softmax_lanes": softmax_lanes,
        "softmax_block": softmax_block,
        **{k: tuple(w.strip() for w in v.split(",") if w.strip()) for k, v in split.items() if v is not None},
    }  # fmt: skip
    config = _configure(preset, options, problems)
    if top == "accelerator" and config is not None:
        try:
            config.require_accelerator()
        except ConfigError as error:
            problems.extend(error.problems)
    if top not in TOPS:
        problems.append(f"top {top!r} is unknown; it is {', '.join(TOPS)}.")
    if problem := _folder_problem(output):
        problems.append(problem)
    if problems or config is None:
        raise ConfigError(problems)
    files = write(top, config, output)
    description = manifest(top, config)
    if as_json:
        typer.echo(json.dumps({"files": [str(f) for f in files], **description}, indent=2))
        return
    table = Table(title=f"{top}: {config.rows} x {config.groups}, window {config.window}, hash {config.hash}")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for file in files:
        table.add_row(str(file), f"{file.stat().st_size:,}")
    out.print(table)


def _with_progress(title: str, work: Callable[[Callable[[str], None]], Any]) -> Any:
    """Run `work` under a progress line on stderr; it is handed a function that names the step."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title)
        return work(lambda step: progress.update(task, description=f"{title}: {step}"))


@app.command(epilog="Example: sta-hw bench engine --json")
def bench(
    name: Annotated[str, typer.Argument(help="engine, softmax, encoder, accuracy, model, sim or digits.")] = "engine",
    as_json: JsonOption = False,
) -> None:
    """Run a benchmark; exit status 1 when a figure misses its bar."""
    from .bench import BENCHES

    if name not in BENCHES:
        raise InputError(f"benchmark {name!r} is unknown; it is {', '.join(BENCHES)}.")
    report = _with_progress(f"bench {name}", BENCHES[name])
    show_report(report, as_json)
    if not report.ok:
        missed = ", ".join(f.name for f in report.figures if not f.ok)
        raise CheckError(f"below the bar: {missed}")


def show_report(report: Any, as_json: bool) -> None:
    """Print a benchmark's report as JSON, or as tables of its rows and figures."""
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
        return
    names = list(dict.fromkeys(key for row in report.rows for key in row))
    table = Table(title=f"{report.bench}: rows")
    for column in names:
        table.add_column(column.replace("_", " "))
    for row in report.rows:
        table.add_row(*(_shown(row.get(column, "")) for column in names))
    out.print(table)
    table = Table(title=f"{report.bench}: figures")
    for column in ("figure", "value", "unit", "bar", "ok"):
        table.add_column(column)
    for figure in report.figures:
        table.add_row(figure.name, _shown(figure.value), figure.unit, figure.bar, "yes" if figure.ok else "NO")
    out.print(table)


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


@app.command(epilog="Example: sta-hw doctor --json")
def doctor(as_json: JsonOption = False) -> None:
    """Say which tools are there, at which version, and how to get what is missing."""
    from .doctor import examine

    tools = examine()
    missing = [t.name for t in tools if t.required and t.version is None]
    if as_json:
        typer.echo(json.dumps({"tools": [dataclasses.asdict(t) for t in tools], "missing": missing}, indent=2))
    else:
        table = Table(title="tools")
        for column in ("tool", "for", "version", "how to get it"):
            table.add_column(column)
        for tool in tools:
            needed = "missing" if tool.required else "missing (optional)"
            table.add_row(tool.name, tool.purpose, tool.version or needed, "" if tool.version else tool.remedy)
        out.print(table)
    if missing:
        raise CheckError(f"missing: {', '.join(missing)}")
