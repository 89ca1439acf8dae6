"""Dispatch of instructions: each to the queues of the units that take part in it, with the counts it waits for.

What an instruction waits for is relative: all but the last so many of a class that were issued before it. What is
queued with it is the count of that class at which it may go.
"""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream

from ...spec.config import Config
from ...spec.expansion import MOST_AGE
from ...spec.isa import COUNTED, WAIT_BITS, WAITS, Mask, NormKind, Opcode, Result, ValueFormat, formats
from ..primitives.layouts import CLASS_BITS, COUNT_BITS, command_layout
from ..primitives.queue import Queue
from ..primitives.sequencer import order_layout
from ..units.expander import expansion_layout
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
    return {name: bits[at : at + f.width] for name, (at, f) in formats(opcode).places.items()}


def _matrix_layout(config: Config) -> data.StructLayout:
    return data.StructLayout(
        {
            "until_loads": unsigned(CLASS_BITS),
            "command": command_layout(config),
            "values": order_layout(4),
            "positions": order_layout(1),
            "parameters": order_layout(1),
            "feed": parameter_order_layout(),
            "instruction": unsigned(COUNT_BITS),
            **({"expansion": expansion_layout(config)} if "blocks4" in config.features else {}),
        }
    )


def _waiting(layout: data.StructLayout, *counters: str) -> data.StructLayout:
    """A unit's order with the counts it waits for."""
    return data.StructLayout({**{f"until_{c}": unsigned(CLASS_BITS) for c in counters}, "order": layout})


