"""Random programs, instruction by instruction: what compiled ones never do is in them, and values that saturate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sta_hw.formats import encode, keep_mask, prune
from sta_hw.formats.blocks import BlockedWeights, encode_blocks
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Opcode, Result, Target, assemble, codes
from sta_hw.spec.patterns import Pattern

_CODES = {"dense": 0, "index": 1, "bitmap": 2}


@dataclass
class RandomProgram:
    """An image of random bytes with a program of random instructions at its end.

    Attributes
    ----------
    pieces : list of bytes
        The image so far; each instruction's data are pieces of their own, where nothing else writes.
    kept : (address, bus words)
        The windows that were kept last.
    """

    config: Config
    rng: np.random.Generator
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    instructions: list[Instruction] = field(default_factory=list)
    kept: tuple[int, int] = (0, 0)

    def put(self, data: bytes) -> int:
        """Its address."""
        whole = data + bytes(-len(data) % (self.config.burst * self.config.bus_bytes))
        self.pieces.append(whole)
        self.size += len(whole)
        return self.size - len(whole)

    def bytes(self, count: int) -> bytes:
        """Random; of one kind now and then: the largest, the smallest, nearly constant."""
        kind = self.rng.integers(6)
        if kind == 0:
            return bytes(self.rng.choice([0x7F, 0x80, 0x81], count).astype(np.uint8))
        if kind == 1:
            return bytes(self.rng.choice([0x00, 0xFF], count, p=[0.9, 0.1]).astype(np.uint8))
        return self.rng.bytes(count)

    def add(self, opcode: Opcode, **fields: int) -> None:
        self.instructions.append(Instruction(opcode, {n: v for n, v in fields.items() if v}))

    def rows(self) -> dict[str, int]:
        """Rows of a tile that are not stored: none, mostly."""
        if self.rng.integers(3):
            return {}
        before = int(self.rng.integers(self.config.rows))
        return {"rows_before": before, "rows_after": int(self.rng.integers(self.config.rows - before))}

    def load(self, target: Target, data: bytes, destination: int) -> None:
        """In one run, or in several that lie apart."""
        bus = self.config.bus_bytes
        data += bytes(-len(data) % bus)
        beats, runs = len(data) // bus, 1
        if beats % 2 == 0 and self.rng.integers(2):
            runs = 2
        each = len(data) // runs
        gap = bus * int(self.rng.integers(3)) if runs > 1 else 0
        address = self.put(b"".join(data[each * i : each * (i + 1)] + bytes(gap) for i in range(runs)))
        self.add(
            Opcode.LOAD, address=address, rows=runs, beats=beats // runs, stride=(each + gap) * (runs > 1),
            target=int(target), destination=destination,
        )  # fmt: skip

    def parameters(self, columns: int) -> tuple[int, int]:
        """Loads them; whether each column has its own, and where they are."""
        rng, words = self.rng, self.config.parameter_words
        step = int(rng.integers(2))
        count = columns if step else 1
        table = np.zeros((count, 16), np.uint8)
        kind = rng.integers(3)  # of any size; as requantizations are; so that results are of every size
        bias = rng.integers(-(2**31), 2**31, count) if kind == 0 else rng.integers(-5000, 5000, count)
        multiplier = rng.integers(0, 1 << 16, count) >> (rng.integers(0, 16, count) if kind == 2 else 0)
        table[:, :4] = bias.astype("<i4").view(np.uint8).reshape(-1, 4)
        table[:, 4:6] = multiplier.astype("<u2").view(np.uint8).reshape(-1, 2)
        table[:, 6] = rng.integers(0, 3 if kind == 1 else 8, count)
        table[:, 8:10] = rng.integers(0, 1 << 16, count).astype("<u2").view(np.uint8).reshape(-1, 2)
        base = int(rng.integers(words))
        self.load(Target.PARAMETERS, table.tobytes(), base)
        return step, base

    def counters(self, beats: int) -> dict[str, int]:
        """Four counters that come to so many words, with random steps."""
        rng, fields, left = self.rng, {}, beats
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
        if "blocks4" in config.features and run >= 2 and rng.integers(2):
            share = config.block_groups
            blocks = BlockedWeights(
                share * depth, rng.integers(0, 16, matrix.shape, np.uint8),
                rng.integers(0, 4096, (columns, passes * config.groups // share)),
                rng.integers(-2048, 2048, (columns, passes * config.groups // share)),
                None if pattern.m == 1 else keep_mask(rng.random(matrix.shape), pattern),
            )  # fmt: skip
            found = encode_blocks(
                blocks, pattern, groups=config.groups, window=config.window, depth=depth,
                encoding=None if encoding == "dense" else encoding,
            )  # fmt: skip
            values, beats = found.words.tobytes(), len(found.words)
            positions = found.matrix.to_bytes()[28:][: len(positions)]
            fields |= {"value_format": 1, "run": run}
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

    def shape(self) -> dict[str, int]:
        """A product's weights of a random pattern."""
        config, rng = self.config, self.rng
        pattern = config.patterns[rng.integers(len(config.patterns))]
        encoding = "dense" if pattern.m == 1 else str(rng.choice(config.encodings))
        depth = int(pattern.m * rng.integers(1, config.window // pattern.m + 1))
        columns = config.groups * int(rng.integers(1, 5))
        return self.weights(pattern, encoding, depth, columns, int(rng.integers(1, 4)))

    def windows(self, fields: dict[str, int]) -> dict[str, int]:
        size = fields["passes"] * self.config.groups * fields["depth"] * self.config.rows
        size *= 2 if fields.get("digit") else 1
        beats, (at, there) = size // self.config.bus_bytes, self.kept
        found = {"window_address": self.put(self.bytes(size)), "window_beats": beats}
        if beats <= there and self.rng.integers(2):
            first = int(self.rng.integers(there - beats + 1))
            return found | {"window_address": at + first * self.config.bus_bytes, "kept": 1}
        if beats <= self.config.window_words and self.rng.integers(2):
            self.kept = found["window_address"], beats
            return found | {"keep": 1}
        return found

    def product(self) -> None:
        """One, or one that another continues."""
        rng, rows = self.rng, self.config.rows
        result = int(rng.choice(codes("result", self.config.features)))
        fields = self.shape()
        columns = fields["columns"]
        digits, windows = "digits" in self.config.features, {}
        if digits and rng.integers(2):  # both digits of the same windows, over the same weights
            windows = self.windows(fields | {"digit": 1})
            self.add(Opcode.PRODUCT, **fields, **windows, digit=1, unfinished=1)
            fields |= {"digit": 2, "continues": 1, "lift": 1}
        elif not rng.integers(3):
            fields |= {"digit": int(rng.integers(3)) if digits else 0}
            self.add(Opcode.PRODUCT, **fields, **self.windows(fields), parameters_step=1, unfinished=1)
            fields = self.weights(Pattern(1, 1), "dense", 1, columns, 1) | {"continues": 1}
            fields |= {"digit": int(rng.integers(3)), "lift": int(rng.integers(2))} if digits else {}
        step, base = self.parameters(columns)
        short = digits and result in (Result.STORE16, Result.ACTIVATE) and bool(rng.integers(2))
        if result == Result.ACTIVATE:
            self.load(Target.TABLE, self.bytes(512), 0)
        windows = windows or self.windows(fields)
        apart = int("apart" in self.config.abilities and result == Result.STORE8 and rng.integers(2))
        place = self.put(self.bytes(columns * (self.config.groups if apart else 2 * rows)))
        self.add(
            Opcode.PRODUCT, **fields, **windows, parameters_step=step, parameters_base=base, result=result,
            wide=int(result in (Result.STORE16, Result.RESIDUAL)), bits15=int(short), apart=apart, result_address=place,
            residual_address=self.put(self.bytes(2 * columns * rows)) if result == Result.RESIDUAL else 0,
            **self.rows(),
        )  # fmt: skip

    def attention(self, length: int) -> None:
        """Blocks of keys of some rows, and the contexts, 16 bits wide so that every probability is seen."""
        config, rng = self.config, self.rng
        blocks, coarse, gain = int(rng.integers(1, 4)), int(rng.integers(2)), int(rng.integers(8))
        mask, wide = int(rng.choice(codes("mask", config.features))), int(rng.integers(2))
        columns, keys = int(rng.integers(1, 6)), int(rng.integers(0, 40))
        first = int(rng.integers(-8, 4))
        depths = [int(rng.integers(1, config.window + 1)) for _ in range(blocks)]
        for block, depth in enumerate(depths):
            count = config.groups * depth
            fields = self.weights(Pattern(1, 1), "dense", int(rng.integers(1, config.window + 1)), count, 1)
            step, base = self.parameters(count)
            self.add(
                Opcode.SCORES, **fields, **self.windows(fields), wide=1, parameters_step=step, parameters_base=base,
                row_first=int(block == 0), row_last=int(block == blocks - 1), gain=gain, coarse=coarse, mask=mask,
                keys=keys, key_start=first,
            )  # fmt: skip
            first += count
            fields = self.weights(Pattern(1, 1), "dense", depth, columns, 1)
            self.add(
                Opcode.CONTEXT, **fields, continues=int(block > 0), unfinished=int(block < blocks - 1), wide=wide,
                window_beats=count * config.rows // config.bus_bytes,
                result=int(Result.STORE16 if wide else Result.STORE8),
                bits15=int("digits" in config.features and wide and rng.integers(2)),
                result_address=self.put(self.bytes(2 * columns * config.rows)), **self.rows(),
            )  # fmt: skip

    def norm(self) -> None:
        rng, rows = self.rng, self.config.rows
        width = int(rng.choice([2, 3, 5, 7, 8, 30, 64, 100]))
        sums = np.frombuffer(self.bytes(2 * width * rows), "<i2")
        kind = rng.integers(5)
        if kind <= 1:  # nearly constant
            sums = (sums % 5 + rng.integers(-32760, 32760)).astype("<i2")
        elif kind == 2:  # one value of a row is so far out that its normalized one saturates
            width = int(rng.integers(1400, 2100))
            sums = rng.integers(-2, 3, (width, rows)).astype("<i2")
            sums[rng.integers(0, width, rows), np.arange(rows)] = rng.choice([-32767, 32767], rows)
        scale = rng.integers(-(1 << 17), 1 << 17, width) >> rng.integers(0, 8, width)
        shift = rng.integers(-(1 << 15), 1 << 15, width) >> rng.integers(0, 8, width)
        words = (scale & 0x3FFFF) | (shift & 0xFFFF) << 18 | rng.integers(0, 1 << 16, width) << 34
        inverse = round(2**33 / width)
        self.add(
            Opcode.NORM, input_address=self.put(sums.tobytes()), wide_address=self.put(self.bytes(2 * width * rows)),
            narrow_address=self.put(self.bytes(width * rows)), width=width, inverse=inverse & 0xFFFFFFFF,
            inverse_high=inverse >> 32, parameters_address=self.put(words.astype("<u8").tobytes()), **self.rows(),
            bits15=int("digits" in self.config.features and rng.integers(2)),
        )  # fmt: skip

    def image(self, count: int, length: int) -> tuple[NDArray[np.uint8], int]:
        """After so many operations: the image, and where its program is."""
        for _ in range(count):
            (self.product, self.product, lambda: self.attention(length), self.norm)[self.rng.integers(4)]()
        address = self.put(assemble([*self.instructions, Instruction(Opcode.HALT)], self.config))
        return np.frombuffer(b"".join(self.pieces), np.uint8), address
