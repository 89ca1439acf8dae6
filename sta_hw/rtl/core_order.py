"""The order in which the core's units work: counters of finished work, and what each next instruction waits for.

In: the next instruction of each unit, and what units finish. Out: orders to units, each no sooner than all that its
instruction waits for is finished; a product goes to all parts of the array in one cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import stream

from ..spec.config import Config
from ..spec.isa import WAITS
from ..spec.registers import COMPLETIONS
from .core_parts import Units
from .primitives.layouts import CLASS_BITS, COUNT_BITS, Encoding
from .primitives.queue import Queue

__all__ = ["Order", "in_order"]


@dataclass(frozen=True)
class Order:
    """What is known of the order in which units work.

    Attributes
    ----------
    done : dict of Signal
        Finished work of each class of `WAITS`, CLASS_BITS wide.
    window_waits : dict of Value
        For which classes the next windows wait.
    loads_wait : Signal
        The next product waits for a LOAD.
    fault, instruction : Signal
        The engine has met a fault; in which instruction.
    """

    done: Mapping[str, Signal]
    window_waits: Mapping[str, Value]
    loads_wait: Signal
    fault: Signal
    instruction: Signal


def in_order(
    m: Module, config: Config, heads: Mapping[str, stream.Interface], units: Units, completed: Signal
) -> Order:
    """Let an instruction into its unit when what it waits for is finished; count what is, and give it as `completed`.

    `heads` are the next instructions of each unit (`dispatch`), `completed` has the bits of `COMPLETIONS`.
    """
    loader, results, norm = units.loader, units.results, units.norm
    done = {name: Signal(CLASS_BITS, name=f"done_{name}") for name in WAITS}
    loaded = Signal()
    m.d.sync += [
        loaded.eq(loader.done),
        done["loads"].eq(done["loads"] + loaded),
        done["products"].eq(done["products"] + results.done),
        done["norms"].eq(done["norms"] + norm.done),
    ]
    all_waits = _admit(m, heads, units, done)
    m.d.comb += [
        results.order.payload.eq(heads["results"].payload),
        results.order.valid.eq(heads["results"].valid),
        heads["results"].ready.eq(results.order.ready),
    ]
    head, status = heads["matrix"], units.engine.status
    waits = _before(done["loads"], head.payload.until_loads)
    loads_wait = Signal()
    m.d.comb += loads_wait.eq(head.valid & waits)
    m.d.comb += completed.eq(COMPLETIONS.pack(_finished(config, units)))
    number = _admit_products(m, head, units, waits)
    m.d.sync += done["matrix"].eq(done["matrix"] + status.valid)
    fault, instruction = (Signal(width) for width in (1, COUNT_BITS))
    with m.If(status.valid & (status.payload != 0) & ~fault):
        m.d.sync += [fault.eq(1), instruction.eq(number)]
    return Order(done, all_waits["windows"], loads_wait, fault, instruction)


def _before(count: Value, until: Value) -> Value:
    """Whether a count has not reached another: they are no further apart than half of all counts."""
    return (count - until)[CLASS_BITS - 1]


def _admit(
    m: Module, heads: Mapping[str, stream.Interface], units: Units, done: Mapping[str, Signal]
) -> dict[str, dict[str, Value]]:
    """LOADs, windows and NORMs: into their units, each when all that it waits for is finished.

    Returns by unit, and by class of work, whether the next one waits for that.
    """
    all_waits = {}
    for name, unit in (("loads", units.loader), ("windows", units.windows), ("norms", units.norm)):
        head = heads[name]
        clear = Signal(name=f"{name}_clear")  # a cycle late: what is finished stays so
        waits = {
            f[6:]: _before(done[f[6:]], head.payload[f]) for f, _ in head.payload.shape() if f.startswith("until_")
        }
        m.d.sync += clear.eq(head.valid & ~Cat(waits.values()).any() & ~(head.valid & head.ready))
        m.d.comb += [
            unit.order.payload.eq(head.payload.order),
            unit.order.valid.eq(head.valid & clear),
            head.ready.eq(unit.order.ready & clear),
        ]
        all_waits[name] = waits
    return all_waits


def _admit_products(m: Module, head: stream.Interface, units: Units, waits: Value) -> Value:
    """A product through the array: into all units that it takes at once, unless it `waits` for a LOAD.

    Returns the number of the product whose status the engine gives next.
    """
    engine, order = units.engine, head.payload
    # Instruction numbers of the products in the array, for its faults.
    numbers = m.submodules.numbers = Queue(width=COUNT_BITS, depth=16)
    sparse = order.command.encoding.as_value() != Encoding.DENSE
    finishing = ~order.command.unfinished
    by_columns = finishing & ~order.feed.totals
    targets = [
        (engine.command, order.command, 1),
        (units.values.order, order.values, 1),
        (units.positions.order, order.positions, sparse),
        (units.parameters.order, order.parameters, by_columns),
        (units.feed.order, order.feed, finishing),
    ]
    if units.expander is not None:
        targets.append((units.expander.order, order.expansion, 1))
    clear = Signal()
    go = Signal()
    m.d.sync += clear.eq(head.valid & ~waits & ~go)
    m.d.comb += [
        go.eq(
            head.valid & clear & numbers.w_rdy
            & Cat(target.ready | ~Value.cast(used) for target, _, used in targets).all()
        ),
        head.ready.eq(go),
        numbers.w_en.eq(go),
        numbers.w_data.eq(order.instruction),
    ]  # fmt: skip
    for target, payload, used in targets:
        m.d.comb += [
            Value.cast(target.payload).eq(Value.cast(payload)),
            target.valid.eq(go & used),
        ]
    m.d.comb += [engine.status.ready.eq(1), numbers.r_en.eq(engine.status.valid)]
    return numbers.r_data


def _finished(config: Config, units: Units) -> dict[str, Value]:
    """What is finished in this cycle, by the names of `COMPLETIONS`."""
    results = units.results
    return {
        "loads": units.loader.done,
        "matrix": units.engine.status.valid,
        "scores": results.scored,
        "stores": results.stored | results.listed if "best" in config.features else results.stored,
        "norms": units.norm.done,
    }
