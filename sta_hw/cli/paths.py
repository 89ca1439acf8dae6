"""Files and folders that commands are told to write: looked at before any work, so that nothing is lost afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError

__all__ = ["file_problem", "folder_problem", "require_writable"]


def folder_problem(folder: Path) -> str | None:
    """Why `folder` cannot be written, in one sentence; nothing is created."""
    return _problem(folder, folder, "output folder")


def file_problem(file: Path) -> str | None:
    """Why `file` cannot be written, in one sentence; nothing is created."""
    try:
        if file.is_dir():
            return f"output file {file} cannot be written: it is a folder; choose a file with -o."
        if file.exists() and not file.is_file():
            return f"output file {file} cannot be written: it is a device or a pipe; choose a file with -o."
    except (OSError, ValueError) as error:
        return _unusable("output file", file, error)
    return _problem(file, file.parent, "output file")


def require_writable(*, files: Sequence[Path] = (), folders: Sequence[Path] = ()) -> None:
    """Raise InputError, one sentence for each that cannot be written, or is named twice."""
    problems = [p for p in [*map(file_problem, files), *map(folder_problem, folders)] if p]
    places = [os.path.realpath(f) for f in files]
    problems += [f"{f} would be written twice; choose another with -o." for n, f in enumerate(files)
                 if places[n] in places[:n]]  # fmt: skip
    if problems:
        raise InputError("\n".join(problems))


def _problem(path: Path, folder: Path, what: str) -> str | None:
    try:
        long = [part for part in path.parts if len(os.fsencode(part)) > 255]
        if long:
            return f"{what} {str(path)[:60]}... cannot be written: its name is too long, at most 255 bytes."
        existing = folder
        while not existing.exists() and existing != existing.parent:
            if existing.is_symlink():
                return f"{what} {path} cannot be written: the link {existing} leads nowhere; choose another with -o."
            existing = existing.parent
        if not existing.is_dir():
            return f"{what} {path} cannot be written: {existing} is not a folder; choose another with -o."
        if not os.access(existing, os.W_OK | os.X_OK) or os.path.realpath(existing).split("/")[1] in ("proc", "sys"):
            return f"{what} {path} cannot be written: no permission in {existing}; choose another with -o."
    except (OSError, ValueError) as error:
        return _unusable(what, path, error)
    return None


def _unusable(what: str, path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return f"{what} {str(path)[:200]} cannot be written: {reason}; choose another with -o."
