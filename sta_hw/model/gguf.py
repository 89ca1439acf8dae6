"""GGUF files: what they say of a model, and its tensors, de-quantized when they are asked for.

The format is that of ggml (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3. It is read
here and not by the package `gguf`, which goes on beyond a file's end, and takes as many steps as a damaged count says;
the tests compare with that package.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .operations import Array

__all__ = ["Gguf", "StoredTensor", "read_gguf", "with_arrays"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_NAMES = (
    "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32",
    "I64", "F64", "IQ1_M", "BF16",
)  # fmt: skip
"""ggml's types of tensors, by number."""
_MOST_DIMENSIONS = 4
_BLOCK = 32
"""Elements of a block that share a scale."""


def _halves(raw: NDArray[np.uint8]) -> Array:
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _nibbles(packed: NDArray[np.uint8]) -> Array:
    """4 bits each: the low halves of 16 bytes are the first 16 elements."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _q8_0(raw: NDArray[np.uint8]) -> Array:
    return _halves(raw[:, :2]) * raw[:, 2:].view(np.int8)


def _q4_0(raw: NDArray[np.uint8]) -> Array:
    return _halves(raw[:, :2]) * (_nibbles(raw[:, 2:]) - 8)


def _q4_1(raw: NDArray[np.uint8]) -> Array:
    return _halves(raw[:, :2]) * _nibbles(raw[:, 4:]) + _halves(raw[:, 2:4])


@dataclass(frozen=True)
class _Kind:
    elements: int
    size: int
    read: Callable[[NDArray[np.uint8]], Array]


_KINDS = {
    "F32": _Kind(1, 4, lambda raw: np.ascontiguousarray(raw).view("<f4").astype(np.float32)),
    "F16": _Kind(1, 2, _halves),
    "Q8_0": _Kind(_BLOCK, 34, _q8_0),
    "Q4_0": _Kind(_BLOCK, 18, _q4_0),
    "Q4_1": _Kind(_BLOCK, 20, _q4_1),
}
"""Types that are read: elements and bytes of a block, and a function of blocks, shape (blocks, bytes)."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file has it.

    Attributes
    ----------
    kind : str
        ggml's type.
    shape : tuple of int
        As numpy has it, the last dimension's elements side by side.
    raw : array of uint8, shape (blocks, bytes of a block)
    """

    kind: str
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]

    def array(self) -> Array:
        """The values as float32, in ggml's arithmetic: scale times value, plus minimum, each rounded to float32."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
            return np.asarray(_KINDS[self.kind].read(self.raw), np.float32).reshape(self.shape)


