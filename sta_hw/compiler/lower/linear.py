"""Linear layers: the products of every chunk of columns and row tile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from ...errors import InputError
from ...formats.nm import best_encoding, bits_per_weight
from ...spec.isa import Digit, Opcode, Result, Target, ValueFormat
from ...spec.patterns import DENSE, Pattern
from ..info import LayerInfo
from ..parameters import LinearParameters
from ..schedule import Load, Step
from .chunks import Chunk, Cut, chunk_of, chunk_width, cut_layer, loads_of
from .parts import WindowPart
from .state import Lowering

__all__ = ["LinearLayer", "linear"]

_ENCODINGS = {"dense": 0, "index": 1, "bitmap": 2}
_TABLE_BYTES = 512
Window = tuple[int, int]
"""Where a product's windows of a row tile lie: address in bytes, and bus words."""
Fields = dict[str, int]
Bases = dict[str, tuple[str, int]]
"""Fields that say where on chip something lies: the name of a place, and words behind its beginning."""


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer's products: what they multiply, and what becomes of their results.

    Attributes
    ----------
    label : str
        Of its instructions.
    parameters : LinearParameters
    source, target : str
        Buffers of its inputs and of its results.
    result : Result
        What the result path makes of the sums.
    needs, gives : str
        Of each row tile, what the products wait for (nothing, if empty), and what the last of them gives.
    residual : str
        Buffer of what the results are added to, if anything.
    table : array of 256, optional
        The activation's.
    side_by_side : bool
        Results are stored as attention's weights are: `value_rows` tokens of a column side by side.
    keeps : bool
        Windows may be kept on chip from one product to the next. Not for who moves the products' addresses.
    """

    label: str
    parameters: LinearParameters
    source: str
    result: Result
    target: str
    needs: str
    gives: str
    residual: str = ""
    table: NDArray | None = None
    side_by_side: bool = False
    keeps: bool = True


def linear(low: Lowering, layer: LinearLayer) -> None:
    """All products of one linear layer: chunk of columns after chunk, tile after tile.

    Of a source of 16 bits both digits are multiplied, one after the other, by the weights on chip: the sums of the high
    ones are kept, and count 128 times.

    Raises
    ------
    InputError
        If the hardware has not the layer's N:M or no depth for its blocks, or too little room for its weights.
    """
    p, columns = layer.parameters, len(layer.parameters.weights)
    pattern = _supported(low, layer.label, p.pattern)
    cut = cut_layer(low, layer.label, p, pattern, digits=low.places[layer.source].size == 2)
    width = chunk_width(low, layer.label, columns, cut)
    tiles = low.repeat(low.tiles, 1)
    windows = [_windows(low, layer, cut, tile) for tile, _ in tiles]
    flags = _kept(low, layer, cut, windows)
    stored = 0
    for number, chunk_weight in low.repeat(math.ceil(columns / width), len(tiles)):
        low.chunk_weight = chunk_weight
        first = number * width
        chunk = chunk_of(low, p, cut, slice(first, min(first + width, columns)))
        stored += chunk.stored
        loads = loads_of(low, layer.label, p, chunk)
        if layer.table is not None and first == 0:
            address = low.image.add(layer.table.astype("<i2"), name=f"{layer.label}: table")
            loads.append(Load(Target.TABLE, len(layer.table), address, low.beats(_TABLE_BYTES)))
        low.chunk_weight = 1.0
        low.groups.append(loads)
        for (tile, weight), of_tile in zip(tiles, windows, strict=True):
            common = _results(low, layer, chunk, tile)
            products = list(_products(layer, cut, chunk, common, of_tile, flags[number > 0]))
            _append(low, layer, products, tile, ends=chunk.columns.stop == columns,
                    weight=low.weight * chunk_weight * weight)  # fmt: skip
    low.layers.append(_told(low, layer, pattern, cut, width, stored))


def _supported(low: Lowering, label: str, pattern: Pattern) -> Pattern:
    """The pattern the hardware runs a layer with: dense if N = M."""
    if pattern.dense:
        return DENSE
    try:
        low.config.require(pattern)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    return pattern


def _windows(low: Lowering, layer: LinearLayer, cut: Cut, tile: int) -> list[Window]:
    """Of each part of the products of a row tile."""
    return [
        (low.tile_address(layer.source, tile, part.first), low.beats(cut.window_bytes(part, low.config)))
        for part in cut.parts
    ]


def _kept(low: Lowering, layer: LinearLayer, cut: Cut, windows: Sequence[Sequence[Window]]) -> tuple[str, str]:
    """The flag, ``keep`` or ``kept`` if any, of the first chunk's products and of those of the chunks after it."""
    if not layer.keeps:
        return "", ""
    flags = low.keep_windows(layer.needs or layer.source, windows, twice=cut.digits)
    if cut.digits and not flags[0] and low.keep_each(windows):
        return "keep", "keep"  # from the high digits to the low ones
    return flags


