"""What a caller in Python gives, checked: nothing is cut, rounded or read as something else without a word.

A whole number may be one of numpy's, and comes back as Python's; a truth value or a fraction is none.
"""

from __future__ import annotations

import errno
import math
import operator
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from .errors import InputError

__all__ = ["flag", "path_of", "real", "require_function", "require_kind", "several", "text_of", "token_ids", "whole"]


def _shown(value: object) -> str:
    """A value as a message has it: on one line, and short."""
    words = " ".join(repr(value).split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _plain(value: Any) -> Any:
    """One of numpy's numbers or truth values as Python's: to Python its truth values are floats."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def whole(value: object, name: str) -> int:
    """A whole number; `name` says which.

    Raises
    ------
    InputError
        If it is none, with the nearest one.
    """
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with suppress(TypeError):  # an array has the method, and refuses if it is none of a single whole number
            return operator.index(value)
    near = f", the nearest is {round(value)}" if isinstance(value, float) and math.isfinite(value) else ""
    raise InputError(f"{name} is {_shown(value)}; it is a whole number{near}.")


def real(value: object, name: str) -> float:
    """A real number, or numpy's of it, infinity and NaN among them; `name` says which.

    Raises
    ------
    InputError
        If it is a truth value, a text, an array, or larger than a float holds.
    """
    plain = _plain(value)
    single = getattr(plain, "shape", ()) == ()
    if isinstance(plain, SupportsFloat | SupportsIndex) and not isinstance(plain, bool) and single:
        with suppress(TypeError, ValueError, OverflowError):
            return float(plain)
    raise InputError(f"{name} is {_shown(value)}; it is a number.")


def text_of(value: object, name: str) -> str:
    """A text; `name` says which.

    Raises
    ------
    InputError
        If it is none, or holds half of a surrogate pair, which no tokenizer and no file takes.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} is {_shown(value)}; it is a text (str).")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds U+{ord(value[error.start]):04X} at place {error.start}, half of a surrogate pair, which "
            "is no character; take it out."
        ) from None
    return value


def several(values: object, name: str, of: str) -> list:
    """A list of what a caller gives several of; `of` says of what, in the plural.

    Raises
    ------
    InputError
        If it is a single text, bytes or path, names with values, a set, or nothing that has an order.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | os.PathLike | Mapping | set | frozenset):
        raise InputError(f"{name} is {_shown(values)}; it is a list of {of}: put a single one in a list.")
    if getattr(values, "shape", None) == ():
        raise InputError(f"{name} is an array without a dimension; it is a list of {of}.")
    return list(values)


def token_ids(values: object, name: str) -> list[int]:
    """Token ids.

    Raises
    ------
    InputError
        If they are no list, or one is no whole number; the message has its place, from 0.
    """
    return [whole(value, f"token {place} of {name}") for place, value in enumerate(several(values, name, "token ids"))]


def path_of(value: object, name: str) -> Path:
    """A path, given as one or as a text.

    Raises
    ------
    InputError
        If it is neither, is empty, has a NUL, or a name that is longer than the file system's.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise InputError(f"{name} is {_shown(value)}; it is a path, or a text that names one.")
    if not os.fspath(value):  # which is no file, and to Path the folder that the program runs in
        raise InputError(f"{name} is empty; it is a path.")
    path = Path(value)
    try:
        os.lstat(path)
    except ValueError:
        raise InputError(f"{name} is {_shown(str(path))}; no path has a NUL in it.") from None
    except OSError as error:  # What is not there, or may not be looked at, is for whoever opens it.
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{name} is {_shown(str(path))}, with a name longer than the file system's.") from None
    return path


def flag(value: object, name: str) -> bool:
    """True or False, of Python or numpy.

    Raises
    ------
    InputError
        If it is anything else: a word or a number would count as true.
    """
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise InputError(f"{name} is {_shown(value)}; it is True or False.")
    return plain


def require_function(value: object, name: str) -> None:
    """Refuse what cannot be called, before the work at whose end it would be.

    Raises
    ------
    InputError
        With its type.
    """
    if not callable(value):
        raise InputError(f"{name} is {_shown(value)}, of type {type(value).__name__}; it is a function.")


def require_kind(value: object, name: str, *kinds: type) -> None:
    """Refuse a value that is of none of some classes.

    Raises
    ------
    InputError
        With the classes' names.
    """
    if not isinstance(value, kinds):
        names = ["None" if kind is type(None) else kind.__name__ for kind in kinds]
        raise InputError(f"{name} is {_shown(value)}, of type {type(value).__name__}; it is {' or '.join(names)}.")
