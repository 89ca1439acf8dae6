"""Dispatch and the order of instructions: to which units each goes, and that none starts before what it waits for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from proofs_sequencer import steady
from streams import SMALL, answered, edit, stays

from sim.formal import Bench, Proof, Property
from sta_hw.rtl.control.fetch import instruction_layout
from sta_hw.rtl.primitives.layouts import command_layout
from sta_hw.rtl.primitives.sequencer import order_layout
from sta_hw.rtl.units.feeds import parameter_order_layout, window_order_layout
from sta_hw.rtl.units.loader import load_order_layout
from sta_hw.rtl.units.norm import norm_order_layout
from sta_hw.rtl.units.results import result_order_layout
from sta_hw.spec.config import Config
from sta_hw.spec.isa import WAITS, Opcode, formats

CONFIG = Config(**SMALL)
WIDER = Config(**(SMALL | {"rows": 8, "lanes": 8}))
LOOKS = {"loads": ("matrix", "products", "norms"), "windows": ("products", "norms"), "matrix": ("loads",),
         "norms": ("products", "norms")}  # fmt: skip
"""For what the instructions wait that each unit starts (docs/isa.md, Waiting)."""
PRODUCTS = (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)
STARTS = ("loads", "windows", "matrix", "results", "norms")
TARGETS = ("command", "values", "positions", "parameters", "feed")
"""Of a product that starts in the array: who gets a part of it."""


class Ordered(wiring.Component):
    """Dispatch and the core's order of starts, with units of which nothing is there but their orders and their ends."""

    def __init__(self, dispatch: Any, core_order: Any) -> None:
        self.dispatch, self.core_order = dispatch, core_order
        self.orders = {
            "loads": load_order_layout(CONFIG), "windows": window_order_layout(CONFIG), "norms": norm_order_layout(CONFIG),
            "results": result_order_layout(CONFIG), "command": command_layout(CONFIG), "values": order_layout(4),
            "positions": order_layout(1), "parameters": order_layout(1), "feed": parameter_order_layout(),
        }  # fmt: skip
        super().__init__(
            {
                "instructions": In(stream.Signature(instruction_layout())),
                "stop": In(1), "length": In(16),
                **{name: Out(stream.Signature(layout)) for name, layout in self.orders.items()},
                **{f"{name}_done": In(1) for name in WAITS},
                "matrix_go": Out(1), "matrix_number": Out(16),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetch = SimpleNamespace(instructions=self.instructions)
        heads, _ = self.dispatch.dispatch(m, CONFIG, fetch, self.length, self.stop)
        status = stream.Signature(unsigned(6)).create(path=("status",))
        m.d.comb += status.valid.eq(self.matrix_done)
        zero = Const(0, 1)
        units = SimpleNamespace(
            loader=SimpleNamespace(order=self.loads, done=self.loads_done),
            engine=SimpleNamespace(command=self.command, status=status),
            **{name: SimpleNamespace(order=getattr(self, name)) for name in ("values", "positions", "parameters")},
            expander=None,
            windows=SimpleNamespace(order=self.windows), feed=SimpleNamespace(order=self.feed),
            results=SimpleNamespace(order=self.results, done=self.products_done, scored=zero, stored=zero),
            norm=SimpleNamespace(order=self.norms, done=self.norms_done),
        )  # fmt: skip
        completed = Signal(8, name="completed")
        assert set(self.core_order.in_order(m, CONFIG, heads, units, completed).done) == set(WAITS)
        head = heads["matrix"]
        m.d.comb += [self.matrix_go.eq(head.ready), self.matrix_number.eq(head.payload.instruction)]
        return m


def waits(bench: Bench) -> None:
    """Any instructions; one of them, any, is looked at. Units start and end what they like."""
    m = bench.m
    dut = Ordered(bench.load("control.dispatch", _QUEUE=4, MOST_AGE=2), bench.load("core_order"))
    inside = bench.block(dut)
    steady(bench, dut.instructions)
    bits, number = dut.instructions.payload.bits, dut.instructions.payload.number
    issues = dut.instructions.valid & dut.instructions.ready
    given = bench.register(16, "given")
    m.d.sync += given.eq(given + issues)
    bench.assume(number == given)

    def field(opcode: Opcode, name: str) -> Value:
        at, f = formats(opcode).places[name]
        return bits[at : at + f.width]

    opcode = field(Opcode.HALT, "opcode")
    is_load, is_norm = opcode == Opcode.LOAD, opcode == Opcode.NORM
    is_product: Value = Const(0, 1)
    for o in PRODUCTS:
        is_product |= opcode == o
    bench.assume(~dut.instructions.valid | is_load | is_norm | is_product)
    finishes = is_product & ~field(Opcode.PRODUCT, "unfinished")
    classes = {"loads": is_load, "matrix": is_product, "products": finishes, "norms": is_norm}
    units = {"loads": is_load, "windows": is_product, "matrix": is_product, "results": finishes, "norms": is_norm}
    wait = {c: field(Opcode.LOAD, f"wait_{c}") for c in WAITS}
    issued = {c: bench.register(5, f"issued_of_{c}") for c in WAITS}
    ended = {c: bench.register(5, f"ended_of_{c}") for c in WAITS}
    for c in WAITS:
        m.d.sync += [issued[c].eq(issued[c] + (issues & classes[c])), ended[c].eq(ended[c] + getattr(dut, f"{c}_done"))]

    # The one that is looked at: its units and what it waits for, as it is given.
    one = bench.chosen(16, "one")
    there = bench.register(1, "there")
    mine = {u: bench.register(1, f"mine_{u}") for u in STARTS}
    before = {c: bench.register(5, f"before_{c}") for c in WAITS}
    allowed = {c: bench.register(6, f"allowed_{c}") for c in WAITS}
    with m.If(issues & (number == one)):
        m.d.sync += [there.eq(1), *(mine[u].eq(units[u]) for u in STARTS)]
        m.d.sync += [before[c].eq(issued[c]) for c in WAITS]
        m.d.sync += [allowed[c].eq(wait[c]) for c in WAITS]
    right: Value = Const(1, 1)
    in_turn: Value = Const(1, 1)
    young: Value = Const(1, 1)
    started = {}
    for u in STARTS:
        offer = None if u == "matrix" else getattr(dut, u)
        start = dut.matrix_go if offer is None else offer.valid & offer.ready
        which = dut.matrix_number if offer is None else offer.payload.instruction
        is_one = start & (which == one)
        started[u] = bench.register(1, f"started_{u}")
        with m.If(is_one):
            m.d.sync += started[u].eq(1)
        in_turn &= ~is_one | (there & mine[u] & ~started[u])
        in_turn &= ~(start & (which > one) & there & mine[u]) | started[u]
        if u in LOOKS:
            for c in LOOKS[u]:
                is_done = (allowed[c] == 0) | (ended[c] + allowed[c] > before[c])
                right &= ~is_one | is_done
            young &= ~(issues & there & mine[u] & ~started[u]) | (number - one <= 2)
    bench.holds("waits", right)
    bench.holds("in-turn", in_turn)
    room: Value = Const(1, 1)
    for u in STARTS:
        queue = inside.sub(f"{u}_instructions")
        room &= ~queue["w_en"] | queue["w_rdy"]
    bench.holds("room", room)
    bench.holds("not-too-old", young)
    bench.holds("stop", ~issues | ~bench.past(dut.stop))
    stable: Value = Const(1, 1)
    for u in ("loads", "windows", "results", "norms"):
        stable &= stays(bench, getattr(dut, u))
    bench.holds("stable", stable)
    order = {t: getattr(dut, t) for t in TARGETS}
    sparse = order["command"].payload.encoding.as_value() != 0
    finishing = ~order["command"].payload.unfinished
    by_columns = finishing & ~order["feed"].payload.totals
    used = {"command": 1, "values": 1, "positions": sparse, "parameters": by_columns, "feed": finishing}
    together: Value = Const(1, 1)
    for t in TARGETS:
        together &= order[t].valid == (dut.matrix_go & used[t])
        together &= ~order[t].valid | order[t].ready
    bench.holds("together", together)
    bench.reaches("waited", dut.loads.valid & dut.loads.ready & (dut.loads.payload.instruction == one) & (one == 2)
                  & (allowed["norms"] == 1) & (before["norms"] == 1) & (before["products"] == 1))  # fmt: skip
    bench.reaches("a-product", dut.matrix_go & started["windows"] & (one == 1) & sparse)


def counts(bench: Bench) -> None:
    """A count and what is waited for, both modulo 2^8."""
    core_order = bench.load("core_order")
    issued, done, allowed = bench.free(16, "issued"), bench.free(16, "done"), bench.free(6, "allowed")
    # No more than 62 of a class are under way; no more than 63 were given behind the one that waits.
    behind = bench.free(6, "behind")
    bench.assume((issued >= 64) & (issued < 60000) & (done <= issued + behind) & (done + 62 >= issued))
    until = (issued + 1 - Mux(allowed == 0, 64, allowed))[:8]
    waited = Signal()
    bench.m.d.comb += waited.eq(core_order._before(done[:8], until))
    bench.holds("counts", waited == ((allowed != 0) & (done + allowed <= issued)))
    bench.reaches("waits", waited & (issued[:8] < 4))
    bench.reaches("goes", ~waited & (issued[:8] < 4) & (allowed == 3))


def fetch(bench: Bench) -> None:
    """Any words in memory: a program or none."""
    m = bench.m
    # Two registers, not 16: each takes two cycles at the start.
    few = bench.load("control.decode", REGISTERS=2)
    dut = bench.load("control.fetch", WINDOW_LINES=2, REGISTERS=2, decode=few.decode).Fetch(WIDER)
    bench.block(dut)
    begun = bench.register(1, "begun")
    m.d.sync += begun.eq(begun | dut.start)
    bench.assume(~(begun & dut.start))
    bench.assume(~begun | (dut.address == bench.past(dut.address)))
    offer = dut.instructions
    taken, asked = bench.register(16, "taken"), bench.register(4, "lines_asked")
    run = dut.run.payload
    asks = dut.run.valid & dut.run.ready
    beats = 64 // WIDER.bus_bytes
    m.d.sync += [taken.eq(taken + (offer.valid & offer.ready)), asked.eq(asked + asks)]
    answered(bench, dut.run, dut.words, 6, beats)
    bench.holds("stable", stays(bench, offer))
    bench.holds("numbers", ~offer.valid | (offer.payload.number == taken))
    line = (run.address == (dut.address + (asked << 6))[:32]) & (run.beats == beats)
    bench.holds("lines", ~dut.run.valid | (begun & line))
    over = dut.illegal | dut.ended | (dut.error != 0)
    bench.holds("nothing-behind", ~over | ~offer.valid)
    was = [bench.past(x) for x in (dut.illegal, dut.ended, dut.error)]
    kinds = (dut.illegal + dut.ended + (dut.error != 0)) <= 1
    bench.holds(
        "stays", (~was[0] | dut.illegal) & (~was[1] | dut.ended) & ((was[2] == 0) | (dut.error == was[2])) & kinds
    )
    bench.reaches("header-wrong", dut.error != 0)
    bench.reaches("second", offer.valid & (taken == 1))
    bench.reaches("illegal", dut.illegal & (taken == 1))
    bench.reaches("ended", dut.ended)


DISPATCH, ORDER, FETCH, DECODE = "control.dispatch", "core_order", "control.fetch", "control.decode"
PROPERTIES = {
    "waits": Property(
        "An instruction starts only when of each class it waits for all but so many of those given before it have ended.",
        edit(DISPATCH, "until[name].eq(count + 1 - distance)", "until[name].eq(count - distance)"),
    ),
    "in-turn": Property(
        "It starts once in each unit that takes part in it, in no other, and not before one that was given ahead of it there.",
        edit(ORDER, "head.ready.eq(unit.order.ready & clear)", "head.ready.eq(unit.order.ready)"),
    ),
    "room": Property(
        "It is given only where all of its units have room for it.",
        edit(DISPATCH, "ready & ~stop & ~go", "ready & ~stop"),
    ),
    "not-too-old": Property(
        "None is given while one that much older waits in front of its unit (here 3 instructions, not 64).",
        edit(DISPATCH, "head.valid & ((number", "head.ready & ((number"),
    ),
    "stop": Property("From the cycle behind a stop on none is given.", edit(DISPATCH, "ready & ~stop & ~go", "ready & ~go")),
    "stable": Property(
        "An order that is offered to a unit and not taken stays, and stays what it is.",
        edit(ORDER, "clear.eq(head.valid & ~Cat(waits.values()).any() &", "clear.eq(~clear & ~Cat(waits.values()).any() &"),
    ),
    "together": Property(
        "A product starts in all parts of the array in one cycle, and in none of those that it does not use.",
        edit(ORDER, "target.valid.eq(go & used)", "target.valid.eq(head.valid & clear & used)"),
    ),
}  # fmt: skip
FETCHED = {
    "stable": Property(
        "An instruction that is offered and not taken stays, and stays what it is.",
        edit(DECODE, "at.there & ~full & ~at.illegal", "at.there & ~at.illegal"),
    ),
    "numbers": Property(
        "Instructions are numbered as they are taken.", edit(DECODE, "number.eq(number + 1)", "number.eq(number + 2)")
    ),
    "lines": Property(
        "The program's lines are asked for one after the other, each once, and none before the start.",
        edit(FETCH, "self.address + (asked << 6)", "self.address + (filled << 3)"),
    ),
    "nothing-behind": Property(
        "Behind the end, an illegal word or a wrong header no instruction is given.",
        edit(FETCH, "self.error.eq(Mux(known, Error.HARDWARE, Error.HEADER))\n                        m.next = \"FAILED\"",
             "self.error.eq(Mux(known, Error.HARDWARE, Error.HEADER))"),
    ),
    "stays": Property(
        "A program ends in one way, which stays.", edit(FETCH, "self.ended.eq(1)", "self.ended.eq(~arrived)")
    ),
}  # fmt: skip
PROOFS = (
    Proof(
        "fetch", "control/fetch.py", fetch, 26, FETCHED, method="bounded", setting="a ring of 2 lines, 2 registers, bus of 8 bytes",
        bound="any words in memory, for 26 cycles: the header and up to eight words", reach_depth=30,
    ),
    Proof(
        "waits", "control/dispatch.py", waits, 14, PROPERTIES, method="bounded", setting="queues of 4 instructions",
        bound="any instructions, starts and ends in any cycle, for 14 cycles: up to six instructions",
    ),
    Proof(
        "wait-counts", "core_order.py", counts, 1, {
            "counts": Property(
                "Counts modulo 2^8 say exactly whether what is waited for has ended, with 62 under way and 63 behind.",
                edit(ORDER, "[CLASS_BITS - 1]", "[CLASS_BITS - 2]"),
            ),
        }, setting="all counts", quick="all",
    ),
)  # fmt: skip
