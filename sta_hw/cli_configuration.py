"""Which configuration a command means: a preset or a manifest of `generate` or `build`, and changes to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from .config import Config
from .errors import ConfigError
from .presets import preset

__all__ = ["SetOption", "changed", "manifest_file", "read_configuration"]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a parameter: rows=8, nm=2:4,dense; may be repeated."),
]


def read_configuration(name: str, changes: Sequence[str] | None = None) -> Config:
    """The preset called `name`, or the configuration in the manifest at that path, with changes such as ``rows=8``.

    Raises
    ------
    ConfigError
        With one sentence for each thing that is wrong.
    """
    base = _from_manifest(Path(name)) if name.endswith(".json") else preset(name)
    defaults = Config().as_dict()
    options: dict[str, Any] = {}
    problems = []
    for change in changes or ():
        parameter, equals, text = change.partition("=")
        if not equals or parameter not in defaults:
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
    return changed(base, options)


def changed(base: Config, options: dict[str, Any]) -> Config:
    """`base` with other values; lanes and block size that are not given are chosen anew for other rows and lanes.

    Raises
    ------
    ConfigError
        If they do not go together.
    """
    if "rows" in options and "lanes" not in options:
        options = {"lanes": 0, "drain_lanes": 0} | options
    if "softmax_lanes" in options and "softmax_block" not in options:
        options = options | {"softmax_block": 0}
    return dataclasses.replace(base, **options)


def manifest_file(name: str | None) -> Path | None:
    """The manifest that `read_configuration` reads for `name`; None for a preset."""
    return Path(name) if name and name.endswith(".json") else None


def _from_manifest(path: Path) -> Config:
    try:
        found = json.loads(path.read_text())["configuration"]
    except OSError as error:
        raise ConfigError([f"the manifest {path} cannot be read: {error.strerror}."]) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path} is no manifest of sta-hw generate or build: it has no configuration."]) from error
    if not isinstance(found, dict) or set(found) - set(Config().as_dict()):
        raise ConfigError([f"the configuration in {path} has parameters that this version of sta-hw does not know."])
    parameters: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return Config(**parameters)


def _text(config: Config, parameter: str) -> str:
    value = config.as_dict()[parameter]
    return ",".join(value) if isinstance(value, list) else str(value)
