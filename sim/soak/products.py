"""Random weights in every encoding, windows, and products of all results."""

from __future__ import annotations

import numpy as np

from sta_hw.formats import encode, keep_mask, prune
from sta_hw.formats.block_words import encode_blocks
from sta_hw.formats.blocks import BlockedWeights
from sta_hw.spec.isa import Digit, Opcode, Result, Target, ValueFormat
from sta_hw.spec.patterns import Pattern

from .pieces import Pieces

__all__ = ["Products"]

_CODES = {"dense": 0, "index": 1, "bitmap": 2}
_WIDE = (Result.STORE16, Result.RESIDUAL)


class Products(Pieces):
    """PRODUCTs, and what they take."""

    def counters(self, beats: int) -> dict[str, int]:
        """Four counters that come to so many words, with random steps."""
        rng, fields, left = self.rng, {}, beats
        if not self.anywhere:
            inner = int(rng.choice([d for d in range(1, 9) if beats % d == 0]))
            outer = {"count1": beats // inner, "stride1": inner, "count2": 1, "count3": 1}
            return {"count0": inner, "stride0": 1, **(outer if beats // inner < 1 << 12 else {"count1": 1})}
        for i in (1, 2, 3):
            divisors = [d for d in range(1, 9) if left % d == 0]
            fields[f"count{i}"] = int(rng.choice(divisors))
            left //= fields[f"count{i}"]
            fields[f"stride{i}"] = int(rng.integers(1 << 16))
        return {**fields, "count0": left, "stride0": int(rng.integers(1 << 16))}

    def weights(self, pattern: Pattern, encoding: str, depth: int, columns: int, passes: int) -> dict[str, int]:
        """Loads values and positions; a product's fields for them."""
        config, rng = self.config, self.rng
        base = int(rng.integers(config.weight_words))
        matrix = rng.integers(-128, 128, (columns, passes * config.groups * depth)).astype(np.int8)
        if not rng.integers(4):
            matrix[:] = rng.choice([-128, 127])
        encoded = encode(
            prune(matrix, pattern), pattern, groups=config.groups, window=config.window, depth=depth,
            encoding=None if encoding == "dense" else encoding,
        )  # fmt: skip
        raw = encoded.to_bytes()[28:]
        beats = passes * columns * (depth // pattern.m) * pattern.n
        values, positions = raw[len(raw) - beats * config.groups :], raw[: len(raw) - beats * config.groups]
        fields = {
            "n": pattern.n, "m_log2": pattern.m.bit_length() - 1, "depth": depth, "columns": columns, "passes": passes,
            "encoding": _CODES[encoding], "values_base": base,
        }  # fmt: skip
        run = depth // pattern.m * pattern.n
        if self.has("blocks4") and run >= 2 and rng.integers(2):
            value_format = int(rng.choice([c for c in self.codes("value_format") if c]))
            wide = value_format == ValueFormat.WIDE_BLOCKS4
            values, positions = self.blocks(pattern, encoding, matrix.shape, depth, wide)
            beats = len(values) // config.groups
            fields |= {"value_format": value_format, "run": run}
        self.load(Target.VALUES, values, base)
        if rng.integers(2):
            fields |= self.counters(beats)
        else:
            fields |= {"count0": beats, "stride0": 1, "count1": 1, "count2": 1, "count3": 1}
        fields["positions_count"] = 1
        if positions:
            word = config.groups * config.window // 8
            fields["positions_base"] = int(rng.integers(config.position_words))
            fields["positions_count"] = len(positions) // word
            self.load(Target.POSITIONS, positions, fields["positions_base"])
        return fields

    def blocks(
        self, pattern: Pattern, encoding: str, shape: tuple[int, int], depth: int, wide: bool
    ) -> tuple[bytes, bytes]:
        """Values and positions of weights of 4 bits, with scales and minima of any size."""
        config, rng = self.config, self.rng
        columns, reduction = shape
        size = depth * (config.wide_block_groups if wide else config.block_groups)
        blocks = BlockedWeights(
            size, rng.integers(0, 16, shape, np.uint8), rng.integers(0, 4096, (columns, reduction // size)),
            rng.integers(-2048, 2048, (columns, reduction // size)),
            None if pattern.m == 1 else keep_mask(rng.random(shape), pattern),
        )  # fmt: skip
        found = encode_blocks(
            blocks, pattern, groups=config.groups, window=config.window, depth=depth,
            encoding=None if encoding == "dense" else encoding, wide=wide,
        )  # fmt: skip
        raw = found.matrix.to_bytes()[28:]
        return found.words.tobytes(), raw[: len(raw) - found.matrix.values.size]

    def shape(self) -> dict[str, int]:
        """A product's weights of a random pattern."""
        config, rng = self.config, self.rng
        pattern = config.patterns[rng.integers(len(config.patterns))]
        encoding = "dense" if pattern.m == 1 else str(rng.choice(config.encodings))
        small = self.has("windows") and rng.integers(2)  # there is room on chip for such windows
        depth = int(pattern.m * rng.integers(1, 2 if small else config.window // pattern.m + 1))
        columns = config.groups * int(rng.integers(1, 5))
        return self.weights(pattern, encoding, depth, columns, int(rng.integers(1, 2 if small else 4)))

    def windows(self, fields: dict[str, int]) -> dict[str, int]:
        """Where a product of these fields has its windows: address and beats, or kept ones."""
        size = fields["passes"] * self.config.groups * fields["depth"] * self.config.rows
        size *= 2 if fields.get("digit") else 1
        return self.kept_or_read(size // self.config.bus_bytes)

    def kept_or_read(self, beats: int) -> dict[str, int]:
        """Windows that stay on chip, if so many do; or from memory, and then they may stay."""
        there, bus = self.on_chip.end - self.on_chip.start, self.config.bus_bytes
        if beats <= there and self.rng.integers(2):
            first = self.on_chip.start + int(self.rng.integers(there - beats + 1))
            return {"window_address": first * bus, "window_beats": beats, "kept": 1}
        stays = beats <= self.config.window_words and self.rng.integers(4) > 0
        behind = self.on_chip.end * bus  # what begins there joins what stays, if there is room for both
        if stays and there and behind + beats * bus <= self.size and self.rng.integers(2):
            address = behind
        else:
            address = self.source(self.noise(beats * bus))
        found = {"window_address": address, "window_beats": beats}
        return found | {"keep": int(self.on_chip.keep(address, beats))} if stays else found

    def same_windows(self, windows: dict[str, int]) -> dict[str, int]:
        """The same windows for another product: as they were kept, or read again, and then they may stay."""
        address, beats = windows["window_address"], windows["window_beats"]
        again = {"window_address": address, "window_beats": beats}
        if self.on_chip.there(address, beats) and self.rng.integers(4):
            return again | {"kept": 1}
        stays = self.has("windows") and self.rng.integers(2)
        return again | {"keep": int(self.on_chip.keep(address, beats))} if stays else again

    def sums(self, opcode: Opcode, fields: dict[str, int]) -> dict[str, int]:
        """A product's weights, or those of one that continues another of these, which goes before it."""
        if self.rng.integers(3):
            return fields
        self.add(opcode, **fields, **self.windows(fields), parameters_step=1, unfinished=1)
        for _ in range(int(self.rng.integers(3)) // 2):  # one of another kind in between
            other = self.weights(Pattern(1, 1), "dense", 1, int(self.rng.integers(1, 6)), 1)
            step, base = self.parameters(other["columns"])
            self.add(
                Opcode.PRODUCT, **other, **self.windows(other), parameters_step=step, parameters_base=base,
                result_address=self.target(other["columns"] * self.config.rows),
            )  # fmt: skip
        return self.weights(Pattern(1, 1), "dense", 1, fields["columns"], 1) | {"continues": 1}

    def product(self) -> None:
        """One, or one that another continues."""
        rng, rows = self.rng, self.config.rows
        result = int(rng.choice([r for r in self.codes("result") if r != Result.BEST]))
        fields = self.shape()
        columns = fields["columns"]
        digits, windows = self.has("digits"), {}
        if digits and rng.integers(2):  # both digits of the same windows, over the same weights
            windows = self.windows(fields | {"digit": int(Digit.HIGH)})
            self.add(Opcode.PRODUCT, **fields, **windows, digit=int(Digit.HIGH), unfinished=1)
            fields |= {"digit": int(Digit.LOW), "continues": 1, "lift": 1}
            windows = self.same_windows(windows)
        else:
            fields = self.sums(Opcode.PRODUCT, fields | {"digit": int(rng.integers(3)) if digits else 0})
            if fields.get("continues") and digits:
                fields |= {"digit": int(rng.integers(3)), "lift": int(rng.integers(2))}
        step, base = self.parameters(columns)
        short = digits and result in (Result.STORE16, Result.ACTIVATE) and bool(rng.integers(2))
        more = {"wide": int(result in _WIDE)}
        if not rng.integers(4):
            more["wide"] = int(rng.integers(2))
        for flag, feature, results in (
            ("multiply", "gate", (Result.ACTIVATE, Result.STORE16)),
            ("rotate", "rotary", (Result.STORE8, Result.TRANSPOSE)),
        ):
            if self.has(feature) and result in results and columns % 2 == 0 and rng.integers(2):
                more |= {flag: 1, "wide": int(rng.integers(8) > 0)}
        if result == Result.ACTIVATE or more.get("multiply"):
            self.load(Target.TABLE, self.noise(512), 0)
        residual = result == Result.RESIDUAL or more.get("rotate")
        windows = windows or self.windows(fields)
        if self.has("apart") and result == Result.STORE8 and rng.integers(2):
            place, more["apart"] = self.beside(columns), 1
        else:
            place = self.target((2 if result in _WIDE or short else 1) * columns * rows)
        more["bits15"] = int(short and not (result == Result.ACTIVATE and more.get("multiply")))
        self.add(
            Opcode.PRODUCT, **fields, **windows, parameters_step=step, parameters_base=base, result=result,
            result_address=place,
            residual_address=self.stream(columns, place, "apart" in more) if residual else 0, **more, **self.stored(),
        )  # fmt: skip

    def stream(self, columns: int, place: int, apart: bool) -> int:
        """Where a residual stream lies, none of which results at a place overwrite before it is read."""
        size = 2 * columns * self.config.rows
        found, end = self.source(self.noise(size)), place + max(size, columns * self.config.groups * apart)
        overlaps = found < end and place < found + size
        return self.put(self.noise(size)) if overlaps and (apart or found != place) else found

    def beside(self, columns: int) -> int:
        """Where results go whose columns lie `groups` bytes apart: one of the tiles that then lie side by side."""
        rows, groups = self.config.rows, self.config.groups
        tile = rows * int(self.rng.integers(groups // rows))
        return self.target(columns * groups + groups - rows) + tile
