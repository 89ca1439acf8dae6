"""Commands that generate text with a decoder: generate-text, chat."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..files import read_texts
from .app import Unused, app
from .batch import read_lines
from .decoding import (
    PRUNES_NOTHING,
    ActivationsOption,
    BoardOption,
    CheckOption,
    Hardware,
    LayersPatternOption,
    LayersTableOption,
    WeightsOption,
    opened,
    watching,
)
from .options import PortOption, PresetOption, PrunerOption
from .terminal import JsonOption, complain, print_json, printable, say
from .text_batch import generate_batch

if TYPE_CHECKING:
    from ..tasks.sampling import Sampling
    from ..tasks.text import Generated

__all__: list[str] = []

_LONGEST = 1 << 20
"""Characters of a message."""

ModelOption = Annotated[
    Path | None,
    typer.Option("--model", help="A GGUF file, or a folder of transformers'.", show_default="SmolLM2-135M-Instruct"),
]
TokensOption = Annotated[int, typer.Option("--max-tokens", help="Tokens to generate at most.", min=1, max=1 << 20)]
TemperatureOption = Annotated[float, typer.Option(help="Logits are divided by it; 0 takes the largest.")]
KOption = Annotated[int, typer.Option("--top-k", help="Draw of so many of the likeliest; 0: of all.")]
POption = Annotated[float, typer.Option("--top-p", help="Draw of the likeliest with this probability; 1: of all.")]
SeedOption = Annotated[int, typer.Option(help="Seed of drawing: the same gives the same text.")]
BackendOption = Annotated[
    str,
    typer.Option("--backend", help="fp32 or fast (integers), both numpy; or programs on reference, rtl, board."),
]
DraftsOption = Annotated[
    int, typer.Option(help="Tokens looked up in the text, verified with the next one: the same text.", min=0, max=127)
]
ContextOption = Annotated[int | None, typer.Option(help="Tokens that the context holds.", show_default="up to 2048")]

_UNUSED = [
    PRUNES_NOTHING,
    Unused(("top_k", "top_p", "seed"), lambda o: not o["temperature"], "without --temperature"),
    Unused(("board", "port"), lambda o: o["backend_name"] != "board", "except with --backend board"),
    Unused(("preset_name",), lambda o: o["backend_name"] == "board", "with --backend board, which has its own"),
    Unused(("preset_name",), lambda o: o["backend_name"] == "fp32", "with --backend fp32, which knows no hardware"),
    Unused(("activations", "weights"), lambda o: o["backend_name"] == "fp32", "with --backend fp32"),
    Unused(("check",), lambda o: o["backend_name"] in ("fp32", "fast"), "with --backend fp32 or fast"),
]


def _visible(text: str) -> str:
    """Text of a model for a terminal: lines stay lines, what moves the cursor is shown as an escape."""
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def _sampling(temperature: float, top_k: int, top_p: float, seed: int) -> Sampling:
    from ..tasks.sampling import Sampling

    return Sampling(temperature, top_k, top_p, seed)


def _require_greedy(drafts: int, temperature: float) -> None:
    if drafts and temperature:
        raise InputError("--drafts are verified against the greedy choice; with --temperature there is none.")


def _figures(made: Generated) -> dict[str, Any]:
    after = len(made.ids) - 1
    return {
        "text": made.text, "ended": made.ended, "prompt_tokens": len(made.prompt), "tokens": len(made.ids),
        "prompt_ids": made.prompt, "ids": made.ids, "prompt_seconds": made.prompt_seconds, "seconds": made.seconds,
        "weight_passes": made.passes, "drafted": made.drafted, "accepted": made.accepted,
        "tokens_per_second": after / made.seconds if after > 0 and made.seconds else None,
    }  # fmt: skip


def _tell_end(made: Generated, context: int) -> None:
    if made.ended == "context":
        complain(
            f"the context of {context} tokens is full; --context makes it larger, up to what the model was made for."
        )


_UNUSED_TEXT = [
    *_UNUSED,
    Unused(("system",), lambda o: not o["chat"], "without --chat"),
    Unused(("text",), lambda o: o["batch"] is not None, "with --batch, whose file has the prompts"),
    Unused(("drafts",), lambda o: o["batch"] is not None, "with --batch, whose texts take the rows"),
    Unused(("sequences",), lambda o: o["batch"] is None, "without --batch"),
    Unused(("sequences",), lambda o: o["batch"] is not None and o["backend_name"] in ("fp32", "fast"),
           "with --backend fp32 or fast, which take one text after the other"),
]  # fmt: skip


@app.command(
    "generate-text", unused=_UNUSED_TEXT,
    epilog="Example: sta-hw generate-text 'The capital of France is' --max-tokens 16",
)  # fmt: skip
def generate_text(
    text: Annotated[str | None, typer.Argument(help="The prompt; - reads it from standard input.")] = None,
    model: ModelOption = None,
    batch: Annotated[
        Path | None, typer.Option(help="A file with a prompt in each line, or -: texts at once, a line each.")
    ] = None,
    sequences: Annotated[
        int | None,
        typer.Option(help="With --batch: texts at once at most.", min=1, show_default="as rows of the hardware"),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="The prompt is a message for the model's template.")] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: what the model is told beforehand.")] = None,
    max_tokens: TokensOption = 64,
    temperature: TemperatureOption = 0.0,
    top_k: KOption = 0,
    top_p: POption = 1.0,
    seed: SeedOption = 0,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends it; may be repeated.")] = None,
    context: ContextOption = None,
    drafts: DraftsOption = 0,
    backend_name: BackendOption = "fp32",
    preset_name: PresetOption = "decoder",
    board: BoardOption = "ulx3s-85f",
    port: PortOption = "sim",
    check: CheckOption = True,
    activations: ActivationsOption = 8,
    weights: WeightsOption = 8,
    nm: LayersPatternOption = None,
    nm_table: LayersTableOption = None,
    pruner: PrunerOption = "sparsegpt",
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Continue a text, token by token.

    Numpy computes the network in float32 or in integers, or the accelerator does: weights and activations of few bits,
    8 if nothing is said, which is less exact (docs/decoders.md).
    """
    from ..tasks.text import Generated, load_text_model

    sampling = _sampling(temperature, top_k, top_p, seed)
    _require_greedy(drafts, temperature)
    hardware = Hardware(
        backend_name, preset_name, board, port, check, activations, weights, nm, nm_table, pruner
    )  # fmt: skip
    if text is None and batch is None:
        raise InputError("there is no prompt; give TEXT, or a file of prompts with --batch.")
    prompts: list[Any]
    if batch is not None:
        prompts = list(read_lines(batch))
    else:
        prompts = [read_texts(Path("-")).decode("utf-8-sig") if text == "-" else text]
        _require_no_nul(prompts[0], "the prompt")
    loaded = load_text_model(model)
    prefix = loaded.language.chat_prefix(system) if chat else None
    if chat:
        ahead = [{"role": "system", "content": system}] if system else []
        prompts = [[*ahead, {"role": "user", "content": prompt}] for prompt in prompts]
    if batch is not None:
        generate_batch(loaded, prompts, hardware, prefix, context, sequences, sampling, max_tokens, stop or (),
                       as_json, _figures)  # fmt: skip
        return
    (prompt,) = prompts
    loaded.ids(prompt)  # what is none is refused before the work
    loaded, session = opened(loaded, hardware, context, prefix, sampling.needed)
    made = Generated([])
    pieces = loaded.stream(
        prompt, max_tokens=max_tokens, sampling=sampling, stop=stop or (), session=session, drafts=drafts, into=made
    )  # fmt: skip
    if hardware.programs:
        pieces = iter(watching(pieces, session))
    if as_json:
        for _ in pieces:
            pass
        print_json(_figures(made) | hardware.figures(session))
    else:
        _print(pieces)
        hardware.tell(session)
    _tell_end(made, session.decoder.capacity)


