"""Levels of blocks of 4-bit weights: the 16 INT8 values that a block's codes stand for, computed ahead of its codes.

Each block has two tables, of which one is filled while codes are looked up in the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory

from ...spec.config import Config
from .expander_headers import SCALE_BITS

__all__ = ["STEPS", "Ending", "Filling", "level_tables"]

_FRACTION, _FINER = 7, 3
"""Fraction bits of a weight before it is rounded down; how many the minimum has less."""
STEPS = 8
"""In which the 16 levels of a block are computed, two at a time."""


@dataclass(frozen=True)
class Filling:
    """Which of the two tables has levels, and which is filled.

    Attributes
    ----------
    full : Signal of 2 bits
        The table has a block's levels.
    emptied : Signal of 2 bits
        The last code that it was filled for is looked up in this cycle.
    next : Signal
        The one that is filled next.
    start : Signal
        The headers at hand go into work: their registers are free behind this cycle.
    """

    full: Signal
    emptied: Signal
    next: Signal
    start: Signal


@dataclass(frozen=True)
class Ending:
    """The end of a product in blocks.

    Attributes
    ----------
    now : Value
        Its last word is taken.
    in_vain : Value
        No codes came behind the last header that went into work: it is the one behind the last run, which is none, or
        the product has fewer words than it should.
    """

    now: Value
    in_vain: Value


def level_tables(
    m: Module, config: Config, headers: list[Signal], header_valid: Value, filling: Filling, ending: Ending
) -> list[list[memory.ReadPort]]:
    """Compute each block's levels as soon as its header is there and a table is free.

    `filling.start` and `filling.full` are driven here, and `filling.next` is moved on.

    Returns
    -------
    list of [even, odd], one per group
        Ports that read without a cycle's delay: levels of even codes and of odd ones, at ``code >> 1 | table << 3``.
    """
    full, start = filling.full, filling.start
    busy, target = Signal(name="filling"), Signal()
    place = Signal(range(STEPS))
    at_end = Signal()
    m.d.comb += [
        at_end.eq(place == STEPS - 1),
        start.eq(
            header_valid
            & (~busy | at_end)
            & ~ending.now
            & (~full.bit_select(filling.next, 1) | filling.emptied.bit_select(filling.next, 1))
        ),
    ]
    for i in range(2):
        with m.If(filling.emptied[i]):
            m.d.sync += full[i].eq(0)
    with m.If(busy):
        m.d.sync += place.eq(place + 1)
        with m.If(at_end):
            m.d.sync += busy.eq(0)
            for i in range(2):
                with m.If(target == i):
                    m.d.sync += full[i].eq(1)
    with m.If(start):
        m.d.sync += [busy.eq(1), place.eq(0), target.eq(filling.next), filling.next.eq(~filling.next)]
    # The table that was begun last goes to the next product.
    with m.If(ending.now & ending.in_vain):
        m.d.sync += [busy.eq(0), filling.next.eq(~filling.next)]
        for i in range(2):
            with m.If(filling.next != i):
                m.d.sync += full[i].eq(0)
    levels = [_levels(m, number, header, start) for number, header in enumerate(headers)]
    found = []
    for g in range(config.groups):
        tables = []
        for which, value in zip(("even", "odd"), levels[g // config.block_groups], strict=True):
            table = m.submodules[f"{which}_levels_{g}"] = memory.Memory(
                shape=unsigned(8), depth=2 * STEPS, init=[], attrs={"no_rw_check": 1}
            )
            write = table.write_port()
            m.d.comb += [write.addr.eq(Cat(place, target)), write.data.eq(value), write.en.eq(busy)]
            tables.append(table.read_port(domain="comb"))
        found.append(tables)
    return found


def _levels(m: Module, number: int, header: Signal, start: Value) -> tuple[Value, Value]:
    """A block's levels of an even code and of the odd one above it; those of the next two codes a cycle later."""
    bits = _FRACTION + 8
    scale = Signal(SCALE_BITS, name=f"scale_{number}", reset_less=True)
    level = Signal(bits, name=f"level_{number}", reset_less=True)
    with m.If(start):
        m.d.sync += scale.eq(header[:SCALE_BITS])
    m.d.sync += level.eq(Mux(start, Cat(Const(0, _FINER), header[SCALE_BITS:]), level + (scale << 1)))
    odd = Signal(bits, name=f"odd_{number}")
    m.d.comb += odd.eq(level + scale)
    return level[_FRACTION:], odd[_FRACTION:]
