"""The units around the engine: the loader, the feeds of windows and parameters, results packed, the transposer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from proofs_sequencer import steady

from sim.formal import Bench, Edit, Proof, Property
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Target
from sta_hw.spec.parameters import COLUMN

SMALL: dict[str, Any] = {
    "rows": 4, "groups": 2, "lanes": 4, "drain_lanes": 2, "window": 4, "nm": ("dense",), "columns": 8,
    "weight_words": 8, "parameter_words": 8, "norm_columns": 8, "softmax_lanes": 2,
}  # fmt: skip
ORDERS = 2


def config(**changes: Any) -> Config:
    return Config(**(SMALL | changes))


def edit(module: str, old: str, new: str) -> Edit:
    return Edit(f"sta_hw.rtl.{module}", old, new)


def stays(bench: Bench, offer: Any) -> Value:
    """An offer that was not taken is there, the same."""
    waits = bench.past(offer.valid & ~offer.ready)
    payload = Value.cast(offer.payload)
    return ~waits | (offer.valid & (payload == bench.past(payload)))


class Kept:
    """The first orders that were taken, by number; and which of them a part of the model has come to."""

    def __init__(self, bench: Bench, offer: Any, count: int = ORDERS, name: str = "order") -> None:
        self.bench, self.shape, self.name = bench, offer.payload.shape(), name
        self.orders = [bench.register(self.shape, f"{name}_{i}") for i in range(count)]
        self.count = bench.register(3, f"{name}_count")
        taken = offer.valid & offer.ready
        bench.assume(~offer.valid | (self.count < count))
        with bench.m.If(taken):
            bench.m.d.sync += self.count.eq(self.count + 1)
            for i, kept in enumerate(self.orders):
                with bench.m.If(self.count == i):
                    bench.m.d.sync += kept.eq(offer.payload)

    def at(self, number: Value) -> Any:
        """The order of a number."""
        view = Signal(self.shape, name=f"{self.name}_seen_{self.bench._number()}")
        raw = Value.cast(self.orders[-1])
        for i, kept in reversed(list(enumerate(self.orders[:-1]))):
            raw = Mux(number == i, Value.cast(kept), raw)
        self.bench.m.d.comb += Value.cast(view).eq(raw)
        return view


class Pipe:
    """What went in and has not come out: a queue of the model's own, of `depth` places."""

    def __init__(self, bench: Bench, width: int, depth: int, name: str, put: Value, data: Value, get: Value) -> None:
        m = bench.m
        self.places = [bench.register(width, f"{name}_{i}") for i in range(depth)]
        self.count = bench.register(range(depth + 1), f"{name}_count")
        m.d.sync += self.count.eq(self.count + put - get)
        for i, place in enumerate(self.places):
            behind = self.places[i + 1] if i + 1 < depth else place
            m.d.sync += place.eq(Mux(put & (self.count - get == i), data, Mux(get, behind, place)))
        self.head, self.some = self.places[0], self.count != 0


