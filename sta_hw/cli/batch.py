"""Commands for many inputs at a time: embed, classify."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ..compiler.check import cosine
from ..errors import InputError
from ..files import distinct, read_texts, write_all
from ..host.saturation import saturation_sentences
from ..model.arrays import given
from ..model.settings import SCORINGS
from ..run.backends import BACKENDS, backend
from ..spec.config import Config
from ..tasks.batch import MOST_TOKENS, BatchRun
from ..tasks.embedder import Embedder
from ..tasks.scores import scores
from .app import Unused, app
from .configuration import manifest_file, read_configuration
from .model import Pruning, dense_network, load
from .options import (
    BOARD_ALONE,
    COMPARED_WITH,
    NOTHING_PRUNED,
    BackendOption,
    BoardOption,
    CalibrationOption,
    CheckOption,
    ModelOption,
    OwnPatternOption,
    PortOption,
    PresetOption,
    PrunerOption,
    TableOption,
)
from .paths import require_writable
from .terminal import JsonOption, Watch, complain, print_json, print_table, say, watched

__all__ = ["read_lines"]

_MOST_SAID = 10
"""Lines of a file that are named when they are refused."""

TokensOption = Annotated[
    int, typer.Option(help="Tokens that run through the same weights, at most.", min=1, max=1 << 16)
]
TruncateOption = Annotated[bool, typer.Option("--truncate", help="Cut texts that are longer than the model takes.")]

_UNUSED = [
    NOTHING_PRUNED,
    BOARD_ALONE,
    Unused(("preset_name",), lambda o: o["backend_name"] == "board", "with --backend board, which has its own"),
    COMPARED_WITH,
]  # fmt: skip


def read_lines(file: Path) -> list[str]:
    """The texts of a file, one a line; ``-`` is standard input.

    Raises
    ------
    InputError
        If there is none, or a line is empty, no UTF-8, or not one line of text; lines are named by number.
    """
    name = "standard input" if str(file) == "-" else str(file)
    lines = read_texts(file).removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise InputError(f"{name} holds no text; write one a line.")
    texts, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.decode().removesuffix("\r"))
        except UnicodeDecodeError:
            texts.append("?")
            problems.append(f"{name}, line {number}: it is not text in UTF-8.")
        if why := _not_a_line(texts[-1]):
            problems.append(f"{name}, line {number}: it {why}.")
    _refuse(problems)
    return texts


def _not_a_line(text: str) -> str:
    """What is wrong with a line of a file of texts; empty if nothing is."""
    if not text.strip():
        return "is empty; take it out, or write a text there"
    if "\0" in text:
        return "has NUL in it, as text in UTF-16 has; write the file in UTF-8"
    if "\r" in text:
        return "has a carriage return in its middle; lines end with a line feed"
    if text.startswith("\ufeff"):
        return "begins with a byte order mark, as a file behind another does; take it out"
    return ""


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - _MOST_SAID
        raise InputError(
            "\n".join([*problems[:_MOST_SAID], *([f"{more} more lines are refused."] if more > 0 else [])])
        )


def _embedded(embedder: Embedder, file: Path, truncate: bool) -> list[tuple[str, NDArray[np.float32]]]:
    """A name for each text or image of a file, and what the accelerator takes of it."""
    if embedder.tokenizer is None:
        if truncate:
            raise InputError(f"--truncate is not used with {embedder.name}, which takes no texts; leave it out.")
        graph = embedder.network.graph
        arrays = embedder.arrays(file)
        return [(f"{file}, {number}", embedder.part.embed(given(graph), a)) for number, a in enumerate(arrays, 1)]
    limits = [n for n in (embedder.network.limits.most_tokens, embedder.network.graph.most_tokens) if n is not None]
    most = min(limits) if truncate and limits else None
    found, problems, long = [], [], 0
    for number, text in enumerate(read_lines(file), 1):
        try:
            ids = embedder.token_ids(text, most)
        except InputError as error:
            hint = "; --truncate cuts it" if "the model takes" in str(error) else ""
            problems.append(f"{file}, line {number}: {str(error).rstrip('.')}{hint}.")
            continue
        long += bool(limits) and len(ids) > min(limits)
        found.append((text, embedder.part.embed("ids", ids)))
    _refuse(problems)
    if long:
        complain(
            f"sentence-transformers cuts this model's texts at {min(limits)} tokens; of {file} {long} "
            f"{'is' if long == 1 else 'are'} longer, and all is taken here; --truncate cuts."
        )
    return found


@dataclass(frozen=True)
class _Options:
    """Options that embed and classify share, by the names that they have there."""

    backend_name: str
    nm: str | None
    nm_table: Path | None
    pruner: str
    model: Path | None
    calibration: Path | None
    preset_name: str
    tokens: int
    truncate: bool
    check: bool
    board: str
    port: str

    @staticmethod
    def of(given: Mapping[str, Any]) -> _Options:
        """Of a command's parameters; the preset is the board's where that is the back end.

        Raises
        ------
        InputError
            For what can be refused before the model is loaded.
        """
        found = _Options(**{f.name: given[f.name] for f in fields(_Options)})
        if found.backend_name not in BACKENDS:
            raise InputError(f"backend {found.backend_name!r} is unknown; it is {', '.join(BACKENDS)}.")
        if found.target is not None:
            found = replace(found, preset_name=found.target.preset)
        found.pruning.look_at(found.preset_name)
        return found

    @property
    def pruning(self) -> Pruning:
        return Pruning(self.nm, self.nm_table, self.pruner, self.calibration)

    @cached_property
    def target(self) -> Any:
        """The board, where that is the back end."""
        if self.backend_name != "board":
            return None
        from boards import board

        return board(self.board)


def _run(
    files: Sequence[Path], options: _Options, watch: Watch, suits: Callable[[Embedder], None]
) -> tuple[BatchRun, list[str], dict[str, Any], Embedder]:
    """Load (`suits` refuses a model that gives something else), prune, quantize, run, compare with fp32."""
    config = read_configuration(options.preset_name, top="accelerator")
    watch.step("loading the model")
    embedder = load(options.model, options.calibration)
    suits(embedder)
    names, inputs = zip(*(pair for f in files for pair in _embedded(embedder, f, options.truncate)), strict=True)
    sparse = options.pruning.pruned(embedder, config, max(map(len, inputs)), watch)
    watch.step("quantizing")
    batcher = sparse.batcher(config, options.tokens)
    watch.step("preparing the backend")
    name = options.backend_name
    hardware = backend(name, config, options.target, options.port)
    described: list[str] = []

    def progress(program: str, done: int, total: int) -> None:
        if described != [program]:
            described[:] = [program]
            watch.step(f"running ({name}), {program}")
        watch(done, total)

    watch.step(f"running ({name})")
    found = batcher.run(inputs, hardware, check=options.check and name != "reference", progress=progress)
    watch.step("comparing with fp32")
    return found, list(names), _figures(found, embedder, inputs, config, name, options.check), embedder


def _figures(
    run: BatchRun, embedder: Embedder, inputs: Sequence[NDArray[np.float32]], config: Config, backend_name: str,
    check: bool,
) -> dict[str, Any]:  # fmt: skip
    """Figures as JSON types; the cosines are with the dense network's fp32 results."""
    figure, whose, dense = dense_network(embedder)
    pairs = [(value, dense.exact(one)) for value, one in zip(run.values, inputs, strict=True)]
    cosines = [cosine(*pair) for pair in pairs]
    found: dict[str, Any] = {
        "inputs": len(inputs), "tokens": run.tokens, "programs": run.programs, "backend": backend_name,
        "hash": config.hash, figure: float(np.mean(cosines)), f"least_{figure}": min(cosines), "compared_with": whose,
        "ideal_cycles": run.ideal_cycles, **run.saturated,
    }  # fmt: skip
    if all(value.size == 1 for value in run.values):  # whose cosines say no more than their signs
        found["largest_difference"] = max(float(np.abs(value - exact).max()) for value, exact in pairs)
    if run.cycles is not None:
        found |= {
            "cycles": run.cycles, "fraction_of_ideal": run.fraction, "equal_to_reference": True if check else None
        }  # fmt: skip
    return found


