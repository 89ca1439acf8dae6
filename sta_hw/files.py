"""Files that are written whole or not at all: under a temporary name beside their place, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ToolError

__all__ = ["replacing", "write_bytes", "write_text"]


def _permissions() -> int:
    """What a newly created file may have here: temporary files are private, and what a user asked for is not."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which becomes `path` when the block ends without an exception.

    The temporary name keeps the suffix of `path`, by which libraries choose a format. Missing folders are made.

    Raises
    ------
    ToolError
        If the file cannot be written (no permission, a full disk, a folder in its place); `path` is then as it was.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        partial = Path(name)
        os.close(handle)
        yield partial
        partial.chmod(path.stat().st_mode & 0o777 if path.exists() else _permissions())
        partial.replace(path)
    except OSError as error:
        raise ToolError(f"{path} cannot be written: {error.strerror or error}; it is as it was.") from error
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, or leave what was there; see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, or leave what was there; see `replacing`."""
    write_bytes(path, text.encode())
