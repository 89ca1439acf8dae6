"""Saved states of fine-tuning: tensors and JSON in a safetensors file, so that reading one runs nothing it contains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from ..files import write_bytes

__all__ = ["is_whole", "load_state", "save_state"]


def _flat(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON has it; tensors go into `tensors`, by where they stood. Dictionaries become lists of pairs,
    because an optimizer's have numbers as keys."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().clone().contiguous()
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"pairs": [[k, _flat(v, f"{path}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_flat(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _deep(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        return tensors[value["tensor"]] if "tensor" in value else {k: _deep(v, tensors) for k, v in value["pairs"]}
    return [_deep(v, tensors) for v in value] if isinstance(value, list) else value


def _checksum(plain: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        digest.update(f"{name}\0".encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, value: Mapping[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors and of what JSON has; keys are strings or whole numbers.

    Raises
    ------
    ToolError
        If it cannot be written; a state that was there is kept.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_flat(value, "", tensors))
    write_bytes(path, save(tensors, {"plain": plain, "sha256": _checksum(plain, tensors)}))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises
    ------
    InputError
        If the file is damaged, or is no such state.
    """
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata()
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if about["sha256"] != _checksum(about["plain"], tensors):
            raise ValueError("its content is not what was written")
        return _deep(json.loads(about["plain"]), tensors)
    except Exception as error:
        raise InputError(f"{path} is not a saved state ({error}); delete it to begin anew.") from error


def is_whole(path: Path) -> bool:
    """Whether `load_state` can read a file."""
    try:
        load_state(path)
    except InputError:
        return False
    return True