def _require_no_nul(text: str, what: str) -> None:
    if "\0" in text:
        raise InputError(f"{what} has NUL in it, as text in UTF-16 has; give it in UTF-8.")


def _print(pieces: Iterator[str]) -> None:
    for piece in pieces:
        typer.echo(_visible(piece), nl=False)
        sys.stdout.flush()
    typer.echo("")


def _messages(asked: bool) -> Iterator[str]:
    """Lines of standard input, until its end or, at a prompt, Ctrl-C; a mark of UTF-8 ahead of all is none of them."""
    mark = "\ufeff"
    while True:
        try:
            if asked:
                typer.echo("> ", nl=False, err=True)
            line = sys.stdin.readline(_LONGEST + 1)
        except KeyboardInterrupt:
            if not asked:
                raise
            line = ""
        if not line:
            if asked:
                typer.echo("", err=True)
            return
        if len(line) > _LONGEST:  # as of a device without an end of lines
            raise InputError(f"a line of standard input has more than {_LONGEST:,} characters; give a shorter message.")
        _require_no_nul(line, "a line of standard input")
        line.encode("utf-8")  # Bytes that are none of it may be in there, as what cannot be encoded.
        line, mark = line.removeprefix(mark).strip(), ""
        if line:
            yield line


@app.command(unused=_UNUSED, epilog="Example: sta-hw chat --temperature 0.7 --top-p 0.9 --seed 1")
def chat(
    model: ModelOption = None,
    system: Annotated[str | None, typer.Option(help="What the model is told beforehand.")] = None,
    max_tokens: TokensOption = 256,
    temperature: TemperatureOption = 0.0,
    top_k: KOption = 0,
    top_p: POption = 1.0,
    seed: SeedOption = 0,
    context: ContextOption = None,
    drafts: DraftsOption = 0,
    backend_name: BackendOption = "fp32",
    preset_name: PresetOption = "decoder",
    board: BoardOption = "ulx3s-85f",
    port: PortOption = "sim",
    check: CheckOption = True,
    activations: ActivationsOption = 8,
    weights: WeightsOption = 8,
    nm: LayersPatternOption = None,
    nm_table: LayersTableOption = None,
    pruner: PrunerOption = "sparsegpt",
    as_json: JsonOption = False,
) -> None:
    """Talk with a model.

    Each line of standard input is a message, answered word by word. Ctrl-C cuts an answer short; at the prompt it ends
    the conversation, as Ctrl-D does.
    """
    from ..tasks.text import Generated, load_text_model

    sampling = _sampling(temperature, top_k, top_p, seed)
    _require_greedy(drafts, temperature)
    hardware = Hardware(
        backend_name, preset_name, board, port, check, activations, weights, nm, nm_table, pruner
    )  # fmt: skip
    loaded = load_text_model(model)
    if loaded.language.template is None:
        raise InputError(f"{loaded.language.path} has no chat template; sta-hw generate-text goes on with a text.")
    loaded, session = opened(loaded, hardware, context, loaded.language.chat_prefix(system), sampling.needed)
    asked = sys.stdin.isatty()
    messages = [{"role": "system", "content": system}] if system else []
    answers: list[dict[str, Any]] = []
    for line in _messages(asked):
        messages.append({"role": "user", "content": line})
        made = Generated([])
        if answers and len(loaded.ids(messages)) > session.decoder.capacity:
            made.ended = "context"
        else:
            pieces = loaded.stream(
                messages, max_tokens=max_tokens, sampling=sampling, session=session, drafts=drafts, into=made
            )  # fmt: skip
            try:
                if as_json:
                    for _ in pieces:
                        pass
                else:
                    _print(pieces)
            except KeyboardInterrupt:
                if not asked:
                    raise
                made.ended = "interrupted"
                typer.echo("")
        messages.append({"role": "assistant", "content": made.text})
        answers.append({"message": line} | _figures(made))
        if made.ended == "context":
            _tell_end(made, session.decoder.capacity)
            break
    if as_json:
        print_json({"answers": answers} | hardware.figures(session))
    elif not answers and not asked:
        say("standard input has no message.")