def _results(low: Lowering, layer: LinearLayer, chunk: Chunk, tile: int) -> Fields:
    """What all products of a chunk and tile have: columns, and where results go."""
    cfg, there = low.config, chunk.columns
    place = low.value_address if layer.side_by_side else low.tile_address
    fields = {
        "columns": there.stop - there.start, "wide": int(layer.result in (Result.STORE16, Result.RESIDUAL)),
        "stride0": 1, "count1": 1, "count2": 1, "count3": 1, "parameters_step": 1,
        "result": int(layer.result), "result_address": place(layer.target, tile, there.start),
        "apart": int(layer.side_by_side and cfg.value_rows > cfg.rows),
    }  # fmt: skip
    if layer.residual:
        fields["residual_address"] = low.tile_address(layer.residual, tile, there.start)
    return fields


def _products(
    layer: LinearLayer, cut: Cut, chunk: Chunk, common: Fields, windows: Sequence[Window], flag: str
) -> Iterator[tuple[Fields, Bases]]:
    """Of a chunk and a tile: a product for each part; where there are digits, all of the high ones, then of the low."""
    products: list[tuple[Fields, Bases]] = []
    values_at = positions_at = 0
    for part, (address, beats), (values, positions) in zip(cut.parts, windows, chunk.encoded, strict=True):
        fields = common | _shape(part) | {
            "window_address": address, "window_beats": beats,
            "count0": len(values), "positions_count": len(positions),
        }  # fmt: skip
        if flag:
            fields[flag] = 1
        bases = {"values_base": (chunk.values, values_at), "parameters_base": (chunk.parameters, 0)}
        if len(positions):
            bases["positions_base"] = (chunk.positions, positions_at)
        values_at, positions_at = values_at + len(values), positions_at + len(positions)
        products.append((fields, bases))
    if not cut.digits:
        yield from products
        return
    for fields, bases in products:
        yield fields | {"digit": int(Digit.HIGH)}, bases
    for number, (fields, bases) in enumerate(products):
        lift = {} if number else {"lift": 1}
        yield _without_keeping(fields) | {"digit": int(Digit.LOW)} | lift, bases


def _shape(part: WindowPart) -> Fields:
    """How a part's weights are read: N:M, encoding, value format, depth and passes."""
    fields = {
        "encoding": _ENCODINGS[part.encoding], "n": part.pattern.n, "m_log2": part.pattern.m.bit_length() - 1,
        "depth": part.depth, "passes": part.passes,
    }  # fmt: skip
    if part.blocks:
        how = ValueFormat.WIDE_BLOCKS4 if part.wide else ValueFormat.BLOCKS4
        fields |= {"value_format": int(how), "run": part.run}
    return fields


def _without_keeping(fields: Fields) -> Fields:
    """Of a product whose windows another one has kept just before: it takes them."""
    found = {name: value for name, value in fields.items() if name != "keep"}
    return found | ({"kept": 1} if "keep" in fields else {})


def _append(
    low: Lowering, layer: LinearLayer, products: Sequence[tuple[Fields, Bases]], tile: int, *, ends: bool, weight: float
) -> None:
    """Steps whose sums are one product's: each but the first goes on with those of the one before.

    The last of them gives the layer's event, if the layer `ends` with these columns.
    """
    for number, (fields, bases) in enumerate(products):
        last = number == len(products) - 1
        flags = ({"continues": 1} if number else {}) | ({} if last else {"unfinished": 1})
        given = ((layer.gives, tile),) if last and ends else ()
        low.steps.append(
            Step(Opcode.PRODUCT, fields | flags, len(low.groups) - 1, bases, ((layer.needs, tile),), given, layer.label,
                 weight=weight)
        )  # fmt: skip


def _told(low: Lowering, layer: LinearLayer, pattern: Pattern, cut: Cut, width: int, stored: int) -> LayerInfo:
    """What reports say of the layer."""
    cfg, p = low.config, layer.parameters
    columns, reduction = p.weights.shape
    found = low.found(p, pattern)
    why_not = ""
    if str(pattern) != str(found) and pattern.density > found.density:
        why_not = f"found {found}, but the table says {p.pattern}"
    encoding = "dense" if pattern.dense else best_encoding(pattern, cfg.window, cfg.encodings)
    if cut.blocks is None:
        stored = math.ceil(columns * reduction * bits_per_weight(pattern, encoding, cfg.window) / 8)
    return LayerInfo(
        layer=layer.label, columns=columns, reduction=reduction, nm=str(found), used=str(pattern), why_not=why_not,
        encoding=encoding, depth=cut.depth, passes=cut.passes, chunk=width,
        work=low.tokens * columns * reduction * pattern.density * (1 + cut.digits), bytes=stored,
    )  # fmt: skip
