"""Small arithmetic shared by the pipelines."""

from __future__ import annotations

import itertools

from amaranth.hdl import Mux, Signal, Value

__all__ = ["at_limit", "ring_shift", "saturated"]


def saturated(value: Value, bits: int) -> Value:
    """`value`, signed, saturated symmetrically to `bits` bits: from ``-(2**(bits - 1) - 1)`` on.

    Looks at bits instead of comparing, which takes a few LUTs and no carry chain.
    """
    upper = value[bits - 1 :]
    sign = value[-1]
    over = upper.any() & ~upper.all()
    lowest = sign & ~value[: bits - 1].any()
    limit = (1 << (bits - 1)) - 1
    return Mux(over | lowest, Mux(sign, -limit, limit), value[:bits].as_signed())


def at_limit(value: Value, bits: int) -> Value:
    """Condition: `value`, saturated to `bits` bits by `saturated`, is one of the ends of its range."""
    inner = value[1 : bits - 1]
    return value[0] & Mux(value[bits - 1], ~inner.any(), inner.all())


def ring_shift(ring: list[Signal], new: Value) -> list:
    """Assignments that turn a ring of registers by one place: `new` enters at the end."""
    return [*(a.eq(b) for a, b in itertools.pairwise(ring)), ring[-1].eq(new)]
