"""A quantized decoder in the cache folder: what takes a minute of calibration is made once for the same network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache import cache_folder, keep, kept, made_once
from ...formats.blocks import BlockedWeights
from ...formats.provenance import weights_digest
from ...model.graph import Graph
from ...sources import sources_digest
from ...spec.patterns import Pattern
from ..parameters import LinearParameters, NormParameters
from .integers import IntegerDecoderGraph, Rules
from .quantize import quantize_decoder
from .rotation import as_rules_say

__all__ = ["quantize_decoder_once"]

_PARTS = {kind.__name__: kind for kind in (LinearParameters, NormParameters, BlockedWeights, Pattern)}
_MOST = 6
"""Files that stay in the cache: every system prompt makes another, somewhat larger than the weights."""
_OUTLINE = "outline"
_GIVEN = ("graph", "rules", "prefix")
"""What the caller has, and is not kept."""


def quantize_decoder_once(
    graph: Graph, texts: Sequence[Sequence[int]], prefix: Sequence[int], rules: Rules,
    report: Callable[[str], None] = lambda _: None, patterns: Mapping[str, Pattern] | None = None,
) -> IntegerDecoderGraph:  # fmt: skip
    """What `quantize_decoder` gives, from the cache folder if the same was quantized before.

    The same are: the text of this module and all that it imports, the graph with its arrays, texts, prefix, rules,
    patterns, and numpy's version. What is kept is checked; a damaged file is made again. The six used last stay.

    Raises
    ------
    InputError
        As `quantize_decoder`.
    """
    from safetensors.numpy import load, save

    path = cache_folder() / f"decoder-{_key(graph, texts, prefix, rules, patterns or {})}.quantized.safetensors"
    with made_once(path):
        data = kept(path)
        if data is None:
            found = quantize_decoder(graph, texts, prefix, rules, report, patterns)
            arrays: dict[str, NDArray] = {}
            whole = {f.name: getattr(found, f.name) for f in fields(found) if f.name not in _GIVEN}
            outline = json.dumps(_outline(whole, "", arrays)).encode()
            arrays[_OUTLINE] = np.frombuffer(outline, np.uint8)
            keep(path, save(arrays))
            _leave_the_newest(path.parent)
            return found
    with suppress(OSError):
        os.utime(path)  # used last
    arrays = load(data)
    whole = _inside(json.loads(arrays.pop(_OUTLINE).tobytes()), arrays)
    given = IntegerDecoderGraph(as_rules_say(graph, rules, patterns or {}), rules, tuple(prefix))
    return replace(given, **whole)


def _leave_the_newest(folder: Path) -> None:
    """Delete what was not used for the longest time."""
    used = []
    for path in folder.glob("decoder-*.quantized.safetensors"):
        with suppress(FileNotFoundError):  # another process may do the same
            used.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(used)[:-_MOST]:
        path.unlink(missing_ok=True)


def _key(
    graph: Graph, texts: Sequence[Sequence[int]], prefix: Sequence[int], rules: Rules, patterns: Mapping[str, Pattern]
) -> str:
    described = [
        weights_digest(graph), np.__version__, [list(map(int, t)) for t in texts], list(map(int, prefix)),
        {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(rules).items()},
        sorted((name, str(p)) for name, p in patterns.items()), sources_digest("compiler/decoder/once.py"),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]


def _outline(value: Any, place: str, arrays: dict[str, NDArray]) -> Any:
    """A value for JSON, its arrays by name beside it."""
    if isinstance(value, np.ndarray):
        arrays[place] = np.ascontiguousarray(value)
        return {"array": place}
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return {"part": type(value).__name__, "fields": _outline(parts, place, arrays)}
    if isinstance(value, dict):
        return {"items": {k: _outline(v, f"{place}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_outline(v, f"{place}/{n}", arrays) for n, v in enumerate(value)]}
    return value


def _inside(value: Any, arrays: Mapping[str, NDArray]) -> Any:
    """The value again."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "part" in value:
        return _PARTS[value["part"]](**_inside(value["fields"], arrays))
    if "tuple" in value:
        return tuple(_inside(v, arrays) for v in value["tuple"])
    return {k: _inside(v, arrays) for k, v in value["items"].items()}
