"""Where a decoder's values lie: buffers of a pass's row tiles, caches of all, and registers that a position gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...model.families.decoders import NEXT
from ...model.operations import Activate, Attention, Embed, Linear, Multiply, RmsNorm
from ...spec.config import Config
from ...spec.expansion import TILE_REGISTER, TILES_REGISTER
from ...spec.isa import REGISTERS, Instruction, Opcode
from ..buffers import Buffer
from ..image import Image
from ..lower.state import EncodedWeights, Lowering
from .integers import IntegerDecoderGraph
from .likeliest import LISTED
from .slots import SlotValue

__all__ = [
    "BEST", "CONTEXT", "INNER", "KEYS", "KEYS_NORMED", "KEYS_WIDE", "LOGITS", "NARROW", "QUERY", "QUERY_NORMED",
    "QUERY_WIDE", "STREAM", "UNUSED", "Keys", "Room",
]  # fmt: skip

STREAM, NARROW, CONTEXT, INNER, QUERY, LOGITS = "stream", "narrow", "context", "inner", "query", "logits"
BEST = "best"
"""Lists of the largest logits, where a program gives no others."""
KEYS = "keys"
"""Keys as queries lie, until they are put into the order of weights."""
QUERY_WIDE, KEYS_WIDE, QUERY_NORMED, KEYS_NORMED = "query_wide", "keys_wide", "query_normed", "keys_normed"
"""Ahead of norms of heads, and behind them."""
UNUSED = "unused"
"""What norms give besides, which nobody reads."""
_REGISTERS = 11
"""Those below `TILE_REGISTER` that begin at 0."""


class _SharedImage(Image):
    """What was added once lies there for all programs."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._there: dict[tuple[str, bytes, int], int] = {}

    def add(self, data: NDArray, count: int = 0, name: str = "") -> int:
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        key = name, hashlib.sha256(raw.tobytes()).digest(), count
        if key not in self._there:
            self._there[key] = super().add(data, count, name)
        return self._there[key]


@dataclass(frozen=True)
class Keys:
    """The keys that a program's attention goes over.

    Attributes
    ----------
    limits : tuple of int
        How many each row tile of the pass looks at: those from number 0 on.
    before : int
        So many were there before the pass, at least.
    """

    limits: tuple[int, ...]
    before: int


