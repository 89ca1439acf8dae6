"""The state of the cycle model: what each unit of the accelerator has in hand."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..spec.config import Config
from ..spec.isa import FORMATS, WAITS, Instruction, Opcode, Result
from .timing import BEST_BYTES, Latencies, MachineTiming

__all__ = ["EPSILON", "Flow", "Pass", "Product", "State", "WriteQueue"]

EPSILON = 1e-6


Until = Mapping[str, int]
"""Of each class, the count of finished instructions at which one may go."""


@dataclass(slots=True)
class Flow:
    """Beats to move from `start` on; `peak` is the most per cycle; `asked` is when they were asked for.

    They are runs of `run` beats each; infinity: one run. A LOAD is `wide` if its words are wider than the bus.
    """

    left: float
    start: float
    peak: float = 1.0
    rate: float = 0.0
    asked: float = -math.inf
    run: float = math.inf
    wide: bool = False


@dataclass(slots=True)
class Pass:
    """A window load and the computation on it."""

    product: Product
    beats: float
    cycles: float
    final: bool
    arrived: float = 0.0  # beats in the feed's queue or beyond
    accepted: float = 0.0
    ready: float = math.inf  # when the array may begin


@dataclass(slots=True)
class Product:
    """A product under way.

    Attributes
    ----------
    queued : float
        When the units may take it.
    window_clear, window_asked : float
        When its window's first beat may come, and when it was asked for.
    commanded : float
        When its windows may go into a bank: the engine has taken it.
    first_beat : float
        When its first weights are at the array's gate.
    computed : float
        When its last beat has passed.
    came : float
        When its first results come from the array.
    from_memory, from_softmax : bool
        Where its windows come from; if from neither, they were kept.
    totals : float
        CONTEXT: when its results may be divided.
    weight : float
        How many products it stands for.
    """

    instruction: Instruction
    columns: int
    queued: float
    weight: float
    until: Until
    from_memory: bool
    from_softmax: bool
    passes: list[Pass] = field(default_factory=list)
    window_clear: float = math.inf
    window_asked: float = -math.inf
    commanded: float = math.inf
    first_beat: float = math.inf
    computed: float = math.inf
    came: float = math.inf
    totals: float = 0.0


@dataclass(slots=True)
class WriteQueue:
    """A client of the write channel.

    Attributes
    ----------
    put, sent : float
        Beats that may be sent, that were.
    held : float
        Beats on their way to the queue, or in it without the rest of their burst: it is sent when all of it is there.
    most_held : float
        How many of the run that comes in are.
    last : float
        Beats of its last burst.
    inflow, outflow : float
        Beats a cycle.
    releases : deque
        (time, beats, halves) of last bursts on their way.
    marks : deque
        (`sent` at which a run is over, halves of its instruction's completion that are still to come).
    """

    put: float = 0.0
    sent: float = 0.0
    held: float = 0.0
    most_held: float = 0.0
    last: float = 0.0
    inflow: float = 0.0
    outflow: float = 0.0
    releases: deque[tuple[float, float, list[int]]] = field(default_factory=deque)
    marks: deque[tuple[float, list[int]]] = field(default_factory=deque)

    @property
    def level(self) -> float:
        """Beats that may be sent."""
        return self.put - self.sent

    def begin(self, beats: float, burst: int, on_the_way: float) -> None:
        """A run of so many beats begins to come in; runs lie at burst boundaries."""
        self.last = (beats - 1) % burst + 1
        self.most_held = self.last + on_the_way

    def end(self, time: float, halves: list[int]) -> None:
        """All of it has come in; its last burst is there at `time`."""
        self.put += max(0.0, self.held - self.last)
        self.releases.append((time, min(self.last, self.held), halves))
        self.held = self.most_held = 0.0

    def move(self, gone: float) -> None:
        """Let time pass."""
        came = self.inflow * gone
        waits = min(came, max(0.0, self.most_held - self.held))
        self.held += waits
        self.put += came - waits
        self.sent = min(self.put, self.sent + self.outflow * gone)


class State:
    """Units, queues and flows of a program under way, from its start."""

    def __init__(
        self, program: Iterable[tuple[Instruction, int, float]], config: Config, timing: MachineTiming
    ) -> None:
        self.config, self.timing = config, timing
        self.latencies = latencies = Latencies(config, timing)
        self.now = 0.0
        self.soon = math.inf  # the next time at which a unit that waits may go on
        self.done = dict.fromkeys(WAITS, 0)
        self.issued = dict.fromkeys(WAITS, 0)
        # Instructions, the beats that are read for each, how many it stands for.
        self.program = deque((i, words * latencies.word_beats, weight) for i, words, weight in program)
        # The memory: beats it has saved up in each direction, or in both together, and what they take.
        self.credits = [0.0] * (1 if timing.shared else 2)
        self.used = [0.0] * len(self.credits)
        # Fetch: beats on chip, and when the next instruction may be given.
        beats = sum(beats for _, beats, _ in self.program)
        self.fetch = Flow(beats, latencies.program, latencies.line_rate, run=latencies.line_beats)
        self.fetched = 0.0
        self.fetching = True
        # One word a cycle is passed on, also where a beat has more.
        self.next_dispatch: float = latencies.program + (len(FORMATS[self.program[0][0].opcode]) if self.program else 0)
        self.halted: float = latencies.line_read
        # Units' queues, with the time from which the instruction may be taken.
        self.loads: deque[tuple[Instruction, float, Until]] = deque()
        self.windows: deque[Product] = deque()
        self.orders: deque[Product] = deque()
        self.norms: deque[tuple[Instruction, float, float, Until]] = deque()
        self.results_queued = 0
        # Loader.
        self.load: Flow | None = None
        self.next_loads: deque[Flow] = deque()  # asked for while the one before still comes
        self.load_free = 0.0
        # Windows and engine.
        self.windows_free = self.fill_free = 0.0
        self.feed: deque[Pass] = deque()  # asked for, not all arrived
        self.fill: deque[Pass] = deque()  # arriving or arrived, not all in a bank
        self.window_products = 0
        self.window_refill = 0.0  # when a queue that was full is filled again
        self.banks = 0  # filled or in use
        self.matrix: deque[Product] = deque()  # with the engine
        self.ready: deque[Pass] = deque()
        self.computing: Pass | None = None
        self.compute_end = math.inf
        self.engine_free = 0.0
        # Results: what the ring and the drain hold.
        self.drain: deque[tuple[Product, float, float]] = deque()  # product, its first results, most per cycle
        self.drained: Flow | None = None
        self.results_free = 0.0
        self.residual: Flow | None = None
        self.residual_held = 0.0
        self.waiting_columns = 0.0
        self.stores = WriteQueue()
        # (time, counter) of completions under way.
        self.events: list[tuple[float, str]] = []
        # Softmax.
        self.scored: deque[float] = deque()  # when the first probabilities of blocks may come
        self.streaming = math.inf
        self.softmax_free = 0.0
        # LayerNorm.
        self.norm_free = 0.0
        self.sums: Flow | None = None
        self.sums_for: Instruction | None = None
        self.sums_ready = math.inf
        self.norm_weight = 1.0
        self.normalizing: Flow | None = None
        self.parameters: Flow | None = None
        self.again: Flow | None = None
        self.again_held = 0.0
        self.wide, self.narrow = WriteQueue(), WriteQueue()
        # Time that the instructions followed stand for beyond their own.
        self.extra = 0.0
        self.last_end = 0.0

    def clear(self, until: Until, *counters: str) -> bool:
        """Whether the counts an instruction waits for are reached."""
        return all(self.done[c] >= until[c] for c in counters)

    def reached(self, time: float) -> bool:
        """Whether it is `time`; if not, it is looked at again then."""
        if self.now >= time - EPSILON:
            return True
        self.soon = min(self.soon, time)
        return False

    def undrained(self) -> float:
        """Result columns in the ring."""
        if self.drained is None:
            return self.waiting_columns
        return self.waiting_columns - self.drain[0][0].columns + self.drained.left / self.latencies.parts

    def waiting_results(self) -> float:
        """Beats of results that came from the array before those that are drained now."""
        if self.drained is None:
            return 0.0
        product, _, most = self.drain[0]
        beats = product.columns * self.latencies.parts
        return min(beats, (self.now - product.came) * most) - (beats - self.drained.left)

    def store_beats(self, i: Instruction) -> float:
        """Bus beats that a beat of results becomes."""
        if i.opcode == Opcode.SCORES:
            return 0.0
        if i["result"] == Result.BEST:
            listed = BEST_BYTES * self.config.rows / self.config.bus_bytes
            return listed * i["row_last"] / (i["columns"] * self.latencies.parts)
        wide = i.opcode == Opcode.PRODUCT and (i["result"] in (Result.STORE16, Result.RESIDUAL) or bool(i["bits15"]))
        return (1 + wide) * self.config.drain_lanes / self.config.bus_bytes / (1 + i["multiply"])
