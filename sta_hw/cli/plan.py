"""`sta-hw plan`: what a model would take on boards and presets, for N:M choices."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray

from ..compiler.limits import sizes_of
from ..compiler.prune import require_pruner
from ..cycles.timing import MachineTiming
from ..files import distinct, write_text
from ..report.accuracy import accuracy_inputs, one_shot_cosines
from ..report.plan import Choice, Shape, Target, plan
from ..report.plan_page import plan_page
from ..spec.patterns import parse_nm
from ..tasks.embedder import Embedder
from ..tasks.table import nm_choices
from .app import Unused, app
from .configuration import manifest_file, read_configuration
from .model import dense_network, load
from .options import AccuracyFileOption, AccuracyInputsOption, CalibrationOption, PrunerOption
from .paths import require_writable
from .terminal import JsonOption, Watch, mark, print_json, print_table, say, watched

__all__: list[str] = []

_CHOICES = "dense,8:16,2:4,4:16,2:16"
_TOKENS = 128
_COLUMNS = ("board", "N:M", "cycles", "ms", "of ideal", "speed-up", "MB", "cosine", "fits")


def _targets(boards: list[str] | None, presets: list[str] | None, megahertz: float) -> list[Target]:
    """What the user named; otherwise each board with a whole accelerator. Boards that are alike are one."""
    from boards import BOARDS, Board, board

    chosen = [board(name) for name in boards or ()]
    if not boards and not presets:
        chosen = [b for b in BOARDS.values() if b.top == "accelerator"]
    alike: dict[Any, list[Board]] = {}
    for b in dict.fromkeys(chosen):
        alike.setdefault((b.top, b.preset, b.frequency, b.sdram), []).append(b)
    targets = []
    for (top, _, frequency, sdram), same in alike.items():
        config = same[0].config
        refusal = "" if top == "accelerator" else "it has the engine alone, which runs no programs."
        timing = MachineTiming()
        if sdram is not None:
            timing = MachineTiming(sdram.latency, min(1.0, sdram.bytes_per_cycle / config.bus_bytes), shared=True)
        name = ", ".join(b.name for b in same)
        memory = sdram.size if sdram is not None else None
        targets.append(Target(name, config, frequency / 1e6, timing, memory, refusal))
    for name in dict.fromkeys(presets or ()):
        config = read_configuration(name, top="accelerator")
        config.require_accelerator()
        targets.append(Target(name, config, megahertz, MachineTiming()))
    return targets


@app.command(
    name="plan",
    epilog="Example: sta-hw plan --nm dense,8:16,2:4 --board ulx3s-85f --tokens 64",
    unused=[
        Unused(("megahertz",), lambda o: not o["presets"], "without --preset; a board has its own clock"),
        Unused(
            ("given", "calibration", "pruner"), lambda o: o["inputs"] == 0, "with --inputs 0: no accuracy is measured"
        ),
    ],
)  # fmt: skip
def plan_model(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint folder; all-MiniLM-L6-v2 if not given.")] = None,
    nm: Annotated[
        str | None, typer.Option(help=f"N:M to choose from; {_CHOICES} if not given, or a pruned checkpoint's own.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens of a text; 128 if not given.", min=1, max=10**6)] = None,
    board: Annotated[
        list[str] | None, typer.Option(help="A board; may be repeated. All with a whole accelerator if none is given.")
    ] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option("--preset", help="Hardware without a board, its memory a beat a cycle; may be repeated."),
    ] = None,
    megahertz: Annotated[float, typer.Option(help="Clock of --preset.", min=0.001, max=1e6)] = 80.0,
    inputs: AccuracyInputsOption = 8,
    pruner: PrunerOption = "sparsegpt",
    given: AccuracyFileOption = None,
    calibration: CalibrationOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="A page with a picture.")] = Path("build/plan.html"),
    as_json: JsonOption = False,
) -> None:
    """Tell what a model would take on boards, at several N:M.

    Cycles, time, memory and accuracy. Nothing is simulated: cycles are the cycle model's, accuracy that of the
    bit-exact reference over bundled sentences.
    """
    require_pruner(pruner)
    for part in (nm or _CHOICES).split(","):
        parse_nm(part)
    require_writable(files=[output])
    read = {"MODEL": model, "--input": given, "--calibration": calibration}
    distinct({"-o": output}, read | {f"--preset {p}": manifest_file(p) for p in presets or ()})
    targets = _targets(board, presets, megahertz)

    def work(watch: Watch) -> Any:
        watch.step("loading the model")
        embedder = load(model, calibration)
        choices = nm_choices(embedder, nm, _CHOICES)
        count = tokens or embedder.part.tokens or min(_TOKENS, embedder.network.graph.most_tokens or _TOKENS)
        embedder.require_tokens(count)
        chosen = accuracy_inputs(embedder, given, inputs) if inputs else []
        whose, measured = _measured(embedder, choices, chosen, pruner, calibration, watch) if chosen else (None, {})
        shape = Shape(**sizes_of(embedder.part.inner), tokens=count)
        mean = {name: float(each.mean()) for name, each in measured.items()}
        return embedder, whose, measured, plan(shape, targets, choices, mean, watch.step), count

    embedder, whose, measured, rows, count = watched("plan", "", work)
    about = f"{embedder.source.place}, {count} tokens at a time. Cycles are the cycle model's; "
    looked_at = len(next(iter(measured.values()), ()))
    if measured:
        about += f"the cosine with {whose} fp32 is the reference's, its mean over {looked_at} inputs."
    else:
        about += "accuracy was not measured."
    cells = [_cells(row) for row in rows]
    table = [dict(zip(_COLUMNS, line, strict=True)) for line in cells]
    write_text(output, plan_page(f"STA-HW: plan of {embedder.name}", about, rows, table))
    if as_json:
        least = {name: float(each.min()) for name, each in measured.items()}
        described = [asdict(row) | {"smallest_cosine": least.get(row.nm)} for row in rows]
        print_json(
            {
                "model": embedder.source.place, "tokens": count, "inputs": looked_at, "compared_with": whose,
                "pruner": pruner, "page": str(output), "rows": described,
            }
        )  # fmt: skip
        return
    print_table(about, _COLUMNS, cells, left=2)
    for problem in dict.fromkeys(f"{row.target}, {row.nm}: {p}" for row in rows for p in row.problems):
        say(problem)
    say(f"Page: {output}")


def _measured(
    embedder: Embedder, choices: dict[str, Any], inputs: list[NDArray], pruner: str, calibration: Path | None,
    watch: Watch,
) -> tuple[str, dict[str, NDArray]]:  # fmt: skip
    """Whose fp32 results are compared with, and each choice's cosines, one for each input."""
    _, whose, dense = dense_network(embedder)
    found = {
        name: one_shot_cosines(dense, embedder, patterns, pruner, inputs, calibration, partial(_tell, watch, name))
        for name, patterns in choices.items()
    }
    return whose, found


def _tell(watch: Watch, name: str, text: str) -> None:
    watch.step(f"{name}: {text}")


def _cells(row: Choice) -> tuple[str, ...]:
    """A line of the table."""

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return (
        row.target, row.nm, shown(row.cycles, ",d"), shown(row.milliseconds, ",.4g"),
        shown(row.fraction_of_ideal, ".3f"), shown(row.speedup, ".2f"),
        shown(None if row.bytes is None else row.bytes / 1e6, ",.3g"), shown(row.cosine, ".3f"),
        mark("yes" if row.fits else "no"),
    )  # fmt: skip
