"""The command that compiles an encoder: compile."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..compiler.contract import Host, contract_paths, raw_files
from ..compiler.model import CompiledModel
from ..compiler.passes import PASSES
from ..compiler.quantize import SCALES
from ..errors import InputError
from ..files import distinct, require_own, write_all
from ..spec.assembly import disassemble_text
from ..spec.isa import program_bytes
from .app import Unused, app
from .configuration import manifest_file, read_configuration
from .model import Pruning, load, require_text
from .options import (
    DEFAULT_TEXT,
    NOTHING_PRUNED,
    CalibrationOption,
    ModelOption,
    OwnPatternOption,
    PresetOption,
    PrunerOption,
    TableOption,
)
from .paths import require_writable
from .terminal import JsonOption, Watch, print_json, print_table, say, watched

__all__: list[str] = []


@app.command(
    name="compile", epilog="Example: sta-hw compile --nm 2:4 --tokens 16 -o build/minilm.npz",
    unused=[NOTHING_PRUNED, Unused(("text",), lambda o: o["tokens"] is not None, "with --tokens, their number")],
)  # fmt: skip
def compile_model(
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    tokens: Annotated[int | None, typer.Option(help="Tokens of the texts it will run.")] = None,
    text: Annotated[str, typer.Option(help="Or a text with so many tokens.")] = DEFAULT_TEXT,
    model: ModelOption = None,
    preset_name: PresetOption = "reference",
    calibration: CalibrationOption = None,
    scales: Annotated[
        str, typer.Option(help="How those of 8-bit tensors are chosen: squared-error or percentile.")
    ] = "squared-error",
    flat: Annotated[
        bool,
        typer.Option("--flat", help="A program without loops: larger, a line of the listing for each instruction."),
    ] = False,
    dump_after: Annotated[str | None, typer.Option(help=f"Print what a pass gives: {', '.join(PASSES)}.")] = None,
    listing: Annotated[bool, typer.Option("--listing", help="Write the program as text too.")] = False,
    raw: Annotated[
        bool, typer.Option(help="Write the image as raw bytes too, with JSON and a C header that say what lies where.")
    ] = True,
    output: Annotated[Path, typer.Option("-o", "--output", help="The compiled model.")] = Path("build/model.npz"),
    as_json: JsonOption = False,
) -> None:
    """Quantize, prune and compile an encoder: image and program."""
    if scales not in SCALES:
        raise InputError(f"scales {scales!r} are unknown; they are {' or '.join(SCALES)}.")
    if dump_after is not None and dump_after not in PASSES:
        raise InputError(f"pass {dump_after!r} is unknown; it is one of {', '.join(PASSES)}.")
    require_text(text)
    pruning = Pruning(nm, nm_table, pruner, calibration)
    pruning.look_at(preset_name)
    config = read_configuration(preset_name, top="accelerator")
    distinct({"-o": output})
    listing_file = output.with_suffix(".txt") if listing else None
    beside = contract_paths(output) if raw else {}
    inputs = {
        "--model": model, "--nm-table": nm_table, "--preset": manifest_file(preset_name), "--calibration": calibration
    }  # fmt: skip
    distinct({"-o": output, "the listing": listing_file, **beside}, inputs)
    if raw:
        require_own(output.with_suffix(".json"), "program", "the image's JSON")
    require_writable(files=[output, *([listing_file] if listing_file else []), *beside.values()])

    dumped: dict[str, str] = {}

    def after(name: str, result: object) -> None:
        if name == dump_after:
            dumped[name] = str(result)

    def work(watch: Watch) -> tuple[CompiledModel, int, Host]:
        watch.step("loading the model")
        embedder = load(model, calibration)
        count = tokens if tokens is not None else embedder.part.tokens or len(embedder.token_ids(text))
        sparse = pruning.pruned(embedder, config, count, watch)
        watch.step("quantizing, compiling")
        program = sparse.compile(config, tokens=count, scales=scales, loops=not flat, after=after)
        return program.compiled, count, embedder.host

    compiled, count, host = watched("compile", "", work)
    files: dict[Path, bytes | str] = {output: compiled.to_bytes()}
    if raw:
        files |= raw_files(compiled, output, host)
    if listing_file:
        files[listing_file] = disassemble_text(compiled.instructions, compiled.labels)
    write_all(files)
    rows = compiled.info.layers
    about: dict[str, Any] = {
        "file": str(output), "raw": [str(p) for p in beside.values()], "tokens": count,
        "image_bytes": len(compiled.image), "hash": config.hash,
        "instructions": len(compiled.instructions), "program_bytes": program_bytes(compiled.instructions),
        "ideal_cycles": compiled.info.ideal_cycles,
    }  # fmt: skip
    if as_json:
        print_json(
            about | {"layers": [asdict(row) for row in rows]} | ({"dump": dumped[dump_after]} if dump_after else {})
        )
        return
    if dump_after:
        say(dumped[dump_after].rstrip())
    cells = [
        (row.layer, row.used, row.encoding, str(row.columns), str(row.reduction), str(row.passes), str(row.chunk),
         f"{row.bytes:,}")
        for row in rows
    ]  # fmt: skip
    title = f"{output}: {count} tokens, {len(compiled.image):,} bytes, {len(compiled.instructions)} instructions"
    names = ("layer", "N:M", "encoding", "columns", "reduction", "passes", "columns on chip", "bytes")
    print_table(title, names, cells, left=3)
