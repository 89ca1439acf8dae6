"""A cycle model of the accelerator: follows a program's instructions, not its data.

Each unit is a small state machine; transfers are flows whose rates change only at events (`flows`).
Constants are latencies read off the RTL, none is fitted.
"""

from __future__ import annotations

import math

from ..config import Config
from ..isa import Instruction, Opcode, Result, Target
from .flows import Flows
from .state import EPSILON, Flow, MachineTiming, Pass, Product

__all__ = ["estimate_cycles"]

_AHEAD = 16
"""Instructions a unit's queue holds."""


class _Machine(Flows):
    def dispatch(self) -> bool:
        """Give instructions on chip to their units' queues, in order."""
        moved = False
        while self.program and self.fetched >= 1 - EPSILON:
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

    def product(self, i: Instruction) -> Product:
        """A product's passes."""
        passes = i["passes"]
        steps = i["depth"] // (1 << i["m_log2"]) * i["n"]
        product = Product(i, columns=i["columns"])
        for number in range(passes):
            last = number == passes - 1
            cycles = i["columns"] * steps + (5 if i["columns"] < 5 and not last else 0)
            product.passes.append(Pass(product, i["window_beats"] / passes, cycles, last and not i["unfinished"]))
        return product

    def step_loader(self) -> bool:
        if self.load is None and self.loads and self.now >= self.load_end - EPSILON:
            i = self.loads[0]
            if self.clear(i, "matrix", "products", "norms"):
                width = {
                    Target.VALUES: self.config.groups, Target.POSITIONS: self.config.groups * self.config.window // 8,
                    Target.PARAMETERS: 16, Target.TABLE: 2,
                }[Target(i["target"])]  # fmt: skip
                peak = min(1.0, width / self.config.bus_bytes, i["beats"] / 5)
                self.load = Flow(i["beats"] * i["rows"], self.now + self.timing.first_beat, peak)
                return True
        if self.load is not None and self.load.left <= EPSILON:
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
        while self.feed and self.feed[0].arrived >= self.feed[0].beats - EPSILON:
            self.feed.popleft()
            moved = True
        if self.fill and self.fill[0].accepted >= self.fill[0].beats - EPSILON:
            done = self.fill.popleft()
            self.banks += 1
            self.ready.append(done)
            if done.product.instruction.opcode == Opcode.CONTEXT:
                self.blocks.popleft()
            moved = True
        return moved

    def step_engine(self) -> bool:
        if self.computing is not None and self.now >= self.compute_end - EPSILON:
            if self.computing.final and self.undrained() > self.config.columns + EPSILON:
                return False  # the ring is full
            done, self.computing = self.computing, None
            self.banks -= 1
            self.engine_free = self.now
            if done is done.product.passes[-1]:
                self.matrix.popleft()
                self.done["matrix"] += 1
                self.engine_free += 3
            return True
        if self.computing is None and self.ready and self.now >= self.engine_free - EPSILON:
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
        if self.drained is None and self.drain and self.now >= self.drain[0][1] - EPSILON:
            product = self.drain[0][0]
            i = product.instruction
            beats = product.columns * cfg.rows / cfg.drain_lanes
            self.drained = Flow(beats, self.now, 1.0)
            if i.opcode == Opcode.PRODUCT and i["result"] == Result.RESIDUAL:
                self.residual = Flow(
                    product.columns * cfg.rows * 2 / cfg.bus_bytes, self.now + self.timing.first_beat, 1.0
                )
            return True
        if self.drained is not None and self.drained.left <= EPSILON and self.residual_over():
            computing = self.computing
            product = self.drain[0][0]
            if computing is not None and computing.product is product and self.now < self.compute_end + 20:
                self.drained.left = min(1.0, 0.0)
                self.drained.start = self.compute_end + 24
                if self.now < self.drained.start - EPSILON:
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

    def step_norm(self) -> bool:
        cfg = self.config
        if self.sums is None and self.sums_for is None and self.norms and not self.reading_again:
            i = self.norms[0]
            if self.clear(i, "products", "norms"):
                self.norms.popleft()
                self.sums_for = i
                self.sums = Flow(i["width"] * cfg.rows * 2 / cfg.bus_bytes, self.now + self.timing.first_beat + 3)
                self.sums_ready = math.inf
                return True
        if self.sums is not None and self.sums.left <= EPSILON and self.sums_ready == math.inf:
            self.sums = None
            self.sums_ready = self.now + 10 + 32 * cfg.rows + 20
            return True
        if self.sums_for is not None and self.normalizing is None and self.now >= self.sums_ready - EPSILON:
            i = self.sums_for
            beats = i["width"] * cfg.rows * 3 / cfg.bus_bytes
            self.normalizing = Flow(beats, self.now + self.timing.first_beat, 0.97)
            self.reading_again = i["width"] > cfg.norm_columns
            self.sums_ready = math.inf
            self.sums_for = None
            return True
        if self.normalizing is not None and self.normalizing.left <= EPSILON:
            self.normalizing, self.reading_again = None, False
            self.events.append((self.now + 2 * cfg.burst + self.timing.written(cfg), "norms"))
            return True
        return False

    def step_events(self) -> bool:
        due = [e for e in self.events if e[0] <= self.now + EPSILON]
        for event in due:
            self.events.remove(event)
            self.done[event[1]] += 1
        return bool(due)

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


def estimate_cycles(program: list[Instruction], config: Config, timing: MachineTiming | None = None) -> float:
    """Cycles from start to the end of a program.

    Parameters
    ----------
    program : list of Instruction
        Only shapes and dependencies are looked at.
    """
    return _Machine(program, config, timing or MachineTiming()).run()
