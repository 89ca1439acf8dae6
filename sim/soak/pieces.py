"""What random programs are made of: pieces of an image, and LOADs of random parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sta_hw.compiler.kept import KeptWindows
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Opcode, Target, codes

__all__ = ["Pieces"]


@dataclass
class Pieces:
    """An image of random bytes, and the instructions so far.

    Attributes
    ----------
    config : Config
        What it has is what instructions use: features, windows kept on chip, rows apart.
    anywhere : bool
        Weight values are read with strides of any size, of a memory that is full; otherwise those that were loaded.
    pieces : list of bytes
        The image so far.
    written : list of (address, size)
        Pieces that hold results of earlier instructions, for later ones to read.
    on_chip : KeptWindows
        The windows that stay there.
    """

    config: Config
    rng: np.random.Generator
    anywhere: bool = True
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    instructions: list[Instruction] = field(default_factory=list)
    written: list[tuple[int, int]] = field(default_factory=list)
    on_chip: KeptWindows = field(init=False)

    def __post_init__(self) -> None:
        self.on_chip = KeptWindows(self.config)

    def has(self, feature: str) -> bool:
        """Whether hardware has it: a feature, or what else fields need."""
        return feature in self.config.abilities

    def codes(self, name: str) -> list[int]:
        """Values of a field."""
        return codes(name, self.config.abilities)

    def source(self, data: bytes) -> int:
        """Where data to be read lie; now and then something else, of as many bytes, that an instruction wrote."""
        places = [address for address, size in self.written if size >= len(data)]
        if places and not self.rng.integers(3):
            return int(self.rng.choice(places))
        return self.put(data)

    def target(self, size: int) -> int:
        """Where results go; now and then where others were, or where windows were that stay on chip as they were."""
        whole, bus = self.config.burst * self.config.bus_bytes, self.config.bus_bytes
        kept, end = -(-self.on_chip.start * bus // whole) * whole, self.on_chip.end * bus
        if kept < end and kept + size <= self.size and not self.rng.integers(3):
            return kept
        places = [address for address, there in self.written if there >= size]
        if places and not self.rng.integers(8):
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
        """Put an instruction behind the others."""
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
        short = self.has("blocks4") and rng.integers(2)
        table = np.zeros((count, 16), np.uint8)
        kind = rng.integers(3)  # of any size; as requantizations are; so that results are of every size
        bias = rng.integers(-(2**31), 2**31, count) if kind == 0 else rng.integers(-5000, 5000, count)
        multiplier = rng.integers(0, 1 << 16, count) >> (rng.integers(0, 16, count) if kind == 2 else 0)
        table[:, :4] = bias.astype("<i4").view(np.uint8).reshape(-1, 4)
        table[:, 4:6] = multiplier.astype("<u2").view(np.uint8).reshape(-1, 2)
        table[:, 6] = rng.integers(0, 3 if kind == 1 else 8, count)
        second = rng.integers(0, 1 << 16, count) >> np.arange(count) % 12  # likewise
        table[:, 8:10] = second.astype("<u2").view(np.uint8).reshape(-1, 2)
        base = int(rng.integers(words))
        if short:  # the same bytes but the bias's fourth, with any bits behind the shift
            table[:, 6] |= rng.integers(0, 32, count, np.uint8) << 3
            self.load(Target.SHORT_PARAMETERS, table[:, [0, 1, 2, 4, 5, 6, 8, 9]].tobytes(), base)
        else:
            self.load(Target.PARAMETERS, table.tobytes(), base)
        return step, base