@dataclass(frozen=True)
class Gguf:
    """A file.

    Attributes
    ----------
    path : Path
    metadata : dict of str
        Numbers, words, and lists of them.
    tensors : dict of str
    header : bytes
        What comes ahead of the tensors' descriptions.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    header: bytes = b""

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """Metadata of a kind; `default` where there is none.

        Raises
        ------
        InputError
            If it is of another kind.
        """
        value = self.metadata.get(key, default)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise InputError(
                f"{self.path}: {key} is {str(value)[:60]!r}; it is {' or '.join(k.__name__ for k in kinds)}."
            )
        return value


class _Cursor:
    """Reads one value behind the other, and nothing beyond the end."""

    def __init__(self, path: Path, data: NDArray[np.uint8]) -> None:
        self.path, self.place = path, 0
        self.data = data.data  # slices of a memoryview are made much sooner than an array's

    def wrong(self, sentence: str) -> InputError:
        return InputError(f"{self.path}: {sentence}.")

    def take(self, size: int, what: str) -> bytes:
        left = len(self.data) - self.place
        if size > left:
            raise self.wrong(f"{what} needs {size:,} bytes at byte {self.place:,}, and the file has {left:,} from "
                             "there; it is truncated or damaged")  # fmt: skip
        self.place += size
        return bytes(self.data[self.place - size : self.place])

    def number(self, kind: str, what: str) -> int:
        (value,) = struct.unpack(kind, self.take(struct.calcsize(kind), what))
        return int(value)

    def text(self, what: str) -> str:
        try:
            return self.take(self.number("<Q", what), what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is not text in UTF-8; the file is damaged") from None

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.text(what)
        if kind in _SCALARS:
            of = np.dtype(_SCALARS[kind])
            return np.frombuffer(self.take(of.itemsize, what), of)[0].item()
        if kind != _ARRAY:
            raise self.wrong(f"{what} has the type {kind}, which GGUF does not know")
        inner, count = self.number("<I", what), self.number("<Q", what)
        if inner in _SCALARS:
            of = np.dtype(_SCALARS[inner])
            return np.frombuffer(self.take(of.itemsize * count, what), of).tolist()
        if inner != _STRING:
            raise self.wrong(f"{what} is an array of the type {inner}; of numbers and words alone they are supported")
        if count * 8 > len(self.data) - self.place:  # the least that so many words take
            raise self.wrong(f"{what} has {count:,} words, more than the file holds; it is truncated or damaged")
        return [self.text(what) for _ in range(count)]


def read_gguf(path: Path) -> Gguf:
    """Read a file; tensors are left in it until they are asked for.

    Raises
    ------
    InputError
        If it cannot be read, is truncated or no GGUF, or has tensors of another type than F32, F16, Q8_0, Q4_0, Q4_1.
    """
    try:
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}.") from error
    c = _Cursor(path, data)
    if bytes(data[:4]) != _MAGIC:
        raise c.wrong(f"it is no GGUF file: it begins with {bytes(data[:4])!r}, not {_MAGIC!r}")
    c.place = 4
    version = c.number("<I", "the version")
    if version not in _VERSIONS:
        swapped = version & 0xFFFF == 0 and version
        raise c.wrong("it is in big-endian byte order, which is not supported" if swapped else
                      f"it is of version {version}; 2 and 3 are supported")  # fmt: skip
    tensors, pairs = c.number("<Q", "the number of tensors"), c.number("<Q", "the number of keys")
    metadata: dict[str, Any] = {}
    for number in range(pairs):
        key = c.text(f"key {number} of {pairs}")
        if key in metadata:
            raise c.wrong(f"it has the key {key} twice")
        metadata[key] = c.value(c.number("<I", key), key)
    header = bytes(data[: c.place])
    placed = dict(_placed(c, tensors))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise c.wrong(f"general.alignment is {alignment!r}; it is a power of two")
    start = -(-c.place // alignment) * alignment
    if unknown := [f"{name} ({kind})" for name, (kind, _, _) in placed.items() if kind not in _KINDS]:
        raise c.wrong(f"it holds {len(unknown)} tensors of a type that is not supported: {', '.join(unknown[:4])}; "
                      f"{', '.join(_KINDS)} are")  # fmt: skip
    found = {name: _stored(c, data, start, name, *about) for name, about in placed.items()}
    _require_packed(c, placed, found, alignment)
    return Gguf(path, metadata, found, header)


def with_arrays(file: Gguf, changed: Mapping[str, Array]) -> bytes:
    """A file with other values of some tensors, in F16 (in F32 what that does not reach); all else is as it was."""
    alignment = file.metadata.get("general.alignment", 32)
    described, data, place = [file.header], [], 0
    for name, tensor in file.tensors.items():
        kind, raw = tensor.kind, tensor.raw.tobytes()
        if name in changed:
            kind = "F16" if np.abs(changed[name]).max(initial=0) < np.finfo(np.float16).max else "F32"
            raw = changed[name].astype("<f2" if kind == "F16" else "<f4").tobytes()
        word = name.encode()
        sizes = struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape[::-1])
        described += [struct.pack("<Q", len(word)), word, struct.pack("<I", len(tensor.shape)), sizes,
                      struct.pack("<IQ", _NAMES.index(kind), place)]  # fmt: skip
        padded = -(-len(raw) // alignment) * alignment
        data.append(raw.ljust(padded, b"\0"))
        place += padded
    head = b"".join(described)
    return head.ljust(-(-len(head) // alignment) * alignment, b"\0") + b"".join(data)


def _placed(c: _Cursor, count: int) -> list[tuple[str, tuple[str, tuple[int, ...], int]]]:
    """Type, shape, and place behind the header, of every tensor."""
    found: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for number in range(count):
        name = c.text(f"tensor {number} of {count}")
        if name in found:
            raise c.wrong(f"it has the tensor {name} twice")
        dimensions = c.number("<I", name)
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise c.wrong(f"{name} has {dimensions} dimensions; 1 to {_MOST_DIMENSIONS} are supported")
        shape = tuple(c.number("<Q", name) for _ in range(dimensions))[::-1]
        kind = c.number("<I", name)
        found[name] = (_NAMES[kind] if kind < len(_NAMES) else f"type {kind}", shape, c.number("<Q", name))
    return list(found.items())


def _require_packed(
    c: _Cursor,
    placed: Mapping[str, tuple[str, tuple[int, ...], int]],
    found: Mapping[str, StoredTensor],
    alignment: int,
) -> None:
    """Refuse tensors that do not lie one behind the other, in the order of the header: as ggml does.

    An offset that is wrong is seen by nothing else, and reads other tensors' bytes.
    """
    expected = 0
    for name, (_, _, place) in placed.items():
        if place != expected:
            raise c.wrong(f"{name} lies at byte {place:,} behind the header, and the tensors ahead of it end at "
                          f"{expected:,} (general.alignment is {alignment}); the file is damaged")  # fmt: skip
        expected += -(-found[name].raw.size // alignment) * alignment


def _stored(
    c: _Cursor, data: NDArray[np.uint8], start: int, name: str, kind: str, shape: tuple[int, ...], place: int
) -> StoredTensor:
    of = _KINDS[kind]
    if shape[-1] % of.elements or not math.prod(shape):
        raise c.wrong(f"{name} has shape {shape} and blocks of {of.elements} elements, which do not fit each other")
    size = math.prod(shape) // of.elements * of.size
    if start + place + size > len(c.data):
        raise c.wrong(f"{name} needs {size:,} bytes at byte {start + place:,}, and the file has {len(c.data):,}; it is "
                      "truncated or damaged")  # fmt: skip
    raw = data[start + place : start + place + size].reshape(-1, of.size)
    return StoredTensor(kind, shape, raw)
