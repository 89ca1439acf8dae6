"""Random programs, instruction by instruction: what compiled ones never do is in them, and values that saturate.

All are legal by docs/isa.md, with all that their configuration has; instructions wait for what they depend on, or for
more, at random; there are loops, address registers, and instructions that read what earlier ones wrote.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sta_hw.spec.config import Config
from sta_hw.spec.expansion import unroll
from sta_hw.spec.isa import FORMATS, WAITS, Instruction, Opcode, Result, Target, assemble
from sta_hw.spec.records import Record

from .hazards import needed_waits
from .operations import Operations

__all__ = ["RandomProgram", "with_waits"]

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


class RandomProgram(Operations):
    """An image of random bytes with a program of random instructions at its end."""

    def loop(self) -> None:
        """A product over several tiles, whose places step; within another, which has the tiles of other weights."""
        rng, rows = self.rng, self.config.rows
        result = int(rng.choice([Result.STORE8, Result.STORE16]))
        fields, (turns, outer) = self.shape(), rng.integers(1, 4, 2).tolist()
        step, base = self.parameters(fields["columns"])
        burst = self.config.burst * self.config.bus_bytes
        read = fields["passes"] * self.config.groups * fields["depth"] * rows
        apart = int(self.has("apart") and result == Result.STORE8 and rng.integers(2))
        column = self.config.groups if apart else rows * (1 + (result == Result.STORE16))
        size = fields["columns"] * column
        read_step, size_step = (-(-n // burst) * burst for n in (read, size))
        windows = self.put(self.noise(read_step * turns))
        beats = read // self.config.bus_bytes
        keeps = self.has("windows") and beats <= self.config.window_words and rng.integers(3) > 0
        results = [self.put(self.noise(size_step * turns * outer)) for _ in range(1 + keeps)]
        self.written += [(address, size_step * turns * outer) for address in results]
        set_, loop = Opcode.SET, Opcode.LOOP
        reader, writer, counts = (int(r) for r in rng.permutation(range(1, 8))[:3])
        self.add(set_, destination=writer)
        self.add(set_, destination=counts, value=int(rng.integers(1 << 32)))
        value = self.instructions[-1]["value"]
        self.add(loop, count=(outer - value) % (1 << 16), count_register=counts)
        self.add(set_, destination=reader)
        # The step's own word of parameters goes round its memory.
        self.add(loop, count=turns)
        for address, kept in zip(results, (0, 1), strict=False):  # what the first keeps the second takes
            self.add(
                Opcode.PRODUCT, **fields, window_address=windows, window_address_register=reader,
                window_beats=beats, keep=int(keeps and not kept), kept=kept, parameters_step=step,
                parameters_base=base, result=result, wide=int(result == Result.STORE16), apart=apart,
                result_address=address, result_address_register=writer, **self.stored(),
            )  # fmt: skip
        for turn in range(turns * outer if keeps else 0):
            self.on_chip.keep(windows + turn % turns * read_step, beats)
        self.add(set_, destination=reader, value=read_step, value_register=reader)
        self.add(set_, destination=writer, value=size_step, value_register=writer)
        self.instructions.append(_NEXT)
        if rng.integers(2):
            self.norm(inside=True)
        self.instructions.append(_NEXT)

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

    def image(self, count: int, length: int, position: int = 0, *, waits: bool = True) -> tuple[NDArray[np.uint8], int]:
        """After so many operations: the image, and where its program is.

        Without `waits` instructions do not wait for one another: for who runs them one by one.

        Raises
        ------
        UnorderedError
            If no waits order two of its instructions.
        """
        kinds = [self.product, self.product, self.attention, self.norm, self.loop]
        if self.has("best"):
            kinds.append(self.largest)
        if self.anywhere:
            self.load(Target.VALUES, self.rng.bytes(self.config.weight_words * self.config.groups), 0)
        for _ in range(count):
            kinds[self.rng.integers(len(kinds))]()
        self.instructions = self.by_registers(length, position)
        program = [*self.instructions, Instruction(Opcode.HALT)]
        if waits:
            program = with_waits(program, self.config, self.size, length, position, self.rng)
        address = self.put(assemble(program, self.config))
        return np.frombuffer(b"".join(self.pieces), np.uint8), address
