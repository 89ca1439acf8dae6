"""Commands for FPGAs: synth, fit, build, flash, selftest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckError, InputError
from ..files import distinct
from ..fpga.parts import LIBERTY
from ..spec.config import Config
from ..spec.presets import BOARD_PRESETS, PRESETS
from .app import Unused, app
from .configuration import SetOption, manifest_file, read_configuration
from .options import PresetOption
from .paths import require_writable
from .terminal import JsonOption, mark, print_json, print_table, say, watched

if TYPE_CHECKING:
    from ..fpga.parts import Part

__all__: list[str] = []

PartOption = Annotated[
    str,
    typer.Option(
        help="lfe5u-12f, -25f, -45f, -85f, ice40up5k, ice40hx8k, lifcl-40, gw2ar-18, ultrascale+; or liberty:FILE."
    ),
]
BoardOption = Annotated[
    str,
    typer.Option(
        help="ulx3s-12f, -25f, -45f, -85f, -85f-decoder, -25f-engine, icesugar-pro, ecpix5-85f or icebreaker."
    ),
]
MinutesOption = Annotated[
    float, typer.Option(help="Give a seed up that has not routed by then.", min=0.01, max=100_000)
]
SeedOption = Annotated[list[int] | None, typer.Option(help="nextpnr seed; may be repeated.", min=0, max=2**31 - 1)]


def _sets_multipliers(changes: list[str] | None) -> bool:
    return any(change.startswith(("multiplier=", "array_multipliers=")) for change in changes or ())


def _require_different(seeds: list[int] | None) -> None:
    if seeds and len(set(seeds)) < len(seeds):
        raise InputError(f"--seed {', '.join(map(str, seeds))}: each seed gives one result; name different ones.")


def _configuration(base: Config, top: str, part_name: str, multiplier: str) -> tuple[Config, Part]:
    """Configuration with its multipliers chosen, and part."""
    from ..fpga.parts import choose_multiplier, part, require_cells

    chosen = part(part_name)
    if multiplier == "auto":
        base = choose_multiplier(top, base, chosen)
    elif multiplier != "preset":
        base = dataclasses.replace(base, multiplier=multiplier)
    require_cells(base, chosen)
    return base, chosen


@app.command(
    epilog="Example: sta-hw synth --part lfe5u-85f --top engine --seed 1 --seed 2",
    unused=[
        Unused(("seed", "frequency", "minutes"), lambda o: not o["route"], "with --no-route"),
        Unused(("route", "seed", "frequency", "minutes"), lambda o: o["part"].lower() == "ultrascale+",
               "for ultrascale+, which is synthesized alone"),
        Unused(("route", "seed", "frequency", "minutes", "multiplier"), lambda o: o["part"].startswith(LIBERTY),
               "with a library of standard cells, to which synthesis alone maps"),
        Unused(("multiplier",), lambda o: _sets_multipliers(o["changes"]), "beside --set, which sets it too"),
    ],
)  # fmt: skip
def synth(
    part: PartOption = "lfe5u-85f",
    top: Annotated[str, typer.Option(help="engine, accelerator, softmax or decoder.")] = "engine",
    preset_name: PresetOption = "reference",
    changes: SetOption = None,
    multiplier: Annotated[str, typer.Option(help="auto chooses for the part; preset leaves it; or one kind.")] = "auto",
    route: Annotated[bool, typer.Option(help="Place and route after synthesis.")] = True,
    seed: SeedOption = None,
    frequency: Annotated[float, typer.Option(help="Target in MHz.", min=1, max=10_000)] = 100.0,
    minutes: MinutesOption = 40.0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for netlist, logs and picture.")] = Path(
        "build/synth"
    ),
    as_json: JsonOption = False,
) -> None:
    """Synthesize a top level for a part, place and route it.

    Tells cells, and for each seed Fmax and the critical path; for standard cells area by block, in
    NAND2 equivalents too, and the memories that macros would be.
    """
    from ..fpga.fit import require_room
    from ..fpga.flow import synthesize_top
    from ..fpga.routing import Tries
    from ..generate.generator import TOPS

    if top not in TOPS:
        raise InputError(f"top {top!r} is unknown; it is {', '.join(TOPS)}.")
    _require_different(seed)
    if part.startswith(LIBERTY):
        _standard_cells(top, read_configuration(preset_name, changes), part, output, preset_name, as_json)
        return
    if multiplier == "auto" and _sets_multipliers(changes):
        multiplier = "preset"
    config, chosen = _configuration(read_configuration(preset_name, changes), top, part, multiplier)
    names = (f"{top}.json", f"{top}.v", "stat.json", "utilization.png")
    distinct({f"-o, {name}": output / name for name in names}, {"--preset": manifest_file(preset_name)})
    if top == "accelerator":
        config.require_accelerator()
    require_room(top, config, chosen, route=route)
    seeds = (seed or [1]) if route and chosen.options else []
    require_writable(folders=[output])
    tries = Tries(seeds, frequency, minutes)
    result = watched("synth", "", lambda watch: synthesize_top(top, config, chosen, output, tries, watch.step))
    if as_json:
        print_json(result)
        return
    cells = []
    for name, used in result["cells"].items():
        there = result["capacity"].get(name, 0)
        cells.append((name, f"{used:,}", f"{there:,}" if there else "", f"{used / there:.0%}" if there else ""))
    title = f"{top}, {config.rows} x {config.groups}, {config.multiplier}: {chosen.name}"
    print_table(title, ("what", "used", "of", "share"), cells)
    if result["seeds"]:
        rows = [
            (str(row["seed"]), f"{row['fmax']:.1f}" if row["fmax"] else "not routed", f"{row['logic']:,}",
             f"{row['seconds']:.0f}")
            for row in result["seeds"]
        ]  # fmt: skip
        print_table("place and route", ("seed", "MHz", "logic", "seconds"), rows)
        for row in result["seeds"]:
            if row["path"]:
                say(f"Critical path, seed {row['seed']}: {' -> '.join(row['path'][:5])}")
    if "untimed" in result:
        say(result["untimed"])
    say(f"Logs, netlist and {result['picture']} in {output}")
    if seeds and not any(row["fmax"] for row in result["seeds"]):
        raise CheckError(f"no seed routed within {minutes:g} minutes; try another --seed or more --minutes.")


def _standard_cells(top: str, config: Config, part: str, output: Path, preset_name: str, as_json: bool) -> None:
    """`synth` for a library of standard cells."""
    from ..fpga.liberty import library_of, map_to_cells

    library = library_of(part)
    # Cells of a vendor are in no library; a multiplier that Verilog describes is.
    config = dataclasses.replace(config, multiplier="auto", array_multipliers=0)
    names = (f"{top}.json", f"{top}.v", "stat.json")
    distinct(
        {f"-o, {name}": output / name for name in names}, {"--preset": manifest_file(preset_name), "--part": library}
    )
    if top == "accelerator":
        config.require_accelerator()
    require_writable(folders=[output])
    result = watched("synth", "", lambda watch: map_to_cells(top, config, library, output, watch.step))
    if as_json:
        print_json(result)
        return
    total = result["area"]
    rows = [
        (b["block"], str(b["instances"]), f"{b['area']:,.0f}", f"{b['nand2']:,.0f}", f"{b['area'] / total:.1%}")
        for b in result["blocks"]
    ]
    rows.append(("all", "", f"{total:,.0f}", f"{result['nand2']:,.0f}", "100.0%"))
    columns = ("block", "number", "area", "NAND2", "share")
    print_table(f"{top}, {config.rows} x {config.groups}: {library.name}", columns, rows)
    memories = [
        (m["block"], str(m["instances"]), f"{m['words']:,} x {m['width']}", f"{m['reads']} r, {m['writes']} w",
         f"{m['instances'] * m['words'] * m['width']:,}")
        for m in result["memories"]
    ]  # fmt: skip
    print_table("memories, not in the area", ("block", "number", "words x bits", "ports", "bits"), memories)
    for kind, count in result["unmapped"].items():
        say(f"{count} cells {kind} are not in the area: the library has nothing to map them to.")
    say(f"Logs and netlist in {output}; area is in the library's unit, that of its NAND2 is {result['nand2_area']:g}.")


@app.command(epilog="Example: sta-hw fit --part lfe5u-45f")
def fit(
    part: Annotated[str | None, typer.Option(help="One part, in more detail; all if not given.")] = None,
    kind: Annotated[
        str, typer.Option("--top", help="board (what boards have: on iCE40 the engine alone), accelerator or engine.")
    ] = "board",
    preset_name: Annotated[
        str | None,
        typer.Option("--preset", help="Hardware: a preset, or a manifest of sta-hw generate; all if not given."),
    ] = None,
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate which preset fits which part.

    And what runs out first.
    """
    from ..fpga.fit import LOGIC, survey
    from ..fpga.parts import PARTS
    from ..fpga.parts import part as find

    # The 12F is the 25F's die.
    parts = [find(part)] if part else [p for n, p in PARTS.items() if p.family in LOGIC and n != "lfe5u-12f"]
    if not part and kind != "board":
        parts = [p for p in parts if p.family == "ecp5"]
    known = PRESETS | BOARD_PRESETS
    if preset_name or changes:
        name = preset_name or "reference"
        known = {" ".join([Path(name).stem, *(changes or ())]): read_configuration(name, changes)}
    found = {p.name: survey(kind, p, known, choose=not _sets_multipliers(changes)) for p in parts}
    if as_json:
        print_json({"top": kind, "parts": found})
        return
    rows = []
    for results in zip(*found.values(), strict=True):
        if part:
            (row,) = results
            first = f"{row['first']} {row['share']:.0%}" if row["share"] is not None else f"{row['first']}, none there"
            numbers = (f"{row[k]:,}" for k in ("logic", "multipliers", "memories"))
            cells = [row["multiplier"], *numbers, row["fits"], first]
        else:
            cells = [_mark(row) for row in results]
        rows.append((results[0]["preset"], str(results[0]["macs"]), *cells))
    where = f" on {part}" if part else ""
    columns = ("kind", "logic", "mult.", "RAMs", "fits", "runs out first") if part else tuple(found)
    note = "" if part else f"{mark('yes')}: fits, {mark('maybe')}: may fit, {mark('no')}: does not fit"
    title = f"{kind}{where}, estimated: what runs out first"
    print_table(title, ("preset", "MACs", *columns), rows, note=note)


