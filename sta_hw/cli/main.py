"""The command line: generate, bench, doctor; the modules beside add the others."""

from __future__ import annotations

import dataclasses
import json
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import CheckError, ConfigError, InputError
from ..files import distinct, require_own
from ..spec.config import Config
from ..spec.features import FEATURES
from ..spec.patterns import parse_nm
from ..spec.presets import PRESETS
from .app import Unused, app, end
from .configuration import changed, manifest_file, read_configuration
from .paths import folder_problem
from .terminal import JsonOption, print_json, print_table, say, watched

__all__ = ["HERE", "MODULES", "add_commands", "main", "show_report"]


MODULES = {
    "batch": ("embed", "classify"),
    "cache": ("cache",),
    "compilation": ("compile",),
    "demo": ("demo",),
    "demo_llm": ("demo-llm",),
    "estimate": ("estimate",),
    "explore": ("explore",),
    "fpga": ("synth", "fit", "build", "flash", "selftest"),
    "importing": ("import",),
    "inputs": ("input",),
    "plan": ("plan",),
    "report": ("report", "trace"),
    "run": ("run",),
    "sparsity": ("prune", "evaluate"),
    "text": ("generate-text", "chat"),
}
"""Modules beside this one, and the commands of each."""
HERE = ("generate", "bench", "doctor")
"""Commands of this module."""


def main() -> None:
    """Entry point: every error becomes one message on stderr and an exit status; see `sta_hw.cli.app`."""

    def run() -> int | None:
        words = sys.argv[1:]
        if words != ["--version"]:
            add_commands(next((word for word in words if not word.startswith("-")), ""))
        return app(standalone_mode=False)

    sys.exit(end(run))


def add_commands(wanted: str = "") -> None:
    """Have the modules add their commands to `sta_hw.cli.app.app`: the one that has the command `wanted`, or all.

    Together they import most of the package, a second's work.
    """
    if wanted not in HERE:
        only = [module for module, commands in MODULES.items() if wanted in commands]
        for module in only or MODULES:
            import_module(f".{module}", __package__)


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


_SOFTMAX = ("softmax_lanes", "softmax_block")
_ACCELERATOR = ("weight_words", "parameter_words", "norm_columns", "features", "window_words", "loads_ahead")
_ARRAY = ("rows", "lanes", "drain_lanes", "multiplier", "window_memory")
_WEIGHTS = ("groups", "window", "nm", "encodings", "columns")
_MOST_MACS = 8192
"""Of a generated array: Yosys takes a minute for each 2,800 or so, and a gigabyte for each 2,000."""


@app.command(
    epilog="Example: sta-hw generate --rows 16 --groups 8 --nm 2:4,1:4,dense --top engine -o build/engine",
    unused=[
        Unused(_SOFTMAX, lambda o: o["top"] in ("engine", "accelerator", "decoder"), "except by --top softmax"),
        Unused(_ACCELERATOR, lambda o: o["top"] in ("engine", "softmax", "decoder"), "except by --top accelerator"),
        Unused(_ARRAY, lambda o: o["top"] in ("softmax", "decoder"), "by --top softmax or decoder"),
        Unused(_WEIGHTS, lambda o: o["top"] == "softmax", "by --top softmax"),
    ],
)
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
        str | None, typer.Option(help="auto, dsp, nexus, gowin, lut; for two rows at once pair, dsp-pair, mac16.")
    ] = None,
    window_memory: Annotated[str | None, typer.Option(help="block or distributed.")] = None,
    softmax_lanes: Annotated[int | None, typer.Option(help="Softmax elements per cycle.")] = None,
    softmax_block: Annotated[int | None, typer.Option(help="Softmax elements that share an exponent.")] = None,
    weight_words: Annotated[int | None, typer.Option(help="Accelerator: words of weights on chip.")] = None,
    parameter_words: Annotated[int | None, typer.Option(help="Accelerator: columns' parameters on chip.")] = None,
    norm_columns: Annotated[int | None, typer.Option(help="Accelerator: LayerNorm columns on chip.")] = None,
    features: Annotated[
        str | None, typer.Option(help=f"Accelerator: decoder for all, or of {', '.join(FEATURES)}.")
    ] = None,
    window_words: Annotated[int | None, typer.Option(help="Accelerator: bus words of windows kept on chip.")] = None,
    loads_ahead: Annotated[int | None, typer.Option(help="Accelerator: 1: weights without pauses between.")] = None,
    top: Annotated[str, typer.Option(help="accelerator, engine, softmax or decoder.")] = "engine",
    preset: Annotated[str, typer.Option(help=f"Start from: {', '.join(PRESETS)}, or a manifest.")] = "reference",
    name: Annotated[str | None, typer.Option(help="Name of module, core, files; the top level's if not given.")] = None,
    hierarchy: Annotated[bool, typer.Option("--hierarchy", help="One module for each block, not one in all.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files.")] = Path("build"),
    as_json: JsonOption = False,
) -> None:
    """Write Verilog and what goes with it.

    The Verilog is one file that stands alone. Beside it lie a JSON manifest, a FuseSoC core, C headers and an
    instantiation example. A parameter that is not given is the preset's.
    """
    from ..generate.generator import TOPS
    from ..generate.generator import generate as write
    from ..rtl.names import check_name

    problems: list[str] = []
    sizes = {"weight_words": weight_words, "parameter_words": parameter_words, "norm_columns": norm_columns}
    split = {"nm": nm, "encodings": encodings, "features": features}
    options = {
        "rows": rows, "groups": groups, "window": window, "lanes": lanes, "drain_lanes": drain_lanes,
        "columns": columns, **sizes, "window_words": window_words, "loads_ahead": loads_ahead,
        "multiplier": multiplier, "window_memory": window_memory, "softmax_lanes": softmax_lanes,
        "softmax_block": softmax_block,
        **{k: tuple(w.strip() for w in v.split(",") if w.strip()) for k, v in split.items() if v is not None},
    }  # fmt: skip
    if features is not None and not options["features"]:
        problems.append(f"features is empty; it is decoder for all, or of {', '.join(FEATURES)}.")
    config = _configure(preset, options, problems)
    if top == "accelerator" and config is not None:
        try:
            config.require_accelerator()
        except ConfigError as error:
            problems.extend(error.problems)
    if config is not None and top in ("engine", "accelerator") and config.macs > _MOST_MACS:
        problems.append(
            f"rows x groups = {config.macs:,} multiply-accumulates would take {config.macs // 2800} minutes and "
            f"{config.macs // 2000} GB to emit; at most {_MOST_MACS:,} are generated, such as 128 x 64."
        )
    if top not in TOPS:
        problems.append(f"top {top!r} is unknown; it is {', '.join(TOPS)}.")
    if name is not None:
        try:
            check_name(name)
        except InputError as error:
            problems.append(str(error))
    if problem := folder_problem(output):
        problems.append(problem)
    if problems or config is None:
        raise ConfigError(problems)
    if config != read_configuration(preset):
        # A manifest may be written anew from itself, but not be lost to another configuration.
        distinct({f"-o, {name or top}.json": output / f"{name or top}.json"}, {"--preset": manifest_file(preset)})
    require_own(output / f"{name or top}.json", "ports", "the manifest")
    files = write(top, config, output, name=name, hierarchy=hierarchy)
    if as_json:
        print_json(json.loads(files[1].read_text(encoding="utf-8")) | {"files": [str(f) for f in files]})
        return
    say(f"{name or top}: {config.rows} x {config.groups}, window {config.window}, hash {config.hash}")
    for file in files:
        say(f"{file}: {file.stat().st_size:,} bytes")


