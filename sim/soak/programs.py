"""Random programs, instruction by instruction: what compiled ones never do is in them, and values that saturate.

All are legal by docs/isa.md, with all that their configuration has; instructions wait for what they depend on, or for
more, at random; there are loops, address registers, and instructions that read what earlier ones wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sta_hw.formats import encode, prune
from sta_hw.spec.config import Config
from sta_hw.spec.expansion import unroll
from sta_hw.spec.isa import FORMATS, WAITS, Instruction, NormKind, Opcode, Result, Target, assemble, codes
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.records import Record

from .hazards import needed_waits

__all__ = ["RandomProgram", "with_waits"]

_CODES = {"dense": 0, "index": 1, "bitmap": 2}
_WIDE = (Result.STORE16, Result.RESIDUAL)
_CONSTANT = (8, 9, 10, 11)
"""Registers that are set once, to anything."""
_PRODUCTS = (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)
_NEXT = Instruction(Opcode.NEXT)


def with_waits(
    program: list[Instruction],
    config: Config,
    image_bytes: int,
    length: int,
    position: int,
    rng: np.random.Generator | None = None,
) -> list[Instruction]:
    """A program whose instructions wait for what they depend on, in whatever turn of their loops.

    Raises
    ------
    UnorderedError
        If nothing orders two that must be.
    """
    flat = [found for found in unroll(program, config, length, position) if found.instruction.opcode != Opcode.HALT]
    needed = needed_waits(((f.instruction.opcode, f.instruction.fields) for f in flat), config, image_bytes)
    shortest: dict[int, dict[str, int]] = {}
    for found, (_, waits) in zip(flat, needed, strict=True):
        mine = shortest.setdefault(found.source, {})
        for name, distance in waits.items():
            mine[name] = min(mine.get(name, distance), distance)
    result = []
    for place, i in enumerate(program):
        waits = shortest.get(place, {})
        if rng is not None:
            waits = {n: d if rng.integers(8) else int(rng.integers(1, d + 1)) for n, d in waits.items()}
            if i.opcode in (Opcode.LOAD, Opcode.NORM) and not rng.integers(10):
                waits |= {n: min(waits.get(n, 63), int(rng.integers(1, 64))) for n in WAITS}
        result.append(Instruction(i.opcode, dict(i.fields) | {f"wait_{n}": d for n, d in waits.items()}))
    return result


@dataclass
class RandomProgram:
    """An image of random bytes with a program of random instructions at its end.

    Attributes
    ----------
    pieces : list of bytes
        The image so far.
    written : list of (address, size)
        Pieces that hold results of earlier instructions, for later ones to read.
    features : bool
        With what the configuration has beyond an encoder's hardware; loops and what earlier instructions wrote, too.
    anywhere : bool
        Weight values are read with strides of any size, of a memory that is full; otherwise those that were loaded.
    """

    config: Config
    rng: np.random.Generator
    features: bool = True
    anywhere: bool = True
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    instructions: list[Instruction] = field(default_factory=list)
    written: list[tuple[int, int]] = field(default_factory=list)

    def has(self, feature: str) -> bool:
        """Whether instructions use it."""
        return self.features and feature in self.config.features

    def codes(self, name: str) -> list[int]:
        """Values of a field."""
        return codes(name, self.config.features if self.features else ())

    def source(self, data: bytes) -> int:
        """Where data to be read lie; now and then something else, of as many bytes, that an instruction wrote."""
        places = [address for address, size in self.written if size >= len(data)]
        if self.features and places and not self.rng.integers(3):
            return int(self.rng.choice(places))
        return self.put(data)

    def target(self, size: int) -> int:
        """Where results go; now and then where others were."""
        places = [address for address, there in self.written if there >= size]
        if self.features and places and not self.rng.integers(8):
            return int(self.rng.choice(places))
        address = self.put(self.noise(size))
        self.written.append((address, size))
        return address

    def put(self, data: bytes) -> int:
        """Its address."""
        whole = data + bytes(-len(data) % (self.config.burst * self.config.bus_bytes))
        self.pieces.append(whole)
        self.size += len(whole)
        return self.size - len(whole)

    def noise(self, count: int) -> bytes:
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

    def stored(self) -> dict[str, int]:
        """The same of a product, which can also store by position."""
        if self.has("position") and not self.rng.integers(3):
            rows = self.config.rows
            return {"place": 1} | ({} if self.rng.integers(2) else {
                "rows_before": int(self.rng.integers(rows)), "rows_after": int(self.rng.integers(rows)),
            })  # fmt: skip
        return self.rows()

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
        return {"window_address": self.source(self.noise(size)), "window_beats": size // self.config.bus_bytes}

    def sums(self, opcode: Opcode, fields: dict[str, int]) -> dict[str, int]:
        """A product's weights, or those of one that continues another of these, which goes before it."""
        if self.rng.integers(3):
            return fields
        self.add(opcode, **fields, **self.windows(fields), parameters_step=1, unfinished=1)
        for _ in range(self.features and int(self.rng.integers(3)) // 2):  # one of another kind in between
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
        digits, windows = "digits" in self.config.features, {}
        if digits and rng.integers(2):  # both digits of the same windows, over the same weights
            windows = self.windows(fields | {"digit": 1})
            self.add(Opcode.PRODUCT, **fields, **windows, digit=1, unfinished=1)
            fields |= {"digit": 2, "continues": 1, "lift": 1}
        else:
            fields = self.sums(Opcode.PRODUCT, fields | {"digit": int(rng.integers(3)) if digits else 0})
            if fields.get("continues") and digits:
                fields |= {"digit": int(rng.integers(3)), "lift": int(rng.integers(2))}
        step, base = self.parameters(columns)
        short = digits and result in (Result.STORE16, Result.ACTIVATE) and bool(rng.integers(2))
        more = {"wide": int(result in _WIDE)}
        if self.features and not rng.integers(4):
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
        more["bits15"] = int(short and not (result == Result.ACTIVATE and more.get("multiply")))
        self.add(
            Opcode.PRODUCT, **fields, **windows, parameters_step=step, parameters_base=base, result=result,
            result_address=self.target((2 if result in _WIDE or short else 1 + (not self.features)) * columns * rows),
            residual_address=self.source(self.noise(2 * columns * rows)) if residual else 0, **more, **self.stored(),
        )  # fmt: skip

    def largest(self) -> None:
        """Lists of the largest results of several products, with others in between."""
        rng, count = self.rng, int(self.rng.integers(1, 4))
        for number in range(count):
            fields = self.sums(Opcode.PRODUCT, self.shape())
            step, base = self.parameters(fields["columns"])
            last = int(number == count - 1)
            self.add(
                Opcode.PRODUCT, **fields, **self.windows(fields), parameters_step=step, parameters_base=base,
                result=int(Result.BEST), wide=int(rng.integers(8) > 0), row_first=int(number == 0), row_last=last,
                residual_address=int(rng.integers(1 << 18)),
                result_address=self.target(64 * self.config.rows) if last else 0,
            )  # fmt: skip
            if not last and rng.integers(2):
                (self.product, self.norm)[rng.integers(2)]()

    def loop(self) -> None:
        """A product over several tiles, whose places step; within another, which has the tiles of other weights."""
        rng, rows = self.rng, self.config.rows
        result = int(rng.choice([Result.STORE8, Result.STORE16]))
        fields, (turns, outer) = self.shape(), rng.integers(1, 4, 2).tolist()
        step, base = self.parameters(fields["columns"])
        burst = self.config.burst * self.config.bus_bytes
        read = fields["passes"] * self.config.groups * fields["depth"] * rows
        size = (1 + (result == Result.STORE16)) * fields["columns"] * rows
        read_step, size_step = (-(-n // burst) * burst for n in (read, size))
        windows = self.put(self.noise(read_step * turns))
        results = self.put(self.noise(size_step * turns * outer))
        self.written.append((results, size_step * turns * outer))
        set_, loop = Opcode.SET, Opcode.LOOP
        reader, writer, counts = (int(r) for r in rng.permutation(range(1, 8))[:3])
        self.add(set_, destination=writer)
        self.add(set_, destination=counts, value=int(rng.integers(1 << 32)))
        value = self.instructions[-1]["value"]
        self.add(loop, count=(outer - value) % (1 << 16), count_register=counts)
        self.add(set_, destination=reader)
        # The step's own word of parameters goes round its memory.
        self.add(loop, count=turns)
        self.add(
            Opcode.PRODUCT, **fields, window_address=windows, window_address_register=reader,
            window_beats=read // self.config.bus_bytes, parameters_step=step, parameters_base=base, result=result,
            wide=int(result == Result.STORE16), result_address=results, result_address_register=writer, **self.stored(),
        )  # fmt: skip
        self.add(set_, destination=reader, value=read_step, value_register=reader)
        self.add(set_, destination=writer, value=size_step, value_register=writer)
        self.instructions.append(_NEXT)
        if rng.integers(2):
            self.norm(inside=True)
        self.instructions.append(_NEXT)

    def attention(self, length: int) -> None:
        """Blocks of keys of some rows, and the contexts, 16 bits wide so that every probability is seen."""
        config, rng = self.config, self.rng
        blocks, coarse, gain = int(rng.integers(1, 4)), int(rng.integers(2)), int(rng.integers(8))
        mask, wide = int(rng.choice(self.codes("mask"))), int(rng.integers(2))
        columns, keys = int(rng.integers(1, 6)), int(rng.integers(0, 40))
        first = int(rng.integers(-8, 4))
        depths = [int(rng.integers(1, config.window + 1)) for _ in range(blocks)]
        ahead = int(self.features and not rng.integers(16))  # scores of the next block before this one's context

        def scores(block: int) -> None:
            nonlocal first
            count = config.groups * depths[block]
            fields = self.weights(Pattern(1, 1), "dense", int(rng.integers(1, config.window + 1)), count, 1)
            # Sums of its own are kept only where a context has not left any.
            if self.features and block == 0 and count <= config.columns:
                fields = self.sums(Opcode.SCORES, fields)
            step, base = self.parameters(count)
            self.add(
                Opcode.SCORES, **fields, **self.windows(fields), wide=1, parameters_step=step, parameters_base=base,
                row_first=int(block == 0), row_last=int(block == blocks - 1), gain=gain, coarse=coarse, mask=mask,
                keys=keys, key_start=first,
            )  # fmt: skip
            first += count

        def context(block: int) -> None:
            fields = self.weights(Pattern(1, 1), "dense", depths[block], columns, 1)
            result = int(Result.STORE16 if wide else Result.STORE8)
            if not wide and self.features and columns % config.groups == 0:
                result = int(rng.choice([Result.STORE8, Result.TRANSPOSE]))
            self.add(
                Opcode.CONTEXT, **fields, continues=int(block > 0), unfinished=int(block < blocks - 1), wide=wide,
                bits15=int("digits" in config.features and wide and rng.integers(2)),
                window_beats=config.groups * depths[block] * config.rows // config.bus_bytes, result=result,
                result_address=self.target(2 * columns * config.rows) if block == blocks - 1 or not self.features else
                self.put(self.noise(2 * columns * config.rows)), **self.stored(),
            )  # fmt: skip

        for block in range(blocks):
            scores(block)
            if block >= ahead:
                context(block - ahead)
        if ahead:
            context(blocks - 1)

    def norm(self, inside: bool = False) -> None:
        """Where nothing else is; one `inside` a loop is narrow."""
        rng, rows = self.rng, self.config.rows
        width = int(rng.choice([2, 3, 5, 7, 8, 30, 64, 100]))
        sums = np.frombuffer(self.noise(2 * width * rows), "<i2")
        kind = rng.integers(5)
        if kind <= 1:  # nearly constant
            sums = (sums % 5 + rng.integers(-32760, 32760)).astype("<i2")
        elif kind == 2 and not inside:  # one value of a row is so far out that its normalized one saturates
            width = int(rng.integers(1400, 2100))
            sums = rng.integers(-2, 3, (width, rows)).astype("<i2")
            sums[rng.integers(0, width, rows), np.arange(rows)] = rng.choice([-32767, 32767], rows)
        scale = rng.integers(-(1 << 17), 1 << 17, width) >> rng.integers(0, 8, width)
        shift = rng.integers(-(1 << 15), 1 << 15, width) >> rng.integers(0, 8, width)
        words = (scale & 0x3FFFF) | (shift & 0xFFFF) << 18 | rng.integers(0, 1 << 16, width) << 34
        inverse = round(2**33 / width)
        more = {}
        if self.has("rms"):
            more = {"kind": int(rng.choice(list(NormKind))), "epsilon": int(rng.integers(1 << 28) >> rng.integers(28))}
        more["bits15"] = int("digits" in self.config.features and rng.integers(2))
        wide, narrow = self.put(self.noise(2 * width * rows)), self.put(self.noise(width * rows))
        self.add(
            Opcode.NORM, input_address=self.source(sums.tobytes()), wide_address=wide, narrow_address=narrow,
            width=width, inverse=inverse & 0xFFFFFFFF, inverse_high=inverse >> 32,
            parameters_address=self.put(words.astype("<u8").tobytes()), **more, **self.rows(),
        )  # fmt: skip
        if self.features:
            self.written += [(wide, 2 * width * rows), (narrow, width * rows)]

    def by_registers(self, length: int, position: int) -> list[Instruction]:
        """Some words of instructions with a register added, whose value is taken off them beforehand."""
        rng = self.rng
        values = {r: int(rng.integers(1 << 32)) for r in _CONSTANT} | {15: length, 14: -(-length // self.config.rows)}
        if self.has("position"):
            values |= {13: position, 12: position // self.config.rows}
        found = [Instruction(Opcode.SET, {"destination": r, "value": values[r]}) for r in _CONSTANT]
        for i in self.instructions:
            fields = dict(i.fields)
            for word in FORMATS[i.opcode] if i.opcode in (Opcode.LOAD, Opcode.NORM, *_PRODUCTS) else ():
                if not word.low or fields.get(word.register) or rng.integers(4):
                    continue
                register, low = int(rng.choice(list(values))), Record("", word.low)
                names = [f.name for f in word.low]
                bits = low.pack({n: fields.get(n, 0) for n in names}) - values[register] & 0xFFFFFFFF
                fields |= low.unpack(bits) | {word.register: register}
            found.append(Instruction(i.opcode, fields))
        return found

    def image(self, count: int, length: int, position: int = 0) -> tuple[NDArray[np.uint8], int]:
        """After so many operations: the image, and where its program is.

        Raises
        ------
        UnorderedError
            If no waits order two of its instructions.
        """
        kinds = [self.product, self.product, lambda: self.attention(length), self.norm]
        if self.features:
            kinds.append(self.loop)
        if self.has("best"):
            kinds.append(self.largest)
        if self.features and self.anywhere:
            self.load(Target.VALUES, self.rng.bytes(self.config.weight_words * self.config.groups), 0)
        for _ in range(count):
            kinds[self.rng.integers(len(kinds))]()
        program = [*self.instructions, Instruction(Opcode.HALT)]
        if self.features:
            self.instructions = self.by_registers(length, position)
            program = [*self.instructions, Instruction(Opcode.HALT)]
            program = with_waits(program, self.config, self.size, length, position, self.rng)
        address = self.put(assemble(program, self.config))
        return np.frombuffer(b"".join(self.pieces), np.uint8), address