def _mark(row: dict[str, Any]) -> str:
    """A preset on a part: what runs out first, how far, and whether it fits."""
    word = {"logic": "LUTs", "multipliers": "mult", "memories": "RAMs"}[row["first"]]
    share = row["share"]
    far = "none" if share is None else f"{share:.0%}" if share < 2 else f"{share:.0f}x"
    return f"{mark(row['fits'])} {word} {far}"


@app.command(epilog="Example: sta-hw build --board ulx3s-85f --seed 1 --seed 2")
def build(
    board: BoardOption = "ulx3s-85f",
    preset_name: Annotated[
        str | None,
        typer.Option(
            "--preset", help="Hardware: a preset, or a manifest of sta-hw generate; the board's if not given."
        ),
    ] = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    minutes: MinutesOption = 40.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder; build/<board> if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a board's bitstream, a report and a manifest."""
    _require_different(seed)
    from boards import board as find

    from ..fpga.build import build_board

    chosen = find(board)
    folder = output or Path("build") / board
    config = read_configuration(preset_name or chosen.preset, changes)
    require_writable(folders=[folder])
    if config != read_configuration(preset_name or chosen.preset):
        # What was built from a manifest is described by it: another configuration must not take its place.
        distinct({"-o, manifest.json": folder / "manifest.json"}, {"--preset": manifest_file(preset_name)})
    built = watched(
        f"build {board}",
        "",
        lambda watch: build_board(chosen, folder, config=config, seeds=seed or [1], minutes=minutes, step=watch.step),
    )
    manifest = json.loads(built.manifest.read_text(encoding="utf-8"))
    if as_json:
        print_json(manifest)
        return
    rows = [(name, f"{value:,}") for name, value in built.routed.used.items()]
    rows.append(("Fmax, MHz", f"{built.routed.fmax:.1f} (of {manifest['frequency_mhz']:g} wanted)"))
    title = f"{board}: {config.rows} x {config.groups}, hash {config.hash}"
    print_table(title, ("what", "value"), rows)
    say(f"Bitstream: {built.bitstream}")
    say(f"Manifest: {built.manifest}")
    say("It has not run on hardware.")


@app.command(epilog="Example: sta-hw flash --board ulx3s-85f --spi")
def flash(
    board: BoardOption = "ulx3s-85f",
    bitstream: Annotated[Path | None, typer.Argument(help="build/<board>/top.bit if not given.")] = None,
    spi: Annotated[
        bool, typer.Option("--spi", help="Into SPI flash; otherwise into SRAM, until power is off.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Load a bitstream onto a board with openFPGALoader."""
    from boards import board as find

    from ..fpga.flash import flash as load

    chosen = find(board)
    name = "top.bit" if chosen.chip.family == "ecp5" else "top.bin"
    file = bitstream or Path("build") / board / name
    load(chosen, file, spi=spi)
    if as_json:
        print_json({"board": board, "bitstream": str(file), "memory": "spi" if spi else "sram"})
        return
    say(f"{board}: loaded.")


@app.command(epilog="Example: sta-hw selftest --port /dev/ttyUSB0 --board ulx3s-85f")
def selftest(
    port: Annotated[str, typer.Option(help="Serial port; sim simulates the whole board.")] = "sim",
    board: BoardOption = "ulx3s-25f",
    as_json: JsonOption = False,
) -> None:
    """Run a small network on a board, compare with the reference.

    Products, where the board has the engine alone.
    """
    from boards import board as find

    from ..run.selftest import self_test

    chosen = find(board)
    result = watched(f"self-test of {board}", "", lambda watch: self_test(chosen, port, watch.step))
    if as_json:
        print_json(result)
    else:
        where = "in simulation" if port == "sim" else "on hardware"
        work = f"{result['cycles']:,} cycles" if "cycles" in result else f"{result['products']} products"
        say(
            f"{board}, {where}: {result['bytes']:,} bytes equal to the reference, {work}, "
            f"sent again {result['retries']} times."
        )
