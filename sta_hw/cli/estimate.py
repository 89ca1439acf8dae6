"""The command that counts cycles without simulation: estimate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..compiler.limits import Sizes, require_shape, sizes_of
from ..compiler.packing import Packing
from ..compiler.shape import Estimate, estimate_encoder
from ..cycles.timing import MachineTiming
from ..errors import InputError
from ..files import read_texts
from ..model.families.layers import LINEAR
from ..spec.patterns import parse_nm
from ..tasks.batch import MOST_TOKENS, fill
from ..tasks.embedder import Embedder
from .app import Unused, app
from .configuration import read_configuration
from .options import MegahertzOption, PatternOption, PresetOption
from .terminal import JsonOption, Watch, print_json, say, watched

__all__: list[str] = []

MOST_TEXTS = 100_000
"""Of a batch that is estimated: more is a mistake."""
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
    where = f"{text}: " if is_file else "--batch: "
    words = read_texts(Path(text)).decode("utf-8", "replace") if is_file else text
    for word in words.replace(",", " ").split():
        times, by, tokens = word.rpartition("x")
        whole = len(word) <= _MOST_DIGITS and (times if by else "1").isdecimal() and tokens.isdecimal()
        if not whole or not int(times or 1) * int(tokens):
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


def _refused(embedder: Embedder, lengths: Sequence[int]) -> list[str]:
    """Why a checkpoint does not take texts of so many tokens."""
    found = []
    for tokens in sorted(set(lengths)):
        try:
            embedder.require_tokens(tokens)
        except InputError as error:
            found.append(str(error))
    return found


@app.command(
    epilog="Example: sta-hw estimate --hidden 768 --heads 12 --layers 12 --tokens 128 --nm 2:4",
    unused=[
        Unused(("hidden", "heads", "layers", "intermediate"), lambda o: o["model"] is not None,
               "with --model, which has its own"),
        Unused(("tokens",), lambda o: o["batch"] is not None, "with --batch, which has the texts' tokens"),
        Unused(("most",), lambda o: o["batch"] is None, "except with --batch"),
    ],
)  # fmt: skip
def estimate(
    hidden: Annotated[int, typer.Option(help="Hidden size.")] = 384,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 12,
    layers: Annotated[int, typer.Option(help="Encoder layers.")] = 6,
    intermediate: Annotated[int | None, typer.Option(help="Feed-forward size; 4 x hidden if not given.")] = None,
    model: Annotated[Path | None, typer.Option(help="A checkpoint's folder, whose sizes are taken.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens.", show_default="128, or an image's")] = None,
    batch: Annotated[
        str | None, typer.Option(help="Tokens of each text of a batch, as in 4,60,17 or 8x16; or a file, one a line.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", help="With --batch: tokens through the same weights, at most.", min=1, max=1 << 16)
    ] = MOST_TOKENS,
    nm: PatternOption = "2:4",
    preset_name: PresetOption = "reference",
    latency: Annotated[int, typer.Option(help="Memory latency in cycles.", min=0, max=1_000_000)] = 50,
    bandwidth: Annotated[float, typer.Option(help="Bus beats per cycle.", min=0.01, max=1.0)] = 1.0,
    shared: Annotated[bool, typer.Option("--shared", help="Reads and writes share the bandwidth, as in DRAM.")] = False,
    megahertz: MegahertzOption = 80.0,
    as_json: JsonOption = False,
) -> None:
    """Estimate a model's cycles, without simulation.

    Of a shape, or of a checkpoint's, by the cycle model, which follows the program. Any number of tokens: where the
    program could not be compiled, it says why. A batch's texts run together as embed runs them.
    """
    config = read_configuration(preset_name, top="accelerator")
    pattern = parse_nm(nm)
    lengths = read_lengths(batch) if batch is not None else [128 if tokens is None else tokens]
    wide = intermediate if intermediate is not None else 4 * hidden
    sizes = Sizes(layers=layers, hidden=hidden, heads=heads, intermediate=wide)
    refused: list[str] = []
    if model is not None:
        embedder = Embedder.load(model)
        sizes = sizes_of(embedder.part.inner)
        if embedder.part.tokens is not None and tokens is None and batch is None:
            lengths = [embedder.part.tokens]
        refused = _refused(embedder, lengths)
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
    problems = list(dict.fromkeys([*refused, *(p for e in each for p in e.problems)]))
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
