"""Transfers of the cycle model: the channels shared among clients, and the time of the next event."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .state import EPSILON, Flow, State, WriteQueue
from .timing import SAVED_BEATS

__all__ = ["Flows"]


class Flows(State):
    """Flows whose rates change only at events; the channels are shared as in rtl/bus/dma.py."""

    def wanted(self, flow: Flow | None) -> float:
        """What a flow asks of its channel now."""
        if flow is None or flow.left <= EPSILON or self.now < flow.start - EPSILON:
            return 0.0
        return flow.peak

    def first_beat(self, latency: float) -> float:
        """When the first beat of what is asked for now comes, behind the bursts that others have under way.

        A client asks for as much as its queue has room for, and answers come in order: so what is asked for later waits
        for up to as many bursts as may be under way.
        """
        known = self.latencies
        room = known.depth - sum(p.arrived - p.accepted for p in self.fill if p.product.from_memory)
        bursts: list[tuple[float, float]] = []  # of each client how many, and their beats
        begin = math.inf
        for flow, most in (
            (self.fetch if self.fetching else None, known.fetch_depth - self.fetched),
            (self.residual, known.depth - self.residual_held), (self.parameters, math.inf),
            (self.again, known.depth - self.again_held), (self.sums, math.inf), (self.load, math.inf),
        ):  # fmt: skip
            if flow is not None and flow.left > EPSILON and most > EPSILON:
                size = known.burst_of(flow.run)
                bursts.append((min(min(flow.left, most) / size, known.issued(self.now - flow.asked)), size))
                begin = min(begin, flow.start)
        if self.feed and room > known.refill + EPSILON:
            size = known.burst_of(math.inf)
            asked = min(room, sum(p.beats - p.arrived for p in self.feed))
            bursts.append((min(asked / size, known.issued(self.now - self.feed[0].product.window_asked)), size))
            begin = min(begin, self.feed[0].product.window_clear)
        # None has two more while another waits.
        under_way, left = 0.0, float(known.most_bursts)
        for number, (count, size) in enumerate(sorted(bursts)):
            taken = min(count, left / (len(bursts) - number))
            under_way, left = under_way + taken * size, left - taken
        if not under_way:
            return self.now + latency
        return max(self.now + latency, max(self.now, begin) + under_way / self.timing.beats_per_cycle)

    def window_flow(self) -> tuple[float, float]:
        """Demand of the window feed on the bus, and the rate at which a bank fills."""
        accept = 0.0
        fill = self.fill[0] if self.fill else None
        if fill is not None and self.banks < 2 and self.reached(max(self.fill_free, fill.product.commanded)):
            accept = 1.0 if not fill.product.from_softmax or self.now >= self.streaming - EPSILON else 0.0
        demand = 0.0
        if self.feed and self.reached(self.feed[0].product.window_clear):
            taken = accept if fill is not None and fill.product.from_memory else 0.0
            held = sum(p.arrived - p.accepted for p in self.fill if p.product.from_memory)
            if held < self.latencies.depth - self.latencies.refill - EPSILON:
                demand = 1.0
            elif not taken:
                # A full queue asks when it has room again, and what it asks for comes later.
                self.window_refill = math.inf
            elif self.window_refill == math.inf:
                self.window_refill = self.now + self.latencies.refill
                self.soon = min(self.soon, self.window_refill)
            elif self.reached(self.window_refill):
                demand = taken
        return demand, accept

    def rates(self) -> tuple[float, float]:
        """Share the channels; returns what windows get, and the fill rate."""
        cfg, known, now = self.config, self.latencies, self.now
        bandwidth = self.timing.beats_per_cycle
        window_demand, accept = self.window_flow()
        if self.fetching and self.fetched >= known.fetch_depth - EPSILON:
            self.fetching = False
        elif not self.fetching and self.fetched <= known.fetch_depth - cfg.burst + EPSILON:
            self.fetch.start, self.fetch.asked = self.first_beat(known.refill), now
            self.fetching = True
            self.soon = min(self.soon, self.fetch.start)
        again = self.wanted(self.again) if self.again_held < known.depth - EPSILON else 0.0
        flows = (self.fetch, None, self.residual, self.parameters, self.again or self.sums, self.load)
        demands = [
            self.wanted(self.fetch) if self.fetching else 0.0, window_demand, self.wanted(self.residual),
            self.wanted(self.parameters), again if self.again else self.wanted(self.sums), self.wanted(self.load),
        ]  # fmt: skip
        if self.residual is not None and self.residual_held >= known.depth - EPSILON and self.drained is not None:
            demands[2] = min(demands[2], self.drained.rate * 2 * cfg.drain_lanes / cfg.bus_bytes)
        demands = [min(d, known.client_rate) for d in demands]
        shared = self.timing.shared
        free = [1.0 if credit > EPSILON else bandwidth for credit in self.credits]
        if not shared:
            rates = self._reads(flows, demands, min(known.read_rate, free[0]))
            self.used = [sum(rates), self._writes(free[1])]
        else:
            # Of two directions that always ask, each has every other cycle; what one leaves is the other's. What is
            # written depends on what is read, for the residual stream is added to results: hence more than one round.
            both = 2.0 if self.credits[0] > EPSILON else bandwidth
            written = 0.0
            for turn in range(4):
                rates = self._reads(flows, demands, min(known.read_rate, both - written))
                before = written
                written = self._writes(max(min(both, 0.5), both - sum(rates)))
                if abs(written - before) <= EPSILON:
                    break
                if turn:
                    written = (written + before) / 2
            self.used = [sum(rates) + written]
        window = rates[1]
        if self.fill and self.fill[0].product.from_memory and self.fill[0].arrived <= self.fill[0].accepted + EPSILON:
            accept = min(accept, window)
        return window, accept

    def _reads(self, flows: Sequence[Flow | None], demands: list[float], most: float) -> list[float]:
        """Share the read channel among its clients."""
        burst_of = self.latencies.burst_of
        sizes = [burst_of(math.inf if flow is None else flow.run) for flow in flows]
        rates = shares(demands, most, sizes)
        for flow, rate in zip(flows, rates, strict=True):
            if flow is not None:
                flow.rate = rate
        return rates

    def _writes(self, most: float) -> float:
        """Share the write channel; returns what all clients together use of it."""
        cfg, known = self.config, self.latencies
        per_step = 0.0
        drained = self.drained
        if drained is not None:
            product, _, peak = self.drain[0]
            per_step = self.store_beats(product.instruction)
            rate = 0.0
            if drained.left > EPSILON and self.now >= drained.start - EPSILON:
                # Columns come as the array completes them, behind those that wait in the ring.
                rate = drained.peak
                computes = self.computing is not None and self.computing.product is product
                if computes and self.waiting_results() <= EPSILON:
                    rate = min(rate, peak)
            if self.residual is not None and self.residual_held <= EPSILON:
                rate = min(rate, self.residual.rate * cfg.bus_bytes / (2 * cfg.drain_lanes))
            drained.rate = rate
            self.stores.inflow = rate * per_step
        else:
            self.stores.inflow = 0.0
        norm = self.normalizing
        if norm is not None:
            norm.rate = self.wanted(norm)
            if self.again is not None and self.again_held <= EPSILON:
                norm.rate = min(norm.rate, self.again.rate)
            self.wide.inflow, self.narrow.inflow = norm.rate, norm.rate / 2
        else:
            self.wide.inflow = self.narrow.inflow = 0.0
        queues = (self.stores, self.wide, self.narrow)
        demands = [
            known.client_rate
            if q.level > EPSILON
            else min(q.inflow, known.client_rate) * (q.held >= q.most_held - EPSILON)
            for q in queues
        ]
        for queue, rate in zip(queues, shares(demands, min(1.0, most)), strict=True):
            queue.outflow = rate
        # A full queue takes what it gives.
        if drained is not None and self.full(self.stores) and self.stores.inflow > self.stores.outflow:
            self.stores.inflow = self.stores.outflow
            drained.rate = self.stores.outflow / per_step
        if norm is not None:
            if self.full(self.wide):
                norm.rate = min(norm.rate, self.wide.outflow)
            if self.full(self.narrow):
                norm.rate = min(norm.rate, 2 * self.narrow.outflow)
            self.wide.inflow, self.narrow.inflow = norm.rate, norm.rate / 2
        return sum(q.outflow for q in queues)

    def full(self, queue: WriteQueue) -> bool:
        """Whether a client of the write channel has no room."""
        return queue.level + queue.held >= self.latencies.depth - EPSILON

    def advance(self, window: float, accept: float) -> None:
        """Go to the next event."""
        cfg, known, now = self.config, self.latencies, self.now
        times = [self.soon]
        flows = [
            f
            for f in (
                self.fetch,
                self.load,
                self.residual,
                self.sums,
                self.parameters,
                self.again,
                self.normalizing,
                self.drained,
            )
            if f is not None
        ]
        for flow in flows:
            if flow.left > EPSILON:
                if flow.rate > 0:
                    times.append(now + flow.left / flow.rate)
                if flow.start > now + EPSILON:
                    times.append(flow.start)
        if self.fetch.rate and self.program and self.program[0][1] > self.fetched:
            missing = self.program[0][1] - self.fetched
            times.append(now + max(EPSILON, missing) / self.fetch.rate)
        residual_use = again_use = 0.0
        if self.residual is not None and self.drained is not None:
            residual_use = self.drained.rate * 2 * cfg.drain_lanes / cfg.bus_bytes
            times.append(self._level(self.residual_held, self.residual.rate - residual_use))
        if self.again is not None and self.normalizing is not None:
            again_use = self.normalizing.rate
            times.append(self._level(self.again_held, self.again.rate - again_use))
        for queue in (self.stores, self.wide, self.narrow):
            if queue.marks and queue.outflow > 0:
                times.append(now + (queue.marks[0][0] - queue.sent) / queue.outflow)
            if queue.held < queue.most_held - EPSILON and queue.inflow > 0:
                times.append(now + (queue.most_held - queue.held) / queue.inflow)
                times.append(self._level(queue.level, -queue.outflow))
            else:
                times.append(self._level(queue.level + queue.held, queue.inflow - queue.outflow))
                times.append(self._level(queue.level, queue.inflow - queue.outflow))
        if self.computing is not None:
            times.append(self.compute_end)
            if self.drained is not None and self.computing.product is self.drain[0][0]:
                caught_up = self.drained.rate - self.drain[0][2]
                if caught_up > EPSILON and self.waiting_results() > EPSILON:
                    times.append(now + self.waiting_results() / caught_up)
            over = self.undrained() - cfg.columns
            if over > 0 and self.drained is not None and self.drained.rate > 0:
                times.append(now + over * known.parts / self.drained.rate)
        for credit, used in zip(self.credits, self.used, strict=True):
            if credit > EPSILON and used > self.timing.beats_per_cycle + EPSILON:
                times.append(now + credit / (used - self.timing.beats_per_cycle))
        times += [t for t, _ in self.events]
        if window > 0:
            head = self.feed[0]
            times.append(now + (head.beats - head.arrived) / window)
            held = sum(p.arrived - p.accepted for p in self.fill if p.product.from_memory)
            most = known.depth - known.refill
            if window > accept and held < most:
                times.append(now + (most - held) / (window - accept))
        if accept > 0:
            head = self.fill[0]
            times.append(now + (head.beats - head.accepted) / accept)
            if head.product.from_memory and head.arrived > head.accepted and accept > window:
                times.append(now + (head.arrived - head.accepted) / (accept - window))
        then = min((t for t in times if t > now + EPSILON / 10), default=math.inf)
        if then == math.inf:
            raise RuntimeError(f"the cycle model stands still at {now:.0f}")
        gone = then - now
        for flow in flows:
            flow.left = max(0.0, flow.left - flow.rate * gone)
        self.fetched += self.fetch.rate * gone
        if self.residual is not None:
            self.residual_held = max(0.0, self.residual_held + (self.residual.rate - residual_use) * gone)
        if self.again is not None:
            self.again_held = max(0.0, self.again_held + (self.again.rate - again_use) * gone)
        for queue in (self.stores, self.wide, self.narrow):
            queue.move(gone)
        self.credits = [
            min(SAVED_BEATS, max(0.0, credit + (self.timing.beats_per_cycle - used) * gone))
            for credit, used in zip(self.credits, self.used, strict=True)
        ]
        if window > 0:
            self.feed[0].arrived += window * gone
        if accept > 0:
            self.fill[0].accepted += accept * gone
        self.now = then

    def _level(self, level: float, rate: float) -> float:
        """When a queue's level comes to its bottom or top."""
        if rate < -EPSILON and level > EPSILON:
            return self.now + level / -rate
        if rate > EPSILON and level < self.latencies.depth - EPSILON:
            return self.now + (self.latencies.depth - level) / rate
        return math.inf


def shares(demands: list[float], free: float, bursts: Sequence[float] | None = None) -> list[float]:
    """What each client of a channel gets: earlier ones go first, but none twice while another waits.

    Parameters
    ----------
    demands : list of float
        Beats a cycle.
    free : float
        What there is to share.
    bursts : sequence of float
        The clients' bursts in beats; all alike by default. Clients take turns by bursts, and shorter ones get less.
    """
    if sum(demands) <= free:
        return list(demands)
    sizes = bursts or [1.0] * len(demands)
    waiting = [i for i, demand in enumerate(demands) if demand > 0]
    rates = [0.0] * len(demands)
    for turns in (True, False):
        for i in waiting:
            most = free
            if turns:
                other = next((k for k in waiting if k != i), i)
                most = free * sizes[i] / (sizes[i] + sizes[other])
            more = max(0.0, min(min(demands[i], most) - rates[i], free - sum(rates)))
            rates[i] += more
    return rates
