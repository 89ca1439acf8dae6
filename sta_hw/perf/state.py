"""The state of the cycle model: what each unit of the accelerator has in hand."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from ..config import Config
from ..isa import Instruction, Opcode

__all__ = ["EPSILON", "Flow", "MachineTiming", "Pass", "Product", "State"]

EPSILON = 1e-6
_INSTRUCTION_BYTES = 64


@dataclass(frozen=True)
class MachineTiming:
    """Memory, and pipeline latencies in cycles."""

    latency: int = 50
    beats_per_cycle: float = 1.0

    @property
    def first_beat(self) -> float:
        """From a run's start to its first beat in the client's queue."""
        return self.latency + 12.0

    def written(self, config: Config) -> float:
        """From a run's last result at the drain to its completion in memory: packing, a burst, the answer."""
        return self.latency + config.burst + 46.0


@dataclass
class Flow:
    """Beats to move; `peak` is the most per cycle."""

    left: float
    start: float
    peak: float = 1.0
    rate: float = 0.0


@dataclass
class Pass:
    """A window load and the computation on it."""

    product: Product
    beats: float
    cycles: float
    final: bool
    arrived: float = 0.0  # beats in the feed's queue or beyond
    accepted: float = 0.0
    loaded: bool = False


@dataclass
class Product:
    """A product under way."""

    instruction: Instruction
    passes: list[Pass] = field(default_factory=list)
    window_clear: float = math.inf
    columns: int = 0


class State:
    """Units, queues and flows of a program under way, from its start."""

    def __init__(self, program: list[Instruction], config: Config, timing: MachineTiming) -> None:
        self.config, self.timing = config, timing
        self.now = 0.0
        self.done = {"loads": 0, "matrix": 0, "products": 0, "norms": 0}
        self.program = deque(i for i in program if i.opcode != Opcode.HALT)
        self.fetch_beats = _INSTRUCTION_BYTES / config.bus_bytes
        self.fetched = 0.0  # instructions on chip
        self.fetch = Flow(len(self.program) * self.fetch_beats, timing.first_beat * 2)
        # Units' queues.
        self.loads: deque[Instruction] = deque()
        self.windows: deque[Product] = deque()
        self.matrix: deque[Product] = deque()
        self.norms: deque[Instruction] = deque()
        # Loader.
        self.load: Flow | None = None
        self.load_end = 0.0
        # Windows and engine.
        self.feed: deque[Pass] = deque()  # asked for, not all arrived
        self.fill: deque[Pass] = deque()  # arriving or arrived, not all in a bank
        self.banks = 0  # filled or in use
        self.ready: deque[Pass] = deque()
        self.computing: Pass | None = None
        self.compute_end = math.inf
        self.engine_free = 0.0
        # Results: what the ring and the drain hold.
        self.drain: deque[tuple[Product, float]] = deque()  # product, when its first results are there
        self.drained: Flow | None = None
        self.residual: Flow | None = None
        self.waiting_columns = 0.0
        # (time, counter) of completions under way.
        self.events: list[tuple[float, str]] = []
        # Softmax.
        self.blocks: deque[float] = deque()  # when probabilities may flow
        self.softmax_free = 0.0
        # Norm.
        self.sums: Flow | None = None
        self.sums_for: Instruction | None = None
        self.sums_ready = math.inf
        self.normalizing: Flow | None = None
        self.reading_again = False

    def clear(self, i: Instruction, *counters: str) -> bool:
        """Whether the counts an instruction waits for are reached."""
        return all(self.done[c] >= i[f"wait_{c}"] for c in counters)

    def undrained(self) -> float:
        """Result columns in the ring."""
        if self.drained is None:
            return self.waiting_columns
        gone = self.drained.left * self.config.drain_lanes / self.config.rows
        return self.waiting_columns - (self.drain[0][0].columns - gone)

    def residual_over(self) -> bool:
        """Whether all of the residual has come."""
        return self.residual is None or self.residual.left <= EPSILON
