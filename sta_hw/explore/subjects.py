"""Models of an exploration: checkpoints, whose accuracy can be measured, or sizes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..compiler.limits import sizes_of
from ..errors import InputError
from ..files import resolved
from ..formats.provenance import text_table
from ..model.families.layers import LINEAR
from ..spec.patterns import parse_nm
from ..tasks.embedder import Embedder
from ..tasks.table import nm_choices
from .answer import accuracy_content
from .question import Question
from .sweep import Subject

__all__ = ["DEFAULT_NM", "DEFAULT_TOKENS", "checkpoint", "of_shape", "read_shape"]

DEFAULT_NM = "dense,8:16,2:4,4:16"
DEFAULT_TOKENS = 128
_SIZES = ("hidden", "heads", "layers", "intermediate")


def checkpoint(
    embedder: Embedder, nm: str | None, tokens: Sequence[int] | None, *, inputs: int = 0, pruner: str = "sparsegpt",
    given: Path | None = None, calibration: Path | None = None, note: Callable[[str], None] = lambda _: None,
) -> Subject:  # fmt: skip
    """A loaded checkpoint; with `inputs`, its accuracy is asked for, measured with so many.

    Raises
    ------
    InputError
        If N:M are not valid, or files are none of the model's inputs.
    """
    choices = {name: text_table(patterns) for name, patterns in nm_choices(embedder, nm, DEFAULT_NM).items()}
    own = embedder.part.tokens or min(DEFAULT_TOKENS, embedder.network.graph.most_tokens or DEFAULT_TOKENS)
    chosen = tuple(tokens) if tokens else (own,)
    problems = {}
    for count in chosen:
        try:
            embedder.require_tokens(count)
        except InputError as error:
            problems[count] = str(error)
    accuracy = {}
    if inputs:
        places = {
            name: None if path is None else str(resolved(path))
            for name, path in (("folder", embedder.folder), ("inputs", given), ("calibration", calibration))
        }
        content, _, measured = accuracy_content(embedder, given, calibration, inputs, note)
        for name, table in choices.items() if measured else ():
            asked = content | {"nm": table, "pruner": pruner}
            accuracy[name] = Question("accuracy", asked, places)
    sizes = sizes_of(embedder.part.inner)
    shape = {"hidden": sizes["hidden"], "heads": sizes["heads"], "layers": sizes["layers"]}
    shape["intermediate"] = sizes["intermediate"]
    return Subject(embedder.name, shape, choices, chosen, problems, accuracy)


def of_shape(shape: Mapping[str, int], nm: str | None, tokens: Sequence[int] | None) -> Subject:
    """An encoder of some sizes; its linear layers are those of BERT."""
    names = [f"{layer}.{name}" for layer in range(shape["layers"]) for name in LINEAR.values()]
    choices = {str(parse_nm(t)): dict.fromkeys(names, str(parse_nm(t))) for t in (nm or DEFAULT_NM).split(",")}
    name = f"{shape['layers']} x {shape['hidden']}/{shape['heads']}/{shape['intermediate']}"
    return Subject(name, dict(shape), choices, tuple(tokens or (DEFAULT_TOKENS,)))


def read_shape(text: str) -> dict[str, int]:
    """Sizes from ``hidden=768,heads=12,layers=12,intermediate=3072``; the last is 4 x hidden if not given.

    Raises
    ------
    InputError
        If one is missing, unknown, there twice, or no whole number of 1 or more.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        good = value.isascii() and value.isdigit() and len(value) < 8 and int(value) > 0
        if name not in _SIZES or name in found or not good:
            raise InputError(
                f"the shape {text}: {part!r} is not one of {', '.join(_SIZES)}, once, with a whole number of 1 or "
                "more; write for example hidden=768,heads=12,layers=12,intermediate=3072."
            )
        found[name] = int(value)
    if missing := [name for name in _SIZES[:3] if name not in found]:
        raise InputError(f"the shape {text} lacks {' and '.join(missing)}.")
    if found["layers"] > 1000:
        raise InputError(f"the shape {text}: layers is from 1 to 1000.")
    return {name: found.get(name, 4 * found["hidden"]) for name in _SIZES}