_BENCHES_OF_NM = ("decode", "decode-full")


@app.command(
    epilog="Example: sta-hw bench engine --json",
    unused=[Unused(("nm",), lambda o: o["name"] not in _BENCHES_OF_NM, "except by decode and decode-full")],
)
def bench(
    name: Annotated[
        str,
        typer.Argument(help="One of these."),
    ] = "engine",
    nm: Annotated[
        str, typer.Option(help="For decode and decode-full: N:M of the layers, such as dense,2:4.")
    ] = "dense",
    as_json: JsonOption = False,
) -> None:
    """Run a benchmark.

    Each takes minutes. The exit status is 1 when a figure misses its bar.

    \b
    engine          the matrix engine alone, each N:M: fraction of ideal
    softmax         the softmax alone: error and rate
    encoder         all of all-MiniLM-L6-v2, 128 tokens, several N:M
    batch           many sentences through the same weights
    accuracy        quantized embeddings against fp32
    model           the cycle model against RTL
    sim             cycles a second of the simulation
    digits          a vision transformer trained here, on labels
    explore         500 points of an exploration on two processes
    perplexity      SmolLM2 in integers against fp32: half an hour
    decode          a token and a prompt of SmolLM2: cycles, bandwidth
    decode-full     the same, all layers simulated
    decode-batch    four texts at once: cycles a token
    decode-blocks4  a token with weights of 4 bits
    """
    from ..bench import BENCHES

    patterns = [parse_nm(part) for part in nm.split(",")]
    if name not in BENCHES:
        near = get_close_matches(name, BENCHES, n=1, cutoff=0)[0]
        raise InputError(f"benchmark {name!r} is unknown; it is {', '.join(BENCHES)}, the nearest is {near}.")
    chosen = {"patterns": patterns} if name in _BENCHES_OF_NM else {}
    report = watched(f"bench {name}", "", lambda watch: BENCHES[name](watch.step, **chosen))
    show_report(report, as_json)
    if not report.ok:
        missed = ", ".join(f.name for f in report.figures if not f.ok)
        raise CheckError(f"below the bar: {missed}")


def show_report(report: Any, as_json: bool) -> None:
    """Print a benchmark's report as JSON, or as tables of its rows and figures."""
    if as_json:
        print_json(report.as_dict())
        return
    names = list(dict.fromkeys(key for row in report.rows for key in row))
    if names:
        rows = [[_shown(row.get(column, "")) for column in names] for row in report.rows]
        print_table(f"{report.bench}: rows", [n.replace("_", " ") for n in names], rows)
    figures = [(f.name, _shown(f.value), f.unit, f.bar, "yes" if f.ok else "NO") for f in report.figures]
    print_table(f"{report.bench}: figures", ("figure", "value", "unit", "bar", "ok"), figures)


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


@app.command(epilog="Example: sta-hw doctor --json")
def doctor(as_json: JsonOption = False) -> None:
    """Say which tools are there, and how to get the others."""
    from .doctor import examine

    tools = examine()
    missing = [t.name for t in tools if t.required and t.version is None]
    if as_json:
        print_json({"tools": [dataclasses.asdict(t) for t in tools], "missing": missing})
    else:
        rows = []
        for tool in tools:
            needed = "missing" if tool.required else "missing (optional)"
            rows.append((tool.name, tool.purpose, tool.version or needed))
        print_table("tools", ("tool", "for", "version"), rows, left=3)
        for tool in tools:
            if not tool.version:
                say(f"{tool.name} is missing. {tool.remedy}")
    if missing:
        raise CheckError(f"missing: {', '.join(missing)}")
