"""Dispatch of instructions: each to the queues of the units that take part in it, with the counts it waits for.

What an instruction waits for is relative: all but the last so many of a class that were issued before it. What is
queued with it is the count of that class at which it may go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream

from ...spec.config import Config
from ...spec.expansion import MOST_AGE
from ...spec.isa import COUNTED, UNIT_WAITS, WAIT_BITS, WAITS, Mask, NormKind, Opcode, Result, ValueFormat, formats
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
_Entry: TypeAlias = "data.View[data.StructLayout]"
_Entries: TypeAlias = "Mapping[str, _Entry]"


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


def _waiting(layout: data.StructLayout, unit: str) -> data.StructLayout:
    """A unit's order with the counts it waits for."""
    return data.StructLayout({**{f"until_{c}": unsigned(CLASS_BITS) for c in UNIT_WAITS[unit]}, "order": layout})


class _Given:
    """The instruction that is given: its fields as each kind has them, and what it is."""

    def __init__(self, config: Config, fetch: Fetch) -> None:
        bits = fetch.instructions.payload.bits
        self.number = fetch.instructions.payload.number
        self.position = fetch.position if "position" in config.features else Const(0)
        self.opcode = _fields(bits, Opcode.HALT)["opcode"]
        self.product = _fields(bits, Opcode.PRODUCT)
        self.load = _fields(bits, Opcode.LOAD)
        self.norm = _fields(bits, Opcode.NORM)
        self.is_product, self.is_scores, self.is_context = (
            self.opcode == o for o in (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)
        )
        self.multiplies = self.is_product | self.is_scores | self.is_context


@dataclass(frozen=True)
class _UnitQueue:
    """A unit's queue of instructions.

    Attributes
    ----------
    takes : Value
        Whether the unit takes part in the instruction that is given.
    entry : View
        What is queued of it.
    head : stream
        To the unit.
    """

    queue: Queue
    takes: Value
    entry: _Entry
    head: stream.Interface


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
    given = _Given(config, fetch)
    queues = _queues(m, config, given)
    entries = {name: unit.entry for name, unit in queues.items()}
    go = _give(m, queues, fetch, stop)
    issued = _counts(m, given, go, entries)
    _order_loads(m, given, entries["loads"])
    _order_windows(m, given, entries["windows"])
    _order_matrix(m, config, given, entries["matrix"])
    _order_results(m, config, given, entries["results"], length)
    _order_features(m, config, given, entries, length)
    _order_norms(m, config, given, entries["norms"])
    return {name: unit.head for name, unit in queues.items()}, issued


def _queues(m: Module, config: Config, given: _Given) -> dict[str, _UnitQueue]:
    gives = given.multiplies & ~given.product["unfinished"]
    layouts: Mapping[str, tuple[data.StructLayout, Value]] = {
        "loads": (_waiting(load_order_layout(config), "loads"), given.opcode == Opcode.LOAD),
        "windows": (_waiting(window_order_layout(config), "windows"), given.multiplies),
        "matrix": (_matrix_layout(config), given.multiplies),
        "results": (result_order_layout(config), gives),
        "norms": (_waiting(norm_order_layout(config), "norms"), given.opcode == Opcode.NORM),
    }
    found = {}
    for name, (layout, takes) in layouts.items():
        queue = m.submodules[f"{name}_instructions"] = Queue(width=layout.size, depth=_QUEUE)
        entry = Signal(layout, name=f"{name}_entry")
        head = stream.Signature(layout).create(path=(f"{name}_head",))
        m.d.comb += [
            queue.w_data.eq(entry),
            head.payload.eq(queue.r_data),
            head.valid.eq(queue.r_rdy),
            queue.r_en.eq(head.ready),
        ]
        found[name] = _UnitQueue(queue, takes, entry, head)
    return found


def _give(m: Module, queues: Mapping[str, _UnitQueue], fetch: Fetch, stop: Value) -> Signal:
    """Whether the instruction is given in this cycle, to all queues at once."""
    ready, go = Signal(), Signal()
    number = fetch.instructions.payload.number
    # No instruction is given while one that waits at a queue's end is so old that counts could pass it by.
    older = [
        head.valid & ((number - instruction)[:CLASS_BITS] > MOST_AGE)
        for name, head in ((name, queues[name].head) for name in UNIT_WAITS)
        for instruction in [(head.payload if name == "matrix" else head.payload.order).instruction]
    ]
    m.d.comb += [
        ready.eq(Cat(unit.queue.w_rdy | ~unit.takes for unit in queues.values()).all() & ~Cat(older).any()),
        fetch.instructions.ready.eq(go),
    ]
    # Looked at in one cycle, given in the next: what was free stays free.
    m.d.sync += go.eq(fetch.instructions.valid & ready & ~stop & ~go)
    m.d.comb += [unit.queue.w_en.eq(go & unit.takes) for unit in queues.values()]
    return go


