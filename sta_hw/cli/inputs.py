"""The command that writes what programs without sta-hw copy into an image: input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..compiler.contract import inputs_file
from ..compiler.model import CompiledModel
from ..errors import InputError
from ..files import distinct, write_all
from .app import Unused, app
from .batch import read_lines
from .model import load, require_own
from .options import InputOption, ModelOption
from .paths import require_writable
from .terminal import JsonOption, Watch, print_json, say, watched

__all__: list[str] = []


@app.command(
    name="input", epilog="Example: sta-hw input build/minilm.npz --texts sentences.txt -o build/minilm.inputs",
    unused=[Unused(("text", "texts"), lambda o: o["given"] is not None, "with --input, which is what is written")],
)  # fmt: skip
def write_inputs(
    file: Annotated[Path, typer.Argument(help="The compiled model.")],
    text: Annotated[list[str] | None, typer.Option(help="A sentence; may be repeated.")] = None,
    texts: Annotated[Path | None, typer.Option(help="A file with a sentence in each line.")] = None,
    given: InputOption = None,
    model: ModelOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file; FILE.inputs if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write what a program of your own copies into an image.

    Before each run: a text, tokenized, embedded and quantized, or an image, or a spectrogram.
    """
    compiled = CompiledModel.load(file)
    target = output or file.with_suffix(".inputs")
    distinct({"-o": target}, {"FILE": file, "--texts": texts, "--input": given, "--model": model})
    require_writable(files=[target])
    sentences = [*(text or []), *(read_lines(texts) if texts else [])]
    if given is None and not sentences:
        raise InputError("there is nothing to write; give sentences with --text or --texts, an image with --input.")

    def work(watch: Watch) -> bytes:
        watch.step("loading the model")
        embedder = load(model, None, calibrated=True)
        require_own(file, compiled, embedder)
        watch.step("embedding")
        found = [embedder.read(s, given) for s in sentences or [""]]
        places = compiled.packing.texts
        if len(found) % len(places):
            raise InputError(f"{file} runs {len(places)} texts at a time, and there are {len(found)}.")
        for number, embedded in enumerate(found):
            tokens = places[number % len(places)].tokens
            if len(embedded) > tokens or (len(places) > 1 and len(embedded) != tokens):
                what = repr(sentences[number][:60]) if sentences else str(given)
                most = "" if len(places) > 1 else "up to "
                raise InputError(
                    f"{file} was compiled for {most}{tokens} tokens, and {what} has {len(embedded)}; "
                    f"compile it with --tokens {len(embedded)}."
                )
        return inputs_file(compiled, [found[i : i + len(places)] for i in range(0, len(found), len(places))])

    data = watched("input", "", work)
    write_all({target: data})
    count = max(1, len(sentences))
    if as_json:
        print_json({"file": str(target), "inputs": count, "bytes": len(data)})
        return
    say(f"{target}: {count} input{'s' if count > 1 else ''}, {len(data):,} bytes")
