"""What proofs of units share: small configurations, orders that were taken, streams as queues of the model's own."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Mux, Signal, Value

from sim.formal import Bench, Edit
from sta_hw.spec.config import Config

SMALL: dict[str, Any] = {
    "rows": 4, "groups": 2, "lanes": 4, "drain_lanes": 2, "window": 4, "nm": ("dense",), "columns": 8,
    "weight_words": 8, "parameter_words": 8, "norm_columns": 8, "softmax_lanes": 2,
}  # fmt: skip
STABLE = "What is offered and not taken stays, and stays what it is."


def config(**changes: Any) -> Config:
    return Config(**(SMALL | changes))


def edit(module: str, old: str, new: str) -> Edit:
    return Edit(f"sta_hw.rtl.{module}", old, new)


def stays(bench: Bench, offer: Any) -> Value:
    """An offer that was not taken is there, the same."""
    waits = bench.past(offer.valid & ~offer.ready)
    payload = Value.cast(offer.payload)
    return ~waits | (offer.valid & (payload == bench.past(payload)))


def goes_on(bench: Bench, moves: Value, within: int) -> None:
    """Property ``goes-on``: less than so many cycles in which nothing `moves` follow each other.

    It also `moves` where there is nothing to do, or it waits for others.
    """
    still = bench.register(within.bit_length(), "still")
    bench.m.d.sync += still.eq(Mux(moves, 0, still + 1))
    bench.holds("goes-on", still < within)


def answered(bench: Bench, run: Any, words: Any, bits: int, beats: Value | int | None = None) -> Value:
    """Memory gives the words that runs asked for, and no others: how many are owed, in so many bits.

    Parameters
    ----------
    beats : Value or int
        Words of a run; what its payload says by default.
    """
    owed = bench.register(bits, "owed")
    asked = Mux(run.valid & run.ready, run.payload.beats if beats is None else beats, 0)
    bench.m.d.sync += owed.eq(owed + asked - (words.valid & words.ready))
    bench.assume(~words.valid | (owed != 0))
    return owed


class Kept:
    """The first orders that were taken, by number; and which of them a part of the model has come to."""

    def __init__(self, bench: Bench, offer: Any, count: int = 2, name: str = "order") -> None:
        self.bench, self.shape, self.name = bench, offer.payload.shape(), name
        self.orders = [bench.register(self.shape, f"{name}_{i}") for i in range(count)]
        self.count = bench.register(3, f"{name}_count")
        taken = offer.valid & offer.ready
        bench.assume(~offer.valid | (self.count < count))
        with bench.m.If(taken):
            bench.m.d.sync += self.count.eq(self.count + 1)
            for i, kept in enumerate(self.orders):
                with bench.m.If(self.count == i):
                    bench.m.d.sync += kept.eq(offer.payload)

    def at(self, number: Value) -> Any:
        """The order of a number."""
        view = Signal(self.shape, name=f"{self.name}_seen_{self.bench._number()}")
        raw = Value.cast(self.orders[-1])
        for i, kept in reversed(list(enumerate(self.orders[:-1]))):
            raw = Mux(number == i, Value.cast(kept), raw)
        self.bench.m.d.comb += Value.cast(view).eq(raw)
        return view


class Pipe:
    """What went in and has not come out: a queue of the model's own, of `depth` places."""

    def __init__(self, bench: Bench, width: int, depth: int, name: str, put: Value, data: Value, get: Value) -> None:
        m = bench.m
        self.places = [bench.register(width, f"{name}_{i}") for i in range(depth)]
        self.count = bench.register(range(depth + 1), f"{name}_count")
        m.d.sync += self.count.eq(self.count + put - get)
        for i, place in enumerate(self.places):
            behind = self.places[i + 1] if i + 1 < depth else place
            m.d.sync += place.eq(Mux(put & (self.count - get == i), data, Mux(get, behind, place)))
        self.head, self.some = self.places[0], self.count != 0
