"""Opcodes, and what programs otherwise name by numbers: on-chip memories, results, masks, norms, errors, waits."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

__all__ = [
    "COUNTED", "NO_WAIT", "REGISTERS", "UNIT_WAITS", "WAITS", "WAIT_BITS", "Digit", "Error", "Mask", "NormKind",
    "Opcode", "Positions", "Result", "Target", "ValueFormat",
]  # fmt: skip

REGISTERS = 16
"""Address registers; number 0 is always zero."""


class Opcode(IntEnum):
    """What an instruction does."""

    HALT = 1
    """End of the program: finishes when every unit is idle."""
    LOAD = 2
    """Memory to an on-chip memory."""
    PRODUCT = 3
    """Matrix product: windows from memory, weights on chip, results to memory."""
    SCORES = 4
    """Attention, first half: Q x K^T of one head, one row tile and one block of keys, into the softmax."""
    CONTEXT = 5
    """Attention, second half: P x V, its windows from the softmax, normalised by the row sums."""
    NORM = 6
    """LayerNorm or RMSNorm of one row tile, memory to memory."""
    SET = 7
    """An address register becomes another's value plus a constant."""
    LOOP = 8
    """What follows, up to its NEXT, is repeated."""
    NEXT = 9
    """End of the innermost loop."""


class Target(IntEnum):
    """On-chip memories that LOAD fills, and what it fills them from."""

    VALUES = 0
    POSITIONS = 1
    PARAMETERS = 2
    TABLE = 3
    SHORT_PARAMETERS = 4
    """The memory of PARAMETERS, a word from each short record."""

    @property
    def memory(self) -> Target:
        """Whose words are counted: each memory goes by one target's name."""
        return Target.PARAMETERS if self == Target.SHORT_PARAMETERS else self


class Result(IntEnum):
    """What becomes of a product's results."""

    STORE8 = 0
    """8 bits, column after column."""
    STORE16 = 1
    """16 bits, column after column."""
    ACTIVATE = 2
    """8 bits through the table, then requantized per column to 8 bits."""
    RESIDUAL = 3
    """16 bits, added to the scaled residual stream; 16 bits stored."""
    TRANSPOSE = 4
    """8 bits; blocks of `groups` columns stored row after row, for use as weights."""
    BEST = 5
    """The 8 largest 16-bit results of each row, with their columns' numbers."""


class Positions(IntEnum):
    """How a product's positions are written."""

    DENSE = 0
    INDEX = 1
    BITMAP = 2


class ValueFormat(IntEnum):
    """How a product's values are written."""

    INT8 = 0
    BLOCKS4 = 1
    """4 bits each, in blocks with a scale and a minimum: of 32, where a window has no more."""
    WIDE_BLOCKS4 = 2
    """The same in blocks over four times as many groups."""


class Mask(IntEnum):
    """Which keys SCORES takes for valid."""

    KEYS = 0
    """Those whose numbers are from 0 to `keys`, less one."""
    LENGTH = 1
    """Those whose numbers are from 0 to the text's length, less one: register LENGTH's."""
    CAUSAL = 2
    """For row r those whose numbers are from 0 to `keys` + r, less one."""


class Digit(IntEnum):
    """Which digit of its windows a product takes."""

    NONE = 0
    """Windows are bytes."""
    HIGH = 1
    """The high digit of 15-bit windows, which lie in memory in 16 bits."""
    LOW = 2
    """Their low digit."""


class NormKind(IntEnum):
    """What NORM computes."""

    LAYER = 0
    """LayerNorm."""
    RMS = 1
    """RMSNorm: the mean is taken for zero."""


class Error(IntEnum):
    """Why the accelerator stopped (register STATUS)."""

    NONE = 0
    HEADER = 1
    """The program's header is not one of this version."""
    HARDWARE = 2
    """The program was made for another configuration."""
    OPCODE = 3
    """Illegal instruction: unknown, reserved, a loop that is none, or columns in no whole blocks."""
    ADDRESS = 4
    """An address is outside the image or not aligned to the bus."""
    READ = 5
    """The bus answered a read with an error."""
    WRITE = 6
    """The bus answered a write with an error."""
    ENGINE = 7
    """The matrix engine found weights that do not match their header, or refused the product."""
    TIMEOUT = 8
    """Nothing moved for 2^20 cycles: instructions wait for what never comes, or loops run without any."""


WAITS = ("loads", "matrix", "products", "norms")
"""Classes of instructions that others wait for: LOADs, products through the array, products whose results are in
memory or in the softmax, NORMs."""
WAIT_BITS = 6
NO_WAIT = (1 << WAIT_BITS) - 1
"""From so many of a class on that may still be under way there is nothing to wait for: there are never more."""
UNIT_WAITS: Mapping[str, tuple[str, ...]] = {
    "loads": ("matrix", "products", "norms"),
    "windows": ("products", "norms"),
    "matrix": ("loads",),
    "norms": ("products", "norms"),
}
"""Of each unit that instructions wait for others in, the classes that it looks at."""
COUNTED: Mapping[str, tuple[Opcode, ...]] = {
    "loads": (Opcode.LOAD,),
    "matrix": (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT),
    "products": (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT),
    "norms": (Opcode.NORM,),
}
"""Which instructions each class has; of products only those that are not `unfinished`."""
