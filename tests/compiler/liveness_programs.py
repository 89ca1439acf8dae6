"""Random programs whose data do not matter: what waits for what, and how far units run ahead, is all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sta_hw.spec.config import Config
from sta_hw.spec.isa import WAITS, Instruction, Opcode, Result, Target, assemble

IMAGE = 1 << 14
"""Bytes of zeros that every instruction reads from and writes to; the program is behind them."""


def product(
    config: Config, opcode: Opcode, *, columns: int, depth: int = 1, passes: int = 1, **more: int
) -> Instruction:
    """Dense weights, whatever is on chip."""
    steps = passes * columns * depth
    fields = {
        "window_beats": passes * config.groups * depth * config.rows // config.bus_bytes, "columns": columns,
        "depth": depth, "passes": passes, "n": 1, "count0": steps, "count1": 1, "count2": 1, "count3": 1,
        "positions_count": 1, "result": int(Result.STORE8), **more,
    }  # fmt: skip
    return Instruction(opcode, fields)


def load(config: Config, **more: int) -> Instruction:
    return Instruction(Opcode.LOAD, {"rows": 1, "beats": 8, "target": int(Target.VALUES), **more})


def norm(config: Config, **more: int) -> Instruction:
    places = {"input_address": 0, "wide_address": 4096, "narrow_address": 8192, "parameters_address": 1024}
    return Instruction(Opcode.NORM, {**places, "width": 2, "inverse": 0, "inverse_high": 1, **more})


def halted(program: list[Instruction]) -> list[Instruction]:
    return [*program, Instruction(Opcode.HALT)]


def image_of(program: list[Instruction], config: Config) -> NDArray[np.uint8]:
    """Zeros, and the program at `IMAGE`."""
    data = bytes(IMAGE) + assemble(program, config)
    return np.frombuffer(data + bytes(-len(data) % (config.burst * config.bus_bytes)), np.uint8)


@dataclass
class Generator:
    """Products, loads and norms in any order; blocks of scores up to `ahead` before their contexts."""

    config: Config
    rng: np.random.Generator
    ahead: int
    waits: float
    program: list[Instruction] = field(default_factory=list)
    blocks: list[tuple[int, bool, bool]] = field(default_factory=list)  # depth, first, last
    left: int = 0

    def some_waits(self) -> dict[str, int]:
        return {f"wait_{n}": int(self.rng.integers(1, 8)) for n in WAITS if self.rng.random() < self.waits}

    def scores(self) -> None:
        first = not self.left
        if first:
            self.left = int(self.rng.integers(1, 4))
        self.left -= 1
        depth = int(self.rng.integers(1, self.config.window + 1))
        self.blocks.append((depth, first, not self.left))
        self.program.append(
            product(
                self.config, Opcode.SCORES, columns=self.config.groups * depth, depth=int(self.rng.integers(1, 4)),
                wide=1, keys=1000, row_first=int(first), row_last=int(not self.left), **self.some_waits(),
            )
        )  # fmt: skip

    def context(self) -> None:
        depth, first, last = self.blocks.pop(0)
        self.program.append(
            product(
                self.config, Opcode.CONTEXT, columns=int(self.rng.integers(1, 9)) if first else self.columns,
                depth=depth, continues=int(not first), unfinished=int(not last), **self.some_waits(),
            )
        )  # fmt: skip
        self.columns = self.program[-1]["columns"]

    def other(self) -> None:
        config, rng = self.config, self.rng
        kind = rng.integers(4)
        if kind == 0:
            self.program += [load(config, **self.some_waits()) for _ in range(rng.integers(1, 5))]
        elif kind == 1:
            self.program += [norm(config, **self.some_waits()) for _ in range(rng.integers(1, 4))]
        else:
            result = Result(rng.choice([Result.STORE8, Result.STORE16, Result.RESIDUAL, Result.TRANSPOSE]))
            columns = int(rng.integers(1, 20)) * config.groups
            self.program.append(
                product(config, Opcode.PRODUCT, columns=columns, depth=int(rng.integers(1, 4)), result=int(result),
                        passes=int(rng.integers(1, 4)) if columns < config.columns else 1, **self.some_waits())
            )  # fmt: skip

    def make(self, length: int) -> list[Instruction]:
        """About so many instructions."""
        while len(self.program) < length:
            choice = self.rng.integers(3)
            if choice == 0:
                self.other()
            elif choice == 1 and len(self.blocks) <= self.ahead:
                self.scores()
            elif self.blocks and (choice == 2 or len(self.blocks) > self.ahead):
                self.context()
        while self.left:
            self.scores()
        while self.blocks:
            self.context()
        return halted(self.program)
