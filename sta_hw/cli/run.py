"""The command that runs a text, an image or a spectrogram: run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ..compiler.check import cosine
from ..compiler.model import CompiledModel
from ..errors import CheckError, InputError
from ..host.board import require_port
from ..host.saturation import compare_saturations, saturation_sentences
from ..model.settings import SCORINGS
from ..report.tables import by_layer
from ..run.backends import BACKENDS, ReferenceBackend, backend, require_board
from ..run.outcome import Outcome, compare
from ..run.search import Search
from ..tasks.embedder import Embedder
from ..tasks.scores import scores
from .app import Unused, app
from .bisect import WAVEFORM, find_wrong, search_figures, waveform_format
from .figures import print_layers, run_figures
from .model import Pruning, Request
from .options import (
    BOARD_ALONE,
    COMPARED_WITH,
    COMPILED_BEFORE,
    DEFAULT_TEXT,
    NOTHING_PRUNED,
    WITH_INPUT,
    BackendOption,
    BoardOption,
    CalibrationOption,
    CheckOption,
    InputOption,
    ModelOption,
    OwnPatternOption,
    PortOption,
    PresetOption,
    PrunerOption,
    TableOption,
    TextOption,
)
from .paths import require_writable
from .terminal import JsonOption, Watch, print_json, say, watched

__all__: list[str] = []


FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Compiled models, of which the smallest that holds the text runs it; none: compiled on the fly."
    ),
]


@app.command(
    epilog='Example: sta-hw run --text "Hardware that skips zeros." --backend rtl --json',
    unused=[
        NOTHING_PRUNED,
        WITH_INPUT,
        COMPILED_BEFORE,
        BOARD_ALONE,
        Unused(("preset_name",), lambda o: o["backend_name"] == "board" and not o["file"],
               "with --backend board, which has its own"),
        COMPARED_WITH,
        Unused(("check",), lambda o: o["bisect"], "with --bisect, which compares every write"),
        Unused(("bisect",), lambda o: o["backend_name"] != "rtl", "except with --backend rtl, which sees every write"),
        Unused(("waveform",), lambda o: not o["bisect"], "except with --bisect"),
    ],
)  # fmt: skip
def run(
    file: FilesArgument = None,
    text: TextOption = DEFAULT_TEXT,
    given: InputOption = None,
    backend_name: BackendOption = "rtl",
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    model: ModelOption = None,
    calibration: CalibrationOption = None,
    preset_name: PresetOption = "reference",
    check: CheckOption = True,
    board: BoardOption = "ulx3s-85f",
    port: PortOption = "sim",
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Find the first instruction whose result on the RTL differs.")
    ] = False,
    waveform: Annotated[Path, typer.Option(help="For --bisect: where a waveform of it goes, .fst or .vcd.")] = WAVEFORM,
    as_json: JsonOption = False,
) -> None:
    """Run a text, an image or a spectrogram; print what it gives.

    It goes through the accelerator; printed is its embedding, or its classes.

    Of several compiled models, for different numbers of tokens, the smallest that holds the text runs it.

    With --bisect every write of the RTL is compared with the reference's, instruction by instruction. Where one
    differs, the first such instruction is named, with layer, value, token, channel and cycles, and a waveform of it is
    written.
    """
    target = _target(backend_name, board, port)
    asked = Request(
        tuple(file or ()), text, given, Pruning(nm, nm_table, pruner, calibration), model,
        preset_name if target is None else target.preset,
    )  # fmt: skip
    asked.look_at()
    if bisect:
        waveform_format(waveform)
        require_writable(files=[waveform])
        asked.require_distinct({"--waveform": waveform})

    def ready(watch: Watch) -> tuple[CompiledModel, Embedder, NDArray]:
        watch.step("loading, compiling the model")
        return asked.prepare(watch)

    def searched(watch: Watch) -> tuple[CompiledModel, Search, Any]:
        compiled, _, embedded = ready(watch)
        return compiled, *find_wrong(compiled, embedded, waveform, watch)

    if bisect:
        compiled, found, cycles = watched("run", "", searched)
        _tell_wrong(compiled, found, cycles, waveform, as_json)
        return

    def work(watch: Watch) -> _Ran:
        compiled, embedder, embedded = ready(watch)
        figure, whose, exact = asked.compared(embedder)
        watch.step("preparing the backend")
        hardware = backend(backend_name, compiled.config, target, port)
        watch.step(f"running ({backend_name})")
        outcome = hardware.run(compiled, embedded, watch)
        if check and backend_name != "reference":
            watch.step("running the reference")
            expected = ReferenceBackend(compiled.config).run(compiled, embedded, watch)
            compare(compiled, outcome.image, expected.image, expected.trail)
            compare_saturations(outcome.saturated, expected.saturated)
        name, result = embedder.result(compiled, outcome.image)
        return _Ran(compiled, embedder, outcome, name, result, figure, whose, exact)

    ran = watched("run", "", work)
    figures: dict[str, Any] = {"text": text if given is None else None, "input": str(given) if given else None}
    figures |= _figures(ran, backend_name, check)
    if as_json:
        print_json(figures | {ran.name: np.round(ran.result, 6).tolist()})
    else:
        _tell(ran, figures, backend_name)


@dataclass(frozen=True)
class _Ran:
    """What a run gave.

    Attributes
    ----------
    outcome : Outcome
    name, result : str, array
        What the result is called: embedding or logits; itself.
    figure, whose, exact : str, str, array
        What it is compared with, as of `Request.compared`.
    """

    compiled: CompiledModel
    embedder: Embedder
    outcome: Outcome
    name: str
    result: NDArray
    figure: str
    whose: str
    exact: NDArray


def _target(backend_name: str, board: str, port: str) -> Any:
    """The board that is run on, if one is.

    Raises
    ------
    InputError
        If there is no such backend, or the board or the port cannot be one's.
    """
    if backend_name not in BACKENDS:
        raise InputError(f"backend {backend_name!r} is unknown; it is {', '.join(BACKENDS)}.")
    if backend_name != "board":
        return None
    from boards import board as find

    target = find(board)
    require_board(target)
    require_port(port)
    return target


def _figures(ran: _Ran, backend_name: str, check: bool) -> dict[str, Any]:
    """Figures of a run, as JSON types; which were checked if `check`."""
    compiled, outcome = ran.compiled, ran.outcome
    figures: dict[str, Any] = {
        "tokens": compiled.tokens, "backend": backend_name, "hash": compiled.config.hash,
        ran.figure: cosine(ran.result, ran.exact), "compared_with": ran.whose, **outcome.saturated,
    }  # fmt: skip
    scoring, labels = ran.embedder.network.scoring, ran.embedder.network.labels
    if ran.name == "logits" and labels and scoring == "softmax":
        figures["label"] = np.take(labels, ran.result.argmax(-1)).tolist()
    elif ran.name == "logits" and labels and ran.result.ndim == 1:
        figures[SCORINGS[scoring]] = dict(zip(labels, scores(ran.result, scoring).tolist(), strict=True))
    if ran.result.size == 1:  # whose cosine says no more than its sign
        figures["difference"] = float(np.abs(ran.result - ran.exact).max())
    if outcome.run is not None:
        figures |= run_figures(compiled, outcome.run) | {"equal_to_reference": True if check else None}
    return figures


def _tell(ran: _Ran, figures: dict[str, Any], backend_name: str) -> None:
    """Print a run's figures as sentences; on the simulated RTL also a table of its layers."""
    compiled, outcome = ran.compiled, ran.outcome
    if outcome.run is not None:
        if backend_name == "rtl":
            print_layers(f"{compiled.tokens} tokens on {backend_name}", by_layer(compiled, outcome.run))
        say(f"{outcome.run.cycles:,} cycles, {figures['fraction_of_ideal']:.3f} of ideal.")
    for sentence in saturation_sentences(outcome.saturated):
        say(sentence)
    say(f"{outcome.saturated['saturated_results']:,} groups of 8-bit results are at the ends of their range.")
    if "label" in figures:
        chosen = figures["label"]
        say(f"Label: {chosen if isinstance(chosen, str) else ', '.join(chosen)}")
    scoring = SCORINGS[ran.embedder.network.scoring]
    for label, score in figures.get(scoring, {}).items():
        say(f"{label}: {scoring} {score:.3f}")
    if "difference" in figures:
        say(f"Difference from fp32 of {ran.whose}: {figures['difference']:.4f}; {ran.name}: {ran.result}")
        return
    what = ran.figure.replace("_", " ").capitalize()
    say(f"{what} of {ran.whose}: {figures[ran.figure]:.4f}; {ran.name}: {ran.result.reshape(-1)[:6]} ...")


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