def dispatch(
    m: Module, config: Config, fetch: Fetch, length: Value, stop: Value
) -> tuple[dict[str, stream.Interface], dict[str, Signal]]:
    """Give each instruction to the queues of the units that take part in it, unless told to `stop`.

    Returns
    -------
    heads : dict of streams
        The queues' ends: ``loads``, ``windows``, ``matrix``, ``results``, ``norms``.
    issued : dict of Signals
        How many instructions of each class were given.
    """
    bits = fetch.instructions.payload.bits
    number = fetch.instructions.payload.number
    opcode = _fields(bits, Opcode.HALT)["opcode"]
    product = _fields(bits, Opcode.PRODUCT)
    load = _fields(bits, Opcode.LOAD)
    norm = _fields(bits, Opcode.NORM)
    is_product, is_scores, is_context = (opcode == o for o in (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT))
    multiplies = is_product | is_scores | is_context
    gives = multiplies & ~product["unfinished"]

    layouts: Mapping[str, tuple[data.StructLayout, Value]] = {
        "loads": (_waiting(load_order_layout(config), "matrix", "products", "norms"), opcode == Opcode.LOAD),
        "windows": (_waiting(window_order_layout(config), "products", "norms"), multiplies),
        "matrix": (_matrix_layout(config), multiplies),
        "results": (result_order_layout(config), gives),
        "norms": (_waiting(norm_order_layout(config), "products", "norms"), opcode == Opcode.NORM),
    }
    heads: dict[str, stream.Interface] = {}
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
    ready, go = Signal(), Signal()
    # No instruction is given while one that waits at a queue's end is so old that counts could pass it by.
    older = [
        heads[n].valid & ((number - instruction)[:CLASS_BITS] > MOST_AGE)
        for n in ("loads", "windows", "matrix", "norms")
        for instruction in [(heads[n].payload if n == "matrix" else heads[n].payload.order).instruction]
    ]
    m.d.comb += [
        ready.eq(Cat(queues[n].w_rdy | ~used for n, (_, used) in layouts.items()).all() & ~Cat(older).any()),
        fetch.instructions.ready.eq(go),
    ]
    # Looked at in one cycle, given in the next: what was free stays free.
    m.d.sync += go.eq(fetch.instructions.valid & ready & ~stop & ~go)
    m.d.comb += [queues[n].w_en.eq(go & used) for n, (_, used) in layouts.items()]

    issued = {name: Signal(CLASS_BITS, name=f"issued_{name}") for name in WAITS}
    until = {}
    for name, count in issued.items():
        event = Cat(opcode == o for o in COUNTED[name]).any() & (~product["unfinished"] if name == "products" else 1)
        m.d.sync += count.eq(count + (go & event))
        wait = load[f"wait_{name}"]  # the same bits in all
        distance = Cat(wait, wait == 0)
        assert len(distance) == WAIT_BITS + 1
        until[name] = Signal(CLASS_BITS, name=f"until_{name}")
        m.d.comb += until[name].eq(count + 1 - distance)
    for name, waited in (
        ("loads", ("matrix", "products", "norms")), ("windows", ("products", "norms")), ("matrix", ("loads",)),
        ("norms", ("products", "norms")),
    ):  # fmt: skip
        m.d.comb += [entries[name][f"until_{c}"].eq(until[c]) for c in waited]

    entry = entries["loads"]
    m.d.comb += [entry.order[f].eq(load[f]) for f in ("target", "destination", "address", "beats", "rows", "stride")]
    m.d.comb += entry.order.instruction.eq(number)
    entry = entries["windows"]
    m.d.comb += [
        entry.order.probabilities.eq(is_context),
        entry.order.address.eq(product["window_address"]),
        entry.order.beats.eq(product["window_beats"]),
        entry.order.instruction.eq(number),
    ]
    entry = entries["matrix"]
    command = entry.command
    m.d.comb += [
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
    if "blocks4" in config.features:
        how, expansion = product["value_format"], entry.expansion
        m.d.comb += [expansion.blocks.eq(how != ValueFormat.INT8), expansion.run.eq(product["run"])]
        if "wide_blocks" in config.abilities:
            m.d.comb += expansion.wide.eq(how == ValueFormat.WIDE_BLOCKS4)
    entry = entries["results"]
    m.d.comb += [
        entry.mode.eq(product["result"]),
        entry.scores.eq(is_scores),
        entry.seconds.eq(is_product),
        entry.columns.eq(product["columns"]),
        entry.address.eq(product["result_address"]),
        entry.residual_address.eq(product["residual_address"]),
        *(entry[f].eq(product[f]) for f in ("rows_before", "rows_after")),
        entry.block.depth.eq(product["columns"] >> (config.groups.bit_length() - 1)),
        entry.block.keys.eq(Mux(product["mask"] == Mask.LENGTH, length, product["keys"])),
        entry.block.start.eq(product["key_start"]),
        entry.block.first.eq(product["row_first"]),
        entry.block.last.eq(product["row_last"]),
        entry.block.gain.eq(product["gain"]),
        entry.block.coarse.eq(product["coarse"]),
        entry.instruction.eq(number),
    ]
    for feature, flag in (("gate", "multiply"), ("rotary", "rotate")):
        if feature in config.features:
            m.d.comb += entry[flag].eq(product[flag])
    if "best" in config.features:
        seconds = is_product & (product["result"] != Result.BEST)
        m.d.comb += [entry.seconds.eq(seconds), entries["matrix"].feed.seconds.eq(seconds)]
    if config.window_words:
        m.d.comb += [entries["windows"].order[flag].eq(product[flag]) for flag in ("keep", "kept")]
    if "apart" in config.abilities:
        m.d.comb += entry.apart.eq(product["apart"])
    if "position" in config.features:
        place = product["place"]
        first = fetch.position[: len(entry.rows_before)]
        behind = (first + length)[: len(entry.rows_after)]
        m.d.comb += [
            entry.rows_before.eq(product["rows_before"] + Mux(place, first, 0)),
            entry.rows_after.eq(product["rows_after"] - Mux(place, behind, 0)),
        ]
    if "digits" in config.features:
        m.d.comb += [
            entries["matrix"].command.lift.eq(product["lift"]),
            entries["windows"].order.digit.eq(product["digit"]),
            entry.bits15.eq(product["bits15"]),
        ]
    if "causal" in config.features:
        m.d.comb += entry.block.causal.eq(product["mask"] == Mask.CAUSAL)
    entry = entries["norms"]
    m.d.comb += [
        *(entry.order[name].eq(norm[name]) for name, _ in norm_order_layout(config) if name in norm),
        entry.order.inverse.eq(Cat(norm["inverse"], norm["inverse_high"])),
        entry.order.instruction.eq(number),
    ]
    if "rms" in config.features:
        m.d.comb += entry.order.rms.eq(norm["kind"] == NormKind.RMS)

    return heads, issued
