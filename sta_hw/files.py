"""Files that are written whole or not at all: under a temporary name beside their place, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import InputError, ToolError

__all__ = [
    "distinct",
    "inside",
    "read_file",
    "read_json",
    "read_texts",
    "replacing",
    "replacing_all",
    "require_file",
    "require_own",
    "require_room",
    "resolved",
    "visible",
    "working_folder",
    "write_all",
    "write_bytes",
    "write_text",
]


def _permissions() -> int:
    """What a newly created file may have here: temporary files are private, and what a user asked for is not."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def replacing_all(*paths: Path) -> Iterator[list[Path]]:
    """Temporary paths beside `paths`, which become them when the block ends without an exception: all, or none.

    The temporary names keep the suffixes of the paths, by which libraries choose a format. Missing folders are made.

    Raises
    ------
    InputError
        If a device or a pipe has a path's place.
    ToolError
        If a file cannot be written (no permission, a full disk, a folder in its place); all are then as they were.
    """
    partials: list[Path] = []
    path = paths[0]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # found before any other is renamed
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if path.exists() and not path.is_file():
                raise InputError(f"{path} is a device or a pipe, which cannot be replaced; name a file.")
            handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
            partials.append(Path(name))
            os.close(handle)
        yield partials
        for path, partial in zip(paths, partials, strict=True):
            partial.chmod(path.stat().st_mode & 0o777 if path.exists() else _permissions())
        for path, partial in zip(paths, partials, strict=True):
            # A link keeps pointing where it points: the file behind it is what is replaced.
            partial.replace(path.resolve() if path.is_symlink() and _beside(path) else path)
    except OSError as error:
        names = ", ".join(str(p) for p in paths) if len(paths) > 1 and not error.filename else str(path)
        left = "it is as it was" if len(paths) == 1 else "all is as it was"
        raise ToolError(f"{names} cannot be written: {error.strerror or error}; {left}.") from error
    finally:
        for partial in partials:
            with suppress(OSError):
                partial.unlink()


def _beside(link: Path) -> bool:
    """Whether a link's target is on the same file system, so that a file can be renamed to it."""
    try:
        return resolved(link).parent.stat().st_dev == link.parent.stat().st_dev
    except (OSError, InputError):
        return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which becomes `path` at the end; see `replacing_all`."""
    with replacing_all(path) as (partial,):
        yield partial


def write_all(contents: Mapping[Path, bytes | str]) -> None:
    """Write several files (text in UTF-8) that belong together, or leave what was there; see `replacing_all`."""
    with replacing_all(*contents) as partials:
        for partial, content in zip(partials, contents.values(), strict=True):
            partial.write_bytes(content.encode() if isinstance(content, str) else content)


def require_room(path: Path) -> None:
    """Raise OSError if nothing more can be written to a file, as when a disk became full under it.

    For files that another library wrote without saying whether all of it was.
    """
    with path.open("ab") as file:
        size = file.tell()
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())
        file.truncate(size)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, or leave what was there; see `replacing`."""
    write_all({path: data})


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, or leave what was there; see `replacing`."""
    write_all({path: text})


@contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """A private folder inside `folder` for tools to write into; its files are renamed into `folder` at the end.

    After an exception, only the tools' logs (``*.log``) are, and the other files of `folder` are as they were.

    Raises
    ------
    ToolError
        If it cannot be made, or the files cannot be renamed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=folder))
    except OSError as error:
        raise ToolError(f"output folder {folder} cannot be written: {error.strerror or error}.") from error
    try:
        yield work
        _publish(work, folder, "*")
    except BaseException as error:
        with suppress(ToolError):
            _publish(work, folder, "*.log")
        if isinstance(error, OSError):
            raise ToolError(f"output folder {folder} cannot be written: {error.strerror or error}.") from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, folder: Path, pattern: str) -> None:
    made = sorted(p for p in work.glob(pattern) if p.is_file())
    try:
        for path in made:
            if (folder / path.name).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / path.name))
        for path in made:
            path.replace(folder / path.name)
    except OSError as error:
        raise ToolError(f"output folder {folder} cannot be written: {error}.") from error


_CHECKPOINT = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "nm.json", "pruned.json")
"""Files of a checkpoint's folder, beside the weights."""
_WEIGHTS = (".safetensors", ".onnx", ".bin", ".index.json")


def _key(path: Path) -> object:
    """Equal for paths that are one file: through links, relative parts, and hard links where the file exists."""
    try:
        found = path.stat()
        return found.st_dev, found.st_ino
    except OSError:
        return resolved(path)


