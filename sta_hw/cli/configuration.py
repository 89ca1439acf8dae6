"""Which configuration a command means: a preset or a manifest of `generate` or `build`, and changes to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, InputError
from ..files import read_json
from ..spec.config import Config
from ..spec.presets import preset

__all__ = ["SetOption", "changed", "manifest_file", "read_changes", "read_configuration"]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a parameter: rows=8, nm=2:4,dense; may be repeated."),
]


def read_configuration(name: str, changes: Sequence[str] | None = None, *, top: str | None = None) -> Config:
    """The preset called `name`, or the configuration in the manifest at that path, with changes such as ``rows=8``.

    With `top`, the manifest may not be of another top level.

    Raises
    ------
    ConfigError
        With one sentence for each thing that is wrong.
    """
    base = _from_manifest(Path(name), top) if name.endswith(".json") or "/" in name else preset(name)
    return changed(base, read_changes(base, changes or ()))


def read_changes(base: Config, changes: Sequence[str]) -> dict[str, Any]:
    """Parameters by name from changes such as ``rows=8``, of their types; whether they go together, `changed` tells.

    Raises
    ------
    ConfigError
        With one sentence for each that is none.
    """
    defaults = Config().as_dict()
    options: dict[str, Any] = {}
    problems = []
    for number, change in enumerate(changes):
        parameter, equals, text = change.partition("=")
        if any(c.partition("=")[0] == parameter for c in changes[:number]):
            problems.append(f"--set {change}: {parameter} is set twice; set it once.")
        elif not equals or parameter not in defaults:
            near = get_close_matches(parameter, defaults, n=1, cutoff=0)[0]
            problems.append(
                f"--set {change} is no name=value of a parameter; the nearest is {near}={_text(base, near)}."
            )
        elif isinstance(defaults[parameter], list):
            options[parameter] = tuple(word.strip() for word in text.split(",") if word.strip())
        elif isinstance(defaults[parameter], int):
            try:
                options[parameter] = int(text)
            except ValueError:
                problems.append(f"--set {change}: {parameter} is a whole number, as {_text(base, parameter)}.")
        else:
            options[parameter] = text
    if problems:
        raise ConfigError(problems)
    return options


def changed(base: Config, options: dict[str, Any], *, top: str | None = None) -> Config:
    """`base` with other values; lanes and block size that are not given are chosen anew for other rows and lanes.

    With `top` ``accelerator``, the drain's are at most those of `base`, and as few as an accelerator needs.

    Raises
    ------
    ConfigError
        If they do not go together.
    """
    if "rows" in options and "lanes" not in options:
        options = {"lanes": 0, "drain_lanes": 0} | options
    if "softmax_lanes" in options and "softmax_block" not in options:
        options = options | {"softmax_block": 0}
    found = dataclasses.replace(base, **options)
    if top == "accelerator" and not options.get("drain_lanes") and 2 * found.drain_lanes > found.lanes > 1:
        most = min(base.drain_lanes, found.lanes // 2)
        found = dataclasses.replace(found, drain_lanes=max(d for d in range(1, most + 1) if found.rows % d == 0))
    return found


def manifest_file(name: str | None) -> Path | None:
    """The manifest that `read_configuration` reads for `name`; None for a preset."""
    return Path(name) if name and (name.endswith(".json") or "/" in name) else None


def _from_manifest(path: Path, top: str | None) -> Config:
    try:
        described = read_json(path, "the manifest")
    except InputError as error:
        raise ConfigError([str(error)]) from error
    found, of = described.get("configuration"), described.get("top")
    if not isinstance(found, dict):
        raise ConfigError([f"{path} is no manifest of sta-hw generate or build: it has no configuration."])
    defaults = Config().as_dict()
    if set(found) - set(defaults):
        raise ConfigError([f"the configuration in {path} has parameters that this version of sta-hw does not know."])
    problems = [
        f"the configuration in {path} has {name} = {str(value)[:80]}; it is such as {defaults[name]}."
        for name, value in found.items()
        if type(value) is not type(defaults[name])
        or (isinstance(value, list) and not all(isinstance(word, str) for word in value))
    ]
    if top and of is not None and of != top:
        problems.append(f"{path} is a manifest of {str(of)[:40]!r}; this command needs one of the {top}.")
    if problems:
        raise ConfigError(problems)
    parameters: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    config = Config(**parameters)
    if "hash" in described and described["hash"] != config.hash:
        raise ConfigError(
            [f"{path} was changed, or another version wrote it: it says hash {str(described['hash'])[:40]}, and its "
             f"parameters have {config.hash}; generate it again."]
        )  # fmt: skip
    return config


def _text(config: Config, parameter: str) -> str:
    value = config.as_dict()[parameter]
    return ",".join(value) if isinstance(value, list) else str(value)
