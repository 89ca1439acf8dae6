"""Queues, register slices and credits: first in, first out, nothing lost, doubled or reordered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.formal import Bench, Edit, Proof, Property

BLOCK = "primitives/queue.py"
_COUNT = 8
"""Bits of the benches' counts of words: of more than any queue here holds, so that differences are exact."""


def edit(old: str, new: str) -> Edit:
    return Edit("sta_hw.rtl.primitives.queue", old, new)


def stream_checks(bench: Bench, dut: Any, most: int) -> tuple[Value, Value, Value, Value]:
    """Properties that queue and slice share.

    Returns the numbers of words that came out and that are inside, and the number and the value of the one looked at.
    """
    m = bench.m
    taken, given = dut.w_en & dut.w_rdy, dut.r_rdy & dut.r_en
    ins, outs = bench.register(_COUNT, "ins"), bench.register(_COUNT, "outs")
    m.d.sync += [ins.eq(ins + taken), outs.eq(outs + given)]
    # Any one word, by its number: what it was when it went in is what it must be when it comes out.
    number, word = bench.chosen(_COUNT, "number"), bench.register(dut.width, "word")
    with m.If(taken & (ins == number)):
        m.d.sync += word.eq(dut.w_data)
    held = (ins - outs)[:_COUNT]
    bench.holds("order", ~(dut.r_rdy & (outs == number)) | (dut.r_data == word))
    bench.holds("bound", (held <= most) & (~dut.r_rdy | (held != 0)))
    waits = bench.past(dut.r_rdy & ~dut.r_en)
    bench.holds("stable", ~waits | (dut.r_rdy & (dut.r_data == bench.past(dut.r_data))))
    bench.reaches("full", held == most)
    bench.reaches("empty-again", (outs == 2) & (held == 0))
    return outs, held, number, word


def queue(depth: int, block: bool) -> Callable[[Bench], None]:
    def fill(bench: Bench) -> None:
        # What is block RAM and what is not differs by a constant: small ones of both kinds are proved quickly.
        module = bench.load("primitives.queue", _BLOCK_DEPTH=depth if block else depth + 1)
        dut = module.Queue(width=2, depth=depth)
        inside = bench.block(dut)
        outs, held, number, word = stream_checks(bench, dut, dut.capacity)
        places = dut.capacity - (2 if block else 1)
        head, tail = inside["head_0"], inside["tail_0"]
        bits = len(head)
        in_memory = (tail - head)[:bits]
        fetched = inside["fetched"] if block else 0
        behind = dut.r_rdy + fetched
        storage = inside.sub("storage")
        bench.lemma((in_memory <= places) & (held == in_memory + behind))
        bench.lemma((inside["tail_1"] == (tail + 1)[:bits]) & (inside["head_1"] == (head + 1)[:bits]))
        bench.lemma(inside["some"] == (in_memory != 0))
        # Being full is seen a cycle late when a place becomes free.
        bench.lemma(((in_memory != places) | ~dut.w_rdy) & ((in_memory >= places - 1) | dut.w_rdy))
        # The word looked at is where its number says: in a register behind the memory, or in it.
        ahead = (number - outs)[:_COUNT]
        place = (ahead - behind)[:_COUNT]
        stored = storage.rows()[(head + place)[: bits - 1]]
        bench.lemma((ahead >= held) | (ahead < behind) | (stored == word))
        if block:
            read = dut_data(inside)
            bench.lemma(~(fetched & (ahead == dut.r_rdy) & (ahead < held)) | (read == word))
        wait = 3 if block else 2
        since = bench.register(range(wait + 1), "since")
        with bench.m.If((held == 0) | dut.r_rdy):
            bench.m.d.sync += since.eq(0)
        with bench.m.Else():
            bench.m.d.sync += since.eq(Mux(since == wait, wait, since + 1))
        bench.holds("gives", ~((since == wait - 1) & (held != 0)) | dut.r_rdy)
        bench.holds("takes", dut.w_rdy | (held >= places - 1))

    return fill


def dut_data(inside: Any) -> Value:
    """What a block queue's memory has read."""
    return inside.sub("storage")["read__data"]


def register_slice(bench: Bench) -> None:
    dut = bench.load("primitives.queue").RegisterSlice(2)
    inside = bench.block(dut)
    outs, held, number, word = stream_checks(bench, dut, 2)
    ahead = (number - outs)[:_COUNT]
    bench.lemma(held == dut.r_rdy + ~dut.w_rdy)
    bench.lemma(dut.w_rdy | dut.r_rdy)
    bench.lemma(~(~dut.w_rdy & (ahead == 1)) | (inside["spare"] == word))
    bench.holds("gives", (held == 0) | dut.r_rdy)
    bench.holds("takes", dut.w_rdy | (held == 2))