def resolved(path: Path) -> Path:
    """A path without links and relative parts.

    Raises
    ------
    InputError
        If a link on its way leads to itself.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.13 raises the first, those before the second
        raise InputError(f"{path} cannot be found: a link on the way leads to itself; name another.") from error


def distinct(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None] | None = None) -> None:
    """Refuse outputs that are one file, or that are what the command reads.

    Parameters
    ----------
    outputs : paths that will be written, by what the user calls them (``-o``, ``the listing``)
    inputs : paths that are read, by their options; of a folder, the files of a checkpoint are meant

    Raises
    ------
    InputError
        For the first two that are the same; both are named. For an output that is a folder, or can be no file.
    """
    taken: dict[object, str] = {}
    for name, path in (inputs or {}).items():
        if path is None:
            continue
        files = [path]
        if path.is_dir():
            files += [path / n for n in _CHECKPOINT]
            files += [p for p in path.iterdir() if p.name.endswith(_WEIGHTS)]
        taken |= {_key(p): f"{name} ({p})" for p in files if p.exists()}
    for name, path in outputs.items():
        if path is None:
            continue
        try:
            key, is_folder = _key(path), path.is_dir()
        except OSError as error:  # a name that is too long, say
            shown = str(path) if len(str(path)) <= 80 else f"{str(path)[:77]}..."
            raise InputError(f"{name} ({shown}) cannot be written: {error.strerror}; choose another.") from error
        if key in taken:
            raise InputError(f"{name} ({path}) is the same file as {taken[key]}, which would be lost; choose another.")
        if is_folder:
            raise InputError(f"{name} ({path}) is a folder; name a file in it, such as {path / 'result'}{path.suffix}.")
        taken[key] = f"{name} ({path})"


def visible(folder: Path, *patterns: str) -> list[Path]:
    """Files of a folder, in order, without hidden ones: what another command is writing, macOS's ``._NAME``."""
    return sorted(p for pattern in patterns for p in folder.glob(pattern) if not p.name.startswith("."))


def inside(folder: Path, name: str, what: str) -> Path:
    """The file called `name` in `folder`, for a name that stands in a file of somebody else's.

    Raises
    ------
    InputError
        If it lies elsewhere, by an absolute name, ``..`` or a link.
    """
    path = folder / name
    if "\0" in name:
        raise InputError(f"{what} names {name!r}, which is no file's name.")
    if not resolved(path).is_relative_to(resolved(folder)):
        raise InputError(f"{what} names {name!r}, which is outside {folder}; it is not read.")
    return path


def require_file(path: Path) -> None:
    """Refuse what never ends, or never comes: a device or a pipe in the place of a file; a folder, too.

    Raises
    ------
    ValueError
        If there is one; what is not there at all is for whoever opens it.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder, a device or a pipe, and no file")


def read_file(path: Path) -> bytes:
    """The content of a file that a user named.

    Raises
    ------
    InputError
        If it cannot be read, or is none.
    """
    try:
        require_file(path)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


_MOST_TEXT = 1 << 28
"""Bytes of texts, at most."""


def read_texts(file: Path) -> bytes:
    """The bytes of a file of texts, or of a pipe; ``-`` is standard input.

    Raises
    ------
    InputError
        If it cannot be read, is a folder or a device, or does not end within 256 MB, as a device that never ends.
    """
    standard = str(file) == "-"
    name = "standard input" if standard else str(file)
    try:
        with open(0 if standard else file, "rb", closefd=not standard) as stream:
            kind = os.fstat(stream.fileno())
            endless = stat.S_ISCHR(kind.st_mode) and kind.st_rdev != os.stat(os.devnull).st_rdev and not stream.isatty()
            if endless or stat.S_ISBLK(kind.st_mode):
                raise InputError(f"{name} is a device; give a file with a text in each line.")
            found = stream.read(_MOST_TEXT + 1)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}.") from error
    if len(found) > _MOST_TEXT:
        raise InputError(f"{name} holds more than {_MOST_TEXT >> 20} MB; give shorter ones.")
    return found


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file that a user named; `what` it is, for messages, such as ``N:M table``.

    Raises
    ------
    InputError
        If it cannot be read, is not JSON in UTF-8 or no object, names something twice, or has NaN or infinity.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"it has {key!r} twice")
            found[key] = value
        return found

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        require_file(path)
        text = path.read_bytes().decode("utf-8-sig")  # some editors put a mark at the beginning
        found = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not text in UTF-8 (byte {error.start}).") from error
    except RecursionError as error:
        raise InputError(f"{what} {path} is nested too deeply.") from error
    except ValueError as error:
        raise InputError(f"{what} {path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{what} {path} is no JSON object of names and values.")
    return found


def require_own(path: Path, key: str, what: str) -> None:
    """Refuse to overwrite another command's JSON, or the user's, with what is written beside an output unasked.

    Parameters
    ----------
    path : Path
        Of the JSON file to be written.
    key : str
        A key that such a file has, and no other one.
    what : str
        It is, for messages, such as ``the image's JSON``.

    Raises
    ------
    InputError
        If there is a file that is neither empty nor a JSON object with `key`.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    with suppress(InputError):
        if key in read_json(path, what):
            return
    raise InputError(
        f"{what} would be written to {path}, where another file is, which would be lost; choose another name."
    )