class Room(Lowering):
    """Buffers of a pass's row tiles, caches of all, and what a program is made of.

    Parameters
    ----------
    context_tiles, most : int
        Row tiles of the context, and of a pass at most.
    sequences : int
        So many have keys and values of their own.

    Attributes
    ----------
    keys : Keys
        That the program's attention goes over.
    caches : set of str
        Keys and values, whose buffers have a place for each tile.
    caches_at, cache_bytes : int
        Where the first sequence's lie, and how far it is from one sequence's to the next one's.
    batch : bool
        Whether the program's row tile holds a token of each sequence; else all of its row tiles are of one, that
        register `cache_register` tells from others.
    turns : list of (int, float32 array)
        Of a batch: where its rows' cosines and sines lie, which the host writes, and of which frequencies.
    values_of_slots : list of SlotValue
        What a batch's program names as registers.
    """

    rest_apart = True

    def __init__(
        self, of: IntegerDecoderGraph, config: Config, context_tiles: int, most: int, *, best: bool = False,
        sequences: int = 1,
    ) -> None:  # fmt: skip
        self.of, self.graph, self.config = of, of.graph, config
        self.encoded = EncodedWeights(config)
        stack = config.value_rows // config.rows
        # A pass's last tiles may lie behind the context, where nobody looks at what they leave.
        self.context_tiles = -(-(context_tiles + most - 1) // stack) * stack
        self.tokens, self.tiles, self._most = config.rows, 1, most
        self.image = _SharedImage(config)
        self.steps, self.groups, self.layers, self.values = [], [], [], {}
        self._names = self.words_before = 0
        self.weight = self.chunk_weight = 1.0
        self.places: dict[str, Buffer] = {}
        self.buffers: dict[str, int] = {}
        self.caches: set[str] = set()
        self.keys = Keys((0,), 0)
        self.sequences, self.batch = sequences, False
        self.turns: list[tuple[int, NDArray[np.float32]]] = []
        self.values_of_slots: list[SlotValue] = []
        self._registers: dict[tuple[int, bool], int] = {}
        self._stacks: dict[int, list[int]] = {}
        self._last_tile: dict[int, int] = {}
        self._looks_at_last = False
        self._cache_register = self._used = 0  # registers
        self.forget_windows()
        self._reserve_all(BEST if best else LOGITS)

    def _reserve_all(self, given: str) -> None:
        graph = self.graph

        def widest(names: list[str]) -> int:
            return max((int(graph.shapes[n][-1]) for n in names), default=0)

        attentions = [o for o in graph.operations if isinstance(o, Attention)]
        width = widest([o.name for o in graph.operations if isinstance(o, Embed)])
        inner = widest([o.name for o in graph.operations if isinstance(o, Activate)])
        queries, keys = (widest([o.inputs[i] for o in attentions]) for i in (0, 1))
        normed = any(isinstance(o, RmsNorm) and not self._of_stream(o) for o in graph.operations)
        sizes = {
            STREAM: (width, 2), UNUSED: (max(width, queries, keys), 2), NARROW: (width, 1), QUERY: (queries, 1),
            KEYS: (keys, 1), CONTEXT: (queries, 1), INNER: (inner, 1),
            given: (LISTED, 8) if given == BEST else (widest([NEXT]), 2),
        }  # fmt: skip
        if normed:
            sizes |= {
                QUERY_WIDE: (queries, 2),
                KEYS_WIDE: (keys, 2),
                QUERY_NORMED: (queries, 1),
                KEYS_NORMED: (keys, 1),
            }
        # Where some values of such a buffer have 15 bits.
        for o in graph.operations:
            if self.of.widths.get(o.name) == 15:
                kind = CONTEXT if isinstance(o, Attention) else INNER if isinstance(o, Activate | Multiply) else NARROW
                sizes[self.taken(kind, o.name)] = sizes[kind][0], 2
        for name, (columns, size) in sizes.items():
            self._reserve(name, columns, size, 1 if name in (BEST, LOGITS, UNUSED) else self._most)
        self.caches_at = self.image.size
        for o in attentions:
            for name in o.inputs[1:]:
                self._reserve(name, int(graph.shapes[name][-1]), 1, self.context_tiles)
                self.caches.add(name)
        self.cache_bytes = self.image.size - self.caches_at
        if self.sequences > 1:
            self.image.reserve((self.sequences - 1) * self.cache_bytes, "keys and values of other sequences")

    def taken(self, buffer: str, value: str) -> str:
        """The buffer that products take a value from: of 8 bits, or of 15 in 16."""
        return f"{buffer}, 15 bits" if self.of.widths[value] == 15 else buffer

    def _of_stream(self, o: RmsNorm) -> bool:
        """Whether a norm is not one of heads."""
        return not isinstance(self.graph.by_name[o.inputs[0]], Linear)

    def _reserve(self, name: str, width: int, size: int, tiles: int) -> None:
        # Windows of the last tile may be read up to a whole pass beyond its end.
        slack = self.config.groups * self.config.window * self.config.rows * size
        self.places[name] = Buffer(name, width, size)
        self.buffers[name] = self.image.reserve(tiles * self.config.rows * width * size + slack, f"buffer {name}")

    def begin(self, keys: Keys, *, batch: bool = False) -> None:
        """The next program, for as many row tiles as `keys` has limits, or for a batch's one."""
        self.keys, self.tiles, self.batch = keys, len(keys.limits), batch
        self._looks_at_last = False
        self.steps, self.groups, self.layers = [], [], []
        self.words_before = 0
        self.forget_windows()

    def _free_register(self) -> int:
        if self._used == _REGISTERS:
            raise InputError(
                f"{self.graph.name}: its layers' keys and values have more different widths than the {_REGISTERS} "
                "registers hold strides of."
            )
        self._used += 1
        return self._used

    @property
    def shares(self) -> list[tuple[int, int]]:
        """Whose rows attention is computed for, one after the other: row tile, and the sequence's number or slot."""
        return [(0, slot) for slot in range(self.sequences)] if self.batch else [(t, 0) for t in range(self.tiles)]

    def of_slot(self, value: SlotValue) -> int:
        """The number that a batch's instructions have for a register that holds it (`slots.with_registers`)."""
        if value not in self.values_of_slots:
            self.values_of_slots.append(value)
        return REGISTERS + self.values_of_slots.index(value)

    @property
    def cache_register(self) -> int:
        """The register of the sequence's first byte of keys and values, from the first one's on; 0 if there is one."""
        if self.sequences == 1 or self.batch:
            return 0
        if not self._cache_register:
            self._cache_register = self._free_register()
        return self._cache_register

    def by_stack(self, stride: int, tile: int) -> int:
        """The register of the values' place of a pass's tile, where stacks of row tiles are `stride` apart.

        Of that tile of a stack's, beginning with the pass's first; stacks between them are to be added.
        """
        each = self.config.value_rows // self.config.rows
        if each == 1:
            return self.by_tile(stride, cached=True)
        if stride not in self._stacks:
            # The places of so many tiles from this one on, and one register to move them in.
            self._stacks[stride] = [self._free_register() for _ in range(each + 1)]
        return self._stacks[stride][tile % each]

    def by_last_tile(self, stride: int) -> int:
        """The register that holds the pass's last row tile that counts, register LENGTH says which, times `stride`."""
        self._looks_at_last = True
        if stride not in self._last_tile:
            self._last_tile[stride] = self._free_register()
        return self._last_tile[stride]

    def by_tile(self, stride: int, *, cached: bool = False) -> int:
        """The register that holds the position's row tile times `stride`, behind where the `cached` of a sequence lie.

        Raises
        ------
        InputError
            If there are more strides than registers.
        """
        key = stride, cached and self.sequences > 1
        if key not in self._registers:
            self._registers[key] = self._free_register()
        return self._registers[key]

    def prologue(self) -> list[Instruction]:
        """What gives the registers their values, of as many turns as the position has row tiles before it, and one.

        Of several sequences the first instruction sets `cache_register` to 0, in whose place the host writes.
        """
        if not self._registers:
            return []
        rows, begin, turn = self.config.rows, [], []

        def set_to(number: int, value: int, register: int = 0) -> Instruction:
            value &= 0xFFFFFFFF
            return Instruction(Opcode.SET, {"destination": number, "value": value, "value_register": register})

        base = self.cache_register
        if base:
            begin.append(set_to(base, 0))
        for (stride, cached), number in self._registers.items():
            begin.append(set_to(number, -stride, base * cached))
            turn.append(set_to(number, stride, number))
        for stride, (*places, spare) in self._stacks.items():
            # A tile's place is that of as many tiles before as a stack has, and a stack more.
            begin.append(set_to(places[0], (len(places) - 1) * rows - stride, base))
            begin += [set_to(number, part * rows, base) for part, number in enumerate(places[1:])]
            turn.append(set_to(spare, stride, places[0]))
            moved = [*places, spare]
            turn += [set_to(to, 0, taken) for to, taken in pairwise(moved)]
        loop = Instruction(Opcode.LOOP, {"count": 1, "count_register": TILE_REGISTER})
        end = Instruction(Opcode.NEXT, {})
        found = [*begin, loop, *turn, end]
        if self._looks_at_last:
            found += [set_to(number, -stride) for stride, number in self._last_tile.items()]
            found.append(Instruction(Opcode.LOOP, {"count_register": TILES_REGISTER}))
            found += [*(set_to(number, stride, number) for stride, number in self._last_tile.items()), end]
        return found
