"""The feeds of windows and of parameters: each product's words, from where it has them, in order."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Mux, Value
from proofs_sequencer import steady
from streams import STABLE, Kept, Pipe, answered, config, edit, goes_on, stays

from sim.formal import Bench, Proof, Property
from sta_hw.spec.parameters import COLUMN

FEEDS = "units.feeds"


def windows(words: int) -> Callable[[Bench], None]:
    """Windows of any products, from memory, from the softmax, or kept ones."""

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(window_words=words)
        dut = bench.load("units.feeds").WindowFeed(cfg)
        bench.block(dut)
        for offer in (dut.order, dut.words, dut.probabilities):
            steady(bench, offer)
        new = dut.order.payload
        bench.assume(new.beats <= 3)
        elsewhere = new.probabilities
        if words:
            elsewhere |= new.kept
            # As programs may have it: what is kept comes from memory, and has room.
            bench.assume(~(new.keep & (new.kept | new.probabilities)) & ~(new.kept & new.probabilities))
            bench.assume(new.address[:2] == 0)
        orders = Kept(bench, dut.order, 3)
        begun, place = bench.register(3, "begun"), bench.register(2, "place")
        number = begun
        for _ in range(2):  # those of no words are passed over at once
            number = number + ((number != orders.count) & (orders.at(number).beats == 0))
        number = number[:3]
        now = orders.at(number)
        under_way = number != orders.count
        asks = dut.run.valid & dut.run.ready
        run = dut.run.payload
        same = (run.address == new.address) & (run.beats == new.beats) & (run.instruction == new.instruction)
        accepts = dut.order.valid & dut.order.ready
        bench.holds("runs", (asks == (accepts & ~elsewhere)) & (~asks | same))
        owed = answered(bench, dut.run, dut.words, 4)
        takes = dut.words.valid & dut.words.ready

        given = dut.activations.valid & dut.activations.ready
        of_memory: Value = under_way & ~now.probabilities
        if words:
            of_memory &= ~now.kept
        of_softmax = under_way & now.probabilities
        softmax = dut.probabilities
        from_memory = Pipe(bench, 32, 4, "from_memory", takes, dut.words.payload, given & of_memory)
        from_softmax = Pipe(
            bench, 32, 4, "from_softmax", softmax.valid & softmax.ready, softmax.payload.as_value(), given & of_softmax
        )
        ends = under_way & given & (place == now.beats - 1)
        m.d.sync += [begun.eq(number + ends), place.eq(Mux(ends, 0, place + given))]
        word = dut.activations.payload.as_value()
        right = (of_memory & from_memory.some & (word == from_memory.head)) | (
            of_softmax & from_softmax.some & (word == from_softmax.head)
        )
        if words:
            # One place of the memory is looked at: all that is written there is the same word.
            at, stored = bench.chosen(2, "at"), bench.chosen(32, "stored")
            here = (now.address[2:4] + place)[:2]
            bench.assume(~(given & of_memory & now.keep & (here == at)) | (word == stored))
            was_stored = bench.register(1, "was_stored")
            with m.If(given & of_memory & now.keep & (here == at)):
                m.d.sync += was_stored.eq(1)
            kept = under_way & ~now.probabilities & now.kept
            right |= kept & ((here != at) | ~was_stored | (word == stored))
            bench.reaches("kept", given & kept & (here == at) & was_stored)
        bench.holds("words", ~dut.activations.valid | right)
        bench.holds("stable", stays(bench, dut.activations))
        waits = (dut.activations.valid & ~dut.activations.ready) | (dut.run.valid & ~dut.run.ready)
        waits |= (of_memory & ~dut.words.valid & (owed != 0)) | (of_softmax & ~softmax.valid)
        goes_on(bench, given | waits | ~under_way | accepts, 6)
        bench.reaches("both", given & (number == 2) & orders.at(Const(1)).probabilities & ~now.probabilities)
        bench.reaches("three", orders.count == 3)

    return fill


def parameters(bench: Bench) -> None:
    """Any products' orders; columns' words end where they are marked."""
    m = bench.m
    cfg = config()
    dut = bench.load("units.feeds").ParameterFeed(cfg)
    bench.block(dut)
    for offer in (dut.order, dut.words, dut.totals):
        steady(bench, offer)
    bench.assume(~(dut.order.payload.totals & dut.order.payload.seconds))  # a CONTEXT has none
    orders = Kept(bench, dut.order, 3)
    number, row = bench.register(3, "number"), bench.register(2, "row")
    now = orders.at(number)
    under_way = number != orders.count
    takes, totals = dut.words.valid & dut.words.ready, dut.totals.valid & dut.totals.ready
    bench.holds("takes", (~takes | (under_way & ~now.totals)) & (~totals | (under_way & now.totals)))
    with m.If(totals):
        m.d.sync += row.eq(row + 1)
    with m.If((totals & (row == cfg.rows - 1)) | (takes & dut.words.payload.last)):
        m.d.sync += [number.eq(number + 1), row.eq(0)]
    raw = dut.words.payload.word
    fields = {n: raw[at : at + f.width] for n, (at, f) in COLUMN.places.items()}
    total = dut.totals.payload
    given = dut.parameters.valid & dut.parameters.ready
    entry = Mux(
        takes,
        Cat(fields["bias"], fields["multiplier"], fields["shift"]),
        Cat(Const(0, 32), total.multiplier, total.shift),
    )
    pipe = Pipe(bench, 51, 3, "parameters", takes | totals, entry, given)
    found = dut.parameters.payload
    word = Cat(found.bias, found.multiplier, found.shift)
    bench.holds("parameters", ~dut.parameters.valid | (pipe.some & (word == pipe.head)))
    second = dut.seconds.valid & dut.seconds.ready
    seconds = Pipe(bench, 16, 6, "seconds", takes & now.seconds, fields["second"], second)
    bench.assume(seconds.count < 6)
    bench.holds("seconds", ~dut.seconds.valid | (seconds.some & (dut.seconds.payload == seconds.head)))
    bench.holds("stable", stays(bench, dut.parameters) & stays(bench, dut.seconds))
    waits = (dut.parameters.valid & ~dut.parameters.ready) | ~Mux(now.totals, dut.totals.valid, dut.words.valid)
    goes_on(bench, takes | totals | waits | ~under_way, 4)
    bench.reaches("of-both-kinds", totals & (number == 1) & (row == 3))
    bench.reaches("second", second)


WINDOWS = {
    "runs": Property(
        "Memory is asked for the windows of each product that has them there, once, as the product is taken.",
        edit(FEEDS, "self.order.ready.eq(queue.w_rdy & (elsewhere | self.run.ready))", "self.order.ready.eq(queue.w_rdy)"),
    ),
    "words": Property(
        "Each product's words come from where it has them, in order, as many as it has: none lost, doubled or mixed up.",
        edit(FEEDS, "last.eq(left == 2), active.eq(~last)", "last.eq(left == 1), active.eq(~last)"),
    ),
    "stable": Property(STABLE, edit(FEEDS, "output.r_en.eq(self.activations.ready),\n            self.waits",
                                    "output.r_en.eq(1),\n            self.waits")),
    "goes-on": Property(
        "A product whose words are there goes on within 6 cycles.",
        edit(FEEDS, "active.eq(beats != 0)]", "active.eq(beats > 1)]"),
    ),
}  # fmt: skip
KEPT = WINDOWS | {
    "words": Property(
        WINDOWS["words"].sentence + " Kept ones are those that were kept at their place.",
        edit(FEEDS, "with m.Elif(advance | (taken & keep)):", "with m.Elif(advance):"),
    ),
}
PARAMETERS = {
    "takes": Property(
        "Columns' parameters are taken for products by columns, totals for those by rows, one of each row.",
        edit(FEEDS, "Mux(order.totals, row == self.config.rows - 1,", "Mux(order.totals, row == self.config.rows - 2,"),
    ),
    "parameters": Property(
        "Each column's bias, multiplier and shift come out once, in order; of a row its multiplier and shift, and no bias.",
        edit(FEEDS, "given.shift.eq(self.totals.payload.shift)", "given.shift.eq(word.shift)"),
    ),
    "seconds": Property(
        "The second multipliers of products that want them come out, each once, in order, and no others.",
        edit(FEEDS, "self.words.valid & self.words.ready & order.seconds", "self.words.valid & self.words.ready"),
    ),
    "stable": Property(STABLE, edit(FEEDS, "output.r_en.eq(self.parameters.ready)", "output.r_en.eq(1)")),
    "goes-on": Property(
        "What is there is taken within 4 cycles, unless what it becomes is not.",
        edit(FEEDS, "wanted = orders.r_rdy & (~order.seconds | seconds.w_rdy)",
             "wanted = orders.r_rdy & (~order.seconds | ~seconds.r_rdy)"),
    ),
}  # fmt: skip

PROOFS = (
    *(
        Proof(
            f"window-feed{'-kept' * (words > 0)}", "units/feeds.py", windows(words), 10 if words else 14, KEPT if words else WINDOWS, method="bounded",
            setting=f"bus of 4 bytes, {words} words kept", bound=f"any three products of up to 3 words, any waits, for {10 if words else 14} cycles",
        )
        for words in (0, 4)
    ),
    Proof(
        "parameter-feed", "units/feeds.py", parameters, 12, PARAMETERS, method="bounded", setting="4 rows",
        bound="any three products, any waits, for 12 cycles",
    ),
)  # fmt: skip