def _say_figures(figures: dict[str, Any], run: BatchRun) -> None:
    if run.cycles is not None:
        say(f"{run.cycles:,} cycles, {run.fraction:.3f} of ideal, counted in the inputs' own tokens.")
    for sentence in saturation_sentences(run.saturated):
        say(sentence)
    if "largest_difference" in figures:
        largest = figures["largest_difference"]
        say(f"Largest difference of logits from fp32 of {figures['compared_with']}: {largest:.4f}.")
        return
    figure = next(k for k in figures if k.startswith("cosine"))
    say(
        f"{figure.replace('_', ' ').capitalize()} of {figures['compared_with']}: mean {figures[figure]:.4f}, least "
        f"{figures[f'least_{figure}']:.4f}."
    )


@app.command(epilog="Example: sta-hw embed sentences.txt --nm 8:16 -o build/vectors.npy", unused=_UNUSED)
def embed(
    file: Annotated[Path, typer.Argument(help="Texts, one a line, in UTF-8; - for standard input. Or images: .npy.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The vectors: .npy, or .json with the texts.")] = Path(
        "build/vectors.npy"
    ),
    backend_name: BackendOption = "reference",
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    model: ModelOption = None,
    calibration: CalibrationOption = None,
    preset_name: PresetOption = "reference",
    tokens: TokensOption = MOST_TOKENS,
    truncate: TruncateOption = False,
    check: CheckOption = True,
    board: BoardOption = "ulx3s-85f",
    port: PortOption = "sim",
    as_json: JsonOption = False,
) -> None:
    """Embed many texts.

    Texts run in batches: each weight is read once for all texts of a batch. The vectors have length 1 and the order of
    the texts.
    """
    options = _Options.of(locals())
    require_writable(files=[output])
    inputs = {
        "FILE": file, "--model": model, "--nm-table": nm_table, "--preset": manifest_file(preset_name),
        "--calibration": calibration,
    }  # fmt: skip
    distinct({"-o": output}, inputs)
    if output.suffix not in (".npy", ".json"):
        raise InputError(
            f"output file {output} holds no vectors by its name; it ends in .npy or .json, the nearest is "
            f"{output.with_name(output.name + '.npy')}."
        )

    def suits(embedder: Embedder) -> None:
        if "logits" in embedder.network.graph.by_name:
            raise InputError(f"{embedder.name} gives classes, no embedding; take sta-hw classify.")

    found, names, figures, _ = watched("embed", "", lambda watch: _run([file], options, watch, suits))
    vectors = np.stack(found.values).astype(np.float32)
    if output.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, vectors)
        write_all({output: content.getvalue()})
    else:
        rows = [{"input": n, "embedding": [round(float(x), 6) for x in v]} for n, v in zip(names, vectors, strict=True)]
        write_all({output: json.dumps(rows, indent=1) + "\n"})
    if as_json:
        print_json({"file": str(output), "width": vectors.shape[1]} | figures)
        return
    say(f"{output}: {len(vectors):,} vectors of {vectors.shape[1]}; {found.tokens:,} tokens, {found.programs} runs.")
    _say_figures(figures, found)


