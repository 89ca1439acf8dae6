"""Linear layers: tiles, chunks, N:M and encoding of every product."""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...formats.nm import best_encoding, bits_per_weight
from ...spec.isa import Digit, Opcode, Result, Target, ValueFormat
from ...spec.parameters import SHORT_COLUMN
from ...spec.patterns import DENSE, Pattern
from ..image import parameter_words
from ..info import LayerInfo
from ..limits import run_columns
from ..parameters import LinearParameters
from ..schedule import RING_SHARE, Load, Step
from .parts import block_parts, window_parts
from .state import Lowering

__all__ = ["linear"]


def linear(
    low: Lowering, label: str, p: LinearParameters, source: str, result: Result, target: str, *,
    needs: str, gives: str, residual: str = "", table: NDArray | None = None, side_by_side: bool = False,
    keeps: bool = True,
) -> None:  # fmt: skip
    """All products of one linear layer: chunk of columns after chunk, tile after tile.

    Of a source of 16 bits both digits are multiplied, one after the other, by the weights on chip: the sums of the high
    ones are kept, and count 128 times.

    Attention's values are stored as its weights are: `value_rows` tokens of a column `side_by_side`. Windows are
    not kept on chip for who moves the products' addresses: `keeps`.
    """
    cfg = low.config
    digits = low.places[source].size == 2
    pattern, encoding = supported(low, label, p.pattern)
    found = low.found(p, pattern)
    why_not = (
        ""
        if str(pattern) == str(found)
        else (f"found {found}, but the table says {p.pattern}" if pattern.density > found.density else "")
    )
    columns, reduction = p.weights.shape
    blocks, record = p.blocks_on(cfg), p.record_on(cfg)
    parts = window_parts(cfg, p.weights, pattern, rest_apart=low.rest_apart and blocks is None)
    if blocks is not None:
        parts = block_parts(cfg, label, blocks, pattern, rest_apart=low.rest_apart)
    depth, passes = parts[0].depth, sum(part.passes for part in parts)
    values_each = sum(part.passes * part.run for part in parts)
    # Columns' values that one word of positions goes with.
    position_words = sum(part.passes * part.run / part.values_per_position(cfg.window) for part in parts)
    per_word = values_each / position_words if position_words else math.inf
    if blocks is not None:  # of words that hold two each
        words_each = math.ceil(sum(part.words(cfg) for part in parts)) + 1
        per_word, values_each = per_word * words_each / values_each, words_each
    width = chunk_width(low, label, columns, values_each, passes, depth, per_word, digits)
    order, stored = low.groups, 0
    place = low.value_address if side_by_side else low.tile_address
    tiles = low.repeat(low.tiles, 1)
    beats = [low.beats(part.passes * cfg.groups * part.depth * cfg.rows * (1 + digits)) for part in parts]
    addresses = [
        [low.tile_address(source, tile, part.first) for part in parts] for tile, _ in tiles
    ]  # fmt: skip
    by_tile = [list(zip(of_tile, beats, strict=True)) for of_tile in addresses]
    flags = (
        low.keep_windows(needs or source, [window for of_tile in by_tile for window in of_tile]) if keeps else ("", "")
    )
    if digits and keeps and not flags[0] and low.keep_each(by_tile):
        flags = "keep", "keep"  # from the high digits to the low ones
    for chunk, chunk_weight in low.repeat(math.ceil(columns / width), len(tiles)):
        first = chunk * width
        there = slice(first, min(first + width, columns))
        count = there.stop - there.start
        of = f"{label}, columns {first} to {there.stop - 1}"
        low.chunk_weight = chunk_weight
        if blocks is not None:
            of_columns = blocks.columns(there)
            encoded = [
                low.encoded.blocks(of_columns, part)
                if part.blocks
                else low.encoded.words(p.weights[there, part.first :], part.pattern, part.depth, part.encoding)
                for part in parts
            ]
        elif len(parts) == 1:
            encoded = [low.words(p, there, pattern, depth, encoding)]
        else:
            encoded = [
                low.encoded.words(p.weights[there, part.first : part.stop], part.pattern, part.depth, part.encoding)
                for part in parts
            ]
        value_words, positions_there = encoded[0]
        if len(encoded) > 1:
            value_words = np.concatenate([values for values, _ in encoded])
            if with_positions := [positions for _, positions in encoded if len(positions)]:
                positions_there = np.concatenate(with_positions)
        stored += value_words.size + positions_there.size
        names = {n: low.name(n) for n in ("values", "positions", "parameters")}
        words = parameter_words(p.bias[there], p.multiplier[there], p.shift[there], p.second[there], record)
        kind = Target.SHORT_PARAMETERS if record is SHORT_COLUMN else Target.PARAMETERS
        loads = pieces(low, kind, words, names["parameters"], 1, of)
        # In pieces that alternate: those that find room go ahead of the last ones, which may have to wait.
        values = pieces(low, Target.VALUES, value_words, names["values"], 4, of)
        positions = []
        if len(positions_there):
            positions = pieces(low, Target.POSITIONS, positions_there, names["positions"], 4, of)
        loads += [p for pair in zip_longest(positions, values) for p in pair if p is not None]
        if table is not None and first == 0:
            address = low.image.add(table.astype("<i2"), name=f"{label}: table")
            loads.append(Load(Target.TABLE, 256, address, low.beats(512)))
        low.chunk_weight = 1.0
        order.append(loads)
        for (tile, weight), of_tile in zip(tiles, addresses, strict=True):
            fields: dict[str, int] = {
                "columns": count, "wide": int(result in (Result.STORE16, Result.RESIDUAL)),
                "stride0": 1, "count1": 1, "count2": 1, "count3": 1, "parameters_step": 1,
                "result": int(result), "result_address": place(target, tile, first),
                "apart": int(side_by_side and cfg.value_rows > cfg.rows),
            }  # fmt: skip
            if residual:
                fields["residual_address"] = low.tile_address(residual, tile, first)
            products, at, positions_at = [], 0, 0
            for part, address, size, (values_of, positions_of) in zip(parts, of_tile, beats, encoded, strict=True):
                own = fields | {
                    "window_address": address, "window_beats": size,
                    "encoding": {"dense": 0, "index": 1, "bitmap": 2}[part.encoding], "n": part.pattern.n,
                    "m_log2": part.pattern.m.bit_length() - 1, "depth": part.depth, "passes": part.passes,
                    "count0": len(values_of), "positions_count": len(positions_of),
                }  # fmt: skip
                if part.blocks:
                    how = ValueFormat.WIDE_BLOCKS4 if part.wide else ValueFormat.BLOCKS4
                    own |= {"value_format": int(how), "run": part.run}
                bases = {"values_base": (names["values"], at), "parameters_base": (names["parameters"], 0)}
                if len(positions_of):
                    bases["positions_base"] = (names["positions"], positions_at)
                at, positions_at = at + len(values_of), positions_at + len(positions_of)
                if flag := flags[chunk > 0]:
                    own[flag] = 1
                products.append((own, bases))
            if digits:
                low_digits = [(_without_keeping(f) | {"digit": int(Digit.LOW)}, b) for f, b in products]
                low_digits[0][0]["lift"] = 1
                products = [(f | {"digit": int(Digit.HIGH)}, b) for f, b in products] + low_digits
            for number, (own, bases) in enumerate(products):
                # The sums of all are one product's.
                own |= {"continues": 1} if number else {}
                ends = number == len(products) - 1
                own |= {} if ends else {"unfinished": 1}
                given = ((gives, tile),) if ends and there.stop == columns else ()
                low.steps.append(
                    Step(Opcode.PRODUCT, own, len(order) - 1, bases, ((needs, tile),), given, label,
                         weight=low.weight * chunk_weight * weight)
                )  # fmt: skip
    low.layers.append(
        LayerInfo(
            layer=label, columns=columns, reduction=reduction, nm=str(found), used=str(pattern), why_not=why_not,
            encoding=encoding, depth=depth, passes=passes, chunk=width,
            work=low.tokens * columns * reduction * pattern.density * (1 + digits),
            bytes=stored
            if blocks is not None
            else math.ceil(columns * reduction * bits_per_weight(pattern, encoding, cfg.window) / 8),
        )
    )  # fmt: skip