class Credits(wiring.Component):
    """`credits` as a component."""

    def __init__(self, module: Any, count: int) -> None:
        self.module, self.count = module, count
        super().__init__({"take": In(1), "give": In(1), "some": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.some.eq(self.module.credits(m, "room", self.count, self.take, self.give))
        return m


def credit(count: int) -> Callable[[Bench], None]:
    def fill(bench: Bench) -> None:
        dut = Credits(bench.load("primitives.queue"), count)
        inside = bench.block(dut)
        used = bench.register(8, "used")
        bench.m.d.sync += used.eq(used + dut.take - dut.give)
        bench.assume(~dut.take | dut.some)
        bench.assume(~dut.give | (used != 0))
        bench.lemma(inside["room_left"] == count - used)
        bench.holds("bound", used <= count)
        bench.holds("free", dut.some == (used != count))
        bench.reaches("all-used", used == count)
        bench.reaches("all-free-again", bench.past(used == 1) & (used == 0))

    return fill


ORDER = "The n-th word out is the n-th word in, for every n: nothing is lost, doubled or reordered."
BOUND = "It never holds more words than its capacity, and offers none that it does not hold."
STABLE = "A word that is offered and not taken stays, and stays what it is."


def queue_properties(block: bool, depth: int) -> dict[str, Property]:
    # Many words are long in coming: with few, it is one too many that is taken; else one that is not there is given.
    overfull = edit("self.w_rdy.eq(~((put & full[1]) | (~put & full[0])))", "self.w_rdy.eq(1)")
    invented = edit("some.eq(put | (get & left[1])", "some.eq(put | (get & left[0])")
    moves = (
        edit("move.eq(~self.r_rdy | self.r_en)", "move.eq(1)") if block
        else edit("get.eq(some & (~self.r_rdy | self.r_en))", "get.eq(some)")
    )  # fmt: skip
    wait = 3 if block else 2
    return {
        "order": Property(ORDER, edit("write.addr.eq(tails[0])", "write.addr.eq(tails[1])")),
        "bound": Property(BOUND, overfull if depth < 16 else invented),
        "stable": Property(STABLE, moves),
        "gives": Property(
            f"A word is offered {wait} cycles after it went into an empty queue, at the latest.",
            edit("some.eq(put | (get", "some.eq((get"),
        ),
        "takes": Property(
            "It takes a word whenever two places of its memory are free.",
            edit("(put & full[1]) | (~put & full[0])", "put | full[0]"),
        ),
    }


SLICE_PROPERTIES = {
    "order": Property(ORDER, edit("given.eq(Mux(self.w_rdy, self.w_data, spare))", "given.eq(self.w_data)")),
    "bound": Property(BOUND, edit("self.w_rdy.eq(self.w_rdy & ~self.w_en)", "self.w_rdy.eq(1)")),
    "stable": Property(STABLE, edit("free.eq(~self.r_rdy | self.r_en)", "free.eq(1)")),
    "gives": Property(
        "A word is offered in the cycle after it went in.",
        edit("self.r_rdy.eq(self.w_en | ~self.w_rdy)", "self.r_rdy.eq((self.w_en & ~self.r_rdy) | ~self.w_rdy)"),
    ),
    "takes": Property(
        "It takes a word unless both registers are full.",
        edit("self.w_rdy.eq(self.w_rdy & ~self.w_en)", "self.w_rdy.eq(0)"),
    ),
}
CREDIT_PROPERTIES = {
    "bound": Property(
        "Never are more places in use than there are, if each is taken only while one is said to be free.",
        edit("((left == 1) & ~take)", "(left == 1)"),
    ),
    "free": Property(
        "A place is said to be free exactly while one is.", edit("some.eq(give | (left > 1)", "some.eq((left > 1)")
    ),
}

PROOFS = (
    *(
        Proof(
            f"queue-{'block-' if block else ''}{depth}", BLOCK, queue(depth, block), 3, queue_properties(block, depth),
            setting=f"{depth} words of 2 bits, {'block' if block else 'LUT'} RAM", quick="all" if depth == 4 and not block else "",
            reach_depth=2 * depth + 20,
        )
        for depth, block in ((4, False), (16, False), (4, True), (64, True))
    ),
    Proof("slice", BLOCK, register_slice, 3, SLICE_PROPERTIES, setting="2 bits", quick="all"),
    *(
        Proof(f"credits-{n}", BLOCK, credit(n), 2, CREDIT_PROPERTIES, setting=f"{n} places", quick="all" if n == 8 else "")
        for n in (1, 8)
    ),
)  # fmt: skip