def _counts(m: Module, given: _Given, go: Value, entries: _Entries) -> dict[str, Signal]:
    """How many instructions of each class were given; and in each entry, the counts that it waits for."""
    issued = {name: Signal(CLASS_BITS, name=f"issued_{name}") for name in WAITS}
    until = {}
    for name, count in issued.items():
        last = ~given.product["unfinished"] if name == "products" else 1
        event = Cat(given.opcode == o for o in COUNTED[name]).any() & last
        m.d.sync += count.eq(count + (go & event))
        wait = given.load[f"wait_{name}"]  # the same bits in all
        distance = Cat(wait, wait == 0)
        assert len(distance) == WAIT_BITS + 1
        until[name] = Signal(CLASS_BITS, name=f"until_{name}")
        m.d.comb += until[name].eq(count + 1 - distance)
    for name, waited in UNIT_WAITS.items():
        m.d.comb += [entries[name][f"until_{c}"].eq(until[c]) for c in waited]
    return issued


def _order_loads(m: Module, given: _Given, entry: _Entry) -> None:
    fields = ("target", "destination", "address", "beats", "rows", "stride")
    m.d.comb += [entry.order[f].eq(given.load[f]) for f in fields]
    m.d.comb += entry.order.instruction.eq(given.number)


def _order_windows(m: Module, given: _Given, entry: _Entry) -> None:
    m.d.comb += [
        entry.order.probabilities.eq(given.is_context),
        entry.order.address.eq(given.product["window_address"]),
        entry.order.beats.eq(given.product["window_beats"]),
        entry.order.instruction.eq(given.number),
    ]


def _order_matrix(m: Module, config: Config, given: _Given, entry: _Entry) -> None:
    product, is_context, command = given.product, given.is_context, entry.command
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
        entry.feed.seconds.eq(given.is_product),
        entry.instruction.eq(given.number),
    ]
    if "blocks4" in config.features:
        how, expansion = product["value_format"], entry.expansion
        m.d.comb += [expansion.blocks.eq(how != ValueFormat.INT8), expansion.run.eq(product["run"])]
        if "wide_blocks" in config.abilities:
            m.d.comb += expansion.wide.eq(how == ValueFormat.WIDE_BLOCKS4)


def _order_results(m: Module, config: Config, given: _Given, entry: _Entry, length: Value) -> None:
    product, block = given.product, entry.block
    m.d.comb += [
        entry.mode.eq(product["result"]),
        entry.scores.eq(given.is_scores),
        entry.seconds.eq(given.is_product),
        entry.columns.eq(product["columns"]),
        entry.address.eq(product["result_address"]),
        entry.residual_address.eq(product["residual_address"]),
        *(entry[f].eq(product[f]) for f in ("rows_before", "rows_after")),
        block.depth.eq(product["columns"] >> (config.groups.bit_length() - 1)),
        block.keys.eq(Mux(product["mask"] == Mask.LENGTH, length, product["keys"])),
        block.start.eq(product["key_start"]),
        block.first.eq(product["row_first"]),
        block.last.eq(product["row_last"]),
        block.gain.eq(product["gain"]),
        block.coarse.eq(product["coarse"]),
        entry.instruction.eq(given.number),
    ]


def _order_features(m: Module, config: Config, given: _Given, entries: _Entries, length: Value) -> None:
    """What features add to the orders of a product's units; ``blocks4`` is the matrix's alone."""
    product, results = given.product, entries["results"]
    for feature, flag in (("gate", "multiply"), ("rotary", "rotate")):
        if feature in config.features:
            m.d.comb += results[flag].eq(product[flag])
    if "best" in config.features:
        seconds = given.is_product & (product["result"] != Result.BEST)
        m.d.comb += [results.seconds.eq(seconds), entries["matrix"].feed.seconds.eq(seconds)]
    if config.window_words:
        m.d.comb += [entries["windows"].order[flag].eq(product[flag]) for flag in ("keep", "kept")]
    if "apart" in config.abilities:
        m.d.comb += results.apart.eq(product["apart"])
    if "position" in config.features:
        _order_rows(m, given, results, length)
    if "digits" in config.features:
        m.d.comb += [
            entries["matrix"].command.lift.eq(product["lift"]),
            entries["windows"].order.digit.eq(product["digit"]),
            results.bits15.eq(product["bits15"]),
        ]
    if "causal" in config.features:
        m.d.comb += results.block.causal.eq(product["mask"] == Mask.CAUSAL)


def _order_rows(m: Module, given: _Given, entry: _Entry, length: Value) -> None:
    """The rows that a result leaves out, moved by the position where the instruction says so."""
    product = given.product
    first = given.position[: len(entry.rows_before)]
    behind = (first + length)[: len(entry.rows_after)]
    m.d.comb += [
        entry.rows_before.eq(product["rows_before"] + Mux(product["place"], first, 0)),
        entry.rows_after.eq(product["rows_after"] - Mux(product["place"], behind, 0)),
    ]


def _order_norms(m: Module, config: Config, given: _Given, entry: _Entry) -> None:
    norm = given.norm
    m.d.comb += [
        *(entry.order[name].eq(norm[name]) for name, _ in norm_order_layout(config) if name in norm),
        entry.order.inverse.eq(Cat(norm["inverse"], norm["inverse_high"])),
        entry.order.instruction.eq(given.number),
    ]
    if "rms" in config.features:
        m.d.comb += entry.order.rms.eq(norm["kind"] == NormKind.RMS)
