"""Dispatch of instructions: each to the queues of the units that take part in it, with the counts it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data, stream

from ...spec.config import Config
from ...spec.isa import Opcode, layout_of
from ..primitives.layouts import COUNT_BITS, command_layout
from ..primitives.queue import Queue
from ..primitives.sequencer import order_layout
from ..units.feeds import parameter_order_layout, window_order_layout
from ..units.loader import load_order_layout
from ..units.norm import norm_order_layout
from ..units.results import result_order_layout
from .fetch import Fetch

__all__ = ["dispatch"]

_QUEUE = 16
"""Instructions each unit holds: as deep as one cell of LUT RAM."""


def _fields(bits: Value, opcode: Opcode) -> dict[str, Value]:
    """An instruction's fields."""
    found, at = {}, 0
    for name, width in layout_of(opcode):
        found[name] = bits[at : at + width]
        at += width
    return found


def _matrix_layout(config: Config) -> data.StructLayout:
    return data.StructLayout(
        {
            "wait_loads": unsigned(COUNT_BITS),
            "command": command_layout(config),
            "values": order_layout(4),
            "positions": order_layout(1),
            "parameters": order_layout(1),
            "feed": parameter_order_layout(),
            "instruction": unsigned(COUNT_BITS),
        }
    )


def _waiting(layout: data.StructLayout, *counters: str) -> data.StructLayout:
    """A unit's order with the counts it waits for."""
    return data.StructLayout({**{f"wait_{c}": unsigned(COUNT_BITS) for c in counters}, "order": layout})


