"""A cycle model of the accelerator: follows a program's instructions, not its data.

Each unit is a small state machine; transfers are flows whose rates change only at events. The channels
are shared as in rtl/dma.py. Constants are latencies read off the RTL, none is fitted.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from ..config import Config
from ..isa import Instruction, Opcode, Result, Target

__all__ = ["MachineTiming", "estimate_cycles"]

_EPSILON = 1e-6
_INSTRUCTION_BYTES = 64
_AHEAD = 16
"""Instructions a unit's queue holds."""


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
class _Flow:
    """Beats to move; `peak` is the most per cycle."""

    left: float
    start: float
    peak: float = 1.0
    rate: float = 0.0


@dataclass
class _Pass:
    """A window load and the computation on it."""

    product: _Product
    beats: float
    cycles: float
    final: bool
    arrived: float = 0.0  # beats in the feed's queue or beyond
    accepted: float = 0.0
    loaded: bool = False


@dataclass
class _Product:
    """A product under way."""

    instruction: Instruction
    passes: list[_Pass] = field(default_factory=list)
    window_clear: float = math.inf
    columns: int = 0


class _Machine:
    def __init__(self, program: list[Instruction], config: Config, timing: MachineTiming) -> None:
        self.config, self.timing = config, timing
        self.now = 0.0
        self.done = {"loads": 0, "matrix": 0, "products": 0, "norms": 0}
        self.program = deque(i for i in program if i.opcode != Opcode.HALT)
        self.fetch_beats = _INSTRUCTION_BYTES / config.bus_bytes
        self.fetched = 0.0  # instructions on chip
        self.fetch = _Flow(len(self.program) * self.fetch_beats, timing.first_beat * 2)
        # Units' queues.
        self.loads: deque[Instruction] = deque()
        self.windows: deque[_Product] = deque()
        self.matrix: deque[_Product] = deque()
        self.norms: deque[Instruction] = deque()
        # Loader.
        self.load: _Flow | None = None
        self.load_end = 0.0
        # Windows and engine.
        self.feed: deque[_Pass] = deque()  # asked for, not all arrived
        self.fill: deque[_Pass] = deque()  # arriving or arrived, not all in a bank
        self.banks = 0  # filled or in use
        self.ready: deque[_Pass] = deque()
        self.computing: _Pass | None = None
        self.compute_end = math.inf
        self.engine_free = 0.0
        # Results: what the ring and the drain hold.
        self.drain: deque[tuple[_Product, float]] = deque()  # product, when its first results are there
        self.drained: _Flow | None = None
        self.residual: _Flow | None = None
        self.waiting_columns = 0.0
        # (time, counter) of completions under way.
        self.events: list[tuple[float, str]] = []
        # Softmax.
        self.blocks: deque[float] = deque()  # when probabilities may flow
        self.softmax_free = 0.0
        # Norm.
        self.sums: _Flow | None = None
        self.sums_for: Instruction | None = None
        self.sums_ready = math.inf
        self.normalizing: _Flow | None = None
        self.reading_again = False

    # -- units -------------------------------------------------------------------------------------

    def dispatch(self) -> bool:
        """Give instructions on chip to their units' queues, in order."""
        moved = False
        while self.program and self.fetched >= 1 - _EPSILON:
            i = self.program[0]
            if i.opcode == Opcode.LOAD:
                if len(self.loads) >= _AHEAD:
                    break
                self.loads.append(i)
            elif i.opcode == Opcode.NORM:
                if len(self.norms) >= _AHEAD:
                    break
                self.norms.append(i)
            else:
                if len(self.matrix) >= _AHEAD:
                    break
                product = self.product(i)
                self.windows.append(product)
                self.matrix.append(product)
            self.program.popleft()
            self.fetched -= 1
            moved = True
        return moved

    def product(self, i: Instruction) -> _Product:
        """A product's passes."""
        passes = i["passes"]
        steps = i["depth"] // (1 << i["m_log2"]) * i["n"]
        product = _Product(i, columns=i["columns"])
        for number in range(passes):
            last = number == passes - 1
            cycles = i["columns"] * steps + (5 if i["columns"] < 5 and not last else 0)
            product.passes.append(_Pass(product, i["window_beats"] / passes, cycles, last and not i["unfinished"]))
        return product

    def clear(self, i: Instruction, *counters: str) -> bool:
        """Whether the counts an instruction waits for are reached."""
        return all(self.done[c] >= i[f"wait_{c}"] for c in counters)

    def step_loader(self) -> bool:
        if self.load is None and self.loads and self.now >= self.load_end - _EPSILON:
            i = self.loads[0]
            if self.clear(i, "matrix", "products", "norms"):
                width = {
                    Target.VALUES: self.config.groups, Target.POSITIONS: self.config.groups * self.config.window // 8,
                    Target.PARAMETERS: 16, Target.TABLE: 2,
                }[Target(i["target"])]  # fmt: skip
                peak = min(1.0, width / self.config.bus_bytes, i["beats"] / 5)
                self.load = _Flow(i["beats"] * i["rows"], self.now + self.timing.first_beat, peak)
                return True
        if self.load is not None and self.load.left <= _EPSILON:
            self.load, self.load_end = None, self.now + 6
            self.loads.popleft()
            self.done["loads"] += 1
            return True
        return False

    def step_windows(self) -> bool:
        moved = False
        if self.windows:
            product = self.windows[0]
            i = product.instruction
            if len(self.feed) + len(self.fill) < 4 * len(product.passes) + 4 and self.clear(i, "products", "norms"):
                self.windows.popleft()
                from_memory = i.opcode != Opcode.CONTEXT
                product.window_clear = self.now + (self.timing.first_beat if from_memory else 0)
                self.feed.extend(product.passes if from_memory else [])
                self.fill.extend(product.passes)
                moved = True
        while self.feed and self.feed[0].arrived >= self.feed[0].beats - _EPSILON:
            self.feed.popleft()
            moved = True
        if self.fill and self.fill[0].accepted >= self.fill[0].beats - _EPSILON:
            done = self.fill.popleft()
            self.banks += 1
            self.ready.append(done)
            if done.product.instruction.opcode == Opcode.CONTEXT:
                self.blocks.popleft()
            moved = True
        return moved

    def step_engine(self) -> bool:
        if self.computing is not None and self.now >= self.compute_end - _EPSILON:
            if self.computing.final and self.undrained() > self.config.columns + _EPSILON:
                return False  # the ring is full
            done, self.computing = self.computing, None
            self.banks -= 1
            self.engine_free = self.now
            if done is done.product.passes[-1]:
                self.matrix.popleft()
                self.done["matrix"] += 1
                self.engine_free += 3
            return True
        if self.computing is None and self.ready and self.now >= self.engine_free - _EPSILON:
            head = self.ready[0]
            product = head.product
            if product is not self.matrix[0] or not self.clear(product.instruction, "loads"):
                return False
            self.ready.popleft()
            self.computing = head
            # An array that stood idle takes the time from the queues to the first beat.
            idle = head is product.passes[0] and self.now > self.engine_free + 1
            start = self.now + (10 if idle else 0)
            self.compute_end = start + head.cycles
            if head.final:
                self.waiting_columns += product.columns
                per_column = head.cycles / product.columns
                self.drain.append((product, start + per_column + 24))
            return True
        return False

    def step_results(self) -> bool:
        cfg = self.config
        if self.drained is None and self.drain and self.now >= self.drain[0][1] - _EPSILON:
            product = self.drain[0][0]
            i = product.instruction
            beats = product.columns * cfg.rows / cfg.drain_lanes
            self.drained = _Flow(beats, self.now, 1.0)
            if i.opcode == Opcode.PRODUCT and i["result"] == Result.RESIDUAL:
                self.residual = _Flow(
                    product.columns * cfg.rows * 2 / cfg.bus_bytes, self.now + self.timing.first_beat, 1.0
                )
            return True
        if self.drained is not None and self.drained.left <= _EPSILON and self.residual_over():
            computing = self.computing
            product = self.drain[0][0]
            if computing is not None and computing.product is product and self.now < self.compute_end + 20:
                self.drained.left = min(1.0, 0.0)
                self.drained.start = self.compute_end + 24
                if self.now < self.drained.start - _EPSILON:
                    return False
            self.drain.popleft()
            self.drained, self.residual = None, None
            self.waiting_columns -= product.columns
            i = product.instruction
            if i.opcode == Opcode.SCORES:
                begin = max(self.now, self.softmax_free) + cfg.rows / cfg.lanes + 14
                self.blocks.append(begin)
                self.softmax_free = begin + product.columns * cfg.rows / cfg.lanes + 8 + cfg.rows
                self.events.append((self.now, "products"))
            else:
                self.events.append((self.now + self.timing.written(cfg), "products"))
            return True
        return False

    def undrained(self) -> float:
        """Result columns in the ring."""
        if self.drained is None:
            return self.waiting_columns
        gone = self.drained.left * self.config.drain_lanes / self.config.rows
        return self.waiting_columns - (self.drain[0][0].columns - gone)

    def residual_over(self) -> bool:
        return self.residual is None or self.residual.left <= _EPSILON

    def step_norm(self) -> bool:
        cfg = self.config
        if self.sums is None and self.sums_for is None and self.norms and not self.reading_again:
            i = self.norms[0]
            if self.clear(i, "products", "norms"):
                self.norms.popleft()
                self.sums_for = i
                self.sums = _Flow(i["width"] * cfg.rows * 2 / cfg.bus_bytes, self.now + self.timing.first_beat + 3)
                self.sums_ready = math.inf
                return True
        if self.sums is not None and self.sums.left <= _EPSILON and self.sums_ready == math.inf:
            self.sums = None
            self.sums_ready = self.now + 10 + 32 * cfg.rows + 20
            return True
        if self.sums_for is not None and self.normalizing is None and self.now >= self.sums_ready - _EPSILON:
            i = self.sums_for
            beats = i["width"] * cfg.rows * 3 / cfg.bus_bytes
            self.normalizing = _Flow(beats, self.now + self.timing.first_beat, 0.97)
            self.reading_again = i["width"] > cfg.norm_columns
            self.sums_ready = math.inf
            self.sums_for = None
            return True
        if self.normalizing is not None and self.normalizing.left <= _EPSILON:
            self.normalizing, self.reading_again = None, False
            self.events.append((self.now + 2 * cfg.burst + self.timing.written(cfg), "norms"))
            return True
        return False

    def step_events(self) -> bool:
        due = [e for e in self.events if e[0] <= self.now + _EPSILON]
        for event in due:
            self.events.remove(event)
            self.done[event[1]] += 1
        return bool(due)

    # -- flows -------------------------------------------------------------------------------------

    def window_flow(self) -> tuple[float, float]:
        """Demand of the window feed on the bus, and the rate at which a bank fills."""
        accept = 0.0
        fill = self.fill[0] if self.fill else None
        if fill is not None and self.banks < 2:
            if fill.product.instruction.opcode == Opcode.CONTEXT:
                accept = 1.0 if self.blocks and self.now >= self.blocks[0] - _EPSILON else 0.0
            else:
                accept = 1.0
        held = sum(p.arrived - p.accepted for p in self.fill if p.product.instruction.opcode != Opcode.CONTEXT)
        demand = 0.0
        if self.feed and self.now >= self.feed[0].product.window_clear - _EPSILON:
            depth = max(2 * self.config.burst, 512)
            demand = 1.0 if held < depth - _EPSILON else (accept if fill and fill.arrived > fill.accepted else 0.0)
        return demand, accept

    def rates(self) -> tuple[float, float]:
        """Share the channels; returns what windows get, and the fill rate."""
        free = self.timing.beats_per_cycle

        def wanted(flow: _Flow | None) -> float:
            on = flow is not None and flow.left > _EPSILON and self.now >= flow.start - _EPSILON
            return flow.peak if flow is not None and on else 0.0

        # Instructions are fetched until their queues are full.
        self.fetch.rate = min(wanted(self.fetch), free) if self.fetched < 4 else 0.0
        free -= self.fetch.rate
        demand, accept = self.window_flow()
        again = 0.0
        if self.reading_again and self.normalizing is not None and self.now >= self.normalizing.start - _EPSILON:
            # Two beats are read again for every three that are written.
            again = self.normalizing.peak * 2 / 3
        flows = (None, self.residual, self.sums, None, self.load)
        demands = [demand, wanted(self.residual), wanted(self.sums), again, wanted(self.load)]
        rates = _shares(demands, free)
        for flow, rate in zip(flows, rates, strict=True):
            if flow is not None:
                flow.rate = rate
        window = rates[0]
        # The write channel. A burst and its address take a cycle more than its beats.
        cfg = self.config
        writes = self.timing.beats_per_cycle * cfg.burst / (cfg.burst + 1)
        normalizing = wanted(self.normalizing)
        if self.drained is not None:
            i = self.drain[0][0].instruction
            wide = i.opcode == Opcode.PRODUCT and i["result"] in (Result.STORE16, Result.RESIDUAL)
            per_step = 0.0 if i.opcode == Opcode.SCORES else (1 + wide) * cfg.drain_lanes / cfg.bus_bytes
            rate = self.drained.peak if self.drained.left > _EPSILON else 0.0
            if self.residual is not None and self.residual.left > _EPSILON:
                rate = min(rate, self.residual.rate * cfg.bus_bytes / (2 * cfg.drain_lanes))
            if per_step:
                results, normalizing = _shares([rate * per_step, normalizing], writes)
                rate = results / per_step
            self.drained.rate = rate
        if self.normalizing is not None:
            self.normalizing.rate = min(normalizing, writes)
        if self.fill and self.fill[0].product.instruction.opcode != Opcode.CONTEXT:
            head = self.fill[0]
            if head.arrived <= head.accepted + _EPSILON:
                accept = min(accept, window)
        return window, accept

    def advance(self, window: float, accept: float) -> None:
        """Go to the next event."""
        flows = [f for f in (self.fetch, self.load, self.residual, self.sums, self.normalizing, self.drained) if f]
        times = [self.now + f.left / f.rate for f in flows if f.rate > 0]
        times += [f.start for f in flows if f.start > self.now + _EPSILON]
        if self.fetch.rate:
            times.append(
                self.now + max(_EPSILON, (math.floor(self.fetched + _EPSILON) + 1 - self.fetched)) * self.fetch_beats
            )
        if self.computing is not None:
            times.append(self.compute_end)
            over = self.undrained() - self.config.columns
            if over > 0 and self.drained is not None and self.drained.rate > 0:
                times.append(self.now + over * self.config.rows / self.config.drain_lanes / self.drained.rate)
        if self.engine_free > self.now + _EPSILON:
            times.append(self.engine_free)
        if self.load_end > self.now + _EPSILON:
            times.append(self.load_end)
        if self.sums_ready > self.now + _EPSILON:
            times.append(self.sums_ready)
        times += [t for t, _ in self.events]
        times += [t for t in list(self.blocks)[:1] if t > self.now + _EPSILON]
        times += [t for _, t in list(self.drain)[:1] if t > self.now + _EPSILON]
        times += [p.product.window_clear for p in list(self.feed)[:1] if p.product.window_clear > self.now + _EPSILON]
        if window > 0:
            head = self.feed[0]
            times.append(self.now + (head.beats - head.arrived) / window)
            depth = max(2 * self.config.burst, 512)
            held = sum(p.arrived - p.accepted for p in self.fill if p.product.instruction.opcode != Opcode.CONTEXT)
            if window > accept and held < depth:
                times.append(self.now + (depth - held) / (window - accept))
        if accept > 0:
            head = self.fill[0]
            times.append(self.now + (head.beats - head.accepted) / accept)
            if head.arrived > head.accepted and accept > window and head.product.instruction.opcode != Opcode.CONTEXT:
                times.append(self.now + (head.arrived - head.accepted) / (accept - window))
        times = [t for t in times if t > self.now + _EPSILON / 10 and t < math.inf]
        if not times:
            raise RuntimeError(f"the cycle model stands still at {self.now:.0f}")
        then = min(times)
        gone = then - self.now
        for flow in flows:
            flow.left = max(0.0, flow.left - flow.rate * gone)
        self.fetched += self.fetch.rate * gone / self.fetch_beats
        if window > 0:
            self.feed[0].arrived += window * gone
        if accept > 0:
            self.fill[0].accepted += accept * gone
        self.now = then

    def run(self) -> float:
        steps = (
            self.step_events, self.dispatch, self.step_loader, self.step_windows, self.step_engine,
            self.step_results, self.step_norm,
        )  # fmt: skip
        while True:
            while any([step() for step in steps]):
                pass
            busy = self.program or self.loads or self.matrix or self.norms or self.events or self.drain
            if not (busy or self.load or self.sums_for or self.normalizing):
                return self.now
            self.advance(*self.rates())


def _shares(demands: list[float], free: float) -> list[float]:
    """What each client of a channel gets: earlier ones go first, but none twice while another waits."""
    rates = [0.0] * len(demands)
    for most in (free / 2, free):
        for i, demand in enumerate(demands):
            more = min(demand, most) - rates[i]
            more = max(0.0, min(more, free - sum(rates)))
            rates[i] += more
    return rates


def estimate_cycles(program: list[Instruction], config: Config, timing: MachineTiming | None = None) -> float:
    """Cycles from start to the end of a program.

    Parameters
    ----------
    program : list of Instruction
        Only shapes and dependencies are looked at.
    """
    return _Machine(program, config, timing or MachineTiming()).run()
