"""What a file of a compiled model says of itself, checked before anything of it is used."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from ..errors import ConfigError
from ..formats.provenance import Provenance
from ..spec.config import Config
from ..spec.isa import HEADER_BYTES
from ..spec.patterns import parse_nm
from .info import LayerInfo, ProgramInfo, ValueInfo
from .packing import Place

__all__ = ["FORMAT", "check_places", "configuration", "described_fields"]

FORMAT = 7
"""Version of the file; 1 had no checksum and no provenance, 2 no batches, 3 no values, 4 the first instruction set,
5 keys without register LENGTH, 6 attention without `why_not`."""

_LAYER_TEXTS = ("layer", "nm", "used", "encoding", "why_not")
_LAYER_NUMBERS = ("columns", "reduction", "depth", "passes", "chunk", "bytes", "work")
_VALUE_PARTS = {f.name for f in fields(ValueInfo)}
_LAYER_PARTS = {f.name for f in fields(LayerInfo)}
_PARTS = {f.name for f in fields(ProgramInfo)}
_SCALES = ("ideal_cycles", "embedded_scale", "output_scale", "outputs_scale")


def _whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _need(condition: object, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def configuration(described: dict[str, Any]) -> Config:
    """The hardware it is for.

    Raises
    ------
    ValueError
        If it is malformed, or its hash is another one's.
    """
    found = described.get("configuration")
    _need(isinstance(found, dict), "it has no configuration of the hardware")
    assert isinstance(found, dict)
    _need(set(found) == set(Config().as_dict()), "its configuration has other parameters than this version's")
    try:
        parameters: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        config = Config(**parameters)
    except (ConfigError, TypeError, AttributeError) as error:
        raise ValueError(f"its configuration: {' '.join(str(error).split())}") from error
    _need(described.get("hash") == config.hash, f"it names hardware {described.get('hash')}, and has {config.hash}")
    return config


def described_fields(described: dict[str, Any]) -> dict[str, Any]:
    """The fields of a compiled model, without configuration, image and instructions.

    Raises
    ------
    ValueError
        If one is missing or of a wrong type.
    """
    for name in ("tokens", "hidden"):
        _need(_whole(described.get(name), 1), f"{name} = {described.get(name)!r} is no whole number from 1 on")
    for name in ("program_address", "input_address", "output_address"):
        _need(_whole(described.get(name)), f"{name} = {described.get(name)!r} is no address")
    labels = described.get("labels")
    _need(isinstance(labels, list) and all(isinstance(x, str) for x in labels), "labels are no list of names")
    info = described.get("info")
    _need(isinstance(info, dict), "it has no figures (info)")
    assert isinstance(info, dict)
    _need(set(info) == _PARTS, f"its figures are other ones: {', '.join(sorted(set(info) ^ _PARTS)[:5])}")
    for name in _SCALES:
        least = 0.0 if name == "embedded_scale" else 1e-300  # 0: each token has a scale of its own
        _need(_number(info.get(name)) and info[name] >= least, f"{name} = {info.get(name)!r} is no number above 0")
    _check_layers(info.get("layers"))
    width = info.get("input_width")
    _need(_whole(width, 1), f"input_width = {width!r} is no whole number from 1 on")
    buffers = info.get("buffers")
    _need(isinstance(buffers, dict), "it has no buffers")
    assert isinstance(buffers, dict)
    for name, place in buffers.items():
        right = isinstance(place, list) and len(place) == 3 and all(_whole(v) for v in place)
        _need(right, f"buffer {name!r} is {place!r}, not address, width and size")
    _need(info.get("outputs") in buffers, f"outputs are in {info.get('outputs')!r}, which is no buffer")
    mean = info.get("mean_windows")
    right = mean is None or (isinstance(mean, list) and len(mean) == 3 and all(_whole(v) for v in mean))
    _need(right, f"mean_windows are {str(mean)[:80]}, not address, depth and blocks")
    _check_values(info.get("values"), buffers)
    texts = _texts(described)
    shares = info.get("pooled_shares")
    right = isinstance(shares, list) and len(shares) == len(texts) and all(_number(v) and v > 0 for v in shares)
    _need(right, f"pooled_shares are {str(shares)[:80]}, not a number above 0 for each of {len(texts)} texts")
    places = info.get("places")
    right = isinstance(places, list) and all(
        isinstance(p, list) and len(p) == 3 and isinstance(p[0], str) and _whole(p[1]) and _whole(p[2]) for p in places
    )
    _need(right, f"places are {str(places)[:80]}, not name, offset and bytes each")
    provenance = described.get("provenance")
    plain = ("tokens", "hidden", "program_address", "input_address", "output_address", "labels")
    return {name: described[name] for name in plain} | {
        "info": ProgramInfo.read(info),
        "texts": texts,
        "provenance": None if provenance is None else Provenance.read(provenance),
    }


def _check_values(values: object, buffers: dict[str, Any]) -> None:
    """Of each label: an operation, its layer, the value that its instructions write, and the buffers of that."""
    _need(isinstance(values, dict), "it has no values")
    assert isinstance(values, dict)
    for label, about in values.items():
        right = isinstance(about, dict) and set(about) == _VALUE_PARTS
        right = right and all(isinstance(about[k], str) for k in ("operation", "value"))
        right = right and (about.get("layer") is None or _whole(about["layer"]))
        right = right and isinstance(about.get("buffers"), list) and all(b in buffers for b in about["buffers"])
        _need(right, f"values of {label!r} are {str(about)[:80]}, not operation, layer, value and buffers")


def _texts(described: dict[str, Any]) -> tuple[Place, ...]:
    """The texts' places: none overlap, and together they have the tokens that are said."""
    found = described.get("texts")
    pairs = isinstance(found, list) and found and all(isinstance(t, list) and len(t) == 2 for t in found)
    _need(pairs, "texts are no list of first rows and lengths")
    assert isinstance(found, list)
    end = 0
    for first, tokens in found:
        _need(_whole(first, end) and _whole(tokens, 1), f"a text at row {first!r} of {tokens!r} tokens is no place")
        end = first + tokens
    _need(sum(t for _, t in found) == described["tokens"], f"the texts have other than {described['tokens']} tokens")
    return tuple(Place(*t) for t in found)