def dispatch(m: Module, config: Config, fetch: Fetch, stop: Value) -> tuple[dict[str, Any], dict[str, Value], Signal]:
    """Give each instruction to the queues of the units that take part in it, unless told to `stop`.

    Returns
    -------
    heads : dict of streams
        The queues' ends: ``loads``, ``windows``, ``matrix``, ``results``, ``norms``.
    accepted : dict of Values
        How many instructions were given to each counter, and ``halting``: no more will come.
    illegal : Signal
        The instruction at the front is none.
    """
    bits = fetch.instructions.payload.bits
    number = fetch.instructions.payload.number
    opcode = bits[:8]
    product = _fields(bits, Opcode.PRODUCT)
    load = _fields(bits, Opcode.LOAD)
    norm = _fields(bits, Opcode.NORM)
    is_product, is_scores, is_context = (opcode == o for o in (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT))
    multiplies = is_product | is_scores | is_context
    gives = multiplies & ~product["unfinished"]

    layouts: Mapping[str, tuple[data.StructLayout, Value]] = {
        "loads": (_waiting(load_order_layout(), "matrix", "products", "norms"), opcode == Opcode.LOAD),
        "windows": (_waiting(window_order_layout(), "products", "norms"), multiplies),
        "matrix": (_matrix_layout(config), multiplies),
        "results": (result_order_layout(), gives),
        "norms": (_waiting(norm_order_layout(), "products", "norms"), opcode == Opcode.NORM),
    }
    heads: dict[str, Any] = {}
    queues = {}
    entries = {}
    for name, (layout, _) in layouts.items():
        queue = m.submodules[f"{name}_instructions"] = Queue(width=layout.size, depth=_QUEUE)
        entry = Signal(layout, name=f"{name}_entry")
        head = stream.Signature(layout).create(path=(f"{name}_head",))
        m.d.comb += [
            queue.w_data.eq(entry),
            head.payload.eq(queue.r_data),
            head.valid.eq(queue.r_rdy),
            queue.r_en.eq(head.ready),
        ]
        heads[name], queues[name], entries[name] = head, queue, entry
    known = multiplies | (opcode == Opcode.LOAD) | (opcode == Opcode.NORM)
    halt = opcode == Opcode.HALT
    illegal = Signal()
    ready, go = Signal(), Signal()
    m.d.comb += [
        ready.eq(Cat(queues[n].w_rdy | ~used for n, (_, used) in layouts.items()).all()),
        illegal.eq(fetch.instructions.valid & ~known & ~halt),
        fetch.instructions.ready.eq(go),
    ]
    # Looked at in one cycle, given in the next: what was free stays free.
    m.d.sync += go.eq(fetch.instructions.valid & known & ready & ~stop & ~go)
    m.d.comb += [queues[n].w_en.eq(go & used) for n, (_, used) in layouts.items()]

    entry = entries["loads"]
    m.d.comb += [entry[f"wait_{c}"].eq(load[f"wait_{c}"]) for c in ("matrix", "products", "norms")]
    m.d.comb += [entry.order[f].eq(load[f]) for f in ("target", "destination", "address", "beats", "rows", "stride")]
    m.d.comb += entry.order.instruction.eq(number)
    entry = entries["windows"]
    m.d.comb += [entry[f"wait_{c}"].eq(product[f"wait_{c}"]) for c in ("products", "norms")]
    m.d.comb += [
        entry.order.probabilities.eq(is_context),
        entry.order.address.eq(product["window_address"]),
        entry.order.beats.eq(product["window_beats"]),
        entry.order.instruction.eq(number),
    ]
    entry = entries["matrix"]
    command = entry.command
    m.d.comb += [
        entry.wait_loads.eq(product["wait_loads"]),
        *(command[f].eq(product[f]) for f in ("n", "m_log2", "depth", "columns", "passes")),
        command.encoding.as_value().eq(product["encoding"]),
        *(command[f].eq(product[f]) for f in ("continues", "unfinished")),
        command.taps.eq(1),
        command.unsigned.eq(is_context),
        command.per_row.eq(is_context),
        command.rescale.eq(is_context & product["continues"]),
        command.wide_result.eq(product["wide"]),
        entry.values.base.eq(product["values_base"]),
        *(entry.values[f"{f}{i}"].eq(product[f"{f}{i}"]) for f in ("count", "stride") for i in range(4)),
        entry.positions.base.eq(product["positions_base"]),
        entry.positions.count0.eq(product["positions_count"]),
        entry.positions.stride0.eq(1),
        entry.parameters.base.eq(product["parameters_base"]),
        entry.parameters.count0.eq(product["columns"]),
        entry.parameters.stride0.eq(product["parameters_step"]),
        entry.feed.totals.eq(is_context),
        entry.feed.seconds.eq(is_product),
        entry.instruction.eq(number),
    ]
    entry = entries["results"]
    m.d.comb += [
        entry.mode.eq(product["result"]),
        entry.scores.eq(is_scores),
        entry.seconds.eq(is_product),
        entry.columns.eq(product["columns"]),
        entry.address.eq(product["result_address"]),
        entry.residual_address.eq(product["residual_address"]),
        entry.block.depth.eq(product["columns"] >> (config.groups.bit_length() - 1)),
        entry.block.keys.eq(product["keys"]),
        entry.block.first.eq(product["row_first"]),
        entry.block.last.eq(product["row_last"]),
        entry.block.gain.eq(product["gain"]),
        entry.block.coarse.eq(product["coarse"]),
        entry.instruction.eq(number),
    ]
    entry = entries["norms"]
    m.d.comb += [entry[f"wait_{c}"].eq(norm[f"wait_{c}"]) for c in ("products", "norms")]
    m.d.comb += [
        *(
            entry.order[f].eq(norm[f])
            for f in ("input_address", "wide_address", "narrow_address", "parameters_address", "width", "inverse")
        ),
        entry.order.instruction.eq(number),
    ]

    accepted = {}
    for name, event in (
        ("loads", opcode == Opcode.LOAD),
        ("matrix", multiplies),
        ("products", gives),
        ("norms", opcode == Opcode.NORM),
    ):
        count = Signal(COUNT_BITS, name=f"dispatched_{name}")
        m.d.sync += count.eq(count + (go & event))
        accepted[name] = count
    halting = fetch.ended | (fetch.instructions.valid & halt)
    return heads, {**accepted, "halting": halting}, illegal