def _without_keeping(fields: dict[str, int]) -> dict[str, int]:
    """Of a product whose windows another one has kept just before: it takes them."""
    found = {name: value for name, value in fields.items() if name != "keep"}
    return found | ({"kept": 1} if "keep" in fields else {})


def supported(low: Lowering, label: str, pattern: Pattern) -> tuple[Pattern, str]:
    """The pattern the hardware runs a layer with (dense if N = M), and the smaller of its encodings."""
    if pattern.dense:
        return DENSE, "dense"
    try:
        low.config.require(pattern)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    return pattern, best_encoding(pattern, low.config.window, low.config.encodings)


def chunk_width(
    low: Lowering, label: str, columns: int, values_each: int, passes: int, depth: int, values_per_position: float,
    digits: bool = False,
) -> int:  # fmt: skip
    """Columns whose weights are on chip at a time: a multiple of `groups`, as equal as possible.

    Sums of several passes, and of two `digits`, wait on chip: no more columns than there is room for. Results are
    stored, and the residual stream read, in one run.
    """
    cfg = low.config
    # Half of the ring leaves the other half to the next chunk. More is worth a wait where loading the windows
    # of a pass would otherwise take longer than computing it; and it costs nothing where all columns fit
    # beside the chunk before, but spares the bus a second reading of the windows.
    beats = values_each // passes
    load = cfg.groups * depth * cfg.rows // cfg.lanes * (1 + digits)
    limit = min(int(cfg.parameter_words * 0.5), run_columns(cfg), cfg.columns if passes > 1 or digits else columns)

    def room(share: float) -> int:
        values = min(cfg.weight_words * share, cfg.position_words * share * values_per_position)
        return min(int(values) // values_each, limit)

    most = room(0.5)
    words = columns * values_each
    fits = columns <= room(RING_SHARE) and words <= cfg.weight_words - low.words_before
    if fits and columns / math.ceil(columns / max(most, 1)) * beats < 2 * load:
        most = columns
    elif most * beats < 1.25 * load:
        most = room(RING_SHARE)
    most = most // cfg.groups * cfg.groups
    if most == 0:
        share = RING_SHARE * min(1.0, cfg.position_words * values_per_position / cfg.weight_words)
        wanted = 1 << (math.ceil(cfg.groups * values_each / share) - 1).bit_length()
        raise InputError(
            f"{label}: {cfg.groups} columns of weights take {cfg.groups * values_each} words, more than fits "
            f"beside the next ones in weight_words = {cfg.weight_words}; {wanted} would do."
        )
    width = math.ceil(columns / math.ceil(columns / most) / cfg.groups) * cfg.groups
    low.words_before = width * values_each
    return width


def pieces(low: Lowering, target: Target, words: NDArray[np.uint8], base: str, count: int, of: str) -> list[Load]:
    """LOADs of consecutive words, several so that the first may go before all room is free."""
    cfg = low.config
    width = words.shape[1]
    unit = max(1, cfg.bus_bytes // width)  # words in a bus word
    total = math.ceil(len(words) / unit) * unit
    address = low.image.add(words, total * width, f"{of}: {target.name.lower().replace('_', ' ')}")
    step = math.ceil(total / count / unit) * unit
    loads = []
    for start in range(0, total, step):
        size = min(step, total - start)
        loads.append(Load(target, size, address + start * width, low.beats(size * width), base=None if start else base))
    return loads
