"""A checkpoint's tensors, each of which is used, refused by name, or listed as unused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import inside, read_json, require_file
from .finite import require_finite
from .operations import Array

__all__ = ["Tensors", "read_tensors"]

_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
"""The formats of safetensors that numpy reads as they are; bfloat16 is the upper half of float32."""

_PACKED = (".qweight", ".qzeros", ".g_idx")
"""Of AWQ's and GPTQ's checkpoints, integers that `packed.unpacked` makes weights of."""
_MOST = 1 << 40
"""Elements of a tensor, at most."""


@dataclass
class Tensors:
    """A checkpoint's tensors, every one of which is taken, or left with a reason.

    Attributes
    ----------
    found : dict
        By the name in the file, without the family's prefix; gamma and beta as weight and bias.
    path : Path
        For messages.
    left : dict
        Pattern of names: why tensors of such names are not needed.
    prefixed : dict
        By name: what the file has, where that is another.
    """

    found: dict[str, Array]
    path: Path
    left: dict[str, str] = field(default_factory=dict)
    prefixed: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def take(self, name: str, *shape: int) -> Array:
        """A tensor of a shape; zeros if it is missing or does not fit, which `finish` raises."""
        if math.prod(shape) > _MOST:
            raise InputError(f"{self.path}: by config.json, {name} has shape {shape}, which no file holds.")
        if name not in self.found:
            self.problems.append(f"{self.path} lacks {name} of shape {shape}.")
            return np.broadcast_to(np.float32(0), shape)  # takes no memory, whatever the configuration says
        self._taken.add(name)
        array = self.found[name]
        if array.shape != shape:
            self.problems.append(f"{self.path}: {name} has shape {array.shape}; by config.json it is {shape}.")
            return np.broadcast_to(np.float32(0), shape)
        try:
            require_finite({name: array}, str(self.path))
        except InputError as error:
            self.problems.append(str(error))
        return array

    def layers(self, wanted: int) -> range:
        """Numbers of layers, of which there are no more than tensors, so that one that is missing is found soon."""
        return range(min(wanted, len(self.found)))

    def take_off_prefix(self, anchor: str) -> None:
        """Take off the prefix that all tensors of the network have, by one whose name without it is `anchor`."""
        places = [n for n in self.found if n == anchor or n.endswith("." + anchor)]
        if len(places) != 1:
            where = f"holds {' and '.join(sorted(places))}" if places else f"holds no {anchor}"
            raise InputError(f"{self.path} {where}; one network of the family config.json says is expected.")
        prefix = places[0].removesuffix(anchor)
        twice = sorted(
            n for n in self.found if prefix and n.startswith(prefix) and n.removeprefix(prefix) in self.found
        )
        if twice:
            raise InputError(f"{self.path} holds {_named(twice)} without {prefix!r}, too; one of them is meant.")
        self.prefixed = {n.removeprefix(prefix): n for n in self.found if prefix and n.startswith(prefix)}
        self.found = {n.removeprefix(prefix): array for n, array in self.found.items()}

    def leave(self, reasons: dict[str, str]) -> None:
        """Names (shell patterns) of tensors that are not needed, and why."""
        self.left |= reasons

    def finish(self) -> list[str]:
        """A sentence for what is not used.

        Raises
        ------
        InputError
            With every problem: tensors that are missing, of a wrong shape or not finite, and those that have no place.
        """
        groups: dict[str, list[str]] = {}
        unknown = []
        for name in self.found.keys() - self._taken:
            reason = next((r for pattern, r in self.left.items() if fnmatchcase(name, pattern)), None)
            if reason is None:
                unknown.append(name)
            else:
                groups.setdefault(reason, []).append(name)
        if unknown:
            self.problems.append(
                f"{self.path} has {len(unknown)} tensors that have no place in the model: "
                f"{', '.join(sorted(unknown)[:8])}."
            )
        if self.problems:
            most = 12
            more = [f"And {len(self.problems) - most} more."] if len(self.problems) > most else []
            raise InputError("\n".join(self.problems[:most] + more))
        return [f"{_named(names)}: {reason}" for reason, names in groups.items()]


def _named(names: list[str]) -> str:
    ordered = sorted(names)
    return ordered[0] + (f" and {len(ordered) - 1} more" if len(ordered) > 1 else "")


def read_tensors(folder: Path) -> Tensors:
    """The tensors of a folder's ``model.safetensors``, or of the files that ``model.safetensors.index.json`` names.

    Raises
    ------
    InputError
        If files are missing or unreadable, do not fit their index, or hold a format other than float32, float16,
        bfloat16 and float64.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return Tensors(_read(single), single)
    if not index.exists():
        others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".h5", ".msgpack", ".gguf", ".pt"))
        hint = f" (there is {others[0]}; save the model as safetensors)" if others else ""
        raise InputError(f"model folder {folder}: there is no model.safetensors, and no {index.name}{hint}.")
    places = read_json(index, "index").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise InputError(f"{index} has no weight_map, of tensors' names and files.")
    found: dict[str, Array] = {}
    for name in sorted(set(places.values())):
        shard = inside(folder, name, str(index))
        tensors = _read(shard)
        wanted = {_modern(t) for t, file in places.items() if file == name}
        for what, names in (
            ("lacks", wanted - tensors.keys()),
            ("has, beside what its index says,", tensors.keys() - wanted),
        ):
            if names:
                raise InputError(f"{shard} {what} {_named(list(names))}.")
        found |= tensors
    return Tensors(found, index)


def _modern(name: str) -> str:
    """TensorFlow's names of a LayerNorm's parameters, which early checkpoints kept."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    try:
        require_file(path)
        entries = deserialize(path.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}.") from error
    found, unknown = {}, []
    for name, entry in entries:
        kind, raw = entry["dtype"], entry["data"]
        if kind == "I64" and name.endswith(("position_ids", "token_type_ids")):
            # Counting numbers and zeros, which early versions of transformers stored and none reads.
            array = np.frombuffer(raw, "<i8").astype(np.float32)
        elif kind == "I32" and name.endswith(_PACKED):
            array = np.frombuffer(raw, "<i4")
        elif kind == "BF16":
            array = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in _TYPES:
            with np.errstate(over="ignore"):
                array = np.frombuffer(raw, _TYPES[kind]).astype(np.float32)
        else:
            unknown.append(f"{name} ({kind})")
            continue
        if _modern(name) in found:
            raise InputError(f"{path} holds {_modern(name)} twice, by its new name and its old.")
        found[_modern(name)] = array.reshape(entry["shape"])
    if unknown:
        raise InputError(
            f"{path} holds {len(unknown)} tensors of a format that is not supported: {', '.join(unknown[:4])}; "
            "float32, float16 and bfloat16 are."
        )
    return found