@app.command(
    epilog="Example: sta-hw classify reviews.txt --model checkpoint --nm dense --top 2",
    unused=_UNUSED,
)
def classify(
    files: Annotated[list[Path], typer.Argument(help="Texts, one a line (- for standard input); or images: .npy.")],
    top: Annotated[int, typer.Option(help="Classes to tell of each.", min=1, max=100_000)] = 1,
    backend_name: BackendOption = "reference",
    nm: OwnPatternOption = None,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    model: ModelOption = None,
    calibration: CalibrationOption = None,
    preset_name: PresetOption = "reference",
    tokens: TokensOption = MOST_TOKENS,
    truncate: TruncateOption = False,
    check: CheckOption = True,
    board: BoardOption = "ulx3s-85f",
    port: PortOption = "sim",
    as_json: JsonOption = False,
) -> None:
    """Classify many texts or images.

    The model has a classifier; its configuration names the classes, and says whether they are alternatives (told is the
    share of each), each has a probability of its own, or they are values (regression).
    """
    options = _Options.of(locals())

    def suits(embedder: Embedder) -> None:
        shape = embedder.network.graph.shapes.get("logits")
        if shape is None:
            raise InputError(
                f"{embedder.name} gives an embedding, no classes; give one with a classifier with --model."
            )
        if len(shape) != 1:
            raise InputError(f"{embedder.name} classifies every token; sta-hw run tells these classes.")
        if top > int(shape[0]):
            raise InputError(f"--top {top}: {embedder.name} has {shape[0]} classes; the nearest is {shape[0]}.")

    found, names, figures, embedder = watched("classify", "", lambda watch: _run(files, options, watch, suits))
    labels = embedder.network.labels or tuple(f"LABEL_{i}" for i in range(len(found.values[0])))
    answers, what = [], SCORINGS[embedder.network.scoring]
    for name, logits in zip(names, found.values, strict=True):
        found_scores = scores(logits, embedder.network.scoring)
        best = [int(i) for i in np.argsort(-logits, kind="stable")[:top]]
        answers.append({"input": name, "classes": [{"label": labels[i], what: float(found_scores[i])} for i in best]})
    if as_json:
        print_json(figures | {"answers": answers})
        return
    rows = [
        (answer["input"] if not place else "", c["label"], f"{c[what]:.3f}")
        for answer in answers for place, c in enumerate(answer["classes"])
    ]  # fmt: skip
    print_table("", ("input", "class", what), rows, left=2)
    _say_figures(figures, found)
