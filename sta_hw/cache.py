"""Where what is slow to make is kept: built models, emitted Verilog, the text to tune with."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import ToolError
from .files import write_bytes

__all__ = ["KINDS", "Entry", "cache_entries", "cache_folder", "cache_path", "clear_cache", "keep", "kept", "made_once"]

KINDS = {
    "models": "compiled simulations",
    "runtime": "Verilator's runtime, compiled",
    "verilog": "emitted Verilog",
    "text": "sentences to tune and calibrate with",
    "pruned": "weights that compile and run pruned",
    "quantized": "decoders in integers",
    "unfinished": "left by interrupted commands",
}
"""What is in the cache."""
_KIND_OF = {
    ".so": "models",
    ".o": "runtime",
    ".v": "verilog",
    ".json": "text",
    ".safetensors": "pruned",
    ".quantized": "quantized",
}
_OURS = re.compile(r"(?:\w+-[0-9a-f]{8,}|\.\w+-[0-9a-f]{8,}-\w+)(?P<suffixes>(\.\w+)+)|\.?[\w-]+\.part")
_UNFINISHED_AFTER = 3600.0
"""Seconds after which a temporary file is no longer another command's that still runs."""


@dataclass(frozen=True)
class Entry:
    """One file of the cache: its kind (of `KINDS`), bytes, and age in seconds since it was written."""

    path: Path
    kind: str
    bytes: int
    age: float


def cache_path() -> Path:
    """The folder, which need not exist: ``$STA_HW_CACHE``, or ``sta_hw`` in the user's cache folder.

    Raises
    ------
    ToolError
        If there is no home folder; the message names the variable that moves it.
    """
    if own := os.environ.get("STA_HW_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sta_hw"
    except RuntimeError as error:
        raise ToolError(f"there is no home folder for the cache ({error}); set STA_HW_CACHE to a folder.") from None


def cache_folder() -> Path:
    """The folder of `cache_path`, made if need be and private to the user.

    What is in it is compiled code that gets loaded, so nobody else may own it or write to it: others' rights are taken
    away from a folder of the user's own, any other is refused.

    Raises
    ------
    ToolError
        If it cannot be made or written to, or is not the user's alone; the message names the variable that moves it.
    """
    folder = cache_path()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise ToolError(
            f"cache folder {folder} cannot be written: {getattr(error, 'strerror', None) or error}; set STA_HW_CACHE "
            "to another folder."
        ) from error
    return folder


def _make_private(folder: Path) -> None:
    """Refuse another user's folder, or a shared one such as /tmp; a folder that the user chose may stay readable."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise ToolError(f"cache folder {folder} belongs to another user; set STA_HW_CACHE to a folder of your own.")
    if found.st_mode & 0o022 and found.st_mode & 0o1000:
        raise ToolError(
            f"cache folder {folder} is shared with other users, who could put code into it; set STA_HW_CACHE to a "
            "folder of your own."
        )
    if found.st_mode & (0o022 if os.environ.get("STA_HW_CACHE") else 0o077):
        folder.chmod(0o700)


_MARK = b"\n//sta-hw-sha256:"
"""Behind a file's content, its checksum follows; ELF and Verilog both have nothing against more at the end."""
_TRAILER = len(_MARK) + 64 + 1


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, with a checksum of its content behind it; `kept` reads it back."""
    write_bytes(path, data + _MARK + hashlib.sha256(data).hexdigest().encode() + b"\n")


def kept(path: Path) -> bytes | None:
    """The content of a file of the cache; None if there is none, or if it is not what was written."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    data, trailer = whole[:-_TRAILER], whole[-_TRAILER:]
    return data if trailer == _MARK + hashlib.sha256(data).hexdigest().encode() + b"\n" else None


@contextmanager
def made_once(path: Path) -> Iterator[None]:
    """While one process makes a file of the cache, others that want it wait: they look for it again when it is theirs.

    Beside the file there is one that is locked, as long as the work lasts. Where the file system has no locks, both
    processes make the file.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(_locked(path.with_name(f"{path.name.replace('.', '-')}-lock.part")))
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """A file that one process holds at a time, and removes; who waited for a removed one begins anew."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_open_at(path, file.fileno()):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)  # while it is still locked
                return


def _is_open_at(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


def cache_entries() -> list[Entry]:
    """The files that are sta-hw's own, by name; others in the folder are left out.

    Raises
    ------
    ToolError
        If the folder is there and cannot be read.
    """
    folder = cache_path()
    found = []
    try:
        for path in sorted(folder.iterdir()) if folder.exists() else []:
            match = _OURS.fullmatch(path.name)
            if match is None or path.is_symlink() or not path.is_file():
                continue
            first = "." + (match["suffixes"] or ".part").split(".")[1]
            unfinished = path.name.startswith(".") or path.suffix == ".part"
            kind = "unfinished" if unfinished else _KIND_OF.get(first)
            if kind:
                status = path.stat()
                found.append(Entry(path, kind, status.st_size, max(0.0, time.time() - status.st_mtime)))
    except OSError as error:
        raise ToolError(f"cache folder {folder} cannot be read: {error.strerror or error}.") from error
    return found


def clear_cache(kinds: Collection[str], older: float = 0.0) -> list[Entry]:
    """Delete files of some kinds that were written more than `older` seconds ago; return them.

    What may be another command's that still runs is kept.

    Raises
    ------
    ToolError
        If one cannot be deleted.
    """
    gone = []
    for entry in cache_entries():
        least = max(older, _UNFINISHED_AFTER) if entry.kind == "unfinished" else older
        if entry.kind in kinds and entry.age >= least:
            try:
                entry.path.unlink(missing_ok=True)
            except OSError as error:
                raise ToolError(f"{entry.path} cannot be deleted: {error.strerror or error}.") from error
            gone.append(entry)
    return gone
