"""Commands that compile and run models: compile, run, trace, report, estimate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..compiler.check import cosine
from ..compiler.contract import Host, contract_paths, raw_files
from ..compiler.limits import Sizes, require_shape, sizes_of
from ..compiler.model import CompiledModel
from ..compiler.packing import Packing
from ..compiler.passes import PASSES
from ..compiler.prune import METHODS
from ..compiler.quantize import SCALES
from ..compiler.shape import Estimate, estimate_encoder
from ..cycles.timing import MachineTiming
from ..errors import CheckError, InputError
from ..files import distinct, write_all
from ..host.saturation import compare_saturations, saturation_sentences
from ..model.families.layers import LINEAR
from ..report.page import html_page
from ..report.summary import summary
from ..report.tables import by_layer
from ..report.timeline import chrome_trace
from ..run.backends import BACKENDS, ReferenceBackend, RtlBackend, backend
from ..run.outcome import compare
from ..run.search import Search, write_window
from ..spec.assembly import disassemble_text
from ..spec.isa import program_bytes
from ..spec.patterns import parse_nm
from ..tasks.batch import MOST_TOKENS, fill
from ..tasks.embedder import Embedder
from ..tasks.table import DEFAULT_NM
from .app import Unused, app
from .bisect import WAVEFORM, find_wrong, search_figures, waveform_format
from .configuration import manifest_file, read_configuration
from .model import compared, load, look_at, prepare, pruned
from .paths import require_writable
from .terminal import JsonOption, Watch, print_json, print_table, say, watched

MOST_TEXTS = 100_000
"""Of a batch that is estimated: more is a mistake."""
DEFAULT_TEXT = "A sparse network skips every second weight and still knows what is meant"
TextOption = Annotated[str, typer.Option(help="The sentence.")]
PatternOption = Annotated[str, typer.Option(help="N:M of all linear layers, or dense.")]
OwnPatternOption = Annotated[
    str | None,
    typer.Option(
        help=f"N:M of all linear layers, or dense; if not given, a pruned checkpoint's own table, or {DEFAULT_NM}."
    ),
]
TableOption = Annotated[Path | None, typer.Option(help="JSON: N:M of single layers, such as 0.output.dense.")]
PresetOption = Annotated[str, typer.Option("--preset", help="Hardware: a preset, or a manifest of sta-hw generate.")]
PrunerOption = Annotated[str, typer.Option("--pruner", help=f"What prunes dense weights: {' or '.join(METHODS)}.")]
ModelOption = Annotated[Path | None, typer.Option(help="Checkpoint folder; all-MiniLM-L6-v2 if not given.")]
InputOption = Annotated[
    Path | None, typer.Option("--input", help="For images and spectrograms, in place of a text: a .npy file.")
]
CalibrationOption = Annotated[
    Path | None, typer.Option(help="Images or spectrograms to quantize for: a .npy file; noise if not given.")
]


def run_figures(model: CompiledModel, run: Any) -> dict[str, Any]:
    """Figures of a run on hardware, as JSON types."""
    ideal = model.info["ideal_cycles"]
    return {"cycles": run.cycles, "ideal_cycles": ideal, "fraction_of_ideal": ideal / run.cycles, **run.counters}


def print_layers(title: str, rows: list[dict[str, Any]]) -> None:
    """Print what `by_layer` tells, as a table."""
    cells = []
    for row in rows:
        ideal = (f"{row['ideal']:,.0f}", f"{row['fraction']:.3f}") if row["ideal"] else ("", "")
        cells.append((row["layer"], row["shape"], row["used"], row["encoding"], f"{row['cycles']:,}", *ideal))
    print_table(title, ("layer", "shape", "N:M", "encoding", "cycles", "ideal", "fraction"), cells, left=4)


_NOTHING_PRUNED = Unused(
    ("pruner",), lambda o: o["nm"] == "dense" and not o.get("nm_table"), "with --nm dense, where nothing is pruned"
)
_WITH_FILE = "with a compiled model, which has its own"
_WITH_INPUT = Unused(("text",), lambda o: o["given"] is not None, "with --input, which is what is run")


@app.command(
    name="compile", epilog="Example: sta-hw compile --nm 2:4 --tokens 16 -o build/minilm.npz",
    unused=[_NOTHING_PRUNED, Unused(("text",), lambda o: o["tokens"] is not None, "with --tokens, their number")],
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
    scales: Annotated[str, typer.Option(help="Of 8-bit tensors: squared-error or percentile.")] = "squared-error",
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
    look_at(None, text, nm, nm_table, preset_name, pruner)
    config = read_configuration(preset_name, top="accelerator")
    listing_file = output.with_suffix(".txt") if listing else None
    beside = contract_paths(output) if raw else {}
    inputs = {
        "--model": model, "--nm-table": nm_table, "--preset": manifest_file(preset_name), "--calibration": calibration
    }  # fmt: skip
    distinct({"-o": output, "the listing": listing_file, **beside}, inputs)
    require_writable(files=[output, *([listing_file] if listing_file else []), *beside.values()])

    dumped: dict[str, str] = {}

    def after(name: str, result: object) -> None:
        if name == dump_after:
            dumped[name] = str(result)

    def work(watch: Watch) -> tuple[CompiledModel, int, Host]:
        watch.step("loading the model")
        embedder = load(model, calibration)
        count = tokens if tokens is not None else embedder.part.tokens or len(embedder.token_ids(text))
        sparse = pruned(embedder, nm, nm_table, pruner, config, count, calibration, watch)
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
    rows = compiled.info["layers"]
    about: dict[str, Any] = {
        "file": str(output), "raw": [str(p) for p in beside.values()], "tokens": count,
        "image_bytes": len(compiled.image), "hash": config.hash,
        "instructions": len(compiled.instructions), "program_bytes": program_bytes(compiled.instructions),
        "ideal_cycles": compiled.info["ideal_cycles"],
    }  # fmt: skip
    if as_json:
        print_json(about | {"layers": rows} | ({"dump": dumped[dump_after]} if dump_after else {}))
        return
    if dump_after:
        say(dumped[dump_after].rstrip())
    cells = [
        (row["layer"], row["used"], row["encoding"], str(row["columns"]), str(row["reduction"]), str(row["passes"]),
         str(row["chunk"]), f"{row['bytes']:,}")
        for row in rows
    ]  # fmt: skip
    title = f"{output}: {count} tokens, {len(compiled.image):,} bytes, {len(compiled.instructions)} instructions"
    names = ("layer", "N:M", "encoding", "columns", "reduction", "passes", "columns on chip", "bytes")
    print_table(title, names, cells, left=3)


FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Compiled models, of which the smallest that holds the text runs it; none: compiled on the fly."
    ),
]
FileArgument = Annotated[Path | None, typer.Argument(help="A compiled model; compiled on the fly if not given.")]


@app.command(
    epilog='Example: sta-hw run --text "Hardware that skips zeros." --backend rtl --json',
    unused=[
        _NOTHING_PRUNED,
        _WITH_INPUT,
        Unused(("nm", "nm_table", "pruner", "preset_name", "calibration"), lambda o: bool(o["file"]), _WITH_FILE),
        Unused(("board", "port"), lambda o: o["backend_name"] != "board", "but with --backend board"),
        Unused(("preset_name",), lambda o: o["backend_name"] == "board" and not o["file"],
               "with --backend board, which has its own"),
        Unused(("check",), lambda o: o["backend_name"] == "reference", "with --backend reference: it is compared with"),
        Unused(("check",), lambda o: o["bisect"], "with --bisect, which compares every write"),
        Unused(("bisect",), lambda o: o["backend_name"] != "rtl", "but with --backend rtl, whose every write is seen"),
        Unused(("waveform",), lambda o: not o["bisect"], "but with --bisect"),
    ],
)  # fmt: skip
def run(
    file: FilesArgument = None,
    text: TextOption = DEFAULT_TEXT,
    given: InputOption = None,
    backend_name: Annotated[str, typer.Option("--backend", help=f"{' or '.join(BACKENDS)}.")] = "rtl",
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    model: ModelOption = None,
    calibration: CalibrationOption = None,
    preset_name: PresetOption = "reference",
    check: Annotated[bool, typer.Option(help="Compare memory with the reference afterwards.")] = True,
    board: Annotated[str, typer.Option(help="For --backend board; its preset is taken.")] = "ulx3s-85f",
    port: Annotated[str, typer.Option(help="For --backend board: serial port; sim simulates the board.")] = "sim",
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Find the first instruction whose result on the RTL differs.")
    ] = False,
    waveform: Annotated[Path, typer.Option(help="For --bisect: where a waveform of it goes, .fst or .vcd.")] = WAVEFORM,
    as_json: JsonOption = False,
) -> None:
    """Run a text (an image, a spectrogram) through the accelerator; print its embedding or classes.

    Of several compiled models, for different numbers of tokens, the smallest that holds the text runs it.

    With --bisect every write of the RTL is compared with the reference's, instruction by instruction. Where one
    differs, the first such instruction is named, with layer, value, token, channel and cycles, and a waveform of it is
    written.
    """
    if backend_name not in BACKENDS:
        raise InputError(f"backend {backend_name!r} is unknown; it is {', '.join(BACKENDS)}.")
    target = None
    if backend_name == "board":
        from boards import board as find

        target = find(board)
        preset_name = target.preset
    look_at(file, text if given is None else None, nm, nm_table, preset_name, pruner)
    if bisect:
        waveform_format(waveform)
        require_writable(files=[waveform])
        inputs = {
        **{f"FILE {n}" if n else "FILE": f for n, f in enumerate(file or ())}, "--model": model,
        "--nm-table": nm_table, "--preset": manifest_file(preset_name),
        "--input": given, "--calibration": calibration,
    }  # fmt: skip
        distinct({"--waveform": waveform}, inputs | {"--input": given, "--calibration": calibration})

    def ready(watch: Watch) -> Any:
        watch.step("loading, compiling the model")
        return prepare(file, text, given, nm, nm_table, pruner, model, preset_name, watch, calibration)

    def searched(watch: Watch) -> tuple[CompiledModel, Search, Any]:
        compiled, _, embedded = ready(watch)
        return compiled, *find_wrong(compiled, embedded, waveform, watch)

    if bisect:
        compiled, found, cycles = watched("run", "", searched)
        _tell_wrong(compiled, found, cycles, waveform, as_json)
        return

    def work(watch: Watch) -> Any:
        compiled, embedder, embedded = ready(watch)
        figure, whose, exact = compared(embedder, text, given)
        watch.step("preparing the backend")
        hardware = backend(backend_name, compiled.config, target, port)
        watch.step(f"running ({backend_name})")
        outcome = hardware.run(compiled, embedded, watch)
        if check and backend_name != "reference":
            watch.step("running the reference")
            expected = ReferenceBackend(compiled.config).run(compiled, embedded, watch)
            compare(compiled, outcome.image, expected.image, expected.trail)
            compare_saturations(outcome.saturated, expected.saturated)
        return compiled, outcome, embedder, embedder.result(compiled, outcome.image), (figure, whose, exact)

    compiled, outcome, embedder, (name, result), (figure, whose, exact) = watched("run", "", work)
    figures: dict[str, Any] = {
        "text": text if given is None else None, "input": str(given) if given else None, "tokens": compiled.tokens,
        "backend": backend_name, "hash": compiled.config.hash, figure: cosine(result, exact),
        "compared_with": whose, **outcome.saturated,
    }  # fmt: skip
    if name == "logits" and embedder.network.labels:
        chosen = np.take(embedder.network.labels, result.argmax(-1)).tolist()
        figures["label"] = chosen
    if outcome.run is not None:
        figures |= run_figures(compiled, outcome.run) | {"equal_to_reference": True if check else None}
    if as_json:
        print_json(figures | {name: np.round(result, 6).tolist()})
        return
    if outcome.run is not None:
        if backend_name == "rtl":
            print_layers(f"{compiled.tokens} tokens on {backend_name}", by_layer(compiled, outcome.run))
        say(f"{outcome.run.cycles:,} cycles, {figures['fraction_of_ideal']:.3f} of ideal.")
    for sentence in saturation_sentences(outcome.saturated):
        say(sentence)
    say(f"{outcome.saturated['saturated_results']:,} groups of 8-bit results are at the ends of their range.")
    if "label" in figures:
        labels = figures["label"]
        say(f"Label: {labels if isinstance(labels, str) else ', '.join(labels)}")
    what = figure.replace("_", " ").capitalize()
    say(f"{what} of {whose}: {figures[figure]:.4f}; {name}: {result.reshape(-1)[:6]} ...")


def _tell_wrong(compiled: CompiledModel, found: Search, cycles: Any, waveform: Path, as_json: bool) -> None:
    """Print what a search found.

    Raises
    ------
    CheckError
        If a write differs, or the RTL did not end as it should.
    """
    if as_json:
        print_json(search_figures(found, waveform, cycles) | {"tokens": compiled.tokens, "hash": compiled.config.hash})
    said = found.text()
    if not found.equal:
        raise CheckError(said + (f"\nWaveform of cycles {cycles[0]} to {cycles[1]}: {waveform}" if cycles else ""))
    if not as_json:
        say(said[0].upper() + said[1:])


@app.command(
    epilog="Example: sta-hw report --nm 2:4 -o build/report.html",
    unused=[
        _NOTHING_PRUNED,
        _WITH_INPUT,
        Unused(("nm", "nm_table", "pruner", "preset_name", "calibration"), lambda o: o["file"] is not None, _WITH_FILE),
    ],
)
def report(
    file: FileArgument = None,
    text: TextOption = DEFAULT_TEXT,
    given: InputOption = None,
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    model: ModelOption = None,
    calibration: CalibrationOption = None,
    preset_name: PresetOption = "reference",
    megahertz: Annotated[float, typer.Option(help="Clock, for the time.", min=0.001, max=1e6)] = 80.0,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("build/report.html"),
    as_json: JsonOption = False,
) -> None:
    """Run on RTL; write an HTML page, and a timeline for Perfetto.

    The page stands alone; the timeline lies beside it. It begins with the model, its N:M, the speed-up over dense
    weights (whose cycles are the cycle model's), milliseconds, bytes, and the cosine of the result with dense fp32.
    """
    look_at(file, text if given is None else None, nm, nm_table, preset_name, pruner)
    timeline = output.with_suffix(".json")
    require_writable(files=[output, timeline])
    inputs = {
        "FILE": file, "--model": model, "--nm-table": nm_table, "--preset": manifest_file(preset_name),
        "--input": given, "--calibration": calibration,
    }  # fmt: skip
    distinct({"-o": output, "the timeline": timeline}, inputs)

    def work(watch: Watch) -> Any:
        watch.step("loading, compiling the model")
        compiled, embedder, embedded = prepare(
            file, text, given, nm, nm_table, pruner, model, preset_name, watch, calibration
        )
        _, whose, exact = compared(embedder, text, given)
        watch.step("compiling the RTL")
        hardware = RtlBackend(compiled.config)
        watch.step("running the RTL")
        outcome = hardware.run(compiled, embedded, watch)
        watch.step("following the dense program")
        dense = estimate_encoder(
            **sizes_of(embedder.part.inner), patterns={}, config=compiled.config, tokens=compiled.tokens, alike=True
        )
        result = embedder.result(compiled, outcome.image)[1].reshape(1, -1)
        told = summary(
            compiled, outcome.run, megahertz=megahertz, dense_cycles=dense.cycles, name=embedder.source.place,
            cosine=cosine(result, exact), whose=whose,
        )  # fmt: skip
        return compiled, outcome, told

    compiled, outcome, told = watched("report", "", work)
    title = f"STA-HW: {text if given is None else given}"
    write_all({output: html_page(compiled, outcome.run, title, told), timeline: chrome_trace(compiled, outcome.run)})
    figures = run_figures(compiled, outcome.run) | told | {"page": str(output), "timeline": str(timeline)}
    if as_json:
        print_json(figures | {"layers": by_layer(compiled, outcome.run)})
        return
    say(
        f"{told['model']}, {told['nm']}, {told['tokens']} tokens: {told['cycles']:,} cycles, "
        f"{told['fraction_of_ideal']:.3f} of ideal, {told['speedup_over_dense']:.2f} times as fast as dense; "
        f"{told['milliseconds']:,.2f} ms at {megahertz:g} MHz."
    )
    say(
        f"{told['image_bytes']:,} bytes of memory; {told['bytes_read']:,} read, {told['bytes_written']:,} written. "
        f"Cosine with {told['compared_with']} fp32: {told['cosine']:.4f}."
    )
    say(f"Page: {output}")
    say(f"Timeline for Perfetto: {timeline}")


@app.command(
    epilog="Example: sta-hw trace --start 0 --cycles 5000 -o build/trace.fst",
    unused=[
        _NOTHING_PRUNED,
        _WITH_INPUT,
        Unused(("nm", "nm_table", "pruner", "preset_name", "calibration"), lambda o: o["file"] is not None, _WITH_FILE),
    ],
)
def trace(
    file: FileArgument = None,
    text: TextOption = "Short.",
    given: InputOption = None,
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    model: ModelOption = None,
    calibration: CalibrationOption = None,
    preset_name: PresetOption = "reference",
    start: Annotated[int, typer.Option(help="First clock cycle.", min=0, max=10**12)] = 0,
    cycles: Annotated[int, typer.Option(help="Clock cycles.", min=1, max=10**9)] = 5000,
    output: Annotated[Path, typer.Option("-o", "--output", help="The waveform: .fst, or .vcd.")] = Path(
        "build/trace.fst"
    ),
    as_json: JsonOption = False,
) -> None:
    """Write a window of clock cycles as a waveform (GTKWave, Surfer), with modules and signals of the source.

    Cycle 0 is the first after reset, before the registers are written. A cycle is two units of the waveform's time.
    """
    look_at(file, text if given is None else None, nm, nm_table, preset_name, pruner)
    require_writable(files=[output])
    inputs = {
        "FILE": file, "--model": model, "--nm-table": nm_table, "--preset": manifest_file(preset_name),
        "--input": given, "--calibration": calibration,
    }  # fmt: skip
    distinct({"-o": output}, inputs)
    waveform_format(output)

    def work(watch: Watch) -> int:
        watch.step("loading, compiling the model")
        compiled, _, embedded = prepare(file, text, given, nm, nm_table, pruner, model, preset_name, watch, calibration)
        watch.step("compiling the RTL with waveforms (kept for the next time)")
        hardware = RtlBackend(compiled.config, trace=output.suffix[1:])
        watch.step("running")
        image = compiled.with_input(embedded)
        end = write_window(compiled, image, hardware.model, output, start, start + cycles)
        return min(cycles, end - start)

    count = watched("trace", "", work)
    if as_json:
        print_json({"file": str(output), "start": start, "cycles": count, "bytes": output.stat().st_size})
        return
    say(f"{output}: {output.stat().st_size:,} bytes, clock cycles {start} to {start + count}")


_MOST_DIGITS = 20
"""Of a text's tokens and how many such there are: more than any computer has."""


def read_lengths(text: str) -> list[int]:
    """Numbers of tokens: ``4,60,17``, ``8x16`` (eight of 16), or a file with one a line.

    Raises
    ------
    InputError
        If one is no whole number from 1 on, or there is none.
    """
    is_file = os.path.isfile(text)  # A list may be longer than a file's name can be, of which Path complains.
    found: list[int] = []
    for word in (Path(text).read_text(encoding="utf-8") if is_file else text).replace(",", " ").split():
        times, _, tokens = word.rpartition("x")
        whole = len(word) <= _MOST_DIGITS and (times or "1").isdecimal() and tokens.isdecimal()
        if not whole or not int(times or 1) * int(tokens):
            where = f"{text}: " if is_file else "--batch: "
            raise InputError(
                f"{where}{word[:40]!r} is no number of tokens; write numbers from 1 on, as in 4,60,17 or 8x16, or name "
                "a file of them."
            )
        if len(found) + int(times or 1) > MOST_TEXTS:
            raise InputError(f"--batch has more than {MOST_TEXTS:,} texts; estimate fewer, and multiply.")
        found += [int(tokens)] * int(times or 1)
    if not found:
        raise InputError("--batch has no text; write numbers of tokens, as in 4,60,17 or 8x16.")
    return found


@app.command(
    epilog="Example: sta-hw estimate --hidden 768 --heads 12 --layers 12 --tokens 128 --nm 2:4",
    unused=[
        Unused(("hidden", "heads", "layers", "intermediate"), lambda o: o["model"] is not None,
               "with --model, which has its own"),
        Unused(("tokens",), lambda o: o["batch"] is not None, "with --batch, which has the texts' tokens"),
        Unused(("most",), lambda o: o["batch"] is None, "but with --batch"),
    ],
)  # fmt: skip
def estimate(
    hidden: Annotated[int, typer.Option(help="Hidden size.")] = 384,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 12,
    layers: Annotated[int, typer.Option(help="Encoder layers.")] = 6,
    intermediate: Annotated[int | None, typer.Option(help="Feed-forward size; 4 x hidden if not given.")] = None,
    model: Annotated[Path | None, typer.Option(help="A checkpoint's folder, whose sizes are taken.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens.")] = 128,
    batch: Annotated[
        str | None, typer.Option(help="Tokens of each text of a batch, as in 4,60,17 or 8x16; or a file, one a line.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", help="Of a batch: tokens through the same weights, at most.", min=1, max=1 << 16)
    ] = MOST_TOKENS,
    nm: PatternOption = "2:4",
    preset_name: PresetOption = "reference",
    latency: Annotated[int, typer.Option(help="Memory latency in cycles.", min=0, max=1_000_000)] = 50,
    bandwidth: Annotated[float, typer.Option(help="Bus beats per cycle.", min=0.01, max=1.0)] = 1.0,
    shared: Annotated[bool, typer.Option("--shared", help="Reads and writes share the bandwidth, as in DRAM.")] = False,
    megahertz: Annotated[float, typer.Option(help="Clock, for the time.", min=0.001, max=1e6)] = 80.0,
    as_json: JsonOption = False,
) -> None:
    """Cycles of a model of a shape, or of a checkpoint's, without simulation.

    The cycle model follows its program. Any number of tokens: where the program could not be compiled, it says why. A
    batch's texts run together as embed runs them.
    """
    config = read_configuration(preset_name, top="accelerator")
    pattern = parse_nm(nm)
    lengths = read_lengths(batch) if batch is not None else [tokens]
    wide = intermediate if intermediate is not None else 4 * hidden
    sizes = Sizes(layers=layers, hidden=hidden, heads=heads, intermediate=wide)
    if model is not None:
        sizes = sizes_of(Embedder.load(model).part.inner)
    require_shape(config, tokens=max(lengths), patterns=dict.fromkeys(LINEAR.values(), pattern), **sizes)
    if not pattern.dense:
        config.require(pattern)

    patterns = dict.fromkeys((f"0.{name}" for name in LINEAR.values()), pattern)
    timing = MachineTiming(latency, bandwidth, shared)
    runs = fill(lengths, config.rows, most)

    def work(watch: Watch) -> list[Estimate]:
        known: dict[tuple[int, ...], Estimate] = {}  # programs of the same lengths are alike
        programs = [tuple(lengths[i] for i in texts) for texts in runs]
        for number, each in enumerate(programs, 1):
            if each not in known:
                watch.step(f"following program {number} of {len(runs)}" if batch else "following the program")
                packing = Packing.dense(list(each), config.rows)
                known[each] = estimate_encoder(patterns=patterns, config=config, tokens=packing, timing=timing,
                                               alike=True, **sizes)  # fmt: skip
        return [known[each] for each in programs]

    each = watched("estimate", "", work)
    cycles, ideal = sum(e.cycles for e in each), sum(e.ideal_cycles for e in each)
    problems = list(dict.fromkeys(p for e in each for p in e.problems))
    figures = {
        **sizes, "tokens": sum(lengths), "texts": len(lengths), "programs": len(each),
        "cycles": round(cycles), "ideal_cycles": ideal, "fraction_of_ideal": ideal / cycles,
        "milliseconds": cycles / megahertz / 1000, "megahertz": megahertz, "hash": config.hash, "nm": nm,
        "problems": problems,
    }  # fmt: skip
    if as_json:
        print_json(figures)
        return
    said = (
        f"{len(lengths):,} texts, {sum(lengths):,} tokens, {len(each)} program{'s' * (len(each) > 1)}: "
        if batch is not None
        else ""
    )
    say(
        f"{said}{figures['cycles']:,} cycles, {figures['fraction_of_ideal']:.3f} of ideal; "
        f"{figures['milliseconds']:,.2f} ms at {megahertz:g} MHz"
    )
    for problem in problems:
        say(f"It could not be compiled as it is: {problem}")
