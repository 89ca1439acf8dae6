"""Gearboxes and streamed memories: each part of each word, once, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Array, Cat, Mux, Signal, Value

from sim.formal import Bench, Edit, Proof, Property

BLOCK = "primitives/sequencer.py"


def edit(old: str, new: str) -> Edit:
    return Edit("sta_hw.rtl.primitives.sequencer", old, new)


def steady(bench: Bench, stream: Any) -> None:
    """What a block may expect of a stream that it reads: an offer that was not taken stays."""
    waits = bench.past(stream.valid & ~stream.ready)
    payload = Value.cast(stream.payload)
    bench.assume(~waits | (stream.valid & (payload == bench.past(payload))))


def narrowing(parts: int) -> Callable[[Bench], None]:
    """Wide words come in; their parts go out."""

    def fill(bench: Bench) -> None:
        m = bench.m
        dut = bench.load("primitives.sequencer").Gearbox(2 * parts, 2)
        inside = bench.block(dut)
        steady(bench, dut.source)
        part = bench.register(range(parts), "expected_part")
        moves = dut.target.valid & dut.target.ready
        with m.If(dut.flush):
            m.d.sync += part.eq(0)
        with m.Elif(moves):
            m.d.sync += part.eq(Mux(part == parts - 1, 0, part + 1))
        bench.lemma(inside["part"] == part)
        taken = dut.source.valid & dut.source.ready
        bench.holds("parts", ~dut.target.valid | (dut.target.payload == dut.source.payload.word_select(part, 2)))
        bench.holds("whole", dut.flush | (taken == (moves & (part == parts - 1))))
        bench.holds("offered", dut.flush | (dut.target.valid == dut.source.valid))
        bench.holds("flush", ~dut.flush | (~moves & (taken == (dut.source.valid & (part != 0)))))
        bench.reaches("a-whole-word", taken & ~dut.flush)
        bench.reaches("a-rest-dropped", taken & dut.flush)

    return fill


def widening(parts: int) -> Callable[[Bench], None]:
    """Narrow words come in; what they make together goes out."""

    def fill(bench: Bench) -> None:
        m = bench.m
        dut = bench.load("primitives.sequencer").Gearbox(2, 2 * parts)
        inside = bench.block(dut)
        steady(bench, dut.source)
        taken = dut.source.valid & dut.source.ready
        moves = dut.target.valid & dut.target.ready
        part = bench.register(range(parts), "expected_part")
        words = [bench.register(2, f"expected_{i}") for i in range(parts)]
        due = bench.register(1, "due")
        with m.If(taken):
            m.d.sync += [part.eq(part + 1), Array(words)[part].eq(dut.source.payload)]
        m.d.sync += due.eq((taken & (part == parts - 1)) | (due & ~moves))
        with m.If(dut.flush):
            m.d.sync += [part.eq(0), due.eq(0)]
        bench.lemma(inside["part"] == part)
        for i, word in enumerate(words):
            # The parts there are stand at the upper end; all of them while a word is due.
            place = Mux(due, i, parts + i - part)
            bench.lemma(~(due | (i < part)) | (inside["word"].word_select(place[: len(part)], 2) == word))
        bench.lemma(~due | (part == 0))
        whole = Cat(words)
        bench.holds("parts", ~dut.target.valid | (dut.target.payload == whole))
        bench.holds("whole", dut.target.valid == due)
        bench.holds("takes", dut.flush | (dut.source.ready == (~due | dut.target.ready)))
        bench.holds("flush", ~dut.flush | ~taken)
        bench.reaches("a-whole-word", moves)
        bench.reaches("a-rest-dropped", dut.flush & (part != 0))

    return fill


def streamed(levels: int) -> Callable[[Bench], None]:
    """One word of memory is looked at; orders of any bases, counts and strides read it or others."""

    def fill(bench: Bench) -> None:
        m = bench.m
        dut = bench.load("primitives.sequencer").StreamedMemory(2, 4, levels)
        inside = bench.block(dut)
        steady(bench, dut.order)
        order = dut.order.payload
        # Small counts: 1 to 3 each, so that several orders end within the bound.
        for level in range(levels):
            bench.assume((order[f"count{level}"] >= 1) & (order[f"count{level}"] <= 3))
            bench.assume(order[f"stride{level}"] < 4)
        bench.assume(order.base < 4)
        place, word = bench.chosen(2, "place"), bench.chosen(2, "stored")
        written = bench.register(1, "written")
        touched = dut.write_enable & (dut.write_address == place)
        bench.assume(~touched | (dut.write_data == word))
        with m.If(touched):
            m.d.sync += written.eq(1)
        # Written before it is read, as loads are waited for.
        taken = dut.order.valid & dut.order.ready
        bench.assume(~taken | written)

        # Orders as they were taken, and what the words must be: for loops, written out anew.
        size = 2
        firsts = [bench.register(order.shape(), f"order_{i}") for i in range(size)]
        head, tail = bench.register(3, "order_head"), bench.register(3, "order_tail")
        with m.If(taken):
            for i, kept in enumerate(firsts):
                with m.If(tail[0] == i):
                    m.d.sync += kept.eq(order)
            m.d.sync += tail.eq(tail + 1)
        now = Signal(order.shape())
        raw = Array(Value.cast(k) for k in firsts)[head[0]]
        m.d.comb += Value.cast(now).eq(raw)
        index = [bench.register(2, f"index_{i}") for i in range(levels)]
        address: Value = now.base[:2]
        for level in range(levels):
            stride = now[f"stride{level}"][:2]
            times = Mux(index[level] == 2, stride << 1, Mux(index[level] == 1, stride, 0))
            address = (address + times)[:2]
        given = dut.words.valid & dut.words.ready
        at_end: Value = Value.cast(1)
        for level in range(levels):
            last = index[level] == now[f"count{level}"] - 1
            with m.If(given & at_end):
                m.d.sync += index[level].eq(Mux(last, 0, index[level] + 1))
            at_end = at_end & last
        with m.If(given & at_end):
            m.d.sync += head.eq(head + 1)
        bench.assume((tail - head)[:3] <= size)
        bench.holds(
            "words", ~dut.words.valid | ((tail != head) & ((address != place) | (dut.words.payload.word == word)))
        )
        bench.holds("last", ~dut.words.valid | (dut.words.payload.last == at_end))
        waits = bench.past(dut.words.valid & ~dut.words.ready)
        payload = Value.cast(dut.words.payload)
        bench.holds("stable", ~waits | (dut.words.valid & (payload == bench.past(payload))))
        queue = inside.sub("queue")
        bench.holds("room", ~queue["w_en"] | queue["w_rdy"])
        bench.reaches("an-end", given & at_end & (index[0] == 1))
        bench.reaches("two-orders", given & (head == 2))

    return fill


PARTS = "Each part that is offered is the one of its word that is next, the low one first."
NARROWING = {
    "parts": Property(PARTS, edit("part.eq(part + 1)\n        else:", "part.eq(part + 2)\n        else:")),
    "whole": Property(
        "A word is taken with its last part, and never before: none is lost or doubled.",
        edit("target.ready & (part == parts - 1))", "target.ready & (part >= parts - 2))"),
    ),
    "offered": Property(
        "A part is offered whenever a word is.",
        edit(
            "target.valid.eq(source.valid & ~self.flush)", "target.valid.eq(source.valid & ~self.flush & target.ready)"
        ),
    ),
    "flush": Property(
        "A flush gives nothing, and drops a word exactly if parts of it are out.",
        edit("Mux(self.flush, part != 0,", "Mux(self.flush, 1,"),
    ),
}
WIDENING = {
    "parts": Property(
        "Each word that is offered is made of the parts that came since the last, the first one lowest.",
        edit("Cat(word, source.payload)[self.source_bits :]", "Cat(source.payload, word)[: self.target_bits]"),
    ),
    "whole": Property(
        "A word is offered from the cycle after its last part on until it is taken, and at no other time.",
        edit("full.eq(part == parts - 1)", "full.eq(part >= parts - 2)"),
    ),
    "takes": Property(
        "A part is taken whenever no word waits for a reader that does not take it.",
        edit("(~full | target.ready) & ~self.flush", "~full & ~self.flush"),
    ),
    "flush": Property("A flush takes nothing.", edit("(~full | target.ready) & ~self.flush", "(~full | target.ready)")),
}
STREAMED = {
    "words": Property(
        "Each word is that of the address which the order's counters give, innermost first, in order; any word of the memory is looked at.",
        edit("(bases[-1] + strides[-1])", "(bases[-1] + strides[0])"),
    ),
    "last": Property(
        "The last word of an order is marked, and no other.", edit("single.eq(count == 1)]", "single.eq(0)]")
    ),
    "stable": Property(
        "A word that is offered and not taken stays, and stays what it is.",
        edit("queue.r_en.eq(self.words.ready)", "queue.r_en.eq(1)"),
    ),
    "room": Property(
        "What was read from the memory always has a place in the queue behind it.",
        edit('credits(m, "room", _QUEUE_DEPTH, step,', 'credits(m, "room", _QUEUE_DEPTH + 9, step,'),
    ),
}

PROOFS = (
    *(
        Proof(f"gearbox-{2 * n}-to-2", BLOCK, narrowing(n), 2, NARROWING, setting=f"{n} parts of 2 bits", quick="all" if n == 4 else "")
        for n in (2, 4, 16)
    ),
    *(
        Proof(f"gearbox-2-to-{2 * n}", BLOCK, widening(n), 2, WIDENING, setting=f"{n} parts of 2 bits")
        for n in (2, 4, 16)
    ),
    Proof(
        "streamed-memory", BLOCK, streamed(2), 18, STREAMED, method="bounded", setting="2 counters, 4 words of 2 bits",
        bound="orders of up to 9 words, bases and strides of 0 to 3, any stalls, for 18 cycles",
    ),
)  # fmt: skip
