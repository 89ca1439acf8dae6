"""The commands that show a run: report and trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..compiler.check import cosine
from ..compiler.limits import sizes_of
from ..compiler.shape import estimate_encoder
from ..errors import InputError
from ..files import write_all
from ..report.page import html_page
from ..report.summary import summary
from ..report.tables import by_layer
from ..report.timeline import chrome_trace
from ..run.backends import RtlBackend
from ..run.search import write_window
from .app import app
from .bisect import waveform_format
from .figures import run_figures
from .model import Pruning, Request
from .options import (
    COMPILED_BEFORE,
    DEFAULT_TEXT,
    NOTHING_PRUNED,
    WITH_INPUT,
    CalibrationOption,
    FileArgument,
    InputOption,
    MegahertzOption,
    ModelOption,
    OwnPatternOption,
    PresetOption,
    PrunerOption,
    TableOption,
    TextOption,
)
from .paths import require_writable
from .terminal import JsonOption, Watch, complain, print_json, say, watched

__all__: list[str] = []


@app.command(
    epilog="Example: sta-hw report --nm 2:4 -o build/report.html",
    unused=[NOTHING_PRUNED, WITH_INPUT, COMPILED_BEFORE],
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
    megahertz: MegahertzOption = 80.0,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("build/report.html"),
    as_json: JsonOption = False,
) -> None:
    """Run on RTL; write an HTML page and a timeline.

    The page stands alone; the timeline, for Perfetto, lies beside it. The page begins with the model, its N:M, the
    speed-up over dense weights (whose cycles are the cycle model's; none where they do not fit), milliseconds, bytes,
    and the cosine of the result with dense fp32.
    """
    asked = Request(
        (file,) if file else (), text, given, Pruning(nm, nm_table, pruner, calibration), model, preset_name
    )  # fmt: skip
    asked.look_at()
    timeline = output.with_suffix(".json")
    require_writable(files=[output, timeline])
    asked.require_distinct({"-o": output, "the timeline": timeline})

    def work(watch: Watch) -> Any:
        watch.step("loading, compiling the model")
        compiled, embedder, embedded = asked.prepare(watch)
        _, whose, exact = asked.compared(embedder)
        watch.step("compiling the RTL")
        hardware = RtlBackend(compiled.config)
        watch.step("running the RTL")
        outcome = hardware.run(compiled, embedded, watch)
        watch.step("following the dense program")
        without = ""
        try:
            dense_cycles = estimate_encoder(
                **sizes_of(embedder.part.inner), patterns={}, config=compiled.config, tokens=compiled.tokens, alike=True
            ).cycles
        except InputError as error:  # the sparse model fits, which has run
            dense_cycles, without = None, str(error)
        result = embedder.result(compiled, outcome.image)[1].reshape(1, -1)
        told = summary(
            compiled, outcome.run, megahertz=megahertz, dense_cycles=dense_cycles, name=embedder.source.place,
            cosine=cosine(result, exact), whose=whose,
        )  # fmt: skip
        return compiled, outcome, told, without

    compiled, outcome, told, without = watched("report", "", work)
    title = f"STA-HW: {text if given is None else given}"
    write_all({output: html_page(compiled, outcome.run, title, told), timeline: chrome_trace(compiled, outcome.run)})
    figures = run_figures(compiled, outcome.run) | told | {"page": str(output), "timeline": str(timeline)}
    if without:
        complain(f"there is no speed-up over dense weights, which do not fit: {without}")
    if as_json:
        print_json(figures | {"layers": by_layer(compiled, outcome.run)})
        return
    speedup = told["speedup_over_dense"]
    beside = f"{speedup:.2f} times as fast as dense" if speedup else "dense weights do not fit"
    say(
        f"{told['model']}, {told['nm']}, {told['tokens']} tokens: {told['cycles']:,} cycles, "
        f"{told['fraction_of_ideal']:.3f} of ideal, {beside}; "
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
    unused=[NOTHING_PRUNED, WITH_INPUT, COMPILED_BEFORE],
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
    """Write a window of clock cycles as a waveform.

    For GTKWave or Surfer, with modules and signals of the source. Cycle 0 is the first after reset, before the
    registers are written. A cycle is two units of the waveform's time.
    """
    asked = Request(
        (file,) if file else (), text, given, Pruning(nm, nm_table, pruner, calibration), model, preset_name
    )  # fmt: skip
    asked.look_at()
    require_writable(files=[output])
    asked.require_distinct({"-o": output})
    waveform_format(output)

    def work(watch: Watch) -> int:
        watch.step("loading, compiling the model")
        compiled, _, embedded = asked.prepare(watch)
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
