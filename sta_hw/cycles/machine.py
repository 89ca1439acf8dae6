"""A cycle model of the accelerator: follows a program's instructions, not its data.

Each unit is a small state machine; transfers are flows whose rates change only at events (`flows`). Every constant is
a latency or a depth of the RTL (`timing`); docs/cycles.md says what is modelled and how near it comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..rtl.engine.accumulator import HAZARD_CYCLES
from ..rtl.units.expander import Expander
from ..spec.config import Config
from ..spec.expansion import unroll
from ..spec.isa import COUNTED, FORMATS, Instruction, Opcode, Result, Target, ValueFormat
from ..spec.parameters import COLUMN, SHORT_COLUMN
from .flows import Flows
from .state import EPSILON, Flow, Pass, Product, Until
from .timing import MachineTiming

__all__ = ["estimate_cycles"]

_AHEAD = 17
"""Instructions a unit's queue holds (rtl/control/dispatch.py): 16, and one in its output register."""
_PRODUCTS_AHEAD = 6
"""Products of the window feed and of the engine (rtl/units/feeds.py, rtl/engine/engine.py): 4 in a queue, one in its
output register, one in work."""
_LOADS_AHEAD = 5
"""LOADs that are asked for ahead of the one whose words come (rtl/units/loader.py): 4 in a queue, one behind it."""
_BETWEEN = {0: 2, 1: 3, 2: 5}
"""Cycles between products at the decoder, by encoding (rtl/engine/decoder.py): CLOSE and IDLE; the first word of
positions; and for bitmaps the comparison that is still in its registers."""
_NEXT_WINDOW = 1
"""Cycles between the windows of two products (rtl/units/feeds.py, rtl/engine/windows.py)."""
_SHORT_PASS = HAZARD_CYCLES
"""Cycles a pass of fewer columns than that waits for its sums (rtl/engine/engine.py)."""


