"""The command that reads ONNX: import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..files import distinct, read_file, resolved, visible, write_all
from ..sparsity.store import DESCRIPTION
from ..tasks.patterns import OWN_TABLE
from .app import app
from .paths import require_writable
from .terminal import JsonOption, complain, print_json, say

if TYPE_CHECKING:
    from ..model.onnx.importer import Imported

__all__: list[str] = []


def _tokenizer(file: Path) -> bytes:
    """The content of a tokenizer.json, which is one."""
    from tokenizers import Tokenizer

    data = read_file(file)
    try:
        Tokenizer.from_buffer(data)
    except Exception as error:
        raise InputError(f"tokenizer {file} is none: {error}.") from error
    return data


@app.command(name="import", epilog="Example: sta-hw import model.onnx -o build/imported")
def import_model(
    file: Annotated[Path, typer.Argument(help="An encoder's ONNX graph, or a checkpoint's folder.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json to put beside it.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Which output of an ONNX graph.", show_default="the usual one")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="For an ONNX graph's output of all tokens: mean, first, max, last.",
                                 show_default="mean; first for images"),
    ] = None,
    folder: Annotated[Path, typer.Option("-o", "--folder", help="Where to write.")] = Path("build/imported"),
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Read an encoder; write a folder that every command takes.

    An ONNX graph is checked against onnxruntime.

    Of a folder, everything is read and checked, what is not used is listed, and its files are copied as they are.
    """
    from ..compiler.limits import sizes_of
    from ..model.families import FAMILIES, load_network
    from ..model.operations import Activate
    from ..model.part import accelerator_part

    require_writable(folders=[folder])
    names = ("config.json", "model.safetensors", "tokenizer.json", OWN_TABLE, DESCRIPTION)
    distinct({f"-o, {n}": folder / n for n in names}, {"FILE": file, "--tokenizer": tokenizer})
    if resolved(folder) == resolved(file.parent) and (folder / "config.json").exists() and not file.is_dir():
        raise InputError(f"-o {folder} is the graph's own folder, whose config.json it would replace; choose another.")
    about: dict[str, Any] = {"file": str(file), "output": str(folder)}
    files: dict[str, bytes | str]
    if file.is_dir():
        if output or pooling:
            raise InputError("--output and --pooling are an ONNX graph's; a folder says itself what its result is.")
        accelerator_part(load_network(file).graph)
        files = {str(p.relative_to(file)): read_file(p) for p in _checkpoint_files(file)}
    else:
        from ..model.onnx.importer import import_onnx
        from ..model.stored import graph_files

        imported = import_onnx(file, output, pooling)
        accelerator_part(imported.graph)
        about |= {
            "of_output": imported.output, "left_out": list(imported.left_out), "assumed": list(imported.assumed),
            "pooling": imported.pooling, "difference_from_onnxruntime": imported.difference,
        }  # fmt: skip
        files = graph_files(imported.graph, imported.labels, imported.scoring) | _beside(imported)
        beside = file.parent / "tokenizer.json"
        if tokenizer is None and "ids" in imported.graph.by_name and beside.exists():
            tokenizer = beside
    if tokenizer:
        files["tokenizer.json"] = _tokenizer(tokenizer)
        about["tokenizer"] = str(tokenizer)
    notes = (OWN_TABLE, DESCRIPTION)
    stale = {str(p.relative_to(folder)) for p in _checkpoint_files(folder)} - files.keys() - {"tokenizer.json", *notes}
    if stale:
        raise InputError(f"{folder} holds {min(stale)} of another checkpoint; choose another folder, or empty it.")
    write_all({folder / name: content for name, content in files.items()})
    for name in notes:
        if name not in files and (folder / name).exists():
            (folder / name).unlink()
            complain(f"{folder / name} is deleted: it was another checkpoint's.")
    if "tokenizer.json" not in files and (folder / "tokenizer.json").exists():
        complain(f"{folder / 'tokenizer.json'} stays as it was; --tokenizer puts another there.")
    if file.is_dir() and OWN_TABLE in files:
        about["table"] = str(folder / OWN_TABLE)
    network = load_network(folder)
    inner = accelerator_part(network.graph).inner
    functions = dict.fromkeys(o.function for o in inner.operations if isinstance(o, Activate))
    about |= {
        "family": FAMILIES.get(network.graph.name, "ONNX"), **sizes_of(inner),
        "activation": ", ".join(functions), "labels": len(network.labels),
        "unused_tensors": list(network.unused_tensors), "unused_keys": list(network.unused_keys),
    }  # fmt: skip
    if as_json:
        print_json(about)
        return
    for name, value in about.items():
        say(f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")


def _beside(imported: Imported) -> dict[str, bytes | str]:
    """What sentence-transformers says of texts, where its ``modules.json`` says the pooling."""
    from ..model.families.sentences import modules, texts_files

    if not imported.pooling.endswith("modules.json"):
        return {}
    folder = Path(imported.pooling).parent
    kept = texts_files(folder, (modules(folder) or [("", folder)])[0][1])
    return {p.name: read_file(p) for p in kept}


def _checkpoint_files(folder: Path) -> list[Path]:
    """What `load_network` and the tokenizer read of a folder, or of folders that ``modules.json`` names."""
    places = [folder, *(p for p in visible(folder, "*") if p.is_dir())] if folder.exists() else []
    return sorted(p for place in places for p in visible(place, "*.json", "*.safetensors", "vocab.txt"))