def _check_layers(layers: object) -> None:
    _need(isinstance(layers, list) and all(isinstance(row, dict) for row in layers), "layers are no list of objects")
    assert isinstance(layers, list)
    for row in layers:
        name = row.get("layer")
        other = sorted(set(row) ^ _LAYER_PARTS)
        _need(not other, f"layer {name!r} has not the figures of this version: {', '.join(map(str, other[:5]))}")
        for key in _LAYER_TEXTS:
            _need(isinstance(row.get(key), str), f"layer {name!r}: {key} = {row.get(key)!r} is no text")
        for key in _LAYER_NUMBERS:
            _need(_number(row.get(key)) and row[key] >= 0, f"layer {name!r}: {key} = {row.get(key)!r} is no size")
        for key in ("nm", "used"):
            try:
                parse_nm(row[key])
            except ConfigError as error:
                raise ValueError(f"layer {name!r}: {error}") from error


def check_places(found: dict[str, Any], config: Config, size: int) -> None:
    """Program, input and output lie in an image of `size` bytes.

    Raises
    ------
    ValueError
        If one does not.
    """
    tiles = math.ceil(found["texts"][-1].end / config.rows)
    row = 2 * found["hidden"] * config.rows * math.ceil(len(found["texts"]) / config.rows)
    given = 2 * found["info"].input_width * config.rows
    for name, count in (("program", HEADER_BYTES), ("input", tiles * given), ("output", row)):
        address = found[f"{name}_address"]
        _need(
            address + count <= size,
            f"{name}_address = {address}: {count} bytes there are not all in the image's {size}",
        )
