"""Layers become steps and loads: tiles, chunks, N:M and encoding of every product."""

from __future__ import annotations

import math
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..formats.nm import bits_per_weight, encode
from ..isa import Opcode, Result, Target
from ..model.bert import PROJECTION
from ..patterns import DENSE, Pattern
from ..reference.requantizer import quantize_factor
from ..runtime.products import best_depth
from .image import Image, norm_words, parameter_words, position_words
from .quantize import POOL_FACTOR, LayerParameters, LinearParameters, NormParameters, QuantizedEncoder
from .schedule import RING_SHARE, Load, Step

__all__ = ["WIDE", "Lowering", "tightest"]

WIDE = ("sum", "x16", "y16", "out", "embedded", "e16")
"""Buffers of 16-bit values."""


class Lowering:
    """Everything of one compilation."""

    def __init__(self, encoder: QuantizedEncoder, config: Config, tokens: int) -> None:
        self.encoder, self.config, self.tokens = encoder, config, tokens
        self.tiles = math.ceil(tokens / config.rows)
        self.image = self.new_image()
        self.steps: list[Step] = []
        self.groups: list[list[Load]] = []
        self.layers: list[dict[str, Any]] = []
        self._names = 0
        self._words_before = 0  # on-chip words of the chunk before
        # How many steps one stands for (an outline's; 1 in a program), now and in each layer.
        self.weight = 1.0
        self.layer_weights = [1.0] * len(encoder.layers)
        rows, hidden = config.rows, encoder.hidden
        # Windows of the last tile may be read up to a whole pass beyond its end.
        slack = config.groups * config.window * rows
        byte = self.tiles * rows
        self.buffers = {
            name: self.image.reserve(byte * width * size + slack)
            for name, width, size in (
                ("sum", hidden, 2), ("x16", hidden, 2), ("x8", hidden, 1), ("y16", hidden, 2), ("y8", hidden, 1),
                ("q", hidden, 1), ("k", hidden, 1), ("v", hidden, 1), ("c", hidden, 1),
                ("f", encoder.intermediate, 1), ("out", hidden, 2),
            )
        }  # fmt: skip
        self.widths = {"f": encoder.intermediate}

    def new_image(self) -> Image:
        """Where all is laid out."""
        return Image(self.config)

    def repeat(self, count: int, inner: int, attention: bool = False) -> list[tuple[int, float]]:
        """Numbers of a loop's iterations, of `inner` products each, and how many each stands for."""
        return [(i, 1.0) for i in range(count)]

    def refuse(self, problem: str) -> None:
        """What cannot be compiled, for its number of tokens."""
        raise InputError(problem)

    def within(self, start: int, stop: int) -> list[int]:
        """Row tiles from `start` to `stop`."""
        return list(range(start, stop))

    def words(
        self, p: LinearParameters, part: slice, pattern: Pattern, depth: int, encoding: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Values and position words of some columns, as they lie in memory."""
        cfg = self.config
        encoded = encode(p.weights[part], pattern, groups=cfg.groups, window=cfg.window, depth=depth, encoding=encoding)
        positions = position_words(encoded) if len(encoded.positions) else np.zeros((0, 1), np.uint8)
        return encoded.values.view(np.uint8), positions

    def found(self, p: LinearParameters, pattern: Pattern) -> Pattern:
        """The sparsest pattern that a layer's weights have."""
        return tightest(p.weights, self.config)

    def tile_address(self, buffer: str, tile: int, column: int = 0) -> int:
        """Address of a tile's column."""
        size = 2 if buffer in WIDE else 1
        width = self.widths.get(buffer, self.encoder.hidden)
        return self.buffers[buffer] + (tile * width + column) * self.config.rows * size

    def name(self, what: str) -> str:
        """A name for a load's base."""
        self._names += 1
        return f"{what}{self._names}"

    def beats(self, count: int) -> int:
        """Bus words of so many bytes."""
        return math.ceil(count / self.config.bus_bytes)

    # -- linear layers -----------------------------------------------------------------------------

    def linear(
        self, label: str, p: LinearParameters, source: str, result: Result, target: str, *,
        needs: str, gives: str, residual: str = "", table: NDArray | None = None,
    ) -> None:  # fmt: skip
        """All products of one linear layer: chunk of columns after chunk, tile after tile."""
        cfg = self.config
        pattern, encoding = self.supported(label, p.pattern)
        found = self.found(p, pattern)
        why_not = (
            ""
            if str(pattern) == str(found)
            else (f"found {found}, but the table says {p.pattern}" if pattern.density > found.density else "")
        )
        columns, reduction = p.weights.shape
        depth = best_depth(cfg, reduction, pattern)
        passes = math.ceil(reduction / (cfg.groups * depth))
        values_each = passes * (depth // pattern.m * pattern.n)
        # Columns' values that one word of positions goes with.
        per_word = values_each / passes if encoding == "bitmap" else cfg.window // max(1, pattern.m.bit_length() - 1)
        width = self.chunk(label, columns, values_each, passes, depth, per_word if encoding != "dense" else math.inf)
        order = self.groups
        tiles = self.repeat(self.tiles, 1)
        for chunk, chunk_weight in self.repeat(math.ceil(columns / width), len(tiles)):
            first = chunk * width
            part = slice(first, min(first + width, columns))
            count = part.stop - part.start
            value_words, positions_there = self.words(p, part, pattern, depth, encoding)
            names = {n: self.name(n) for n in ("values", "positions", "parameters")}
            words = parameter_words(p.bias[part], p.multiplier[part], p.shift[part], p.second[part])
            loads = self.pieces(Target.PARAMETERS, words, names["parameters"], 1)
            # In pieces that alternate: those that find room go ahead of the last ones, which may have to wait.
            values = self.pieces(Target.VALUES, value_words, names["values"], 4)
            positions = []
            if len(positions_there):
                positions = self.pieces(Target.POSITIONS, positions_there, names["positions"], 4)
            loads += [p for pair in zip_longest(positions, values) for p in pair if p is not None]
            if table is not None and first == 0:
                address = self.image.add(table.astype("<i2"))
                loads.append(Load(Target.TABLE, 256, address, self.beats(512)))
            order.append(loads)
            for tile, weight in tiles:
                fields = {
                    "window_address": self.tile_address(source, tile),
                    "window_beats": self.beats(passes * cfg.groups * depth * cfg.rows),
                    "encoding": {"dense": 0, "index": 1, "bitmap": 2}[encoding], "n": pattern.n,
                    "m_log2": pattern.m.bit_length() - 1, "depth": depth, "columns": count, "passes": passes,
                    "wide": int(result in (Result.STORE16, Result.RESIDUAL)),
                    "count0": len(value_words), "stride0": 1, "count1": 1, "count2": 1, "count3": 1,
                    "positions_count": len(positions_there), "parameters_step": 1,
                    "result": int(result), "result_address": self.tile_address(target, tile, first),
                }  # fmt: skip
                bases = {"values_base": (names["values"], 0), "parameters_base": (names["parameters"], 0)}
                if len(positions_there):
                    bases["positions_base"] = (names["positions"], 0)
                if residual:
                    fields["residual_address"] = self.tile_address(residual, tile, first)
                last = part.stop == columns
                self.steps.append(
                    Step(
                        Opcode.PRODUCT, fields, len(order) - 1, bases, ((needs, tile),),
                        ((gives, tile),) if last else (), label, weight=self.weight * chunk_weight * weight,
                    )
                )  # fmt: skip
        self.layers.append(
            {
                "layer": label, "columns": columns, "reduction": reduction, "nm": str(found), "eligible": str(found),
                "used": str(pattern), "why_not": why_not,
                "encoding": encoding, "depth": depth, "passes": passes, "chunk": width,
                "work": self.tokens * columns * reduction * pattern.density,
                "bytes": math.ceil(columns * reduction * bits_per_weight(pattern, encoding, cfg.window) / 8),
            }
        )  # fmt: skip

    def supported(self, label: str, pattern: Pattern) -> tuple[Pattern, str]:
        """The pattern the hardware runs a layer with (dense if N = M), and the smaller of its encodings."""
        if pattern.dense:
            return DENSE, "dense"
        try:
            self.config.require(pattern)
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
        return pattern, min(self.config.encodings, key=lambda e: bits_per_weight(pattern, e, self.config.window))

    def chunk(
        self, label: str, columns: int, values_each: int, passes: int, depth: int, values_per_position: float
    ) -> int:
        """Columns whose weights are on chip at a time: a multiple of `groups`, as equal as possible."""
        cfg = self.config
        # Half of the ring leaves the other half to the next chunk. More is worth a wait where loading the windows
        # of a pass would otherwise take longer than computing it; and it costs nothing where all columns fit
        # beside the chunk before, but spares the bus a second reading of the windows.
        beats = values_each // passes
        load = cfg.groups * depth * cfg.rows // cfg.lanes
        limit = min(int(cfg.parameter_words * 0.5), cfg.columns if passes > 1 else columns)

        def room(share: float) -> int:
            values = min(cfg.weight_words * share, cfg.position_words * share * values_per_position)
            return min(int(values) // values_each, limit)

        most = room(0.5)
        words = columns * values_each
        fits = columns <= room(RING_SHARE) and words <= cfg.weight_words - self._words_before
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
        self._words_before = width * values_each
        return width

    def pieces(self, target: Target, words: NDArray[np.uint8], base: str, count: int) -> list[Load]:
        """LOADs of consecutive words, several so that the first may go before all room is free."""
        cfg = self.config
        width = words.shape[1]
        unit = max(1, cfg.bus_bytes // width)  # words in a bus word
        total = math.ceil(len(words) / unit) * unit
        address = self.image.add(words, total * width)
        step = math.ceil(total / count / unit) * unit
        loads = []
        for start in range(0, total, step):
            size = min(step, total - start)
            loads.append(
                Load(target, size, address + start * width, self.beats(size * width), base=None if start else base)
            )
        return loads

    # -- attention ---------------------------------------------------------------------------------

    def attention(self, layer: int, p: LayerParameters) -> None:
        """Scores, softmax and context of every head; scores run one step ahead of contexts."""
        cfg, encoder = self.config, self.encoder
        size = encoder.hidden // encoder.heads
        halves = cfg.rows // cfg.groups
        keys_depth, blocks = self.key_blocks()
        block_tiles = keys_depth // halves
        tile_words = size * cfg.rows // cfg.groups
        whole = 2 * self.tiles * tile_words <= int(cfg.weight_words * RING_SHARE)
        label = f"layer {layer} attention"
        none = np.zeros(encoder.heads, np.int64)
        scores_to = parameter_words(none, p.score_multiplier, p.score_shift, none)
        context: Step | None = None
        if 2 * block_tiles * tile_words > cfg.weight_words:
            wanted = 1 << (2 * block_tiles * tile_words - 1).bit_length()
            raise InputError(
                f"{label}: a block of keys and values takes {2 * block_tiles * tile_words} words, more than "
                f"weight_words = {cfg.weight_words}; {wanted} would do."
            )
        scores_parameters = [self.image.add(words) for words in scores_to]
        block_loop = self.repeat(blocks, 2, True)
        tile_loop = self.repeat(self.tiles, 2 * len(block_loop), True)
        # Tiles whose contexts each one's stands for.
        starts = [tile for tile, _ in tile_loop]
        followed = {a: self.within(a, b) for a, b in pairwise([*starts, self.tiles])}
        for head, tile, block, weight in (
            (head, tile, block, self.weight * by_head * by_tile * by_block)
            for head, by_head in self.repeat(encoder.heads, 2 * len(block_loop) * len(tile_loop), True)
            for tile, by_tile in tile_loop
            for block, by_block in block_loop
        ):
            first = block * block_tiles
            if not whole or (tile == 0 and block == 0):
                names = {n: self.name(n) for n in ("keys", "values", "parameters")}
                start, stop = (0, self.tiles) if whole else (first, min(first + block_tiles, self.tiles))
                keys, values = (
                    Load(
                        Target.VALUES, (stop - start) * tile_words,
                        self.tile_address(buffer, start, head * size), self.beats(size * cfg.rows),
                        stop - start, encoder.hidden * cfg.rows,
                        tuple((f"{buffer}{layer}", t) for t in self.within(start, stop)), names[name],
                    )
                    for buffer, name in (("k", "keys"), ("v", "values"))
                )  # fmt: skip
                parameters = Load(
                    Target.PARAMETERS, 1, scores_parameters[head], self.beats(16), base=names["parameters"]
                )
                # Scores run ahead: they may not wait for values that overwrite those of contexts after them.
                loads = [keys, parameters, values]
                self.groups.append(loads)
            offset = first * tile_words if whole else 0
            group = len(self.groups) - 1
            last = block == blocks - 1
            self.steps.append(
                Step(
                    Opcode.SCORES,
                    {
                        "window_address": self.tile_address("q", tile, head * size),
                        "window_beats": self.beats(size * cfg.rows), "n": 1, "depth": size // cfg.groups,
                        "columns": cfg.groups * keys_depth, "passes": 1, "wide": 1,
                        "count0": size // cfg.groups, "stride0": cfg.rows, "count1": halves,
                        "stride1": cfg.groups, "count2": block_tiles, "stride2": tile_words,
                        "count3": cfg.groups, "stride3": 1,
                        "keys": min(self.tokens - block * cfg.groups * keys_depth, cfg.groups * keys_depth),
                        "row_first": int(block == 0), "row_last": int(last), "gain": p.gain[head],
                        "coarse": p.coarse[head],
                    },
                    group,
                    {"values_base": (names["keys"], offset), "parameters_base": (names["parameters"], 0)},
                    ((f"q{layer}", tile),), (), label, (0, 2), weight,
                )
            )  # fmt: skip
            if context is not None:
                self.steps.append(context)
            context = Step(
                Opcode.CONTEXT,
                {
                    "window_beats": self.beats(cfg.groups * keys_depth * cfg.rows), "n": 1,
                    "depth": keys_depth, "columns": size, "passes": 1,
                    "continues": int(block > 0), "unfinished": int(not last),
                    "count0": halves, "stride0": 1, "count1": block_tiles, "stride1": tile_words,
                    "count2": size, "stride2": halves, "count3": 1,
                    "result": int(Result.STORE8), "result_address": self.tile_address("c", tile, head * size),
                },
                group, {"values_base": (names["values"], offset)}, (),
                tuple((f"c{layer}", t) for t in followed[tile]) if last and head == encoder.heads - 1 else (),
                label, (2, 3), weight,
            )  # fmt: skip
        assert context is not None
        self.steps.append(context)
        self.layers.append(
            {
                "layer": label, "columns": self.tokens, "reduction": size, "nm": "dense", "used": "dense",
                "encoding": "dense", "depth": size // cfg.groups, "passes": blocks, "chunk": cfg.groups * keys_depth,
                "work": 2.0 * self.tokens * self.tokens * encoder.hidden, "bytes": 0,
            }
        )  # fmt: skip

    def key_blocks(self) -> tuple[int, int]:
        """Window depth of a block of keys, and blocks."""
        cfg = self.config
        halves = cfg.rows // cfg.groups
        depth = min(cfg.window, math.ceil(self.tokens / (cfg.groups * halves)) * halves)
        return depth, math.ceil(self.tokens / (cfg.groups * depth))

    # -- the rest ----------------------------------------------------------------------------------

    def projected(self, norm: NormParameters, products: tuple[LinearParameters, LinearParameters]) -> None:
        """The LayerNorm of narrower embeddings and the linear layer behind it, twice: what products take, and sums."""
        width = len(norm.scale)
        byte = self.tiles * self.config.rows * width
        slack = self.config.groups * self.config.window * self.config.rows
        for name in ("embedded", "e16", "e8"):
            self.widths[name] = width
            self.buffers[name] = self.image.reserve(byte * (2 if name in WIDE else 1) + slack)
        self.norm("embeddings", norm, "e", needs="", gives="e", source="embedded")
        for product, result, target, gives in zip(
            products, (Result.STORE8, Result.STORE16), ("x8", "x16"), ("x8", "x0"), strict=True
        ):  # The second is in memory after the first.
            self.linear(f"{PROJECTION}.{target}", product, "e8", result, target, needs="e", gives=gives)

    def norm(
        self, label: str, p: NormParameters, target: str, *, needs: str, gives: str, source: str = "sum"
    ) -> None:  # fmt: skip
        """LayerNorm of all tiles."""
        parameters, width = self.image.add(norm_words(p)), len(p.scale)
        inverse = round(2**33 / width)
        for tile, weight in self.repeat(self.tiles, 1):
            fields = {
                "input_address": self.tile_address(source, tile),
                "wide_address": self.tile_address(f"{target}16", tile),
                "narrow_address": self.tile_address(f"{target}8", tile),
                "parameters_address": parameters, "width": width, "inverse": inverse,
            }  # fmt: skip
            self.steps.append(
                Step(
                    Opcode.NORM, fields, needs=((needs, tile),) if needs else (), gives=((gives, tile),), label=label,
                    weight=self.weight * weight,
                )
            )  # fmt: skip

    def interleave_norms(self, count: int) -> None:
        """Move the last NORMs, one of each tile, each behind the product it waits for."""
        tiles = len(self.repeat(self.tiles, 1))
        norms = self.steps[-tiles:]
        products = self.steps[-tiles - count : -tiles]
        del self.steps[-tiles - count :]
        waiting = {n.needs[0]: n for n in norms}
        for product in products:
            self.steps.append(product)
            for event in product.gives:
                if event in waiting:
                    self.steps.append(waiting.pop(event))

    def pool(self, source: str, *, needs: str) -> None:
        """Mean over the tokens, or the first one: a product with ones and zeros."""
        cfg, hidden = self.config, self.encoder.hidden
        halves = cfg.rows // cfg.groups
        depth, blocks = self.key_blocks()
        position = np.arange(cfg.groups * depth)
        token = cfg.groups * (position % depth) + position // depth
        token = token[None, :] + cfg.groups * depth * np.arange(blocks)[:, None]
        pooled = self.tokens if self.encoder.pooling == "mean" else 1
        ones = np.repeat((token < pooled).reshape(-1, 1).astype(np.uint8), cfg.rows, axis=1)
        windows = self.image.add(ones)
        multiplier, shift = quantize_factor(POOL_FACTOR / pooled)
        one = np.zeros(1, np.int64)
        parameters = self.image.add(parameter_words(one, one + int(multiplier), one + int(shift), one))
        most = int(cfg.weight_words * RING_SHARE) // (self.tiles * halves)
        if blocks > 1:
            most = min(most, cfg.columns)
        if most == 0:
            self.refuse(f"pooling {self.tokens} tokens does not fit weight_words = {cfg.weight_words}; double it.")
            most = cfg.columns
        width = min(hidden, most)
        unit = max(1, cfg.bus_bytes // cfg.rows)
        width = max(unit, width // unit * unit)
        for first in range(0, hidden, width):
            count = min(width, hidden - first)
            names = {n: self.name(n) for n in ("values", "parameters")}
            self.groups.append(
                [
                    Load(
                        Target.VALUES, self.tiles * count * halves, self.tile_address(source, 0, first),
                        self.beats(count * cfg.rows), self.tiles, hidden * cfg.rows,
                        tuple((needs, t) for t in self.within(0, self.tiles)), names["values"],
                    ),
                    Load(Target.PARAMETERS, 1, parameters, self.beats(16), base=names["parameters"]),
                ]
            )  # fmt: skip
            fields = {
                "window_address": windows, "window_beats": self.beats(ones.size), "n": 1, "depth": depth,
                "columns": count, "passes": blocks, "wide": 1,
                "count0": halves, "stride0": 1, "count1": depth // halves, "stride1": count * halves,
                "count2": count, "stride2": halves, "count3": blocks, "stride3": depth // halves * count * halves,
                "result": int(Result.STORE16), "result_address": self.tile_address("out", 0, first),
            }  # fmt: skip
            bases = {"values_base": (names["values"], 0), "parameters_base": (names["parameters"], 0)}
            self.steps.append(Step(Opcode.PRODUCT, fields, len(self.groups) - 1, bases, label="pooling"))


def tightest(weights: NDArray[np.int8], config: Config) -> Pattern:
    """The sparsest pattern the hardware has that holds for `weights`; dense if none does."""
    best = DENSE
    for m in sorted({p.m for p in config.patterns if p.m > 1}):
        columns, reduction = weights.shape
        padded = np.zeros((columns, math.ceil(reduction / m) * m), bool)
        padded[:, :reduction] = weights != 0
        n = max(1, int(padded.reshape(columns, -1, m).sum(-1).max()))
        pattern = Pattern(n, m)
        if n < m and pattern in config.patterns and pattern.density < best.density:
            best = pattern
    return best