class _Machine(Flows):
    def step_dispatch(self) -> bool:
        """Give instructions on chip to their units' queues, in order."""
        moved = False
        while self.program and self.fetched >= self.program[0][1] - EPSILON and self.reached(self.next_dispatch):
            i, beats, weight = self.program[0]
            at = self.now + self.latencies.dispatched
            if i.opcode == Opcode.LOAD:
                if len(self.loads) >= _AHEAD:
                    break
                self.loads.append((i, at, self.until(i)))
            elif i.opcode == Opcode.NORM:
                if len(self.norms) >= _AHEAD:
                    break
                self.norms.append((i, at, weight, self.until(i)))
            elif i.opcode == Opcode.HALT:
                self.halted = max(self.halted, self.now + 1)
            else:
                if max(len(self.windows), len(self.orders), self.results_queued) >= _AHEAD:
                    break
                product = self.product(i, at, weight)
                self.windows.append(product)
                self.orders.append(product)
                self.results_queued += not i["unfinished"]
            for name, opcodes in COUNTED.items():
                counts = i.opcode in opcodes and not (name == "products" and i["unfinished"])
                self.issued[name] += counts
            self.program.popleft()
            self.fetched = max(0.0, self.fetched - beats)
            following = len(FORMATS[self.program[0][0].opcode]) if self.program else 0
            self.next_dispatch = self.now + following + self.latencies.issue
            moved = True
        return moved

    def until(self, i: Instruction) -> Until:
        """The counts at which an instruction may go."""
        return {c: count + 1 - i[f"wait_{c}"] if i[f"wait_{c}"] else 0 for c, count in self.issued.items()}

    def product(self, i: Instruction, queued: float, weight: float) -> Product:
        """A product's passes."""
        passes, columns = i["passes"], i["columns"]
        steps = i["depth"] // (1 << i["m_log2"]) * i["n"]
        if i["value_format"]:  # a block's levels take so long
            steps = max(steps, Expander.steps)
        softmax = i.opcode == Opcode.CONTEXT
        memory = not (softmax or i["kept"])
        product = Product(i, columns, queued, weight, self.until(i), memory, softmax)
        for number in range(passes):
            last = number == passes - 1
            cycles = columns * steps + (_SHORT_PASS if columns < _SHORT_PASS and not last else 0)
            product.passes.append(Pass(product, i["window_beats"] / passes, cycles, last and not i["unfinished"]))
        return product

    def step_loader(self) -> bool:
        known = self.latencies
        ahead = self.config.loads_ahead and self.load is not None and len(self.next_loads) < _LOADS_AHEAD
        free = ahead or (self.load is None and self.reached(self.load_free))
        if free and self.loads and self.reached(self.loads[0][1]):
            i, _, until = self.loads[0]
            if self.clear(until, "matrix", "products", "norms"):
                width = {
                    Target.VALUES: self.config.groups, Target.POSITIONS: self.config.groups * self.config.window // 8,
                    Target.PARAMETERS: COLUMN.width // 8, Target.TABLE: 2,
                    Target.SHORT_PARAMETERS: SHORT_COLUMN.width // 8,
                }[Target(i["target"])]  # fmt: skip
                peak = min(1.0, width / self.config.bus_bytes)
                if i["rows"] > 1:
                    peak = min(peak, known.run_rate(i["beats"], i["rows"]))
                begin = 1 + self.first_beat(known.run)
                wide = width > self.config.bus_bytes
                load = Flow(i["beats"] * i["rows"], begin, peak, asked=self.now, run=i["beats"], wide=wide)
                if self.load is None:
                    self.load = load
                else:
                    self.next_loads.append(load)
                self.loads.popleft()
                return True
        if self.load is not None and self.load.left <= EPSILON and self.reached(self.load.start):
            # Words wider than the bus are complete a cycle after their last beat.
            wide = self.load.wide
            self.load, self.load_free = None, self.now + 1 + wide
            self.events.append((self.now + 3 + wide, "loads"))
            if self.next_loads:
                self.load = self.next_loads.popleft()
                self.load.start = max(self.load.start, self.load_free + 1)
            return True
        return False

    def step_windows(self) -> bool:
        moved = False
        if self.windows and self.window_products < _PRODUCTS_AHEAD:
            product = self.windows[0]
            if (
                self.reached(product.queued)
                and self.reached(self.windows_free)
                and self.clear(product.until, "products", "norms")
            ):
                self.windows.popleft()
                self.windows_free = self.now + 2
                self.window_products += 1
                product.window_clear = product.window_asked = self.now
                if product.from_memory:
                    product.window_clear = self.first_beat(self.latencies.run)
                    self.feed.extend(product.passes)
                self.fill.extend(product.passes)
                moved = True
        while self.feed and self.feed[0].arrived >= self.feed[0].beats - EPSILON:
            self.feed.popleft()
            moved = True
        if self.fill and self.fill[0].accepted >= self.fill[0].beats - EPSILON:
            done = self.fill.popleft()
            product = done.product
            self.banks += 1
            done.ready = self.now + self.latencies.window
            self.ready.append(done)
            if done is product.passes[-1]:
                self.window_products -= 1
                self.fill_free = self.now + _NEXT_WINDOW
            if product.from_softmax:
                self.streaming = math.inf
                self.softmax_free = self.now + self.latencies.recovery
                product.totals = self.now + self.latencies.totals
            moved = True
        return moved

    def step_softmax(self) -> bool:
        if self.scored and self.streaming == math.inf:
            begin = max(self.scored[0], self.softmax_free)
            if self.reached(begin - self.latencies.accepted):
                self.scored.popleft()
                self.streaming = begin
                return True
        if self.streaming != math.inf:
            self.reached(self.streaming)
        return False

    def step_engine(self) -> bool:
        moved = False
        if self.orders and len(self.matrix) < _PRODUCTS_AHEAD:
            product = self.orders[0]
            if self.reached(product.queued) and self.clear(product.until, "loads"):
                self.orders.popleft()
                sparse = product.instruction["encoding"] != 0
                product.commanded = self.now + self.latencies.commanded
                product.first_beat = self.now + self.latencies.engine + sparse
                if "blocks4" in self.config.features:
                    how = product.instruction["value_format"]
                    wide = how == ValueFormat.WIDE_BLOCKS4
                    product.first_beat += (
                        Expander.first(self.config, wide=wide) if how else Expander.latency(self.config)
                    )
                self.matrix.append(product)
                moved = True
        if self.computing is not None and self.now >= self.compute_end - EPSILON:
            if self.computing.final and self.undrained() > self.config.columns + EPSILON:
                return moved  # the ring is full
            done, self.computing = self.computing, None
            product = done.product
            self.banks -= 1
            self.engine_free = self.now
            if done is product.passes[-1]:
                product.computed = self.now
                encoding = product.instruction["encoding"]
                self.matrix.popleft()
                self.events.append((self.now + (2 if encoding == 2 else 0), "matrix"))
                self.engine_free += _BETWEEN[encoding]
                self.finished(product.weight)
            moved = True
        if self.computing is None and self.ready and self.matrix and self.ready[0].product is self.matrix[0]:
            head = self.ready[0]
            product = head.product
            start = self.engine_free
            if head is product.passes[0]:
                start = max(start, product.first_beat)
                if product.instruction["continues"] and product.instruction.opcode == Opcode.CONTEXT:
                    start += self.latencies.rescale
            if self.reached(max(start, head.ready)):
                self.ready.popleft()
                self.computing = head
                self.compute_end = self.now + head.cycles
                if head.final:
                    self.waiting_columns += product.columns
                    per_column = head.cycles / product.columns
                    product.came = self.now + per_column + self.latencies.result
                    first = max(product.came, product.totals)
                    most = product.columns * self.latencies.parts / head.cycles
                    self.drain.append((product, first, most))
                moved = True
        return moved

    def finished(self, weight: float) -> None:
        """Count the time since the last instruction's end for those that this one stands for."""
        self.extra += (self.now - self.last_end) * (weight - 1)
        self.last_end = self.now

    def step_results(self) -> bool:
        known = self.latencies
        if self.drained is None and self.drain and self.reached(self.drain[0][1]) and self.reached(self.results_free):
            product = self.drain[0][0]
            i = product.instruction
            if i.opcode == Opcode.SCORES and self.scored:
                return False  # the block before is not accepted
            self.results_queued -= 1
            peak = known.transposing if i.opcode == Opcode.PRODUCT and i["result"] == Result.TRANSPOSE else 1.0
            peak = min(peak, known.taken(i))
            self.drained = Flow(product.columns * known.parts, self.now + known.lists(i), peak)
            if self.store_beats(i):
                each = self.store_beats(i)
                rate = each * min(peak, self.drain[0][2])
                self.stores.begin(product.columns * known.parts * each, self.config.burst, known.path * rate)
            if i.opcode == Opcode.PRODUCT and (i["result"] == Result.RESIDUAL or i["rotate"]):
                beats = product.columns * self.config.rows * 2 / self.config.bus_bytes
                self.residual, self.residual_held = Flow(beats, self.first_beat(known.run), asked=self.now), 0.0
                self.drained.start = self.residual.start
            return True
        if self.drained is not None and self.drained.left <= EPSILON:
            product = self.drain[0][0]
            i = product.instruction
            if not self.reached(product.computed + known.result + known.column(i) - 1):
                return False
            _, _, rate = self.drain.popleft()
            self.drained = self.residual = None
            self.results_free = self.now + 1
            self.waiting_columns -= product.columns
            if i.opcode == Opcode.SCORES:
                self.scored.append(self.now + known.scored)
                self.events.append((self.now + 1, "products"))
            elif not self.store_beats(i):
                self.events.append((self.now + 1, "products"))
            else:
                transposed = i.opcode == Opcode.PRODUCT and i["result"] == Result.TRANSPOSE
                path = known.path + (self.config.groups * self.config.rows // self.config.bus_bytes + 1) * transposed
                path += known.turned(rate) if i["rotate"] else known.given(i)
                self.stores.end(self.now + path, [1])
            return True
        return False

    def step_norm(self) -> bool:
        cfg, known = self.config, self.latencies
        moved = False
        if (
            self.sums is None and self.sums_for is None and self.norms and not self.again
            and self.reached(self.norm_free) and self.reached(self.norms[0][1])
            and self.clear(self.norms[0][3], "products", "norms")
        ):  # fmt: skip
            i, _, weight, _ = self.norms.popleft()
            self.sums_for = i
            self.norm_weight = weight
            beats = i["width"] * cfg.rows * 2 / cfg.bus_bytes
            self.sums = Flow(beats, 1 + self.first_beat(known.run), asked=self.now)
            self.sums_ready = math.inf
            moved = True
        if self.sums is not None and self.sums.left <= EPSILON:
            self.sums = None
            self.sums_ready = self.now + known.statistics
            moved = True
        if self.sums_for is not None and self.normalizing is None and self.reached(self.sums_ready):
            i = self.sums_for
            steps = i["width"] * cfg.rows * 2 / cfg.bus_bytes
            begin = self.first_beat(known.normalizing)
            self.parameters = Flow(max(1, i["width"] * 8 / cfg.bus_bytes), begin, asked=self.now)
            if i["width"] > cfg.norm_columns:
                self.again, self.again_held = Flow(steps, begin, asked=self.now), 0.0
            self.normalizing = Flow(steps, begin, known.norm_rate)
            for queue, share in ((self.wide, 1.0), (self.narrow, 0.5)):
                queue.begin(steps * share, cfg.burst, share * known.norm_rate * known.normalized)
            self.norm_free = self.now + 1
            self.sums_ready, self.sums_for = math.inf, None
            moved = True
        if self.parameters is not None and self.parameters.left <= EPSILON:
            self.parameters = None
            moved = True
        if self.normalizing is not None and self.normalizing.left <= EPSILON:
            self.normalizing = self.again = None
            both = [2]
            for queue in (self.wide, self.narrow):
                queue.end(self.now + known.normalized, both)
            self.norm_free = max(self.norm_free, self.now + 1)
            moved = True
        return moved

    def step_events(self) -> bool:
        moved = False
        stored = self.latencies.stored
        for queue, counter, delay in (
            (self.stores, "products", stored), (self.wide, "norms", stored + 1), (self.narrow, "norms", stored + 1)
        ):  # fmt: skip
            while queue.releases and self.reached(queue.releases[0][0]):
                _, beats, halves = queue.releases.popleft()
                queue.put += beats
                queue.marks.append((queue.put, halves))
                moved = True
            while queue.marks and queue.sent >= queue.marks[0][0] - EPSILON:
                _, halves = queue.marks.popleft()
                halves[0] -= 1
                if not halves[0]:
                    self.events.append((self.now + delay, counter))
                moved = True
        due = [e for e in self.events if e[0] <= self.now + EPSILON]
        for event in due:
            self.events.remove(event)
            self.done[event[1]] += 1
            if event[1] == "norms" and not self.done["matrix"]:
                self.finished(self.norm_weight)
            moved = True
        return moved

    def run(self) -> float:
        steps = (
            self.step_events, self.step_dispatch, self.step_loader, self.step_windows, self.step_softmax,
            self.step_engine, self.step_results, self.step_norm,
        )  # fmt: skip
        while True:
            moved = True
            while moved:
                self.soon = math.inf
                moved = False
                for step in steps:
                    moved = step() or moved
            busy = self.program or self.loads or self.load or self.orders or self.matrix or self.drain or self.events
            if not (
                busy or self.norms or self.sums_for or self.normalizing
                or any(q.marks or q.releases for q in (self.stores, self.wide, self.narrow))
            ):  # fmt: skip
                return max(self.now, self.halted) + self.extra
            self.advance(*self.rates())


def estimate_cycles(
    program: Sequence[Instruction], config: Config, timing: MachineTiming | None = None,
    weights: Iterable[float] | None = None,
) -> float:  # fmt: skip
    """Cycles from start to the end of a program.

    Parameters
    ----------
    program : sequence of Instruction
        Only shapes and dependencies are looked at.
    weights : floats, optional
        How many instructions each of them stands for, in a program without loops, for what was cut short.
    """
    if weights is None:
        followed = [(found.instruction, found.words, 1.0) for found in unroll(program, config)]
    else:
        followed = [(i, len(FORMATS[i.opcode]), weight) for i, weight in zip(program, weights, strict=True)]
    return _Machine(followed, config, timing or MachineTiming()).run()
