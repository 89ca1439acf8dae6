"""Transfers of the cycle model: the channels shared among clients, and the time of the next event."""

from __future__ import annotations

import math

from ..isa import Opcode, Result
from .state import EPSILON, Flow, State

__all__ = ["Flows"]


class Flows(State):
    """Flows whose rates change only at events; the channels are shared as in rtl/dma.py."""

    def window_flow(self) -> tuple[float, float]:
        """Demand of the window feed on the bus, and the rate at which a bank fills."""
        accept = 0.0
        fill = self.fill[0] if self.fill else None
        if fill is not None and self.banks < 2:
            if fill.product.instruction.opcode == Opcode.CONTEXT:
                accept = 1.0 if self.blocks and self.now >= self.blocks[0] - EPSILON else 0.0
            else:
                accept = 1.0
        held = sum(p.arrived - p.accepted for p in self.fill if p.product.instruction.opcode != Opcode.CONTEXT)
        demand = 0.0
        if self.feed and self.now >= self.feed[0].product.window_clear - EPSILON:
            depth = max(2 * self.config.burst, 512)
            demand = 1.0 if held < depth - EPSILON else (accept if fill and fill.arrived > fill.accepted else 0.0)
        return demand, accept

    def rates(self) -> tuple[float, float]:
        """Share the channels; returns what windows get, and the fill rate."""
        free = self.timing.beats_per_cycle

        def wanted(flow: Flow | None) -> float:
            on = flow is not None and flow.left > EPSILON and self.now >= flow.start - EPSILON
            return flow.peak if flow is not None and on else 0.0

        # Instructions are fetched until their queues are full.
        self.fetch.rate = min(wanted(self.fetch), free) if self.fetched < 4 else 0.0
        free -= self.fetch.rate
        demand, accept = self.window_flow()
        again = 0.0
        if self.reading_again and self.normalizing is not None and self.now >= self.normalizing.start - EPSILON:
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
            rate = self.drained.peak if self.drained.left > EPSILON else 0.0
            if self.residual is not None and self.residual.left > EPSILON:
                rate = min(rate, self.residual.rate * cfg.bus_bytes / (2 * cfg.drain_lanes))
            if per_step:
                results, normalizing = _shares([rate * per_step, normalizing], writes)
                rate = results / per_step
            self.drained.rate = rate
        if self.normalizing is not None:
            self.normalizing.rate = min(normalizing, writes)
        if self.fill and self.fill[0].product.instruction.opcode != Opcode.CONTEXT:
            head = self.fill[0]
            if head.arrived <= head.accepted + EPSILON:
                accept = min(accept, window)
        return window, accept

    def advance(self, window: float, accept: float) -> None:
        """Go to the next event."""
        flows = [f for f in (self.fetch, self.load, self.residual, self.sums, self.normalizing, self.drained) if f]
        times = [self.now + f.left / f.rate for f in flows if f.rate > 0]
        times += [f.start for f in flows if f.start > self.now + EPSILON]
        if self.fetch.rate:
            times.append(
                self.now + max(EPSILON, (math.floor(self.fetched + EPSILON) + 1 - self.fetched)) * self.fetch_beats
            )
        if self.computing is not None:
            times.append(self.compute_end)
            over = self.undrained() - self.config.columns
            if over > 0 and self.drained is not None and self.drained.rate > 0:
                times.append(self.now + over * self.config.rows / self.config.drain_lanes / self.drained.rate)
        if self.engine_free > self.now + EPSILON:
            times.append(self.engine_free)
        if self.load_end > self.now + EPSILON:
            times.append(self.load_end)
        if self.sums_ready > self.now + EPSILON:
            times.append(self.sums_ready)
        times += [t for t, _ in self.events]
        times += [t for t in list(self.blocks)[:1] if t > self.now + EPSILON]
        times += [t for _, t in list(self.drain)[:1] if t > self.now + EPSILON]
        times += [p.product.window_clear for p in list(self.feed)[:1] if p.product.window_clear > self.now + EPSILON]
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
        times = [t for t in times if t > self.now + EPSILON / 10 and t < math.inf]
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


def _shares(demands: list[float], free: float) -> list[float]:
    """What each client of a channel gets: earlier ones go first, but none twice while another waits."""
    rates = [0.0] * len(demands)
    for most in (free / 2, free):
        for i, demand in enumerate(demands):
            more = min(demand, most) - rates[i]
            more = max(0.0, min(more, free - sum(rates)))
            rates[i] += more
    return rates