def loader(ahead: int) -> Callable[[Bench], None]:
    """Any two LOADs of up to five words; memory answers what it was asked for, when it likes."""

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(loads_ahead=ahead)
        dut = bench.load("units.loader").Loader(cfg)
        bench.block(dut)
        steady(bench, dut.order)
        steady(bench, dut.words)
        new = dut.order.payload
        most = 5
        bench.assume((new.rows <= 2) & (new.beats <= most) & ((new.rows < 2) | (new.beats <= most // 2)))
        kept = Kept(bench, dut.order)
        number = bench.register(3, "number")  # of the LOAD whose words come
        now = kept.at(number)
        under_way = number != kept.count
        total = Mux(now.rows == 0, 0, Mux(now.rows == 1, now.beats, now.beats << 1))[:3]

        # Runs: which LOAD's, and which of its own.
        asker, row = bench.register(3, "asker"), bench.register(2, "row")
        asking = kept.at(asker)
        nothing = (asking.rows == 0) | (asking.beats == 0)
        run = dut.run.payload
        asks = dut.run.valid & dut.run.ready
        with m.If((asker != kept.count) & (nothing | (asks & (row == asking.rows - 1)))):
            m.d.sync += [asker.eq(asker + 1), row.eq(0)]
        with m.Elif(asks):
            m.d.sync += row.eq(row + 1)
        address = (asking.address + Mux(row == 0, 0, asking.stride))[:32]
        asked = (run.address == address) & (run.beats == asking.beats) & (run.instruction == asking.instruction)
        bench.holds("runs", ~dut.run.valid | ((asker != kept.count) & ~nothing & asked))
        bench.holds("stable", stays(bench, dut.run))
        owed = bench.register(5, "owed")
        takes = dut.words.valid & dut.words.ready
        m.d.sync += owed.eq(owed + Mux(asks, run.beats, 0) - takes)
        bench.assume(~dut.words.valid | (owed != 0))

        # Words, as they were taken, and what is written of them.
        taken, written = bench.register(3, "taken"), bench.register(5, "written")
        words = [bench.register(32, f"word_{i}") for i in range(most)]
        for i, word in enumerate(words):
            with m.If(takes & (taken == i)):
                m.d.sync += word.eq(dut.words.payload)
        enables = dut.enable.any()
        m.d.sync += [taken.eq(taken + takes), written.eq(written + enables)]
        with m.If(dut.done):
            m.d.sync += [number.eq(number + 1), taken.eq(0), written.eq(0)]
        if ahead:  # otherwise nothing is asked for that is not this one's
            bench.holds("takes", ~takes | (under_way & (taken < total)))
        right: Value = Const(0, 1)
        end: Value = Const(0, 6)
        for target, width in dut.widths.items():
            port = {Target.VALUES: dut.values, Target.POSITIONS: dut.positions, Target.PARAMETERS: dut.parameters}
            found = port.get(target, dut.entry)
            mine: Value = Const(0, 1)
            if width <= 32:
                parts = 32 // width
                for i in range(most):
                    whole = Mux(taken > i, words[i], dut.words.payload)
                    there = (taken > i) | ((taken == i) & dut.words.valid)
                    for part in range(parts):
                        mine |= (written == i * parts + part) & there & (found == whole.word_select(part, width))
                count = (total * parts)[:6]
            else:
                parts = width // 32
                mine = (written == 0) & (taken >= parts) & (found == Cat(words[:parts]))
                count = Mux(total >= parts, 1, 0)
            chosen = now.target == target
            right |= chosen & mine & (dut.enable == 1 << target)
            end = Mux(chosen, count, end)
        bench.holds("words", ~enables | (under_way & right))
        bench.holds("addresses", ~enables | (dut.address == (now.destination + written)[:16]))
        bench.holds("done", ~dut.done | (under_way & (taken == total) & (written == end)))
        waits = (dut.run.valid & ~dut.run.ready) | (~dut.words.valid & (owed != 0))
        still = bench.register(3, "still")
        moves = takes | enables | dut.done | asks | ~under_way | waits
        m.d.sync += still.eq(Mux(moves, 0, still + 1))
        bench.holds("goes-on", still < 5)
        bench.reaches("two-loads", dut.done & (number == 1) & (total == 3))
        bench.reaches("nothing-loaded", dut.done & (now.rows == 2) & (now.beats == 0))
        bench.reaches("a-rest-dropped", dut.done & (now.target == Target.PARAMETERS) & (taken == 5) & (written == 1))

    return fill


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
        number, place = bench.register(3, "number"), bench.register(2, "place")
        now = orders.at(number)
        under_way = number != orders.count
        asks = dut.run.valid & dut.run.ready
        run = dut.run.payload
        same = (run.address == new.address) & (run.beats == new.beats) & (run.instruction == new.instruction)
        accepts = dut.order.valid & dut.order.ready
        bench.holds("runs", (asks == (accepts & ~elsewhere)) & (~asks | same))
        owed = bench.register(4, "owed")
        takes = dut.words.valid & dut.words.ready
        m.d.sync += owed.eq(owed + Mux(asks, run.beats, 0) - takes)
        bench.assume(~dut.words.valid | (owed != 0))

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
        with m.If(under_way & ((now.beats == 0) | (given & (place == now.beats - 1)))):
            m.d.sync += [number.eq(number + 1), place.eq(0)]
        with m.Elif(given):
            m.d.sync += place.eq(place + 1)
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
        still = bench.register(3, "still")
        m.d.sync += still.eq(Mux(given | waits | ~under_way | (now.beats == 0) | accepts, 0, still + 1))
        bench.holds("goes-on", still < 6)
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
    still = bench.register(3, "still")
    waits = (dut.parameters.valid & ~dut.parameters.ready) | ~Mux(now.totals, dut.totals.valid, dut.words.valid)
    m.d.sync += still.eq(Mux(takes | totals | waits | ~under_way, 0, still + 1))
    bench.holds("goes-on", still < 4)
    bench.reaches("of-both-kinds", totals & (number == 1) & (row == 3))
    bench.reaches("second", second)


class Packed(wiring.Component):
    """The packing of results with a stream before it."""

    def __init__(self, module: Any, cfg: Config) -> None:
        self.module, self.config = module, cfg
        self.bits = 16 * cfg.drain_lanes + 2
        store = stream.Signature(unsigned(8 * cfg.bus_bytes))
        super().__init__({"results": In(stream.Signature(unsigned(self.bits))), "store": Out(store)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue = SimpleNamespace(r_data=self.results.payload, r_rdy=self.results.valid, r_en=self.results.ready)
        self.module.pack(m, self.config, queue, self.store)
        return m


def packed(bench: Bench) -> None:
    """Results of 8 and of 16 bits, in turn, of whole words each."""
    m = bench.m
    cfg = config()
    dut = Packed(bench.load("units.result_packing"), cfg)
    bench.block(dut)
    steady(bench, dut.results)
    wide, transposed = dut.results.payload[32], dut.results.payload[33]
    bench.assume(~transposed)
    # Of 16 bits two results are a word, of 8 bits four: the kind changes where a word is whole.
    half, low = bench.register(1, "half"), bench.register(16, "low")
    bench.assume(~dut.results.valid | ~wide | ~half)
    takes = dut.results.valid & dut.results.ready
    bytes_ = Cat(dut.results.payload[:8], dut.results.payload[16:24])
    with m.If(takes & ~wide):
        m.d.sync += [half.eq(~half), low.eq(bytes_)]
    given = dut.store.valid & dut.store.ready
    whole = Mux(wide, dut.results.payload[:32], Cat(low, bytes_))
    depth = 8
    pipe = Pipe(bench, 32, depth, "words", takes & (wide | half), whole, given)
    bench.holds("words", ~dut.store.valid | (pipe.some & (dut.store.payload == pipe.head)))
    bench.holds("stable", stays(bench, dut.store))
    still = bench.register(4, "still")
    waits = (dut.store.valid & ~dut.store.ready) | (~dut.results.valid & ~pipe.some)
    m.d.sync += still.eq(Mux(takes | given | waits, 0, still + 1))
    bench.holds("goes-on", still < 8)
    was_wide = bench.past(wide & takes)
    bench.reaches("both-kinds", given & bench.past(given) & takes & (pipe.count == 3))
    bench.reaches("full", dut.results.valid & ~dut.results.ready & (pipe.count >= 3) & ~was_wide)


def transposed(groups: int, lanes: int, rows: int = 4) -> Callable[[Bench], None]:
    """One byte of a block, any of them, is looked at, of one block after the other."""

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(groups=groups, lanes=lanes, rows=rows)
        dut = bench.load("units.transposer").Transposer(cfg)
        bench.block(dut)
        steady(bench, dut.source)
        count = groups * rows // lanes
        bits = max(1, (count - 1).bit_length())
        into, out = bench.register(bits, "into"), bench.register(bits, "out")
        row, column = bench.chosen(range(rows), "row"), bench.chosen(range(groups), "column")
        bench.assume((row < rows) & (column < groups))
        source = (column * rows + row)[: (groups * rows - 1).bit_length()]
        target = (row * groups + column)[: (groups * rows - 1).bit_length()]
        low = lanes.bit_length() - 1
        # Of two blocks in turn: the next one may come while this one's last word waits.
        byte = [bench.register(8, f"byte_{i}") for i in range(2)]
        turn_in, turn_out = bench.register(1, "turn_in"), bench.register(1, "turn_out")
        takes, given = dut.source.valid & dut.source.ready, dut.target.valid & dut.target.ready
        whole = bench.register(2, "whole")  # blocks that are in and not out
        m.d.sync += [into.eq(into + takes), out.eq(out + given)]
        m.d.sync += whole.eq(whole + (takes & (into == count - 1)) - (given & (out == count - 1)))
        for i, kept in enumerate(byte):
            with m.If(takes & (into == source[low:]) & (turn_in == i)):
                m.d.sync += kept.eq(dut.source.payload.word_select(source[:low], 8))
        m.d.sync += [
            turn_in.eq(turn_in ^ (takes & (into == count - 1))),
            turn_out.eq(turn_out ^ (given & (out == count - 1))),
        ]
        mine = out == target[low:]
        found = dut.target.payload.word_select(target[:low], 8)
        bench.holds("bytes", ~dut.target.valid | ~mine | (found == Mux(turn_out, byte[1], byte[0])))
        bench.holds("whole", ~dut.target.valid | (whole != 0))
        bench.holds("takes", ~takes | ((whole == 0) | ((whole == 1) & (out == count - 1))))
        bench.holds("stable", stays(bench, dut.target))
        still = bench.register(2, "still")
        waits = (dut.target.valid & ~dut.target.ready) | (~dut.source.valid & (whole == 0))
        m.d.sync += still.eq(Mux(takes | given | waits, 0, still + 1))
        bench.holds("goes-on", still < 2)
        bench.reaches("second-block", given & mine & (bench.past(bench.past(1), 2 * count)))

    return fill


def expander(bench: Bench) -> None:
    """Products of INT8 words, or of one run of two weights of 4 bits behind its header and the one that is none."""
    m = bench.m
    cfg = config(groups=1, window=32, features=("blocks4",))
    dut = bench.load("units.expander").Expander(cfg)
    bench.block(dut)
    steady(bench, dut.order)
    steady(bench, dut.words)
    new, word = dut.order.payload, dut.words.payload
    bench.assume(~new.blocks | (new.run == 2))
    orders = Kept(bench, dut.order, 3)
    taking, place = bench.register(3, "taking"), bench.register(3, "place")
    now = orders.at(taking)
    takes = dut.words.valid & dut.words.ready
    bench.assume(~dut.words.valid | (taking != orders.count))  # a product's words are read as it starts
    bench.assume(~dut.words.valid | ~now.blocks | (word.last == (place == 6)))
    m.d.sync += [place.eq(Mux(takes & word.last, 0, place + takes)), taking.eq(taking + (takes & word.last))]
    header = bench.register(24, "header")
    with m.If(takes & (place < 3)):
        m.d.sync += header.eq(Cat(header[8:], word.word))
    scale, least = header[:12], header[12:]

    def weight(code: Value) -> Value:
        return ((code * scale + Cat(Const(0, 3), least)) >> 7)[:8]

    given = dut.values.valid & dut.values.ready
    # Two values of a word of codes, one of another.
    codes = takes & now.blocks & (place == 6)
    plain = takes & ~now.blocks
    ends = Cat(weight(word.word[:4]), Const(0, 1), weight(word.word[4:]), Const(1, 1), Const(1, 1))
    one = Cat(word.word, word.last, Const(0, 9), Const(0, 1))
    second = bench.register(1, "second")
    two = Signal()
    pipe = Pipe(bench, 19, 4, "values", codes | plain, Mux(codes, ends, one), given & (~two | second))
    m.d.comb += two.eq(pipe.head[18])
    m.d.sync += second.eq(Mux(given, two & ~second, second))
    found = Cat(dut.values.payload.values[0], dut.values.payload.last)
    bench.holds("values", ~dut.values.valid | (pipe.some & (found == Mux(second, pipe.head[9:18], pipe.head[:9]))))
    bench.holds("stable", stays(bench, dut.values))
    still = bench.register(5, "still")
    waits = (dut.values.valid & ~dut.values.ready) | (~dut.words.valid & ~pipe.some)
    m.d.sync += still.eq(Mux(takes | given | waits, 0, still + 1))
    bench.holds("goes-on", still < 12)
    bench.reaches("a-block", given & second)
    bench.reaches("bytes", given & ~two & (taking == 2))


LOADER, FEEDS, PACKING, TRANSPOSER, EXPANDER = (
    f"units.{name}" for name in ("loader", "feeds", "result_packing", "transposer", "expander")
)  # fmt: skip
STABLE = "What is offered and not taken stays, and stays what it is."
LOADS = {
    "runs": Property(
        "Memory is asked for the runs of each LOAD, in order, each once, and for none of a LOAD of nothing.",
        edit(LOADER, "m.d.sync += [asked.eq(asked - 1), next_address.eq(next_address + order.stride)]",
             "m.d.sync += [asked.eq(asked - 1), next_address.eq(next_address + order.beats)]"),
    ),
    "stable": Property(STABLE, edit(LOADER, "self.run.valid.eq((asked != 0) & ~nothing)", "self.run.valid.eq(asked != 0)")),
    "words": Property(
        "What is written is the LOAD's words, in order, in the width of the memory that it names, and in no other memory.",
        edit(LOADER, "self.words.valid & taken & chosen", "self.words.valid & taken"),
    ),
    "addresses": Property(
        "It is written from the destination on, word behind word.",
        edit(LOADER, "m.d.sync += self.address.eq(self.address + 1)", "m.d.sync += self.address.eq(self.address + step)"),
    ),
    "done": Property(
        "A LOAD is said to be done once, when its words are written, all of them but a rest that fills none.",
        edit(LOADER, 'm.State("FLUSH"), m.If(empty)', 'm.State("FLUSH")'),
    ),
    "goes-on": Property(
        "A LOAD that waits for nothing goes on within 5 cycles.",
        edit(LOADER, "with m.If(nothing):", "with m.If(nothing & (order.rows == 0)):"),
    ),
}  # fmt: skip
LOADS_AHEAD = LOADS | {
    "takes": Property(
        "A LOAD takes its own words and none of the next one's.",
        edit(LOADER, "with m.If(runs_left == 1):", "with m.If(runs_left == 0):"),
    ),
    "runs": Property(
        LOADS["runs"].sentence, edit(LOADER, "asked.eq(Mux(new.beats == 0, 0, new.rows))", "asked.eq(new.rows)")
    ),
    "stable": Property(
        STABLE, edit(LOADER, "self.run.valid.eq(~free)", "self.run.valid.eq(~free & ~self.words.valid)")
    ),
}
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
PACKED = {
    "words": Property(
        "Results become words of 2 or 4 of them, in order, each once, also where the kind changes.",
        edit(PACKING, "queue.r_rdy & empty)", "queue.r_rdy)"),
    ),
    "stable": Property(STABLE, edit(PACKING, "gate.r_en.eq(store.ready)", "gate.r_en.eq(1)")),
    "goes-on": Property(
        "Of 8 cycles in a row a result is taken in one, or a word given, or there is nothing to do.",
        edit(PACKING, "Mux(leaves, steps, 0)", "Mux(leaves & kind[0], steps, 0)"),
    ),
}
TRANSPOSED = {
    "bytes": Property(
        "Byte (row, column) of a block goes in at place column * rows + row and comes out at row * groups + column.",
        edit(TRANSPOSER, "turn.eq(Mux(giving, row, column * at_once))", "turn.eq(Mux(giving, 0, column * at_once))"),
    ),
    "whole": Property("Nothing of a block comes out before all of it is in.",
                      edit(TRANSPOSER, "fetched.eq(giving)", "fetched.eq(giving | self.source.valid)")),
    "takes": Property(
        "A block is not begun before the last one, but for the word that waits, is out.",
        edit(TRANSPOSER, "self.source.ready.eq(~giving)", "self.source.ready.eq(1)"),
    ),
    "stable": Property(STABLE, edit(TRANSPOSER, "advance.eq(~fetched | self.target.ready)", "advance.eq(1)")),
    "goes-on": Property(
        "A word is taken or given in each second cycle, unless one side waits.",
        edit(TRANSPOSER, "advance.eq(~fetched | self.target.ready)", "advance.eq(~fetched & self.target.ready)"),
    ),
}  # fmt: skip
EXPANDED = {
    "values": Property(
        "A weight of code c in a block of scale s and minimum m is (8 m + c s) / 128, rounded down, for all of them; INT8 "
        "values pass as they are; each comes once, in order, the last one marked.",
        edit(
            EXPANDER,
            "level.eq(Mux(start, Cat(Const(0, _FINER), header[_SCALE:]), level + (scale << 1)))",
            "level.eq(Mux(start, Cat(Const(0, _FINER), header[_SCALE:]), level + scale))",
        ),
    ),
    "stable": Property(STABLE, edit(EXPANDER, "& (~out.valid | out.ready))", "& (~out.valid | out.ready | phase))")),
    "goes-on": Property(
        "Of 12 cycles in a row a word is taken or a value given in one, unless one side waits.",
        edit(EXPANDER, "full.bit_select(word.table, 1))", "full.all())"),
    ),
}

PROOFS = (
    Proof(
        "expander", "units/expander.py", expander, 24, EXPANDED, method="bounded", setting="1 group, window 32", reach_depth=30,
        bound="any three products of INT8, or of one block of two weights; any waits, for 24 cycles",
    ),
    *(
        Proof(
            f"loader{'-ahead' * ahead}", "units/loader.py", loader(ahead), 20, LOADS_AHEAD if ahead else LOADS, method="bounded",
            setting=f"bus of 4 bytes, loads_ahead {ahead}", bound="any two LOADs of up to 5 words, any memory and waits, for 20 cycles",
            reach_depth=24,
        )
        for ahead in (0, 1)
    ),
    *(
        Proof(
            f"window-feed{'-kept' * (words > 0)}", "units/feeds.py", windows(words), 14, KEPT if words else WINDOWS, method="bounded",
            setting=f"bus of 4 bytes, {words} words kept", bound="any three products of up to 3 words, any waits, for 14 cycles",
        )
        for words in (0, 4)
    ),
    Proof(
        "parameter-feed", "units/feeds.py", parameters, 12, PARAMETERS, method="bounded", setting="4 rows",
        bound="any three products, any waits, for 12 cycles",
    ),
    Proof(
        "packing", "units/result_packing.py", packed, 14, PACKED, method="bounded", setting="2 results a cycle, bus of 4 bytes",
        bound="any results of 8 and 16 bits, not transposed, any waits, for 14 cycles",
    ),
    *(
        Proof(
            f"transposer-{rows}-{groups}-{lanes}", "units/transposer.py", transposed(groups, lanes, rows), 2 * groups * rows // lanes + 6, TRANSPOSED,
            method="bounded", setting=f"{rows} rows, {groups} groups, bus of {lanes} bytes", reach_depth=30,
            bound="every byte of the first blocks, any waits",
        )
        for rows, groups, lanes in ((4, 2, 2), (4, 4, 2), (4, 2, 4))
    ),
)  # fmt: skip
